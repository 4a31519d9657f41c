//! What an import is asked to do: which objects, as what, into which stream.

use aquifer_types::StreamName;
use serde::{Deserialize, Serialize};

use crate::{Error, ObjectOptions};

/// The longest address.
const URL_BYTES_MAX: usize = 2048;
/// The longest path of a field.
const FIELD_BYTES_MAX: usize = 1024;

/// What the bytes of an object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What its name ends with says it, else its first bytes.
    #[default]
    Auto,
    /// A line is a JSON value and the value of a record.
    Ndjson,
    /// A line is a record as Aquifer writes it: `{"key","headers","timestamp","value"}`.
    Records,
    /// A line of any text is the value of a record.
    Text,
    /// Rows under a header; a row becomes a JSON object.
    Csv,
    /// A row becomes a JSON object; rows of Aquifer's own files become the records
    /// that they were.
    Parquet,
    /// An object container file; its values become JSON, those of Aquifer's own
    /// files the records that they were.
    Avro,
}

/// How an object is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Its first bytes say it.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// RFC 1952; several members one behind the other are one.
    Gzip,
    /// RFC 8878, with a window of 128 MiB at most.
    Zstd,
}

/// What becomes of an import at a row that cannot be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It stops before the row.
    #[default]
    Stop,
    /// The row is left out and counted; the first ones are named.
    Skip,
}

/// What the fields of CSV become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CsvTypes {
    /// What reads as a JSON number, as true or false is one; nothing is null;
    /// anything else is text.
    #[default]
    Infer,
    /// All fields are text.
    Text,
}

/// How objects become records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportSpec {
    /// The stream that they are imported into; it exists.
    pub stream: StreamName,
    /// The addresses of objects, or of folders of them.
    #[serde(default)]
    pub urls: Vec<String>,
    /// What the objects are.
    #[serde(default)]
    pub format: Format,
    /// How they are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// What becomes of bad rows.
    #[serde(default)]
    pub on_error: OnError,
    /// The path of the JSON field whose content is a record's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_field: Option<String>,
    /// The path of the JSON field that has a record's time, in ms or RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_field: Option<String>,
    /// The partition of all records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// What the fields of CSV become.
    #[serde(default)]
    pub csv_types: CsvTypes,
    /// What separates the fields of CSV; a tab where the name ends with `.tsv`,
    /// else a comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
}

impl ImportSpec {
    /// All objects below an address, with the defaults of the rest.
    #[must_use]
    pub fn new(stream: StreamName, urls: Vec<String>) -> Self {
        Self {
            stream,
            urls,
            format: Format::Auto,
            compression: Compression::Auto,
            on_error: OnError::Stop,
            key_field: None,
            timestamp_field: None,
            partition: None,
            csv_types: CsvTypes::Infer,
            delimiter: None,
        }
    }

    /// Checks what the types do not, apart from the addresses.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for path in [&self.key_field, &self.timestamp_field].into_iter().flatten() {
            if path.is_empty() || path.len() > FIELD_BYTES_MAX {
                return Err(Error::Invalid(format!(
                    "the path of a field has 1 to {FIELD_BYTES_MAX} bytes"
                )));
            }
        }
        match self.delimiter {
            Some(delimiter) if !delimiter.is_ascii() || matches!(delimiter, '"' | '\n' | '\r') => {
                Err(Error::Invalid(
                    "the delimiter is one ASCII character, and neither a quote nor a line end"
                        .into(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Checks the addresses of what the server opens itself.
    pub(crate) fn check_urls(&self, options: &ObjectOptions) -> Result<(), Error> {
        if self.urls.is_empty() {
            return Err(Error::Invalid("urls names no address".into()));
        }
        if self.urls.len() > options.urls_max {
            return Err(Error::Limit {
                what: "the addresses of one import",
                limit: options.urls_max as u64,
                limit_name: "objects.urls_max",
            });
        }
        self.urls.iter().try_for_each(|url| check_url(url))
    }
}

pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    if url.is_empty() || url.len() > URL_BYTES_MAX || url.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "an address has 1 to {URL_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

/// What the name of an object says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) format: Option<Format>,
    pub(crate) is_tabs: bool,
}

/// Looks at what a name ends with, behind that of a compression.
pub(crate) fn named(name: &str) -> Named {
    let lower = name.to_ascii_lowercase();
    let plain = [".gz", ".gzip", ".zst", ".zstd"];
    let bare = plain.iter().find_map(|end| lower.strip_suffix(end)).unwrap_or(&lower);
    let format = match bare.rsplit_once('.').map(|(_, end)| end) {
        Some("ndjson" | "jsonl" | "json" | "jsonlines") => Some(Format::Ndjson),
        Some("records") => Some(Format::Records),
        Some("csv" | "tsv") => Some(Format::Csv),
        Some("parquet" | "parq") => Some(Format::Parquet),
        Some("avro") => Some(Format::Avro),
        Some("txt" | "log" | "text") => Some(Format::Text),
        _ => None,
    };
    Named { format, is_tabs: bare.ends_with(".tsv") }
}

/// Whether an object of a folder is one to be imported: what begins with `_` or
/// `.` is somebody's marker or half written, `.crc` and `.index` lie beside
/// others.
pub(crate) fn is_wanted(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    let is_hidden = name.split('/').any(|part| part.starts_with('.') || part.starts_with('_'));
    !is_hidden && !last.is_empty() && !last.ends_with(".crc") && !last.ends_with(".index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        for (name, format, is_tabs) in [
            ("a/b.ndjson", Some(Format::Ndjson), false),
            ("a.JSON.gz", Some(Format::Ndjson), false),
            ("a.jsonl.zst", Some(Format::Ndjson), false),
            ("p0/0-9.records.zst", Some(Format::Records), false),
            ("a.tsv", Some(Format::Csv), true),
            ("a.csv.gz", Some(Format::Csv), false),
            ("a.parquet", Some(Format::Parquet), false),
            ("a.avro", Some(Format::Avro), false),
            ("app.log.gz", Some(Format::Text), false),
            ("archive.gz", None, false),
            ("noname", None, false),
        ] {
            assert_eq!(named(name), Named { format, is_tabs }, "{name}");
        }
    }

    #[test]
    fn markers_are_no_objects() {
        for (name, expected) in [
            ("a.json", true),
            ("x/a", true),
            ("_SUCCESS", false),
            ("x/_temporary/0/a.json", false),
            (".a.json.crc", false),
            ("p0/1.index", false),
            ("x/", false),
        ] {
            assert_eq!(is_wanted(name), expected, "{name}");
        }
    }
}
