//! Figures `kafka-*`: Kafka's own clients against this server and against
//! Apache Kafka, in the same run.
//!
//! Apache Kafka has two topics' worth of columns: with `flush.messages=1` it
//! promises what we do, with its default it never syncs.

mod latency;
mod librdkafka;
mod memory;
mod produce;
mod reads;
mod tools;

pub(super) use latency::run as latency;
pub(super) use librdkafka::run as librdkafka;
pub(super) use memory::run as memory;
pub(super) use produce::{compressed, plain};
pub(super) use reads::run as reads;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use serde_json::{Value, json};
use tools::{Load, Produced, Tools};

use super::peers::kafka;
use super::{Context, seconds};
use crate::e2e::server::Server;
use crate::workspace::run_quietly;

/// What stands below each table.
const ABOUT_LOAD: &str = "The load is Kafka's own Java tool with its client's defaults and \
    `acks=all` (idempotent, batches of 16 KiB), producers as threads of one process, on the same \
    two cores as the server; records of 1024 B of text drawn from 4,000 different ones. Each run \
    is a process that has sent the same load twice before it is measured, into a topic of its own \
    after a `sync` of the machine. Apache Kafka 4.3.0 in KRaft mode, one node, with the heap \
    (1 GiB) and the options of its start script.";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Aquifer,
    /// Apache Kafka, each request synced.
    Synced,
    /// Apache Kafka as it comes.
    Default,
}

const SIDES: [Side; 3] = [Side::Aquifer, Side::Synced, Side::Default];

/// Both servers and the tools, for one figure.
struct Bench {
    aquifer: Server,
    aquifer_kafka: String,
    kafka: kafka::Server,
    kafka_address: String,
    tools: Tools,
    topics: AtomicU32,
    directory: tempfile::TempDir,
}

/// A load without its address.
#[derive(Debug, Clone, Copy)]
struct Shape {
    producers: usize,
    partitions: u32,
    compression: &'static str,
    rate: Option<f64>,
}

impl Bench {
    fn start(context: &Context, name: &str, settings: &[&str]) -> Result<Self> {
        let directory = context.temporary(name)?;
        let tools = context.workspace.target.join("tools");
        // What was deleted leaves the disk soon.
        let options =
            context.server(directory.path())?.with_settings(&["store.chunk_grace_ms=1000"]);
        let aquifer = Server::start(&options.with_settings(settings))?;
        let aquifer_kafka = aquifer.kafka()?;
        let kafka = kafka::Server::start(&tools, directory.path())?;
        let kafka_address = kafka.address().to_string();
        let tools = Tools::prepare(&tools, directory.path())?;
        let topics = AtomicU32::new(0);
        Ok(Self { aquifer, aquifer_kafka, kafka, kafka_address, tools, topics, directory })
    }

    fn bootstrap(&self, side: Side) -> &str {
        match side {
            Side::Aquifer => &self.aquifer_kafka,
            Side::Synced | Side::Default => &self.kafka_address,
        }
    }

    /// Creates a topic of a name that was never used; `config` is for a stream
    /// of ours.
    fn create(&self, side: Side, partitions: u32, config: Value) -> Result<String> {
        let name = format!("bench{}", self.topics.fetch_add(1, Ordering::Relaxed));
        match side {
            Side::Aquifer => self.aquifer.client().create_stream(&name, partitions, config)?,
            Side::Synced => self.kafka.create_topic(&name, partitions, true)?,
            Side::Default => self.kafka.create_topic(&name, partitions, false)?,
        }
        Ok(name)
    }

    fn delete(&self, side: Side, topic: &str) -> Result<()> {
        match side {
            Side::Aquifer => self.aquifer.client().delete_stream(topic),
            Side::Synced | Side::Default => self.kafka.delete_topic(topic),
        }
    }

    /// One run into a topic of its own.
    fn produce(&self, context: &Context, side: Side, shape: Shape) -> Result<Produced> {
        let topic = self.create(side, shape.partitions, json!({}))?;
        let produced = self.produce_into(context, side, shape, &topic)?;
        println!(
            "{side:?}, {} producers, {} partitions, {}: {:.1} MB/s, p50 {} ms, p99 {} ms",
            shape.producers,
            shape.partitions,
            shape.compression,
            produced.rate(),
            produced.p50_ms,
            produced.p99_ms,
        );
        self.delete(side, &topic)?;
        Ok(produced)
    }

    fn produce_into(
        &self,
        context: &Context,
        side: Side,
        shape: Shape,
        topic: &str,
    ) -> Result<Produced> {
        // What was written before is not this run's.
        run_quietly(&mut Command::new("sync"))?;
        self.tools.produce(&Load {
            bootstrap: self.bootstrap(side),
            topic,
            producers: shape.producers,
            compression: shape.compression,
            warm_up: context.pick(10_000, 40_000, 40_000),
            seconds: duration(context),
            rate: shape.rate,
        })
    }
}

fn duration(context: &Context) -> f64 {
    seconds(context.pick(2, 6, 20)).as_secs_f64()
}

/// The rounds; another side begins each.
fn rounds(context: &Context) -> impl Iterator<Item = [Side; 3]> {
    (0..context.pick(2, 3, 5)).map(|round| [0, 1, 2].map(|turn| SIDES[(round + turn) % 3]))
}

/// Behind `Goal:`.
fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "**missed**" }
}
