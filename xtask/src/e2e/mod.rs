//! End-to-end scenarios: the real binary, real files, real clients.
//!
//! A scenario starts what it needs in a temporary directory on free ports,
//! and ends what it started. What the machine does not allow (root, a network)
//! is reported as a gap, never as a pass.

mod bit_flips;
pub(crate) mod client;
mod clock;
mod command_line;
mod enospc;
mod flight_adbc;
mod flight_jdbc;
mod history;
mod iceberg;
mod java_program;
mod kafka;
mod kafka_security;
mod kill9;
mod kill9_compaction;
mod limits;
mod load;
mod mount;
mod objects;
mod open_tables;
mod parquet_readers;
mod partition;
mod postgres_clients;
mod postgres_jdbc;
mod power_cut;
mod proxy;
mod query_isolation;
pub(crate) mod questions;
mod readme;
mod recover;
mod s3;
mod search;
pub(crate) mod server;
mod shredding;
mod spark;
mod sql_cut;
mod sql_http;
mod sql_shell;
mod sync_faults;
pub(crate) mod upgrade;
mod zombie;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::e2e::client::Client;
use crate::e2e::server::Options;
use crate::python;
use crate::steps::Report;
use crate::workspace::Workspace;

/// One end-to-end scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Context) -> Result<Report>,
}

