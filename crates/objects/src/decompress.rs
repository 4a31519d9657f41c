//! Objects that are compressed as a whole, undone within bounds.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::spec::Compression;

/// The largest window that a zstd frame may ask for: 2^27 bytes, as the tool
/// `zstd` allows without being told otherwise.
const WINDOW_LOG_MAX: u32 = 27;
/// An object may grow to this size whatever its length is.
const FREE_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 128 << 10;

/// The bytes of an object as they were before they were compressed.
///
/// # Errors
/// What reading the first bytes fails of.
pub(crate) fn decompressed<'r>(
    input: impl Read + 'r,
    compression: Compression,
    ratio_max: u64,
) -> io::Result<Box<dyn Read + 'r>> {
    let mut input = input;
    let mut first = [0; 4];
    let mut length = 0;
    while let Some(rest) = first.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let first = first.get(..length).unwrap_or_default().to_vec();
    let compression = match compression {
        Compression::Auto if first.starts_with(&[0x1f, 0x8b]) => Compression::Gzip,
        Compression::Auto if first == [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        Compression::Auto => Compression::None,
        given => given,
    };
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Counted { input: Cursor::new(first).chain(input), taken: taken.clone() };
    let buffered = BufReader::with_capacity(BUFFER_BYTES, counted);
    let output: Box<dyn Read + 'r> = match compression {
        Compression::Auto | Compression::None => return Ok(Box::new(buffered)),
        Compression::Gzip => Box::new(gzip(buffered)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(Bounded { output, taken, given: 0, ratio_max }))
}

fn gzip<R: BufRead>(input: R) -> impl Read {
    MultiGzDecoder::new(input)
}

struct Counted<R> {
    input: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Refuses what grows beyond measure: a few bytes that become terabytes would
/// keep an import, and fill a journal, for ever.
struct Bounded<R> {
    output: R,
    taken: Arc<AtomicU64>,
    given: u64,
    ratio_max: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.output.read(buffer)?;
        self.given += bytes as u64;
        let taken = self.taken.load(Ordering::Relaxed);
        if self.given > FREE_BYTES.max(taken.saturating_mul(self.ratio_max)) {
            return Err(io::Error::other(format!(
                "it grows to more than {} times its length (objects.ratio_max)",
                self.ratio_max
            )));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(input: &[u8], compression: Compression) -> Result<Vec<u8>, String> {
        let mut output = Vec::new();
        decompressed(input, compression, 10)
            .and_then(|mut reader| reader.read_to_end(&mut output))
            .map(|_| output)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn compressions_are_told_by_their_first_bytes() {
        let text = b"some text, some text".repeat(10);
        let zipped = gzipped(&text);
        let zstd = zstd::bulk::compress(&text, 1).unwrap();
        for (input, compression) in [
            (text.clone(), Compression::Auto),
            (zipped.clone(), Compression::Auto),
            (zipped.clone(), Compression::Gzip),
            (zstd.clone(), Compression::Auto),
            (zstd.clone(), Compression::Zstd),
        ] {
            assert_eq!(check(&input, compression).as_deref(), Ok(&text[..]));
        }
        // Members one behind the other are one text.
        assert_eq!(
            check(&[zipped.clone(), zipped.clone()].concat(), Compression::Auto).unwrap(),
            text.repeat(2)
        );
        assert_eq!(check(&zipped, Compression::None).unwrap(), zipped);
        for input in [&b""[..], b"a", b"\x1f"] {
            assert_eq!(check(input, Compression::Auto).unwrap(), input);
        }
        assert!(check(&zipped[..zipped.len() - 9], Compression::Auto).is_err());
        assert!(check(b"text", Compression::Gzip).is_err());
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
        assert!(check(&bomb, Compression::Auto).unwrap_err().contains("objects.ratio_max"));
        let small = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        assert_eq!(check(&small, Compression::Auto).unwrap().len(), 1 << 20);
    }
}
