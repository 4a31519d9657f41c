//! `cargo xtask bench`: the figures of docs/performance.md.
//!
//! Every ratio has both of its sides in the same run, in alternating pairs,
//! and is the median of the pairs. Servers, ours and others', are child
//! processes on loopback with their data in `target/bench`, on one disk.
//! Tables go to the terminal and into `target/bench/<name>.md`.

mod feed;
mod footprint;
mod http;
mod kafka;
mod keep_up;
mod ledger;
mod load;
mod measure;
mod peers;
mod process;
mod reading;
mod search;
mod spill;
mod sql;
mod tiering;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::e2e::server;
use crate::workspace::{Workspace, run, run_quietly};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these figures, and those whose names go on with a dash; all without
    /// any. `list` names them.
    names: Vec<String>,
    /// Small sizes and three pairs: shows that it works, measures little.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The sizes of the goals: 10 GiB, 30 minutes, 1 GiB a data set.
    #[arg(long)]
    full: bool,
    /// Measure what lies in target/release without building it.
    #[arg(long)]
    no_build: bool,
    /// The folder of real data sets that are multiplied: files of lines, or
    /// folders of files that are a record each.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// So many bytes of records for `sql`, `search` and `spill`, such as 10GB.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<u64>,
}

/// A number of bytes, with a unit or without.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((text, 1));
    let number = number.trim().parse::<u64>().map_err(|error| error.to_string())?;
    number.checked_mul(size).ok_or_else(|| format!("{text} is too much"))
}

struct Figure {
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Result<String>,
}

impl Figure {
    /// `kafka` means all of `kafka-…`.
    fn is_meant_by(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

const FIGURES: &[Figure] = &[
    Figure {
        name: "ledger",
        about: "durable appends through the ledger beside a plain loop",
        run: ledger::ledger,
    },
    Figure {
        name: "http",
        about: "NDJSON over HTTP from another process beside the ledger",
        run: ledger::http,
    },
    Figure {
        name: "lone",
        about: "one writer, one record at a time, beside a bare write and fdatasync",
        run: ledger::lone,
    },
    Figure {
        name: "peers",
        about: "Redis Streams, NATS JetStream and Apache Kafka with the same sync guarantee",
        run: peers::run,
    },
    Figure {
        name: "kafka-produce",
        about: "Kafka's producers against this server and Apache Kafka",
        run: kafka::plain,
    },
    Figure {
        name: "kafka-compressed",
        about: "the same with lz4 and zstd",
        run: kafka::compressed,
    },
    Figure {
        name: "kafka-librdkafka",
        about: "librdkafka's producer against both",
        run: kafka::librdkafka,
    },
    Figure {
        name: "kafka-latency",
        about: "produce latency at half of Kafka's highest rate",
        run: kafka::latency,
    },
    Figure {
        name: "kafka-reads",
        about: "Kafka's consumer on the journal, on chunks and on Kafka's log",
        run: kafka::reads,
    },
    Figure {
        name: "kafka-memory",
        about: "resident memory of both after the same load",
        run: kafka::memory,
    },
    Figure {
        name: "tiering",
        about: "appends at an offered rate with tiering and without, and the highest rate",
        run: tiering::run,
    },
    Figure {
        name: "chunks",
        about: "chunk bytes beside zstd-3, encoding and decoding a core",
        run: reading::chunks,
    },
    Figure {
        name: "index",
        about: "search indexes beside the records they are of, and building them a core",
        run: reading::index,
    },
    Figure {
        name: "index-rate",
        about: "the highest rate of appends that tiering and search indexes keep up with",
        run: keep_up::run,
    },
    Figure { name: "cold", about: "a sequential read of chunks, a core", run: reading::cold },
    Figure { name: "tail", about: "how far 100 readers are behind", run: reading::tail },
    Figure {
        name: "idle",
        about: "start and memory of an empty server and of 10,000 partitions",
        run: footprint::idle,
    },
    Figure { name: "recovery", about: "seconds a GiB of journal", run: footprint::recovery },
    Figure {
        name: "sql",
        about: "ten analytical questions beside DataFusion and DuckDB on the same chunks",
        run: sql::run,
    },
    Figure { name: "tpch", about: "TPC-H loaded through streams, beside the same", run: sql::tpch },
    Figure {
        name: "json",
        about: "questions about documents beside DuckDB on the chunks and on the JSON",
        run: sql::json,
    },
    Figure {
        name: "search",
        about: "words in many chunks beside a scan and commands over compressed files",
        run: search::run,
    },
    Figure {
        name: "spill",
        about: "appends at a fixed rate alone and beside a statement that spills",
        run: spill::run,
    },
];

/// What every figure is given.
struct Context {
    workspace: Workspace,
    quick: bool,
    full: bool,
    samples: PathBuf,
    bytes: Option<u64>,
    directory: PathBuf,
}

/// Runs the figures; true if all could be measured.
pub(crate) fn run_figures(options: &Options) -> Result<bool> {
    if options.names == ["list"] {
        for Figure { name, about, .. } in FIGURES {
            println!("{name:<17} {about}");
        }
        return Ok(true);
    }
    for name in &options.names {
        ensure!(
            FIGURES.iter().any(|figure| figure.is_meant_by(name)),
            "there is no figure {name}; `cargo xtask bench list` names them"
        );
    }
    let workspace = Workspace::load()?;
    if !options.no_build {
        run(&mut workspace.cargo("build --release -p aquifer"))?;
        run(&mut workspace.cargo("build --release -p aquifer-stream -p aquifer-chunk --examples"))?;
    }
    let directory = workspace.target.join("bench");
    std::fs::create_dir_all(&directory)?;
    let samples = options.samples.clone().unwrap_or_else(|| workspace.root.join("../shared/data"));
    let context = Context {
        workspace,
        quick: options.quick,
        full: options.full,
        samples,
        bytes: options.bytes,
        directory,
    };
    let mut good = true;
    println!("{}\n", machine(&context.directory));
    for figure in FIGURES {
        let Figure { name, about, run } = figure;
        if !options.names.is_empty() && !options.names.iter().any(|of| figure.is_meant_by(of)) {
            continue;
        }
        println!("── {name}: {about}");
        let load = load_average();
        match run(&context) {
            Ok(table) => {
                let text = format!(
                    "{table}\nLoad of the machine before and after: {load} and {}.\n",
                    load_average()
                );
                println!("\n{text}");
                std::fs::write(context.directory.join(format!("{name}.md")), text)?;
            }
            Err(error) => {
                good = false;
                println!("{name} was not measured: {error:#}\n");
            }
        }
    }
    Ok(good)
}

impl Context {
    /// A value for each of `--quick`, neither, and `--full`.
    fn pick<T>(&self, quick: T, normal: T, full: T) -> T {
        if self.quick {
            quick
        } else if self.full {
            full
        } else {
            normal
        }
    }

    /// The bytes of a volume: what `--bytes` says, else as [`Self::pick`].
    fn bytes(&self, quick: u64, normal: u64, full: u64) -> u64 {
        self.bytes.unwrap_or_else(|| self.pick(quick, normal, full))
    }

    fn is_quick(&self) -> bool {
        self.quick
    }

    /// How often both sides of a ratio are measured.
    fn pairs(&self) -> usize {
        self.pick(3, 5, 5)
    }

    /// A fresh directory on the disk of all figures, removed when dropped.
    fn temporary(&self, name: &str) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(&self.directory)?)
    }

