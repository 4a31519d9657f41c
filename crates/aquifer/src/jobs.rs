//! Imports, watches and exports that the server does: `aquifer watch`, `aquifer
//! jobs`, and waiting for the end of one.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::{
    JobsArguments, JobsCommand, Output, ReadingArguments, ServerArguments, WatchArguments,
    WatchCommand,
};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;
use crate::output::{self, Align, Table};

const POLL: Duration = Duration::from_millis(250);
/// Asked so often without an answer, the server is taken for gone.
const POLLS_FAILED_MAX: u32 = 240;
/// The kinds of jobs, as paths.
const KINDS: [&str; 3] = ["imports", "watches", "exports"];

pub(crate) async fn watch(arguments: WatchArguments) -> Result<(), Failure> {
    match arguments.command {
        WatchCommand::Create { stream, urls, reading, server } => {
            let mut body = reading_body(&reading);
            body.insert("stream".into(), stream.into());
            body.insert("urls".into(), urls.into());
            let client = Client::new(&server)?;
            let request = client.request(Method::POST, "/v1/watches").json(&body);
            let job = client.json(request).await?;
            match server.output {
                Output::Json => output::json(&job),
                Output::Table => output::line(&format!("watch {} goes on", id_of(&job))),
            }
        }
        WatchCommand::List { server } => list(&server, &["watches"]).await,
        WatchCommand::Pause { id, server } => pause(&server, &id, true).await,
        WatchCommand::Resume { id, server } => pause(&server, &id, false).await,
        WatchCommand::Delete { id, server } => delete(&server, &["watches"], &id).await,
    }
}

pub(crate) async fn run(arguments: JobsArguments) -> Result<(), Failure> {
    match arguments.command {
        JobsCommand::List { server } => list(&server, &KINDS).await,
        JobsCommand::Show { id, server } => {
            let client = Client::new(&server)?;
            let kind = kind_of(&client, &KINDS, &id).await?;
            output::json(&client.get(&format!("/v1/{kind}/{}", segment(&id))).await?)
        }
        JobsCommand::Delete { id, server } => delete(&server, &KINDS, &id).await,
    }
}

/// How objects become records, as the server is told it.
pub(crate) fn reading_body(reading: &ReadingArguments) -> Map<String, Value> {
    let mut body = Map::new();
    let mut given = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    given("format", reading.format.clone().map(Value::from));
    given("compression", reading.compression.clone().map(Value::from));
    given("on_error", reading.skip_errors.then(|| "skip".into()));
    given("key_field", reading.key_field.clone().map(Value::from));
    given("timestamp_field", reading.timestamp_field.clone().map(Value::from));
    given("partition", reading.partition.map(Value::from));
    given("csv_types", reading.csv_text.then(|| "text".into()));
    given("delimiter", reading.delimiter.map(|delimiter| delimiter.to_string().into()));
    body
}

pub(crate) fn id_of(job: &Value) -> &str {
    job.get("id").and_then(Value::as_str).unwrap_or("?")
}

/// Begins a job and waits for its end. Who interrupts this lets it go on.
pub(crate) async fn follow(
    server: &ServerArguments,
    kind: &str,
    body: &Map<String, Value>,
    is_detached: bool,
) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let path = format!("/v1/{kind}");
    let job = client.json(client.request(Method::POST, &path).json(body)).await?;
    let id = id_of(&job).to_owned();
    if is_detached {
        return match server.output {
            Output::Json => output::json(&job),
            Output::Table => {
                output::line(&format!("{id} goes on: `aquifer jobs show {id}` says how far it is"))
            }
        };
    }
    let path = format!("{path}/{id}");
    let waiting = wait(&client, server, &path);
    tokio::select! {
        job = waiting => report(server, &job?),
        _ = tokio::signal::ctrl_c() => Err(Failure::with_next(
            format!("{id} goes on in the server"),
            format!("`aquifer jobs show {id}` says how far it is, `aquifer jobs delete {id}` stops it"),
        )),
    }
}

