//! Help for tests: seeds that are printed, mutation fuzzing on stable Rust, and
//! volume out of samples for measurements.
//!
//! A dev-dependency only; no product code may depend on it. Two things come
//! from the environment:
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `AQUIFER_SEED` | seed of every random choice | taken from the clock, printed |
//! | `AQUIFER_FUZZ_SECONDS` | time for each fuzz target | the target's own default |
//!
//! A fuzz target is a test function whose name starts with `fuzz_`, so that
//! `cargo xtask fuzz` finds it:
//!
//! ```
//! # fn decode(_: &[u8]) -> Result<(), ()> { Ok(()) }
//! # fn valid() -> Vec<u8> { vec![1, 2, 3] }
//! // #[test]
//! fn fuzz_decode_group() {
//!     aquifer_testkit::fuzz("decode_group", 0.2, &[valid()], |bytes| {
//!         let _ = decode(bytes); // may fail, must not panic
//!     });
//! }
//! # fuzz_decode_group();
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test helper prints its seeds, and its time and randomness are real on purpose"
)]

mod multiply;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use multiply::{Multiplied, load_records};
pub use mutate::mutate;
pub use rand;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Failing inputs up to this many bytes are printed as hexadecimal digits;
/// longer ones are only written to a file.
const PRINT_BYTES_MAX: usize = 4096;

/// The seed in the environment variable `name` (decimal, or hexadecimal after
/// `0x`), or one taken from the clock. Prints it either way, so that a failed
/// run can be repeated.
///
/// # Panics
/// If the variable is set to something that is not a number: a run that
/// silently ignored the seed asked for would prove nothing.
pub fn seed_from_env(name: &str) -> u64 {
    let seed = match std::env::var(name) {
        Ok(text) => parse_seed(&text)
            .unwrap_or_else(|| panic!("{name}={text} is not a decimal or 0x… number")),
        Err(_) => {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
        }
    };
    println!("{name}={seed}");
    seed
}

/// Whether the full test is running, which takes larger counts.
pub fn is_full_test() -> bool {
    std::env::var_os("AQUIFER_TEST_FULL").is_some()
}

/// A generator seeded from `AQUIFER_SEED`; see [`seed_from_env`].
pub fn rng_from_env() -> StdRng {
    StdRng::seed_from_u64(seed_from_env("AQUIFER_SEED"))
}

/// Calls `check` with each of `corpus`, then with mutations of them until
/// `AQUIFER_FUZZ_SECONDS` (else `seconds_default`) have passed; returns how
/// many inputs were tried.
///
/// On a panic it prints the seed and the input, writes the input to
/// `aquifer-fuzz-<name>.bin` in the temporary directory, and panics on.
pub fn fuzz(name: &str, seconds_default: f64, corpus: &[Vec<u8>], check: impl Fn(&[u8])) -> u64 {
    fuzz_repaired(name, seconds_default, corpus, |_| {}, check)
}

/// Like [`fuzz`], for formats behind a checksum: two of three mutated inputs
/// go through `repair`, which writes the right checksum into them, so that
/// fuzzing reaches what lies behind it. `repair` must accept any bytes.
pub fn fuzz_repaired(
    name: &str,
    seconds_default: f64,
    corpus: &[Vec<u8>],
    repair: impl Fn(&mut Vec<u8>),
    check: impl Fn(&[u8]),
) -> u64 {
    assert!(!corpus.is_empty(), "fuzz target {name} has no valid input to start from");
    let seed = seed_from_env("AQUIFER_SEED");
    let mut random = StdRng::seed_from_u64(seed);
    let budget = Duration::from_secs_f64(fuzz_seconds(seconds_default));
    let started = Instant::now();
    let mut iterations = 0u64;
    let run = |input: &[u8], iteration: u64| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            report_failure(name, seed, iteration, input);
            resume_unwind(panic);
        }
    };
    for input in corpus {
        run(input, iterations);
        iterations += 1;
    }
    while started.elapsed() < budget {
        let mut input = mutate(&mut random, corpus);
        if !iterations.is_multiple_of(3) {
            repair(&mut input);
        }
        run(&input, iterations);
        iterations += 1;
    }
    println!(
        "fuzz {name}: {iterations} inputs in {:.1} s, seed {seed}",
        started.elapsed().as_secs_f64()
    );
    iterations
}

fn fuzz_seconds(default: f64) -> f64 {
    match std::env::var("AQUIFER_FUZZ_SECONDS") {
        Ok(text) => text
            .parse::<f64>()
            .ok()
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
            .unwrap_or_else(|| panic!("AQUIFER_FUZZ_SECONDS={text} is not a number of seconds")),
        Err(_) => default,
    }
}

fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn report_failure(name: &str, seed: u64, iteration: u64, input: &[u8]) {
    let path = std::env::temp_dir().join(format!("aquifer-fuzz-{name}.bin"));
    println!("fuzz {name} failed: AQUIFER_SEED={seed}, input {iteration}, {} bytes", input.len());
    match std::fs::write(&path, input) {
        Ok(()) => println!("input written to {}", path.display()),
        Err(error) => println!("input not written to {}: {error}", path.display()),
    }
    if input.len() <= PRINT_BYTES_MAX {
        let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("input in hexadecimal: {digits}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_seed_reads_in_both_bases() {
        assert_eq!(parse_seed("17"), Some(17));
        assert_eq!(parse_seed("0xff"), Some(255));
        assert_eq!(parse_seed("ff"), None);
    }

    #[test]
    fn fuzzing_visits_the_corpus_then_mutations() {
        let corpus = vec![vec![0u8; 32], b"hello".to_vec()];
        let (same, other) = (Cell::new(0u64), Cell::new(0u64));
        let tried = fuzz("visits", 0.05, &corpus, |input| {
            let counter = if corpus.iter().any(|item| item == input) { &same } else { &other };
            counter.set(counter.get() + 1);
        });
        assert!(same.get() >= 2);
        assert!(other.get() > 10, "only {} mutations", other.get());
        assert_eq!(tried, same.get() + other.get());
    }

    #[test]
    fn fuzzing_finds_a_planted_fault_behind_a_checksum() {
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let repair = |input: &mut Vec<u8>| {
            if let Some((first, rest)) = input.split_first_mut() {
                *first = sum(rest);
            }
        };
        let mut valid = vec![0u8; 16];
        repair(&mut valid);
        let found = catch_unwind(AssertUnwindSafe(|| {
            fuzz_repaired("planted", 5.0, &[valid], repair, |input| {
                if let Some((first, rest)) = input.split_first() {
                    assert!(*first != sum(rest) || rest.first() != Some(&0xff), "planted");
                }
            })
        }));
        assert!(found.is_err(), "the planted fault was not found");
    }
}
