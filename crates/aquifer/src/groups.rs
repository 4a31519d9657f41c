//! `aquifer group …`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::{GroupArguments, GroupCommand, Output, ServerArguments};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{self, Align, Table, count};

/// What stands where there is nothing.
const NONE: &str = "-";

pub(crate) async fn run(arguments: GroupArguments) -> Result<(), Failure> {
    match arguments.command {
        GroupCommand::List { server } => {
            let answer = Client::new(&server)?.get("/v1/groups").await?;
            show(&server, &answer, list)
        }
        GroupCommand::Describe { name, server } => {
            let answer = Client::new(&server)?.get(&path(&name)).await?;
            show(&server, &answer, description)
        }
        GroupCommand::Reset { name, to, stream, partition, execute, server } => {
            let body = reset(&to, stream.as_deref(), &partition, execute);
            let client = Client::new(&server)?;
            let request = client.request(Method::POST, &format!("{}/reset", path(&name)));
            let answer = client.json(request.json(&body)).await?;
            show(&server, &answer, moves)
        }
        GroupCommand::Delete { name, server } => {
            let client = Client::new(&server)?;
            client.json(client.request(Method::DELETE, &path(&name))).await?;
            match server.output {
                Output::Json => Ok(()),
                Output::Table => output::line(&format!("deleted group {name}")),
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/groups/{}", segment(name))
}

fn show(
    server: &ServerArguments,
    answer: &Value,
    render: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    match server.output {
        Output::Json => output::json(answer),
        Output::Table => output::write(render(answer).as_bytes()),
    }
}

/// What is asked for. A number is an offset, all else is for the server to read.
fn reset(to: &str, stream: Option<&str>, partitions: &[u32], execute: bool) -> Value {
    let to = to.parse::<i64>().map_or_else(|_| to.into(), Value::from);
    let mut body = Map::from_iter([("to".into(), to), ("execute".into(), execute.into())]);
    if let Some(stream) = stream {
        body.insert("stream".into(), stream.into());
    }
    if !partitions.is_empty() {
        body.insert("partitions".into(), json!(partitions));
    }
    body.into()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NONE.to_owned(),
        Some(Value::String(text)) if text.is_empty() => NONE.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => {
            number.as_u64().map_or_else(|| number.to_string(), output::count)
        }
        Some(other) => other.to_string(),
    }
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What there is by stream and partition, in the order of the partitions.
fn by_partition(answer: &Value) -> Vec<(&str, u64, &Value)> {
    let streams = answer.get("streams").and_then(Value::as_object).into_iter().flatten();
    let mut found: Vec<_> = streams
        .flat_map(|(stream, partitions)| {
            let partitions = partitions.as_object().into_iter().flatten();
            partitions.filter_map(move |(partition, of)| {
                Some((stream.as_str(), partition.parse().ok()?, of))
            })
        })
        .collect();
    found.sort_by_key(|(stream, partition, _)| (*stream, *partition));
    found
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[("name", Align::Left)]);
    for group in items(answer, "groups") {
        table.row(vec![cell(Some(group))]);
    }
    table.render()
}

fn description(group: &Value) -> String {
    let mut out = String::new();
    for name in ["group", "state", "type", "protocol_type", "protocol", "generation"] {
        out.push_str(&format!("{name:<20}{}\n", cell(group.get(name))));
    }
    let members = items(group, "members");
    if !members.is_empty() {
        let mut table = Table::new(&[
            ("member", Align::Left),
            ("instance", Align::Left),
            ("client", Align::Left),
            ("host", Align::Left),
            ("assignment", Align::Left),
        ]);
        for member in members {
            let field = |name| cell(member.get(name));
            table.row(vec![
                field("id"),
                field("instance"),
                field("client_id"),
                field("client_host"),
                assignment(member.get("assignment")),
            ]);
        }
        out.push_str(&format!("\n{}", table.render()));
    }
    let mut table = Table::new(&[
        ("stream", Align::Left),
        ("partition", Align::Right),
        ("offset", Align::Right),
        ("end", Align::Right),
        ("lag", Align::Right),
        ("metadata", Align::Left),
    ]);
    for (stream, partition, of) in by_partition(group) {
        let mut row = vec![stream.to_owned(), count(partition)];
        row.extend(["offset", "end_offset", "lag", "metadata"].map(|name| cell(of.get(name))));
        table.row(row);
    }
    out.push_str(&format!("\n{}", table.render()));
    out
}

/// `orders:0,2 payments:1`, or that it is not known.
fn assignment(assignment: Option<&Value>) -> String {
    let Some(streams) = assignment.and_then(Value::as_object) else { return "?".to_owned() };
    let of_stream = streams.iter().map(|(stream, partitions)| {
        let partitions = partitions.as_array().into_iter().flatten();
        let partitions: Vec<String> = partitions.map(Value::to_string).collect();
        format!("{stream}:{}", partitions.join(","))
    });
    let text = of_stream.collect::<Vec<_>>().join(" ");
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn moves(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("stream", Align::Left),
        ("partition", Align::Right),
        ("from", Align::Right),
        ("to", Align::Right),
        ("end", Align::Right),
    ]);
    for (stream, partition, of) in by_partition(answer) {
        let mut row = vec![stream.to_owned(), count(partition)];
        row.extend(["from", "to", "end_offset"].map(|name| cell(of.get(name))));
        table.row(row);
    }
    let is_done = answer.get("executed").and_then(Value::as_bool) == Some(true);
    let note = if is_done { "" } else { "\nnothing was changed; do it with --execute\n" };
    format!("{}{note}", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_what_was_given() {
        assert_eq!(reset("17", None, &[], false), json!({ "to": 17, "execute": false }));
        assert_eq!(
            reset("latest", Some("s"), &[2, 0], true),
            json!({ "to": "latest", "stream": "s", "partitions": [2, 0], "execute": true })
        );
    }

    #[test]
    fn a_description_is_readable() {
        let group = json!({
            "group": "g", "state": "stable", "type": "classic", "protocol": null,
            "members": [
                { "id": "m1", "client_id": "c", "client_host": "/::1", "instance": null,
                  "assignment": { "s": [0, 2], "t": [1] } },
                { "id": "m2", "client_id": "", "client_host": "/::1", "assignment": null },
            ],
            "streams": {
                "s": { "10": { "offset": 0, "end_offset": 1500, "lag": 1500, "metadata": "n" },
                       "2": { "offset": 3, "end_offset": 3, "lag": 0 } },
            },
        });
        let text = description(&group);
        for line in [
            "state               stable",
            "protocol            -",
            "m1      -         c       /::1  s:0,2 t:1",
            "m2      -         -       /::1  ?",
            "s               2       3      3      0  -",
            "s              10       0  1,500  1,500  n",
        ] {
            assert!(text.lines().any(|of| of == line), "{line}\nin\n{text}");
        }
        let moved = |executed: bool| {
            moves(&json!({ "executed": executed, "streams": {
                "s": { "0": { "from": null, "to": 4, "end_offset": 5 } } } }))
        };
        assert!(moved(true).ends_with("s               0     -   4    5\n"), "{}", moved(true));
        assert!(moved(false).ends_with("nothing was changed; do it with --execute\n"));
    }
}
