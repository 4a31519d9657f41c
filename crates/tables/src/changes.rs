//! What lies between the chunks that a snapshot lists and those that are live:
//! one step for each kind of operation, so that readers who follow the table
//! tell new records from records in other files.

use std::collections::{BTreeMap, HashMap, HashSet};

use aquifer_types::{Offset, PartitionIndex};

use crate::data_file::Listed;
use crate::live::LiveFile;

/// What a snapshot does, in the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Records go: retention, truncation.
    Delete,
    /// The same records in other files: compaction.
    Replace,
    /// Other files with other records: compaction that leaves some out, or
    /// whose inputs were not all listed.
    Overwrite,
    /// New records.
    Append,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Replace => "replace",
            Self::Overwrite => "overwrite",
            Self::Append => "append",
        }
    }
}

/// One snapshot's worth of changes.
#[derive(Debug, Default)]
pub(crate) struct Step<'a> {
    pub(crate) removed: Vec<&'a Listed>,
    pub(crate) added: Vec<&'a LiveFile>,
}

/// The steps from `listed` to `live`, in the order in which they are to be made.
/// `hidden` has the rows of listed chunks that are not shown.
pub(crate) fn between<'a>(
    listed: &[&'a Listed],
    live: &'a [LiveFile],
    hidden: &HashMap<&str, u64>,
) -> BTreeMap<Kind, Step<'a>> {
    let live_urls: HashSet<&str> = live.iter().map(|file| file.url.as_str()).collect();
    let listed_urls: HashSet<&str> = listed.iter().map(|file| file.url.as_str()).collect();
    let mut changes: BTreeMap<PartitionIndex, Step<'a>> = BTreeMap::new();
    for file in listed.iter().filter(|file| !live_urls.contains(file.url.as_str())) {
        changes.entry(file.partition).or_default().removed.push(file);
    }
    for file in live.iter().filter(|file| !listed_urls.contains(file.url.as_str())) {
        changes.entry(file.chunk.partition.index).or_default().added.push(file);
    }
    let mut steps: BTreeMap<Kind, Step<'a>> = BTreeMap::new();
    for changed in changes.into_values() {
        sort_out(changed, hidden, &mut steps);
    }
    steps
}

