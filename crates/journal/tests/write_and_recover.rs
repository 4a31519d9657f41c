//! Writing and reading back without faults, and each rule by an example.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests look at the files themselves"
)]

mod common;

use std::sync::Arc;

use aquifer_env::{CrashChoice, FaultyDisk, RealDisk};
use aquifer_journal::{
    Durability, Error, Expected, FileId, GroupBuilder, Journal, Options, verify,
};
use aquifer_types::{Epoch, ErrorKind, GroupSequence};
use common::{Driver, Op, content, dir, group, image, open, options, path_of, place, read_all};

fn write(journal: &mut Journal, id: u64, bytes: usize) -> aquifer_journal::Written {
    let written = journal.write(&mut group(id, bytes), Durability::Sync).unwrap();
    journal.sync().unwrap();
    written
}

/// A clean journal of several files, ids 1 to `groups`.
fn filled(disk: &FaultyDisk, groups: u64) {
    let (mut journal, _) = open(disk, 1).unwrap();
    for id in 1..=groups {
        write(&mut journal, id, 3000);
    }
    journal.write_sync_mark(true).unwrap();
}

#[test]
fn a_new_journal_is_empty_and_its_opening_changes_nothing() {
    let disk = FaultyDisk::new(1);
    let (_, recovered) = open(&disk, 1).unwrap();
    assert_eq!(recovered.first_sequence(), GroupSequence(1));
    assert_eq!(recovered.last_sequence(), GroupSequence(0));
    assert!(recovered.is_clean_shutdown());
    assert!(read_all(&recovered).unwrap().is_empty());
    assert_eq!(disk.operations(), 0);
}

#[test]
fn groups_come_back_over_files_and_reopenings() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    let mut script = Vec::new();
    for bytes in [0, 1, 4000, 4096, 9000, 18_000, 100, 30_000, 60_000, 5] {
        script.extend([Op::Write(bytes), Op::Sync, Op::Write(bytes), Op::Reopen]);
        script.extend([Op::WriteRelaxed(bytes), Op::Prepare, Op::Write(7), Op::Sync]);
        script.extend([Op::Mark, Op::Mark, Op::CleanMark, Op::Reopen, Op::Sync]);
    }
    driver.run(&script);
    assert_eq!(driver.failures, 0);
    driver.open("at the end").unwrap();
    let report = verify(driver.disk.disk(), &dir(), |_, _| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn the_real_disk_works_alike() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("deep/journal");
    let disk = Arc::new(RealDisk::new());
    let options = Options { file_bytes: 1 << 20, disk_reserve_bytes: 5000, ..options() };
    let mut all = Vec::new();
    for epoch in 1..5u32 {
        let opened = Journal::open(disk.clone(), &dir, options.clone(), Epoch(epoch)).unwrap();
        let (mut journal, recovered) = opened;
        assert_eq!(
            read_all(&recovered).unwrap().iter().filter(|(_, id)| *id > 0).count(),
            all.len()
        );
        journal.prepare_next().unwrap();
        journal.maintenance().fill_reserve().unwrap();
        for id in 0..100 {
            let id = u64::from(epoch) * 1000 + id;
            all.push((id, write(&mut journal, id, 40_000)));
        }
        let reader = journal.reader();
        let (id, at) = all[all.len() - 7];
        let pinned = reader.pin(at.file).unwrap().unwrap();
        let bytes = pinned.read(at.position + 64 + 24, 40_000).unwrap();
        assert!(bytes[..] == content(id, 40_000)[..]);
        if epoch % 2 == 0 {
            journal.write_sync_mark(true).unwrap();
        }
    }
    let mut steps = 0;
    let report = verify(disk, &dir, |done, total| {
        steps += 1;
        assert!(done <= total);
    });
    let report = report.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert!(steps > 4 && report.groups >= 400 && report.bytes > 400 * 40_000);
    assert_eq!(std::fs::metadata(dir.join("reserve")).unwrap().len(), 5000);
}

