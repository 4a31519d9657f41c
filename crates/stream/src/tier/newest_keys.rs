//! Which record of each key is the newest, in bounded memory.
//!
//! Keys are known by 128 bits of a keyed hash only, whose secret is drawn anew
//! for each pass: nobody can choose keys that collide, and by chance it happens
//! less often than a disk lies.

use std::collections::HashMap;
use std::hash::Hasher;
#[allow(deprecated, reason = "deprecated for hash maps; here the secret is ours to choose")]
use std::hash::SipHasher;

use aquifer_chunk::Rows;
use aquifer_env::Random;
use aquifer_types::Offset;

/// What one key takes at most: 24 bytes and a mark, in a table that may be
/// less than half full.
const KEY_BYTES: usize = 64;

/// The newest offset of each key in a range of offsets.
#[derive(Debug)]
pub(super) struct NewestKeys {
    offsets: HashMap<(u64, u64), Offset>,
    keys_max: usize,
    secret: [u64; 4],
}

impl NewestKeys {
    /// Takes at most `bytes_max` of memory, and one key at least.
    pub(super) fn new(bytes_max: usize, rows_max: u64, random: &dyn Random) -> Self {
        let keys_max = (bytes_max / KEY_BYTES).max(1);
        // Made in one piece: a table that grows is there twice.
        let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
        let offsets = HashMap::with_capacity(keys_max.min(rows_max));
        Self { offsets, keys_max, secret: [(); 4].map(|()| random.next_u64()) }
    }

    /// One without room.
    pub(super) fn none() -> Self {
        Self { offsets: HashMap::new(), keys_max: 0, secret: [0; 4] }
    }

    /// Adds rows that lie behind all before. The offset of the first one whose
    /// key has no room; from there on nothing was added.
    pub(super) fn add(&mut self, rows: &Rows) -> Option<Offset> {
        for (offset, key) in rows.offsets().zip(rows.keys()) {
            let Some(key) = key else { continue };
            let key = self.hash(key);
            if self.offsets.len() >= self.keys_max && !self.offsets.contains_key(&key) {
                return Some(offset);
            }
            self.offsets.insert(key, offset);
        }
        None
    }

    /// Which rows are to stay: those that no newer one of their key is known of,
    /// but for tombstones before `tombstones_before`. Rows without a key stay.
    pub(super) fn select(&self, rows: &Rows, tombstones_before: Offset) -> Vec<bool> {
        let rows = rows.offsets().zip(rows.keys()).zip(rows.are_tombstones());
        rows.map(|((offset, key), is_tombstone)| {
            let Some(key) = key else { return true };
            if is_tombstone && offset < tombstones_before {
                return false;
            }
            self.offsets.get(&self.hash(key)).is_none_or(|newest| *newest <= offset)
        })
        .collect()
    }

    #[allow(deprecated, reason = "as above")]
    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let [a, b, c, d] = self.secret;
        let half = |k0, k1| {
            let mut hasher = SipHasher::new_with_keys(k0, k1);
            hasher.write(key);
            hasher.finish()
        };
        (half(a, b), half(c, d))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_env::SeededRandom;
    use aquifer_types::{BatchBuilder, PartitionIndex, Timestamp};

    use super::*;

    /// Rows of these keys; a capital letter has no value, a dot no key.
    fn rows(keys: &str) -> Rows {
        let mut builder = BatchBuilder::default();
        for key in keys.chars() {
            let bytes = key.to_lowercase().to_string();
            let key_bytes = (key != '.').then_some(bytes.as_bytes());
            let value = (!key.is_uppercase()).then_some(&b"v"[..]);
            builder.push(Timestamp(1), key_bytes, &[], value);
        }
        let batch = builder.finish();
        Rows::from_batches(PartitionIndex(0), [(&batch, Timestamp(1))], 1 << 20).unwrap()
    }

    #[test]
    fn the_newest_of_each_key_stays() {
        let check = |keys: &str, keys_max: usize, tombstones_before: i64, expected: &str| {
            let rows = rows(keys);
            let random = SeededRandom::new(1);
            let mut newest = NewestKeys::new(keys_max * KEY_BYTES, 100, &random);
            let full_at = newest.add(&rows);
            let keep = newest.select(&rows, Offset(tombstones_before));
            let kept = rows.retain(keep).unwrap();
            let kept: Vec<i64> = kept.offsets().map(Offset::get).collect();
            let seen = format!("{kept:?} {:?}", full_at.map(Offset::get));
            assert_eq!(seen, expected, "{keys} with {keys_max} keys");
        };
        check("aabab", 10, 0, "[3, 4] None");
        check("a.a.", 10, 9, "[1, 2, 3] None");
        check("aAbB", 10, 0, "[1, 3] None");
        check("aAbB", 10, 2, "[3] None");
        check("Aab", 10, 9, "[1, 2] None");
        check("abcabc", 2, 0, "[0, 1, 2, 3, 4, 5] Some(2)");
        check("ababca", 2, 0, "[2, 3, 4, 5] Some(4)");
        check("ab", 0, 0, "[0, 1] Some(1)");
    }
}
