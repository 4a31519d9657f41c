//! Scenario `search`: real logs, searched by words, phrases, fields and times,
//! while they are in memory, in files, and in files with an index; against a
//! plain look at every record. Pages hold while appends go on, and a histogram's
//! bars are what a search counts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aquifer_testkit::load_records;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::e2e::client::{Client, segment};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const STREAM: &str = "logs";
const PARTITIONS: u32 = 3;
/// What is searched, below the workspace.
const SAMPLES: [&str; 3] =
    ["../shared/data/auth.log", "../shared/data/k8s_audit", "../shared/data/github_events.ndjson"];
/// Records of each sample.
const RECORDS_MAX: usize = 2_000;
/// The time of the first record, and how far each is from the one before.
const START_MS: i64 = 1_767_225_600_000;
const STEP_MS: i64 = 250;
/// Indexes of all chunks are there within this.
const INDEXED_MAX: Duration = Duration::from_secs(60);

/// A record as it was appended.
struct Sent {
    time: i64,
    text: String,
    tokens: BTreeSet<String>,
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let (sent, gap) = samples(&context.workspace.root)?;
    let directory = context.directory("search")?;
    let options = context.options(directory.path());
    let server = Server::start(&options)?;
    let client = server.client();
    let mut random = context.random(31);

    client.create_stream(STREAM, PARTITIONS, json!({ "chunk_max_age_ms": 3_600_000 }))?;
    append(&client, &sent)?;
    check_all(&client, &sent, &mut random).context("in memory")?;
    update(&client, &json!({ "config": { "chunk_max_age_ms": 200 } }))?;
    check_all(&client, &sent, &mut random).context("on the way into files")?;
    tiered(&client, STREAM)?;
    check_all(&client, &sent, &mut random).context("in files")?;
    let pruned = indexed(&client, &sent)?;
    check_all(&client, &sent, &mut random).context("in files with an index")?;

    check_pages(&client, &sent).context("pages while appends go on")?;
    check_fresh(&client).context("what was just acknowledged")?;
    check_errors(&client).context("errors")?;
    check_events(&client, &sent).context("a histogram in events")?;
    check_command(context, &server, &sent).context("aquifer search")?;
    server.stop()?;
    let report = Report::passed(format!(
        "{} records; a word in one of them read {pruned} bytes of files",
        sent.len()
    ));
    Ok(match gap {
        Some(gap) => report.with_gap(gap),
        None => report,
    })
}

/// Real records, or some of our own.
fn samples(root: &Path) -> Result<(Vec<Sent>, Option<String>)> {
    let mut texts = Vec::new();
    let mut gap = None;
    for sample in SAMPLES {
        match load_records(&root.join(sample)) {
            Ok(records) => {
                let records = records.into_iter().take(RECORDS_MAX);
                texts.extend(records.filter_map(|record| String::from_utf8(record).ok()));
            }
            Err(error) => gap = Some(format!("{sample} cannot be read: {error}")),
        }
    }
    if texts.is_empty() {
        texts.extend((0..RECORDS_MAX).map(|n| format!("sshd[{n}]: session {} closed", n % 7)));
        texts.extend(
            (0..RECORDS_MAX).map(|n| json!({ "verb": "get", "code": n % 600 }).to_string()),
        );
    }
    let sent = texts.into_iter().enumerate().map(|(place, text)| Sent {
        time: START_MS + place as i64 * STEP_MS,
        tokens: tokens(&text).into_iter().collect(),
        text,
    });
    Ok((sent.collect(), gap))
}

/// What a word is, said once more in the simplest way. Escapes of JSON other
/// than `\n`, `\t` and the like are not in what this is used for.
fn tokens(text: &str) -> Vec<String> {
    let plain =
        ["\\n", "\\t", "\\r", "\\b", "\\f"].iter().fold(text.to_owned(), |text, escape| match text
            .starts_with('{')
        {
            true => text.replace(escape, "  "),
            false => text,
        });
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let words = plain.split(|c| !is_letter(c)).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// All records, a thousand a request, to the partitions in turn.
fn append(client: &Client, sent: &[Sent]) -> Result<()> {
    for (number, records) in sent.chunks(500).enumerate() {
        let partition = number as u32 % PARTITIONS;
        let records: Vec<Value> = records
            .iter()
            .map(|r| json!({ "value": r.text, "timestamp": r.time, "partition": partition }))
            .collect();
        client.append_json(STREAM, &json!({ "records": records }))?;
    }
    Ok(())
}

fn update(client: &Client, body: &Value) -> Result<()> {
    client.patch(&format!("/v1/streams/{STREAM}"), body)
}

fn get(client: &Client, path: &str) -> Result<Value> {
    let text = client.get_text(&format!("/v1/streams/{STREAM}/{path}"))?;
    serde_json::from_str(&text).with_context(|| text.chars().take(300).collect::<String>())
}

/// All hits of a query, page by page; the times of each.
fn find(client: &Client, query: &str, limit: usize) -> Result<Vec<(i64, String)>> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(
            client,
            &format!("search?q={}&limit={limit}&after={}", segment(query), segment(&after)),
        )?;
        for hit in page["hits"].as_array().context("no hits")? {
            let time = hit["timestamp"].as_i64().context("no timestamp")?;
            found.push((time, hit["value"].as_str().unwrap_or_default().to_owned()));
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return Ok(found),
        }
    }
}

