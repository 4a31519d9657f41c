//! Which chunks of a partition are its data: a pure choice, no I/O.
//!
//! Live chunks as a manifest names them come first. A chunk that the manifest
//! does not know is taken where it goes on exactly where they end (it was added
//! later, or uploaded and not yet added: either way its records were
//! acknowledged), or where a live one is missing.

use std::collections::BTreeMap;

use aquifer_types::Offset;

use crate::chunk_meta::ChunkMeta;

/// The chunks of a partition, in order, none over another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) chunks: Vec<ChunkMeta>,
    /// Ranges in front of, between and behind them that should be covered.
    pub(super) missing: Vec<(Offset, Offset)>,
}

/// What is known of a partition beside the chunks that are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Where its first chunk should begin.
    pub(super) from: Offset,
    /// Where its last chunk should end at least.
    pub(super) through: Offset,
}

/// Chooses from the live chunks that are there and from others. Without a
/// `Known`, no manifest tells: everything that is there counts.
pub(super) fn choose(live: Vec<ChunkMeta>, others: Vec<ChunkMeta>, known: Option<Known>) -> Chain {
    let mut by_base: BTreeMap<Offset, Vec<(bool, ChunkMeta)>> = BTreeMap::new();
    let marked = live.into_iter().map(|chunk| (true, chunk));
    for (is_live, chunk) in marked.chain(others.into_iter().map(|chunk| (false, chunk))) {
        if chunk.next > chunk.base {
            by_base.entry(chunk.base).or_default().push((is_live, chunk));
        }
    }
    // How far one comes without a gap, from behind.
    let mut reach: BTreeMap<Offset, Offset> = BTreeMap::new();
    for (base, chunks) in by_base.iter().rev() {
        let furthest = chunks
            .iter()
            .map(|(_, chunk)| reach.get(&chunk.next).copied().unwrap_or(chunk.next))
            .max();
        reach.extend(furthest.map(|furthest| (*base, furthest)));
    }
    let lowest = by_base.keys().next().copied().unwrap_or_default();
    let mut at = known.map_or(lowest, |known| known.from);
    let mut chain = Chain::default();
    loop {
        let best = by_base.get(&at).and_then(|chunks| {
            chunks.iter().max_by_key(|(is_live, chunk)| {
                let reached = reach.get(&chunk.next).copied().unwrap_or(chunk.next);
                (reached, *is_live, chunk.next, chunk.generation, std::cmp::Reverse(chunk.id))
            })
        });
        if let Some((_, chunk)) = best {
            at = chunk.next;
            chain.chunks.push(chunk.clone());
            continue;
        }
        // Beyond a gap only what a manifest vouches for counts, where there is one.
        let counts = |chunks: &Vec<(bool, ChunkMeta)>| {
            known.is_none() || chunks.iter().any(|(is_live, _)| *is_live)
        };
        let behind = by_base.range(at.plus(1)..).find(|(_, chunks)| counts(chunks));
        let Some((base, _)) = behind else { break };
        chain.missing.push((at, *base));
        at = *base;
    }
    if let Some(known) = known.filter(|known| at < known.through) {
        chain.missing.push((at, known.through));
    }
    chain
}

#[cfg(test)]
mod tests {
    use aquifer_types::{ChunkId, Epoch, Partition, PartitionIndex, StreamId};

    use super::*;

    fn chunk((base, next, generation): (i64, i64, u32)) -> ChunkMeta {
        ChunkMeta {
            id: ChunkId::from_bytes([generation as u8; 16]),
            partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(0)),
            base: Offset(base),
            next: Offset(next),
            object_path: String::new(),
            object_bytes: 1,
            checksum: String::new(),
            records: 1,
            raw_bytes: 1,
            min_timestamp: None,
            max_timestamp: None,
            max_appended: None,
            epochs: vec![(Epoch(1), Offset(base))],
            generation,
            schema_version: 0,
            unfit: None,
            timestamp_type: aquifer_types::TimestampType::Create,
            index_path: None,
            index_bytes: None,
            key_id: None,
        }
    }

    type Piece = (i64, i64, u32);

    fn check(
        live: &[Piece],
        others: &[Piece],
        known: Option<(i64, i64)>,
        expected: &[Piece],
        missing: &[(i64, i64)],
    ) {
        let all = |pieces: &[Piece]| pieces.iter().copied().map(chunk).collect::<Vec<_>>();
        let known =
            known.map(|(from, through)| Known { from: Offset(from), through: Offset(through) });
        let chain = choose(all(live), all(others), known);
        let missing: Vec<_> = missing.iter().map(|(a, b)| (Offset(*a), Offset(*b))).collect();
        let expected = Chain { chunks: all(expected), missing };
        assert_eq!(chain, expected, "{live:?} and {others:?}");
    }

    #[test]
    fn later_chunks_are_taken_where_they_go_on() {
        let live = [(0, 10, 0), (10, 20, 0)];
        let known = Some((0, 20));
        check(&live, &[], known, &live, &[]);
        check(&live, &[(20, 30, 0)], known, &[live[0], live[1], (20, 30, 0)], &[]);
        // Not contiguous, or superseded by what is live.
        check(&live, &[(25, 30, 0), (0, 20, 1), (5, 12, 3)], known, &live, &[]);
        // An upload that was never added, and what was added instead.
        let others = [(20, 35, 0), (20, 30, 1), (30, 40, 0)];
        let expected = [live[0], live[1], (20, 30, 1), (30, 40, 0)];
        check(&live, &others, known, &expected, &[]);
        // The same records twice: one of them.
        let twice = [(20, 30, 0), (20, 30, 1)];
        check(&live, &twice, known, &[live[0], live[1], (20, 30, 1)], &[]);
        check(&[], &[(4, 9, 0)], Some((4, 4)), &[(4, 9, 0)], &[]);
        check(&[], &[], Some((4, 4)), &[], &[]);
    }

    #[test]
    fn what_is_missing_is_told_and_bridged_where_it_can_be() {
        let known = Some((0, 30));
        check(&[(0, 10, 0), (20, 30, 0)], &[], known, &[(0, 10, 0), (20, 30, 0)], &[(10, 20)]);
        check(&[(10, 30, 0)], &[], known, &[(10, 30, 0)], &[(0, 10)]);
        check(&[(0, 10, 0)], &[], known, &[(0, 10, 0)], &[(10, 30)]);
        check(&[], &[], known, &[], &[(0, 30)]);
        // Merged, and the inputs deleted, after the manifest was written.
        check(&[(20, 30, 0)], &[(0, 20, 1)], known, &[(0, 20, 1), (20, 30, 0)], &[]);
        check(&[(0, 10, 0), (20, 30, 0)], &[(0, 30, 1)], known, &[(0, 30, 1)], &[]);
    }

    #[test]
    fn without_a_manifest_all_that_is_there_counts() {
        let merged = [(0, 10, 0), (10, 20, 0), (0, 20, 1), (20, 30, 0)];
        check(&[], &merged, None, &[(0, 20, 1), (20, 30, 0)], &[]);
        check(&[], &[(5, 10, 0), (12, 20, 0)], None, &[(5, 10, 0), (12, 20, 0)], &[(10, 12)]);
        check(&[], &[], None, &[], &[]);
    }
}
