//! What the engine writes to its standard error, in the server's log.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A longer line is logged in parts.
const LINE_BYTES_MAX: usize = 4096;
/// What the allocator says when the system gives it nothing.
const NO_MEMORY: &str = "memory allocation of ";

/// Follows the log of one child. Cloning shares what was noticed.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineLog {
    has_run_out_of_memory: Arc<Mutex<bool>>,
}

impl EngineLog {
    /// Logs what `source` says until it ends.
    pub(crate) async fn follow(self, mut source: impl AsyncRead + Unpin, process: u32) {
        let mut held = Vec::with_capacity(LINE_BYTES_MAX);
        let mut buffer = [0; LINE_BYTES_MAX];
        loop {
            let read = match source.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            for byte in buffer.iter().take(read) {
                match byte {
                    b'\n' => self.line(&mut held, process),
                    byte => {
                        held.push(*byte);
                        if held.len() >= LINE_BYTES_MAX {
                            self.line(&mut held, process);
                        }
                    }
                }
            }
        }
        self.line(&mut held, process);
    }

    /// Whether it said that it got no memory.
    pub(crate) fn has_run_out_of_memory(&self) -> bool {
        *self.has_run_out_of_memory.lock()
    }

    fn line(&self, held: &mut Vec<u8>, process: u32) {
        let line = String::from_utf8_lossy(held).trim().to_owned();
        held.clear();
        if line.is_empty() {
            return;
        }
        if line.starts_with(NO_MEMORY) {
            *self.has_run_out_of_memory.lock() = true;
        }
        // The child writes the level first, and no time: this log has its own.
        let (level, rest) = line.split_once(' ').unwrap_or(("", &line));
        match level {
            "ERROR" => tracing::error!(process, "engine: {rest}"),
            "WARN" => tracing::warn!(process, "engine: {rest}"),
            "INFO" => tracing::info!(process, "engine: {rest}"),
            "DEBUG" | "TRACE" => tracing::debug!(process, "engine: {rest}"),
            // A panic, or what a library writes.
            _ => tracing::warn!(process, "engine: {line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_allocators_last_words_are_noticed() {
        let check = async |text: &[u8], expected: bool| {
            let log = EngineLog::default();
            log.clone().follow(text, 1).await;
            assert_eq!(log.has_run_out_of_memory(), expected);
        };
        check(b"INFO started\nmemory allocation of 4096 bytes failed", true).await;
        check(b"INFO a memory allocation of its own\n\xff\n", false).await;
        check(&[b'x'; 3 * LINE_BYTES_MAX], false).await;
    }
}
