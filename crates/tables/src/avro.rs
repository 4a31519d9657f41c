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

/// The rows of such a file, at most `count_max` of them.
pub(crate) fn decode<T: DeserializeOwned>(
    path: &str,
    bytes: &[u8],
    count_max: usize,
) -> Result<Vec<T>, Error> {
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
