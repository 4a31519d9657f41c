//! Turns valid inputs into nearly valid ones.

use rand::RngExt;
use rand::rngs::StdRng;

/// Numbers at which length and count fields tend to break.
const EDGES: [i64; 12] =
    [0, 1, -1, 127, 128, 255, 32_767, 65_535, 0x7fff_ffff, 0xffff_ffff, i64::MAX, i64::MIN];

/// Mutated inputs stay below this many bytes more than the longest of the
/// corpus, so that a run's speed does not decay.
const GROWTH_BYTES_MAX: usize = 4096;

/// One of `corpus`, changed in one to eight places: bits, bytes, edge values
/// in either byte order, cuts, repeats, insertions, and splices with another
/// item. An empty corpus gives short random bytes.
pub fn mutate(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = match corpus.len() {
        0 => Vec::new(),
        len => corpus[random.random_range(0..len)].clone(),
    };
    let len_max = corpus.iter().map(Vec::len).max().unwrap_or(0) + GROWTH_BYTES_MAX;
    let steps = 1usize << random.random_range(0..4u32);
    for _ in 0..random.random_range(1..=steps) {
        mutate_once(random, corpus, &mut input);
    }
    input.truncate(len_max);
    input
}

fn mutate_once(random: &mut StdRng, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    if input.is_empty() {
        let count = random.random_range(1..64);
        input.extend((0..count).map(|_| random.random::<u8>()));
        return;
    }
    let at = random.random_range(0..input.len());
    match random.random_range(0..9u32) {
        0 => input[at] ^= 1 << random.random_range(0..8u32),
        1 => input[at] = random.random(),
        2 | 3 => write_edge(random, input, at),
        4 => input.truncate(at),
        5 => drop(input.drain(at..range_end(random, input.len(), at))),
        6 => {
            let repeated = input[at..range_end(random, input.len(), at)].to_vec();
            let to = random.random_range(0..=input.len());
            drop(input.splice(to..to, repeated));
        }
        7 => {
            let count = random.random_range(1..16);
            let inserted: Vec<u8> = (0..count).map(|_| random.random()).collect();
            drop(input.splice(at..at, inserted));
        }
        _ => {
            input.truncate(at);
            if !corpus.is_empty() {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}

fn write_edge(random: &mut StdRng, input: &mut [u8], at: usize) {
    let nearby = random.random_range(-2..=2i64);
    let value = EDGES[random.random_range(0..EDGES.len())].wrapping_add(nearby);
    let width = 1usize << random.random_range(0..4u32);
    let bytes: [u8; 8] = if random.random() {
        value.to_le_bytes()
    } else {
        // The low `width` bytes, most significant first.
        let mut big = value.to_be_bytes();
        big.rotate_left(8 - width);
        big
    };
    for (target, byte) in input[at..].iter_mut().zip(&bytes[..width]) {
        *target = *byte;
    }
}

fn range_end(random: &mut StdRng, len: usize, at: usize) -> usize {
    let span_max = if random.random() { 16 } else { len };
    (at + random.random_range(1..=span_max)).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn equal_seeds_give_equal_inputs() {
        let corpus = vec![(0u8..200).collect::<Vec<_>>(), vec![9; 40]];
        let draw = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..200).map(|_| mutate(&mut random, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn an_empty_corpus_and_empty_items_are_fine() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..1000 {
            mutate(&mut random, &[Vec::new()]);
        }
        assert!(!mutate(&mut random, &[]).is_empty());
    }
}
