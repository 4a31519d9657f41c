//! The HTTP calls of the scenarios, as a plain user would make them.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::{Agent, Body};

/// A request that takes longer has failed; long enough for a stalled disk.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

/// What became of an append, as far as the client can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: the records are at these offsets.
    Acked { base_offset: u64, count: u64 },
    /// Refused, or never sent: the records are nowhere. The status is zero
    /// where no connection was made.
    Definite { status: u16, problem: String },
    /// The answer was lost, or says so: the records may be there or not. The
    /// status is zero where no answer came.
    Indefinite { status: u16, problem: String },
}

/// A refusal as a program sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) media_type: String,
    /// The problem's `type`, `detail` and `next`.
    pub(crate) kind: String,
    pub(crate) detail: String,
    pub(crate) next: String,
}

/// A partition as a stream's description has it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Partition {
    pub(crate) partition: u32,
    pub(crate) start_offset: u64,
    pub(crate) tiered_offset: u64,
    pub(crate) end_offset: u64,
    #[serde(default)]
    pub(crate) chunks: u64,
}

/// A record as a read returns it, with its value's text.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Value,
    #[serde(default)]
    pub(crate) headers: Value,
    pub(crate) value: Value,
}

impl Record {
    /// The value's text; empty if it is not text.
    pub(crate) fn text(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }
}

/// A live chunk of a stream.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) partition: u32,
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) path: String,
}

/// An answer to a statement, or why there is none.
#[derive(Debug)]
pub(crate) struct SqlAnswer {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl SqlAnswer {
    /// A header's text; empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The rows of an answer in NDJSON; any other is an error.
    pub(crate) fn rows(&self) -> Result<Vec<Value>> {
        if self.status != 200 {
            bail!("a statement is answered with {}: {}", self.status, self.text);
        }
        let rows = self
            .text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("the row {line}")));
        rows.collect()
    }
}

