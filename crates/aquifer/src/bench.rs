//! `aquifer bench`: appends in closed loops, as many writers would send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquifer_env::{Clock, Random as _, RealClock, SeededRandom};
use bytes::Bytes;
use reqwest::Method;
use serde_json::json;

use crate::cli::{BenchArguments, Output};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;
use crate::output;

/// Writers take turns among this many bodies, so that nothing compresses well.
const BODIES: usize = 16;

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
    let begun = clock.monotonic_ns();
    let mut writers = Vec::new();
    for writer in 0..arguments.writers {
        // A connection of its own for each, as separate programs would have.
        let client = Client::new(&arguments.server)?;
        let (bodies, path) = (Arc::clone(&bodies), path.clone());
        let (clock, is_over) = (Arc::clone(&clock), Arc::clone(&is_over));
        writers.push(tokio::spawn(async move {
            write(&client, &path, &bodies, writer as usize, &clock, &is_over).await
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
    report(&arguments, all, seconds)
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
    clock: &RealClock,
    is_over: &AtomicBool,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for body in bodies.iter().cycle().skip(writer % bodies.len().max(1)) {
        if is_over.load(Ordering::Relaxed) {
            break;
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

fn report(arguments: &BenchArguments, mut seen: Seen, seconds: f64) -> Result<(), Failure> {
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
            "refused": seen.refused,
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
            seconds: 1,
            server: crate::cli::ServerArguments {
                url: "http://127.0.0.1".into(),
                token_file: None,
                output: Output::Table,
            },
        };
        for body in bodies(&arguments) {
            let lines: Vec<_> = body.split(|byte| *byte == b'\n').collect();
            assert_eq!(lines.len(), 4);
            for line in lines.iter().take(3) {
                assert_eq!(line.len(), 100);
                assert!(serde_json::from_slice::<String>(line).is_ok());
            }
        }
    }
}
