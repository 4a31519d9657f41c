//! The faulty disk keeps what was synced, and only that is sure.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::{CrashChoice, DiskFile, FaultyDisk};

const FILE: &str = "/a";

fn path(name: &str) -> PathBuf {
    PathBuf::from(name)
}

/// A disk with one durable file.
fn with_file(bytes: &[u8]) -> (FaultyDisk, Arc<dyn DiskFile>) {
    let faulty = FaultyDisk::new(7);
    faulty.write_file(Path::new(FILE), bytes).expect("a file");
    let file = faulty.disk().open(Path::new(FILE)).expect("the file");
    (faulty, file)
}

/// Every disk that a power cut may leave, by the content that `look` sees.
fn outcomes<T: Ord>(faulty: &FaultyDisk, look: impl Fn(&FaultyDisk) -> T) -> BTreeSet<T> {
    let pending = faulty.pending();
    assert!(pending <= 12, "{pending} pending are too many to enumerate");
    (0..1_u64 << pending).map(|subset| look(&faulty.crash(CrashChoice::Subset(subset)))).collect()
}

fn read(faulty: &FaultyDisk) -> Option<Vec<u8>> {
    faulty.read_file(Path::new(FILE)).ok()
}

#[test]
fn an_unsynced_write_may_be_lost_and_a_synced_one_not() {
    let (faulty, file) = with_file(b"old");
    file.write_at(b"new", 0).expect("a write");
    assert_eq!(
        outcomes(&faulty, read),
        BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())])
    );
    assert_eq!(faulty.lost_writes(), 1);

    let (faulty, file) = with_file(b"old");
    file.write_at(b"new", 0).expect("a write");
    file.sync_data().expect("a sync");
    assert_eq!(faulty.pending(), 0);
    assert_eq!(outcomes(&faulty, read), BTreeSet::from([Some(b"new".to_vec())]));
    assert_eq!((faulty.lost_writes(), faulty.torn_writes()), (0, 0));
}

#[test]
fn a_write_tears_at_sectors_only() {
    for sector_bytes in [512, 4_096] {
        let faulty = FaultyDisk::with_sector_bytes(7, sector_bytes);
        let old = vec![b'o'; 3 * sector_bytes];
        faulty.write_file(Path::new(FILE), &old).expect("a file");
        let file = faulty.disk().open(Path::new(FILE)).expect("the file");
        // From the middle of the first sector to the middle of the third.
        let new = vec![b'n'; 2 * sector_bytes];
        file.write_at(&new, sector_bytes as u64 / 2).expect("a write");
        assert_eq!(faulty.pending(), 3);
        let seen = outcomes(&faulty, |found| read(found).expect("the file"));
        assert_eq!(seen.len(), 8);
        for content in seen {
            let boundaries = (1..content.len()).filter(|at| content[*at] != content[at - 1]);
            for boundary in boundaries {
                let own = boundary == sector_bytes / 2 || boundary == sector_bytes * 5 / 2;
                assert!(own || boundary % sector_bytes == 0, "{boundary}");
            }
        }
        assert_eq!((faulty.torn_writes(), faulty.lost_writes()), (6, 1));
    }
}

#[test]
fn a_sector_carries_the_earlier_writes_in_it() {
    let (faulty, file) = with_file(b"....");
    file.write_at(b"A", 0).expect("a write");
    file.write_at(b"B", 1).expect("a write");
    assert_eq!(
        outcomes(&faulty, |found| read(found).expect("the file")),
        BTreeSet::from([b"....".to_vec(), b"A...".to_vec(), b"AB..".to_vec()])
    );
}

#[test]
fn an_extension_is_lost_whole_or_shows_zeros() {
    let (faulty, file) = with_file(b"old");
    file.write_at(b"new", 3).expect("an append");
    assert_eq!(
        outcomes(&faulty, |found| read(found).expect("the file")),
        BTreeSet::from([b"old".to_vec(), b"old\0\0\0".to_vec(), b"oldnew".to_vec()])
    );
}

#[test]
fn lengths_become_durable_in_order() {
    let (faulty, file) = with_file(b"0123");
    file.set_len(2).expect("a cut");
    file.set_len(6).expect("an extension");
    assert_eq!(
        outcomes(&faulty, |found| read(found).expect("the file")),
        BTreeSet::from([b"0123".to_vec(), b"01".to_vec(), b"01\0\0\0\0".to_vec()])
    );
}

