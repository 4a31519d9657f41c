//! Flipped bits, golden files and inputs that no writer made.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aquifer_env::{Disk, DiskFile, FaultyDisk};
use aquifer_journal::{Durability, Error, Frame, Journal, Options, verify};
use aquifer_types::{Epoch, GroupSequence};
use common::{dir, group, image, options, place, read_all};

type Image = Vec<(PathBuf, Vec<u8>)>;

/// A journal of four 16 KiB files, with or without a mark at its end; what
/// it holds, and how many of its groups are not proved durable.
fn small_journal(mark: bool) -> (Image, Vec<(u64, u64)>) {
    let disk = FaultyDisk::new(1);
    let options =
        Options { file_bytes: 16 << 10, prepared_files: 0, recycled_files_max: 0, ..options() };
    let opened = Journal::open(disk.disk(), &dir(), options, Epoch(1)).unwrap();
    let (mut journal, _) = opened;
    let last = if mark { 9 } else { 10 };
    for id in 1..=last {
        let bytes = if id == 4 { 7000 } else { 100 * id as usize };
        journal.write(&mut group(id, bytes), Durability::Sync).unwrap();
        journal.sync().unwrap();
    }
    if mark {
        journal.write_sync_mark(true).unwrap();
    }
    let image = image(&disk);
    assert_eq!(image.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 64 << 10);
    let written = (1..=last).map(|id| (id, id)).collect();
    (image, written)
}

/// Frames of a group: kind, meta, payload.
type Content = Vec<(u8, Vec<u8>, Vec<u8>)>;

/// What a sound journal holds, group by group; marks are empty.
fn contents(image: &Image) -> Vec<Content> {
    let (_, recovered) = Journal::open(still(image), &dir(), options(), Epoch(2)).unwrap();
    let mut contents = Vec::new();
    recovered
        .for_each_group(GroupSequence(1), |group| {
            let frame = |frame: Frame<'_>| (frame.kind, frame.meta.into(), frame.payload.into());
            contents.push(group.frames().map(frame).collect());
            Ok::<(), Error>(())
        })
        .unwrap();
    contents
}

fn still(image: &Image) -> Arc<StillDisk> {
    Arc::new(StillDisk { files: Arc::new(Mutex::new(image.iter().cloned().collect())) })
}

/// How many groups are found; panics if one of them is not what was written.
fn read(disk: &Arc<StillDisk>, contents: &[Content]) -> Result<usize, Error> {
    let (_, recovered) = Journal::open(disk.clone(), &dir(), options(), Epoch(2))?;
    let mut found = 0;
    recovered.for_each_group(GroupSequence(1), |group| {
        let content = &contents[found];
        found += 1;
        assert_eq!((group.sequence().0, group.frames().count()), (found as u64, content.len()));
        for (frame, (kind, meta, payload)) in group.frames().zip(content) {
            let same = frame.kind == *kind && frame.meta == meta && frame.payload == payload;
            assert!(same, "wrong bytes in group {found}");
        }
        Ok::<(), Error>(())
    })?;
    Ok(found)
}

/// Flips every `step`th bit, one at a time; each must be refused or leave at
/// least `kept` groups.
fn flip_bits(image: &Image, files: Range<usize>, step: usize, kept: usize) -> (u64, u64) {
    let contents = contents(image);
    let disk = still(image);
    let (mut flipped, mut refused, mut cut) = (0u64, 0u64, 0u64);
    for (path, bytes) in &image[files] {
        for bit in (0..bytes.len() * 8).step_by(step) {
            disk.flip(path, bit);
            match read(&disk, &contents) {
                Ok(found) => {
                    assert!(found >= kept, "{path:?} bit {bit}: {found} groups");
                    cut += u64::from(found < contents.len());
                }
                Err(Error::Damaged { path: at, .. }) => {
                    assert_eq!(&at, path, "bit {bit}");
                    refused += 1;
                }
                Err(error) => panic!("{path:?} bit {bit}: {error}"),
            }
            disk.flip(path, bit);
            flipped += 1;
        }
    }
    println!("{flipped} bits flipped: {refused} refused, {cut} cut the tail, the rest harmless");
    (refused, cut)
}

/// Headers and frames are guarded, and nothing but the mark is ever cut.
fn every_flipped_bit_is_refused_or_harmless(files: Range<usize>) {
    let (image, written) = small_journal(true);
    let (refused, cut) = flip_bits(&image, files, 1, written.len());
    assert!(refused > 80_000 && cut <= 512);
}

// In two tests, so that they share the work.
#[test]
fn every_flipped_bit_in_the_older_files_is_refused_or_harmless() {
    every_flipped_bit_is_refused_or_harmless(0..2);
}

#[test]
fn every_flipped_bit_in_the_newer_files_is_refused_or_harmless() {
    every_flipped_bit_is_refused_or_harmless(2..4);
}

#[test]
fn without_a_mark_a_flipped_bit_costs_at_most_the_last_group() {
    let (image, written) = small_journal(false);
    let (refused, cut) = flip_bits(&image, 0..4, 7, written.len() - 1);
    assert!(refused > 200_000 / 7 && cut > 1000);
}

/// Files in memory that only the test changes.
#[derive(Debug, Clone)]
struct StillDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
}

impl StillDisk {
    fn flip(&self, path: &Path, bit: usize) {
        self.files.lock().unwrap().get_mut(path).unwrap()[bit / 8] ^= 1 << (bit % 8);
    }

    fn refused<T>(&self) -> io::Result<T> {
        panic!("reading a journal changes nothing")
    }
}

