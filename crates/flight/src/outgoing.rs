//! Rows on their way out: the messages of the engine's Arrow stream, one each
//! in Flight's envelope, as fast as the client takes them.
//!
//! Dropping the stream ends the question. An answer that fails half-way ends
//! with a status, so that it is never taken for a whole one.

use aquifer_query::{Answer, Part};
use arrow_flight::FlightData;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::Status;

use crate::framing::Framing;
use crate::metrics::{FlightMetrics, result};
use crate::problem::Problem;
use crate::runs::Run;
use crate::schema;
use crate::server::Door;

/// An answer of rows.
struct Outgoing {
    answer: Answer,
    run: Run,
    framing: Framing,
    /// The schema, until it was sent.
    first: Option<FlightData>,
    /// The engine has said that the answer is whole.
    is_whole: bool,
    outcome: Outcome,
}

/// Counts a statement when it is dropped.
struct Outcome {
    metrics: FlightMetrics,
    is_ok: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.metrics.statements.get_or_create(&result(self.is_ok)).inc();
    }
}

/// The messages of an answer that has begun.
///
/// # Errors
/// A schema that cannot be read.
pub(crate) fn messages(
    door: &Door,
    answer: Answer,
    run: Run,
) -> Result<BoxStream<'static, Result<FlightData, Status>>, Problem> {
    let outgoing = Outgoing {
        first: Some(schema::message(&schema::of_answer(&answer.schema)?)),
        answer,
        run,
        framing: Framing::new(door.options.batch_bytes_max),
        is_whole: false,
        outcome: Outcome { metrics: door.metrics.clone(), is_ok: false },
    };
    let messages = stream::try_unfold(outgoing, |mut outgoing| async move {
        let message = outgoing.next().await.map_err(Status::from)?;
        Ok(message.map(|message| (message, outgoing)))
    });
    Ok(messages.boxed())
}

impl Outgoing {
    async fn next(&mut self) -> Result<Option<FlightData>, Problem> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if let Some(message) = self.framing.next()? {
                // It was sent in the form in which clients are told of it.
                if message.is_schema {
                    continue;
                }
                let bytes = message.header.len() + message.body.len();
                self.outcome.metrics.bytes_out.inc_by(bytes as u64);
                return Ok(Some(FlightData {
                    data_header: message.header,
                    data_body: message.body,
                    ..FlightData::default()
                }));
            }
            if self.is_whole {
                if !self.framing.is_over() {
                    return Err(Problem::internal("the engine's answer has no end"));
                }
                self.outcome.is_ok = true;
                return Ok(None);
            }
            self.take_part().await?;
        }
    }

    async fn take_part(&mut self) -> Result<(), Problem> {
        let part = tokio::select! {
            biased;
            // In front of the rows, which may be there whenever they are looked at.
            () = self.run.cancelled() => return Err(Problem::cancelled()),
            part = self.answer.next() => part?,
        };
        match part {
            Some(Part::Data { rows, bytes }) => {
                self.outcome.metrics.rows.inc_by(rows);
                self.framing.feed(&bytes);
            }
            Some(Part::Progress(_)) => {}
            Some(Part::Done(_)) | None => self.is_whole = true,
        }
        Ok(())
    }
}
