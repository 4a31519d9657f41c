//! Avro files of records: how Iceberg keeps manifests and lists of them.

use apache_avro::util::max_allocation_bytes;
use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer, from_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// How long a block, an array or a text of a file may say that it is. Blocks
/// have some 16 KB, and the longest text is a table's schema.
const ALLOCATION_BYTES_MAX: usize = 1 << 20;

/// A file with these rows, under a schema given as JSON. `marker` separates its
/// blocks and is to be random.
pub(crate) fn encode<T: Serialize>(
    schema: &str,
    header: &[(&str, String)],
    rows: &[T],
    marker: [u8; 16],
) -> Result<Vec<u8>, Error> {
    let schema = Schema::parse_str(schema).map_err(Error::internal)?;
    let codec = Codec::Deflate(DeflateSettings::default());
    let mut writer =
        Writer::builder().schema(&schema).writer(Vec::new()).codec(codec).marker(marker).build();
    for (key, value) in header {
        writer.add_user_metadata((*key).to_owned(), value).map_err(Error::internal)?;
    }
    for row in rows {
        writer.append_ser(row).map_err(Error::internal)?;
    }
    // A file without rows has a header all the same.
    writer.flush().map_err(Error::internal)?;
    writer.into_inner().map_err(Error::internal)
}

/// The rows of such a file under the schema `schema`, at most `count_max` of them.
pub(crate) fn decode<T: DeserializeOwned>(
    schema: &str,
    path: &str,
    bytes: &[u8],
    count_max: usize,
) -> Result<Vec<T>, Error> {
    // The library panics at a schema with names that are none, so only what has
    // the schema that was written is handed to it.
    let expected = Schema::parse_str(schema).map_err(Error::internal)?;
    let expected = serde_json::to_value(&expected).map_err(Error::internal)?;
    if !has_schema(bytes, &expected) {
        return Err(Error::damaged(path, "it does not have the schema that it was written with"));
    }
    // The first call counts, for all that the library reads.
    max_allocation_bytes(ALLOCATION_BYTES_MAX);
    let damaged = |error: apache_avro::Error| Error::damaged(path, error);
    let mut rows = Vec::new();
    for value in Reader::new(bytes).map_err(damaged)? {
        if rows.len() >= count_max {
            return Err(Error::damaged(path, format!("it has more than {count_max} rows")));
        }
        rows.push(from_value(&value.map_err(damaged)?).map_err(damaged)?);
    }
    Ok(rows)
}

/// Whether a file's header has this schema, and no other; the order of members
/// is the writer's.
fn has_schema(bytes: &[u8], schema: &serde_json::Value) -> bool {
    const KEY: &[u8] = b"avro.schema";
    /// Between the two stands the schema's length.
    const LENGTH_BYTES_MAX: usize = 10;
    let mut found = bytes.windows(KEY.len()).enumerate().filter(|(_, part)| *part == KEY);
    let (Some((at, _)), None) = (found.next(), found.next()) else { return false };
    let behind = bytes.get(at + KEY.len()..).unwrap_or_default();
    (1..=LENGTH_BYTES_MAX).any(|skipped| {
        let text = behind.get(skipped..).filter(|text| text.starts_with(b"{"));
        let mut values = serde_json::Deserializer::from_slice(text.unwrap_or_default())
            .into_iter::<serde_json::Value>();
        matches!(values.next(), Some(Ok(found)) if found == *schema)
    })
}
