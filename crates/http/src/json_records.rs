//! The JSON form of records: `{"records":[{"key","value","headers",
//! "timestamp","partition"}]}`, read element by element.

use std::borrow::Cow;
use std::fmt;

use aquifer_types::{Header, NewRecord, PartitionIndex, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use crate::Problem;
use crate::input::{Keys, Sink, header};

/// Hands each element of `records` to `sink`.
pub(crate) fn parse(body: &Bytes, keys: &Keys, sink: Sink<'_>) -> Result<(), Problem> {
    // RawValue borrows text, so UTF-8 is checked once for all.
    let text = std::str::from_utf8(body)
        .map_err(|_| Problem::invalid("the body is not valid UTF-8, as JSON must be"))?;
    let mut problem = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document = Document { keys, sink, problem: &mut problem };
    let result = document.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (problem, result) {
        (Some(problem), _) => Err(problem),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(Problem::invalid(format!(
            "the body is not {{\"records\":[…]}} as it should be: {error}"
        ))
        .next("See /openapi.json for the form of a record; nothing was appended.")),
    }
}

/// A record as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(default)]
    timestamp: Option<JsonTime>,
    #[serde(default)]
    partition: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a timestamp is a number of ms or an RFC 3339 string")]
enum JsonTime {
    Ms(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

impl JsonRecord<'_> {
    fn into_record(self, keys: &Keys) -> Result<(Option<PartitionIndex>, NewRecord), String> {
        let key = match self.key {
            Some(key) => Some(bytes_of(key).map_err(|error| format!("its key: {error}"))?),
            None => match (&keys.field, self.value) {
                (Some(path), Some(value)) => {
                    let mut value = serde_json::Deserializer::from_str(value.get());
                    find(&mut value, path).map_err(|error| error.to_string())?.map(Bytes::from)
                }
                _ => keys.fixed.clone(),
            },
        };
        let value = match self.value {
            Some(value) => Some(bytes_of(value).map_err(|error| format!("its value: {error}"))?),
            None => None,
        };
        let headers = match self.headers {
            Some(headers) => {
                headers_of(headers).map_err(|error| format!("its headers: {error}"))?
            }
            None => Vec::new(),
        };
        let timestamp = match self.timestamp {
            Some(JsonTime::Ms(ms)) => Some(Timestamp(ms)),
            Some(JsonTime::Text(text)) => Some(
                crate::time::parse(&text)
                    .ok_or_else(|| format!("its timestamp is no {}", crate::time::FORM))?,
            ),
            None => None,
        };
        Ok((self.partition.map(PartitionIndex), NewRecord { timestamp, key, headers, value }))
    }
}

/// A string's content, the bytes of `{"base64":…}`, or any other value's JSON
/// text as it was given.
fn bytes_of(raw: &RawValue) -> Result<Bytes, String> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|error| error.to_string())?;
            Ok(Bytes::from(text))
        }
        Some(b'{') => match serde_json::from_str::<Base64<'_>>(text) {
            Ok(Base64 { base64 }) => STANDARD
                .decode(base64.as_bytes())
                .map(Bytes::from)
                .map_err(|error| format!("its base64 cannot be decoded: {error}")),
            Err(_) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        },
        _ => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// Headers as a list of `{"key","value"}`, or as an object.
fn headers_of(raw: &RawValue) -> Result<Vec<Header>, String> {
    let value_of = |value: Option<&RawValue>| value.map(bytes_of).transpose();
    let mut headers = Vec::new();
    if raw.get().starts_with('{') {
        let pairs: Pairs<'_> = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        for (key, value) in pairs.0 {
            headers.push(header(key.into_owned(), value_of(value)?));
        }
    } else {
        let list: Vec<JsonHeader<'_>> =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        for JsonHeader { key, value } in list {
            headers.push(header(key.into_owned(), value_of(value)?));
        }
    }
    Ok(headers)
}

/// The pairs of an object in their order, repeated names kept.
struct Pairs<'a>(Vec<(Cow<'a, str>, Option<&'a RawValue>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    pairs.push((key, map.next_value()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// `{"records":[…]}`.
struct Document<'k, 's> {
    keys: &'k Keys,
    sink: Sink<'s>,
    problem: &'s mut Option<Problem>,
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_found = false;
        let Document { keys, sink, problem } = self;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name != "records" {
                return Err(A::Error::custom(format_args!(
                    "unknown field `{}`, expected `records`",
                    name.chars().take(80).collect::<String>()
                )));
            }
            if is_found {
                return Err(A::Error::duplicate_field("records"));
            }
            is_found = true;
            map.next_value_seed(Elements { keys, sink: &mut *sink, problem: &mut *problem })?;
        }
        if is_found { Ok(()) } else { Err(A::Error::missing_field("records")) }
    }
}