/// What a query finds must be what a look at all records finds.
fn check(
    client: &Client,
    sent: &[Sent],
    query: &str,
    limit: usize,
    fits: impl Fn(&Sent) -> bool,
) -> Result<()> {
    let mut expected: Vec<(i64, String)> =
        sent.iter().filter(|record| fits(record)).map(|r| (r.time, r.text.clone())).collect();
    expected.reverse();
    let found = find(client, query, limit)?;
    ensure!(
        found == expected,
        "{query} finds {} records, there are {}",
        found.len(),
        expected.len()
    );
    let counted = get(client, &format!("search?q={}&limit=1&total=true", segment(query)))?;
    ensure!(
        counted["total"] == json!({ "value": expected.len(), "relation": "eq" }),
        "{query} counts {}, there are {}",
        counted["total"],
        expected.len()
    );
    let bars = get(client, &format!("histogram?q={}&buckets=50", segment(query)))?;
    let sum: u64 = bars["buckets"]
        .as_array()
        .context("no buckets")?
        .iter()
        .filter_map(|bar| bar["count"].as_u64())
        .sum();
    ensure!(
        bars["complete"] == true && sum == expected.len() as u64 && bars["total"] == sum,
        "{query}: the histogram has {sum} of {}",
        expected.len()
    );
    Ok(())
}

fn check_all(client: &Client, sent: &[Sent], random: &mut StdRng) -> Result<()> {
    // Escaped quotes and characters are the matcher's own tests' matter.
    let simple: Vec<&Sent> = sent.iter().filter(|sent| !sent.text.contains('\\')).collect();
    for _ in 0..6 {
        let record = simple.choose(random).context("no records")?;
        let words = tokens(&record.text);
        let word = words.choose(random).context("no words")?;
        check(client, sent, word, 500, |sent| sent.tokens.contains(word))?;
        let rare = record.tokens.iter().max_by_key(|word| word.len()).context("no words")?;
        check(client, sent, rare, 100, |sent| sent.tokens.contains(rare))?;
        let start: String = rare.chars().take(5).collect();
        check(client, sent, &format!("{start}*"), 1000, |sent| {
            sent.tokens.iter().any(|token| token.starts_with(&start))
        })?;
        let at = random.random_range(0..words.len());
        let phrase = words.get(at..(at + 3).min(words.len())).unwrap_or_default().to_vec();
        check(client, sent, &format!("\"{}\"", phrase.join(" ")), 1000, |sent| {
            tokens(&sent.text).windows(phrase.len()).any(|window| window == phrase)
        })?;
    }
    check_fields(client, sent)?;
    let (from, to) = (START_MS + 100 * STEP_MS, START_MS + 900 * STEP_MS);
    check(client, sent, &format!("_timestamp:[{from} TO {to}}}"), 250, |sent| {
        (from..to).contains(&sent.time)
    })?;
    check(client, sent, &format!("_timestamp:<{from} -session"), 250, |sent| {
        sent.time < from && !sent.tokens.contains("session")
    })
}

fn check_fields(client: &Client, sent: &[Sent]) -> Result<()> {
    let field = |sent: &Sent, pointer: &str| {
        serde_json::from_str::<Value>(&sent.text).ok()?.pointer(pointer).cloned()
    };
    check(client, sent, "verb:get", 300, |sent| field(sent, "/verb") == Some(json!("get")))?;
    check(client, sent, "responseStatus.code:>=400", 300, |sent| {
        field(sent, "/responseStatus/code").and_then(|code| code.as_i64()).is_some_and(|c| c >= 400)
    })?;
    check(client, sent, "responseStatus.code:200", 300, |sent| {
        field(sent, "/responseStatus/code") == Some(json!(200))
    })?;
    check(client, sent, "type:=PushEvent public:true", 300, |sent| {
        field(sent, "/type") == Some(json!("PushEvent"))
            && field(sent, "/public") == Some(json!(true))
    })
}

/// Waits until a word that is in one record is found by reading less than half of
/// what a look at everything reads.
fn indexed(client: &Client, sent: &[Sent]) -> Result<u64> {
    let words = |sent: &Sent| sent.tokens.clone();
    let rare = sent.iter().flat_map(words).max_by_key(String::len).context("no words")?;
    // No index knows what stands in the middle of a word.
    let inner: String = rare.chars().skip(1).collect();
    eventually(INDEXED_MAX, || {
        let all = bytes_read(client, &format!("*{inner}"))?;
        let read = bytes_read(client, &rare)?;
        if read * 2 > all {
            bail!("a word in one record reads {read} bytes, a look at everything {all}");
        }
        Ok(read)
    })
}

