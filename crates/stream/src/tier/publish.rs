//! Writing manifests.
//!
//! A manifest follows whatever changed what tier 2 holds. Each names for every
//! partition a *ceiling*, from which on no offset is given: who recovers from
//! the manifest goes on there. The ledger keeps to the lowest ceiling of all
//! manifests that are still there, and keeps it in the journal:
//!
//! 1. before a manifest names a partition for the first time, its ceiling is
//!    committed to the ledger;
//! 2. when a partition has used half of what was reserved, manifests name a
//!    higher one, while the ledger still keeps to the lower;
//! 3. when no manifest with the lower one is left, the ledger goes on to the
//!    higher.
//!
//! A crash between any two steps leaves the ledger at a ceiling that no manifest
//! undercuts, and perhaps a manifest that the next one deletes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aquifer_env::tasks;
use aquifer_types::{Offset, Partition};

use super::manifest::{
    self, AnswerEntry, GarbageEntry, GroupEntry, Manifest, ManifestKey, PartitionEntry,
    StreamEntry, TransactionalEntry,
};
use super::{Tier, from_store};
use crate::Error;
use crate::index::{ChunkList, StreamIndex};
use crate::ledger::Operation;
use crate::ledger::hot_state::HotState;

/// Ceilings in one fact of the journal.
const CEILINGS_MAX: usize = 1_000;
/// Producers, and answers, beyond this many are left out of manifests: copying
/// them would hold up appends.
const REMEMBERED_MAX: usize = 20_000;
/// A manifest that took long is followed by a pause this many times as long.
const PAUSE_FACTOR: u64 = 10;

/// What is known about the manifests of this run.
#[derive(Debug, Default)]
pub(super) struct Published {
    sequence: u64,
    /// The changes of the index that the last manifest includes.
    covered: Option<u64>,
    /// When the next one may follow, on the monotonic clock.
    not_before_ns: u64,
    /// Ceilings that manifests name from this sequence on, and the ledger does
    /// not keep to yet.
    higher: HashMap<Partition, (Offset, u64)>,
}

/// What one cut over all partitions showed.
struct Seen {
    changes: u64,
    streams: Vec<(Arc<StreamIndex>, Vec<SeenPartition>)>,
    garbage: Vec<GarbageEntry>,
}

struct SeenPartition {
    partition: Partition,
    start: Offset,
    tiered: Offset,
    end: Offset,
    chunks: ChunkList,
}

impl Tier {
    /// Writes a manifest where something changed since the last one.
    pub(super) async fn publish_manifest(&self) -> Result<(), Error> {
        let mut published = self.published.lock().await;
        let started_ns = self.environment.clock.monotonic_ns();
        let is_due =
            published.covered != Some(self.reader.index.changes()) || !published.higher.is_empty();
        if !is_due || started_ns < published.not_before_ns {
            return Ok(());
        }
        self.owner.check().await?;
        let seen = self.see();
        let ceilings = self.reserve(&seen, &mut published).await?;
        published.sequence += 1;
        let key = ManifestKey { epoch: self.epoch, sequence: published.sequence };
        let (changes, garbage) = (seen.changes, paths(&seen.garbage));
        let manifest = self.build(seen, &ceilings);
        let bytes = tasks::run_blocking(move || manifest.encode(key)).await?;
        self.put_once(&key.path(), bytes).await?;
        published.covered = Some(changes);
        *self.deletable.lock() = Arc::new(garbage);
        self.metrics.manifests.inc();
        let elapsed_ns = self.environment.clock.monotonic_ns().saturating_sub(started_ns);
        let pause_ns = self.options.manifest_interval_ms_min.saturating_mul(1_000_000);
        let pause_ns = pause_ns.max(elapsed_ns.saturating_mul(PAUSE_FACTOR));
        published.not_before_ns = started_ns.saturating_add(pause_ns);
        let oldest = self.delete_old_manifests(key).await?;
        self.raise_ceilings(&mut published, oldest).await
    }

