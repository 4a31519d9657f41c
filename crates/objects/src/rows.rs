//! From the rows that a decoder finds to the parts that are appended.
//!
//! A row is whatever a format counts: a line, a row of a table. Its number, from
//! 1, names it; how many were dealt with is the position from which an import
//! goes on. A part holds whole rows only.

use std::borrow::Cow;

use aquifer_types::{NewRecord, Timestamp};
use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::spec::{ImportSpec, OnError};

/// The reason of a bad row is cut off here.
const WHY_CHARACTERS_MAX: usize = 300;
/// What a batch needs beyond a record's bytes, about.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A row that is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub(crate) row: u64,
    pub(crate) why: String,
}

/// Rows that are appended together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) records: Vec<NewRecord>,
    /// Bytes of keys, headers and values.
    pub(crate) bytes: usize,
    /// How many rows of the object are dealt with, with these.
    pub(crate) rows: u64,
    /// How many of the part's rows are no records.
    pub(crate) bad: u64,
    /// The first of those.
    pub(crate) errors: Vec<BadRow>,
}

/// Why decoding ended before the object did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Nobody wants more.
    Stopped,
    /// The row is no record, and the import is to stop at such.
    Bad(BadRow),
    /// The row, and whatever is behind it, cannot be had: nobody knows how many
    /// rows those are, so they are not left out.
    Broken(BadRow),
}

/// Takes the rows of an object in their order.
#[derive(Debug)]
pub(crate) struct Rows {
    parts: mpsc::Sender<Part>,
    part: Part,
    /// Rows up to here were imported before.
    skip: u64,
    part_bytes: usize,
    record_bytes_max: usize,
    errors_max: usize,
    on_error: OnError,
    key_field: Option<Vec<String>>,
    timestamp_field: Option<Vec<String>>,
}

/// What rows are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowLimits {
    /// A part is handed on at this size.
    pub(crate) part_bytes: usize,
    /// The largest record.
    pub(crate) record_bytes_max: usize,
    /// The most bad rows that a part names.
    pub(crate) errors_max: usize,
}

impl Rows {
    /// Rows behind the first `skip` are handed on to `parts`.
    pub(crate) fn new(
        parts: mpsc::Sender<Part>,
        spec: &ImportSpec,
        limits: RowLimits,
        skip: u64,
    ) -> Self {
        let path = |field: &Option<String>| {
            let path = field.as_ref()?;
            Some(path.split('.').map(str::to_owned).collect())
        };
        Self {
            parts,
            part: Part::default(),
            skip,
            part_bytes: limits.part_bytes,
            record_bytes_max: limits.record_bytes_max,
            errors_max: limits.errors_max,
            on_error: spec.on_error,
            key_field: path(&spec.key_field),
            timestamp_field: path(&spec.timestamp_field),
        }
    }

    /// The most bytes of a record; what decodes need not hold a longer row.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// How many rows at the beginning need not be decoded.
    pub(crate) fn skippable(&self) -> u64 {
        self.skip.saturating_sub(self.part.rows)
    }

    /// Passes rows that were imported before, unseen.
    pub(crate) fn pass(&mut self, rows: u64) {
        self.part.rows += rows;
    }

    /// The next row is a JSON value.
    pub(crate) fn json(&mut self, value: Bytes) -> Result<(), Halt> {
        if self.is_passed() {
            return Ok(());
        }
        let mut record = NewRecord { value: Some(value), ..NewRecord::default() };
        match self.complete(&mut record) {
            Ok(()) => self.push(record),
            Err(why) => self.refuse(why),
        }
    }

    /// The next row is a record.
    pub(crate) fn record(&mut self, record: NewRecord) -> Result<(), Halt> {
        if self.is_passed() {
            return Ok(());
        }
        self.push(record)
    }

    /// The next row is nothing, such as a line without text.
    pub(crate) fn nothing(&mut self) -> Result<(), Halt> {
        self.part.rows += 1;
        Ok(())
    }

    /// The next row is no record.
    pub(crate) fn bad(&mut self, why: impl Into<String>) -> Result<(), Halt> {
        if self.is_passed() {
            return Ok(());
        }
        self.refuse(why.into())
    }

    /// All that follows cannot be read.
    pub(crate) fn broken(&mut self, why: impl Into<String>) -> Halt {
        Halt::Broken(BadRow { row: self.part.rows + 1, why: cut(why.into()) })
    }