/// The scenarios of each test, in the order in which they run.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill9",
        about: "kill -9 under load, at random moments: nothing acknowledged is lost",
        run: kill9::run,
    },
    Scenario {
        name: "kill9_relaxed",
        about: "the same for streams of class relaxed",
        run: kill9::run_relaxed,
    },
    Scenario {
        name: "kill9_compaction",
        about: "kill -9 while it compacts by key: the newest of each key stays, once",
        run: kill9_compaction::run,
    },
    Scenario {
        name: "power_cut",
        about: "the disk forgets what was not synced: nothing acknowledged is lost",
        run: power_cut::run,
    },
    Scenario {
        name: "power_cut_relaxed",
        about: "the same for class relaxed: no offset is given twice",
        run: power_cut::run_relaxed,
    },
    Scenario {
        name: "sync_faults",
        about: "a sync that fails, or kills: nothing acknowledged is lost, appends resume",
        run: sync_faults::run,
    },
    Scenario {
        name: "bit_flips",
        about: "any flipped bit is found or harmless: wrong bytes are never served",
        run: bit_flips::run,
    },
    Scenario {
        name: "enospc",
        about: "a full disk refuses appends, serves reads, and recovers without a restart",
        run: enospc::run,
    },
    Scenario {
        name: "parquet_readers",
        about: "pyarrow and DuckDB read the chunks: same records, same order",
        run: parquet_readers::run,
    },
    Scenario {
        name: "iceberg",
        about: "pyiceberg and DuckDB open streams as tables, while these change",
        run: iceberg::run,
    },
    Scenario {
        name: "shredding",
        about: "fields of values are the same columns for DuckDB, Polars, pyarrow and SQL",
        run: shredding::run,
    },
    Scenario {
        name: "open_tables",
        about: "the printed DuckDB, Polars and pyarrow programs read what SQL reads",
        run: open_tables::run,
    },
    Scenario {
        name: "sql_http",
        about: "statements over HTTP: forms, errors, cancellation, long answers",
        run: sql_http::run,
    },
    Scenario {
        name: "sql_shell",
        about: "aquifer sql with an argument, in a pipe, and on a terminal",
        run: sql_shell::run,
    },
    Scenario {
        name: "s3",
        about: "tier 2 on an S3 server that goes away, comes back and loses answers",
        run: s3::run,
    },
    Scenario {
        name: "partition",
        about: "the network to the S3 server is cut: nothing is lost, it goes on within 10 s",
        run: partition::run,
    },
    Scenario {
        name: "zombie",
        about: "a server stands still, a successor takes over: the old one changes nothing",
        run: zombie::run,
    },
    Scenario {
        name: "clock",
        about: "the clock jumps and stands still: offsets, order and records do not care",
        run: clock::run,
    },
    Scenario {
        name: "limits",
        about: "limits answer 429 with the type, Retry-After and what to do, and pass",
        run: limits::run,
    },
    Scenario {
        name: "recover",
        about: "the data directory is lost: what tier 2 knows comes back",
        run: recover::run,
    },
    Scenario {
        name: "search",
        about: "real logs, searched in memory, in files and through indexes: as by looking at all",
        run: search::run,
    },
    Scenario {
        name: "objects",
        about: "imports, watches and exports over kills: each object's records once",
        run: objects::run,
    },
    Scenario {
        name: "command_line",
        about: "the client commands and the demo",
        run: command_line::run,
    },
    Scenario {
        name: "sql_cut",
        about: "statements read one cut beside appends, tiering, compaction and transactions",
        run: sql_cut::run,
    },
    Scenario {
        name: "kafka_security",
        about: "Kafka's clients log in over TLS, and stay while the certificate is swapped",
        run: kafka_security::run,
    },
    Scenario {
        name: "kafka_confluent",
        about: "confluent-kafka: round trips, offsets, administration, groups, transactions",
        run: kafka::confluent,
    },
    Scenario {
        name: "kafka_python",
        about: "kafka-python: round trips, administration, groups",
        run: kafka::python,
    },
    Scenario {
        name: "kafka_aiokafka",
        about: "aiokafka: round trips, a group, transactions",
        run: kafka::aiokafka,
    },
    Scenario {
        name: "kafka_js",
        about: "kafkajs on Node: round trips and a group",
        run: kafka::js,
    },
    Scenario {
        name: "kafka_java",
        about: "Kafka's Java client: round trips, a group, transactions, quotas",
        run: kafka::java,
    },
    Scenario { name: "kafka_kcat", about: "kcat's pipes, in every compression", run: kafka::kcat },
    Scenario {
        name: "kafka_kill9",
        about: "kill -9 under idempotent producers: each acknowledged record once, in order",
        run: kafka::kill9,
    },
    Scenario {
        name: "kafka_exactly_once",
        about: "consume, transform, produce with kills of worker and server: each record once",
        run: kafka::exactly_once,
    },
    Scenario {
        name: "postgres_clients",
        about: "psql and psycopg over TLS: queries, cursors, cancel, catalogs",
        run: postgres_clients::run,
    },
    Scenario {
        name: "upgrade",
        about: "data directories of earlier format versions open and go on",
        run: upgrade::run,
    },
    Scenario { name: "readme", about: "the README, followed word by word", run: readme::run },
    Scenario {
        name: "flight_adbc",
        about: "ADBC and pyarrow by Flight SQL over TLS: queries, a large result, cancel, catalog",
        run: flight_adbc::run,
    },
];

/// Scenarios that take long: they run in the full test, and when they are named.
const LONG_SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "postgres_jdbc",
        about: "PostgreSQL's JDBC driver: prepared statements, fetch size, metadata, cancel",
        run: postgres_jdbc::run,
    },
    Scenario {
        name: "flight_jdbc",
        about: "Arrow's JDBC driver for Flight SQL: queries, prepared statements, metadata",
        run: flight_jdbc::run,
    },
    Scenario {
        name: "spark",
        about: "Spark runs the printed program and opens Iceberg tables: the values that SQL has",
        run: spark::run,
    },
    Scenario {
        name: "query_isolation",
        about: "hostile questions, little memory, a killed engine: appends go on, the next works",
        run: query_isolation::run,
    },
    Scenario {
        name: "kafka_rskafka",
        about: "the suite of the Rust client rskafka",
        run: kafka::rskafka,
    },
    Scenario {
        name: "kafka_suite_python",
        about: "the integration tests of kafka-python",
        run: kafka::kafka_suite_python,
    },
    Scenario {
        name: "kafka_franz_go",
        about: "the tests of the Go client franz-go that talk to a broker",
        run: kafka::franz_go,
    },
    Scenario {
        name: "kafka_librdkafka",
        about: "the tests of librdkafka that talk to a broker",
        run: kafka::librdkafka,
    },
    Scenario {
        name: "kafka_flink",
        about: "Flink counts windows exactly once, over kills of the job and the server",
        run: kafka::flink,
    },
    Scenario {
        name: "kafka_connect",
        about: "Kafka Connect copies a file in and out, over kills of worker and server",
        run: kafka::connect,
    },
    Scenario {
        name: "kafka_rsyslog",
        about: "rsyslog's omkafka sends a log file's lines, in order",
        run: kafka::rsyslog,
    },
];

