//! `aquifer bench`: appends in closed loops or at a rate, as many writers would
//! send them, and tails that tell how far they are behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquifer_env::{Clock, Random as _, RealClock, SeededRandom};
use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;

use crate::cli::{BenchArguments, Output};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;
use crate::output;
use crate::read::Events;

/// Writers take turns among this many bodies, so that nothing compresses well.
const BODIES: usize = 16;
/// Tails that are further behind are counted as this far.
const BEHIND_MS_MAX: usize = 60_000;

/// What one writer saw.
#[derive(Default)]
struct Seen {
    nanos: Vec<u64>,
    refused: u64,
    first_refusal: Option<String>,
}

pub(crate) async fn run(arguments: BenchArguments) -> Result<(), Failure> {
    if arguments.writers == 0 || arguments.batch_records == 0 || arguments.record_bytes < 2 {
        return Err(Failure::failed(
            "there is at least 1 writer, 1 record in a request and 2 B in a record",
        ));
    }
    let client = Client::new(&arguments.server)?;
    create(&arguments, &client).await?;
    let clock = Arc::new(RealClock::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let bodies = Arc::new(bodies(&arguments));
    let path = format!("/v1/streams/{}/records", segment(&arguments.stream));
    let mut readers = Vec::new();
    for _ in 0..arguments.readers {
        readers.push(Reader::start(&arguments, &clock, &is_over).await?);
    }
    let begun = clock.monotonic_ns();
    let mut writers = Vec::new();
    for writer in 0..arguments.writers {
        // A connection of its own for each, as separate programs would have.
        let client = Client::new(&arguments.server)?;
        let (bodies, path) = (Arc::clone(&bodies), path.clone());
        let (clock, is_over) = (Arc::clone(&clock), Arc::clone(&is_over));
        let pause = pause(&arguments);
        writers.push(tokio::spawn(async move {
            write(&client, &path, &bodies, writer as usize, pause, &clock, &is_over).await
        }));
    }
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for writer in writers {
        let seen = writer.await.map_err(|error| Failure::failed(error.to_string()))??;
        all.nanos.extend(seen.nanos);
        all.refused += seen.refused;
        all.first_refusal = all.first_refusal.or(seen.first_refusal);
    }
    let seconds = (clock.monotonic_ns() - begun) as f64 / 1e9;
    let mut behind = Behind::default();
    for reader in readers {
        behind.add(&reader.await.map_err(|error| Failure::failed(error.to_string()))?);
    }
    report(&arguments, all, &behind, seconds)
}

/// The time between a writer's requests that gives the rate asked for.
fn pause(arguments: &BenchArguments) -> Option<Duration> {
    let rate = arguments.rate.filter(|rate| *rate > 0)?;
    let bytes = arguments.record_bytes * u64::from(arguments.batch_records);
    let seconds = bytes as f64 * f64::from(arguments.writers) / rate as f64;
    Some(Duration::from_secs_f64(seconds.clamp(1e-6, 3600.0)))
}

/// How far tails were behind the time of the append, in whole milliseconds.
struct Behind {
    /// Records for each number of ms; the last one stands for all above.
    millis: Vec<u64>,
    records: u64,
    bytes: u64,
}

impl Default for Behind {
    fn default() -> Self {
        Self { millis: vec![0; BEHIND_MS_MAX + 1], records: 0, bytes: 0 }
    }
}

impl Behind {
    fn note(&mut self, millis: i64) {
        let place = usize::try_from(millis.max(0)).unwrap_or(usize::MAX).min(BEHIND_MS_MAX);
        if let Some(count) = self.millis.get_mut(place) {
            *count += 1;
        }
        self.records += 1;
    }

    fn add(&mut self, other: &Self) {
        for (mine, others) in self.millis.iter_mut().zip(&other.millis) {
            *mine += others;
        }
        self.records += other.records;
        self.bytes += other.bytes;
    }

    /// The number of ms that `part` of all records were at most behind.
    fn at(&self, part: f64) -> usize {
        let wanted = (self.records as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (millis, count) in self.millis.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return millis;
            }
        }
        BEHIND_MS_MAX
    }
}

