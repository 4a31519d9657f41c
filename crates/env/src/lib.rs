//! To be written.
pub mod disk;
pub use disk::{Disk, DiskFile};
