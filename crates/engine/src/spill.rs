//! Where operators put what does not fit into memory, and how much of it there
//! may be.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_env::tasks::run_blocking;
use aquifer_env::{ScratchDirectory, ScratchFile, ScratchWriter};
use bytes::Bytes;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use futures::stream;

use crate::refusal::{Refused, spill_exhausted};

/// Read at once.
const READ: usize = 256 << 10;

/// Makes the files, and counts what is in them.
#[derive(Debug)]
pub(crate) struct SpillFiles {
    directory: ScratchDirectory,
    space: Arc<Space>,
}

impl SpillFiles {
    /// Files of `bytes_max` together in `directory`, which is the process's own.
    ///
    /// # Errors
    /// What the directory refuses.
    pub(crate) fn new(directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let directory = ScratchDirectory::new(directory)?;
        if !directory.is_direct() {
            tracing::info!("the directory for spilled data has no direct writes; they are synced");
        }
        Ok(Self { directory, space: Arc::new(Space { bytes_max, used: AtomicU64::new(0) }) })
    }

    /// The bytes in all files at present.
    pub(crate) fn bytes(&self) -> u64 {
        self.space.used.load(Ordering::Relaxed)
    }
}

impl TempFileFactory for SpillFiles {
    fn create_temp_file(&self, _: &str) -> Result<Arc<dyn SpillFile>> {
        let file = self.directory.create().map_err(DataFusionError::IoError)?;
        let share = Share { space: Arc::clone(&self.space), bytes: AtomicU64::new(0) };
        Ok(Arc::new(Spilled { file, share: Arc::new(share) }))
    }
}

/// What all files may take, and take.
#[derive(Debug)]
struct Space {
    bytes_max: u64,
    used: AtomicU64,
}

/// What one file takes of it, as long as there is anybody who has the file.
#[derive(Debug)]
struct Share {
    space: Arc<Space>,
    bytes: AtomicU64,
}

impl Share {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let Space { bytes_max, used } = &*self.space;
        let more = |used: u64| used.checked_add(bytes).filter(|sum| sum <= bytes_max);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Err(io::Error::other(Refused(spill_exhausted())));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.space.used.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

struct Spilled {
    file: ScratchFile,
    share: Arc<Share>,
}

impl SpillFile for Spilled {
    fn path(&self) -> Option<&Path> {
        Some(self.file.path())
    }

    fn size(&self) -> Option<u64> {
        Some(self.share.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let reader = self.file.reader().map_err(DataFusionError::IoError)?;
        let begin = (reader, Arc::clone(&self.share));
        Ok(Box::pin(stream::try_unfold(begin, |(mut reader, share)| async move {
            let (reader, bytes) = run_blocking(move || {
                let bytes = reader.read(READ);
                (reader, bytes)
            })
            .await;
            let bytes = Bytes::from(bytes.map_err(DataFusionError::IoError)?);
            Ok((!bytes.is_empty()).then_some((bytes, (reader, share))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(Writer { writer: self.file.writer(), share: Arc::clone(&self.share) }))
    }
}

struct Writer {
    writer: ScratchWriter,
    share: Arc<Share>,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.share.take(bytes.len() as u64)?;
        self.writer.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        io::Write::flush(self).map_err(DataFusionError::IoError)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn all_files_together_have_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let files = SpillFiles::new(directory.path().to_owned(), 10_000).unwrap();
        let [one, two] = [(); 2].map(|()| files.create_temp_file("").unwrap());
        let mut writer = one.open_writer().unwrap();
        writer.write_all(&[1; 6_000]).unwrap();
        writer.finish().unwrap();
        let error = two.open_writer().unwrap().write_all(&[0; 4_001]).unwrap_err();
        assert!(error.to_string().contains("query.spill_bytes_max"), "{error}");
        let read = one.read_stream().unwrap();
        drop((one, writer));
        assert_eq!(files.bytes(), 6_000);
        let read: Vec<Bytes> = read.try_collect().await.unwrap();
        assert_eq!(read.concat(), [1; 6_000]);
        assert_eq!(files.bytes(), 0);
        two.open_writer().unwrap().write_all(&[0; 10_000]).unwrap();
        drop(two);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }
}
