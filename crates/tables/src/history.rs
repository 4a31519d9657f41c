//! The snapshots that a table lists: which of them are whole, and for how long
//! those that are not may still be read.
//!
//! A snapshot is *whole* while every chunk in it is live. One that is not was
//! whole when it was looked at last, and its chunks stay for the grace time from
//! then on at least. Times are the monotonic clock's, so what an earlier run
//! knew is not known any more: after a start only whole snapshots count.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::data_file::Listed;
use crate::manifest_list::ManifestFile;

/// A manifest that some listed snapshot names.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) file: ManifestFile,
    /// The chunks in it that its snapshots show.
    pub(crate) listed: Arc<Vec<Listed>>,
    /// The files of deleted positions in it.
    pub(crate) positions: Vec<String>,
    /// When all of its chunks were live last.
    whole_ns: Option<u64>,
    is_whole: bool,
}

impl Known {
    pub(crate) fn new(
        file: ManifestFile,
        listed: Vec<Listed>,
        positions: Vec<String>,
        whole_ns: Option<u64>,
    ) -> Self {
        Self { file, listed: Arc::new(listed), positions, whole_ns, is_whole: true }
    }
}

/// A snapshot's objects, by the paths of its manifests.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) snapshot_id: i64,
    pub(crate) list_path: String,
    pub(crate) manifests: Vec<String>,
}

/// What the listed snapshots consist of, oldest first. All paths are objects'.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) contents: Vec<Contents>,
    pub(crate) manifests: HashMap<String, Known>,
}

impl History {
    /// Looks which chunks are still live.
    pub(crate) fn look(&mut self, is_live: impl Fn(&str) -> bool, now_ns: u64) {
        for known in self.manifests.values_mut().filter(|known| known.is_whole) {
            known.is_whole = known.listed.iter().all(|file| is_live(&file.url));
            if known.is_whole {
                known.whole_ns = Some(now_ns);
            }
        }
    }

    /// Notes that everything that was whole before still is.
    pub(crate) fn unchanged(&mut self, now_ns: u64) {
        for known in self.manifests.values_mut().filter(|known| known.is_whole) {
            known.whole_ns = Some(now_ns);
        }
    }

    /// The snapshots that are not to be listed any more: those that have not
    /// been whole for `keep_ns`, and the oldest beyond `count_max`. The newest
    /// stays.
    pub(crate) fn expired(&self, now_ns: u64, keep_ns: u64, count_max: usize) -> BTreeSet<i64> {
        let older = self.contents.len().saturating_sub(1);
        let superfluous = self.contents.len().saturating_sub(count_max.max(1));
        let older = self.contents.iter().take(older).enumerate();
        let gone = older.filter(|(at, contents)| {
            *at < superfluous || !self.may_be_read(contents, now_ns, keep_ns)
        });
        gone.map(|(_, contents)| contents.snapshot_id).collect()
    }

    fn may_be_read(&self, contents: &Contents, now_ns: u64, keep_ns: u64) -> bool {
        contents.manifests.iter().all(|path| {
            let Some(known) = self.manifests.get(path) else { return false };
            let is_recent = |whole_ns: u64| now_ns.saturating_sub(whole_ns) < keep_ns;
            known.is_whole || known.whole_ns.is_some_and(is_recent)
        })
    }

    /// Forgets snapshots, and the manifests that no other names.
    pub(crate) fn forget(&mut self, snapshots: &BTreeSet<i64>) {
        self.contents.retain(|contents| !snapshots.contains(&contents.snapshot_id));
        let named: BTreeSet<&String> =
            self.contents.iter().flat_map(|contents| &contents.manifests).collect();
        self.manifests.retain(|path, _| named.contains(path));
    }

    /// Every object that the listed snapshots need.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        let lists = self.contents.iter().map(|contents| contents.list_path.clone());
        let manifests = self.manifests.iter();
        let manifests = manifests.flat_map(|(path, known)| {
            std::iter::once(path.clone()).chain(known.positions.iter().cloned())
        });
        lists.chain(manifests).collect()
    }

    /// The manifests of the newest snapshot, in its order.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&String, &Known)> {
        let paths = self.contents.last().map(|contents| contents.manifests.as_slice());
        let paths = paths.unwrap_or_default().iter();
        paths.filter_map(|path| Some((path, self.manifests.get(path)?)))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Offset, PartitionIndex};

    use super::*;

    fn known(chunks: &[&str]) -> Known {
        let listed = chunks.iter().map(|url| Listed {
            url: (*url).to_owned(),
            partition: PartitionIndex(0),
            base: Offset(0),
            next: Offset(1),
            records: 1,
            bytes: 1,
            snapshot_id: 1,
            sequence: 1,
        });
        let file = ManifestFile::new(String::new(), 1, &[], 1, 1);
        Known::new(file, listed.collect(), Vec::new(), None)
    }

    /// Snapshots 1, 2, 3 of the manifests a; a, b; c.
    fn history() -> History {
        let contents = [(1, vec!["a"]), (2, vec!["a", "b"]), (3, vec!["c"])];
        History {
            contents: contents
                .map(|(snapshot_id, manifests)| Contents {
                    snapshot_id,
                    list_path: format!("list {snapshot_id}"),
                    manifests: manifests.into_iter().map(str::to_owned).collect(),
                })
                .into(),
            manifests: [("a", known(&["1", "2"])), ("b", known(&["3"])), ("c", known(&["4"]))]
                .map(|(path, known)| (path.to_owned(), known))
                .into(),
        }
    }

    #[test]
    fn a_snapshot_is_listed_while_its_chunks_stay() {
        let check = |live: &[(u64, &str)], now: u64, count_max: usize, expected: &[i64]| {
            let mut history = history();
            for (at, live) in live {
                history.look(|url| live.contains(url), *at);
            }
            let expired = history.expired(now, 100, count_max);
            assert_eq!(expired.into_iter().collect::<Vec<_>>(), expected, "{live:?} {now}");
        };
        check(&[(10, "1234")], 10, 10, &[]);
        check(&[(10, "1234")], 1_000_000, 10, &[]);
        check(&[(10, "1234")], 10, 2, &[1]);
        check(&[(10, "1234")], 10, 0, &[1, 2]);
        // Chunk 3 went between 10 and 50.
        check(&[(10, "1234"), (50, "124")], 109, 10, &[]);
        check(&[(10, "1234"), (50, "124")], 110, 10, &[2]);
        // It does not come back.
        check(&[(10, "1234"), (50, "124"), (60, "1234")], 110, 10, &[2]);
        check(&[(10, "1234"), (50, "34")], 200, 10, &[1, 2]);
        // Never seen whole: an earlier run's.
        check(&[(10, "34")], 10, 10, &[1, 2]);
        // The newest is listed whatever happens to its chunks.
        check(&[(10, "123")], 500, 10, &[]);
    }

    #[test]
    fn what_nothing_names_is_forgotten() {
        let mut history = history();
        history.forget(&[2].into());
        let objects: Vec<_> = history.objects().into_iter().collect();
        assert_eq!(objects, ["a", "c", "list 1", "list 3"]);
        history.forget(&[1].into());
        let objects: Vec<_> = history.objects().into_iter().collect();
        assert_eq!(objects, ["c", "list 3"]);
        assert_eq!(history.newest().count(), 1);
    }
}
