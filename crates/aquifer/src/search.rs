//! `aquifer search`: what matches, the newest first.

use std::io::IsTerminal as _;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::{Output, SearchArguments};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;

/// The most hits that are asked for at once.
const PAGE_HITS: u64 = 1_000;
/// What a terminal shows matches in: bold red, as grep does.
const MARK: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// A page of hits.
#[derive(Deserialize)]
struct Page {
    hits: Vec<Box<RawValue>>,
    total: Total,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
    relation: String,
}

/// What is shown of a hit.
#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(default)]
    highlights: Vec<Highlight>,
}

#[derive(Deserialize)]
struct Highlight {
    part: String,
    ranges: Vec<(usize, usize)>,
}

pub(crate) async fn run(arguments: SearchArguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.server)?;
    let form = arguments.server.output;
    let marks = form == Output::Table && std::io::stdout().is_terminal();
    let mut left = arguments.limit;
    let mut after: Option<String> = None;
    loop {
        let path = path(&arguments, left.min(PAGE_HITS), marks, after.as_deref());
        let answer = client.send(client.request(Method::GET, &path)).await?;
        let body = answer.bytes().await.map_err(|error| client.transport(&error))?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| Failure::failed(format!("the answer is malformed: {error}")))?;
        let mut out = Vec::new();
        for hit in &page.hits {
            print(&mut out, hit.get(), form)?;
        }
        output::write(&out)?;
        if arguments.total && after.is_none() {
            let Total { value, relation } = &page.total;
            let about = if relation == "eq" { "" } else { "at least " };
            output::note(&format!("{about}{value} records match"));
        }
        left = left.saturating_sub(page.hits.len() as u64);
        match page.next {
            Some(next) if left > 0 && !page.hits.is_empty() => after = Some(next),
            _ => return Ok(()),
        }
    }
}

fn path(arguments: &SearchArguments, limit: u64, marks: bool, after: Option<&str>) -> String {
    let mut path = format!(
        "/v1/streams/{}/search?q={}&limit={limit}",
        segment(&arguments.stream),
        segment(&arguments.query)
    );
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    };
    add("from", arguments.from.as_deref());
    add("to", arguments.to.as_deref());
    add("after", after);
    add("highlight", marks.then_some("true"));
    add("total", (arguments.total && after.is_none()).then_some("true"));
    path
}

fn print(out: &mut Vec<u8>, hit: &str, form: Output) -> Result<(), Failure> {
    if form == Output::Json {
        out.extend_from_slice(hit.as_bytes());
        out.push(b'\n');
        return Ok(());
    }
    let malformed = |error| Failure::failed(format!("a hit is malformed: {error}"));
    let hit: Hit<'_> = serde_json::from_str(hit).map_err(malformed)?;
    match serde_json::from_str(hit.value.get()).map_err(malformed)? {
        Value::String(text) => {
            let marks = hit.highlights.into_iter().filter(|mark| mark.part == "value");
            let ranges: Vec<_> = marks.flat_map(|mark| mark.ranges).collect();
            marked(out, &text, &ranges);
        }
        Value::Null => {}
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
    out.push(b'\n');
    Ok(())
}

/// Writes `text` with `ranges` of its bytes marked, which are in order.
fn marked(out: &mut Vec<u8>, text: &str, ranges: &[(usize, usize)]) {
    let mut at = 0;
    for (start, end) in ranges {
        // What is not a range of the text is not marked.
        let (Some(before), Some(match_)) = (text.get(at..*start), text.get(*start..*end)) else {
            continue;
        };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(MARK.as_bytes());
        out.extend_from_slice(match_.as_bytes());
        out.extend_from_slice(PLAIN.as_bytes());
        at = *end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_marked() {
        let check = |text: &str, ranges: &[(usize, usize)], expected: &str| {
            let mut out = Vec::new();
            marked(&mut out, text, ranges);
            let shown = String::from_utf8(out).unwrap().replace(MARK, "[").replace(PLAIN, "]");
            assert_eq!(shown, expected);
        };
        check("an error", &[], "an error");
        check("an error", &[(3, 8)], "an [error]");
        check("größe x", &[(0, 7), (8, 9)], "[größe] [x]");
        check("größe", &[(3, 5), (90, 99), (2, 1)], "größe");
    }

    #[test]
    fn hits_are_printed() {
        let hit = r#"{"offset":1,"value":"a \"b\"","highlights":[{"part":"key","ranges":[[0,1]]},
                      {"part":"value","ranges":[[0,1]]}]}"#;
        let check = |hit: &str, form, expected: &str| {
            let mut out = Vec::new();
            print(&mut out, hit, form).unwrap();
            let shown = String::from_utf8(out).unwrap();
            assert_eq!(shown.replace(MARK, "[").replace(PLAIN, "]"), expected);
        };
        check(hit, Output::Table, "[a] \"b\"\n");
        check(hit, Output::Json, &format!("{hit}\n"));
        check(r#"{"value":null}"#, Output::Table, "\n");
        check(r#"{"value":{"base64":"/w=="}}"#, Output::Table, "{\"base64\":\"/w==\"}\n");
        assert!(print(&mut Vec::new(), "{}", Output::Table).is_err());
    }
}