#[test]
fn reading_from_a_sequence_starts_there_or_says_what_is_missing() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 20);
    let (mut journal, recovered) = open(&disk, 2).unwrap();
    let last = recovered.last_sequence();
    for from in 0..=last.0 + 1 {
        let mut expected = from.max(1);
        recovered
            .for_each_group(GroupSequence(from), |group| {
                assert_eq!(group.sequence().0, expected);
                expected += 1;
                Ok::<(), Error>(())
            })
            .unwrap();
        assert_eq!(expected, last.0 + 1);
    }
    let nothing = |_: aquifer_journal::Group<'_>| Ok::<(), Error>(());
    let error = recovered.for_each_group(GroupSequence(last.0 + 2), nothing).unwrap_err();
    assert!(matches!(error, Error::MissingGroups { .. }), "{error}");
    // Files that were given up are missed by whoever needs them.
    let files = recovered.files();
    write(&mut journal, 21, 10);
    let released = journal.release_through(files[1].file).unwrap();
    assert_eq!(released, 2);
    drop(journal);
    let (_, recovered) = open(&disk, 3).unwrap();
    assert_eq!(recovered.first_sequence(), files[2].first_sequence);
    let error = recovered.for_each_group(GroupSequence(1), nothing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    read_all(&recovered).unwrap();
}

#[test]
fn a_visit_that_fails_ends_the_reading() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 3);
    let (_, recovered) = open(&disk, 2).unwrap();
    let mut visited = 0;
    let result = recovered.for_each_group(GroupSequence(1), |_| {
        visited += 1;
        Err(Error::Closed)
    });
    assert!(matches!(result, Err(Error::Closed)));
    assert_eq!(visited, 1);
}

#[test]
fn a_torn_tail_is_cut_and_never_seen_again() {
    let disk = FaultyDisk::with_sector_bytes(1, 512);
    let (mut journal, _) = open(&disk, 1).unwrap();
    write(&mut journal, 1, 100);
    journal.write_sync_mark(false).unwrap();
    journal.write(&mut group(2, 3000), Durability::Sync).unwrap();
    // The first half of the last group's sectors.
    let disk = disk.crash(CrashChoice::Subset(0b1111));
    let (mut journal, recovered) = open(&disk, 2).unwrap();
    let torn = recovered.torn_tail().unwrap();
    assert_eq!((torn.position, torn.bytes, &torn.path), (12_288, 4096, &path_of(1)));
    assert_eq!(read_all(&recovered).unwrap().len(), 2 - 1);
    assert!(!recovered.is_clean_shutdown());
    let written = write(&mut journal, 3, 100);
    assert_eq!(written.sequence, GroupSequence(2));
    assert_ne!(written.file, FileId(1));
    let (_, recovered) = open(&disk, 3).unwrap();
    assert_eq!(recovered.torn_tail(), None);
    assert_eq!(read_all(&recovered).unwrap(), vec![(1, 1), (2, 3)]);
}

#[test]
fn damage_is_refused_with_its_place_and_nothing_is_changed() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 12);
    let sound = image(&disk);
    let files: Vec<_> = sound.iter().map(|(path, _)| path.clone()).collect();
    assert!(files.len() >= 3);
    for (path, position, expected) in [
        (&files[0], 4096 + 500, Expected::Group(GroupSequence(1))),
        (&files[0], 8192 + 5, Expected::Group(GroupSequence(2))),
        (&files[0], 100, Expected::Header),
        (&files[1], 4096 + 3000, Expected::Group(GroupSequence(6))),
        (&files[1], 0, Expected::Header),
        (&files[2], 4096 + 70, Expected::Group(GroupSequence(11))),
        (&files[2], 4000, Expected::Header),
    ] {
        let disk = FaultyDisk::new(1);
        place(&disk, &sound);
        disk.corrupt(path, position, 3).unwrap();
        let damaged = image(&disk);
        let operations = disk.operations();
        let error = open(&disk, 2).and_then(|(_, recovered)| read_all(&recovered)).unwrap_err();
        let Error::Damaged { path: found, position: at, expected: wanted, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((found, *wanted), (path, expected), "{error}");
        assert!(*at <= position && position < *at + 4096, "{error}");
        assert_eq!(disk.operations(), operations);
        assert_eq!(image(&disk), damaged);
        let report = verify(disk.disk(), &dir(), |_, _| {}).unwrap();
        assert!(
            report.damaged.iter().any(|range| {
                range.path == *path && range.from <= position && position < range.to
            }),
            "{path:?} {position} {report:?}"
        );
    }
}

