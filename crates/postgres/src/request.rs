//! What a client asks: the bodies of its messages, and the first packets of a
//! connection, which have no kind.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};

use crate::error::{Problem, sqlstate};

/// The largest first packet, as PostgreSQL has it.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

/// What `Describe` and `Close` are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// A message of a client that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        rows_max: u64,
    },
    Close(Target),
    Sync,
    Flush,
    Terminate,
    /// Of a `COPY FROM` that was refused, or late.
    Copy,
}

/// Values for a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) formats: Vec<Format>,
    pub(crate) values: Vec<Option<Bytes>>,
    pub(crate) result_formats: Vec<Format>,
}

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    Tls,
    Gss,
    Cancel { process: u32, secret: u32 },
    Startup { minor: u16, parameters: BTreeMap<String, String> },
}

impl Request {
    /// Reads a message's body.
    ///
    /// # Errors
    /// What is not as the protocol says; one of an unknown kind is fatal.
    pub(crate) fn decode(kind: u8, body: Bytes) -> Result<Self, Problem> {
        let mut body = Body(body);
        let request = match kind {
            b'Q' => Self::Query(body.text()?),
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                Self::Parse { name, sql, types: body.list(4, Body::u32)? }
            }
            b'B' => Self::Bind(Bind {
                portal: body.text()?,
                statement: body.text()?,
                formats: body.list(2, Body::format)?,
                values: body.list(4, Body::value)?,
                result_formats: body.list(2, Body::format)?,
            }),
            b'D' => Self::Describe(body.target()?),
            b'C' => Self::Close(body.target()?),
            b'E' => {
                let portal = body.text()?;
                // Zero, and what PostgreSQL reads as negative, is no limit.
                let rows_max = u64::try_from(body.u32()?.cast_signed()).unwrap_or_default();
                Self::Execute { portal, rows_max }
            }
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            b'X' => Self::Terminate,
            b'd' | b'c' | b'f' => return Ok(Self::Copy),
            b'F' => {
                let message = "the function call protocol is not supported";
                return Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
            }
            other => {
                let message = format!("a message of the unknown kind {other}");
                return Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message));
            }
        };
        body.end().map(|()| request)
    }
}

impl Opening {
    /// Reads a first packet, without its length.
    ///
    /// # Errors
    /// What is none, and other versions of the protocol; all are fatal.
    pub(crate) fn decode(packet: Bytes) -> Result<Self, Problem> {
        Self::read(Body(packet)).map_err(|problem| Problem { is_fatal: true, ..problem })
    }

    fn read(mut body: Body) -> Result<Self, Problem> {
        let opening = match body.u32()? {
            SSL_REQUEST => Self::Tls,
            GSS_REQUEST => Self::Gss,
            CANCEL_REQUEST => Self::Cancel { process: body.u32()?, secret: body.u32()? },
            version => {
                let (major, minor) = ((version >> 16) as u16, (version & 0xffff) as u16);
                if major != 3 {
                    let message =
                        format!("version {major}.{minor} of the protocol is not supported");
                    return Err(Problem::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message)
                        .hint("the server speaks version 3.0"));
                }
                let mut parameters = BTreeMap::new();
                loop {
                    let name = body.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.insert(name, body.text()?);
                }
                Self::Startup { minor, parameters }
            }
        };
        body.end().map(|()| opening)
    }
}

/// The message in answer to a SASL challenge: a mechanism and its first
/// message.
pub(crate) fn sasl_first(body: Bytes) -> Result<(String, Option<Bytes>), Problem> {
    let mut body = Body(body);
    let first = (body.text()?, body.value()?);
    body.end().map(|()| first)
}

/// A message that is read from its front.
struct Body(Bytes);

impl Body {
    fn u16(&mut self) -> Result<u16, Problem> {
        self.need(2).map(|()| self.0.get_u16())
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.need(4).map(|()| self.0.get_u32())
    }

    fn format(&mut self) -> Result<Format, Problem> {
        match self.u16()? {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => {
                let message = format!("{other} is not the code of a format");
                Err(Problem::new(sqlstate::PROTOCOL_VIOLATION, message))
            }
        }
    }

    fn value(&mut self) -> Result<Option<Bytes>, Problem> {
        let length = self.u32()?;
        if length == u32::MAX {
            return Ok(None);
        }
        self.need(length as usize)?;
        Ok(Some(self.0.split_to(length as usize)))
    }

