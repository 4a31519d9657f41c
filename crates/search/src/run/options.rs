//! How much a search may do at once.

use std::time::Duration;

/// The limits of one search.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// So many parts are opened beside each other: small reads, where waiting
    /// is what takes time.
    pub opens_max: usize,
    /// So many units are read and matched beside each other. Each holds about
    /// twice `unit_bytes`.
    pub reads_max: usize,
    /// About how many bytes of records are decoded together where no index
    /// says more.
    pub unit_bytes: usize,
    /// The most bytes of hits that are held.
    pub hits_bytes_max: u64,
    /// The most different values that are counted of a field; beyond them the
    /// rarest are forgotten and the counts become estimates.
    pub top_values_max: usize,
    /// Longer values of a field are not counted among its most frequent.
    pub top_value_bytes_max: usize,
    /// The most bytes of counted values that a histogram holds, over all fields
    /// and reads; beyond them the rarest are forgotten, too.
    pub top_bytes_max: u64,
    /// How often a histogram that is not exact yet is told.
    pub progress_interval: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            opens_max: 16,
            reads_max: 4,
            unit_bytes: 4 << 20,
            hits_bytes_max: 64 << 20,
            top_values_max: 65_536,
            top_value_bytes_max: 256,
            top_bytes_max: 256 << 20,
            progress_interval: Duration::from_millis(250),
        }
    }
}
