//! `aquifer stream …`.

use std::path::Path;

use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cli::{Output, ServerArguments, StreamArguments, StreamCommand};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::files::read_text;
use crate::output::{self, Align, Table, bytes, count};

pub(crate) async fn run(arguments: StreamArguments) -> Result<(), Failure> {
    match arguments.command {
        StreamCommand::Create { name, partitions, class, set, schema, server } => {
            let schema = schema.as_deref().map(json_of_file).transpose()?;
            let config = config(&set)?;
            let body = Creation { name, partitions, class, config, schema };
            let answer = send(&server, Method::POST, "/v1/streams", Some(&body)).await?;
            show_description(&server, &answer)
        }
        StreamCommand::Schema { name, add, server } => {
            let path = format!("{}/schema", path(&name));
            let answer = match add {
                None => get(&server, &path).await?,
                Some(file) => {
                    let schema = json_of_file(&file)?;
                    send(&server, Method::PATCH, &path, Some(&schema)).await?
                }
            };
            show_schema(&server, &answer)
        }
        StreamCommand::List { server } => {
            let answer = get(&server, "/v1/streams").await?;
            show_list(&server, &answer)
        }
        StreamCommand::Describe { name, server } => {
            let answer = get(&server, &path(&name)).await?;
            show_description(&server, &answer)
        }
        StreamCommand::Update { name, partitions, set, server } => {
            let mut body = Map::new();
            if let Some(partitions) = partitions {
                body.insert("partitions".into(), partitions.into());
            }
            if !set.is_empty() {
                body.insert("config".into(), config(&set)?);
            }
            let answer = send(&server, Method::PATCH, &path(&name), Some(&body)).await?;
            show_description(&server, &answer)
        }
        StreamCommand::Truncate { name, partition, offset, time, cut, all, server } => {
            let body = truncation(partition, offset, time, cut.as_deref(), all)?;
            let path = format!("{}/truncate", path(&name));
            let answer = send(&server, Method::POST, &path, Some(&body)).await?;
            show_description(&server, &answer)
        }
        StreamCommand::Delete { name, server } => {
            send(&server, Method::DELETE, &path(&name), None::<&()>).await?;
            done(&server, &format!("deleted stream {name}"))
        }
    }
}

/// The body of a creation.
#[derive(Serialize)]
struct Creation {
    name: String,
    partitions: u32,
    class: String,
    config: Value,
    /// As it was written: the order of its properties is that of the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Box<RawValue>>,
}

async fn get(server: &ServerArguments, path: &str) -> Result<Value, Failure> {
    send(server, Method::GET, path, None::<&()>).await
}

async fn send(
    server: &ServerArguments,
    method: Method,
    path: &str,
    body: Option<&(impl Serialize + ?Sized)>,
) -> Result<Value, Failure> {
    let client = Client::new(server)?;
    let mut request = client.request(method, path);
    if let Some(body) = body {
        request = request.json(body);
    }
    Ok(client.json(request).await?)
}

fn json_of_file(path: &Path) -> Result<Box<RawValue>, Failure> {
    let text = read_text(path).map_err(Failure::failed)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("{} is no JSON: {error}", path.display())))
}

fn path(name: &str) -> String {
    format!("/v1/streams/{}", segment(name))
}

fn done(server: &ServerArguments, what: &str) -> Result<(), Failure> {
    match server.output {
        Output::Table => output::line(what),
        Output::Json => Ok(()),
    }
}

