//! The read path: the one way to the bytes.
//!
//! A [`View`] is one cut over any number of partitions: all of a commit or
//! nothing of it, for as long as the view lives. A [`Cursor`] walks a partition
//! of it, through chunks below the tiered offset and through the journal above
//! it, and sees every record once although tiering moves that offset meanwhile:
//! wherever it stands, it asks anew what covers its position.

mod cursor;
mod hot;
mod lease;
mod object;
mod reader;
mod view;

pub use cursor::Cursor;
pub use hot::HotRead;
pub(crate) use lease::{Lease, Leases};
pub(crate) use object::{ChunkCache, from_chunk};
pub(crate) use reader::Reader;
pub use view::{Cut, View};
