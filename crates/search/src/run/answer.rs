//! Answers as JSON.

use aquifer_types::write_record_json;

use super::{Bars, Hit, Hits};
use crate::{Marks, Part};

impl Hits {
    /// `{"hits":[record…],"total":{"value","relation"},"next"}` in pieces of about
    /// `piece_bytes`, each with the number of hits in it. A hit is a record as
    /// everywhere; `with_marks` it has
    /// `"highlights":[{"part","ranges":[[start,end]…]}…]` besides.
    pub fn json_pieces(
        &self,
        piece_bytes: usize,
        with_marks: bool,
    ) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
        let mut left = self.hits.iter().enumerate().peekable();
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let mut out = Vec::new();
            let mut rows = 0;
            while out.len() < piece_bytes.max(1) {
                let Some((place, hit)) = left.next() else { break };
                out.extend_from_slice(if place == 0 { b"{\"hits\":[" } else { b"," });
                write_hit(&mut out, hit, with_marks);
                rows += 1;
            }
            if left.peek().is_none() {
                is_over = true;
                if self.hits.is_empty() {
                    out.extend_from_slice(b"{\"hits\":[");
                }
                out.extend_from_slice(self.end().as_bytes());
            }
            Some((rows, out))
        })
    }

    /// What follows the hits.
    fn end(&self) -> String {
        let relation = if self.total.is_exact { "eq" } else { "gte" };
        let value = self.total.value;
        let next = self.next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
        format!("],\"total\":{{\"value\":{value},\"relation\":\"{relation}\"}},\"next\":{next}}}")
    }
}

fn write_hit(out: &mut Vec<u8>, hit: &Hit, with_marks: bool) {
    write_record_json(out, hit.partition, &hit.record);
    if with_marks {
        // The object is opened again for one more member.
        out.pop();
        out.extend_from_slice(b",\"highlights\":[");
        for (place, marks) in hit.marks.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write_marks(out, marks);
        }
        out.extend_from_slice(b"]}");
    }
}

fn write_marks(out: &mut Vec<u8>, marks: &Marks) {
    let part = match marks.part {
        Part::Key => "\"key\"".to_owned(),
        Part::Value => "\"value\"".to_owned(),
        Part::HeaderKey(place) => format!("\"header_key\",\"header\":{place}"),
        Part::HeaderValue(place) => format!("\"header_value\",\"header\":{place}"),
    };
    out.extend_from_slice(format!("{{\"part\":{part},\"ranges\":[").as_bytes());
    for (place, range) in marks.ranges.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}[{},{}]", range.start, range.end).as_bytes());
    }
    out.extend_from_slice(b"]}");
}

impl Bars {
    /// Writes `{"interval_ms","buckets":[{"start","count"}…],"total",
    /// "top":{field:{"values":[{"value","count"}…],"error_max","too_long"}…},
    /// "complete"}`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = format!("{{\"interval_ms\":{},\"buckets\":[", self.width_ms);
        for (place, bar) in self.bars.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            out += &format!("{comma}{{\"start\":{},\"count\":{}}}", bar.start.0, bar.count);
        }
        out += &format!("],\"total\":{},\"top\":{{", self.total);
        for (place, top) in self.top.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let field = serde_json::to_string(&top.field).unwrap_or_default();
            out += &format!("{comma}{field}:{{\"values\":[");
            for (place, value) in top.values.iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                // A value is JSON already.
                out += &format!("{comma}{{\"value\":{},\"count\":{}}}", value.json, value.count);
            }
            out += &format!("],\"error_max\":{},\"too_long\":{}}}", top.error_max, top.too_long);
        }
        out += &format!("}},\"complete\":{}}}", self.is_complete);
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Header, Offset, PartitionIndex, Record, Timestamp};
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::super::{Bar, Cursor, TopValue, TopValues, Total};
    use super::*;

    #[test]
    fn hits_are_one_document_in_pieces() {
        let hit = |offset: i64| Hit {
            partition: PartitionIndex(2),
            record: Record {
                offset: Offset(offset),
                timestamp: Timestamp(5),
                key: None,
                headers: vec![Header { key: Bytes::from_static(b"h"), value: None }],
                value: Some(Bytes::from_static(b"an error")),
            },
            marks: vec![
                Marks { part: Part::HeaderKey(0), ranges: std::iter::once(0..1).collect() },
                Marks { part: Part::Value, ranges: vec![0..2, 3..8] },
            ],
        };
        let mut hits = Hits {
            hits: (0..5).rev().map(hit).collect(),
            total: Total { value: 7, is_exact: false },
            next: Some(Cursor::new((5, 2, 0))),
            rows_read: 9,
        };
        let render = |hits: &Hits, piece_bytes, with_marks| {
            let pieces: Vec<(u64, Vec<u8>)> = hits.json_pieces(piece_bytes, with_marks).collect();
            let rows: u64 = pieces.iter().map(|(rows, _)| rows).sum();
            let bytes: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            (serde_json::from_slice::<Value>(&bytes).unwrap(), rows, pieces.len())
        };
        let (document, rows, pieces) = render(&hits, 100, true);
        assert_eq!((rows, pieces), (5, 5));
        assert_eq!(document["total"], json!({"value": 7, "relation": "gte"}));
        assert_eq!(document["next"], "1.5.2.0");
        assert_eq!(
            document["hits"][4],
            json!({"partition": 2, "offset": 0, "timestamp": 5, "key": null,
                   "headers": [{"key": "h", "value": null}], "value": "an error",
                   "highlights": [{"part": "header_key", "header": 0, "ranges": [[0, 1]]},
                                  {"part": "value", "ranges": [[0, 2], [3, 8]]}]})
        );
        (hits.next, hits.total.is_exact) = (None, true);
        let (document, _, pieces) = render(&hits, 1 << 20, false);
        assert_eq!(pieces, 1);
        assert_eq!(
            (&document["next"], &document["total"]["relation"]),
            (&Value::Null, &json!("eq"))
        );
        assert_eq!(document["hits"][0].get("highlights"), None);
        hits.hits.clear();
        assert_eq!(render(&hits, 100, true).0["hits"], json!([]));
    }

    #[test]
    fn histograms_are_documents() {
        let bars = Bars {
            width_ms: 1000,
            bars: vec![
                Bar { start: Timestamp(-1000), count: 2 },
                Bar { start: Timestamp(0), count: 0 },
            ],
            total: 2,
            top: vec![TopValues {
                field: "a\"b".into(),
                values: vec![TopValue { json: "\"x\"".into(), count: 2 }],
                error_max: 1,
                too_long: 3,
            }],
            rows_read: 5,
            is_complete: true,
        };
        assert_eq!(
            serde_json::from_slice::<Value>(&bars.to_json()).unwrap(),
            json!({"interval_ms": 1000, "total": 2, "complete": true,
                   "buckets": [{"start": -1000, "count": 2}, {"start": 0, "count": 0}],
                   "top": {"a\"b": {"values": [{"value": "x", "count": 2}], "error_max": 1,
                                    "too_long": 3}}})
        );
        let empty = Bars::default().to_json();
        assert_eq!(serde_json::from_slice::<Value>(&empty).unwrap()["buckets"], json!([]));
    }
}