#[test]
fn missing_and_shortened_files_are_refused() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 22);
    let sound = image(&disk);
    let count = sound.len();
    for (index, (path, bytes)) in sound.iter().enumerate() {
        for keep in [None, Some(0), Some(100), Some(4096), Some(8192), Some(bytes.len() - 1)] {
            let disk = FaultyDisk::new(1);
            place(&disk, &sound);
            match keep {
                None => disk.remove_file(path).unwrap(),
                Some(len) => disk.truncate_file(path, len as u64).unwrap(),
            }
            let result = open(&disk, 2).and_then(|(_, recovered)| {
                let mut groups = 0;
                recovered.for_each_group(GroupSequence(1), |_| {
                    groups += 1;
                    Ok::<(), Error>(())
                })?;
                Ok((groups, recovered.last_sequence()))
            });
            // Without its last file a journal is merely a shorter one: only
            // who knows the last sequence can miss it.
            let shorter = index + 1 == count && keep.is_none_or(|len| len < 4096);
            match result {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
                Ok((_, last)) => assert!(shorter && last.0 < 22, "{path:?} {keep:?}"),
            }
        }
    }
}

#[test]
fn a_released_file_is_recycled_unless_it_is_pinned() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    let written: Vec<_> = (1..=14).map(|id| (id, write(&mut journal, id, 3000))).collect();
    let (first, second) = (written[0].1.file, written[5].1.file);
    assert_eq!(second, FileId(2));
    let reader = journal.reader();
    let pinned = reader.pin(first).unwrap().unwrap();
    let before = disk.files().len();
    assert_eq!(journal.release_through(first).unwrap(), 1);
    assert_eq!(disk.files().len(), before - 1);
    let bytes = pinned.read(written[0].1.position + 64 + 24, 3000).unwrap();
    assert!(bytes[..] == content(1, 3000)[..]);
    assert!(reader.pin(first).unwrap().is_none());
    assert_eq!(journal.release_through(second).unwrap(), 1);
    assert_eq!(disk.files().len(), before - 1);
    let newest = disk.files().last().unwrap().clone();
    assert!(newest > path_of(second.0));
    assert!(!journal.prepare_next().unwrap());
    // The newest durable file stays, whatever is asked for.
    journal.release_through(FileId(u64::MAX)).unwrap();
    let (_, recovered) = open(&disk, 1).unwrap();
    assert_eq!(recovered.last_sequence(), GroupSequence(14));
    assert_eq!(read_all(&recovered).unwrap().last(), Some(&(14, 14)));
    for id in 15..40 {
        write(&mut journal, id, 3000);
    }
    let (_, recovered) = open(&disk, 2).unwrap();
    let found = read_all(&recovered).unwrap();
    assert_eq!(found.last(), Some(&(39, 39)));
    assert!(found.first().unwrap().0 > 6);
}

