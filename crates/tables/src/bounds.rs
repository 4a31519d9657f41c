//! Single values as manifests hold them: Iceberg's binary single-value
//! serialization.

use aquifer_types::Timestamp;

/// Milliseconds beyond these do not fit into microseconds; chunks hold the
/// nearest that do.
const MS_MAX: i64 = i64::MAX / 1000;

pub(crate) fn of_int(value: i32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub(crate) fn of_long(value: i64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub(crate) fn of_timestamp(timestamp: Timestamp) -> Vec<u8> {
    of_long(timestamp.0.clamp(-MS_MAX, MS_MAX) * 1000)
}

pub(crate) fn to_long(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_little_endian() {
        assert_eq!(of_int(258), [2, 1, 0, 0]);
        assert_eq!(of_long(-1), [255; 8]);
        assert_eq!(of_timestamp(Timestamp(1)), 1000_i64.to_le_bytes());
        assert_eq!(of_timestamp(Timestamp(i64::MAX)), (MS_MAX * 1000).to_le_bytes());
        assert_eq!(of_timestamp(Timestamp(i64::MIN)), (-MS_MAX * 1000).to_le_bytes());
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(to_long(&of_long(value)), Some(value));
        }
        assert_eq!(to_long(&[1, 2]), None);
    }
}
