//! `Produce`: batches in, as their producers built them.
//!
//! Each partition of a request answers for itself. All of a request's batches
//! go to the ledger in one submission, and requests of one connection in the
//! order of their arrival: nothing is awaited before the connection's turn, and
//! whoever has the turn keeps it until its batches stand in the queue. To check
//! them takes as long as to decompress them: others get their turn in between.
//! The answer comes when they are durable, whatever `acks` says.

use aquifer_stream::{EachAppend, EachAppended, Error, PartitionHandle, StreamHandle};
use aquifer_types::batch::{BatchError, BatchHeader, BatchLimits, BatchRules};
use aquifer_types::{
    Batch, Compression, PartitionIndex, ProducerId, StreamConfig, Timestamp, TimestampType,
    TransactionalId,
};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::{Answer, Call, IntoAnswer};
use crate::error_code::error_code;
use crate::frame::FrameError;
use crate::quotas::Quota;
use crate::topic::stream;

/// The lowest version that is told of, though the lowest that is answered is 3:
/// librdkafka compresses only where 0 is among the versions.
pub(crate) const ADVERTISED_MIN: i16 = 0;

/// After so many decompressed bytes of one connection, others get their turn.
const STRETCH_BYTES: usize = 1 << 20;
/// Clients below it do not know zstd (KIP-110).
const ZSTD_MIN: i16 = 7;
/// Messages and single records are named from this version on (KIP-467).
const MESSAGES_MIN: i16 = 8;
/// Clients below it do not know what an abort mends (KIP-890).
const ABORTABLE_MIN: i16 = 11;

/// An answer that a client may not have asked for.
pub(crate) struct Produced {
    response: ProduceResponse,
    is_asked_for: bool,
    has_failed: bool,
}

impl IntoAnswer for Produced {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError> {
        match (self.is_asked_for, self.has_failed) {
            (true, _) => self.response.into_answer(call),
            (false, false) => Ok(Answer::Nothing),
            // The only way to tell a client that listens to no answer.
            (false, true) => Ok(Answer::Close),
        }
    }
}

/// Why a partition's batch was refused.
#[derive(Debug)]
struct Refusal {
    code: ResponseError,
    message: Option<String>,
    /// The records that are to blame.
    records: Vec<u32>,
}

impl From<ResponseError> for Refusal {
    fn from(code: ResponseError) -> Self {
        Self { code, message: None, records: Vec::new() }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        let message = Some(error.to_string());
        let (code, records) = match error {
            BatchError::Length { .. } | BatchError::Checksum { .. } => {
                (ResponseError::CorruptMessage, Vec::new())
            }
            BatchError::Field { field: "compression", .. } => {
                (ResponseError::UnsupportedCompressionType, Vec::new())
            }
            BatchError::TooLarge { .. } => (ResponseError::MessageTooLarge, Vec::new()),
            BatchError::RecordTooLarge { index, .. } => {
                (ResponseError::MessageTooLarge, vec![index])
            }
            BatchError::TimestampType => (ResponseError::InvalidTimestamp, Vec::new()),
            BatchError::Record { index, .. } => (ResponseError::InvalidRecord, vec![index]),
            BatchError::KeyMissing { indexes } => (ResponseError::InvalidRecord, indexes),
            BatchError::Magic(_) | BatchError::Field { .. } | BatchError::Decompression { .. } => {
                (ResponseError::InvalidRecord, Vec::new())
            }
        };
        Self { code, message, records }
    }
}

impl Refusal {
    fn of(error: &Error, version: i16) -> Self {
        let code = match error {
            Error::InvalidTransactionState(_) if version >= ABORTABLE_MIN => {
                ResponseError::TransactionAbortable
            }
            // The stream was deleted between the lookup and the decision.
            Error::Overtaken(_) => ResponseError::UnknownTopicOrPartition,
            error => error_code(error),
        };
        Self { code, message: Some(error.to_string()), records: Vec::new() }
    }
}

/// One partition of the request.
struct Slot {
    index: i32,
    /// Where it stands among the appends, or why it is not there.
    append: Result<usize, Refusal>,
}

/// What of a request is to be appended.
#[derive(Default)]
struct Plan {
    topics: Vec<(TopicProduceResponse, Vec<Slot>)>,
    appends: Vec<EachAppend>,
    /// The time that each append's records bear, where that is the server's.
    append_times: Vec<Option<Timestamp>>,
}