#[test]
fn a_release_that_failed_half_way_goes_on_without_a_gap() {
    // Operations of a release: per file a removal, or a renaming with a sync
    // of the directory, and then a sync of the directory.
    let mut cuts = 0;
    for failing in 1..=10 {
        for stop in failing + 1..=failing + 10 {
            let disk = FaultyDisk::new(1);
            let (mut journal, _) = open(&disk, 1).unwrap();
            for id in 1..=5 {
                write(&mut journal, id, 15_000);
            }
            let before = disk.operations();
            disk.fail_operation(before + failing, std::io::ErrorKind::Other);
            disk.crash_at(before + stop);
            while journal.release_through(FileId(4)).is_err() && !disk.is_crashed() {}
            for subset in 0..1 << disk.pending() {
                let disk = disk.crash(CrashChoice::Subset(subset));
                let (mut journal, recovered) = open(&disk, 2).unwrap();
                assert_eq!(read_all(&recovered).unwrap().last(), Some(&(5, 5)));
                write(&mut journal, 6, 10);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn a_preparation_that_failed_leaves_nothing_to_stumble_over() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    write(&mut journal, 1, 15_000);
    // A file that could not even be removed again, older than the chain's rest.
    disk.write_file(&path_of(2), &[0; 100]).unwrap();
    drop(journal);
    disk.write_file(&path_of(3), &[0; 24 << 10]).unwrap();
    let (mut journal, _) = open(&disk, 2).unwrap();
    for id in 2..6 {
        write(&mut journal, id, 15_000);
    }
    let newest = journal.current_file().unwrap();
    journal.release_through(FileId(newest.0 - 1)).unwrap();
    disk.write_file(&path_of(2), &[0; 100]).unwrap();
    let (mut journal, recovered) = open(&disk, 3).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(5, 5)]);
    for id in 6..8 {
        write(&mut journal, id, 15_000);
    }
    journal.release_through(newest).unwrap();
    assert!(!disk.files().contains(&path_of(2)));
}

#[test]
fn reads_outside_a_file_are_refused() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    let written = write(&mut journal, 1, 10);
    let pinned = journal.reader().pin(written.file).unwrap().unwrap();
    assert_eq!(pinned.read(24 << 10, 0).unwrap().len(), 0);
    for (position, len) in [(0, (24 << 10) + 1), (24 << 10, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(matches!(pinned.read(position, len), Err(Error::OutOfRange { .. })));
    }
    assert!(journal.reader().pin(FileId(9)).unwrap().is_none());
}

#[test]
fn what_is_too_large_is_refused_and_harms_nothing() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    let error = journal.write(&mut group(1, 64 << 10), Durability::Sync).unwrap_err();
    assert!(matches!(error, Error::GroupTooLarge { .. }) && error.is_definite());
    // Longer than a file, within the limit, with a prepared file and without.
    write(&mut journal, 2, 60_000);
    journal.prepare_next().unwrap();
    write(&mut journal, 3, 50_000);
    write(&mut journal, 4, 10);
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(1, 2), (2, 3), (3, 4)]);
}

#[test]
fn a_lower_epoch_is_fenced_and_bad_options_are_refused() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 5).unwrap();
    write(&mut journal, 1, 10);
    assert!(matches!(open(&disk, 4), Err(Error::Fenced { .. })));
    let (mut journal, _) = open(&disk, 5).unwrap();
    assert!(matches!(journal.set_epoch(Epoch(4)), Err(Error::Fenced { .. })));
    journal.set_epoch(Epoch(7)).unwrap();
    write(&mut journal, 2, 10);
    assert!(matches!(open(&disk, 6), Err(Error::Fenced { .. })));
    for options in [
        Options { file_bytes: 4096, ..options() },
        Options { file_bytes: u64::MAX, ..options() },
        Options { group_bytes_max: u64::MAX, ..options() },
    ] {
        let error = Journal::open(disk.disk(), &dir(), options, Epoch(6)).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
}

#[test]
fn a_full_disk_refuses_definitely_and_goes_on_when_there_is_room() {
    let disk = FaultyDisk::new(1);
    let options = Options { disk_reserve_bytes: 30_000, ..options() };
    let opened = Journal::open(disk.disk(), &dir(), options, Epoch(1)).unwrap();
    let (mut journal, _) = opened;
    write(&mut journal, 1, 10);
    let maintenance = journal.maintenance();
    maintenance.fill_reserve().unwrap();
    disk.set_capacity((24 << 10) + 30_000);
    let mut written = 1;
    let error = loop {
        match journal.write(&mut group(written + 1, 3000), Durability::Sync) {
            Ok(_) => journal.sync().unwrap(),
            Err(error) => break error,
        }
        written += 1;
    };
    assert_eq!((error.kind(), error.is_definite(), written), (ErrorKind::StorageFull, true, 5));
    assert!(matches!(maintenance.prepare_next(), Err(Error::Full { .. })));
    let files = disk.files().len();
    assert!(maintenance.release_reserve().unwrap());
    assert!(!maintenance.release_reserve().unwrap());
    assert_eq!(disk.files().len(), files - 1);
    write(&mut journal, 6, 3000);
    assert!(matches!(maintenance.fill_reserve(), Err(Error::Full { .. })));
    disk.set_capacity(u64::MAX);
    maintenance.fill_reserve().unwrap();
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&recovered).unwrap().len(), 6);
}

