//! Records, as they are read and as they are given.

use bytes::Bytes;

use crate::{Offset, Timestamp};

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by Kafka's definition; bytes that are not are replaced on reading.
    pub key: Bytes,
    /// Absent is not empty.
    pub value: Option<Bytes>,
}

/// A record of a stream. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the partition.
    pub offset: Offset,
    /// When it happened, by its producer's or the server's clock.
    pub timestamp: Timestamp,
    /// The routing key; absent is not empty.
    pub key: Option<Bytes>,
    /// In the producer's order; keys may repeat.
    pub headers: Vec<Header>,
    /// The payload; absent (a tombstone) is not empty.
    pub value: Option<Bytes>,
}

/// A record that has no place in a stream yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Absent: the time of the append.
    pub timestamp: Option<Timestamp>,
    /// The routing key.
    pub key: Option<Bytes>,
    /// In the order to be kept.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Option<Bytes>,
}

impl NewRecord {
    /// A record with a payload and nothing else.
    #[must_use]
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The bytes of key, headers and value together.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        payload_bytes(self.key.as_ref(), &self.headers, self.value.as_ref())
    }
}

impl Record {
    /// The bytes of key, headers and value together.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        payload_bytes(self.key.as_ref(), &self.headers, self.value.as_ref())
    }
}

fn payload_bytes(key: Option<&Bytes>, headers: &[Header], value: Option<&Bytes>) -> usize {
    let headers: usize =
        headers.iter().map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
    key.map_or(0, Bytes::len) + headers + value.map_or(0, Bytes::len)
}