/// `key=value` pairs as an object; a value that is no JSON is a string.
fn config(settings: &[String]) -> Result<Value, Failure> {
    let mut fields = Map::new();
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| {
            Failure::failed(format!("--set {setting} is not of the form field=value"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        fields.insert(name.trim().to_owned(), value);
    }
    Ok(fields.into())
}

fn truncation(
    partition: Option<u32>,
    offset: Option<i64>,
    time: Option<String>,
    cut: Option<&str>,
    all: bool,
) -> Result<Value, Failure> {
    match (partition.zip(offset), time, cut, all) {
        (Some((partition, offset)), None, None, false) => {
            Ok(json!({ "partition": partition, "offset": offset }))
        }
        (None, Some(time), None, false) => Ok(json!({ "time": time })),
        (None, None, Some(cut), false) => {
            let mut offsets = Map::new();
            for part in cut.split(',') {
                let (partition, offset) = part
                    .split_once(':')
                    .and_then(|(partition, offset)| Some((partition, offset.parse::<i64>().ok()?)))
                    .ok_or_else(|| {
                        Failure::failed(format!("--cut {cut} is not of the form 0:15,1:7"))
                    })?;
                offsets.insert(partition.to_owned(), offset.into());
            }
            Ok(json!({ "cut": offsets }))
        }
        (None, None, None, true) => Ok(json!({ "all": true })),
        _ => Err(Failure::with_next(
            "say where to truncate in exactly one way",
            "use --partition N --offset N, --time TIME, --cut 0:15,1:7 or --all",
        )),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn show_list(server: &ServerArguments, answer: &Value) -> Result<(), Failure> {
    if server.output == Output::Json {
        return output::json(answer);
    }
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("class", Align::Left),
        ("partitions", Align::Right),
        ("records", Align::Right),
        ("size", Align::Right),
    ]);
    for stream in list(answer, "streams") {
        let field = |name| stream.get(name).map(text).unwrap_or_default();
        table.row(vec![
            field("name"),
            field("class"),
            count(number(stream, "partition_count")),
            count(number(stream, "records")),
            bytes(number(stream, "bytes")),
        ]);
    }
    output::write(table.render().as_bytes())
}

fn show_description(server: &ServerArguments, stream: &Value) -> Result<(), Failure> {
    if server.output == Output::Json {
        return output::json(stream);
    }
    let mut out = String::new();
    let field = |name| stream.get(name).map(text).unwrap_or_default();
    for name in ["name", "id", "class"] {
        out.push_str(&format!("{name:<20}{}\n", field(name)));
    }
    for (name, value) in stream.get("config").and_then(Value::as_object).into_iter().flatten() {
        let value = if value.is_null() { "none".to_owned() } else { text(value) };
        out.push_str(&format!("{name:<20}{value}\n"));
    }
    out.push('\n');
    let mut table = Table::new(&[
        ("partition", Align::Right),
        ("start", Align::Right),
        ("tiered", Align::Right),
        ("stable", Align::Right),
        ("end", Align::Right),
        ("chunks", Align::Right),
        ("size", Align::Right),
    ]);
    for partition in list(stream, "partitions") {
        let cell = |name| count(number(partition, name));
        table.row(vec![
            cell("partition"),
            cell("start_offset"),
            cell("tiered_offset"),
            cell("stable_offset"),
            cell("end_offset"),
            cell("chunks"),
            bytes(number(partition, "bytes")),
        ]);
    }
    out.push_str(&table.render());
    output::write(out.as_bytes())
}

fn show_schema(server: &ServerArguments, answer: &Value) -> Result<(), Failure> {
    if server.output == Output::Json {
        return output::json(answer);
    }
    let mut table = Table::new(&[
        ("id", Align::Right),
        ("field", Align::Left),
        ("kind", Align::Left),
        ("since", Align::Right),
        ("declared", Align::Left),
    ]);
    for field in list(answer, "fields") {
        let cell = |name| field.get(name).map(text).unwrap_or_default();
        let is_declared = field.get("declared").and_then(Value::as_bool).unwrap_or_default();
        let declared = if is_declared { "yes" } else { "no" };
        table.row(vec![cell("id"), cell("path"), cell("kind"), cell("since"), declared.to_owned()]);
    }
    output::write(table.render().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_json_or_text() {
        let given = ["retention_ms=null", "chunk_target_bytes=65536", "index=none"];
        let given = given.map(str::to_owned);
        assert_eq!(
            config(&given).unwrap(),
            json!({ "retention_ms": null, "chunk_target_bytes": 65536, "index": "none" })
        );
        assert!(config(&["retention".to_owned()]).is_err());
    }

    #[test]
    fn a_truncation_says_one_thing() {
        assert_eq!(
            truncation(None, None, None, Some("0:5,2:7"), false).unwrap(),
            json!({ "cut": { "0": 5, "2": 7 } })
        );
        assert!(truncation(None, None, None, Some("0-5"), false).is_err());
        assert!(truncation(None, None, None, None, false).is_err());
        assert!(truncation(Some(1), Some(2), None, None, true).is_err());
    }
}