/// The elements of `records`.
struct Elements<'k, 's> {
    keys: &'k Keys,
    sink: Sink<'s>,
    problem: &'s mut Option<Problem>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(record) = list.next_element::<JsonRecord<'de>>()? {
            let result = record
                .into_record(self.keys)
                .map_err(|why| {
                    Problem::invalid(format!("record {index} of the request: {why}"))
                        .member("record", index)
                })
                .and_then(|(partition, record)| (self.sink)(partition, &record));
            if let Err(problem) = result {
                *self.problem = Some(problem);
                return Err(A::Error::custom("refused"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// The field at `path` of a JSON object: a string's content, another value's
/// JSON text; none where it is absent or null.
pub(crate) fn find<'de>(
    deserializer: &mut serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    path: &[String],
) -> Result<Option<String>, serde_json::Error> {
    Field { path }.deserialize(deserializer)
}

struct Field<'p> {
    path: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if !self.path.is_empty() {
            return deserializer.deserialize_any(self);
        }
        // As it was given: a number of more than 64 bits would lose its end, and
        // equal keys are one record in the end.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text).map(Some).map_err(D::Error::custom),
            Some(b'{' | b'[' | b'n') | None => Ok(None),
            Some(_) => Ok(Some(text.to_owned())),
        }
    }
}

/// Of values on the way to the field.
impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let Some((name, below)) = self.path.split_first() else { return Ok(None) };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == name.as_str() {
                found = map.next_value_seed(Field { path: below })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<Vec<(Option<PartitionIndex>, NewRecord)>, String> {
        let mut found = Vec::new();
        let body = Bytes::copy_from_slice(body.as_bytes());
        parse(&body, &Keys { fixed: Some("k".into()), field: None }, &mut |partition, record| {
            found.push((partition, record.clone()));
            Ok(())
        })
        .map_err(|problem| problem.detail().to_owned())?;
        Ok(found)
    }

    #[test]
    fn every_part_of_a_record_is_read() {
        let found = parsed(
            r#"{"records":[
                {"key":"a\n","value":"text","timestamp":5,"partition":3,
                 "headers":[{"key":"h","value":"1"},{"key":"h","value":null},{"key":"i"}]},
                {"value":{"base64":"AAH/"},"timestamp":"1970-01-01T00:00:01Z","headers":{"x":"y","z":7}},
                {"value":{"b": 1.50, "base64":"x"}},
                {"key":7,"value":[1, 2]},
                {"value":null},
                {"key":null}
            ]}"#,
        )
        .unwrap();
        let header = |key: &'static str, value: Option<&'static str>| Header {
            key: key.into(),
            value: value.map(Bytes::from),
        };
        let k = Some(Bytes::from("k"));
        let expected = [
            (
                Some(PartitionIndex(3)),
                NewRecord {
                    timestamp: Some(Timestamp(5)),
                    key: Some("a\n".into()),
                    headers: vec![header("h", Some("1")), header("h", None), header("i", None)],
                    value: Some("text".into()),
                },
            ),
            (
                None,
                NewRecord {
                    timestamp: Some(Timestamp(1000)),
                    key: k.clone(),
                    headers: vec![header("x", Some("y")), header("z", Some("7"))],
                    value: Some(Bytes::from_static(b"\0\x01\xff")),
                },
            ),
            (
                None,
                NewRecord { key: k.clone(), ..NewRecord::value(r#"{"b": 1.50, "base64":"x"}"#) },
            ),
            (None, NewRecord { key: Some("7".into()), ..NewRecord::value("[1, 2]") }),
            (None, NewRecord { key: k.clone(), ..NewRecord::default() }),
            (None, NewRecord { key: k, ..NewRecord::default() }),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |body: &str, part: &str| {
            let error = parsed(body).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        };
        check(r#"{"records":[{"val":1}]}"#, "unknown field `val`");
        check(r#"{"record":[]}"#, "unknown field `record`");
        check(r#"{"records":[],"records":[]}"#, "duplicate field `records`");
        check("{}", "missing field `records`");
        check("[]", "an object with the field records");
        check(r#"{"records":[]} x"#, "trailing characters");
        check(r#"{"records":[{},{"value":{"base64":"?"}}]}"#, "record 1 of the request: its value");
        check(r#"{"records":[{"timestamp":"soon"}]}"#, "its timestamp");
        check(r#"{"records":[{"headers":[1]}]}"#, "its headers");
        check(r#"{"records":[{"partition":-1}]}"#, "integer `-1`, expected u32");
        check(r#"{"records":[{"key":"\ud800"}]}"#, "its key");
    }
}