/// One live tail.
struct Reader;

impl Reader {
    /// Connects, so that nothing is written before it follows.
    async fn start(
        arguments: &BenchArguments,
        clock: &Arc<RealClock>,
        is_over: &Arc<AtomicBool>,
    ) -> Result<tokio::task::JoinHandle<Behind>, Failure> {
        let client = Client::new(&arguments.server)?;
        let path = format!("/v1/streams/{}/tail", segment(&arguments.stream));
        let answer = client.send(client.request(Method::GET, &path)).await?;
        let (clock, is_over) = (Arc::clone(clock), Arc::clone(is_over));
        Ok(tokio::spawn(async move {
            let mut behind = Behind::default();
            let mut events = Events::default();
            let mut pieces = answer.bytes_stream();
            while !is_over.load(Ordering::Relaxed) {
                // An idle tail is looked after now and then.
                let next = tokio::time::timeout(Duration::from_millis(200), pieces.next()).await;
                let Ok(Some(Ok(piece))) = next else {
                    if next.is_ok() {
                        break;
                    }
                    continue;
                };
                behind.bytes += piece.len() as u64;
                if events.push(&piece).is_err() {
                    break;
                }
                let now = clock.now_ms();
                while let Some(event) = events.next() {
                    if let Some(timestamp) = timestamp_of(&event.data) {
                        behind.note(now - timestamp);
                    }
                }
            }
            behind
        }))
    }
}

