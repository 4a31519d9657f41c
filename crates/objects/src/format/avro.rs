//! Avro's object container files: read as JSON, written as Aquifer's records.
//!
//! The reader is its own: a schema comes with the file, and the libraries that
//! read by it panic at some, allocate what a file says and follow types that
//! hold themselves without an end. Here a block is bounded before it is held, a
//! value in its depth, and no list has more items than its block has bytes.
//!
//! A value becomes JSON as Avro's own encoding has it, but for unions, which
//! are their value, for bytes, which are hexadecimal digits, and for logical
//! types: times are RFC 3339, decimals are numbers.

use std::io::{BufRead, Read};

use aquifer_types::{Header, NewRecord, Record, Timestamp};
use bytes::Bytes;
use chrono::DateTime;

use super::avro_schema::{Place, Schema, Type};
use crate::rows::{Halt, Rows};

/// What a file begins with.
pub(crate) const MAGIC: &[u8] = b"Obj\x01";
/// The most bytes of a block, compressed or not.
const BLOCK_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a file's header.
const HEADER_BYTES_MAX: usize = 4 << 20;
/// How deep a value may lie in others.
const DEPTH_MAX: usize = 64;
const MARKER_BYTES: usize = 16;
/// A record's JSON may be longer than the record: names, digits.
const JSON_BYTES_FREE: usize = 4096;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstd,
}

/// Decodes a container file.
pub(crate) fn decode(mut input: impl BufRead, rows: &mut Rows) -> Result<(), Halt> {
    let file = File::open(&mut input).map_err(|why| rows.broken(why))?;
    let own = own_fields(&file.schema);
    loop {
        let block = match file.next_block(&mut input) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(()),
            Err(why) => return Err(rows.broken(why)),
        };
        if rows.skippable() >= block.count {
            rows.pass(block.count);
            continue;
        }
        let bytes = file.codec.undo(block.bytes).map_err(|why| rows.broken(why))?;
        // A row of nothing takes no byte: then a count would be an endless loop.
        if block.count > bytes.len() as u64 {
            return Err(rows.broken("a block says that it has more values than bytes"));
        }
        let mut values = Values { schema: &file.schema, rest: &bytes, out: Vec::new(), out_max: 0 };
        for _ in 0..block.count {
            values.out_max = rows.record_bytes_max().saturating_mul(4).max(JSON_BYTES_FREE);
            values.out.clear();
            match own {
                true => match values.record() {
                    Ok(record) => rows.record(record)?,
                    Err(why) => return Err(rows.broken(why)),
                },
                false => match values.write(file.schema.root, 0) {
                    Ok(()) => rows.json(Bytes::copy_from_slice(&values.out))?,
                    Err(why) => return Err(rows.broken(why)),
                },
            }
        }
        if !values.rest.is_empty() {
            return Err(rows.broken("a block has bytes behind its last value"));
        }
    }
}

struct File {
    schema: Schema,
    codec: Codec,
    marker: [u8; MARKER_BYTES],
}

struct Block {
    count: u64,
    bytes: Vec<u8>,
}

impl File {
    fn open(input: &mut impl BufRead) -> Result<Self, String> {
        let magic = exactly(input, MAGIC.len())?;
        if magic != MAGIC {
            return Err("it is no Avro container file".to_owned());
        }
        let (mut schema, mut codec) = (None, Codec::Null);
        let mut left = HEADER_BYTES_MAX;
        loop {
            let mut count = long(input)?.ok_or("its header ends early")?;
            if count == 0 {
                break;
            }
            if count < 0 {
                // The size of the entries follows; they are read one by one.
                long(input)?;
                count = count.checked_neg().ok_or("its header is not sound")?;
            }
            for _ in 0..count {
                let key = sized(input, &mut left)?;
                let value = sized(input, &mut left)?;
                match key.as_slice() {
                    b"avro.schema" => schema = Some(Schema::parse(&value)?),
                    b"avro.codec" => codec = Codec::of(&value)?,
                    _ => {}
                }
            }
        }
        let mut marker = [0; MARKER_BYTES];
        marker.copy_from_slice(&exactly(input, MARKER_BYTES)?);
        Ok(Self { schema: schema.ok_or("it has no schema")?, codec, marker })
    }

    fn next_block(&self, input: &mut impl BufRead) -> Result<Option<Block>, String> {
        let Some(count) = long(input)? else { return Ok(None) };
        let size = long(input)?.ok_or("it ends within a block")?;
        let (Ok(count), Ok(size)) = (u64::try_from(count), usize::try_from(size)) else {
            return Err("a block says that it is less than empty".to_owned());
        };
        if size > BLOCK_BYTES_MAX {
            return Err(format!("a block has {size} bytes, {BLOCK_BYTES_MAX} may be"));
        }
        let bytes = exactly(input, size)?;
        if exactly(input, MARKER_BYTES)? != self.marker {
            return Err("a block does not end with the file's marker".to_owned());
        }
        Ok(Some(Block { count, bytes }))
    }
}