    /// Hands on what is left; `halt` is why the decoder ended, if it did so
    /// before the object.
    pub(crate) fn finish(mut self, halt: Option<Halt>) -> Result<(), Halt> {
        match halt {
            Some(Halt::Stopped) => Err(Halt::Stopped),
            Some(halt) => {
                self.send()?;
                Err(halt)
            }
            None => self.send(),
        }
    }

    /// Whether the next row was imported before; it is counted then.
    fn is_passed(&mut self) -> bool {
        let is_passed = self.part.rows < self.skip;
        if is_passed {
            self.part.rows += 1;
        }
        is_passed
    }

    fn push(&mut self, record: NewRecord) -> Result<(), Halt> {
        let bytes = record.payload_bytes();
        if bytes > self.record_bytes_max {
            return self.refuse(format!(
                "the record has {bytes} bytes, the stream allows {} (record_bytes_max)",
                self.record_bytes_max
            ));
        }
        let bytes = bytes + RECORD_OVERHEAD_BYTES;
        if !self.part.records.is_empty() && self.part.bytes + bytes > self.part_bytes {
            self.send()?;
        }
        self.part.rows += 1;
        self.part.bytes += bytes;
        self.part.records.push(record);
        Ok(())
    }

    fn refuse(&mut self, why: String) -> Result<(), Halt> {
        let bad = BadRow { row: self.part.rows + 1, why: cut(why) };
        match self.on_error {
            OnError::Stop => Err(Halt::Bad(bad)),
            OnError::Skip => {
                self.note(bad);
                self.part.rows += 1;
                Ok(())
            }
        }
    }

    fn note(&mut self, bad: BadRow) {
        self.part.bad += 1;
        if self.part.errors.len() < self.errors_max {
            self.part.errors.push(bad);
        }
    }

    fn send(&mut self) -> Result<(), Halt> {
        let rows = self.part.rows;
        let part = std::mem::replace(&mut self.part, Part { rows, ..Part::default() });
        // The receiver goes away with an import that is stopped.
        self.parts.blocking_send(part).map_err(|_| Halt::Stopped)
    }

    /// Takes key and time out of the value.
    fn complete(&self, record: &mut NewRecord) -> Result<(), String> {
        let Some(value) = &record.value else { return Ok(()) };
        let key = match &self.key_field {
            Some(path) => field(value, path)?,
            None => None,
        };
        let time = match &self.timestamp_field {
            Some(path) => match field(value, path)? {
                Some(text) => Some(time(&text).ok_or_else(|| {
                    format!("the time {text:?} is neither in ms nor in RFC 3339")
                })?),
                None => None,
            },
            None => None,
        };
        record.key = key.map(Bytes::from);
        record.timestamp = time;
        Ok(())
    }
}

fn cut(why: String) -> String {
    match why.char_indices().nth(WHY_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", why.get(..end).unwrap_or_default()),
        None => why,
    }
}

/// A time in ms or RFC 3339; without an offset, in UTC.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(Timestamp(ms));
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(Timestamp(time.timestamp_millis()));
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let parsed =
        forms.iter().find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok())?;
    Some(Timestamp(parsed.and_utc().timestamp_millis()))
}

/// The field at `path` of a JSON object: a string's content, the text of a
/// number or of true and false as it was given; none for what is absent, null
/// or made of others.
fn field(value: &[u8], path: &[String]) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(value).map_err(|_| "the row is not UTF-8".to_owned())?;
    let mut found = text.trim_start();
    for name in path {
        if !found.starts_with('{') {
            return Ok(None);
        }
        let mut deserializer = serde_json::Deserializer::from_str(found);
        let member = deserializer.deserialize_map(Member { name });
        match member.map_err(|error| format!("the row is not JSON: {error}"))? {
            Some(member) => found = member.get(),
            None => return Ok(None),
        }
    }
    match found.as_bytes().first() {
        Some(b'"') => serde_json::from_str(found).map(Some).map_err(|error| error.to_string()),
        Some(b'{' | b'[' | b'n') | None => Ok(None),
        Some(_) => Ok(Some(found.to_owned())),
    }
}

