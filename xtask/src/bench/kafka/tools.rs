//! Kafka's own tools as the load: ProducerPerformance and ConsumerPerformance.
//! Both servers are spoken to by the same program with the same arguments.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::peers::kafka::{class_path, java};
use crate::workspace::{run_quietly, run_within};

pub(super) const RECORD_BYTES: usize = 1024;

const SOURCE: &str = include_str!("Producers.java");
/// Different values that records are drawn from.
const PAYLOADS: u64 = 4_000;
/// A run of the tools that takes longer hangs.
const RUN_MAX: Duration = Duration::from_secs(600);
/// The consumer gives up when nothing came for so long.
const SILENCE_MS_MAX: &str = "30000";
const CLIENT_JAVA_OPTIONS: [&str; 2] = ["-Xms512m", "-Xmx1g"];

/// The compiled tools and what they send.
pub(super) struct Tools {
    java: PathBuf,
    class_path: String,
    payloads: PathBuf,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub(super) bootstrap: &'a str,
    pub(super) topic: &'a str,
    pub(super) producers: usize,
    pub(super) compression: &'a str,
    /// Records of a warm-up, all producers together; there are two.
    pub(super) warm_up: u64,
    pub(super) seconds: f64,
    /// Records a second of all; as many as there may be without.
    pub(super) rate: Option<f64>,
}

/// What the producers saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Produced {
    pub(super) records: u64,
    pub(super) records_per_second: f64,
    /// Of the producer in the middle.
    pub(super) p50_ms: f64,
    /// Of the worst producer.
    pub(super) p99_ms: f64,
}

impl Produced {
    pub(super) fn rate(&self) -> f64 {
        self.records_per_second * RECORD_BYTES as f64 / 1e6
    }
}

impl Tools {
    /// Compiles what runs ProducerPerformance, into `directory`.
    pub(super) fn prepare(tools: &Path, directory: &Path) -> Result<Self> {
        let (java, jars) = (java(tools)?, class_path(tools)?);
        let source = directory.join("Producers.java");
        std::fs::write(&source, SOURCE)?;
        let classes = directory.join("classes");
        let mut compile = Command::new("javac");
        compile.args(["-cp", &jars, "-d"]).arg(&classes).arg(&source);
        run_quietly(&mut compile)?;
        let payloads = directory.join("payloads");
        std::fs::write(&payloads, lines())?;
        let class_path = format!("{}:{jars}", classes.display());
        Ok(Self { java, class_path, payloads })
    }

    pub(super) fn produce(&self, load: &Load<'_>) -> Result<Produced> {
        let mut command = self.command("org.apache.kafka.tools.Producers");
        command.args([
            &load.producers.to_string(),
            &load.warm_up.to_string(),
            &load.seconds.to_string(),
            &load.rate.unwrap_or(-1.0).to_string(),
        ]);
        command.args(["--bootstrap-server", load.bootstrap, "--topic", load.topic]);
        command.arg("--payload-file").arg(&self.payloads);
        command.arg("--command-property");
        command.args(["acks=all".to_owned(), format!("compression.type={}", load.compression)]);
        let text = run_within(&mut command, RUN_MAX)?;
        produced(&text).with_context(|| format!("the producers printed {text}"))
    }