#[test]
fn a_name_is_durable_after_its_directory_and_not_after_its_file() {
    let faulty = FaultyDisk::new(7);
    let disk = faulty.disk();
    disk.create_dir_all(Path::new("/d")).expect("a directory");
    let file = disk.create(Path::new("/d/a")).expect("a file");
    file.write_at(b"content", 0).expect("a write");
    file.sync_data().expect("a sync");
    disk.sync_dir(Path::new("/")).expect("a sync of another");
    assert_eq!(faulty.pending(), 1);
    assert!(faulty.crash(CrashChoice::LoseAll).files().is_empty());

    let again = faulty.crash(CrashChoice::KeepAll);
    assert_eq!(again.files(), [path("/d/a")]);
    assert_eq!(again.read_file(Path::new("/d/a")).expect("it"), b"content");

    let faulty = FaultyDisk::new(7);
    let disk = faulty.disk();
    let file = disk.create(Path::new(FILE)).expect("a file");
    file.write_at(b"content", 0).expect("a write");
    disk.sync_dir(Path::new("/")).expect("a sync");
    let found = faulty.crash(CrashChoice::LoseAll);
    assert_eq!(read(&found).expect("the name is durable"), b"");
}

#[test]
fn a_replacing_rename_is_old_or_new() {
    let (faulty, _) = with_file(b"old");
    let disk = faulty.disk();
    let file = disk.create(Path::new("/t")).expect("a file");
    file.write_at(b"new", 0).expect("a write");
    file.sync_data().expect("a sync");
    disk.rename(Path::new("/t"), Path::new(FILE)).expect("a rename");
    let seen = outcomes(&faulty, |found| (found.files(), read(found).expect("it")));
    assert_eq!(
        seen,
        BTreeSet::from([
            (vec![path("/a")], b"old".to_vec()),
            (vec![path("/a"), path("/t")], b"old".to_vec()),
            (vec![path("/a")], b"new".to_vec()),
        ])
    );
    let (faulty, _) = with_file(b"old");
    let disk = faulty.disk();
    disk.rename(Path::new(FILE), Path::new("/b")).expect("a rename");
    disk.sync_dir(Path::new("/")).expect("a sync");
    assert_eq!(faulty.crash(CrashChoice::LoseAll).files(), [path("/b")]);
}

#[test]
fn an_unsynced_replacement_shows_the_danger() {
    let (faulty, _) = with_file(b"old");
    let disk = faulty.disk();
    let file = disk.create(Path::new("/t")).expect("a file");
    file.write_at(b"new", 0).expect("a write");
    disk.rename(Path::new("/t"), Path::new(FILE)).expect("a rename");
    disk.sync_dir(Path::new("/")).expect("a sync");
    let seen = outcomes(&faulty, |found| read(found).expect("the file"));
    assert!(seen.contains(b"".as_slice()), "{seen:?}");
    assert!(!seen.contains(b"old".as_slice()), "{seen:?}");
}

#[test]
fn a_removal_may_come_back_until_synced() {
    let (faulty, _) = with_file(b"old");
    faulty.disk().remove(Path::new(FILE)).expect("a removal");
    assert_eq!(outcomes(&faulty, read), BTreeSet::from([None, Some(b"old".to_vec())]));
    let (faulty, _) = with_file(b"old");
    let disk = faulty.disk();
    disk.remove(Path::new(FILE)).expect("a removal");
    disk.sync_dir(Path::new("/")).expect("a sync");
    assert_eq!(outcomes(&faulty, read), BTreeSet::from([None]));
}

#[test]
fn one_name_changes_in_order() {
    let faulty = FaultyDisk::new(7);
    let disk = faulty.disk();
    disk.create(Path::new("/a")).expect("a file");
    disk.rename(Path::new("/a"), Path::new("/b")).expect("a rename");
    disk.create(Path::new("/a")).expect("another file");
    assert_eq!(
        outcomes(&faulty, FaultyDisk::files),
        BTreeSet::from([vec![], vec![path("/a")], vec![path("/b")], vec![path("/a"), path("/b")],])
    );
}

#[test]
fn a_later_replacement_needs_the_earlier_one() {
    let faulty = FaultyDisk::new(7);
    for name in ["/t", "/u"] {
        faulty.write_file(Path::new(name), name.as_bytes()).expect("a file");
    }
    let disk = faulty.disk();
    disk.rename(Path::new("/t"), Path::new("/a")).expect("a rename");
    disk.rename(Path::new("/u"), Path::new("/a")).expect("a rename");
    assert_eq!(
        outcomes(&faulty, |found| (found.files(), read(found))),
        BTreeSet::from([
            (vec![path("/t"), path("/u")], None),
            (vec![path("/a"), path("/u")], Some(b"/t".to_vec())),
            (vec![path("/a")], Some(b"/u".to_vec())),
        ])
    );
}