impl Codec {
    fn of(name: &[u8]) -> Result<Self, String> {
        match name {
            b"null" => Ok(Self::Null),
            b"deflate" => Ok(Self::Deflate),
            b"snappy" => Ok(Self::Snappy),
            b"zstandard" => Ok(Self::Zstd),
            other => Err(format!(
                "its blocks are compressed with {}, known are null, deflate, snappy and zstandard",
                String::from_utf8_lossy(other).chars().take(40).collect::<String>()
            )),
        }
    }

    fn undo(self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("a block cannot be decompressed: {error}");
        let read = |reader: &mut dyn Read| -> Result<Vec<u8>, String> {
            let mut out = Vec::new();
            reader.take(BLOCK_BYTES_MAX as u64 + 1).read_to_end(&mut out).map_err(failed)?;
            match out.len() > BLOCK_BYTES_MAX {
                true => Err(format!("a block grows to more than {BLOCK_BYTES_MAX} bytes")),
                false => Ok(out),
            }
        };
        match self {
            Self::Null => Ok(bytes),
            Self::Deflate => read(&mut flate2::read::DeflateDecoder::new(&bytes[..])),
            Self::Zstd => read(&mut zstd::stream::read::Decoder::new(&bytes[..]).map_err(failed)?),
            Self::Snappy => snappy(&bytes),
        }
    }
}

/// Snappy's bytes are followed by the CRC-32 of what they were.
fn snappy(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let Some((bytes, expected)) = bytes.split_last_chunk::<4>() else {
        return Err("a block has no checksum".to_owned());
    };
    let failed = |error: snap::Error| format!("a block cannot be decompressed: {error}");
    if snap::raw::decompress_len(bytes).map_err(failed)? > BLOCK_BYTES_MAX {
        return Err(format!("a block grows to more than {BLOCK_BYTES_MAX} bytes"));
    }
    let out = snap::raw::Decoder::new().decompress_vec(bytes).map_err(failed)?;
    let mut crc = flate2::Crc::new();
    crc.update(&out);
    match crc.sum() == u32::from_be_bytes(*expected) {
        true => Ok(out),
        false => Err("a block does not match its checksum".to_owned()),
    }
}

fn exactly(input: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // The memory grows with what comes, not with what a file says.
    input.take(length as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err("it ends early".to_owned()),
    }
}

fn sized(input: &mut impl BufRead, left: &mut usize) -> Result<Vec<u8>, String> {
    let length = long(input)?.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| length <= left).ok_or("its header is not sound")?;
    *left -= length;
    exactly(input, length)
}

/// A number of up to 64 bits, seven a byte, the sign in its lowest bit; none at
/// the end of the input.
fn long(input: &mut impl BufRead) -> Result<Option<i64>, String> {
    let mut number = 0_u64;
    for place in 0..10 {
        let available = input.fill_buf().map_err(|error| error.to_string())?;
        let Some(&byte) = available.first() else {
            return match place {
                0 => Ok(None),
                _ => Err("it ends within a number".to_owned()),
            };
        };
        input.consume(1);
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((number >> 1) as i64 ^ -((number & 1) as i64)));
        }
    }
    Err("a number has more than 64 bits".to_owned())
}

/// The values of a block.
struct Values<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
    out: Vec<u8>,
    out_max: usize,
}

const SHORT: &str = "a value ends early";

impl<'a> Values<'a> {
    fn long(&mut self) -> Result<i64, String> {
        long(&mut self.rest)?.ok_or_else(|| SHORT.to_owned())
    }

    fn taken(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn sized(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.long()?).map_err(|_| SHORT)?;
        self.taken(length)
    }

    /// The place of a variant or a symbol.
    fn place(&mut self) -> Result<usize, String> {
        usize::try_from(self.long()?).map_err(|_| "a place is negative".to_owned())
    }