impl Disk for StillDisk {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.refused()
    }
    fn open(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.refused()
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StillFile { disk: self.clone(), path: path.to_owned() }))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        self.refused()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        self.refused()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.refused()
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.refused()
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }
}

#[derive(Debug)]
struct StillFile {
    disk: StillDisk,
    path: PathBuf,
}

impl StillFile {
    fn with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        read(&self.disk.files.lock().unwrap()[&self.path])
    }
}

impl DiskFile for StillFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.with(|bytes| {
            let end = position as usize + buffer.len();
            let found = bytes.get(position as usize..end);
            buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        self.disk.refused()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.refused()
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        self.disk.refused()
    }
}

/// Three files that exercise the whole format; byte for byte the same each
/// time.
fn golden() -> Image {
    let disk = FaultyDisk::new(1);
    let options =
        Options { file_bytes: 12 << 10, prepared_files: 0, recycled_files_max: 0, ..options() };
    let opened = Journal::open(disk.disk(), &dir(), options, Epoch(7)).unwrap();
    let (mut journal, _) = opened;
    let mut write = |id, bytes, durability| {
        journal.write(&mut group(id, bytes), durability).unwrap();
    };
    write(1, 10, Durability::Relaxed);
    write(2, 100, Durability::Sync);
    write(3, 5000, Durability::Sync);
    write(4, 9000, Durability::Sync);
    journal.sync().unwrap();
    journal.write(&mut group(5, 0), Durability::Sync).unwrap();
    journal.write_sync_mark(true).unwrap();
    image(&disk)
}

fn golden_path(path: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(path.file_name().unwrap())
}

#[test]
fn the_format_is_that_of_the_golden_files() {
    let written = golden();
    if std::env::var_os("AQUIFER_WRITE_GOLDEN").is_some() {
        for (path, bytes) in &written {
            std::fs::write(golden_path(path), bytes).unwrap();
        }
    }
    let stored =
        |(path, _): &(PathBuf, Vec<u8>)| (path.clone(), std::fs::read(golden_path(path)).unwrap());
    let stored: Image = written.iter().map(stored).collect();
    for ((path, written), (_, stored)) in written.iter().zip(&stored) {
        assert!(written == stored, "{} is written otherwise than stored", path.display());
    }
    let disk = FaultyDisk::new(1);
    place(&disk, &stored);
    let (_, recovered) = Journal::open(disk.disk(), &dir(), options(), Epoch(8)).unwrap();
    assert!(recovered.is_clean_shutdown());
    assert_eq!(read_all(&recovered).unwrap(), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    let report = verify(disk.disk(), &dir(), |_, _| {}).unwrap();
    assert!(report.is_sound());
    assert_eq!((report.files, report.groups, report.frames), (4, 6, 10));
}

/// A directory in one input: for each file its length in four bytes, then its
/// bytes.
fn packed(image: &Image) -> Vec<u8> {
    let mut packed = Vec::new();
    for (_, bytes) in image {
        packed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        packed.extend_from_slice(bytes);
    }
    packed
}

fn unpacked(mut input: &[u8]) -> Image {
    let mut image = Image::new();
    while let Some((len, rest)) = input.split_first_chunk() {
        let len = (u32::from_le_bytes(*len) as usize).min(rest.len());
        image.push((common::path_of(image.len() as u64 + 1), rest[..len].to_vec()));
        input = &rest[len..];
    }
    image
}

/// Writes the right checksums over what a mutation left, so that what lies
/// behind them is reached as well.
fn repair(input: &mut Vec<u8>) {
    let mut image = unpacked(input);
    for (index, (_, bytes)) in image.iter_mut().enumerate() {
        let file = index as u64 + 1;
        if let Some(block) = bytes.first_chunk_mut::<4096>() {
            let crc = crc32c::crc32c(&block[..4092]);
            block[4092..].copy_from_slice(&crc.to_le_bytes());
        }
        for position in (4096..bytes.len()).step_by(4096) {
            let Some(header) = bytes.get(position..position + 64) else { break };
            if header[..4] != *b"AQJG" {
                continue;
            }
            let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
            let epoch: [u8; 4] = header[32..36].try_into().unwrap();
            if let Some(frames) = bytes.get(position + 64..position.saturating_add(len)) {
                let crc = crc32c::crc32c(frames);
                bytes[position + 36..position + 40].copy_from_slice(&crc.to_le_bytes());
            }
            let mut seed = file.to_le_bytes().to_vec();
            seed.extend(epoch);
            seed.extend((position as u64).to_le_bytes());
            let seed = crc32c::crc32c(&seed);
            let crc = crc32c::crc32c_append(seed, &bytes[position..position + 60]);
            bytes[position + 60..position + 64].copy_from_slice(&crc.to_le_bytes());
        }
    }
    *input = packed(&image);
}

#[test]
fn fuzz_recover() {
    let corpus =
        [packed(&golden()), packed(&small_journal(true).0), packed(&small_journal(false).0)];
    for input in &corpus {
        let mut repaired = input.clone();
        repair(&mut repaired);
        assert!(repaired == *input, "a sound journal needs no repair");
    }
    let tried = aquifer_testkit::fuzz_repaired("recover", 1.0, &corpus, repair, |input| {
        let disk = still(&unpacked(input));
        if let Ok((_, recovered)) = Journal::open(disk.clone(), &dir(), options(), Epoch(u32::MAX))
        {
            let first = recovered.first_sequence();
            let _ = recovered.for_each_group(first, |group| {
                let read: usize = group.frames().map(|frame| frame.payload.len()).sum();
                assert!(read <= input.len());
                Ok::<(), Error>(())
            });
        }
        let _ = verify(disk, &dir(), |_, _| {});
    });
    assert!(tried > 50);
}
