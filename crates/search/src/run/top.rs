//! Which values of a field are the most frequent, within bounded memory.

use std::collections::HashMap;

use crate::Searchable;
use crate::json::{self, Value};

/// About what a value takes beside its bytes: its count, its place in the table
/// of which a part is empty, and the allocator's share.
const ENTRY_BYTES: usize = 96;

/// Counts the values of one field.
///
/// Beyond its limits the rarer half of the values is forgotten; what was
/// forgotten may come again and is then counted from the highest count that any
/// forgotten one had below the truth. So no count is too high, and none is too
/// low by more than [`TopCounter::error_max`].
#[derive(Debug, Clone)]
pub(crate) struct TopCounter {
    field: Field,
    values_max: usize,
    value_bytes_max: usize,
    bytes_max: usize,
    /// What `counts` takes.
    bytes: usize,
    /// By the value, as JSON writes it.
    counts: HashMap<Box<[u8]>, Count>,
    rows: u64,
    pub(crate) error_max: u64,
    /// Values that were too long to be counted.
    pub(crate) too_long: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    count: u64,
    /// The record that counted last: each counts a value once.
    last_row: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Key,
    Partition,
    Header(String),
    Json(String),
}

impl TopCounter {
    /// Counts a field, named as in queries. What is counted takes `bytes_max` at
    /// most.
    pub(crate) fn new(
        name: &str,
        values_max: usize,
        value_bytes_max: usize,
        bytes_max: usize,
    ) -> Self {
        let field = match name {
            "_key" => Field::Key,
            "_partition" => Field::Partition,
            other => match other.strip_prefix("_headers.") {
                Some(header) => Field::Header(header.to_owned()),
                None => Field::Json(other.to_owned()),
            },
        };
        Self {
            field,
            values_max: values_max.max(2),
            value_bytes_max,
            bytes_max,
            bytes: 0,
            counts: HashMap::new(),
            rows: 0,
            error_max: 0,
            too_long: 0,
        }
    }

    /// Adds a record's values.
    pub(crate) fn add(&mut self, record: &impl Searchable) {
        self.rows += 1;
        match self.field.clone() {
            Field::Key => {
                if let Some(key) = record.key() {
                    self.add_text(key);
                }
            }
            Field::Partition => self.add_value(record.place().1.to_string().as_bytes()),
            Field::Header(name) => record.each_header(&mut |key, value| {
                if key == name.as_bytes()
                    && let Some(value) = value
                {
                    self.add_text(value);
                }
                true
            }),
            Field::Json(wanted) => {
                let Some(value) = record.value() else { return };
                json::walk(value, |path, here| {
                    if path == wanted {
                        let part = |range| value.get(range).unwrap_or_default();
                        match here {
                            Value::String(range) => {
                                self.add_text(aquifer_chunk::unescaped(part(range)).as_bytes());
                            }
                            Value::Number(range) => self.add_number(part(range)),
                            Value::True => self.add_value(b"true"),
                            Value::False => self.add_value(b"false"),
                            Value::Null => self.add_value(b"null"),
                            Value::Container => {}
                        }
                    }
                    true
                });
            }
        }
    }

    fn add_text(&mut self, text: &[u8]) {
        // Bounded before it is written as JSON, where it may get longer.
        if text.len() > self.value_bytes_max {
            self.too_long += 1;
            return;
        }
        let text = serde_json::to_vec(&String::from_utf8_lossy(text)).unwrap_or_default();
        if text.len() > 2 * self.value_bytes_max {
            self.too_long += 1;
            return;
        }
        self.add_value(&text);
    }

    fn add_number(&mut self, number: &[u8]) {
        if number.len() > self.value_bytes_max {
            self.too_long += 1;
        } else if serde_json::from_slice::<serde_json::Number>(number).is_ok() {
            self.add_value(number);
        }
    }

    fn add_value(&mut self, value: &[u8]) {
        let row = self.rows;
        if let Some(count) = self.counts.get_mut(value) {
            if count.last_row != row {
                *count = Count { count: count.count + 1, last_row: row };
            }
            return;
        }
        self.insert(value.into(), Count { count: 1, last_row: row });
    }

