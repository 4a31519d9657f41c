//! What every [`Disk`] must do, run on the real one and on the faulty one.

#![allow(
    clippy::disallowed_methods,
    reason = "prepares the real directory behind the seam under test"
)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::{Disk, DiskFile, FaultyDisk, RealDisk};

/// Runs `test` on each disk with an empty directory of its own.
fn check(test: impl Fn(&dyn Disk, &Path)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    test(&RealDisk::new(), directory.path());
    let faulty = FaultyDisk::new(1).disk();
    faulty.create_dir_all(Path::new("/data")).expect("/data");
    test(faulty.as_ref(), Path::new("/data"));
}

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut bytes = vec![0; file.len().expect("length") as usize];
    file.read_at(&mut bytes, 0).expect("content");
    bytes
}

fn create_with(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(path).expect("a new file");
    file.write_at(bytes, 0).expect("a write");
    file.sync_data().expect("a sync");
    file
}

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.expect_err("an error").kind()
}

#[test]
fn a_file_is_created_once() {
    check(|disk, root| {
        let path = root.join("a");
        create_with(disk, &path, b"one");
        assert_eq!(kind(disk.create(&path)), ErrorKind::AlreadyExists);
        assert_eq!(content(&disk.open(&path).expect("the file")), b"one");
        assert_eq!(kind(disk.create(root)), ErrorKind::AlreadyExists);
    });
}

