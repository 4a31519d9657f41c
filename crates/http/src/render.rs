//! Records as JSON, written straight into the answer.

pub(crate) use aquifer_types::write_record_json as record;

/// A decimal number.
pub(crate) fn number(out: &mut Vec<u8>, number: i64) {
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(out, &number);
}
