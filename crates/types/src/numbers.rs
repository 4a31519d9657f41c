//! Newtypes for offsets, counts, epochs and times.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The position of a record in its partition, from 0. Signed because the
    /// Kafka protocol and Parquet know it as a signed 64-bit number; never
    /// negative.
    Offset(i64)
}
number! {
    /// Milliseconds since the Unix epoch, UTC.
    Timestamp(i64)
}
number! {
    /// The number of a partition in its stream, from 0.
    PartitionIndex(u32)
}
number! {
    /// A server-wide counter that grows with every start and every change of
    /// ownership. Kafka calls a partition's epoch its leader epoch.
    Epoch(u32)
}

impl Epoch {
    /// The one behind it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

number! {
    /// The number of a journal group: contiguous from 1, across files.
    GroupSequence(u64)
}
number! {
    /// An idempotent producer, as Kafka numbers them.
    ProducerId(i64)
}
number! {
    /// The incarnation of a producer; a higher one fences the lower.
    ProducerEpoch(i16)
}
number! {
    /// A grant of a lease; a higher one fences the lower.
    LeaseToken(u64)
}
number! {
    /// A producer's record number in a partition; wraps from `i32::MAX` to 0.
    Sequence(i32)
}

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);
    /// Beyond every record.
    pub const MAX: Self = Self(i64::MAX);

    /// The offset `count` records further on, saturating.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add_unsigned(count))
    }

    /// How many offsets lie between `earlier` and this one; 0 where it is not
    /// earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        if self.0 <= earlier.0 { 0 } else { self.0.abs_diff(earlier.0) }
    }
}

impl Sequence {
    /// The sequence `count` records further on, wrapping as Kafka's does.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        let sum = (self.0 as i64) + (count as i64);
        if sum > i32::MAX as i64 {
            Self((sum - i32::MAX as i64 - 1) as i32)
        } else {
            Self(sum as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 2).plus(5), Sequence(2));
        assert_eq!(Sequence(7).plus(3), Sequence(10));
    }

    #[test]
    fn offsets_saturate() {
        assert_eq!(Offset(5).plus(3), Offset(8));
        assert_eq!(Offset::MAX.plus(1), Offset::MAX);
        assert_eq!(Offset(8).since(Offset(5)), 3);
        assert_eq!(Offset(5).since(Offset(8)), 0);
    }
}
