//! The seam to randomness: the system's, or a seeded sequence for tests.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Where random bytes come from.
pub trait Random: Debug + Send + Sync + 'static {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number over the whole range.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// A random (version 4) UUID, RFC 9562.
pub fn uuid_v4(random: &dyn Random) -> Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The operating system's random numbers, fit for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealRandom;

impl RealRandom {
    /// The operating system's random numbers.
    pub fn new() -> RealRandom {
        RealRandom
    }
}

impl Random for RealRandom {
    /// # Panics
    /// If the system has no random numbers; nothing could be named or keyed
    /// safely after that.
    fn fill(&self, buffer: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the system gives no random numbers: {error}"),
            }
        }
    }
}

/// A sequence that its seed fixes for ever (SplitMix64). Never for secrets.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom { state: AtomicU64::new(seed) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(STEP, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_sequence_for_ever() {
        // The reference values of SplitMix64 for seed 1234567.
        let random = SeededRandom::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(
            found,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_byte_of_a_buffer_is_filled() {
        for random in [&RealRandom as &dyn Random, &SeededRandom::new(1)] {
            let mut seen = [0_u8; 37];
            for _ in 0..32 {
                let mut buffer = [0; 37];
                random.fill(&mut buffer);
                for (seen, byte) in seen.iter_mut().zip(buffer) {
                    *seen |= byte;
                }
            }
            assert!(seen.iter().all(|byte| *byte != 0), "{random:?}: {seen:?}");
        }
    }

    #[test]
    fn a_uuid_is_random_and_says_so() {
        let random = RealRandom::new();
        let first = uuid_v4(&random);
        assert_eq!(first.get_version_num(), 4);
        assert_ne!(first, uuid_v4(&random));
        let again = |seed| uuid_v4(&SeededRandom::new(seed));
        assert_eq!(again(7), again(7));
        assert_ne!(again(7), again(8));
    }
}
