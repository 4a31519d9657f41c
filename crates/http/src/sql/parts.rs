//! The parts of an answer as a stream, which can be waited for together with
//! other things: what an answer is asked for is never given up half-way.

use aquifer_query::wire::Refusal;
use aquifer_query::{Answer, Part};
use futures::StreamExt as _;
use futures::stream::BoxStream;

/// The parts of an answer; an error is the last of them. Dropping it cancels
/// the statement.
pub(crate) type Parts = BoxStream<'static, Result<Part, Refusal>>;

pub(crate) fn of(answer: Answer) -> Parts {
    futures::stream::unfold(Some(answer), |answer| async {
        let mut answer = answer?;
        match answer.next().await {
            Ok(Some(part)) => Some((Ok(part), Some(answer))),
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal), None)),
        }
    })
    .boxed()
}