#[test]
fn after_a_failed_sync_the_next_write_goes_on_in_a_new_file() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    let first = write(&mut journal, 1, 10);
    disk.fail_sync(disk.syncs() + 1);
    let second = journal.write(&mut group(2, 10), Durability::Sync).unwrap();
    let error = journal.sync().unwrap_err();
    assert!(!error.is_definite() && error.kind() == ErrorKind::Indefinite, "{error}");
    assert_eq!(journal.synced_through(), first.sequence);
    // Nothing is written, and nothing synced again.
    journal.sync().unwrap();
    let third = write(&mut journal, 3, 10);
    assert_eq!(third.sequence, second.sequence);
    assert_ne!(third.file, second.file);
    // A file in which a sync failed is not used again, whatever its name.
    assert_eq!(journal.release_through(second.file).unwrap(), 1);
    assert_eq!(disk.files(), vec![path_of(third.file.0)]);
    write(&mut journal, 4, 15_000);
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(2, 3), (3, 4)]);
}

#[test]
fn settling_makes_the_lost_absent_for_certain() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    write(&mut journal, 1, 10);
    journal.settle().unwrap();
    disk.fail_write(disk.writes() + 1, std::io::ErrorKind::Other);
    let error = journal.write(&mut group(2, 10), Durability::Sync).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    journal.settle().unwrap();
    let disk = disk.crash(CrashChoice::LoseAll);
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(1, 1)]);
}

#[test]
fn what_only_the_page_cache_may_know_is_made_durable_before_going_on() {
    // The second group's sync fails and the process dies before it can say so
    // durably; the next one sees the group in the page cache.
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    write(&mut journal, 1, 10);
    disk.fail_sync(disk.syncs() + 1);
    let old = journal.write(&mut group(2, 10), Durability::Sync).unwrap();
    journal.sync().unwrap_err();
    drop(journal);
    let (mut journal, recovered) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(1, 1), (2, 2)]);
    let mut place = None;
    recovered
        .for_each_group(GroupSequence(2), |group| {
            place = Some((group.file(), group.position()));
            Ok::<(), Error>(())
        })
        .unwrap();
    let (file, position) = place.unwrap();
    assert_ne!(file, old.file);
    journal.start().unwrap();
    let pinned = journal.reader().pin(file).unwrap().unwrap();
    assert!(pinned.read(position + 64 + 24, 10).unwrap()[..] == content(2, 10)[..]);
    write(&mut journal, 3, 10);
    let disk = disk.crash(CrashChoice::LoseAll);
    let (_, recovered) = open(&disk, 3).unwrap();
    assert_eq!(read_all(&recovered).unwrap(), vec![(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn marks_are_written_once_and_tell_an_orderly_shutdown() {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk, 1).unwrap();
    journal.write_sync_mark(false).unwrap();
    journal.write_sync_mark(true).unwrap();
    assert_eq!(disk.operations(), 0);
    write(&mut journal, 1, 10);
    journal.write_sync_mark(false).unwrap();
    let operations = disk.operations();
    journal.write_sync_mark(false).unwrap();
    assert_eq!(disk.operations(), operations);
    let (_, recovered) = open(&disk, 2).unwrap();
    assert!(!recovered.is_clean_shutdown());
    journal.write_sync_mark(true).unwrap();
    for epoch in 3..6 {
        let (mut journal, recovered) = open(&disk, epoch).unwrap();
        assert!(recovered.is_clean_shutdown());
        assert_eq!(recovered.last_sequence(), GroupSequence(2));
        journal.start().unwrap();
        journal.write_sync_mark(true).unwrap();
    }
}

#[test]
fn files_of_a_later_version_are_refused_by_name() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 1);
    let mut bytes = disk.read_file(&path_of(1)).unwrap();
    bytes[4] = 9;
    let crc = crc32c::crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    disk.write_file(&path_of(1), &bytes).unwrap();
    let error = open(&disk, 2).unwrap_err();
    assert!(matches!(error, Error::Version { version: 9, .. }), "{error}");
    assert!(GroupBuilder::new(0).is_empty());
}