/// Divides the changes of one partition.
fn sort_out<'a>(
    changed: Step<'a>,
    hidden: &HashMap<&str, u64>,
    steps: &mut BTreeMap<Kind, Step<'a>>,
) {
    let overlaps =
        |range: (Offset, Offset), other: (Offset, Offset)| range.0 < other.1 && other.0 < range.1;
    let of_listed = |file: &Listed| (file.base, file.next);
    let of_live = |file: &LiveFile| (file.chunk.base, file.chunk.next);
    let Step { removed, added } = changed;
    let (inputs, gone): (Vec<&Listed>, Vec<&Listed>) = removed
        .iter()
        .partition(|file| added.iter().any(|new| overlaps(of_live(new), of_listed(file))));
    let (outputs, new): (Vec<&LiveFile>, Vec<&LiveFile>) = added
        .iter()
        .partition(|new| removed.iter().any(|file| overlaps(of_live(new), of_listed(file))));
    let shown = |file: &&Listed| {
        file.records.saturating_sub(hidden.get(file.url.as_str()).copied().unwrap_or(0))
    };
    let before: u64 = inputs.iter().map(shown).sum();
    let after: u64 = outputs.iter().map(|file| file.chunk.records).sum();
    let is_same = before == after && outputs.iter().all(|file| file.hidden_below.is_none());
    let kind = if is_same { Kind::Replace } else { Kind::Overwrite };
    let mut put = |kind: Kind, removed: Vec<&'a Listed>, added: Vec<&'a LiveFile>| {
        if !removed.is_empty() || !added.is_empty() {
            let step = steps.entry(kind).or_default();
            step.removed.extend(removed);
            step.added.extend(added);
        }
    };
    put(Kind::Delete, gone, Vec::new());
    put(kind, inputs, outputs);
    put(Kind::Append, Vec::new(), new);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aquifer_stream::ChunkMeta;
    use aquifer_types::{ChunkId, Partition, StreamId};

    use super::*;

    type File = (u32, i64, i64, u64);

    fn url((partition, base, next, records): File) -> String {
        format!("p{partition}/{base}-{next}-{records}")
    }

    fn listed(file: File) -> Listed {
        let (partition, base, next, records) = file;
        Listed {
            url: url(file),
            partition: PartitionIndex(partition),
            base: Offset(base),
            next: Offset(next),
            records,
            bytes: 1,
            snapshot_id: 1,
            sequence: 1,
        }
    }

    fn live(file: File) -> LiveFile {
        let (partition, base, next, records) = file;
        let chunk = ChunkMeta {
            id: ChunkId::from_bytes([0; 16]),
            partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(partition)),
            base: Offset(base),
            next: Offset(next),
            object_path: url(file),
            object_bytes: 1,
            checksum: String::new(),
            records,
            raw_bytes: 1,
            min_timestamp: None,
            max_timestamp: None,
            max_appended: None,
            epochs: Vec::new(),
            generation: 0,
            schema_version: 0,
            unfit: None,
            timestamp_type: aquifer_types::TimestampType::Create,
            index_path: None,
            index_bytes: None,
            key_id: None,
        };
        LiveFile { chunk: Arc::new(chunk), url: url(file), hidden_below: None }
    }

    #[test]
    fn each_kind_of_change_is_a_step_of_its_own() {
        let check = |before: &[File], after: &[File], expected: &[(Kind, usize, usize)]| {
            let before: Vec<Listed> = before.iter().map(|file| listed(*file)).collect();
            let after: Vec<LiveFile> = after.iter().map(|file| live(*file)).collect();
            let before: Vec<&Listed> = before.iter().collect();
            // What is hidden of every chunk whose count says so.
            let hidden = before.iter().filter(|file| file.records == 99);
            let hidden = hidden.map(|file| (file.url.as_str(), 90)).collect();
            let steps = between(&before, &after, &hidden);
            let found: Vec<_> = steps
                .iter()
                .map(|(kind, step)| (*kind, step.removed.len(), step.added.len()))
                .collect();
            assert_eq!(found, expected, "{before:?} {after:?}");
        };
        use Kind::{Append, Delete, Overwrite, Replace};
        let a = (0, 0, 10, 10);
        let b = (0, 10, 20, 10);
        let c = (0, 20, 30, 10);
        check(&[], &[], &[]);
        check(&[a], &[a], &[]);
        check(&[], &[a, b], &[(Append, 0, 2)]);
        check(&[a], &[a, b, (1, 0, 10, 10)], &[(Append, 0, 2)]);
        check(&[a, b], &[b], &[(Delete, 1, 0)]);
        check(&[a, b], &[], &[(Delete, 2, 0)]);
        check(&[a, b], &[(0, 0, 20, 20)], &[(Replace, 2, 1)]);
        check(&[a, b], &[(0, 0, 20, 20), c], &[(Replace, 2, 1), (Append, 0, 1)]);
        check(&[a, b], &[(0, 0, 20, 15)], &[(Overwrite, 2, 1)]);
        check(&[a], &[(0, 0, 20, 20)], &[(Overwrite, 1, 1)]);
        check(&[a, b, c], &[(0, 10, 30, 20)], &[(Delete, 1, 0), (Replace, 2, 1)]);
        // The same range in another partition is no input.
        check(&[a], &[(1, 0, 10, 10)], &[(Delete, 1, 0), (Append, 0, 1)]);
        // What was hidden of an input is not in the output.
        check(&[(0, 0, 99, 99), (0, 99, 109, 10)], &[(0, 0, 109, 19)], &[(Replace, 2, 1)]);
    }
}
