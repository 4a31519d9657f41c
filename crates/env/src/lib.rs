//! The seams to the outside of Aquifer: disk, clock, randomness, tasks and the
//! object store.
//!
//! Every component takes these as traits, so that a test can stop the machine
//! between any two operations, let time stand still, and repeat a run from its
//! seed. There are real implementations and, behind the feature `faulty` (for
//! dev-dependencies alone), ones that fail as real machines do. This crate
//! holds no policy: it retries nothing, decides nothing and knows no format.
//!
//! | seam | real | for tests |
//! |---|---|---|
//! | [`Disk`], [`DiskFile`] | [`RealDisk`] | `FaultyDisk` |
//! | [`Clock`] | [`RealClock`] | [`MockClock`] |
//! | [`Random`] | [`RealRandom`] | [`SeededRandom`] |
//! | [`TierStore`] | [`open_store`] | [`TierStore::in_memory`], `FaultyStore` |
//! | [`source::SourceStore`] | the same, over directories and web servers of a test | |
//! | threads | [`tasks`] | the same |
//!
//! [`DirectoryLock`] keeps a second process out of a data directory.

#![allow(
    clippy::disallowed_methods,
    reason = "this crate is what the bans in clippy.toml point to"
)]

mod clock;
mod directory_lock;
mod disk;
#[cfg(feature = "faulty")]
mod faulty_disk;
mod private_directory;
pub mod process;
mod random;
mod real_disk;
mod scratch;
mod socket;
pub mod source;
pub mod store;
pub mod tasks;

pub use clock::{Clock, MockClock, RealClock};
pub use directory_lock::{DirectoryLock, DirectoryLockError};
pub use disk::{Disk, DiskFile};
#[cfg(feature = "faulty")]
pub use faulty_disk::{CrashChoice, FaultyDisk};
pub use private_directory::{PrivateSocket, create_private_directory, empty_private_directory};
pub use random::{Random, RealRandom, SeededRandom, uuid_v4};
pub use real_disk::RealDisk;
pub use scratch::{ScratchDirectory, ScratchFile, ScratchReader, ScratchWriter};
pub use socket::prepare_connection;
#[cfg(feature = "faulty")]
pub use store::{Fault, FaultRates, FaultyStore};
pub use store::{
    StoreEntry, StoreError, StoreErrorKind, TierStore, file_path, file_url, open_shared_store,
    open_store, open_store_to_read,
};
