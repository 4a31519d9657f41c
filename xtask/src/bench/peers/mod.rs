//! Figure `peers`: others with the same promise, that what is acknowledged is
//! on disk, under the same load by the same generator.

pub(super) mod kafka;
mod nats;
mod redis;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::http::Http;
use super::load::{Connection, Run, Shape, closed_loops};
use super::measure::{Table, figure, median};
use super::{Context, seconds};
use crate::e2e::server::Server;

/// Partitions, streams or keys that connections are spread over.
const PARTITIONS: u32 = 16;
const RECORD_BYTES: usize = 1024;
/// The stream that is appended to through both doors.
const STREAM: &str = "bench";
/// Connections, and records in a batch.
const SHAPES: [(usize, usize); 3] = [(64, 16), (64, 1), (1, 1)];

/// A server under load.
trait Peer {
    fn name(&self) -> &'static str;

    /// Whether this load is one that it is measured with.
    fn takes(&self, _shape: Shape) -> bool {
        true
    }

    /// Forgets what was appended, where that would grow too large.
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>>;
}

impl Connection for Box<dyn Connection + Send> {
    fn append(&mut self) -> Result<()> {
        (**self).append()
    }
}

/// Aquifer's doors; they come first among the peers, and the others are held
/// against each of them.
const DOORS: usize = 2;

struct OverHttp {
    url: String,
}

impl Peer for OverHttp {
    fn name(&self) -> &'static str {
        "Aquifer, HTTP"
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>> {
        Ok(Box::new(Http::connect(&self.url, STREAM, PARTITIONS, shape, number)?))
    }
}

struct OverKafka {
    address: SocketAddr,
}

impl Peer for OverKafka {
    fn name(&self) -> &'static str {
        "Aquifer, Kafka protocol"
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>> {
        let partition = number as u32 % PARTITIONS;
        Ok(Box::new(kafka::Producer::connect(self.address, STREAM, shape, number, partition)?))
    }
}

pub(super) fn run(context: &Context) -> Result<String> {
    let directory = context.temporary("peers")?;
    let tools = context.workspace.target.join("tools");
    let server = Server::start(&context.server(directory.path())?)?;
    server.client().create_stream(STREAM, PARTITIONS, json!({}))?;
    let mut notes = Vec::new();
    let mut started = |name: &str, error: &anyhow::Error| {
        println!("{name} is left out: {error:#}");
        notes.push(format!("{name} was not measured: it could not be started here."));
    };
    let redis = redis::Redis::start(&tools, directory.path());
    let nats = nats::Server::start(&tools, directory.path());
    let kafka = start_kafka(&tools, directory.path());
    let address = server.kafka()?;
    let address = address.parse().with_context(|| format!("{address} is no address"))?;
    let mut peers: Vec<Box<dyn Peer + '_>> = vec![
        Box::new(OverHttp { url: server.client().url().to_owned() }),
        Box::new(OverKafka { address }),
    ];
    match redis {
        Ok(redis) => peers.push(Box::new(redis)),
        Err(error) => started("Redis", &error),
    }
    match &nats {
        Ok(server) => {
            peers.push(Box::new(nats::Nats { server, is_atomic: false }));
            peers.push(Box::new(nats::Nats { server, is_atomic: true }));
        }
        Err(error) => started("NATS", error),
    }
    match &kafka {
        Ok(server) => {
            peers.push(Box::new(kafka::Kafka { server, is_synced: true }));
            peers.push(Box::new(kafka::Kafka { server, is_synced: false }));
        }
        Err(error) => started("Kafka", error),
    }
    let mut text = String::new();
    for (connections, batch_records) in SHAPES {
        let shape = Shape {
            connections,
            batch_records,
            record_bytes: RECORD_BYTES,
            duration: seconds(context.pick(1, 5, 20)),
        };
        text.push_str(&of_shape(context, shape, &peers)?);
    }
    text.push_str(&format!(
        "Each in turn, another one first in each round, {} rounds of {} s; every figure is the median of the rounds, the last \
         columns those of the ratios within a round (above 1: Aquifer is faster, through that \
         door). All servers run \
         the whole time, idle but for the one that is measured. {PARTITIONS} partitions (Redis: \
         keys, NATS: streams); records of {RECORD_BYTES} B. {}\n",
        context.pairs(),
        context.pick(1, 5, 20),
        notes.join(" "),
    ));
    Ok(text)
}

