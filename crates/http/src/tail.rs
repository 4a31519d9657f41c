//! `GET /v1/streams/{stream}/tail`: records as they come, as server-sent
//! events (WHATWG HTML, 9.2).
//!
//! A tail is a position in each partition that it follows and reads from the
//! store at its client's pace: nothing is queued for a slow client. Each
//! event's id is the stream cut behind its record, so that `Last-Event-ID`
//! goes on with exactly the next one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::tasks;
use aquifer_stream::{Block, Form, Isolation, Position, ReadAnswer, ReadRequest};
use aquifer_types::{Compression, ErrorKind, Offset, PartitionIndex, StreamId, StreamPath};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::app::{App, StreamAt};
use crate::metrics::GaugeGuard;
use crate::parameters::Parameters;
use crate::rendered::Rendered;
use crate::{Problem, read, render, time};

/// What one partition gives at a time.
const READ_BYTES_MAX: usize = 128 << 10;
/// A piece of the answer has about so many bytes at most, or one record: a batch
/// of a few KiB can hold millions. What is behind it comes with the next piece.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// A read of one partition waits this long before it is renewed.
const READ_WAIT: Duration = Duration::from_secs(60);
/// After an error that may pass, the client connects again this much later.
const RETRY_MS: u32 = 1000;

/// A position in a stream.
pub(crate) type Cut = BTreeMap<PartitionIndex, Offset>;

