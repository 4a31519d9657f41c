//! The answer to a fetch, encoded by hand: the records are not copied into it,
//! they go out from where they lie (Kafka protocol, "Fetch API").

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use tokio::sync::OwnedSemaphorePermit;

use super::wanted::TopicKey;
use crate::call::{Answer, Call, IntoAnswer};
use crate::frame::FrameError;

/// Lengths and strings are compact from this version on.
const FLEXIBLE_MIN: i16 = 12;
/// Records shorter than this are cheaper to copy than to send apart.
const COPIED_BYTES_MAX: usize = 2048;
/// More than the fields of one partition take.
const PARTITION_BYTES: usize = 80;

/// One partition of an answer.
#[derive(Debug)]
pub(crate) struct PartitionAnswer {
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
    pub(crate) error: Option<ResponseError>,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// Producer ids and first offsets of transactions that were aborted; absent
    /// where the client did not ask for committed records only.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches.
    pub(crate) records: Vec<Bytes>,
}

impl PartitionAnswer {
    pub(crate) fn failed(topic: TopicKey, index: i32, error: ResponseError) -> Self {
        Self {
            topic,
            index,
            error: Some(error),
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            records: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct FetchAnswer {
    pub(crate) error: Option<ResponseError>,
    /// How long the client is to pause.
    pub(crate) throttle_ms: i32,
    pub(crate) session_id: i32,
    /// Those of one topic side by side.
    pub(crate) partitions: Vec<PartitionAnswer>,
    /// Held until the answer is on the wire.
    pub(crate) budget: Option<OwnedSemaphorePermit>,
}

impl FetchAnswer {
    /// The answer to a request that cannot be looked at.
    pub(crate) const fn failed(error: ResponseError) -> Self {
        let (throttle_ms, session_id) = (0, 0);
        Self { error: Some(error), throttle_ms, session_id, partitions: Vec::new(), budget: None }
    }
}

impl IntoAnswer for FetchAnswer {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError> {
        let mut out = Writer::new(call.version, self.partitions.len());
        out.head.put_i32(0);
        out.head.put_i32(call.correlation);
        out.tags();
        out.head.put_i32(self.throttle_ms);
        if call.version >= 7 {
            out.head.put_i16(self.error.map_or(0, |error| error.code()));
            out.head.put_i32(self.session_id);
        }
        let topics: Vec<&[PartitionAnswer]> =
            self.partitions.chunk_by(|a, b| a.topic == b.topic).collect();
        out.length(topics.len());
        for partitions in topics {
            out.topic(partitions);
        }
        out.tags();
        let pieces = out.finish(self.budget).ok_or_else(|| FrameError::Encoding {
            api: call.api,
            version: call.version,
            why: "it has more than 2 GiB".to_owned(),
        })?;
        Ok(Answer::Frame(pieces))
    }
}

struct Writer {
    version: i16,
    pieces: Vec<Bytes>,
    /// What is not yet among the pieces.
    head: BytesMut,
}

impl Writer {
    fn new(version: i16, partitions: usize) -> Self {
        let head = BytesMut::with_capacity(64 + partitions * PARTITION_BYTES);
        Self { version, pieces: Vec::new(), head }
    }

    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_MIN
    }

    fn topic(&mut self, partitions: &[PartitionAnswer]) {
        match partitions.first().map(|first| &first.topic) {
            Some(TopicKey::Name(name)) if self.version < 13 => self.string(name),
            Some(TopicKey::Id(id)) if self.version >= 13 => self.head.put_slice(id.as_bytes()),
            // Versions are not mixed within a session.
            _ if self.version < 13 => self.string(""),
            _ => self.head.put_slice(&[0; 16]),
        }
        self.length(partitions.len());
        for partition in partitions {
            self.partition(partition);
        }
        self.tags();
    }

    fn partition(&mut self, partition: &PartitionAnswer) {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error.map_or(0, |error| error.code()));
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start);
        }
        match &partition.aborted {
            Some(aborted) => {
                self.length(aborted.len());
                for (producer, first) in aborted {
                    self.head.put_i64(*producer);
                    self.head.put_i64(*first);
                    self.tags();
                }
            }
            None if self.is_flexible() => self.head.put_u8(0),
            None => self.head.put_i32(-1),
        }
        if self.version >= 11 {
            self.head.put_i32(-1); // no replica is nearer
        }
        self.length(partition.bytes());
        for batch in &partition.records {
            self.records(batch);
        }
        self.tags();
    }

    fn records(&mut self, batch: &Bytes) {
        if batch.len() <= COPIED_BYTES_MAX {
            self.head.put_slice(batch);
            return;
        }
        let head = self.head.split().freeze();
        if !head.is_empty() {
            self.pieces.push(head);
        }
        self.pieces.push(batch.clone());
    }

    /// The length of a list or of bytes that are there.
    fn length(&mut self, length: usize) {
        if self.is_flexible() {
            varint(&mut self.head, length + 1);
        } else {
            // What is sent is far below: the answer's limit is checked.
            self.head.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        }
    }

    fn string(&mut self, text: &str) {
        if self.is_flexible() {
            varint(&mut self.head, text.len() + 1);
        } else {
            self.head.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.head.put_slice(text.as_bytes());
    }

    /// No tagged fields.
    fn tags(&mut self) {
        if self.is_flexible() {
            self.head.put_u8(0);
        }
    }

    /// Sets the frame's length, which is known last.
    fn finish(mut self, budget: Option<OwnedSemaphorePermit>) -> Option<Vec<Bytes>> {
        let length = self.pieces.iter().map(Bytes::len).sum::<usize>() + self.head.len();
        let length = i32::try_from(length - 4).ok()?.to_be_bytes();
        if let Some(first) = self.pieces.first_mut() {
            // A few bytes, shared with what follows them.
            let mut head = BytesMut::from(&first[..]);
            head[..4].copy_from_slice(&length);
            *first = head.freeze();
        } else {
            self.head[..4].copy_from_slice(&length);
        }
        let last = self.head.freeze();
        self.pieces.push(match budget {
            Some(budget) => Bytes::from_owner(Held(last, budget)),
            None => last,
        });
        Some(self.pieces)
    }
}

/// The end of an answer; it gives the budget back when it was sent.
struct Held(Bytes, #[expect(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