/// Every scenario, and whether it runs only in the full test.
pub(crate) fn all_scenarios() -> impl Iterator<Item = (&'static Scenario, bool)> {
    let always = SCENARIOS.iter().map(|scenario| (scenario, false));
    always.chain(LONG_SCENARIOS.iter().map(|scenario| (scenario, true)))
}

/// Files change, snapshots are taken and chunks are merged all the time.
const SMALL: &[&str] = &[
    "store.journal_file_bytes=4194304",
    "store.snapshot_journal_bytes=2097152",
    "store.tier_interval_ms=50",
    "store.compaction_chunks_min=4",
    "store.chunk_grace_ms=1000",
    "store.manifest_interval_ms_min=200",
    "store.retention_interval_ms=1000",
];

/// What every scenario is given.
pub(crate) struct Context<'a> {
    workspace: &'a Workspace,
    binary: PathBuf,
    /// Raise counts.
    full: bool,
    seed: u64,
    python: OnceCell<Result<PathBuf, String>>,
}

impl<'a> Context<'a> {
    /// Takes the seed from `AQUIFER_SEED`, else from the clock, and prints it.
    pub(crate) fn new(workspace: &'a Workspace, binary: PathBuf, full: bool) -> Self {
        let seed = aquifer_testkit::seed_from_env("AQUIFER_SEED");
        Self { workspace, binary, full, seed, python: OnceCell::new() }
    }

    /// `quick`, or `full` in the full test.
    fn count(&self, quick: u64, full: u64) -> u64 {
        if self.full { full } else { quick }
    }

    /// The generator of stream `stream` of the run's seed.
    fn random(&self, stream: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A server of the binary under test in `directory`, with limits so small
    /// that a short run reaches all of them.
    fn options(&self, directory: &Path) -> Options {
        Options::new(self.binary.clone(), directory).with_settings(SMALL)
    }

    /// A Python with the clients of requirements.txt, or why there is none.
    fn python(&self) -> Result<PathBuf, String> {
        self.python.get_or_init(|| python::interpreter(self.workspace)).clone()
    }

    /// A fresh directory under `target/e2e`, removed when dropped.
    fn directory(&self, name: &str) -> Result<tempfile::TempDir> {
        let parent = self.workspace.target.join("e2e");
        std::fs::create_dir_all(&parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(parent)?)
    }
}

/// Tiering that was asked for is done within this.
const TIERED_MAX: Duration = Duration::from_secs(60);

/// Waits until every record of `stream` is in a chunk.
fn tiered(client: &Client, stream: &str) -> Result<()> {
    eventually(TIERED_MAX, || {
        let partitions = client.partitions(stream)?;
        let open: Vec<_> =
            partitions.iter().filter(|of| of.tiered_offset < of.end_offset).collect();
        if !open.is_empty() {
            bail!("not tiered: {open:?}");
        }
        Ok(())
    })
}

/// Tries until it succeeds; the last error once `limit` has passed.
fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => {
                return Err(error).with_context(|| format!("still so after {limit:?}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