pub(crate) async fn tail(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(request.uri().query(), &["partition", "from"])?;
    let shape = app.store.stream_shape(&path)?;
    let partitions = shape.partitions;
    let followed = match parameters.text("partition")? {
        Some(list) => Some(partition_list(list, partitions)?),
        None => None,
    };
    let count = followed.as_ref().map_or(partitions as usize, Vec::len);
    let limit = app.options.tail_partitions_max;
    if count > limit {
        return Err(Problem::new(
            ErrorKind::TooLarge,
            format!("a tail follows at most {limit} partitions (tail_partitions_max), not {count}"),
        )
        .member("limit", limit)
        .next("Follow some of them: partition=0,1,2."));
    }
    let from = match request.headers().get("last-event-id") {
        Some(id) => From::Cut(cut(id.to_str().unwrap_or("?")).ok_or_else(|| {
            Problem::invalid("the header Last-Event-ID is not the id of an event of a tail")
        })?),
        None => from(parameters.text("from")?.unwrap_or("latest"))?,
    };
    let permit = app.tails.clone().try_acquire_owned().map_err(|_| {
        let limit = app.options.tail_clients_max;
        Problem::new(ErrorKind::Throttled, format!("{limit} tails are open (tail_clients_max)"))
            .member("limit", limit)
    })?;
    let every: Vec<_> = (0..partitions).map(PartitionIndex).collect();
    let mut positions = Cut::new();
    for partition in followed.as_ref().unwrap_or(&every) {
        let position = match &from {
            From::Position(position) => *position,
            // What the cut does not name was not there yet.
            From::Cut(cut) => {
                cut.get(partition).copied().map_or(Position::Earliest, Position::Offset)
            }
        };
        let offset = match position {
            Position::Offset(offset) => offset,
            other => app.store.resolve_position(&path, *partition, other).await?,
        };
        positions.insert(*partition, offset);
    }
    let tail = Tail::new(app, path, shape.id, positions, followed.is_none(), permit);
    let body = futures::stream::unfold(tail, |mut tail| async {
        let piece = tail.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), tail))
    });
    let mut response = (StatusCode::OK, Body::from_stream(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies such as nginx would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Where a tail begins.
pub(crate) enum From {
    Position(Position),
    Cut(Cut),
}

pub(crate) fn from(text: &str) -> Result<From, Problem> {
    if let Some(cut) = cut(text) {
        return Ok(From::Cut(cut));
    }
    if let Ok(position) = read::offset(text) {
        return Ok(From::Position(position));
    }
    match time::parse(text) {
        Some(time) => Ok(From::Position(Position::Time(time))),
        None => Err(Problem::invalid(
            "the parameter 'from' should be earliest, latest, an offset, a time such as \
             2026-03-01T12:00:00Z, or a stream cut such as 0:15,1:7",
        )
        .member("parameter", "from")),
    }
}

/// Reads `0:15,1:7`.
fn cut(text: &str) -> Option<Cut> {
    let mut cut = Cut::new();
    for part in text.split(',') {
        let (partition, offset) = part.split_once(':')?;
        let offset: i64 = offset.parse().ok().filter(|offset| *offset >= 0)?;
        cut.insert(PartitionIndex(partition.parse().ok()?), Offset(offset));
    }
    Some(cut)
}

/// Reads `0,3,7`.
pub(crate) fn partition_list(text: &str, partitions: u32) -> Result<Vec<PartitionIndex>, Problem> {
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.parse() {
            Ok(number) if number < partitions => list.push(PartitionIndex(number)),
            _ => {
                let part: String = part.chars().take(80).collect();
                return Err(Problem::invalid(format!(
                    "'{part}' is not the number of a partition; the stream has {partitions} \
                     (from 0)"
                ))
                .member("parameter", "partition"));
            }
        }
    }
    list.sort();
    list.dedup();
    Ok(list)
}

type Reading = BoxFuture<'static, (PartitionIndex, Result<ReadAnswer, aquifer_stream::Error>)>;

struct Tail {
    app: App,
    path: StreamPath,
    stream: StreamId,
    positions: Cut,
    /// Partitions that are added later are followed too.
    follows_all: bool,
    reads: FuturesUnordered<Reading>,
    keep_alive: tokio::time::Interval,
    stopping: watch::Receiver<bool>,
    has_begun: bool,
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
    _gauge: GaugeGuard,
}

enum Event {
    Read(PartitionIndex, Result<ReadAnswer, aquifer_stream::Error>),
    KeepAlive,
    Stop,
}

impl Tail {
    fn new(
        app: App,
        path: StreamPath,
        stream: StreamId,
        positions: Cut,
        follows_all: bool,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let period = Duration::from_millis(app.options.tail_keep_alive_ms);
        let mut keep_alive = tokio::time::interval(period);
        keep_alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        keep_alive.reset();
        let tail = Self {
            _gauge: GaugeGuard::new(&app.metrics.tails, 1),
            stopping: app.stopping.clone(),
            app,
            path,
            stream,
            positions,
            follows_all,
            reads: FuturesUnordered::new(),
            keep_alive,
            has_begun: false,
            has_ended: false,
            _permit: permit,
        };
        let partitions: Vec<_> = tail.positions.keys().copied().collect();
        for partition in partitions {
            tail.start_read(partition);
        }
        tail
    }

    /// The next piece of the answer; none when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            // Tells the client, and proxies, that it is connected, and where.
            self.has_begun = true;
            return Some(Bytes::from(format!("retry: {RETRY_MS}\nid: {}\n\n", self.id())));
        }
        while !self.has_ended {
            let event = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => Event::Stop,
                Some((partition, result)) = self.reads.next() => Event::Read(partition, result),
                _ = self.keep_alive.tick() => Event::KeepAlive,
            };
            let mut out = Vec::new();
            match event {
                Event::Stop => return None,
                Event::KeepAlive => {
                    self.add_partitions();
                    out.extend_from_slice(b": still here\n\n");
                }
                Event::Read(partition, Ok(answer)) => {
                    let rendered = self.render(partition, &answer, &mut out).await;
                    match rendered {
                        Ok(()) => {
                            self.start_read(partition);
                            // A busy tail is never idle enough for the other time.
                            self.add_partitions();
                        }
                        Err(problem) => self.end(&problem, &mut out),
                    }
                }
                Event::Read(partition, Err(error)) => match error.earliest() {
                    // Retention has overtaken this reader.
                    Some(earliest) if self.positions.get(&partition) < Some(&earliest) => {
                        self.gap(partition, earliest, &mut out);
                        self.start_read(partition);
                    }
                    _ => self.end(&Problem::from(error), &mut out),
                },
            }
            if !out.is_empty() {
                self.keep_alive.reset();
                self.app.metrics.bytes_out.inc_by(out.len() as u64);
                return Some(Bytes::from(out));
            }
        }
        None
    }

    fn start_read(&self, partition: PartitionIndex) {
        let Some(offset) = self.positions.get(&partition) else { return };
        let request = ReadRequest {
            path: self.path.clone(),
            partition,
            from: Position::Offset(*offset),
            bytes_max: READ_BYTES_MAX,
            wait: READ_WAIT,
            isolation: Isolation::Committed,
            form: Form::Records,
        };
        let store = self.app.store.clone();
        self.reads.push(Box::pin(async move { (partition, store.read(request).await) }));
    }

    fn add_partitions(&mut self) {
        if !self.follows_all {
            return;
        }
        // A stream that is gone ends the tail through its reads.
        let Ok(shape) = self.app.store.stream_shape(&self.path) else { return };
        let limit = u32::try_from(self.app.options.tail_partitions_max).unwrap_or(u32::MAX);
        let partitions = shape.partitions.min(limit);
        if partitions as usize == self.positions.len() {
            return;
        }
        for partition in (0..partitions).map(PartitionIndex) {
            if let Entry::Vacant(new) = self.positions.entry(partition) {
                new.insert(Offset::ZERO);
                self.start_read(partition);
            }
        }
    }

    /// The stream cut of all positions.
    fn id(&self) -> String {
        id(self.positions.iter())
    }

    /// Renders an answer, or as much of it as a piece takes.
    async fn render(
        &mut self,
        partition: PartitionIndex,
        answer: &ReadAnswer,
        out: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        // Only one position of the id changes from record to record.
        let mut before = id(self.positions.range(..partition));
        if !before.is_empty() {
            before.push(',');
        }
        let above = (std::ops::Bound::Excluded(partition), std::ops::Bound::Unbounded);
        let mut after = id(self.positions.range(above));
        if !after.is_empty() {
            after.insert(0, ',');
        }
        let mut next = answer.next_offset;
        'blocks: for block in &answer.blocks {
            let rendered = self.rendered(partition, block, answer.from).await?;
            for (offset, json) in rendered.records_from(answer.from) {
                if out.len() >= PIECE_BYTES_MAX {
                    next = offset;
                    break 'blocks;
                }
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(before.as_bytes());
                render::number(out, partition.get().into());
                out.push(b':');
                render::number(out, offset.plus(1).get());
                out.extend_from_slice(after.as_bytes());
                // A record's JSON has no line ends, so one line of data is enough.
                out.extend_from_slice(b"\nevent: record\ndata: ");
                out.extend_from_slice(json);
                out.extend_from_slice(b"\n\n");
            }
            if let Some(left) = rendered.left() {
                next = left;
                break;
            }
        }
        self.positions.insert(partition, next);
        Ok(())
    }

    /// A block's records from `from` on, or as many as a piece takes.
    async fn rendered(
        &mut self,
        partition: PartitionIndex,
        block: &Block,
        from: Offset,
    ) -> Result<Arc<Rendered>, aquifer_stream::Error> {
        let Block::Batch(batch) = block else {
            // Cold rows are cut anew for each reader.
            return Ok(Arc::new(Rendered::of_block(partition, block, from, PIECE_BYTES_MAX)?));
        };
        let key = (self.stream, partition, batch.header().base_offset);
        if let Some(rendered) = self.app.rendered.get(&key) {
            return Ok(rendered);
        }
        let block = block.clone();
        let render = move || {
            let whole = Rendered::of_block(partition, &block, Offset::ZERO, PIECE_BYTES_MAX)?;
            Ok::<_, aquifer_stream::Error>(match whole.left() {
                None => (whole, true),
                Some(left) if left > from => (whole, false),
                Some(_) => (Rendered::of_block(partition, &block, from, PIECE_BYTES_MAX)?, false),
            })
        };
        let is_compressed = batch.header().compression != Compression::None;
        // A few KiB may become many MiB.
        let (rendered, is_whole) =
            if is_compressed { tasks::run_blocking(render).await } else { render() }?;
        let rendered = Arc::new(rendered);
        if is_whole {
            self.app.rendered.insert(key, &rendered);
        }
        Ok(rendered)
    }

    fn gap(&mut self, partition: PartitionIndex, earliest: Offset, out: &mut Vec<u8>) {
        let from = self.positions.insert(partition, earliest).unwrap_or_default();
        let event = format!(
            "id: {}\nevent: gap\ndata: {{\"partition\":{partition},\"from\":{from},\
             \"to\":{earliest}}}\n\n",
            self.id()
        );
        out.extend_from_slice(event.as_bytes());
    }

    fn end(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        self.has_ended = true;
        out.extend_from_slice(b"event: problem\ndata: ");
        out.extend_from_slice(&problem.to_json());
        out.extend_from_slice(b"\n\n");
    }
}

