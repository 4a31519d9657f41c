//! What a journal holds when it is opened, and reading it in order.
//!
//! Reads only. In the last file it decides between a torn tail and damage, and
//! which groups at the end are not *proved* durable: they may be in the page
//! cache alone, even after a sync that failed, so the writer copies them into
//! its first file before it goes on ([`crate::Journal::start`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::Disk;
use aquifer_types::GroupSequence;

use crate::FileId;
use crate::error::{Error, Expected};
use crate::files::path_of;
use crate::format::{BLOCK_BYTES, Link, flag, padded};
use crate::group::Group;
use crate::layout::{ChainFile, Layout};
use crate::scan::Step;

/// What was found in a journal's directory.
#[derive(Debug)]
pub struct Recovered {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Files whose groups are proved durable, up to each one's end.
    proved: Vec<ChainFile>,
    tail: Option<Tail>,
    proved_through: GroupSequence,
    last_sequence: GroupSequence,
    clean: bool,
    torn: Option<TornTail>,
}

/// Groups at the end that are sound but not proved durable.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    /// The file that they lie in, and from where.
    pub(crate) source: ChainFile,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first: GroupSequence,
    pub(crate) last: GroupSequence,
    /// The file that they will lie in, from its first group on.
    pub(crate) target: FileId,
}

/// What recovery cut from the end of the last file. Nothing in it was ever
/// acknowledged as durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where it was cut.
    pub position: u64,
    /// How much of what follows is recognisable as groups, in bytes.
    pub bytes: u64,
    /// Why the first of them is not sound.
    pub why: &'static str,
}

/// One file of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSummary {
    /// The file.
    pub file: FileId,
    /// The sequence of its first group.
    pub first_sequence: GroupSequence,
    /// Where its groups end, in bytes.
    pub end: u64,
}

/// The state from which writing goes on.
#[derive(Debug)]
pub(crate) struct ResumePoint {
    pub(crate) link: Option<Link>,
    pub(crate) proved: GroupSequence,
    pub(crate) tail: Option<Tail>,
}

impl Recovered {
    /// Examines the end of what `layout` found.
    pub(crate) fn examine(
        disk: Arc<dyn Disk>,
        dir: &Path,
        layout: &Layout,
    ) -> Result<(Recovered, ResumePoint), Error> {
        let mut recovered = Recovered {
            disk,
            dir: dir.to_owned(),
            proved: layout.chain.clone(),
            tail: None,
            proved_through: GroupSequence(0),
            last_sequence: GroupSequence(0),
            clean: true,
            torn: None,
        };
        let Some(last) = recovered.proved.pop() else {
            let resume = ResumePoint { link: None, proved: GroupSequence(0), tail: None };
            return Ok((recovered, resume));
        };
        let end = End::find(&*recovered.disk, &last)?;
        recovered.clean = end.clean;
        recovered.torn = end.torn;
        recovered.proved_through = end.proved;
        recovered.last_sequence = end.last_data.max(end.proved);
        let link = match end.header_proved {
            true => {
                let link = Link { file: last.id, end: end.proved_end };
                recovered.proved.push(ChainFile { end: link.end, ..last.clone() });
                Some(link)
            }
            false => last.header.previous,
        };
        if end.last_data > end.proved {
            recovered.tail = Some(Tail {
                source: last,
                from: end.proved_end,
                to: end.last_data_end,
                first: GroupSequence(end.proved.0 + 1),
                last: end.last_data,
                target: layout.next_id,
            });
        }
        let tail = recovered.tail.clone();
        Ok((recovered, ResumePoint { link, proved: end.proved, tail }))
    }

    /// The first group that the files hold; one more than the last if they
    /// hold none, so 1 in a new journal.
    #[must_use]
    pub fn first_sequence(&self) -> GroupSequence {
        let first = self.proved.first().map(|file| file.header.first_sequence);
        let first = first.or(self.tail.as_ref().map(|tail| tail.first));
        first.unwrap_or(GroupSequence(self.last_sequence.0.saturating_add(1)))
    }

