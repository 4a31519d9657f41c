//! Rows that are made here, of what is there to be asked.

use std::fmt::Display;

use arrow_array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_schema::SchemaRef;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tonic::Status;

use crate::problem::Problem;

/// Messages of so many bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One batch.
pub(crate) fn one(batch: RecordBatch) -> BoxStream<'static, Result<FlightData, Status>> {
    many(batch.schema(), stream::iter([Ok(batch)]))
}

/// Batches of one schema.
pub(crate) fn many(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Problem>> + Send + 'static,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let batches = batches.map_err(|problem| FlightError::from(Status::from(problem)));
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_max_flight_data_size(MESSAGE_BYTES_MAX)
        .build(batches)
        .map_err(Status::from)
        .boxed()
}

/// What Arrow says of rows that cannot be made.
pub(crate) fn failed(error: &dyn Display) -> Problem {
    Problem::internal(format!("a description could not be written: {error}"))
}
