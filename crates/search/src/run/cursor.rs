//! Where a page of hits ends: the place of its last hit, in the order of hits.

use std::str::FromStr;

use super::Failure;

/// What the text begins with; another one after a change of the order.
const VERSION: &str = "1";

/// A place in the order of hits: (timestamp, partition, offset). The greater is
/// the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// In ms.
    pub timestamp: i64,
    /// The partition.
    pub partition: i64,
    /// The offset.
    pub offset: i64,
}

impl Cursor {
    pub(crate) const fn new((timestamp, partition, offset): (i64, i64, i64)) -> Self {
        Self { timestamp, partition, offset }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{VERSION}.{}.{}.{}", self.timestamp, self.partition, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parse = || {
            let mut parts = text.split('.');
            let is_known = parts.next() == Some(VERSION);
            let mut number = || parts.next()?.parse::<i64>().ok();
            let cursor = Self { timestamp: number()?, partition: number()?, offset: number()? };
            (is_known && parts.next().is_none()).then_some(cursor)
        };
        parse().ok_or_else(|| Failure::Cursor { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_from_their_text() {
        for place in [(0, 0, 0), (-1, 5, 7), (i64::MAX, 3, i64::MAX), (i64::MIN, 0, 1)] {
            let cursor = Cursor::new(place);
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
        for wrong in ["", "1", "1.2.3", "1.2.3.4.5", "2.1.1.1", "1.a.1.1", "1..1.1", "1.1.1.ä"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