fn start_kafka(tools: &Path, directory: &Path) -> Result<kafka::Server> {
    let server = kafka::Server::start(tools, directory)?;
    for is_synced in [true, false] {
        server.create_topic(kafka::topic(is_synced), PARTITIONS, is_synced)?;
    }
    Ok(server)
}

/// A peer's runs, one a round; none once it failed.
struct Measured {
    runs: Vec<Run>,
    failure: Option<String>,
}

fn of_shape(context: &Context, shape: Shape, peers: &[Box<dyn Peer + '_>]) -> Result<String> {
    let peers: Vec<_> = peers.iter().filter(|peer| peer.takes(shape)).collect();
    let mut measured: Vec<Measured> =
        peers.iter().map(|_| Measured { runs: Vec::new(), failure: None }).collect();
    for round in 0..context.pairs() {
        for turn in 0..peers.len() {
            // Each begins once: what one leaves to the disk meets another next.
            let index = (round + turn) % peers.len();
            let (peer, of) = (peers[index], &mut measured[index]);
            let of_ours = index < DOORS;
            if of.failure.is_some() {
                continue;
            }
            let run = peer.reset().and_then(|()| {
                let connections = (0..shape.connections).map(|number| peer.connect(shape, number));
                closed_loops(shape, connections.collect::<Result<_>>()?)
            });
            match run {
                Ok(run) => {
                    println!(
                        "{} × {}: {}: {:.1} MB/s",
                        shape.connections,
                        shape.batch_records,
                        peer.name(),
                        run.rate()
                    );
                    of.runs.push(run);
                }
                Err(error) if of_ours => return Err(error),
                Err(error) => {
                    println!("{} fails: {error:#}", peer.name());
                    of.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
    let mut table = Table::new(&[
        "",
        "MB/s",
        "records/s",
        "p50 ms",
        "p99 ms",
        "HTTP by it",
        "Kafka protocol by it",
    ]);
    let rates_of = |of: &Measured| of.runs.iter().map(Run::rate).collect::<Vec<_>>();
    let ours: Vec<Vec<f64>> = measured.iter().take(DOORS).map(rates_of).collect();
    for (peer, of) in peers.iter().zip(&mut measured) {
        let rates = rates_of(of);
        let ratio = |door: usize| {
            let pairs = ours[door].iter().zip(&rates);
            figure(median(pairs.map(|(ours, theirs)| ours / theirs)))
        };
        let (by_http, by_kafka) = (ratio(0), ratio(1));
        let rate = median(rates);
        table.row(&[
            peer.name(),
            &figure(rate),
            &figure(rate * 1e6 / shape.record_bytes as f64),
            &figure(median(of.runs.iter_mut().map(Run::p50_ms))),
            &figure(median(of.runs.iter_mut().map(Run::p99_ms))),
            &by_http,
            &by_kafka,
        ]);
    }
    let failures: Vec<String> = peers
        .iter()
        .zip(&measured)
        .filter_map(|(peer, of)| {
            let failure = of.failure.as_ref()?;
            Some(format!("{} failed after {} rounds: {failure}.\n\n", peer.name(), of.runs.len()))
        })
        .collect();
    let (connections, batch) = (shape.connections, shape.batch_records);
    let plural = if connections == 1 { "" } else { "s" };
    Ok(format!(
        "{connections} connection{plural}, {batch} record{} at a time:\n\n{}\n{}",
        if batch == 1 { "" } else { "s" },
        table.into_text(),
        failures.concat(),
    ))
}