async fn wait(client: &Client, server: &ServerArguments, path: &str) -> Result<Value, Failure> {
    let bar = ProgressBar::new_spinner();
    if server.output == Output::Json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut failed = 0;
    loop {
        match client.get(path).await {
            Ok(job) if job.get("state").and_then(Value::as_str) != Some("running") => {
                bar.finish_and_clear();
                return Ok(job);
            }
            Ok(job) => {
                failed = 0;
                bar.set_message(summary(&job));
                bar.tick();
            }
            // A server that is started anew goes on with it.
            Err(error) if error.is_retriable() && failed < POLLS_FAILED_MAX => failed += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn count(job: &Value, field: &str) -> u64 {
    job.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn summary(job: &Value) -> String {
    let now = job.get("now").unwrap_or(&Value::Null);
    let text = |field| now.get(field).and_then(Value::as_str);
    let mut summary = format!(
        "{} objects, {} records, {}",
        output::count(count(job, "objects")),
        output::count(count(job, "records")),
        output::bytes(count(job, "bytes"))
    );
    if let Some(object) = text("object") {
        summary.push_str(&format!("; {object}, row {}", output::count(count(now, "rows"))));
    }
    if let Some(why) = text("waiting").or_else(|| text("last_error")) {
        summary.push_str(&format!("; {why}"));
    }
    summary
}

fn report(server: &ServerArguments, job: &Value) -> Result<(), Failure> {
    let is_done = job.get("state").and_then(Value::as_str) == Some("done");
    if server.output == Output::Json {
        output::json(job)?;
    } else if is_done {
        output::line(&format!("done: {}", summary(job)))?;
        note_bad_rows(count(job, "bad_rows"), job);
    }
    if is_done {
        return Ok(());
    }
    let why = job.get("failure").and_then(Value::as_str).unwrap_or("it was given up");
    Err(Failure::with_next(
        format!("{why}; before that: {}", summary(job)),
        "mend the cause and do the same again: it goes on where this has ended",
    ))
}

/// Names the rows that were left out.
pub(crate) fn note_bad_rows(bad_rows: u64, answer: &Value) {
    if bad_rows == 0 {
        return;
    }
    output::note(&format!("{} rows were left out:", output::count(bad_rows)));
    let errors = answer.get("errors").and_then(Value::as_array);
    for error in errors.into_iter().flatten() {
        let text = |field| error.get(field).and_then(Value::as_str).unwrap_or("?");
        output::note(&format!(
            "  {}, row {}: {}",
            text("object"),
            count(error, "row"),
            text("why")
        ));
    }
}

async fn list(server: &ServerArguments, kinds: &[&str]) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let mut all = Vec::new();
    for kind in kinds {
        let mut answer = client.get(&format!("/v1/{kind}")).await?;
        let jobs = answer.get_mut(*kind).map(Value::take);
        all.extend(jobs.and_then(|jobs| jobs.as_array().cloned()).unwrap_or_default());
    }
    if server.output == Output::Json {
        return output::json(&json!({ "jobs": all }));
    }
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("kind", Align::Left),
        ("stream", Align::Left),
        ("state", Align::Left),
        ("objects", Align::Right),
        ("records", Align::Right),
        ("behind", Align::Right),
        ("what", Align::Left),
    ]);
    for job in &all {
        let text = |of: &Value, field: &str| {
            of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let work = job.get("work").and_then(Value::as_object);
        let (kind, spec) = work
            .and_then(|work| work.iter().next())
            .map_or(("?", &Value::Null), |(kind, spec)| (kind.as_str(), spec));
        let now = job.get("now").unwrap_or(&Value::Null);
        let failure = text(job, "failure");
        let what = if failure.is_empty() { text(now, "last_error") } else { failure };
        let what = if what.is_empty() { text(now, "object") } else { what };
        table.row(vec![
            id_of(job).to_owned(),
            kind.to_owned(),
            text(spec, "stream"),
            text(job, "state"),
            output::count(count(job, "objects")),
            output::count(count(job, "records")),
            output::count(count(now, "behind")),
            what,
        ]);
    }
    output::write(table.render().as_bytes())
}

/// The kind of the job that has this id.
async fn kind_of<'k>(client: &Client, kinds: &[&'k str], id: &str) -> Result<&'k str, Failure> {
    let mut refused = None;
    for kind in kinds {
        match client.get(&format!("/v1/{kind}/{}", segment(id))).await {
            Ok(_) => return Ok(kind),
            Err(RequestError::Refused(status, problem, after)) if status.as_u16() == 404 => {
                refused = Some(RequestError::Refused(status, problem, after));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(match (kinds, refused) {
        ([_], Some(error)) => error.into(),
        _ => Failure::with_next(
            format!("there is no import, watch or export {id}"),
            "`aquifer jobs list` lists what there is",
        ),
    })
}

async fn delete(server: &ServerArguments, kinds: &[&str], id: &str) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let kind = kind_of(&client, kinds, id).await?;
    client.json(client.request(Method::DELETE, &format!("/v1/{kind}/{}", segment(id)))).await?;
    match server.output {
        Output::Json => Ok(()),
        Output::Table => output::line(&format!("stopped {id}; what it did stays")),
    }
}

async fn pause(server: &ServerArguments, id: &str, is_paused: bool) -> Result<(), Failure> {
    let client = Client::new(server)?;
    let path = format!("/v1/watches/{}", segment(id));
    let request = client.request(Method::PATCH, &path).json(&json!({ "paused": is_paused }));
    let job = client.json(request).await?;
    match server.output {
        Output::Json => output::json(&job),
        Output::Table => {
            let what = if is_paused { "rests" } else { "goes on" };
            output::line(&format!("watch {id} {what}"))
        }
    }
}
