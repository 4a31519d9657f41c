//! Scenario `s3`: tier 2 on a real S3 server (moto), through a proxy that
//! loses it for a while, and loses answers to requests that took effect.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use serde_json::json;

use crate::e2e::history::History;
use crate::e2e::load::{self, Writers};
use crate::e2e::proxy::{Mode, Proxy};
use crate::e2e::server::{Options, Server};
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;

const PARTITIONS: u32 = 2;
const BUCKET: &str = "aquifer-test";

/// Load in each phase, in the quick and in the full test.
const PHASE_MS: (u64, u64) = (1_500, 20_000);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("s3")?;
    let store = Store::start(&python, directory.path())?;
    let proxy = Proxy::start(store.address)?;
    let options = on_s3(context.options(directory.path()), &proxy.url());
    let server = Server::start(&options)?;
    let client = server.client();
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    client.create_stream("load", PARTITIONS, config)?;

    let mut random = context.random(3);
    let mut history = History::new(PARTITIONS);
    let mut writers = Writers::new("load", PARTITIONS, 2);
    let phase = Duration::from_millis(context.count(PHASE_MS.0, PHASE_MS.1));
    let mut acked = 0;
    for mode in [Mode::Forward, Mode::Refuse, Mode::Forward, Mode::LoseAnswers] {
        proxy.set(mode);
        writers.run(&client, &mut random, &mut history, || {
            // The phase lasts this long; the load is what happens in it.
            std::thread::sleep(phase);
            Ok(())
        })?;
        // Hot records stay readable whatever tier 2 does; cold ones come back
        // with it.
        proxy.set(Mode::Forward);
        if mode == Mode::Refuse {
            let status = client.get_status("/healthz")?;
            ensure!(status == 200, "/healthz is {status} without tier 2");
        }
        load::check(&client, "load", &mut history, false)
            .with_context(|| format!("after {mode:?}"))?;
        let before = std::mem::replace(&mut acked, history.counts().acked);
        ensure!(acked > before, "nothing was acknowledged during {mode:?}");
        tiered(&client, "load")
            .with_context(|| format!("after {mode:?}\n{}", server.log_tail()))?;
    }
    ensure!(proxy.lost() > 0, "no answer was lost, so nothing was tested");
    load::check(&client, "load", &mut history, true).context("out of the bucket")?;
    let chunks: u64 = client.partitions("load")?.iter().map(|partition| partition.chunks).sum();
    server.stop()?;

    // The bucket holds it all: nothing is left in the data directory's tier 2.
    let local = options.data().join("tier2");
    ensure!(!local.exists(), "{} exists beside the bucket", local.display());
    Ok(Report::passed(format!("{acked} acked, {chunks} chunks, {} answers lost", proxy.lost())))
}

/// A server whose tier 2 is the bucket at `endpoint`.
pub(crate) fn on_s3(options: Options, endpoint: &str) -> Options {
    options
        .with_arguments(&["--tier2", &format!("s3://{BUCKET}/streams")])
        .with_variable("AWS_ENDPOINT", endpoint)
        .with_variable("AWS_ALLOW_HTTP", "true")
        .with_variable("AWS_REGION", "us-east-1")
        .with_variable("AWS_ACCESS_KEY_ID", "test")
        .with_variable("AWS_SECRET_ACCESS_KEY", "test")
}

/// A moto server; killed when dropped.
pub(crate) struct Store {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Store {
    pub(crate) fn start(python: &Path, directory: &Path) -> Result<Self> {
        // Free a moment ago; another process would have to be quick.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = std::fs::File::create(directory.join("moto.log"))?;
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start moto")?;
        let mut store = Self { child, address };
        let bucket = format!("http://{address}/{BUCKET}");
        eventually(Duration::from_secs(60), || {
            if let Some(status) = store.child.try_wait()? {
                bail!("moto ended with {status}");
            }
            ureq::put(&bucket).send_empty().map(drop).context("moto does not answer")
        })?;
        Ok(store)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