/// The timestamp near the beginning of a record's JSON.
fn timestamp_of(record: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\"timestamp\":";
    let at = memchr::memmem::find(record.get(..100).unwrap_or(record), NAME)? + NAME.len();
    let digits = record.get(at..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

async fn create(arguments: &BenchArguments, client: &Client) -> Result<(), Failure> {
    let body = json!({
        "name": arguments.stream, "partitions": arguments.partitions, "class": arguments.class,
    });
    match client.json(client.request(Method::POST, "/v1/streams").json(&body)).await {
        Ok(_) => Ok(()),
        Err(RequestError::Refused(status, problem, _))
            if status == 409 && problem.kind.ends_with("already-exists") =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Requests whose records are JSON strings of random hexadecimal digits.
fn bodies(arguments: &BenchArguments) -> Vec<Bytes> {
    let random = SeededRandom::new(1);
    let record_bytes = usize::try_from(arguments.record_bytes).unwrap_or(usize::MAX);
    let mut bodies = Vec::with_capacity(BODIES);
    for _ in 0..BODIES {
        let mut body = Vec::new();
        for _ in 0..arguments.batch_records {
            body.push(b'"');
            let mut left = record_bytes.saturating_sub(2);
            while left > 0 {
                let digits = format!("{:016x}", random.next_u64());
                let taken = digits.len().min(left);
                body.extend_from_slice(digits.get(..taken).unwrap_or_default().as_bytes());
                left -= taken;
            }
            body.extend_from_slice(b"\"\n");
        }
        bodies.push(Bytes::from(body));
    }
    bodies
}

async fn write(
    client: &Client,
    path: &str,
    bodies: &[Bytes],
    writer: usize,
    pause: Option<Duration>,
    clock: &RealClock,
    is_over: &AtomicBool,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let mut turns = pause.map(tokio::time::interval);
    for body in bodies.iter().cycle().skip(writer % bodies.len().max(1)) {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if let Some(turns) = &mut turns {
            turns.tick().await;
        }
        let begun = clock.monotonic_ns();
        let request = client
            .request(Method::POST, path)
            .header("content-type", "application/x-ndjson")
            .body(body.clone());
        match client.send(request).await {
            Ok(answer) => {
                answer.bytes().await.map_err(|error| client.transport(&error))?;
                seen.nanos.push(clock.monotonic_ns() - begun);
            }
            Err(RequestError::Refused(status, problem, after)) if status.as_u16() != 400 => {
                seen.refused += 1;
                seen.first_refusal.get_or_insert(problem.detail);
                tokio::time::sleep(after.unwrap_or(Duration::from_millis(100))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(seen)
}

fn report(
    arguments: &BenchArguments,
    mut seen: Seen,
    behind: &Behind,
    seconds: f64,
) -> Result<(), Failure> {
    seen.nanos.sort_unstable();
    let at = |part: f64| {
        let place = ((seen.nanos.len() as f64 * part) as usize).min(seen.nanos.len().max(1) - 1);
        seen.nanos.get(place).copied().unwrap_or(0) as f64 / 1e6
    };
    let requests = seen.nanos.len() as u64;
    let records = requests * u64::from(arguments.batch_records);
    let bytes = records * arguments.record_bytes;
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    let rate = |amount: u64| amount as f64 / seconds;
    if arguments.server.output == Output::Json {
        return output::json(&json!({
            "seconds": seconds, "requests": requests, "records": records, "bytes": bytes,
            "records_per_second": rate(records), "bytes_per_second": rate(bytes),
            "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": max,
            "refused": seen.refused, "readers": arguments.readers,
            "read_records": behind.records, "read_bytes_per_second": rate(behind.bytes),
            "behind_p50_ms": behind.at(0.5), "behind_p99_ms": behind.at(0.99),
        }));
    }
    let mut text = format!(
        "{} writers, {} records of {} B in a request, {seconds:.1} s\n\
         {:.1} MB/s, {:.0} records/s, {:.0} requests/s\n\
         latency p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms\n",
        arguments.writers,
        arguments.batch_records,
        arguments.record_bytes,
        rate(bytes) / 1e6,
        rate(records),
        rate(requests),
    );
    if arguments.readers > 0 {
        text.push_str(&format!(
            "{} tails: {:.1} MB/s, {} records, behind p50 {} ms, p99 {} ms, max {} ms\n",
            arguments.readers,
            rate(behind.bytes) / 1e6,
            output::count(behind.records),
            behind.at(0.5),
            behind.at(0.99),
            behind.at(1.0),
        ));
    }
    if let Some(why) = &seen.first_refusal {
        text.push_str(&format!("{} requests were refused, first: {why}\n", seen.refused));
    }
    output::write(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_lines_of_the_size_asked_for() {
        let arguments = BenchArguments {
            stream: "s".into(),
            writers: 1,
            partitions: 1,
            class: "durable".into(),
            record_bytes: 100,
            batch_records: 3,
            rate: Some(600),
            readers: 0,
            seconds: 1,
            server: crate::cli::ServerArguments {
                url: "http://127.0.0.1".into(),
                token_file: None,
                output: Output::Table,
            },
        };
        assert_eq!(pause(&arguments), Some(Duration::from_millis(500)));
        for body in bodies(&arguments) {
            let lines: Vec<_> = body.split(|byte| *byte == b'\n').collect();
            assert_eq!(lines.len(), 4);
            for line in lines.iter().take(3) {
                assert_eq!(line.len(), 100);
                assert!(serde_json::from_slice::<String>(line).is_ok());
            }
        }
    }

    #[test]
    fn tails_are_counted_by_how_far_they_are_behind() {
        let mut behind = Behind::default();
        for millis in 1..=100 {
            behind.note(millis);
        }
        assert_eq!((behind.at(0.5), behind.at(0.99), behind.at(1.0)), (50, 99, 100));
        behind.note(i64::MAX);
        behind.note(-5);
        assert_eq!((behind.at(0.0), behind.at(1.0)), (0, BEHIND_MS_MAX));
        let record = br#"{"partition":0,"offset":17,"timestamp":1772366400000,"key":null}"#;
        assert_eq!(timestamp_of(record), Some(1_772_366_400_000));
        assert_eq!(timestamp_of(b"{}"), None);
    }
}
