//! `aquifer verify` and `aquifer recover`: work on a data directory that no
//! server uses.

use std::sync::Arc;
use std::sync::Mutex;

use aquifer_stream::{
    Environment, Finding, RecoverReport, VerifyProgress, VerifyReport, recover_from,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{Output, RecoverArguments, VerifyArguments};
use crate::config;
use crate::failure::Failure;
use crate::output::{self, Align, Table};

/// Gaps that are listed for people; programs get them all.
const GAPS_LISTED_MAX: usize = 20;

pub(crate) async fn verify(arguments: VerifyArguments) -> Result<(), Failure> {
    let config = config::of_arguments(&arguments.config)?;
    let data = config.store.data.display().to_string();
    let bar = Bar::new();
    let told = bar.clone();
    let on_progress = Arc::new(move |at: VerifyProgress| told.at(at.what, at.done, at.total));
    let report = aquifer_stream::verify(config.store, Environment::real(), on_progress)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    bar.finish();
    match arguments.output {
        Output::Json => output::json(&verify_json(&report))?,
        Output::Table => verify_table(&report)?,
    }
    if report.is_sound() {
        return Ok(());
    }
    let is_elsewhere = report.chunks == 0
        && report.findings.iter().all(|finding| finding.what.contains("not there"));
    let next = if is_elsewhere {
        "no chunk is there at all: name the tier 2 that the server uses with --tier2 URL"
    } else {
        "keep the directory as it is; `aquifer recover --from URL --data NEW` rebuilds what tier 2 has"
    };
    Err(Failure::with_next(format!("{} findings in {data}", report.findings.len()), next))
}

fn verify_table(report: &VerifyReport) -> Result<(), Failure> {
    for finding in &report.findings {
        output::line(&match finding.range {
            Some((from, to)) => {
                format!("{}: bytes {from} to {to}: {}", finding.place, finding.what)
            }
            None => format!("{}: {}", finding.place, finding.what),
        })?;
    }
    output::line(&format!(
        "journal: {} groups, {} batches, {}; {} torn off the end at the next start",
        output::count(report.journal_groups),
        output::count(report.batches),
        output::bytes(report.journal_bytes),
        output::bytes(report.torn_bytes),
    ))?;
    output::line(&format!(
        "tier 2: {} chunks, {} records, {}; {} search indexes, {}; {} manifests, {} snapshots",
        output::count(report.chunks),
        output::count(report.chunk_records),
        output::bytes(report.chunk_bytes),
        output::count(report.indexes),
        output::bytes(report.index_bytes),
        report.manifests,
        report.snapshots,
    ))?;
    if report.is_sound() {
        output::line("every byte is as it was written")?;
    }
    Ok(())
}

fn verify_json(report: &VerifyReport) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "place": finding.place,
            "from": finding.range.map(|(from, _)| from),
            "to": finding.range.map(|(_, to)| to),
            "what": finding.what,
        })
    };
    json!({
        "sound": report.is_sound(),
        "journal_groups": report.journal_groups,
        "journal_bytes": report.journal_bytes,
        "batches": report.batches,
        "torn_bytes": report.torn_bytes,
        "snapshots": report.snapshots,
        "manifests": report.manifests,
        "chunks": report.chunks,
        "chunk_bytes": report.chunk_bytes,
        "chunk_records": report.chunk_records,
        "indexes": report.indexes,
        "index_bytes": report.index_bytes,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

pub(crate) async fn recover(arguments: RecoverArguments) -> Result<(), Failure> {
    let config = config::of_arguments(&arguments.config)?;
    let data = config.store.data.display().to_string();
    let bar = Bar::new();
    let told = bar.clone();
    let report =
        recover_from(&arguments.from, config.store, Environment::real(), move |done, all| {
            told.at("footers", done, all);
        })
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    bar.finish();
    match arguments.output {
        Output::Json => output::json(&recover_json(&report)),
        Output::Table => recover_table(&report, &arguments.from, &data),
    }
}

fn recover_table(report: &RecoverReport, from: &str, data: &str) -> Result<(), Failure> {
    for warning in &report.warnings {
        output::line(&format!("warning: {warning}"))?;
    }
    output::line(&format!(
        "recovered {} streams, {} partitions, {} chunks, {} records and {} group positions from {}",
        report.streams,
        output::count(report.partitions),
        output::count(report.chunks),
        output::count(report.records),
        report.group_positions,
        report.manifest.as_deref().unwrap_or("the footers of chunks alone"),
    ))?;
    if report.left_alone > 0 {
        output::line(&format!("left {} objects alone: they fit nowhere", report.left_alone))?;
    }
    if !report.gaps.is_empty() {
        let mut table = Table::new(&[
            ("STREAM", Align::Left),
            ("PARTITION", Align::Right),
            ("RECOVERED TO", Align::Right),
            ("END SEEN", Align::Right),
            ("GOES ON AT", Align::Right),
        ]);
        for gap in report.gaps.iter().take(GAPS_LISTED_MAX) {
            table.row(vec![
                gap.stream.to_string(),
                gap.partition.to_string(),
                gap.recovered_offset.to_string(),
                gap.seen_end_offset.map_or("unknown".into(), |end| end.to_string()),
                gap.next_offset.to_string(),
            ]);
        }
        output::line(table.render().trim_end())?;
        if report.gaps.len() > GAPS_LISTED_MAX {
            let more = report.gaps.len() - GAPS_LISTED_MAX;
            output::line(&format!("and {more} partitions more (--output json has all)"))?;
        }
    }
    output::line("what was only in the journal is lost: everything behind RECOVERED TO")?;
    output::line(&format!("start it: aquifer serve --data {data} --tier2 {from}"))
}

fn recover_json(report: &RecoverReport) -> serde_json::Value {
    let gaps: Vec<_> = report
        .gaps
        .iter()
        .map(|gap| {
            json!({
                "tenant": gap.stream.tenant,
                "stream": gap.stream.name,
                "partition": gap.partition,
                "start_offset": gap.start_offset,
                "recovered_offset": gap.recovered_offset,
                "seen_end_offset": gap.seen_end_offset,
                "next_offset": gap.next_offset,
            })
        })
        .collect();
    json!({
        "epoch": report.epoch,
        "manifest": report.manifest,
        "streams": report.streams,
        "partitions": report.partitions,
        "chunks": report.chunks,
        "records": report.records,
        "groups": report.groups,
        "group_positions": report.group_positions,
        "left_alone": report.left_alone,
        "gaps": gaps,
        "warnings": report.warnings,
    })
}

/// A progress bar on standard error, where that is a terminal.
#[derive(Clone)]
struct Bar {
    bar: ProgressBar,
    what: Arc<Mutex<&'static str>>,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:8} {wide_bar} {percent:>3} % {eta:>5}")
        {
            bar.set_style(style);
        }
        Self { bar, what: Arc::default() }
    }

    fn at(&self, what: &'static str, done: u64, total: u64) {
        if let Ok(mut before) = self.what.lock()
            && *before != what
        {
            *before = what;
            self.bar.reset();
            self.bar.set_message(what);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