pub(crate) async fn handle(call: &Call, request: ProduceRequest) -> Produced {
    let is_asked_for = request.acks != 0;
    let turn = call.session.producing.lock().await;
    let Plan { topics, appends, append_times } = plan(call, request).await;
    let handles: Vec<PartitionHandle> = appends.iter().map(|of| of.partition.clone()).collect();
    let answers = if appends.is_empty() {
        drop(turn);
        Vec::new()
    } else {
        let submitted = call.store().submit_each(appends).await;
        drop(turn);
        submitted.answers().await
    };
    let mut has_failed = false;
    let throttle_ms = call.throttle(Quota::ProducerByteRate, call.request_bytes);
    let mut response = ProduceResponse::default().with_throttle_time_ms(throttle_ms);
    for (mut topic, slots) in topics {
        for Slot { index, append } in slots {
            let answer = append.and_then(|at| {
                let answer = answers.get(at).ok_or(ResponseError::UnknownServerError)?;
                let appended = answer.as_ref().map_err(|error| Refusal::of(error, call.version))?;
                Ok((appended, handles.get(at), append_times.get(at).copied().flatten()))
            });
            has_failed |= answer.is_err();
            let partition = PartitionProduceResponse::default().with_index(index);
            topic.partition_responses.push(match answer {
                Ok((appended, handle, time)) => accepted(partition, appended, handle, time),
                Err(refusal) => refused(partition, refusal, call.version),
            });
        }
        response.responses.push(topic);
    }
    Produced { response, is_asked_for, has_failed }
}

fn accepted(
    partition: PartitionProduceResponse,
    appended: &EachAppended,
    handle: Option<&PartitionHandle>,
    append_time: Option<Timestamp>,
) -> PartitionProduceResponse {
    partition
        .with_base_offset(appended.appended.base_offset.get())
        .with_log_append_time_ms(append_time.map_or(-1, Timestamp::get))
        .with_log_start_offset(handle.map_or(-1, |handle| handle.offsets().start.get()))
}

fn refused(
    partition: PartitionProduceResponse,
    refusal: Refusal,
    version: i16,
) -> PartitionProduceResponse {
    let Refusal { code, message, records } = refusal;
    let partition = partition.with_error_code(code.code()).with_base_offset(-1);
    let partition = partition.with_log_append_time_ms(-1).with_log_start_offset(-1);
    if version < MESSAGES_MIN {
        return partition;
    }
    let message = message.map(StrBytes::from_string);
    // The message is about the first; one for each would make an answer that is
    // many times the size of what was sent.
    let mut messages = std::iter::once(message.clone()).chain(std::iter::repeat(None));
    let records = records.into_iter().map(|index| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_batch_index_error_message(messages.next().flatten())
    });
    let records = records.collect();
    partition.with_record_errors(records).with_error_message(message)
}

/// What the batches of one request take when they are decompressed.
#[derive(Debug)]
struct Work {
    left: usize,
    /// Of this connection alone, since others had their turn.
    at_a_stretch: usize,
}

impl Work {
    /// A few KiB may become many MiB.
    fn note(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.at_a_stretch += bytes;
    }