#[test]
fn what_is_absent_is_not_found() {
    check(|disk, root| {
        let absent = root.join("absent");
        assert_eq!(kind(disk.open(&absent)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open_read(&absent)), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove(&absent)), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename(&absent, &root.join("b"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.create(&absent.join("b"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.list(&absent)), ErrorKind::NotFound);
        assert_eq!(kind(disk.sync_dir(&absent)), ErrorKind::NotFound);
        assert_eq!(kind(disk.free_bytes(&absent)), ErrorKind::NotFound);
    });
}

#[test]
fn writes_land_at_their_positions() {
    check(|disk, root| {
        let file = create_with(disk, &root.join("a"), b"0123456789");
        file.write_at(b"XY", 4).expect("an overwrite");
        file.write_at(b"!", 12).expect("a write past the end");
        file.write_at(b"", 100).expect("an empty write");
        assert_eq!(content(&file), b"0123XY6789\0\0!");
        let other = disk.open_read(&root.join("a")).expect("a second handle");
        assert_eq!(content(&other), b"0123XY6789\0\0!");
    });
}

#[test]
fn a_read_past_the_end_is_an_early_end() {
    check(|disk, root| {
        let file = create_with(disk, &root.join("a"), b"0123");
        let mut buffer = [0; 3];
        file.read_at(&mut buffer, 1).expect("the last three");
        assert_eq!(&buffer, b"123");
        for position in [2, 4, 1_000, u64::MAX / 4] {
            let error = kind(file.read_at(&mut buffer, position));
            assert_eq!(error, ErrorKind::UnexpectedEof, "{position}");
            let error = kind(file.read_vec(3, position));
            assert_eq!(error, ErrorKind::UnexpectedEof, "{position}");
        }
        file.read_at(&mut [], 4).expect("nothing, read at the end");
        assert_eq!(file.read_vec(3, 1).expect("the last three"), b"123");
        assert_eq!(file.read_vec(0, 4).expect("nothing, read at the end"), b"");
    });
}

#[test]
fn a_length_cuts_and_extends_with_zeros() {
    check(|disk, root| {
        let file = create_with(disk, &root.join("a"), b"0123456789");
        file.set_len(4).expect("a cut");
        file.set_len(6).expect("an extension");
        assert_eq!(content(&file), b"0123\0\0");
        assert_eq!(file.len().expect("length"), 6);
    });
}

#[test]
fn a_handle_for_reading_does_not_write() {
    check(|disk, root| {
        create_with(disk, &root.join("a"), b"0123");
        let file = disk.open_read(&root.join("a")).expect("the file");
        file.write_at(b"X", 0).expect_err("no write");
        file.set_len(1).expect_err("no change of length");
        assert_eq!(content(&file), b"0123");
    });
}

#[test]
fn a_rename_replaces_its_target() {
    check(|disk, root| {
        create_with(disk, &root.join("a"), b"new");
        let replaced = create_with(disk, &root.join("b"), b"old");
        disk.rename(&root.join("a"), &root.join("b")).expect("a rename");
        disk.sync_dir(root).expect("a sync");
        assert_eq!(kind(disk.open(&root.join("a"))), ErrorKind::NotFound);
        assert_eq!(content(&disk.open(&root.join("b")).expect("the file")), b"new");
        assert_eq!(content(&replaced), b"old", "an open handle stays");
    });
}

#[test]
fn a_rename_to_a_new_name_replaces_nothing() {
    check(|disk, root| {
        create_with(disk, &root.join("a"), b"one");
        create_with(disk, &root.join("b"), b"two");
        let refused = disk.rename_new(&root.join("a"), &root.join("b"));
        assert_eq!(kind(refused), ErrorKind::AlreadyExists);
        disk.rename_new(&root.join("a"), &root.join("c")).expect("a rename");
        assert_eq!(kind(disk.open(&root.join("a"))), ErrorKind::NotFound);
        for (name, bytes) in [("b", b"two"), ("c", b"one")] {
            let file = disk.open(&root.join(name)).expect("the file");
            assert_eq!(content(&file), bytes, "{name}");
        }
        let absent = disk.rename_new(&root.join("a"), &root.join("d"));
        assert_eq!(kind(absent), ErrorKind::NotFound);
        let absent = disk.rename_new(&root.join("b"), &root.join("d/e"));
        assert_eq!(kind(absent), ErrorKind::NotFound);
    });
}

#[test]
fn a_rename_to_itself_changes_nothing() {
    check(|disk, root| {
        create_with(disk, &root.join("a"), b"same");
        disk.rename(&root.join("a"), &root.join("a")).expect("a rename");
        assert_eq!(content(&disk.open(&root.join("a")).expect("the file")), b"same");
    });
}

#[test]
fn a_removed_file_lives_on_in_its_handles() {
    check(|disk, root| {
        let file = create_with(disk, &root.join("a"), b"0123");
        disk.remove(&root.join("a")).expect("a removal");
        disk.sync_dir(root).expect("a sync");
        assert_eq!(kind(disk.open(&root.join("a"))), ErrorKind::NotFound);
        file.write_at(b"X", 0).expect("a write");
        file.sync_data().expect("a sync");
        assert_eq!(content(&file), b"X123");
        assert_eq!(content(&create_with(disk, &root.join("a"), b"again")), b"again");
    });
}

#[test]
fn a_list_names_the_files_directly_below() {
    check(|disk, root| {
        create_with(disk, &root.join("a"), b"");
        create_with(disk, &root.join("b"), b"");
        disk.create_dir_all(&root.join("c/d")).expect("directories");
        create_with(disk, &root.join("c/e"), b"");
        let mut files = disk.list(root).expect("a list");
        files.sort();
        assert_eq!(files, [root.join("a"), root.join("b")]);
        assert_eq!(disk.list(&root.join("c/d")).expect("a list").len(), 0);
        assert_eq!(disk.list_dirs(root).expect("a list"), [root.join("c")]);
        let below = disk.list_dirs(&root.join("c")).expect("a list");
        assert_eq!(below, [root.join("c/d")]);
        assert_eq!(kind(disk.list_dirs(&root.join("x"))), ErrorKind::NotFound);
    });
}

#[test]
fn directories_are_made_once_and_never_over_files() {
    check(|disk, root| {
        let deep = root.join("a/b/c");
        disk.create_dir_all(&deep).expect("directories");
        disk.create_dir_all(&deep).expect("the same again");
        disk.create_dir_all(root).expect("what exists");
        create_with(disk, &deep.join("file"), b"");
        disk.sync_dir(&deep).expect("a sync");
        disk.create_dir_all(&deep.join("file")).expect_err("a file is no directory");
        disk.create_dir_all(&deep.join("file/d")).expect_err("a file has no directory");
        disk.sync_dir(&deep.join("file")).expect_err("a file is not synced as a directory");
        disk.open(&deep).expect_err("a directory is no file");
    });
}

#[test]
fn free_bytes_are_told() {
    check(|disk, root| {
        assert!(disk.free_bytes(root).expect("free bytes") > 0);
    });
}

#[test]
fn a_real_disk_lists_no_links_or_directories() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::symlink("/nowhere", directory.path().join("link")).expect("a link");
    let files: Vec<PathBuf> = RealDisk::new().list(directory.path()).expect("a list");
    assert!(files.is_empty(), "{files:?}");
}