    /// A server of the release build with its data in `directory`.
    fn server(&self, directory: &Path) -> Result<server::Options> {
        let binary = self.workspace.target.join("release/aquifer");
        ensure!(binary.is_file(), "{} was not built", binary.display());
        Ok(server::Options::new(binary, directory))
    }

    /// Runs a release example of a crate and returns the objects of its lines
    /// that begin with `figures`.
    fn example(&self, name: &str, arguments: &[&str]) -> Result<Vec<Value>> {
        let text = self.example_text(name, arguments)?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("figures "));
        let figures: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        if figures.is_empty() {
            bail!("{name} printed no figures: {text}");
        }
        Ok(figures)
    }

    /// What a release example of a crate prints.
    fn example_text(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let binary = self.workspace.target.join("release/examples").join(name);
        ensure!(binary.is_file(), "{} was not built", binary.display());
        run_quietly(Command::new(binary).args(arguments))
    }

    /// A data set of the samples.
    fn sample(&self, name: &str) -> Result<PathBuf> {
        let path = self.samples.join(name);
        ensure!(path.exists(), "there is no {}; see --samples", path.display());
        Ok(path)
    }
}

/// A number of an example's figures.
fn number(value: &Value, name: &str) -> Result<f64> {
    value[name].as_f64().with_context(|| format!("no {name} in {value}"))
}

/// A field of the example's pairs, for a median.
fn numbers(values: &[Value], pointer: &str) -> Result<Vec<f64>> {
    let number = |value: &Value| {
        let found = value.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("no {pointer} in {value}"))
    };
    values.iter().map(number).collect()
}

/// Processor, memory, disk and kernel, as they must stand beside a figure.
fn machine(directory: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, content)| content.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 20;
    let mounts = read("/proc/mounts");
    let under = |line: &&str| {
        let point = line.split(' ').nth(1).unwrap_or("?");
        directory.starts_with(point)
    };
    let mount =
        mounts.lines().filter(under).max_by_key(|line| line.split(' ').nth(1).map(str::len));
    let file_system = mount.and_then(|line| line.split(' ').nth(2)).unwrap_or("unknown").to_owned();
    format!(
        "{cores} cores of {}, {memory} GiB of memory, {file_system}, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// The load average of the last minute: what else runs is in the figures.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Seconds as a duration.
fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_figure_and_those_that_go_on_with_a_dash() {
        let meant = |name: &str| FIGURES.iter().filter(|of| of.is_meant_by(name)).count();
        assert_eq!(
            [meant("kafka"), meant("kafka-reads"), meant("kaf"), meant("idle")],
            [6, 1, 0, 1]
        );
    }

    #[test]
    fn sizes_may_have_units() {
        for (text, expected) in [
            ("10GB", Some(10_000_000_000)),
            ("3 MiB", Some(3 << 20)),
            ("12345", Some(12345)),
            ("1.5GB", None),
            ("99999999999GB", None),
            ("", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn the_document_has_a_section_for_each_figure() {
        let document = include_str!("../../../docs/performance.md");
        for Figure { name, .. } in FIGURES {
            assert!(document.contains(&format!("cargo xtask bench {name}")), "{name}");
        }
    }
}