    fn write(&mut self, place: Place, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("a value is more than {DEPTH_MAX} deep"));
        }
        if self.out.len() > self.out_max {
            return Err(format!("a value has more than {} bytes of JSON", self.out_max));
        }
        let schema = self.schema;
        match schema.get(place)? {
            Type::Union(variants) => {
                let variant = self.place()?;
                let variant = variants.get(variant).ok_or("a union has no such variant")?;
                self.write(*variant, depth + 1)
            }
            Type::Record(fields) => {
                self.out.push(b'{');
                for (number, (name, of_field)) in fields.iter().enumerate() {
                    if number > 0 {
                        self.out.push(b',');
                    }
                    self.out.extend_from_slice(name.as_bytes());
                    self.out.push(b':');
                    self.write(*of_field, depth + 1)?;
                }
                self.out.push(b'}');
                Ok(())
            }
            Type::Array(items) => self.items(b"[]", |values| values.write(*items, depth + 1)),
            Type::Map(items) => self.items(b"{}", |values| {
                let key = String::from_utf8_lossy(values.sized()?).into_owned();
                values.text(&key)?;
                values.out.push(b':');
                values.write(*items, depth + 1)
            }),
            simple => self.simple(simple),
        }
    }

    /// The blocks of a list or a map.
    fn items(
        &mut self,
        brackets: &[u8; 2],
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let [open, close] = *brackets;
        self.out.push(open);
        let mut is_first = true;
        loop {
            let mut count = self.long()?;
            if count < 0 {
                // The size of the block follows.
                self.long()?;
                count = count.checked_neg().ok_or(SHORT)?;
            }
            if count == 0 {
                break;
            }
            // Items of nothing take no byte, and could be without an end.
            if u64::try_from(count).is_ok_and(|count| count > self.rest.len() as u64) {
                return Err("a list says that it has more items than bytes".to_owned());
            }
            for _ in 0..count {
                if !std::mem::take(&mut is_first) {
                    self.out.push(b',');
                }
                item(self)?;
            }
        }
        self.out.push(close);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        serde_json::to_writer(&mut self.out, text).map_err(|error| error.to_string())
    }

    fn raw(&mut self, text: &str) -> Result<(), String> {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// A number, or null where JSON has none for it.
    fn float(&mut self, number: f64, text: String) -> Result<(), String> {
        match number.is_finite() {
            true => self.raw(&text),
            false => self.raw("null"),
        }
    }

    fn simple(&mut self, kind: &Type) -> Result<(), String> {
        match kind {
            Type::Null => self.raw("null"),
            Type::Boolean => match self.taken(1)? {
                [0] => self.raw("false"),
                [1] => self.raw("true"),
                _ => Err("a boolean is neither true nor false".to_owned()),
            },
            Type::Int | Type::Long => {
                let number = self.long()?;
                self.raw(&number.to_string())
            }
            Type::Float => {
                let bytes = self.taken(4)?.try_into().map_err(|_| SHORT)?;
                let number = f32::from_le_bytes(bytes);
                self.float(number.into(), serde_json::json!(number).to_string())
            }
            Type::Double => {
                let bytes = self.taken(8)?.try_into().map_err(|_| SHORT)?;
                let number = f64::from_le_bytes(bytes);
                self.float(number, serde_json::json!(number).to_string())
            }
            Type::Text => {
                let text = std::str::from_utf8(self.sized()?)
                    .map_err(|_| "a text is not UTF-8".to_owned())?
                    .to_owned();
                self.text(&text)
            }
            Type::Bytes => {
                let digits = hexadecimal(self.sized()?);
                self.text(&digits)
            }
            Type::Fixed(size) => {
                let digits = hexadecimal(self.taken(*size)?);
                self.text(&digits)
            }
            Type::Enum(symbols) => {
                let symbol = self.place()?;
                let symbol = symbols.get(symbol).ok_or("an enum has no such symbol")?;
                self.text(symbol)
            }
            Type::Date => {
                let days = self.long()?;
                let date = days.checked_mul(86_400).and_then(|at| DateTime::from_timestamp(at, 0));
                let date = date.ok_or("a date is out of range")?;
                self.text(&date.format("%Y-%m-%d").to_string())
            }
            Type::Timestamp { units, is_local } => {
                let number = self.long()?;
                let nanoseconds = number.rem_euclid(*units) * (1_000_000_000 / units);
                let nanoseconds = u32::try_from(nanoseconds).map_err(|_| SHORT)?;
                let time = DateTime::from_timestamp(number.div_euclid(*units), nanoseconds);
                let time = time.ok_or("a time is out of range")?;
                let zone = if *is_local { "" } else { "Z" };
                self.text(&format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f")))
            }
            Type::Decimal { scale, fixed } => {
                let bytes = match fixed {
                    Some(size) => self.taken(*size)?,
                    None => self.sized()?,
                };
                let text = decimal(bytes, *scale).ok_or("a decimal has more than 128 bits")?;
                self.raw(&text)
            }
            Type::Union(_) | Type::Record(_) | Type::Array(_) | Type::Map(_) => {
                Err("a value is not simple".to_owned())
            }
        }
    }

    /// A value of Aquifer's own schema.
    fn record(&mut self) -> Result<NewRecord, String> {
        let _partition = self.long()?;
        let _offset = self.long()?;
        let timestamp = Timestamp(self.long()?);
        let key = self.optional()?;
        let mut headers = Vec::new();
        loop {
            let mut count = self.long()?;
            if count < 0 {
                self.long()?;
                count = count.checked_neg().ok_or(SHORT)?;
            }
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let key = Bytes::copy_from_slice(self.sized()?);
                headers.push(Header { key, value: self.optional()? });
            }
        }
        let value = self.optional()?;
        Ok(NewRecord { timestamp: Some(timestamp), key, headers, value })
    }

    fn optional(&mut self) -> Result<Option<Bytes>, String> {
        match self.place()? {
            0 => Ok(None),
            1 => Ok(Some(Bytes::copy_from_slice(self.sized()?))),
            _ => Err("a union has no such variant".to_owned()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number of digits, `scale` of them behind the point.
fn decimal(bytes: &[u8], scale: u32) -> Option<String> {
    if bytes.len() > 16 {
        return None;
    }
    let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut number = if is_negative { -1_i128 } else { 0 };
    for byte in bytes {
        number = number << 8 | i128::from(*byte);
    }
    let digits = number.unsigned_abs().to_string();
    let scale = usize::try_from(scale).ok()?;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at_checked(padded.len() - scale)?;
    let sign = if is_negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// The schema of exports.
const OWN_SCHEMA: &str = r#"{"type":"record","name":"Record","namespace":"aquifer","fields":[{"name":"_partition","type":"int"},{"name":"_offset","type":"long"},{"name":"_timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"_key","type":["null","bytes"]},{"name":"_headers","type":{"type":"array","items":{"type":"record","name":"Header","fields":[{"name":"key","type":"string"},{"name":"value","type":["null","bytes"]}]}}},{"name":"_value","type":["null","bytes"]}]}"#;

/// Whether a schema is that of exports.
fn own_fields(schema: &Schema) -> bool {
    let own = ["_partition", "_offset", "_timestamp", "_key", "_headers", "_value"];
    let fields = schema.fields();
    let has_names = fields.len() == own.len()
        && fields.iter().zip(own).all(|((name, _), own)| name.trim_matches('"') == own);
    has_names && Schema::parse(OWN_SCHEMA.as_bytes()).is_ok_and(|own| own.is_like(schema))
}

/// Bytes of a block before it is compressed.
const BLOCK_BYTES: usize = 64 << 10;

/// Writes records as a container file, its blocks compressed with zstd.
pub(crate) fn encode(
    partition: u32,
    records: &[Record],
    marker: [u8; 16],
) -> Result<Vec<u8>, String> {
    let mut out = MAGIC.to_vec();
    put_long(&mut out, 2);
    for (key, value) in [("avro.schema", OWN_SCHEMA), ("avro.codec", "zstandard")] {
        put_sized(&mut out, key.as_bytes());
        put_sized(&mut out, value.as_bytes());
    }
    put_long(&mut out, 0);
    out.extend_from_slice(&marker);
    let mut block = Vec::new();
    let mut count = 0;
    for record in records {
        put_record(&mut block, partition, record);
        count += 1;
        if block.len() >= BLOCK_BYTES {
            put_block(&mut out, &mut block, &mut count, &marker)?;
        }
    }
    if count > 0 {
        put_block(&mut out, &mut block, &mut count, &marker)?;
    }
    Ok(out)
}

fn put_block(
    out: &mut Vec<u8>,
    block: &mut Vec<u8>,
    count: &mut i64,
    marker: &[u8; 16],
) -> Result<(), String> {
    let bytes = zstd::bulk::compress(block, 3).map_err(|error| error.to_string())?;
    put_long(out, std::mem::take(count));
    put_sized(out, &bytes);
    out.extend_from_slice(marker);
    block.clear();
    Ok(())
}

fn put_record(out: &mut Vec<u8>, partition: u32, record: &Record) {
    put_long(out, partition.into());
    put_long(out, record.offset.get());
    put_long(out, record.timestamp.get());
    put_optional(out, record.key.as_deref());
    if !record.headers.is_empty() {
        put_long(out, record.headers.len() as i64);
        for header in &record.headers {
            put_sized(out, String::from_utf8_lossy(&header.key).as_bytes());
            put_optional(out, header.value.as_deref());
        }
    }
    put_long(out, 0);
    put_optional(out, record.value.as_deref());
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_long(out, 0),
        Some(bytes) => {
            put_long(out, 1);
            put_sized(out, bytes);
        }
    }
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests;
