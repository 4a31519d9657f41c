//! `GET /v1/streams/{stream}/chunks`: the live Parquet files of a stream, for
//! whoever reads them without this server.
//!
//! A page is one cut of each partition that is on it. Where compaction changed
//! the files between two pages of one partition the later one is refused, so
//! that no list has a record twice or not at all.

mod snippets;

use std::path::Path;

use aquifer_env::store::file_url;
use aquifer_stream::ChunkDescription;
use aquifer_types::{ErrorKind, Offset, PartitionIndex};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::Problem;
use crate::app::{App, StreamAt, json};
use crate::parameters::Parameters;
use snippets::{Reader, Snippets};

/// The most files on a page, and as many as there are where none are asked for.
const PAGE_CHUNKS_MAX: usize = 10_000;

#[derive(Serialize)]
struct PageJson<'a> {
    chunks: Vec<ChunkJson<'a>>,
    /// Where the next page begins; none on the last one.
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snippets: Option<Snippets>,
}

#[derive(Serialize)]
struct ChunkJson<'a> {
    partition: u32,
    base_offset: i64,
    next_offset: i64,
    path: &'a str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    bytes: u64,
    records: u64,
    raw_bytes: u64,
    min_timestamp: Option<i64>,
    max_timestamp: Option<i64>,
    generation: u32,
    schema_version: u32,
}

pub(crate) async fn list(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(request.uri().query(), &["after", "limit", "snippets"])?;
    let root = Root::of(&app.store.tier2_address());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let snippets = Snippets::new(host, path.name.as_str(), &root.scheme);
    if let Some(name) = parameters.text("snippets")? {
        // A stream that does not exist has none.
        app.store.stream_shape(&path)?;
        return text(snippets.of(Reader::of_name(name)?));
    }
    let limit = parameters.parsed("limit", "a number of files from 1")?;
    let limit = limit.unwrap_or(PAGE_CHUNKS_MAX).clamp(1, PAGE_CHUNKS_MAX);
    let after = parameters.text("after")?.map(cursor).transpose()?;
    let from = after.unwrap_or((PartitionIndex(0), Offset::ZERO));
    // One more, to know whether there are more.
    let mut chunks = app.store.list_chunks_from(&path, from, limit + 1)?;
    check_first(from, chunks.first())?;
    let next = (chunks.len() > limit).then(|| chunks.truncate(limit)).and_then(|()| {
        chunks.last().map(|last| format!("{}:{}", last.partition, last.next_offset))
    });
    let snippets = after.is_none().then_some(snippets);
    let chunks = chunks.iter().map(|chunk| root.chunk(chunk)).collect();
    json(StatusCode::OK, &PageJson { chunks, next, snippets })
}

/// Reads `1:500`, the `next` of a page.
fn cursor(text: &str) -> Result<(PartitionIndex, Offset), Problem> {
    let parts = text.split_once(':').and_then(|(partition, offset)| {
        let offset: i64 = offset.parse().ok()?;
        (offset >= 0).then_some((PartitionIndex(partition.parse().ok()?), Offset(offset)))
    });
    parts.ok_or_else(|| {
        Problem::invalid("the parameter 'after' is not the `next` of a page of files")
            .member("parameter", "after")
    })
}

/// A file that lies on both sides of the cursor is one that compaction made of
/// files on both pages.
fn check_first(
    (partition, offset): (PartitionIndex, Offset),
    first: Option<&ChunkDescription>,
) -> Result<(), Problem> {
    let is_across = |chunk: &ChunkDescription| {
        chunk.partition == partition && chunk.base_offset < offset && offset > Offset::ZERO
    };
    if first.is_some_and(is_across) {
        return Err(Problem::new(
            ErrorKind::Conflict,
            "the stream's files were compacted since the page before",
        )
        .next("List the files again from the first page."));
    }
    Ok(())
}

/// The root of tier 2, for readers of its files.
struct Root {
    scheme: String,
    /// Without a slash at its end.
    address: String,
}

impl Root {
    fn of(address: &str) -> Self {
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
        Self { scheme: scheme.to_owned(), address: address.trim_end_matches('/').to_owned() }
    }

    fn chunk<'a>(&self, chunk: &'a ChunkDescription) -> ChunkJson<'a> {
        let (url, file) = self.places(&chunk.object_path);
        ChunkJson {
            partition: chunk.partition.get(),
            base_offset: chunk.base_offset.get(),
            next_offset: chunk.next_offset.get(),
            path: &chunk.object_path,
            url,
            file,
            bytes: chunk.object_bytes,
            records: chunk.records,
            raw_bytes: chunk.raw_bytes,
            min_timestamp: chunk.timestamps.map(|(low, _)| low.get()),
            max_timestamp: chunk.timestamps.map(|(_, high)| high.get()),
            generation: chunk.generation,
            schema_version: chunk.schema_version,
        }
    }

    /// An object's URL, and its file where it is one.
    fn places(&self, path: &str) -> (String, Option<String>) {
        let place = format!("{}/{path}", self.address);
        match place.strip_prefix("file://") {
            Some(file) => {
                let url = file_url(Path::new(file)).unwrap_or_else(|| place.clone());
                (url, Some(file.to_owned()))
            }
            None => (place, None),
        }
    }
}

fn text(text: String) -> Result<Response, Problem> {
    let mut response = text.into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_urls_and_files() {
        let check = |root: &str, url: &str, file: Option<&str>| {
            let (found, found_file) = Root::of(root).places("default/s-1/p0/1.parquet");
            assert_eq!((found.as_str(), found_file.as_deref()), (url, file));
        };
        check(
            "file:///a b/tier2",
            "file:///a%20b/tier2/default/s-1/p0/1.parquet",
            Some("/a b/tier2/default/s-1/p0/1.parquet"),
        );
        check("s3://bucket/x/", "s3://bucket/x/default/s-1/p0/1.parquet", None);
        check("s3://bucket", "s3://bucket/default/s-1/p0/1.parquet", None);
    }

    #[test]
    fn a_file_across_the_cursor_is_a_conflict() {
        let chunk = |partition, base: i64, next: i64| ChunkDescription {
            partition: PartitionIndex(partition),
            base_offset: Offset(base),
            next_offset: Offset(next),
            object_path: String::new(),
            object_bytes: 1,
            records: 1,
            raw_bytes: 1,
            timestamps: None,
            index_path: None,
            index_bytes: None,
            generation: 0,
            schema_version: 0,
        };
        let check = |after: &str, first: Option<ChunkDescription>, is_refused: bool| {
            let found = check_first(cursor(after).unwrap(), first.as_ref());
            assert_eq!(found.is_err(), is_refused, "{after}");
        };
        check("0:0", Some(chunk(0, 0, 10)), false);
        check("0:10", Some(chunk(0, 10, 20)), false);
        check("0:10", Some(chunk(0, 0, 20)), true);
        check("0:10", Some(chunk(1, 0, 20)), false);
        check("0:10", None, false);
        for bad in ["", "1", "1:", "-1:5", "1:-5", "1:5:7", "a:b"] {
            assert!(cursor(bad).is_err(), "{bad}");
        }
    }
}
