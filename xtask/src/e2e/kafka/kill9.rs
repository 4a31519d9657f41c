//! Scenario `kafka_kill9`: idempotent producers stay while the server dies and
//! comes back on its port. What they were told is there, once and in order.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::scripts::{SCRIPT_MAX, Scripts};
use crate::e2e::client::Client;
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;

const PARTITIONS: u32 = 4;
const PRODUCERS: usize = 2;

/// Deaths in the quick and in the full test.
const KILLS: (u64, u64) = (3, 50);

/// Producers are known to be back once so many new records are there.
const PROGRESS: u64 = 100;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_kill9")?;
    let scripts = match Scripts::write(context, directory.path())? {
        Ok(scripts) => scripts,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let mut random = context.random(1);
    let options = context.options(directory.path()).with_fixed_kafka_port(&mut random)?;
    let mut server = Server::start(&options)?;
    let bootstrap = server.kafka()?;
    // Small and young chunks, so that deaths fall into tiering too.
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    server.client().create_stream("load", PARTITIONS, config)?;

    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(Producer::start(&scripts, &bootstrap, number)?);
    }
    let kills = context.count(KILLS.0, KILLS.1);
    for kill in 0..kills {
        progress(&server.client()).with_context(|| format!("before kill {kill}"))?;
        // The load itself: it runs for this long, then the process dies.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=500)));
        server.kill9()?;
        server = Server::start(&options)?;
    }
    progress(&server.client()).context("after the last kill")?;
    let mut files = Vec::new();
    for producer in producers {
        files.push(producer.stop()?.display().to_string());
    }
    let partitions = PARTITIONS.to_string();
    let mut arguments = vec!["verify", "load", &partitions];
    arguments.extend(files.iter().map(String::as_str));
    let acknowledged = scripts.run("kill9.py", &bootstrap, &arguments)?;
    ensure!(acknowledged.trim() != "0", "nothing was acknowledged");
    // Again, now out of chunks.
    tiered(&server.client(), "load")?;
    scripts.run("kill9.py", &bootstrap, &arguments).context("after tiering")?;
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    Ok(Report::passed(format!("{kills} kills, {} acked", acknowledged.trim())))
}

/// Waits until records come in.
fn progress(client: &Client) -> Result<()> {
    let end =
        || -> Result<u64> { Ok(client.partitions("load")?.iter().map(|of| of.end_offset).sum()) };
    let before = end()?;
    eventually(SCRIPT_MAX, || {
        let now = end()?;
        ensure!(now >= before + PROGRESS, "{} records came in", now - before);
        Ok(())
    })
}

/// A process of kill9.py; killed when dropped.
struct Producer {
    child: Child,
    acknowledged: PathBuf,
}

impl Producer {
    fn start(scripts: &Scripts, bootstrap: &str, number: usize) -> Result<Self> {
        let acknowledged = scripts.directory().join(format!("acknowledged-{number}"));
        let name = format!("producer-{number}");
        let partitions = PARTITIONS.to_string();
        let child = scripts
            .command("kill9.py", bootstrap, &["produce", "load", &name, &partitions])
            .stdin(Stdio::null())
            .stdout(File::create(&acknowledged)?)
            .spawn()?;
        Ok(Self { child, acknowledged })
    }

    /// Lets it end in peace; the file of what it was told.
    fn stop(mut self) -> Result<PathBuf> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        eventually(SCRIPT_MAX, || match self.child.try_wait()? {
            Some(status) if status.success() => Ok(self.acknowledged.clone()),
            Some(status) => bail!("a producer ended with {status}"),
            None => bail!("a producer does not end"),
        })
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