/// Finds a member of an object; the last one of its name counts.
struct Member<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let value: &'de RawValue = map.next_value()?;
            if key.0 == self.name {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// A text that is borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
pub(crate) mod tests {
    use aquifer_types::StreamName;

    use super::*;

    pub(crate) const LIMITS: RowLimits =
        RowLimits { part_bytes: 16 << 10, record_bytes_max: 1 << 20, errors_max: 3 };

    pub(crate) fn spec() -> ImportSpec {
        ImportSpec::new(StreamName::new("s").unwrap(), Vec::new())
    }

    /// Runs a decoder on a thread that may block, and collects what it found.
    pub(crate) fn collect(
        spec: &ImportSpec,
        limits: RowLimits,
        skip: u64,
        decode: impl FnOnce(&mut Rows) -> Result<(), Halt>,
    ) -> (Vec<Part>, Result<(), Halt>) {
        let (sender, mut receiver) = mpsc::channel(100_000);
        let mut rows = Rows::new(sender, spec, limits, skip);
        let halt = decode(&mut rows).err();
        let result = rows.finish(halt);
        let mut parts = Vec::new();
        while let Ok(part) = receiver.try_recv() {
            parts.push(part);
        }
        (parts, result)
    }

    pub(crate) fn values(parts: &[Part]) -> Vec<String> {
        let records = parts.iter().flat_map(|part| &part.records);
        records
            .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"-")).into())
            .collect()
    }

    #[test]
    fn parts_hold_whole_rows() {
        let limits = RowLimits { part_bytes: 100, ..LIMITS };
        let (parts, result) = collect(&spec(), limits, 2, |rows| {
            for number in 0..7 {
                rows.json(Bytes::from(format!("{number}")))?;
            }
            rows.nothing()
        });
        assert_eq!(result, Ok(()));
        assert_eq!(values(&parts), ["2", "3", "4", "5", "6"]);
        let rows: Vec<_> = parts.iter().map(|part| (part.records.len(), part.rows)).collect();
        assert_eq!(rows, [(3, 5), (2, 8)]);
    }

    #[test]
    fn bad_rows_stop_or_are_named() {
        let decode = |rows: &mut Rows| {
            rows.json("1".into())?;
            for number in 0..5 {
                rows.bad(format!("bad {number}"))?;
            }
            rows.json(Bytes::from(vec![b'1'; 2 << 20]))?;
            rows.json("2".into())?;
            Err(rows.broken("the end"))
        };
        let (parts, result) = collect(&spec(), LIMITS, 0, decode);
        assert_eq!(result, Err(Halt::Bad(BadRow { row: 2, why: "bad 0".into() })));
        assert_eq!((values(&parts), parts[0].rows), (vec!["1".to_owned()], 1));
        let skipping = ImportSpec { on_error: OnError::Skip, ..spec() };
        let (parts, result) = collect(&skipping, LIMITS, 0, decode);
        // What follows the end that cannot be read is never taken for left out.
        assert_eq!(result, Err(Halt::Broken(BadRow { row: 9, why: "the end".into() })));
        assert_eq!(values(&parts), ["1", "2"]);
        let [part] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!((part.rows, part.bad), (8, 6));
        let named: Vec<_> = part.errors.iter().map(|bad| bad.row).collect();
        assert_eq!(named, [2, 3, 4]);
    }

    #[test]
    fn keys_and_times_come_from_fields() {
        let spec = ImportSpec {
            key_field: Some("user.id".into()),
            timestamp_field: Some("at".into()),
            on_error: OnError::Skip,
            ..spec()
        };
        let check = |value: &'static str, key: Option<&str>, time: Option<i64>| {
            let (parts, _) = collect(&spec, LIMITS, 0, |rows| rows.json(value.into()));
            let record = &parts[0].records[0];
            assert_eq!(record.key.as_deref(), key.map(str::as_bytes), "{value}");
            assert_eq!(record.timestamp, time.map(Timestamp), "{value}");
        };
        check(r#"{"user":{"id":"a\n"},"at":5}"#, Some("a\n"), Some(5));
        check(r#"{"user":{"id":1.50},"at":"1970-01-01T00:00:01Z"}"#, Some("1.50"), Some(1000));
        check(r#" {"at":"1970-01-01 00:00:01.5","user":{}}"#, None, Some(1500));
        check(r#"{"user":[1],"at":null}"#, None, None);
        check("7", None, None);
        let (parts, _) = collect(&spec, LIMITS, 0, |rows| rows.json(r#"{"at":"soon"}"#.into()));
        assert!(parts[0].errors[0].why.contains("soon"), "{parts:?}");
    }
}
