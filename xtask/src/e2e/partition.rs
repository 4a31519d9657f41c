//! Scenario `partition`: the network between the server and its S3 store is
//! cut, so that connections neither answer nor end. Appends and hot reads go on,
//! and within 10 s of its return everything is tiered again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::e2e::history::History;
use crate::e2e::load::{self, Writers};
use crate::e2e::proxy::{Mode, Proxy};
use crate::e2e::s3::{Store, on_s3};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;

const PARTITIONS: u32 = 2;

/// The cut lasts this long, in the quick and in the full test, in ms.
const CUT_MS: (u64, u64) = (3_000, 45_000);

/// Once the network is back, all is well within this.
const RECOVER_MAX: Duration = Duration::from_secs(10);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("partition")?;
    let store = Store::start(&python, directory.path())?;
    let proxy = Proxy::start(store.address)?;
    let server = Server::start(&on_s3(context.options(directory.path()), &proxy.url()))?;
    let client = server.client();
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    client.create_stream("load", PARTITIONS, config)?;
    let mut random = context.random(11);
    let mut history = History::new(PARTITIONS);
    let mut writers = Writers::new("load", PARTITIONS, 2);
    let cut = Duration::from_millis(context.count(CUT_MS.0, CUT_MS.1));
    let mut slowest = Duration::ZERO;
    for round in 0..2 {
        let before = history.counts().acked;
        let mut tiered_in_cut = 0;
        writers.run(&client, &mut random, &mut history, || {
            // Something is under way when the cable is pulled.
            eventually(RECOVER_MAX, || {
                ensure!(tiered(&server)? > 0, "nothing is tiered");
                Ok(())
            })?;
            proxy.set(Mode::Hold);
            let at_cut = tiered(&server)?;
            std::thread::sleep(cut);
            tiered_in_cut = tiered(&server)? - at_cut;
            Ok(())
        })?;
        // What had its answer on the way may still be committed.
        ensure!(tiered_in_cut <= 8 * 65_536 * u64::from(PARTITIONS), "the network is not cut");
        proxy.set(Mode::Forward);
        let back = Instant::now();
        eventually(RECOVER_MAX, || {
            let ready = client.readiness()?;
            ensure!(ready["tier2"] == "ok", "tier 2: {}", ready["tier2"]);
            let open = client.partitions("load")?;
            if open.iter().any(|of| of.tiered_offset < of.end_offset) {
                bail!("not tiered: {open:?}");
            }
            Ok(())
        })
        .with_context(|| format!("round {round}\n{}", server.log_tail()))?;
        slowest = slowest.max(back.elapsed());
        load::check(&client, "load", &mut history, true)
            .with_context(|| format!("after round {round}"))?;
        ensure!(history.counts().acked > before, "appends stopped in round {round}");
    }
    server.stop()?;
    let acked = history.counts().acked;
    Ok(Report::passed(format!("{acked} acked, well again after {:.1} s", slowest.as_secs_f64())))
}

/// The sum of tiered offsets.
fn tiered(server: &Server) -> Result<u64> {
    let partitions = server.client().partitions("load")?;
    Ok(partitions.iter().map(|partition| partition.tiered_offset).sum())
}
