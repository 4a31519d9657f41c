//! Scenario `limits`: what is throttled answers 429 with a problem that a program
//! can act on, and the same request is taken later.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::e2e::client::{Client, Refusal};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;

const APPEND_RECORDS: usize = 400;

/// Far more appends than the reserved offsets last for.
const APPENDS_MAX: usize = 10_000;

/// What was throttled is taken within this.
const RESUME_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("limits")?;
    let options = context
        .options(directory.path())
        .with_settings(&["store.partitions_max=4", "store.manifest_offsets_ahead=1024"]);
    let server = Server::start(&options)?;
    let client = server.client();
    client.create_stream("s", 2, json!({ "chunk_max_age_ms": 200 }))?;
    let body = json!({ "name": "many", "partitions": 3 }).to_string();
    let refusal = client.post("/v1/streams", "application/json", &body)?;
    check(refusal, "partitions_max")?;

    // Offsets are given only as far ahead as manifests in tier 2 name.
    let refusal = (0..APPENDS_MAX).find_map(|_| append(&client).transpose());
    check(refusal.transpose()?, "manifest_offsets_ahead")?;
    let end = client.partitions("s")?[0].end_offset;
    eventually(RESUME_MAX, || match append(&client)? {
        None => Ok(()),
        Some(refusal) => bail!("{refusal:?}"),
    })?;
    ensure!(
        client.partitions("s")?[0].end_offset == end + APPEND_RECORDS as u64,
        "a refused append left something"
    );
    server.stop()?;
    Ok(Report::passed("429 for streams and for appends"))
}

fn append(client: &Client) -> Result<Option<Refusal>> {
    let lines = "line\n".repeat(APPEND_RECORDS);
    client.post("/v1/streams/s/records?partition=0", "text/plain", &lines)
}

fn check(refusal: Option<Refusal>, limit: &str) -> Result<()> {
    let Some(refusal) = refusal else { bail!("{limit} is no limit") };
    ensure!(
        refusal.status == 429
            && refusal.kind == "urn:aquifer:problem:throttled"
            && refusal.retry_after.is_some_and(|seconds| seconds > 0)
            && refusal.media_type == "application/problem+json"
            && refusal.detail.contains(limit)
            && !refusal.next.is_empty(),
        "{refusal:?}"
    );
    Ok(())
}