    /// Adds what another counter of the same field has counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.error_max += other.error_max;
        self.too_long += other.too_long;
        for (value, count) in other.counts {
            match self.counts.get_mut(&value) {
                Some(known) => known.count += count.count,
                None => self.insert(value, Count { count: count.count, last_row: 0 }),
            }
        }
    }

    fn insert(&mut self, value: Box<[u8]>, count: Count) {
        let bytes = value.len() + ENTRY_BYTES;
        // Half of them go each time.
        while !self.counts.is_empty()
            && (self.counts.len() >= self.values_max || self.bytes + bytes > self.bytes_max)
        {
            self.make_room();
        }
        self.bytes += bytes;
        self.counts.insert(value, count);
    }

    fn make_room(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().map(|count| count.count).collect();
        let middle = counts.len() / 2;
        let (_, limit, _) = counts.select_nth_unstable(middle);
        let limit = *limit;
        self.counts.retain(|_, count| count.count > limit);
        self.bytes = self.counts.keys().map(|value| value.len() + ENTRY_BYTES).sum();
        self.error_max += limit;
    }

    /// The most frequent values, as JSON, with their counts.
    pub(crate) fn top(&self, count: usize) -> Vec<(Vec<u8>, u64)> {
        let mut all: Vec<_> =
            self.counts.iter().map(|(value, count)| (count.count, value)).collect();
        all.sort_unstable_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.cmp(right)));
        all.into_iter().take(count).map(|(count, value)| (value.to_vec(), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Offset, PartitionIndex, Record, Timestamp};
    use bytes::Bytes;

    use super::*;

    fn count(field: &str, values: &[&str], values_max: usize) -> TopCounter {
        let mut counter = TopCounter::new(field, values_max, 20, 1 << 20);
        for value in values {
            let record = Record {
                offset: Offset(0),
                timestamp: Timestamp(0),
                key: Some(Bytes::from_static(b"k\"1")),
                headers: Vec::new(),
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
            };
            counter.add(&(PartitionIndex(4), &record));
        }
        counter
    }

    #[test]
    fn values_are_counted_as_they_are_written() {
        let values = [
            r#"{"a":"x","b":[1,1,2]}"#,
            r#"{"a":"\u0078","b":1.0}"#,
            r#"{"a":null,"b":true}"#,
            r#"{"a":"this is longer than twenty bytes","b":01}"#,
            "text",
        ];
        let check = |field: &str, expected: &[(&str, u64)]| {
            let top = count(field, &values, 100).top(10);
            let top: Vec<(String, u64)> =
                top.into_iter().map(|(v, n)| (String::from_utf8(v).unwrap(), n)).collect();
            let expected: Vec<(String, u64)> =
                expected.iter().map(|(v, n)| ((*v).to_owned(), *n)).collect();
            assert_eq!(top, expected, "{field}");
        };
        check("a", &[("\"x\"", 2), ("null", 1)]);
        check("b", &[("1", 1), ("1.0", 1), ("2", 1), ("true", 1)]);
        check("_key", &[("\"k\\\"1\"", 5)]);
        check("_partition", &[("4", 5)]);
        check("_headers.x", &[]);
        check("c", &[]);
        assert_eq!(count("a", &values, 100).too_long, 1);
    }

    #[test]
    fn counters_take_no_more_than_they_may() {
        let bytes_max = 10 * (ENTRY_BYTES + 20);
        let mut all = TopCounter::new("a", 1000, 100, bytes_max);
        for round in 0..10 {
            let mut counter = TopCounter::new("a", 1000, 100, bytes_max);
            for n in 0..100 {
                let often = "often".repeat(10);
                for value in
                    [format!("{{\"a\":{}}}", n * 100 + round), format!("{{\"a\":\"{often}\"}}")]
                {
                    let record = Record {
                        offset: Offset(0),
                        timestamp: Timestamp(0),
                        key: None,
                        headers: Vec::new(),
                        value: Some(Bytes::from(value)),
                    };
                    counter.add(&(PartitionIndex(0), &record));
                    assert!(counter.bytes <= bytes_max, "{}", counter.bytes);
                }
            }
            all.merge(counter);
            assert!(all.bytes <= bytes_max, "{}", all.bytes);
        }
        let held = all.counts.keys().map(|value| value.len() + ENTRY_BYTES).sum::<usize>();
        assert_eq!(all.bytes, held);
        let (value, count) = all.top(1).remove(0);
        assert!(value.starts_with(b"\"often") && count + all.error_max >= 1000, "{count}");
    }

    #[test]
    fn what_is_forgotten_bounds_the_error() {
        let mut values: Vec<String> = Vec::new();
        for n in 0..2000 {
            values.push(format!("{{\"a\":{n}}}"));
            if n % 4 == 0 {
                values.push("{\"a\":\"often\"}".to_owned());
            }
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let counter = count("a", &values, 64);
        assert!(counter.counts.len() <= 64);
        let (value, count) = counter.top(1).remove(0);
        assert_eq!(value, b"\"often\"");
        assert!(count <= 500 && count + counter.error_max >= 500, "{count}");
        assert!(counter.error_max > 0);
    }
}