/// Records from one read and the offset to go on from.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    pub(crate) next_offset: u64,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_MAX))
            .build()
            .into();
        Self { agent, url: url.to_owned() }
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The status of a GET.
    pub(crate) fn get_status(&self, path: &str) -> Result<u16> {
        Ok(self.agent.get(self.at(path)).call()?.status().as_u16())
    }

    /// The text of a GET that must succeed.
    pub(crate) fn get_text(&self, path: &str) -> Result<String> {
        text_of_success(path, self.agent.get(self.at(path)).call()?)
    }

    /// The text of a GET that must succeed, in a media type.
    pub(crate) fn get_as(&self, path: &str, accept: &str) -> Result<String> {
        text_of_success(path, self.agent.get(self.at(path)).header("accept", accept).call()?)
    }

    /// Status and text of a GET, whatever they are.
    pub(crate) fn get_any(&self, path: &str) -> Result<(u16, String)> {
        let mut answer = self.agent.get(self.at(path)).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }

    /// Changes what is at a path; must succeed.
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<()> {
        text_of_success(path, self.agent.patch(self.at(path)).send_json(body)?).map(drop)
    }

    /// Creates a durable stream with `config` in its `config` field.
    pub(crate) fn create_stream(&self, name: &str, partitions: u32, config: Value) -> Result<()> {
        let body = json!({ "name": name, "partitions": partitions, "config": config });
        self.create(&body)
    }

    /// Creates a stream as `body` says.
    pub(crate) fn create(&self, body: &Value) -> Result<()> {
        let answer = self.agent.post(self.at("/v1/streams")).send_json(body)?;
        text_of_success("/v1/streams", answer).map(drop)
    }

    /// Deletes a stream.
    pub(crate) fn delete_stream(&self, name: &str) -> Result<()> {
        let path = format!("/v1/streams/{name}");
        text_of_success(&path, self.agent.delete(self.at(&path)).call()?).map(drop)
    }

    /// Moves the start of `partition` to `offset`.
    pub(crate) fn truncate(&self, name: &str, partition: u32, offset: u64) -> Result<()> {
        let path = format!("/v1/streams/{name}/truncate");
        let body = json!({ "partition": partition, "offset": offset });
        text_of_success(&path, self.agent.post(self.at(&path)).send_json(body)?).map(drop)
    }

    /// The partitions of a stream, by number.
    pub(crate) fn partitions(&self, name: &str) -> Result<Vec<Partition>> {
        let path = format!("/v1/streams/{name}");
        let text = self.get_text(&path)?;
        let mut description: Value = serde_json::from_str(&text).context("a description")?;
        let partitions = description["partitions"].take();
        serde_json::from_value(partitions)
            .with_context(|| format!("partitions in the description {text}"))
    }

    /// What `/readyz` says, ready or not.
    pub(crate) fn readiness(&self) -> Result<Value> {
        let mut answer = self.agent.get(self.at("/readyz")).call()?;
        Ok(answer.body_mut().read_json()?)
    }

    /// The live chunks of a stream, by partition and offset.
    pub(crate) fn chunks(&self, name: &str) -> Result<Vec<Chunk>> {
        let text = self.get_text(&format!("/v1/streams/{name}/chunks"))?;
        let mut answer: Value = serde_json::from_str(&text).context("a list of chunks")?;
        let mut chunks: Vec<Chunk> = serde_json::from_value(answer["chunks"].take())
            .with_context(|| format!("chunks in {text}"))?;
        chunks.sort_by_key(|chunk| (chunk.partition, chunk.base_offset));
        Ok(chunks)
    }

    /// Appends lines to a partition as NDJSON, one request.
    pub(crate) fn append(&self, stream: &str, partition: u32, lines: &[String]) -> Outcome {
        let mut body = lines.join("\n");
        body.push('\n');
        self.append_body(stream, partition, "application/x-ndjson", body)
    }

    /// Appends records, each a key and a value, to a partition in one request.
    pub(crate) fn append_keyed(
        &self,
        stream: &str,
        partition: u32,
        records: &[(String, String)],
    ) -> Outcome {
        let records = records.iter().map(|(key, value)| json!({ "key": key, "value": value }));
        let body = json!({ "records": records.collect::<Vec<_>>() });
        self.append_body(stream, partition, "application/json", body.to_string())
    }

    fn append_body(&self, stream: &str, partition: u32, media_type: &str, body: String) -> Outcome {
        let path = format!("/v1/streams/{stream}/records?partition={partition}");
        let request = self.agent.post(self.at(&path)).content_type(media_type);
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return outcome_of_error(&error),
        };
        let status = answer.status().as_u16();
        let text = match answer.body_mut().read_to_string() {
            Ok(text) => text,
            // A refusal is known by its status alone.
            Err(error) if answer.status().is_client_error() => error.to_string(),
            Err(error) => return Outcome::Indefinite { status: 0, problem: error.to_string() },
        };
        outcome_of_answer(status, &text, partition)
    }

    /// Posts `body`; the refusal, or none where it is done.
    pub(crate) fn post(&self, path: &str, media_type: &str, body: &str) -> Result<Option<Refusal>> {
        let request = self.agent.post(self.at(path)).content_type(media_type);
        let mut answer = request.send(body)?;
        if answer.status().is_success() {
            return Ok(None);
        }
        let header = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, media_type) = (answer.status().as_u16(), header("content-type"));
        let retry_after = header("retry-after").parse().ok();
        let text = answer.body_mut().read_to_string()?;
        let problem: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let member = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        let (kind, detail, next) = (member("type"), member("detail"), member("next"));
        Ok(Some(Refusal { status, retry_after, media_type, kind, detail, next }))
    }

    /// Asks with SQL; any status is an answer.
    pub(crate) fn ask(&self, accept: &str, body: &Value) -> Result<SqlAnswer> {
        let request = self.agent.post(self.at("/v1/sql")).header("accept", accept);
        let mut answer = request.send_json(body)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
        let mut answer = SqlAnswer { status, media_type: String::new(), headers, text };
        answer.media_type = answer.header("content-type").to_owned();
        Ok(answer)
    }

    /// Appends records as one JSON document; must succeed.
    pub(crate) fn append_json(&self, stream: &str, body: &Value) -> Result<()> {
        let path = format!("/v1/streams/{stream}/records");
        text_of_success(&path, self.agent.post(self.at(&path)).send_json(body)?).map(drop)
    }

    /// One read of a partition.
    pub(crate) fn read(&self, stream: &str, partition: u32, offset: u64) -> Result<Page> {
        let path = format!("/v1/streams/{stream}/records?partition={partition}&offset={offset}");
        let answer = self.agent.get(self.at(&path)).call()?;
        let next = answer.headers().get("aquifer-next-offset").cloned();
        let text = text_of_success(&path, answer)?;
        let next_offset = next
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .with_context(|| format!("{path}: no Aquifer-Next-Offset"))?;
        let records = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("the record {line}")))
            .collect::<Result<_>>()?;
        Ok(Page { records, next_offset })
    }

    /// All records of a partition from `offset` to the offset `end`.
    pub(crate) fn read_to(
        &self,
        stream: &str,
        partition: u32,
        offset: u64,
        end: u64,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut position = offset;
        while position < end {
            let page = self.read(stream, partition, position)?;
            if page.next_offset <= position {
                bail!(
                    "{stream}/{partition}: a read at {position} below the end {end} stands still"
                );
            }
            records.extend(page.records);
            position = page.next_offset;
        }
        Ok(records)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// A text as a part of a URL.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// A problem's or an answer's text, an error unless the status is 2xx.
fn text_of_success(path: &str, mut answer: ureq::http::Response<Body>) -> Result<String> {
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
    if !status.is_success() {
        bail!("{path} answers {status}: {text}");
    }
    Ok(text)
}

fn outcome_of_error(error: &ureq::Error) -> Outcome {
    let problem = error.to_string();
    match error {
        // Refused while connecting: nothing was sent.
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Outcome::Definite { status: 0, problem }
        }
        _ => Outcome::Indefinite { status: 0, problem },
    }
}

