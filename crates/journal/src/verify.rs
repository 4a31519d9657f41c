//! Re-reading a whole journal, with no server running. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::Disk;
use aquifer_types::GroupSequence;

use crate::error::Error;
use crate::format::{BLOCK_BYTES, FileHeader};
use crate::layout::{ChainFile, Found, Layout, find};
use crate::recovery::{Recovered, TornTail};
use crate::scan::Step;

/// What [`verify`] found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Files that hold groups.
    pub files: u64,
    /// Prepared, failed or passed-over files, which hold nothing.
    pub unused_files: u64,
    /// Sound groups.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes of header and frames in them.
    pub bytes: u64,
    /// First and last sequence of the sound groups; `None` if there are none.
    pub sequences: Option<(GroupSequence, GroupSequence)>,
    /// What the next start would cut off; not damage.
    pub torn_tail: Option<TornTail>,
    /// The damaged ranges, in the order of the files.
    pub damaged: Vec<DamagedRange>,
}

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// The file.
    pub path: PathBuf,
    /// Where the range begins.
    pub from: u64,
    /// Where the next sound group begins, or the file's groups end.
    pub to: u64,
    /// What a start would say.
    pub why: String,
}

impl Report {
    /// Whether the journal is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }

    fn count(&mut self, group: &crate::Group<'_>) {
        self.groups += 1;
        self.frames += u64::from(group.frame_count());
        self.bytes += group.len_bytes();
        let sequence = group.sequence();
        let first = self.sequences.map_or(sequence, |(first, _)| first.min(sequence));
        let last = self.sequences.map_or(sequence, |(_, last)| last.max(sequence));
        self.sequences = Some((first, last));
    }
}

/// Reads every file of the journal in `dir` and checks every byte that counts.
/// Goes on behind damage, so that the report names all of it. `on_progress` is
/// told how many bytes of how many were read, after each file.
///
/// # Errors
/// [`Error::Disk`] if reading fails. Damage is no error here.
pub fn verify(
    disk: Arc<dyn Disk>,
    dir: &Path,
    mut on_progress: impl FnMut(u64, u64),
) -> Result<Report, Error> {
    let mut report = Report::default();
    let found = find(&*disk, dir)?;
    let total = found.iter().map(|file| file.len).sum();
    let layout = Layout::read(&disk, dir);
    let (chain, whole) = match layout {
        Ok(layout) => {
            let last = layout.chain.last().cloned();
            match Recovered::examine(disk.clone(), dir, &layout) {
                Ok((recovered, _)) => report.torn_tail = recovered.torn_tail().cloned(),
                Err(error) => note(&mut report, error, last.map_or(0, |last| last.end))?,
            }
            (layout.chain, true)
        }
        Err(error) => {
            note(&mut report, error, 0)?;
            (found.iter().filter_map(alone).collect(), false)
        }
    };
    let mut done = 0;
    let mut next: Option<GroupSequence> = None;
    for (index, file) in chain.iter().enumerate() {
        let open_ended = !whole || index + 1 == chain.len();
        let begins = file.header.first_sequence;
        if let Some(expected) = next.filter(|expected| whole && *expected != begins) {
            let why = format!("the file begins with group {begins} instead of {expected}");
            let path = file.path.clone();
            report.damaged.push(DamagedRange { path, from: 0, to: BLOCK_BYTES, why });
        }
        next = read_file(&*disk, file, open_ended, &mut report)?;
        report.files += 1;
        done += found.iter().find(|other| other.id == file.id).map_or(0, |file| file.len);
        on_progress(done, total);
    }
    report.unused_files = (found.len() as u64).saturating_sub(report.files);
    on_progress(total, total);
    Ok(report)
}

/// A file by its own header, where the chain cannot be followed.
fn alone(file: &Found) -> Option<ChainFile> {
    let header: FileHeader = file.header.clone().ok()?;
    let end = header.file_bytes.min(file.len);
    let end = end - end % BLOCK_BYTES;
    Some(ChainFile { id: file.id, path: file.path.clone(), header, end })
}

/// Reads a file's groups, going on behind invalid places; returns the sequence
/// after the last one.
fn read_file(
    disk: &dyn Disk,
    file: &ChainFile,
    open_ended: bool,
    report: &mut Report,
) -> Result<Option<GroupSequence>, Error> {
    let mut scanner = file.scanner(disk)?;
    let mut expected = file.header.first_sequence;
    loop {
        let position = scanner.position();
        match scanner.next(expected)? {
            Step::Group(group) => {
                report.count(&group);
                expected = GroupSequence(expected.0.saturating_add(1));
            }
            Step::End => return Ok(Some(expected)),
            Step::Invalid(why) => {
                // Where the end is not known, only a group that vouches for
                // this place makes it damage.
                let (mut alive, mut damaged) = (None, !open_ended);
                scanner.find_alive(position + BLOCK_BYTES, |at, header| {
                    if header.epoch == file.header.epoch && header.sequence > expected {
                        alive = alive.or(Some((at, header.sequence)));
                        damaged |= header.synced_through >= expected;
                    }
                    alive.is_none() || !damaged
                })?;
                let to = alive.map_or(file.end, |(at, _)| at);
                if damaged && !report.has(&file.path, position) {
                    let why = format!("group {expected} should be here: {why}");
                    let path = file.path.clone();
                    report.damaged.push(DamagedRange { path, from: position, to, why });
                } else if damaged {
                    report.narrow(&file.path, position, to);
                }
                let Some((at, sequence)) = alive.filter(|_| damaged) else {
                    return Ok(None);
                };
                scanner.seek(at);
                expected = sequence;
            }
        }
    }
}

impl Report {
    fn has(&self, path: &Path, from: u64) -> bool {
        self.damaged.iter().any(|range| range.path == path && range.from == from)
    }

    fn narrow(&mut self, path: &Path, from: u64, to: u64) {
        for range in self.damaged.iter_mut().filter(|range| range.path == path) {
            if range.from == from {
                range.to = range.to.min(to);
            }
        }
    }
}

/// Notes damage; any other error goes on to the caller.
fn note(report: &mut Report, error: Error, end: u64) -> Result<(), Error> {
    let why = error.to_string();
    let range = match error {
        Error::Damaged { path, position, .. } => {
            DamagedRange { path, from: position, to: end.max(position + BLOCK_BYTES), why }
        }
        Error::MissingFile { path, .. } | Error::Version { path, .. } => {
            DamagedRange { path, from: 0, to: 0, why }
        }
        error => return Err(error),
    };
    report.damaged.push(range);
    Ok(())
}