    fn see(&self) -> Seen {
        let index = &self.reader.index;
        index.at_cut(|_| {
            let see = |stream: &Arc<StreamIndex>| {
                let partitions = stream.partitions();
                let partitions = partitions.iter().map(|log| {
                    log.with(|state| SeenPartition {
                        partition: log.partition,
                        start: state.start,
                        tiered: state.tiered,
                        end: state.end,
                        chunks: state.chunks.clone(),
                    })
                });
                (stream.clone(), partitions.collect())
            };
            let garbage = index.garbage.lock();
            let garbage = garbage.iter().map(|(path, garbage)| GarbageEntry {
                object_path: path.clone(),
                since: garbage.since,
                due: garbage.due,
            });
            Seen {
                changes: index.changes(),
                streams: index.all_streams().iter().map(see).collect(),
                garbage: garbage.collect(),
            }
        })
    }

    /// The ceilings that the next manifest names, as far as the ledger must keep
    /// to them already.
    async fn reserve(
        &self,
        seen: &Seen,
        published: &mut Published,
    ) -> Result<HashMap<Partition, Offset>, Error> {
        let ahead = self.options.manifest_offsets_ahead;
        let next_sequence = published.sequence + 1;
        let mut ceilings = HashMap::new();
        let mut first = Vec::new();
        let partitions: Vec<Partition> =
            seen.streams.iter().flat_map(|(_, all)| all.iter().map(|p| p.partition)).collect();
        published.higher.retain(|partition, _| seen.has_stream(*partition));
        self.ledger.with_hot(|hot| {
            for at in partitions {
                // Gone meanwhile: whatever is said of it, nothing is given there.
                let Ok((_, partition)) = hot.require(at) else { continue };
                let Some(ceiling) = partition.ceiling else {
                    let ceiling = partition.end.max(partition.reserved).plus(ahead);
                    first.push((at, ceiling));
                    ceilings.insert(at, ceiling);
                    continue;
                };
                let is_half_used = partition.end.plus(ahead / 2) > ceiling;
                let named = if is_half_used || published.higher.contains_key(&at) {
                    let higher = (partition.end.plus(ahead), next_sequence);
                    published.higher.entry(at).or_insert(higher).0
                } else {
                    ceiling
                };
                ceilings.insert(at, named);
            }
        });
        self.set_ceilings(&first).await?;
        Ok(ceilings)
    }

    async fn set_ceilings(&self, ceilings: &[(Partition, Offset)]) -> Result<(), Error> {
        for some in ceilings.chunks(CEILINGS_MAX) {
            self.commit(Operation::SetCeilings { ceilings: some.to_vec() }).await?;
        }
        Ok(())
    }

    /// Lets the ledger go on to the ceilings that all manifests name.
    async fn raise_ceilings(
        &self,
        published: &mut Published,
        oldest: ManifestKey,
    ) -> Result<(), Error> {
        let is_everywhere =
            |since: u64| ManifestKey { epoch: self.epoch, sequence: since } <= oldest;
        let raised: Vec<(Partition, Offset)> = published
            .higher
            .iter()
            .filter(|(_, (_, since))| is_everywhere(*since))
            .map(|(partition, (ceiling, _))| (*partition, *ceiling))
            .collect();
        self.set_ceilings(&raised).await?;
        for (partition, _) in raised {
            published.higher.remove(&partition);
        }
        Ok(())
    }