#[derive(Deserialize)]
struct Appends {
    appends: Vec<Appended>,
}

#[derive(Deserialize)]
struct Appended {
    partition: u32,
    base_offset: u64,
    count: u64,
}

fn outcome_of_answer(status: u16, text: &str, partition: u32) -> Outcome {
    let problem = match status {
        200..300 => match serde_json::from_str::<Appends>(text).map(|answer| answer.appends) {
            Ok(appends) => match appends.as_slice() {
                [one] if one.partition == partition => {
                    return Outcome::Acked { base_offset: one.base_offset, count: one.count };
                }
                _ => format!("other partitions: {text}"),
            },
            Err(error) => format!("{error} in {text}"),
        },
        // The request was understood and refused before any commit.
        503 if text.contains(r#""urn:aquifer:problem:unavailable""#) => {
            return Outcome::Definite { status, problem: text.to_owned() };
        }
        400..500 | 507 => return Outcome::Definite { status, problem: text.to_owned() },
        _ => text.to_owned(),
    };
    Outcome::Indefinite { status, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let acked = r#"{"appends":[{"partition":2,"base_offset":7,"count":3}]}"#;
        assert_eq!(outcome_of_answer(200, acked, 2), Outcome::Acked { base_offset: 7, count: 3 });
        for (status, text, definite) in [
            (200, acked, false),
            (200, "{", false),
            (500, "", false),
            (503, "", false),
            (503, r#"{"type":"urn:aquifer:problem:unavailable"}"#, true),
            (503, r#"{"type":"urn:aquifer:problem:indefinite"}"#, false),
            (413, "", true),
            (429, "", true),
            (507, "", true),
        ] {
            let outcome = outcome_of_answer(status, text, 1);
            assert_eq!(matches!(outcome, Outcome::Definite { .. }), definite, "{status} {text}");
            assert_eq!(matches!(outcome, Outcome::Indefinite { .. }), !definite, "{status} {text}");
        }
    }
}
