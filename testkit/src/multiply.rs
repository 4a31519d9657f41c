//! Volume out of small samples of real data, for measurements.

use std::io;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The records of a data set: the lines of a file, or the files of a folder,
/// each without its line ends. Empty for notes (`.md`) beside the data.
///
/// # Errors
/// Where something cannot be read.
pub fn load_records(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    if path.is_dir() {
        let mut files: Vec<_> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        files.sort();
        let one_line = |file: Vec<u8>| file.into_iter().filter(|byte| *byte != b'\n').collect();
        return files.iter().map(|file| Ok(one_line(std::fs::read(file)?))).collect();
    }
    if path.extension().is_some_and(|extension| extension == "md") {
        return Ok(Vec::new());
    }
    let file = std::fs::read(path)?;
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(<[u8]>::to_vec).collect())
}

/// Records without end from a sample, in rounds. The first round is the sample
/// itself, permuted. So that a compressor does not find the same bytes again,
/// every further copy of a record gets other digits where it has runs of three
/// or more (ids, numbers, parts of times) and other hexadecimal digits where
/// it has at least eight with a digit among them. Words stay, as they do in
/// real logs.
#[derive(Debug)]
pub struct Multiplied<'a> {
    records: &'a [Vec<u8>],
    order: Vec<usize>,
    next: usize,
    copies: usize,
    random: StdRng,
}

impl<'a> Multiplied<'a> {
    /// The same records for the same sample and seed.
    #[must_use]
    pub fn new(records: &'a [Vec<u8>], seed: u64) -> Self {
        Self {
            records,
            order: (0..records.len()).collect(),
            next: 0,
            copies: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Multiplied<'_> {
    type Item = Vec<u8>;

    /// None only for an empty sample.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.next == 0 {
            for index in 0..self.order.len() {
                self.order.swap(index, self.random.random_range(0..self.records.len()));
            }
        }
        let record = self.records.get(*self.order.get(self.next)?)?;
        let record = if self.copies == 0 { record.clone() } else { vary(record, &mut self.random) };
        self.next += 1;
        if self.next == self.order.len() {
            self.next = 0;
            self.copies += 1;
        }
        Some(record)
    }
}

/// Another record of the same kind.
fn vary(record: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut out = record.to_vec();
    let mut at = 0;
    while at < out.len() {
        let run =
            |test: fn(&u8) -> bool, out: &[u8]| out[at..].iter().take_while(|b| test(b)).count();
        let hex = run(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b), &out);
        let digits = run(u8::is_ascii_digit, &out);
        if hex >= 8 && hex > digits && out[at..at + hex].iter().any(u8::is_ascii_digit) {
            out[at..at + hex].fill_with(|| b"0123456789abcdef"[random.random_range(0..16)]);
            at += hex;
        } else if digits >= 3 {
            // The first digit stays, and with it the order of magnitude.
            out[at + 1..at + digits].fill_with(|| random.random_range(b'0'..=b'9'));
            at += digits;
        } else {
            at += digits.max(1);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_differ_in_their_numbers_only() {
        let sample = vec![b"GET /a 200 id=deadbeef01".to_vec(), b"no number".to_vec()];
        let made: Vec<_> = Multiplied::new(&sample, 7).take(6).collect();
        let mut first = made[..2].to_vec();
        first.sort();
        assert_eq!(first, sample);
        for record in &made[2..] {
            assert!(record.starts_with(b"GET /a 2") || *record == sample[1], "{record:?}");
        }
        let others = made[2..].iter().filter(|record| record.len() == sample[0].len());
        for record in others {
            assert_ne!(*record, sample[0]);
        }
        assert_eq!(made, Multiplied::new(&sample, 7).take(6).collect::<Vec<_>>());
        assert_eq!(Multiplied::new(&[], 7).next(), None);
    }
}
