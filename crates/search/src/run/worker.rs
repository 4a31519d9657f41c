//! Reads a unit and hands its rows to whoever counts or collects them.

use std::sync::Arc;

use aquifer_types::Timestamp;

use super::Failure;
use super::source::{PartitionRows, RowSet, Source};
use super::unit::{Place, Shared, Unit};
use crate::query::Span;

/// Takes rows.
pub(crate) trait Visitor {
    /// Rows, of which those with offsets in `counted` count.
    fn rows<R: RowSet>(&mut self, rows: &R, counted: Span);
}

/// Reads a unit.
pub(crate) async fn visit<S: Source, V: Visitor>(
    shared: &Arc<Shared<S>>,
    unit: &Unit,
    visitor: &mut V,
) -> Result<(), Failure> {
    match &unit.place {
        Place::Rows(number, rows) => {
            let reader = shared.source.chunk(*number).await?;
            for rows in reader.rows(rows.clone()).await? {
                visitor.rows(&PartitionRows { partition: unit.partition, rows }, unit.offsets);
                // Others get their turn, and who gave up is noticed.
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        Place::Run(number, from) => {
            let mut from = *from;
            // What was one run when it was opened may come in several.
            while from.0 <= unit.offsets.last {
                let block = shared.source.tail(*number, from).await?;
                if block.next <= from {
                    return Err(Failure::Lost);
                }
                let counted = Span { first: from.0, last: block.next.0.saturating_sub(1) };
                visitor.rows(&block.rows, counted.intersect(unit.offsets));
                tokio::task::yield_now().await;
                from = block.next;
            }
            Ok(())
        }
        Place::Chunk(_) | Place::Tail(_) => Err(Failure::Lost),
    }
}

/// Offsets and times of a unit of a chunk, without a look at anything else;
/// nothing where that is no use.
pub(crate) async fn times<S: Source>(
    shared: &Arc<Shared<S>>,
    unit: &Unit,
) -> Result<Option<Vec<(i64, Timestamp)>>, Failure> {
    let Place::Rows(number, rows) = &unit.place else { return Ok(None) };
    let reader = shared.source.chunk(*number).await?;
    let mut times = reader.times_of(rows.clone()).await?;
    times.retain(|(offset, _)| unit.offsets.contains(*offset));
    Ok(Some(times))
}
