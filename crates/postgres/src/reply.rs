//! What the server says: messages put behind each other into a buffer.

use bytes::{BufMut as _, BytesMut};

use crate::error::Problem;
use crate::request::Format;
use crate::types::PgType;

/// Whether a transaction is open, as `ReadyForQuery` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Idle,
    Open,
    Failed,
}

/// A column as `RowDescription` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnHead {
    pub(crate) name: String,
    pub(crate) pg_type: PgType,
    pub(crate) format: Format,
}

/// Puts a message: its kind, the length of what `body` puts, and that.
fn message(to: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    to.put_u8(kind);
    with_length(to, body);
}

/// Puts a length that counts itself, and what it is the length of.
fn with_length(to: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = to.len();
    to.put_u32(0);
    body(to);
    let length = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = to.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Text up to its end; a NUL inside would end it for the client.
fn text(to: &mut BytesMut, text: &str) {
    to.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    to.put_u8(0);
}

pub(crate) fn authentication_ok(to: &mut BytesMut) {
    message(to, b'R', |to| to.put_u32(0));
}

pub(crate) fn authentication_sasl(to: &mut BytesMut, mechanism: &str) {
    message(to, b'R', |to| {
        to.put_u32(10);
        text(to, mechanism);
        to.put_u8(0);
    });
}

pub(crate) fn authentication_sasl_continue(to: &mut BytesMut, challenge: &[u8]) {
    message(to, b'R', |to| {
        to.put_u32(11);
        to.put_slice(challenge);
    });
}

pub(crate) fn authentication_sasl_final(to: &mut BytesMut, signature: &[u8]) {
    message(to, b'R', |to| {
        to.put_u32(12);
        to.put_slice(signature);
    });
}

/// The client asked for a minor version or for options that are not spoken: it
/// is told the newest version, whole, and the options.
pub(crate) fn negotiate_version(to: &mut BytesMut, unknown: &[&str]) {
    message(to, b'v', |to| {
        to.put_u32(3 << 16);
        to.put_u32(u32::try_from(unknown.len()).unwrap_or_default());
        unknown.iter().for_each(|option| text(to, option));
    });
}

pub(crate) fn parameter_status(to: &mut BytesMut, name: &str, value: &str) {
    message(to, b'S', |to| {
        text(to, name);
        text(to, value);
    });
}

pub(crate) fn backend_key(to: &mut BytesMut, process: u32, secret: u32) {
    message(to, b'K', |to| {
        to.put_u32(process);
        to.put_u32(secret);
    });
}

pub(crate) fn ready(to: &mut BytesMut, transaction: Transaction) {
    message(to, b'Z', |to| {
        to.put_u8(match transaction {
            Transaction::Idle => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        });
    });
}

pub(crate) fn parse_complete(to: &mut BytesMut) {
    message(to, b'1', |_| {});
}

pub(crate) fn bind_complete(to: &mut BytesMut) {
    message(to, b'2', |_| {});
}

pub(crate) fn close_complete(to: &mut BytesMut) {
    message(to, b'3', |_| {});
}

pub(crate) fn no_data(to: &mut BytesMut) {
    message(to, b'n', |_| {});
}

pub(crate) fn portal_suspended(to: &mut BytesMut) {
    message(to, b's', |_| {});
}

pub(crate) fn empty_query(to: &mut BytesMut) {
    message(to, b'I', |_| {});
}

pub(crate) fn command_complete(to: &mut BytesMut, tag: &str) {
    message(to, b'C', |to| text(to, tag));
}

pub(crate) fn parameter_description(to: &mut BytesMut, types: &[u32]) {
    message(to, b't', |to| {
        to.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
        types.iter().take(u16::MAX.into()).for_each(|oid| to.put_u32(*oid));
    });
}

pub(crate) fn row_description(to: &mut BytesMut, columns: &[ColumnHead]) {
    message(to, b'T', |to| {
        to.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for column in columns.iter().take(u16::MAX.into()) {
            text(to, &column.name);
            // Neither table nor column is told.
            to.put_u32(0);
            to.put_u16(0);
            to.put_u32(column.pg_type.oid);
            to.put_i16(column.pg_type.bytes);
            to.put_i32(-1);
            to.put_u16(match column.format {
                Format::Text => 0,
                Format::Binary => 1,
            });
        }
    });
}

/// A row of `columns` values, which `values` puts, each by [`value`] or
/// [`null`].
pub(crate) fn data_row(to: &mut BytesMut, columns: usize, values: impl FnOnce(&mut BytesMut)) {
    message(to, b'D', |to| {
        to.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
        values(to);
    });
}

/// A value, as `write` puts it.
pub(crate) fn value(to: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = to.len();
    to.put_u32(0);
    write(to);
    // Unlike a message's, this length does not count itself.
    let length = u32::try_from(to.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = to.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Null.
pub(crate) fn null(to: &mut BytesMut) {
    to.put_i32(-1);
}

/// `COPY … TO STDOUT` begins; all columns are text.
pub(crate) fn copy_out(to: &mut BytesMut, columns: usize) {
    message(to, b'H', |to| {
        to.put_u8(0);
        to.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
        (0..columns.min(u16::MAX.into())).for_each(|_| to.put_u16(0));
    });
}

pub(crate) fn copy_data(to: &mut BytesMut, line: impl FnOnce(&mut BytesMut)) {
    message(to, b'd', line);
}

pub(crate) fn copy_done(to: &mut BytesMut) {
    message(to, b'c', |_| {});
}

pub(crate) fn error(to: &mut BytesMut, problem: &Problem) {
    let severity = if problem.is_fatal { "FATAL" } else { "ERROR" };
    message(to, b'E', |to| fields(to, severity, problem));
}

/// Something that the client may want to know, and that changes nothing.
pub(crate) fn warning(to: &mut BytesMut, problem: &Problem) {
    message(to, b'N', |to| fields(to, "WARNING", problem));
}

fn fields(to: &mut BytesMut, severity: &str, problem: &Problem) {
    let position = problem.position.map(|position| position.to_string());
    for (code, value) in [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(problem.sqlstate.as_str())),
        (b'M', Some(problem.message.as_str())),
        (b'H', problem.hint.as_deref()),
        (b'P', position.as_deref()),
        (b'R', problem.routine.as_deref()),
    ] {
        if let Some(value) = value {
            to.put_u8(code);
            text(to, value);
        }
    }
    to.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::sqlstate;

    fn check(put: impl FnOnce(&mut BytesMut), expected: &[u8]) {
        let mut buffer = BytesMut::new();
        put(&mut buffer);
        assert_eq!(&buffer[..], expected);
    }

    #[test]
    fn messages_are_as_the_protocol_has_them() {
        check(|to| ready(to, Transaction::Open), b"Z\0\0\0\x05T");
        check(|to| command_complete(to, "SELECT 2"), b"C\0\0\0\x0dSELECT 2\0");
        check(|to| authentication_sasl(to, "X"), b"R\0\0\0\x0b\0\0\0\x0aX\0\0");
        check(|to| negotiate_version(to, &["_pq_.x"]), b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0");
        check(|to| parameter_description(to, &[20]), b"t\0\0\0\x0a\0\x01\0\0\0\x14");
        check(
            |to| {
                data_row(to, 2, |to| {
                    value(to, |to| to.put_slice(b"ab"));
                    null(to);
                });
            },
            b"D\0\0\0\x10\0\x02\0\0\0\x02ab\xff\xff\xff\xff",
        );
        let problem = Problem { position: Some(3), ..Problem::new(sqlstate::SYNTAX, "no\0pe") };
        check(|to| error(to, &problem), b"E\0\0\0\x21SERROR\0VERROR\0C42601\0Mno\0P3\0\0");
    }
}
