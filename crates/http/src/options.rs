//! The limits and addresses of the HTTP door.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// A bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// A token of 8 to 4096 visible ASCII characters; space around it, such as
    /// the line end of a file, is dropped.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if !(8..=4096).contains(&text.len()) {
            return Err("a token has 8 to 4096 characters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token consists of visible ASCII characters");
        }
        Ok(Self(text.into()))
    }

    /// Whether `presented` is this token, in a time that depends on its length
    /// alone.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How HTTP is served. Every queue and size has its limit here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpOptions {
    /// The address of HTTP and of the status page; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A file with the bearer token that every request must carry.
    pub token_file: Option<PathBuf>,
    /// The token itself, as whoever starts the server read it.
    #[serde(skip)]
    pub token: Option<Token>,
    /// Connections open at a time; more wait in the system's queue.
    pub connections_max: usize,
    /// A connection whose peer takes nothing and answers nothing for this long
    /// is cut off; in ms.
    pub peer_ms_max: u32,
    /// A request's head must arrive within this; in ms.
    pub header_ms_max: u64,
    /// A request's body must arrive within this; in ms.
    pub request_ms_max: u64,
    /// The largest request body; larger ones are answered with 413.
    pub request_bytes_max: usize,
    /// The most records in one request.
    pub request_records_max: usize,
    /// Bytes of request bodies in memory at a time, over all connections;
    /// beyond them requests are answered with 429.
    pub requests_bytes_max: usize,
    /// The largest batch that is built of a request's records; more records of
    /// one partition become several batches of the same atomic append.
    pub batch_bytes_max: usize,
    /// The bytes of records that a read answers where it does not say.
    pub read_bytes_default: usize,
    /// The most bytes of records that a read may ask for.
    pub read_bytes_max: usize,
    /// Bytes of records that reads may be answering at a time, over all
    /// connections; beyond them requests are answered with 429.
    pub reads_bytes_max: usize,
    /// The longest that a read may wait for records; in ms.
    pub read_wait_ms_max: u64,
    /// Live tails at a time; beyond them requests are answered with 429.
    pub tail_clients_max: usize,
    /// Bytes of rendered batches that tails share, so that a record is rendered
    /// once for all of them.
    pub tail_cache_bytes_max: usize,
    /// The most partitions that one tail follows.
    pub tail_partitions_max: usize,
    /// An idle tail sends a comment this often; in ms.
    pub tail_keep_alive_ms: u64,
    /// How long a stop waits for requests under way; in ms.
    pub drain_ms_max: u64,
    /// Logs every request under the target `aquifer::access`.
    pub access_log: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            token_file: None,
            token: None,
            connections_max: 1024,
            peer_ms_max: 60_000,
            header_ms_max: 30_000,
            request_ms_max: 60_000,
            request_bytes_max: 16 << 20,
            request_records_max: 1_000_000,
            requests_bytes_max: 256 << 20,
            batch_bytes_max: 8 << 20,
            read_bytes_default: 1 << 20,
            read_bytes_max: 8 << 20,
            reads_bytes_max: 256 << 20,
            read_wait_ms_max: 60_000,
            tail_clients_max: 256,
            tail_cache_bytes_max: 32 << 20,
            tail_partitions_max: 256,
            tail_keep_alive_ms: 15_000,
            drain_ms_max: 10_000,
            access_log: false,
        }
    }
}

impl HttpOptions {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The field's name and the rule that it breaks.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        for (field, value) in [
            ("connections_max", self.connections_max),
            ("request_bytes_max", self.request_bytes_max),
            ("request_records_max", self.request_records_max),
            ("read_bytes_default", self.read_bytes_default),
            ("read_bytes_max", self.read_bytes_max),
            ("tail_clients_max", self.tail_clients_max),
            ("tail_partitions_max", self.tail_partitions_max),
        ] {
            if value == 0 {
                return Err((field, "it is at least 1"));
            }
        }
        for (field, value) in [
            ("peer_ms_max", self.peer_ms_max.into()),
            ("header_ms_max", self.header_ms_max),
            ("request_ms_max", self.request_ms_max),
            ("tail_keep_alive_ms", self.tail_keep_alive_ms),
        ] {
            if value == 0 {
                return Err((field, "it is at least 1"));
            }
        }
        if self.request_bytes_max > 1 << 30 {
            return Err(("request_bytes_max", "it is at most 1 GiB"));
        }
        if self.requests_bytes_max < self.request_bytes_max {
            return Err(("requests_bytes_max", "it is at least request_bytes_max"));
        }
        if self.reads_bytes_max < self.read_bytes_max {
            return Err(("reads_bytes_max", "it is at least read_bytes_max"));
        }
        for (field, value) in [
            ("requests_bytes_max", self.requests_bytes_max),
            ("reads_bytes_max", self.reads_bytes_max),
        ] {
            if value > u32::MAX as usize {
                return Err((field, "it is less than 4 GiB"));
            }
        }
        if self.batch_bytes_max < 64 << 10 || self.batch_bytes_max > 64 << 20 {
            return Err(("batch_bytes_max", "it lies between 64 KiB and 64 MiB"));
        }
        if self.read_bytes_default > self.read_bytes_max {
            return Err(("read_bytes_default", "it is at most read_bytes_max"));
        }
        Ok(())
    }

    /// Whether anyone but this machine can reach the address.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback()
    }

    pub(crate) const fn request_time_max(&self) -> Duration {
        Duration::from_millis(self.request_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_bounds_hold() {
        let options = HttpOptions::default();
        assert_eq!(options.validate(), Ok(()));
        assert!(!options.is_exposed());
        for (bad, field) in [
            (HttpOptions { reads_bytes_max: 0, ..options.clone() }, "reads_bytes_max"),
            (HttpOptions { requests_bytes_max: 1, ..options.clone() }, "requests_bytes_max"),
            (HttpOptions { batch_bytes_max: 1, ..options.clone() }, "batch_bytes_max"),
            (HttpOptions { header_ms_max: 0, ..options.clone() }, "header_ms_max"),
            (HttpOptions { read_bytes_max: 1, ..options.clone() }, "read_bytes_default"),
        ] {
            assert_eq!(bad.validate().map_err(|(field, _)| field), Err(field));
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<HttpOptions>("{\"connection_max\":1}").unwrap_err();
        assert!(error.to_string().contains("connection_max"), "{error}");
    }

    #[test]
    fn tokens_are_compared_and_never_shown() {
        let token = Token::new(" secret-1234\n").unwrap();
        assert!(token.matches(b"secret-1234"));
        assert!(!token.matches(b"secret-1235"));
        assert!(!token.matches(b"secret-123"));
        assert!(!token.matches(b""));
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(Token::new("short").is_err());
        assert!(Token::new("with space").is_err());
    }
}