    /// Reads `records` from the start of a topic; MB a second, the time in which
    /// the group came together apart.
    pub(super) fn consume(&self, bootstrap: &str, topic: &str, records: u64) -> Result<f64> {
        let mut command = self.command("org.apache.kafka.tools.ConsumerPerformance");
        command.args(["--bootstrap-server", bootstrap, "--topic", topic]);
        command.args(["--num-records", &records.to_string(), "--timeout", SILENCE_MS_MAX]);
        command.arg("--hide-header");
        let text = run_within(&mut command, RUN_MAX)?;
        consumed(&text, records).with_context(|| format!("the consumer printed {text}"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args(CLIENT_JAVA_OPTIONS).args(["-cp", &self.class_path, program]);
        command
    }
}

/// What is printed behind the warm-up: a line of each producer, then the sum.
fn produced(text: &str) -> Result<Produced> {
    let (_, measured) = text.split_once("measured\n").context("no measurement")?;
    let (mut sent, mut p50_ms, mut p99_ms) = (0, Vec::new(), 0.0_f64);
    for line in measured.lines().filter(|line| line.contains(" 99.9th")) {
        sent += first_number(line)? as u64;
        p50_ms.push(number_before(line, " ms 50th")?);
        p99_ms = p99_ms.max(number_before(line, " ms 99th")?);
    }
    let total = measured.lines().find_map(|line| line.strip_prefix("total "));
    let total = total.context("no total")?;
    let records = first_number(total)? as u64;
    let nanos = number_before(total, " ns")?;
    ensure!(sent == records, "{sent} of {records} records were acknowledged");
    ensure!(nanos > 0.0, "no time passed");
    p50_ms.sort_by(f64::total_cmp);
    let p50_ms = p50_ms.get(p50_ms.len() / 2).copied().context("no producer")?;
    Ok(Produced { records, records_per_second: records as f64 * 1e9 / nanos, p50_ms, p99_ms })
}

/// The line of ConsumerPerformance: two times, MiB, MiB a second, records,
/// records a second, and the same of the time behind the rebalance.
fn consumed(text: &str, records: u64) -> Result<f64> {
    let mut fields = text.lines().map(|line| line.split(", ").collect::<Vec<_>>());
    let fields = fields.rfind(|fields| fields.len() == FIELDS).context("no line of figures")?;
    let number = |at: usize| fields[at].trim().parse::<f64>();
    let (mib, read, fetch_ms) = (number(2)?, number(4)?, number(7)?);
    ensure!(read as u64 >= records, "{read} of {records} records were read");
    ensure!(fetch_ms > 0.0, "no time passed");
    Ok(mib * f64::from(1 << 20) / 1e3 / fetch_ms)
}

const FIELDS: usize = 10;

fn first_number(line: &str) -> Result<f64> {
    let word = line.split(' ').next().unwrap_or_default();
    word.parse().with_context(|| format!("{line} does not begin with a number"))
}

fn number_before(line: &str, unit: &str) -> Result<f64> {
    let Some((before, _)) = line.split_once(unit) else { bail!("no{unit} in {line}") };
    let word = before.rsplit(' ').next().unwrap_or_default();
    word.parse().with_context(|| format!("no number before{unit} in {line}"))
}

/// Lines of a log of a web shop, each of the bytes of a record.
fn lines() -> String {
    const WORDS: [&str; 24] = [
        "order",
        "accepted",
        "payment",
        "by",
        "card",
        "declined",
        "retry",
        "customer",
        "address",
        "changed",
        "shipping",
        "label",
        "printed",
        "warehouse",
        "queue",
        "is",
        "late",
        "invoice",
        "sent",
        "to",
        "stock",
        "reserved",
        "for",
        "basket",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let mut text = String::new();
    for number in 0..PAYLOADS {
        let start = text.len();
        let _ = write!(
            text,
            "{{\"at\":\"2026-10-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\"number\":{number},\"host\":\"shop-{}\",\
             \"status\":{},\"took_ms\":{},\"trace\":\"{:016x}{:016x}\",\"message\":\"",
            1 + next(31),
            next(24),
            next(60),
            next(60),
            next(1000),
            next(40),
            [200, 200, 200, 201, 304, 404, 503][next(7) as usize],
            next(2_000),
            next(1 << 44),
            next(1 << 44),
        );
        while text.len() - start < RECORD_BYTES {
            match next(5) {
                0 => {
                    let _ = write!(text, "{} ", next(1 << 32));
                }
                _ => {
                    let word = WORDS[next(WORDS.len() as u64) as usize];
                    let _ = write!(text, "{word} ");
                }
            }
        }
        text.truncate(start + RECORD_BYTES - 2);
        text.push_str("\"}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Reading payloads from: /x\n\
        9 records sent, 1.0 records/sec (0.1 MB/sec), 1.00 ms avg latency, 9.00 ms max latency, \
        9 ms 50th, 9 ms 95th, 9 ms 99th, 9 ms 99.9th.\n\
        measured\n\
        40 records sent, 20.0 records/sec (0.02 MB/sec), 1.0 ms avg latency, 9.0 ms max latency.\n\
        50 records sent, 25.0 records/sec (0.02 MB/sec), 1.50 ms avg latency, 9.00 ms max latency, \
        2 ms 50th, 3 ms 95th, 7 ms 99th, 9 ms 99.9th.\n\
        50 records sent, 25.0 records/sec (0.02 MB/sec), 1.50 ms avg latency, 9.00 ms max latency, \
        4 ms 50th, 5 ms 95th, 6 ms 99th, 9 ms 99.9th.\n";

    #[test]
    fn what_producers_print_is_read() {
        let check = |total: &str, wanted: Result<Produced, &str>| {
            let found = produced(&format!("{PRINTED}{total}\n"));
            assert_eq!(found.map_err(|error| error.to_string()), wanted.map_err(str::to_owned));
        };
        check(
            "total 100 records 2000000000 ns",
            Ok(Produced { records: 100, records_per_second: 50.0, p50_ms: 4.0, p99_ms: 7.0 }),
        );
        check("total 101 records 1 ns", Err("100 of 101 records were acknowledged"));
        check("", Err("no total"));
        assert!(produced("12 records sent").is_err());
    }

    #[test]
    fn what_the_consumer_prints_is_read() {
        let check = |read: u64, wanted: Option<f64>| {
            let line = "2026-11-21 17:00:00:001, 2026-11-21 17:00:03:001, 100.0, 33.3, 102400, \
                        34133.3, 1000, 2000, 50.0, 51200.0\n";
            assert_eq!(consumed(line, read).ok(), wanted);
        };
        check(102_400, Some(52.4288));
        check(102_401, None);
        assert!(consumed("WARNING: Exiting\n", 1).is_err());
    }

    #[test]
    fn each_payload_has_the_size_of_a_record() {
        let text = lines();
        assert_eq!(text.lines().count() as u64, PAYLOADS);
        for line in text.lines() {
            assert_eq!(line.len(), RECORD_BYTES);
            assert!(line.is_ascii());
        }
    }
}
