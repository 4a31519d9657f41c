//! The messages of an Arrow IPC stream, whatever pieces it comes in.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | `FF FF FF FF` |
//! | 4..8 | length of the metadata, little-endian; 0 ends the stream |
//! | … | metadata: a flatbuffer that names its kind and the length of its body |
//! | … | body |
//!
//! Rows are not looked at. What the engine writes is not believed: no length is
//! allocated for before it is checked.

use arrow_ipc::{MessageHeader, root_as_message};
use bytes::{Buf as _, Bytes, BytesMut};

use crate::problem::Problem;

const CONTINUATION: [u8; 4] = [0xff; 4];
const PREFIX_BYTES: usize = 8;
/// The metadata of one message: as much as a schema of 100,000 columns takes.
const METADATA_BYTES_MAX: usize = 32 << 20;

/// A message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) is_schema: bool,
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

/// Takes a stream apart.
#[derive(Debug)]
pub(crate) struct Framing {
    /// The longest body.
    body_bytes_max: usize,
    waiting: BytesMut,
    is_over: bool,
}

/// How long the first message that waits is.
enum Length {
    /// That is not known yet.
    Unknown,
    /// Metadata and body.
    Of { header: usize, body: usize, is_schema: bool },
    /// There is none: the stream ends.
    End,
}

impl Framing {
    pub(crate) fn new(body_bytes_max: usize) -> Self {
        Self { body_bytes_max, waiting: BytesMut::new(), is_over: false }
    }

    /// Takes a piece of the stream in.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next message; none where more has to come for it.
    ///
    /// # Errors
    /// What is no message, or is larger than any may be.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Problem> {
        match self.length()? {
            Length::Unknown => Ok(None),
            Length::End => {
                self.waiting.advance(PREFIX_BYTES);
                self.is_over = true;
                if self.waiting.is_empty() { Ok(None) } else { Err(broken("goes on at its end")) }
            }
            Length::Of { header, body, is_schema } => {
                if self.waiting.len() < PREFIX_BYTES + header + body {
                    return Ok(None);
                }
                self.waiting.advance(PREFIX_BYTES);
                let header = self.waiting.split_to(header).freeze();
                let body = self.waiting.split_to(body).freeze();
                Ok(Some(Message { is_schema, header, body }))
            }
        }
    }

    /// Whether the stream came to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    fn length(&self) -> Result<Length, Problem> {
        let (Some(mark), Some(length)) =
            (self.waiting.first_chunk::<4>(), self.waiting.get(4..PREFIX_BYTES))
        else {
            return Ok(Length::Unknown);
        };
        if self.is_over || *mark != CONTINUATION {
            return Err(broken("is not one"));
        }
        let length = length.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
        let header = usize::try_from(length).unwrap_or(usize::MAX);
        if header == 0 {
            return Ok(Length::End);
        }
        if header > METADATA_BYTES_MAX {
            return Err(broken("has a message of a length that none has"));
        }
        let Some(metadata) = self.waiting.get(PREFIX_BYTES..PREFIX_BYTES + header) else {
            return Ok(Length::Unknown);
        };
        let message = root_as_message(metadata).map_err(|_| broken("has what is no message"))?;
        let is_schema = message.header_type() == MessageHeader::Schema;
        let body = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        if body > self.body_bytes_max {
            let max = self.body_bytes_max;
            return Err(Problem::limit(format!(
                "a batch of the answer has more than {max} bytes (flight.batch_bytes_max): ask \
                 for less in one row, or take the answer over HTTP"
            )));
        }
        Ok(Length::Of { header, body, is_schema })
    }
}

fn broken(how: &str) -> Problem {
    tracing::error!(how, "an answer of the engine cannot be read");
    Problem::internal(format!("the engine's answer should be an Arrow stream, and {how}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, RecordBatch};
    use arrow_ipc::writer::StreamWriter;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    /// A stream of as many batches as are asked for.
    pub(crate) fn stream(batches: i64) -> Vec<u8> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        for batch in 0..batches {
            let column = Int64Array::from(vec![batch; 100]);
            let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap();
            writer.write(&batch).unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn messages(framing: &mut Framing) -> Result<Vec<Message>, Problem> {
        std::iter::from_fn(|| framing.next().transpose()).collect()
    }

    #[test]
    fn messages_are_the_same_whatever_the_pieces() {
        let stream = stream(3);
        let all = |size: usize| {
            let mut framing = Framing::new(1 << 20);
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                framing.feed(piece);
                found.extend(messages(&mut framing).unwrap());
            }
            assert!(framing.is_over(), "pieces of {size}");
            found
        };
        let whole = all(stream.len());
        let shapes: Vec<_> = whole.iter().map(|of| (of.is_schema, of.body.len())).collect();
        assert_eq!(shapes.len(), 4);
        assert_eq!(shapes[0], (true, 0));
        assert!(shapes[1..].iter().all(|(is_schema, body)| !is_schema && *body >= 800));
        for size in [1, 7, 64, 1000] {
            assert_eq!(all(size), whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_stream_is_a_problem() {
        let stream = stream(1);
        let check = |bytes: &[u8], max: usize, expected: tonic::Code| {
            let mut framing = Framing::new(max);
            framing.feed(bytes);
            let found = messages(&mut framing).map(|found| found.len());
            assert_eq!(found.map_err(|problem| problem.code), Err(expected));
        };
        check(b"PAR1PAR1", 1 << 20, tonic::Code::Internal);
        check(b"\xff\xff\xff\xff\xff\xff\xff\x7f", 1 << 20, tonic::Code::Internal);
        check(&[stream.clone(), stream.clone()].concat(), 1 << 20, tonic::Code::Internal);
        check(&stream, 100, tonic::Code::ResourceExhausted);
        let mut framing = Framing::new(1 << 20);
        framing.feed(&stream[..stream.len() - 8]);
        assert_eq!(messages(&mut framing).unwrap().len(), 2);
        assert!(!framing.is_over());
    }

    #[test]
    fn fuzz_flight_framing() {
        aquifer_testkit::fuzz("flight_framing", 0.2, &[stream(0), stream(2)], |bytes| {
            let mut framing = Framing::new(1 << 16);
            framing.feed(bytes);
            let _ = messages(&mut framing);
        });
    }
}
