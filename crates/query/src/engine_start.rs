//! The engine's side of its start.
//!
//! The engine inherits a listening socket; the server's first connection to it
//! says what it is to be, and stays open for as long as the server lives.

use std::io;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::wire::{EngineReady, StartEngine};
use crate::{FrameReader, FrameWriter};

/// The server's first message comes at once.
const START_MAX: Duration = Duration::from_secs(10);

/// Lasts as long as the server does.
#[derive(Debug)]
pub struct Lifeline {
    connection: UnixStream,
}

impl Lifeline {
    /// Takes the first connection: what the engine is to be.
    ///
    /// # Errors
    /// Where nobody sends that within ten seconds.
    pub async fn take(listener: &UnixListener) -> io::Result<(StartEngine, Self)> {
        let taken = async {
            let (mut connection, _) = listener.accept().await?;
            match FrameReader::new(&mut connection).message().await? {
                Some(start) => Ok((start, Self { connection })),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        tokio::time::timeout(START_MAX, taken)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Tells the server that questions are taken.
    ///
    /// # Errors
    /// Where the server is gone.
    pub async fn ready(&mut self) -> io::Result<()> {
        FrameWriter::new(&mut self.connection).message(&EngineReady {}).await
    }

    /// The connection itself, for a thread that waits for its end: a runtime
    /// whose threads all work would not notice it.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixStream> {
        let connection = self.connection.into_std()?;
        connection.set_nonblocking(false)?;
        Ok(connection)
    }
}