#[test]
fn a_rename_between_directories_is_the_targets_to_sync() {
    let faulty = FaultyDisk::new(7);
    let disk = faulty.disk();
    disk.create_dir_all(Path::new("/from")).expect("a directory");
    disk.create_dir_all(Path::new("/to")).expect("a directory");
    disk.create(Path::new("/from/a")).expect("a file");
    disk.rename(Path::new("/from/a"), Path::new("/to/a")).expect("a rename");
    disk.sync_dir(Path::new("/from")).expect("a sync");
    assert_eq!(
        outcomes(&faulty, FaultyDisk::files),
        BTreeSet::from([vec![path("/from/a")], vec![path("/to/a")]])
    );
    let faulty = FaultyDisk::new(7);
    let disk = faulty.disk();
    disk.create_dir_all(Path::new("/from")).expect("a directory");
    disk.create_dir_all(Path::new("/to")).expect("a directory");
    disk.create(Path::new("/from/a")).expect("a file");
    disk.rename(Path::new("/from/a"), Path::new("/to/a")).expect("a rename");
    disk.sync_dir(Path::new("/to")).expect("a sync");
    assert_eq!(faulty.crash(CrashChoice::LoseAll).files(), [path("/to/a")]);
}

#[test]
fn every_call_fails_from_the_crash_point_on() {
    let script = |faulty: &FaultyDisk| -> std::io::Result<()> {
        let disk = faulty.disk();
        disk.create_dir_all(Path::new("/d"))?;
        let file = disk.create(Path::new("/d/t"))?;
        file.write_at(&[b'x'; 2_000], 0)?;
        file.set_len(4_000)?;
        file.sync_data()?;
        disk.rename(Path::new("/d/t"), Path::new("/d/a"))?;
        disk.sync_dir(Path::new("/d"))?;
        disk.remove(Path::new("/d/a"))?;
        disk.sync_dir(Path::new("/d"))
    };
    let dry = FaultyDisk::new(7);
    script(&dry).expect("a run without a crash");
    assert_eq!((dry.operations(), dry.writes(), dry.syncs()), (9, 1, 1));
    for nth in 1..=dry.operations() {
        let faulty = FaultyDisk::new(7);
        faulty.crash_at(nth);
        script(&faulty).expect_err("a crash");
        assert!(faulty.is_crashed(), "crash point {nth}");
        assert_eq!(faulty.operations(), nth);
        let disk = faulty.disk();
        disk.list(Path::new("/")).expect_err("a list");
        disk.open(Path::new("/d/a")).expect_err("an opening");
        disk.sync_dir(Path::new("/")).expect_err("a sync");
        // Whatever was found, the file is whole once its rename is durable.
        for seed in 0..50 {
            let found = faulty.crash(CrashChoice::Random(seed));
            assert!(!found.is_crashed());
            found.disk().list(Path::new("/")).expect("a list");
            if let Ok(content) = found.read_file(Path::new("/d/a")) {
                assert_eq!(content.len(), 4_000, "crash point {nth}, seed {seed}");
                assert!(content[..2_000].iter().all(|byte| *byte == b'x'));
            }
        }
    }
    // A cut in the write itself tears it.
    let faulty = FaultyDisk::new(7);
    faulty.crash_at(3);
    script(&faulty).expect_err("a crash");
    assert_eq!(faulty.pending(), 6, "a name, a length and four sectors");
    outcomes(&faulty, |_| ());
    assert!(faulty.torn_writes() > 0 && faulty.lost_writes() > 0);
}

#[test]
fn a_seed_fixes_the_outcome() {
    let found = |seed| {
        let (faulty, file) = with_file(&[b'o'; 4_096]);
        file.write_at(&[b'n'; 4_096], 0).expect("a write");
        read(&faulty.crash(CrashChoice::Random(seed)))
    };
    assert!((0..20).all(|seed| found(seed) == found(seed)));
    let different: BTreeSet<_> = (0..20).map(found).collect();
    assert!(different.len() > 5);
}

#[test]
fn a_failed_sync_lies_afterwards() {
    let (faulty, file) = with_file(b"old");
    faulty.fail_sync(2);
    file.sync_data().expect("the first sync");
    file.write_at(b"newer", 0).expect("a write");
    let error = file.sync_data().expect_err("the second sync");
    assert_eq!(error.raw_os_error(), Some(5));
    file.sync_data().expect("the third sync, which lies");
    let mut seen = [0; 5];
    file.read_at(&mut seen, 0).expect("the page cache");
    assert_eq!(&seen, b"newer");
    let found = faulty.crash(CrashChoice::KeepAll);
    assert_eq!(read(&found).expect("the file"), b"old\0\0");
}