fn id<'a>(positions: impl Iterator<Item = (&'a PartitionIndex, &'a Offset)>) -> String {
    let mut id = String::new();
    for (partition, offset) in positions {
        let comma = if id.is_empty() { "" } else { "," };
        // Writing into memory cannot fail.
        let _ = write!(id, "{comma}{partition}:{offset}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_its_own_id() {
        let given = Cut::from([
            (PartitionIndex(0), Offset(15)),
            (PartitionIndex(1), Offset(7)),
            (PartitionIndex(10), Offset(0)),
        ]);
        assert_eq!(id(given.iter()), "0:15,1:7,10:0");
        assert_eq!(cut("0:15,1:7,10:0"), Some(given));
        for bad in ["", "0", "0:", "0:-1", "a:1", "0:1,", "0:1;1:2"] {
            assert_eq!(cut(bad), None, "{bad}");
        }
    }

    #[test]
    fn partitions_are_listed_once_and_must_exist() {
        let list =
            |text| partition_list(text, 4).map(|l| l.iter().map(|p| p.0).collect::<Vec<_>>());
        assert_eq!(list("3,0,3"), Ok(vec![0, 3]));
        for bad in ["4", "", "0,", "a", "-1"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tail_begins_in_many_ways() {
        assert!(matches!(from("latest"), Ok(From::Position(Position::Latest))));
        assert!(matches!(from("12"), Ok(From::Position(Position::Offset(Offset(12))))));
        assert!(matches!(from("0:12"), Ok(From::Cut(_))));
        assert!(matches!(from("2026-01-01T00:00:00Z"), Ok(From::Position(Position::Time(_)))));
        assert!(from("noon").is_err());
    }
}
