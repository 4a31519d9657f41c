//! Objects' bytes ⇄ records, one module a format.
//!
//! A decoder reads what somebody else wrote: each bounds a row before it holds
//! it, and hands on what is wrong as a bad row or as the end. It runs on a
//! thread that blocks.

pub(crate) mod avro;
mod avro_schema;
pub(crate) mod csv;
pub(crate) mod lines;
pub(crate) mod parquet;
pub(crate) mod record;
pub(crate) mod write;

use std::io::{BufRead, BufReader, Read};

use crate::decompress::decompressed;
use crate::rows::{Halt, Rows};
use crate::spec::{Format, ImportSpec, named};

const BUFFER_BYTES: usize = 256 << 10;

/// What an object's name and the request say that it is; none where that has to
/// be told by its first bytes.
pub(crate) fn told(spec: &ImportSpec, name: &str) -> Option<Format> {
    match spec.format {
        Format::Auto => named(name).format,
        format => Some(format),
    }
}

/// Decodes any object that is read from its beginning.
pub(crate) fn decode(
    input: impl Read,
    name: &str,
    spec: &ImportSpec,
    ratio_max: u64,
    rows: &mut Rows,
) -> Result<(), Halt> {
    let format = told(spec, name);
    // Avro compresses its own blocks; a file of it has other first bytes.
    let input = decompressed(input, spec.compression, ratio_max)
        .map_err(|error| rows.broken(error.to_string()))?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let first = match input.fill_buf() {
        Ok(first) => first,
        Err(error) => return Err(rows.broken(error.to_string())),
    };
    if first.is_empty() {
        // Nothing is no row of any format.
        return Ok(());
    }
    let format = match format {
        Some(format) => format,
        None if first.starts_with(avro::MAGIC) => Format::Avro,
        None => {
            return Err(rows
                .broken(format!("what it is cannot be told by its name {name}: say its format")));
        }
    };
    match format {
        Format::Ndjson | Format::Auto => lines::decode(input, lines::Line::Json, rows),
        Format::Records => lines::decode(input, lines::Line::Record, rows),
        Format::Text => lines::decode(input, lines::Line::Text, rows),
        Format::Csv => {
            let tab = named(name).is_tabs.then_some('\t');
            let delimiter = spec.delimiter.or(tab).unwrap_or(',');
            csv::decode(input, delimiter as u8, spec.csv_types, rows)
        }
        Format::Avro => avro::decode(input, rows),
        Format::Parquet => Err(rows.broken("Parquet is not compressed as a whole")),
    }
}
