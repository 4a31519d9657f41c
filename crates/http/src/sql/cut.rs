//! The cut that an answer was read at: where each partition of its streams
//! ended, so that a client can go on exactly there.

use std::fmt::Write as _;

use aquifer_query::StreamCut;
use axum::http::HeaderValue;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// A longer cut is no header; the events have it in any case.
const HEADER_BYTES_MAX: usize = 4096;

/// The cut as a header, `orders=0:15,1:7; users=0:3`; none where it is too long
/// for one, or no stream was read.
pub(super) fn header(cuts: &[StreamCut]) -> Option<HeaderValue> {
    let mut text = String::new();
    for (place, cut) in cuts.iter().enumerate() {
        let _ = write!(text, "{}{}=", if place > 0 { "; " } else { "" }, cut.stream);
        for (place, (partition, _, end)) in cut.partitions.iter().enumerate() {
            let _ = write!(text, "{}{partition}:{end}", if place > 0 { "," } else { "" });
            if text.len() > HEADER_BYTES_MAX {
                return None;
            }
        }
    }
    HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())
}

/// The cut as JSON, `{"orders":{"0":15,"1":7}}`.
pub(super) struct CutJson<'a>(pub(super) &'a [StreamCut]);

impl Serialize for CutJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut streams = serializer.serialize_map(Some(self.0.len()))?;
        for cut in self.0 {
            streams.serialize_entry(cut.stream.as_str(), &EndsJson(cut))?;
        }
        streams.end()
    }
}

struct EndsJson<'a>(&'a StreamCut);

impl Serialize for EndsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ends = self.0.partitions.iter();
        serializer.collect_map(ends.map(|(partition, _, end)| (partition.get(), end.get())))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Offset, PartitionIndex, StreamName};

    use super::*;

    #[test]
    fn cuts_are_told() {
        let cut = |stream: &str, ends: &[i64]| StreamCut {
            stream: StreamName::new(stream).unwrap(),
            partitions: (0..)
                .zip(ends)
                .map(|(partition, end)| (PartitionIndex(partition), Offset(0), Offset(*end)))
                .collect(),
        };
        let cuts = [cut("orders", &[15, 7]), cut("users", &[3])];
        assert_eq!(header(&cuts).unwrap(), "orders=0:15,1:7; users=0:3");
        assert_eq!(
            serde_json::to_string(&CutJson(&cuts)).unwrap(),
            r#"{"orders":{"0":15,"1":7},"users":{"0":3}}"#
        );
        assert!(header(&[]).is_none());
        assert!(header(&[cut("wide", &vec![1_000_000; 10_000])]).is_none());
    }
}