    fn build(&self, seen: Seen, ceilings: &HashMap<Partition, Offset>) -> Manifest {
        let mut manifest = Manifest {
            streams: Vec::with_capacity(seen.streams.len()),
            tombstones: self.reader.index.tombstones.lock().values().cloned().collect(),
            garbage: seen.garbage,
            ..Manifest::empty(self.now())
        };
        for (stream, partitions) in seen.streams {
            let partitions = partitions.into_iter().filter_map(|seen| {
                Some(PartitionEntry {
                    partition: seen.partition.index,
                    epoch: stream.epoch(),
                    start: seen.start,
                    tiered: seen.tiered,
                    end: seen.end,
                    ceiling: *ceilings.get(&seen.partition)?,
                    chunks: seen.chunks.iter().map(|chunk| (**chunk).clone()).collect(),
                    producers: Vec::new(),
                })
            });
            let entry = StreamEntry {
                id: stream.id,
                path: stream.path.clone(),
                class: stream.class,
                config: (*stream.config()).clone(),
                created: stream.created,
                partitions: partitions.collect(),
            };
            // Without ceilings it was deleted meanwhile.
            if !entry.partitions.is_empty() {
                manifest.streams.push(entry);
            }
        }
        for ((tenant, group), positions) in &self.reader.index.groups.read().0 {
            manifest.groups.push(GroupEntry {
                tenant: tenant.clone(),
                group: group.clone(),
                positions: positions.iter().map(|(at, p)| (*at, p.clone())).collect(),
            });
        }
        let documents = self.reader.index.documents.read();
        manifest.documents =
            documents.iter().map(|(key, document)| (key.clone(), document.clone())).collect();
        manifest.documents_version = documents.version();
        drop(documents);
        self.ledger.with_hot(|hot| remember(hot, &mut manifest));
        manifest
    }

    /// Deletes manifests beyond those that are kept; returns the oldest that is
    /// left.
    async fn delete_old_manifests(&self, newest: ManifestKey) -> Result<ManifestKey, Error> {
        let entries = self.store.list(manifest::FOLDER).await.map_err(from_store)?;
        let mut keys: Vec<ManifestKey> =
            entries.iter().filter_map(|entry| ManifestKey::of_path(&entry.path)).collect();
        keys.sort();
        let behind = keys.len().saturating_sub(self.options.manifests_kept);
        for key in keys.drain(..behind) {
            self.store.delete(&key.path()).await.map_err(from_store)?;
        }
        Ok(keys.first().copied().unwrap_or(newest))
    }
}

impl Seen {
    fn has_stream(&self, partition: Partition) -> bool {
        self.streams.iter().any(|(stream, _)| stream.id == partition.stream)
    }
}

fn paths(garbage: &[GarbageEntry]) -> HashSet<String> {
    garbage.iter().map(|entry| entry.object_path.clone()).collect()
}

/// Adds what the ledger remembers of producers and requests. Some of it may not
/// be durable yet, let alone in tier 2: who recovers drops what is not.
fn remember(hot: &HotState, manifest: &mut Manifest) {
    let mut left = REMEMBERED_MAX;
    for stream in &mut manifest.streams {
        let Some(known) = hot.stream(stream.id) else { continue };
        for (entry, partition) in stream.partitions.iter_mut().zip(&known.partitions) {
            if partition.producers.len() > left {
                continue;
            }
            left -= partition.producers.len();
            entry.producers = partition.producers.iter().map(|(id, p)| (id, p.clone())).collect();
            entry.producers.sort_by_key(|(id, _)| *id);
        }
    }
    manifest.next_producer = hot.transactions.next_producer;
    if hot.transactions.len() <= REMEMBERED_MAX {
        manifest.transactional = hot
            .transactions
            .iter()
            .map(|((tenant, id), entry)| TransactionalEntry {
                tenant: tenant.clone(),
                id: id.clone(),
                producer: entry.producer,
                epoch: entry.epoch,
                timeout_ms: entry.timeout_ms,
                last_used: entry.last_used,
            })
            .collect();
    }
    if hot.answers.len() <= REMEMBERED_MAX {
        manifest.answers = hot
            .answers
            .iter()
            .map(|(tenant, key, answer)| AnswerEntry {
                tenant: tenant.clone(),
                key: key.to_owned(),
                answer: answer.clone(),
            })
            .collect();
    }
}