    fn text(&mut self) -> Result<String, Problem> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                let message = "text is not in UTF-8, the only encoding that is spoken";
                Err(Problem::new(sqlstate::STRING_NOT_UTF8, message))
            }
        }
    }

    fn target(&mut self) -> Result<Target, Problem> {
        self.need(1)?;
        match self.0.get_u8() {
            b'S' => self.text().map(Target::Statement),
            b'P' => self.text().map(Target::Portal),
            _ => Err(malformed()),
        }
    }

    /// A counted list whose elements have at least `bytes_min`.
    fn list<T>(
        &mut self,
        bytes_min: usize,
        element: impl Fn(&mut Self) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        let count = usize::from(self.u16()?);
        self.need(count * bytes_min)?;
        (0..count).map(|_| element(self)).collect()
    }

    fn need(&self, bytes: usize) -> Result<(), Problem> {
        if self.0.remaining() >= bytes { Ok(()) } else { Err(malformed()) }
    }

    fn end(&self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

fn malformed() -> Problem {
    // Whoever is in the middle of a message does not know where the next begins.
    Problem::fatal(sqlstate::PROTOCOL_VIOLATION, "a message is not as the protocol says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let check = |kind, body: &[u8], expected: Request| {
            assert_eq!(Request::decode(kind, Bytes::copy_from_slice(body)), Ok(expected));
        };
        check(b'Q', b"select 1\0", Request::Query("select 1".to_owned()));
        let (name, sql) = ("s".to_owned(), "x".to_owned());
        check(b'P', b"s\0x\0\0\x01\0\0\0\x17", Request::Parse { name, sql, types: vec![23] });
        let bind = Bind {
            portal: String::new(),
            statement: "s".to_owned(),
            formats: vec![Format::Binary],
            values: vec![Some(Bytes::from_static(b"ab")), None],
            result_formats: vec![Format::Text],
        };
        check(
            b'B',
            b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0",
            Request::Bind(bind),
        );
        check(b'D', b"Sx\0", Request::Describe(Target::Statement("x".to_owned())));
        check(b'C', b"P\0", Request::Close(Target::Portal(String::new())));
        let portal = String::new();
        check(b'E', b"\0\0\0\0\x07", Request::Execute { portal: portal.clone(), rows_max: 7 });
        check(b'E', b"\0\xff\xff\xff\xff", Request::Execute { portal, rows_max: 0 });
        check(b'S', b"", Request::Sync);
    }

    #[test]
    fn what_is_malformed_is_a_problem() {
        for (kind, body, is_fatal) in [
            (b'Q', &b"no end"[..], true),
            (b'Q', b"a\0b", true),
            (b'Q', b"\xff\0", false),
            (b'P', b"\0\0", true),
            (b'P', b"\0\0\xff\xff", true),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x09ab", true),
            (b'B', b"\0\0\0\x01\0\x02", false),
            (b'B', b"\0\0\0\0\xff\xff", true),
            (b'D', b"", true),
            (b'D', b"Zx\0", true),
            (b'E', b"\0", true),
            (b'S', b"x", true),
            (b'F', b"", false),
            (b'!', b"", true),
        ] {
            let problem = Request::decode(kind, Bytes::copy_from_slice(body)).unwrap_err();
            assert_eq!(problem.is_fatal, is_fatal, "{body:?}");
        }
    }

    #[test]
    fn first_packets_are_read() {
        let check = |body: &[u8], expected: Option<Opening>| {
            assert_eq!(Opening::decode(Bytes::copy_from_slice(body)).ok(), expected, "{body:?}");
        };
        check(&SSL_REQUEST.to_be_bytes(), Some(Opening::Tls));
        check(&GSS_REQUEST.to_be_bytes(), Some(Opening::Gss));
        let cancel = [CANCEL_REQUEST.to_be_bytes(), [0, 0, 0, 1], [0, 0, 0, 2]].concat();
        check(&cancel, Some(Opening::Cancel { process: 1, secret: 2 }));
        let parameters = BTreeMap::from([("user".to_owned(), "alice".to_owned())]);
        let startup = Some(Opening::Startup { minor: 0, parameters });
        check(b"\0\x03\0\0user\0alice\0\0", startup);
        check(b"\0\x03\0\0user\0alice\0", None);
        check(b"\0\x03\0\0user\0", None);
        check(b"\0\x02\0\0", None);
        check(b"\x16\x03\x01\0", None);
        check(b"", None);
        check(&cancel[..8], None);
    }

    #[test]
    fn fuzz_requests() {
        let seeds: Vec<Vec<u8>> = vec![
            b"Qselect 1\0".to_vec(),
            b"Ps\0select $1\0\0\x01\0\0\0\x17".to_vec(),
            b"B\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0".to_vec(),
            b"DSx\0".to_vec(),
            b"E\0\0\0\0\x07".to_vec(),
        ];
        let target = |input: &[u8]| {
            if let Some((kind, body)) = input.split_first() {
                // What it says is free; that it comes back is what counts.
                let _ = Request::decode(*kind, Bytes::copy_from_slice(body));
            }
        };
        aquifer_testkit::fuzz("postgres_requests", 0.2, &seeds, target);
    }

    #[test]
    fn fuzz_first_packets() {
        let seeds: Vec<Vec<u8>> = vec![
            b"\0\x03\0\0user\0alice\0database\0default\0\0".to_vec(),
            SSL_REQUEST.to_be_bytes().to_vec(),
            [CANCEL_REQUEST.to_be_bytes(), [0, 0, 0, 1], [0, 0, 0, 2]].concat(),
        ];
        let target = |input: &[u8]| {
            let _ = Opening::decode(Bytes::copy_from_slice(input));
            let _ = sasl_first(Bytes::copy_from_slice(input));
        };
        aquifer_testkit::fuzz("postgres_first_packets", 0.2, &seeds, target);
    }
}