#[test]
fn a_failed_sync_may_have_reached_a_part() {
    let (faulty, file) = with_file(&[b'o'; 8_192]);
    faulty.fail_sync_partly(1);
    file.write_at(&[b'n'; 8_192], 0).expect("a write");
    file.sync_data().expect_err("the sync");
    let found = read(&faulty.crash(CrashChoice::KeepAll)).expect("the file");
    assert!(found.contains(&b'o') && found.contains(&b'n'));
}

#[test]
fn a_failed_write_leaves_a_prefix() {
    let mut prefixes = BTreeSet::new();
    for seed in 0..40 {
        let faulty = FaultyDisk::new(seed);
        faulty.fail_write(2, ErrorKind::Other);
        let disk = faulty.disk();
        let file = disk.create(Path::new(FILE)).expect("a file");
        file.write_at(b"first", 0).expect("the first write");
        file.write_at(b"abcd", 5).expect_err("the second write");
        let found = read(&faulty).expect("the file");
        assert!(b"firstabcd".starts_with(&found[..]), "{found:?}");
        prefixes.insert(found.len());
        file.write_at(b"abcd", 5).expect("the third write");
    }
    assert_eq!(prefixes, BTreeSet::from([5, 6, 7, 8, 9]));
}

#[test]
fn any_operation_can_fail() {
    let (faulty, file) = with_file(b"old");
    let disk = faulty.disk();
    for nth in 1..=5 {
        faulty.fail_operation(nth, ErrorKind::PermissionDenied);
    }
    faulty.fail_read(1, ErrorKind::TimedOut);
    let refused = [
        disk.create(Path::new("/b")).map(|_| ()),
        disk.rename(Path::new(FILE), Path::new("/b")),
        disk.remove(Path::new(FILE)),
        disk.sync_dir(Path::new("/")),
        file.write_at(b"new", 0),
    ];
    for result in refused {
        let kind = result.expect_err("a refusal").kind();
        assert_eq!(kind, ErrorKind::PermissionDenied);
    }
    let error = file.read_at(&mut [0], 0).expect_err("a failing read");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(faulty.files(), [path(FILE)]);
    assert_eq!(read(&faulty).expect("the file"), b"old");
    file.write_at(b"new", 0).expect("the next write");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let faulty = FaultyDisk::new(7);
    faulty.set_capacity(10);
    let disk = faulty.disk();
    let root = Path::new("/");
    let file = disk.create(Path::new(FILE)).expect("a file");
    file.write_at(b"01234567", 0).expect("what fits");
    assert_eq!(disk.free_bytes(root).expect("free bytes"), 2);
    let full = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("no room").kind(), ErrorKind::StorageFull);
    };
    full(file.set_len(11));
    full(file.write_at(b"89AB", 8));
    assert_eq!(read(&faulty).expect("the file"), b"0123456789");
    full(disk.create(Path::new("/b")).map(|_| ()));
    full(file.write_at(b"far", 100));
    file.write_at(b"ABCD", 2).expect("an overwrite");
    file.set_len(4).expect("a cut");
    let other = disk.create(Path::new("/b")).expect("another file");
    other.write_at(b"012345", 0).expect("what fits now");
    assert_eq!(disk.free_bytes(root).expect("free bytes"), 0);
    disk.remove(Path::new("/b")).expect("a removal");
    assert_eq!(disk.free_bytes(root).expect("free bytes"), 6);
    faulty.set_capacity(u64::MAX);
    file.write_at(&[0; 100], 0).expect("room again");
}

#[test]
fn damage_is_done_behind_the_readers_back() {
    let (faulty, _) = with_file(b"0123");
    faulty.corrupt(Path::new(FILE), 1, 3).expect("a flip");
    assert_eq!(read(&faulty).expect("the file"), b"0923");
    faulty.corrupt(Path::new(FILE), 4, 0).expect_err("past the end");
    faulty.truncate_file(Path::new(FILE), 2).expect("a cut");
    faulty.write_file(Path::new("/d/b"), b"new").expect("a file");
    let found = faulty.crash(CrashChoice::LoseAll);
    assert_eq!(read(&found).expect("the file"), b"09");
    assert_eq!(found.files(), [path("/a"), path("/d/b")]);
    found.remove_file(Path::new("/d/b")).expect("a removal");
    assert_eq!(found.crash(CrashChoice::LoseAll).files(), [path("/a")]);
}

#[test]
fn the_disks_before_and_after_a_cut_share_nothing_but_coverage() {
    let (faulty, file) = with_file(b"old");
    file.write_at(b"new", 0).expect("a write");
    let first = faulty.crash(CrashChoice::LoseAll);
    let handle = first.disk().open(Path::new(FILE)).expect("the file");
    handle.write_at(b"own", 0).expect("a write");
    assert_eq!(read(&faulty.crash(CrashChoice::LoseAll)).expect("it"), b"old");
    assert_eq!(first.lost_writes(), 2);
}
