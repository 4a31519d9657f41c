//! Identities that are never reused.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::PartitionIndex;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The 16 bytes of the id.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A stream. Also its topic id in the Kafka protocol; a stream that is
    /// deleted and created again under its name has another one.
    StreamId
}
id! {
    /// A chunk, and the unique part of its object's name.
    ChunkId
}
id! {
    /// One attempt to commit to the ledger; resolves an indefinite outcome.
    CommitId
}

/// One partition of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The stream.
    pub stream: StreamId,
    /// The partition's number in it.
    pub index: PartitionIndex,
}

impl Partition {
    /// The partition `index` of `stream`.
    #[must_use]
    pub const fn new(stream: StreamId, index: PartitionIndex) -> Self {
        Self { stream, index }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.index)
    }
}