    async fn pause_if_due(&mut self) {
        if self.at_a_stretch >= STRETCH_BYTES {
            self.at_a_stretch = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Checks everything that can be known without the ledger, in the connection's
/// turn: requests of one connection pass through here in their order.
async fn plan(call: &Call, request: ProduceRequest) -> Plan {
    let mut plan = Plan::default();
    let left = call.broker.options.produce_decompressed_bytes_max;
    let mut work = Work { left, at_a_stretch: 0 };
    let refusal = refusal_of_all(call, &request);
    let writer = writer(call, &request);
    for data in request.topic_data {
        let topic = TopicProduceResponse::default()
            .with_name(data.name.clone())
            .with_topic_id(data.topic_id);
        let found = match refusal {
            Some(code) => Err(code),
            None => allowed_stream(call, &data),
        };
        let mut slots = Vec::with_capacity(data.partition_data.len());
        let config = found.as_ref().ok().map(StreamHandle::config);
        for partition in data.partition_data {
            work.pause_if_due().await;
            let checked = match (&found, &config) {
                (Ok(stream), Some(config)) => {
                    check(call, (stream, &**config), partition.index, partition.records, &mut work)
                        .and_then(|checked| allowed_writer(checked, writer))
                }
                (Err(code), _) => Err(Refusal::from(*code)),
                _ => Err(ResponseError::UnknownServerError.into()),
            };
            let append = checked.map(|(append, time)| {
                plan.appends.push(append);
                plan.append_times.push(time);
                plan.appends.len() - 1
            });
            slots.push(Slot { index: partition.index, append });
        }
        plan.topics.push((topic, slots));
    }
    plan
}

/// What refuses a whole request.
fn refusal_of_all(call: &Call, request: &ProduceRequest) -> Option<ResponseError> {
    if !matches!(request.acks, -1..=1) {
        return Some(ResponseError::InvalidRequiredAcks);
    }
    let id = request.transactional_id.as_ref()?;
    let is_allowed = call.allows(Action::Write, Resource::TransactionalId(id));
    (!is_allowed).then_some(ResponseError::TransactionalIdAuthorizationFailed)
}

/// The producer that the transactional id has now, if the request names one.
fn writer(call: &Call, request: &ProduceRequest) -> Result<ProducerId, ResponseError> {
    let id = request.transactional_id.as_ref();
    let id = id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
    let id = TransactionalId::new(id.as_str()).map_err(|_| ResponseError::InvalidRequest)?;
    let producer = call.store().transactional_producer(&call.principal.tenant, &id);
    producer.ok_or(ResponseError::InvalidProducerIdMapping)
}

/// A transactional batch is of the producer of the id that the request names:
/// the right to write is a right to that id.
fn allowed_writer<T>(
    checked: (EachAppend, T),
    writer: Result<ProducerId, ResponseError>,
) -> Result<(EachAppend, T), Refusal> {
    let header = checked.0.batch.header();
    if header.is_transactional && Some(writer?) != header.producer_id {
        return Err(ResponseError::InvalidProducerIdMapping.into());
    }
    Ok(checked)
}

fn allowed_stream(call: &Call, data: &TopicProduceData) -> Result<StreamHandle, ResponseError> {
    let stream = stream(call, &data.name, data.topic_id)?;
    let name = stream.path().name.as_str();
    if !call.allows(Action::Write, Resource::Stream(name)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    Ok(stream)
}

fn check(
    call: &Call,
    (stream, config): (&StreamHandle, &StreamConfig),
    index: i32,
    records: Option<Bytes>,
    work: &mut Work,
) -> Result<(EachAppend, Option<Timestamp>), Refusal> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let index = u32::try_from(index).map_err(|_| unknown)?;
    let partition = stream.partition(PartitionIndex(index)).map_err(|_| unknown)?;
    let records = records.unwrap_or_default();
    let invalid = |why: &str| Refusal {
        code: ResponseError::InvalidRecord,
        message: Some(why.to_owned()),
        records: Vec::new(),
    };
    if records.is_empty() {
        return Err(invalid("a partition of a request has one batch, this one has none"));
    }
    if BatchHeader::peek_total_bytes(&records)? < records.len() {
        return Err(invalid("a partition of a request has one batch, this one has more"));
    }
    let decompressed_bytes_max = call.store().options().batch_decompressed_bytes_max;
    let limits = BatchLimits {
        decompressed_bytes_max: decompressed_bytes_max.min(work.left),
        record_bytes_max: usize::try_from(config.record_bytes_max).unwrap_or(usize::MAX),
    };
    let append_time = match config.timestamp_type {
        TimestampType::Create => None,
        TimestampType::Append => Some(Timestamp(call.broker.clock.now_ms())),
    };
    let rules = BatchRules { append_time, needs_keys: config.cleanup_policy.compacts() };
    let mut bytes = 0;
    let accepted = Batch::accept_measured(records, limits, rules, &mut bytes);
    work.note(bytes);
    let batch = match accepted {
        Err(BatchError::TooLarge { limit }) if limit < decompressed_bytes_max => {
            return Err(too_much(call));
        }
        accepted => accepted?,
    };
    let header = batch.header();
    if header.is_control {
        return Err(invalid("only the server writes markers"));
    }
    if header.compression == Compression::Zstd && call.version < ZSTD_MIN {
        return Err(ResponseError::UnsupportedCompressionType.into());
    }
    Ok((EachAppend { partition, batch }, append_time))
}

/// The batches before this one have taken what one request may take.
fn too_much(call: &Call) -> Refusal {
    let limit = call.broker.options.produce_decompressed_bytes_max;
    let message = format!(
        "the batches of the request are larger than {limit} bytes together when decompressed \
         (produce_decompressed_bytes_max)"
    );
    Refusal { code: ResponseError::MessageTooLarge, message: Some(message), records: Vec::new() }
}
