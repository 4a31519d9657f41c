//! The parameters of a query string; unknown and repeated ones are refused by
//! name, so that a misspelt one is never silently ignored.

use std::str::FromStr;

use bytes::Bytes;

use crate::Problem;

/// The parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    pairs: Vec<(&'static str, Vec<u8>)>,
}

impl Parameters {
    /// Reads `query` (without the `?`), allowing the names in `known`.
    pub(crate) fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(&'static str, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let Some(known) = known.iter().find(|known| known.as_bytes() == name) else {
                let name: String = String::from_utf8_lossy(&name).chars().take(80).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::invalid(format!(
                    "the parameter '{name}' is not known here; known are: {known}"
                ))
                .member("parameter", name));
            };
            if pairs.iter().any(|(before, _)| before == known) {
                return Err(Problem::invalid(format!("the parameter '{known}' is given twice"))
                    .member("parameter", *known));
            }
            pairs.push((known, decode(value)?));
        }
        Ok(Self { pairs })
    }

    /// The bytes of a parameter.
    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        let (_, value) = self.pairs.iter().find(|(given, _)| *given == name)?;
        Some(Bytes::copy_from_slice(value))
    }

    /// The text of a parameter.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let Some((_, value)) = self.pairs.iter().find(|(given, _)| *given == name) else {
            return Ok(None);
        };
        std::str::from_utf8(value).map(Some).map_err(|_| {
            Problem::invalid(format!("the parameter '{name}' is not valid UTF-8"))
                .member("parameter", name)
        })
    }

    /// A parameter that parses; `what` says what it should be.
    pub(crate) fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let text: String = text.chars().take(80).collect();
            Problem::invalid(format!("the parameter '{name}' is '{text}', it should be {what}"))
                .member("parameter", name)
        })
    }
}

/// Undoes percent encoding and `+` for a space (WHATWG URL,
/// `application/x-www-form-urlencoded`).
fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => {
                    return Err(Problem::invalid(
                        "the query string has a '%' without two hexadecimal digits",
                    ));
                }
            },
            other => other,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_refused_by_name() {
        let known = ["key", "limit"];
        let parse = |query| Parameters::parse(Some(query), &known);
        let check = |query, part: &str| {
            let problem = parse(query).unwrap_err();
            assert!(problem.detail().contains(part), "{query}: {}", problem.detail());
        };
        check("keys=1", "'keys' is not known here; known are: key, limit");
        check("key=1&key=2", "'key' is given twice");
        check("key=%4", "hexadecimal");
        let given = parse("key=a%2fb+c%FF&limit=12&&").unwrap();
        assert_eq!(given.bytes("key").as_deref(), Some(&b"a/b c\xff"[..]));
        assert!(given.text("key").is_err());
        assert_eq!(given.parsed::<u32>("limit", "a number").unwrap(), Some(12));
        assert_eq!(Parameters::parse(None, &[]).unwrap().text("key").unwrap(), None);
        let given = parse("limit=-1").unwrap();
        let problem = given.parsed::<u32>("limit", "a number from 0").unwrap_err();
        assert_eq!(problem.detail(), "the parameter 'limit' is '-1', it should be a number from 0");
    }

    #[test]
    fn fuzz_http_queries() {
        let seeds = [
            &b"partition=0&offset=5&limit=10&max_bytes=100&wait_ms=5"[..],
            b"time=2026-03-01T12:00:00%2B01:00&group=a%20b",
            b"from=0:15,1:7&partition=0,3,7",
        ]
        .map(<[u8]>::to_vec);
        let known =
            ["partition", "offset", "limit", "max_bytes", "wait_ms", "time", "group", "from"];
        aquifer_testkit::fuzz("http_queries", 0.2, &seeds, |bytes| {
            let Ok(query) = std::str::from_utf8(bytes) else { return };
            let Ok(given) = Parameters::parse(Some(query), &known) else { return };
            for name in known {
                let _ = given.parsed::<u64>(name, "a number");
                if let Ok(Some(text)) = given.text(name) {
                    assert!(text.len() <= query.len());
                    let _ = crate::time::parse(text);
                    let _ = crate::read::offset(text);
                    let _ = crate::tail::from(text);
                    let _ = crate::tail::partition_list(text, 4);
                }
            }
        });
    }
}