/// The bytes of tier 2 that counting what matches a query takes.
fn bytes_read(client: &Client, query: &str) -> Result<u64> {
    let path = format!("/v1/streams/{STREAM}/histogram?q={}", segment(query));
    let text = client.get_as(&path, "text/event-stream")?;
    let done = text.split("\n\n").find_map(|event| event.strip_prefix("event: done\ndata: "));
    let done: Value = serde_json::from_str(done.with_context(|| text.clone())?)?;
    done["bytes_read"].as_u64().context("no bytes_read")
}

/// No page shifts when records are appended meanwhile.
fn check_pages(client: &Client, sent: &[Sent]) -> Result<()> {
    let is_over = AtomicBool::new(false);
    let path = format!("/v1/streams/{STREAM}/records");
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| -> Result<u64> {
            let mut appended = 0;
            while !is_over.load(Ordering::Relaxed) {
                if let Some(refusal) = client.post(&path, "text/plain", "a later record\n")? {
                    bail!("an append is refused: {refusal:?}");
                }
                appended += 1;
            }
            Ok(appended)
        });
        let found = find(client, "", 97);
        is_over.store(true, Ordering::Relaxed);
        let appended = appending.join().map_err(|_| anyhow::anyhow!("the appends panicked"))??;
        let mut found = found?;
        ensure!(found.is_sorted_by(|a, b| a.0 >= b.0), "hits are out of order");
        found.retain(|(_, text)| text != "a later record");
        let expected: Vec<_> = sent.iter().rev().map(|r| (r.time, r.text.clone())).collect();
        ensure!(found == expected, "{} of {} records are on pages", found.len(), expected.len());
        ensure!(appended > 0, "nothing was appended meanwhile");
        Ok(())
    })
}

/// The next search finds what was acknowledged before it.
fn check_fresh(client: &Client) -> Result<()> {
    for number in 0..20 {
        let needle = format!("fresh{number}needle");
        let body = json!({ "records": [{ "value": format!("a {needle}") }] });
        client.append_json(STREAM, &body)?;
        let found = find(client, &needle, 5)?;
        ensure!(found.len() == 1, "{needle} is found {} times", found.len());
    }
    Ok(())
}

fn check_errors(client: &Client) -> Result<()> {
    let check = |path: &str, status: u16, kind: &str| -> Result<()> {
        let (found, text) = client.get_any(&format!("/v1/streams/{path}"))?;
        let problem: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let name = format!("urn:aquifer:problem:{kind}");
        ensure!(found == status && problem["type"] == name, "{path}: {found} {text}");
        Ok(())
    };
    check("logs/search?q=a%20(b", 400, "search-syntax")?;
    check("logs/search?after=nonsense", 400, "search-cursor")?;
    check("logs/search?query=a", 400, "invalid-request")?;
    check("logs/search?limit=100000", 400, "invalid-request")?;
    check("logs/search?from=yesterday", 400, "invalid-request")?;
    check("logs/histogram?buckets=0", 400, "invalid-request")?;
    check("absent/search?q=a", 404, "unknown-table")
}

fn check_events(client: &Client, sent: &[Sent]) -> Result<()> {
    let path = format!("/v1/streams/{STREAM}/histogram?q=session&top=verb,_partition");
    let text = client.get_as(&path, "text/event-stream")?;
    let last = text
        .rsplit("\n\n")
        .find_map(|event| event.strip_prefix("event: histogram\ndata: "))
        .with_context(|| format!("no histogram in {text}"))?;
    let last: Value = serde_json::from_str(last)?;
    let expected = sent.iter().filter(|sent| sent.tokens.contains("session")).count();
    ensure!(last["complete"] == true && last["total"] == expected, "{last}");
    let values = last["top"]["_partition"]["values"].as_array().context("no top values")?;
    let sum: u64 = values.iter().filter_map(|value| value["count"].as_u64()).sum();
    ensure!(sum == expected as u64, "{sum} records have a partition, of {expected}");
    ensure!(text.contains("event: done\n"), "no end in {text}");
    Ok(())
}

fn check_command(context: &Context, server: &Server, sent: &[Sent]) -> Result<()> {
    let words = |sent: &Sent| sent.tokens.clone();
    let rare = sent.iter().flat_map(words).max_by_key(String::len).context("no words")?;
    let command = |output: &str| {
        let mut command = std::process::Command::new(&context.binary);
        command.args(["search", STREAM, &rare, "--limit", "10000", "--total"]);
        command.args(["--output", output, "--url", server.url()]);
        run_quietly(&mut command)
    };
    let expected: Vec<&str> = sent
        .iter()
        .rev()
        .filter(|sent| sent.tokens.contains(&rare))
        .map(|sent| sent.text.as_str())
        .collect();
    let text = command("table")?;
    ensure!(text.lines().collect::<Vec<_>>() == expected, "aquifer search prints {text}");
    let lines = command("json")?;
    let values =
        lines.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?["value"].clone()));
    let values: Vec<Value> = values.collect::<Result<_>>()?;
    ensure!(values == expected, "aquifer search --output json prints {lines}");
    Ok(())
}
