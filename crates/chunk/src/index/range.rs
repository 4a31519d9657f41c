//! One range of terms, as it lies in the file: what a query for a term reads.
//!
//! A sequence of bits. First how many terms, in Elias's gamma code of one more;
//! then each term in the order of its number:
//!
//! | what | bits |
//! |---|---|
//! | how far behind the term before it (the first: behind −1), less one | Rice's code with [`RangeShape::gap_bits`] low bits |
//! | `0`, and its only block | 1 + [`RangeShape::block_bits`] |
//! | or `10`, how many blocks in gamma code, and each | 2 + … |
//! | or `11`, and a bit for each block of the chunk | 2 + blocks |

use super::BlockSet;
use super::bits::{BitReader, BitWriter};

/// What is the same for all ranges of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RangeShape {
    /// The blocks of the chunk.
    pub(super) blocks: usize,
    /// The low bits of a gap.
    pub(super) gap_bits: u32,
}

impl RangeShape {
    /// The bits of a block's number.
    pub(super) const fn block_bits(self) -> u32 {
        usize::BITS - self.blocks.saturating_sub(1).leading_zeros()
    }
}

fn write_gamma(bits: &mut BitWriter, value: u64) {
    let width = 63 - value.leading_zeros();
    bits.unary(u64::from(width));
    bits.bits(value & ((1 << width) - 1), width);
}

fn read_gamma(bits: &mut BitReader<'_>) -> Option<u64> {
    let width = bits.unary()?;
    let width = u32::try_from(width).ok().filter(|width| *width <= 40)?;
    Some(1 << width | bits.bits(width)?)
}

/// Writes a range: its terms, growing strictly, each with its blocks, growing
/// strictly.
pub(super) fn encode(terms: &[(u64, Vec<u16>)], shape: RangeShape) -> Vec<u8> {
    let mut bits = BitWriter::default();
    write_gamma(&mut bits, terms.len() as u64 + 1);
    let mut next = 0;
    for (term, blocks) in terms {
        debug_assert!(*term >= next && !blocks.is_empty());
        bits.rice(term - next, shape.gap_bits);
        next = term + 1;
        let width = shape.block_bits();
        if let [only] = blocks.as_slice() {
            bits.bits(0, 1);
            bits.bits(u64::from(*only), width);
        } else if blocks.len() * (width as usize) < shape.blocks {
            bits.bits(0b10, 2);
            write_gamma(&mut bits, blocks.len() as u64);
            blocks.iter().for_each(|block| bits.bits(u64::from(*block), width));
        } else {
            bits.bits(0b11, 2);
            let mut rest = blocks.iter().peekable();
            for block in 0..shape.blocks {
                let is_in = rest.next_if(|next| usize::from(**next) == block).is_some();
                bits.bits(u64::from(is_in), 1);
            }
        }
    }
    bits.finish()
}

/// The blocks of `wanted`, none where it is not in the range. `None` where the
/// bytes are no range.
pub(super) fn find(bytes: &[u8], wanted: u64, shape: RangeShape) -> Option<BlockSet> {
    let mut bits = BitReader::new(bytes);
    let count = read_gamma(&mut bits)? - 1;
    let mut next = 0_u64;
    for _ in 0..count {
        let term = next.checked_add(bits.rice(shape.gap_bits)?)?;
        if term > wanted {
            break;
        }
        if term == wanted {
            let mut blocks = BlockSet::none(shape.blocks);
            read_blocks(&mut bits, shape, Some(&mut blocks))?;
            return Some(blocks);
        }
        read_blocks(&mut bits, shape, None)?;
        next = term.checked_add(1)?;
    }
    Some(BlockSet::none(shape.blocks))
}

/// Reads a whole range; how many terms it has. `None` where it is none.
pub(super) fn verify(bytes: &[u8], shape: RangeShape) -> Option<u64> {
    let mut bits = BitReader::new(bytes);
    let count = read_gamma(&mut bits)? - 1;
    for _ in 0..count {
        bits.rice(shape.gap_bits)?;
        read_blocks(&mut bits, shape, Some(&mut BlockSet::none(shape.blocks)))?;
    }
    (bits.left() < 8).then_some(count)
}

/// Reads the blocks of a term into `into`, or passes over them.
fn read_blocks(
    bits: &mut BitReader<'_>,
    shape: RangeShape,
    mut into: Option<&mut BlockSet>,
) -> Option<()> {
    let width = shape.block_bits();
    let mut block = |bits: &mut BitReader<'_>| {
        let block = usize::try_from(bits.bits(width)?).ok().filter(|at| *at < shape.blocks)?;
        if let Some(into) = &mut into {
            into.insert(block);
        }
        Some(())
    };
    if bits.bits(1)? == 0 {
        return block(bits);
    }
    if bits.bits(1)? == 0 {
        // No more than there are: each has a bit at least, or there is one block.
        let count = read_gamma(bits)?;
        for _ in 0..count.min(shape.blocks as u64 + 1) {
            block(bits)?;
        }
        return (count <= shape.blocks as u64).then_some(());
    }
    let Some(into) = into else { return bits.skip(shape.blocks) };
    for block in 0..shape.blocks {
        if bits.bits(1)? == 1 {
            into.insert(block);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(blocks: usize) -> RangeShape {
        RangeShape { blocks, gap_bits: 6 }
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(
            blocks in 1_usize..200,
            terms in proptest::collection::btree_map(
                0_u64..1 << 20,
                proptest::collection::btree_set(0_u16..200, 1..30),
                0..60,
            ),
        ) {
            let terms: Vec<(u64, Vec<u16>)> = terms
                .into_iter()
                .map(|(term, of)| {
                    let mut of: Vec<u16> = of.iter().map(|block| block % blocks as u16).collect();
                    of.sort_unstable();
                    of.dedup();
                    (term, of)
                })
                .collect();
            let bytes = encode(&terms, shape(blocks));
            prop_assert_eq!(verify(&bytes, shape(blocks)), Some(terms.len() as u64));
            for (term, of) in &terms {
                let found = find(&bytes, *term, shape(blocks)).unwrap();
                let found: Vec<u16> = found.iter().map(|block| block as u16).collect();
                prop_assert_eq!(&found, of);
                if terms.binary_search_by_key(&(term + 1), |(term, _)| *term).is_err() {
                    prop_assert!(find(&bytes, term + 1, shape(blocks)).unwrap().is_empty());
                }
            }
        }
    }

    #[test]
    fn fuzz_range_of_terms() {
        let terms = [(3, vec![1]), (900, vec![0, 4]), (901, (0..50).collect())];
        let samples = [encode(&terms, shape(70)), encode(&[], shape(70))];
        aquifer_testkit::fuzz("range_of_terms", 0.2, &samples, |bytes| {
            let _ = find(bytes, 900, shape(70));
            let _ = verify(bytes, shape(70));
        });
    }
}