    /// The last group; one less than the first if there is none.
    #[must_use]
    pub fn last_sequence(&self) -> GroupSequence {
        self.last_sequence
    }

    /// Whether the last thing written was the mark of an orderly shutdown, or
    /// nothing was ever written.
    #[must_use]
    pub fn is_clean_shutdown(&self) -> bool {
        self.clean
    }

    /// What was cut from the end.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The files, oldest first, as they are once the journal was started.
    #[must_use]
    pub fn files(&self) -> Vec<FileSummary> {
        let summary = |file: &ChainFile| FileSummary {
            file: file.id,
            first_sequence: file.header.first_sequence,
            end: file.end,
        };
        let mut files: Vec<FileSummary> = self.proved.iter().map(summary).collect();
        files.extend(self.tail.as_ref().map(|tail| FileSummary {
            file: tail.target,
            first_sequence: tail.first,
            end: BLOCK_BYTES + (tail.to - tail.from),
        }));
        files
    }

    /// Calls `visit` with every group from sequence `from` on, in order,
    /// checking each byte. Sync marks are among them, without frames. Holds one
    /// group, or 4 MiB, in memory at a time.
    ///
    /// Groups at the end that are not proved durable carry the place to which
    /// [`Journal::start`](crate::Journal::start) copies them; they can be read
    /// there once that has returned.
    ///
    /// # Errors
    /// [`Error::MissingGroups`] if `from` (0 counts as 1) lies before the first
    /// group or more than one after the last; [`Error::Damaged`] with the place;
    /// and whatever `visit` answers.
    pub fn for_each_group<E: From<Error>>(
        &self,
        from: GroupSequence,
        mut visit: impl FnMut(Group<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let from = from.max(GroupSequence(1));
        let (first, last) = (self.first_sequence(), self.last_sequence);
        if from < first || from.0 > last.0.saturating_add(1) {
            return Err(Error::MissingGroups { wanted: from, first, last }.into());
        }
        for (index, file) in self.proved.iter().enumerate() {
            let next = self.proved.get(index + 1).map(|next| next.header.first_sequence);
            let next = next.unwrap_or(GroupSequence(self.proved_through.0.saturating_add(1)));
            if next <= from {
                continue;
            }
            let expected = visit_file(&*self.disk, file, from, &mut visit)?;
            if expected != next {
                let why = "the next file does not go on where this one ends";
                return Err(file.damaged(file.end, Expected::Group(expected), why).into());
            }
        }
        match &self.tail {
            Some(tail) => visit_tail(&*self.disk, tail, from, &mut visit),
            None => Ok(()),
        }
    }

    /// The path that a file has or will have.
    #[must_use]
    pub fn path(&self, file: FileId) -> PathBuf {
        path_of(&self.dir, file)
    }
}

/// Visits a file whose groups are all proved durable; returns the sequence
/// that comes next.
fn visit_file<E: From<Error>>(
    disk: &dyn Disk,
    file: &ChainFile,
    from: GroupSequence,
    visit: &mut impl FnMut(Group<'_>) -> Result<(), E>,
) -> Result<GroupSequence, E> {
    let mut scanner = file.scanner(disk)?;
    let mut expected = file.header.first_sequence;
    loop {
        let position = scanner.position();
        match scanner.next(expected)? {
            Step::Group(group) if expected >= from => visit(group)?,
            Step::Group(_) => {}
            Step::End => return Ok(expected),
            Step::Invalid(why) => {
                return Err(file.damaged(position, Expected::Group(expected), why).into());
            }
        }
        expected = GroupSequence(expected.0 + 1);
    }
}

/// Visits the groups that are copied into the target when writing starts.
fn visit_tail<E: From<Error>>(
    disk: &dyn Disk,
    tail: &Tail,
    from: GroupSequence,
    visit: &mut impl FnMut(Group<'_>) -> Result<(), E>,
) -> Result<(), E> {
    tail.for_each(disk, |group, position| match group.sequence() >= from {
        true => visit(group.moved(tail.target, position)),
        false => Ok(()),
    })
}

impl Tail {
    /// The tail's length in whole blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Calls `visit` with each group and the position that it is copied to.
    pub(crate) fn for_each<E: From<Error>>(
        &self,
        disk: &dyn Disk,
        mut visit: impl FnMut(Group<'_>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let source = ChainFile { end: self.to, ..self.source.clone() };
        let mut scanner = source.scanner(disk)?;
        scanner.seek(self.from);
        let mut expected = self.first;
        while expected <= self.last {
            let position = scanner.position();
            match scanner.next(expected)? {
                Step::Group(group) => visit(group, position - self.from + BLOCK_BYTES)?,
                Step::End | Step::Invalid(_) => {
                    let why = "it was sound a moment ago";
                    let expected = Expected::Group(expected);
                    return Err(source.damaged(position, expected, why).into());
                }
            }
            expected = GroupSequence(expected.0 + 1);
        }
        Ok(())
    }
}

/// The end of the last file.
#[derive(Debug)]
struct End {
    /// Whether the file's header is proved durable.
    header_proved: bool,
    /// The last group that is proved durable.
    proved: GroupSequence,
    /// Where it ends.
    proved_end: u64,
    /// The last group that holds a frame, or that is followed by one that does.
    last_data: GroupSequence,
    last_data_end: u64,
    clean: bool,
    torn: Option<TornTail>,
}

impl End {
    fn find(disk: &dyn Disk, file: &ChainFile) -> Result<End, Error> {
        let before = GroupSequence(file.header.first_sequence.0.saturating_sub(1));
        let mut end = End {
            header_proved: false,
            proved: before,
            proved_end: BLOCK_BYTES,
            last_data: before,
            last_data_end: BLOCK_BYTES,
            clean: false,
            torn: None,
        };
        let mut scanner = file.scanner(disk)?;
        let mut expected = file.header.first_sequence;
        // Ends of the groups that are not proved durable yet, oldest first.
        let mut unproved: std::collections::VecDeque<u64> = Default::default();
        loop {
            let position = scanner.position();
            match scanner.next(expected)? {
                Step::Group(group) => {
                    let header = *group.header();
                    let group_end = position + padded(u64::from(header.len));
                    end.header_proved |= header.has(flag::HEADER_SYNCED);
                    end.clean = header.has(flag::CLEAN);
                    unproved.push_back(group_end);
                    // INV-J1
                    if header.synced_through >= expected {
                        let why = "the group vouches for itself";
                        return Err(file.damaged(position, Expected::Group(expected), why));
                    }
                    while end.proved < header.synced_through {
                        end.proved = GroupSequence(end.proved.0 + 1);
                        end.proved_end = unproved.pop_front().unwrap_or(end.proved_end);
                    }
                    if header.frames > 0 {
                        (end.last_data, end.last_data_end) = (expected, group_end);
                    }
                }
                Step::End => return Ok(end),
                Step::Invalid(why) => {
                    end.torn = torn_or_damaged(&mut scanner, file, position, expected, why)?;
                    end.clean &= end.torn.is_none();
                    return Ok(end);
                }
            }
            expected = GroupSequence(expected.0 + 1);
        }
    }
}

/// Refuses if a later group proves that the one that should be at `position`
/// was durable.
fn torn_or_damaged(
    scanner: &mut crate::scan::Scanner,
    file: &ChainFile,
    position: u64,
    expected: GroupSequence,
    why: &'static str,
) -> Result<Option<TornTail>, Error> {
    let mut proof = false;
    let mut recognised = None;
    scanner.find_alive(position, |at, header| {
        if header.epoch != file.header.epoch {
            return true;
        }
        let len = padded(u64::from(header.len)).max(BLOCK_BYTES);
        recognised = Some(at.saturating_add(len).min(file.end));
        proof = header.synced_through >= expected && header.sequence > header.synced_through;
        !proof
    })?;
    if proof {
        return Err(file.damaged(position, Expected::Group(expected), why));
    }
    Ok(recognised.map(|end| TornTail {
        path: scanner.path().to_owned(),
        position,
        bytes: end - position,
        why,
    }))
}
