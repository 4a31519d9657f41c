//! `POST /v1/streams/{stream}/records`: one request, one atomic append.

use aquifer_env::tasks;
use aquifer_stream::{AppendRequest, Appended};
use aquifer_types::{Offset, PartitionIndex};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use crate::Problem;
use crate::app::{App, StreamAt, WORK_BYTES_MAX, json};
use crate::batching::{Batching, Routing};
use crate::input::{self, Format, Keys};
use crate::parameters::Parameters;

/// What a batch holds beside a record's key and value, without headers.
const RECORD_OVERHEAD_BYTES: usize = 12;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[derive(Serialize)]
struct Answer {
    appends: Vec<Appended>,
    timestamp: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

pub(crate) async fn append(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let parameters = Parameters::parse(
        parts.uri.query(),
        &["key", "key_field", "partition", "expected_offset"],
    )?;
    let explicit = parameters.parsed("partition", "the number of a partition")?;
    let expected_offset = parameters
        .parsed::<i64>("expected_offset", "an offset from 0")?
        .map(|offset| {
            (offset >= 0).then_some(Offset(offset)).ok_or_else(|| {
                Problem::invalid("the parameter 'expected_offset' is negative, offsets begin at 0")
            })
        })
        .transpose()?;
    let keys = Keys {
        fixed: parameters.bytes("key"),
        field: parameters
            .text("key_field")?
            .map(|path| path.split('.').map(str::to_owned).collect()),
    };
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let format = Format::of_media_type(content_type.map(|v| v.to_str().unwrap_or("?")))?;
    check_keys(&keys, format)?;
    let idempotency_key = idempotency_key(&parts.headers)?;

    let shape = app.store.stream_shape(&path)?;
    let (body, reserved) = app.records_body(&parts, body).await?;
    let routing = Routing {
        partitions: shape.partitions,
        explicit: explicit.map(PartitionIndex),
        sticky: app.sticky_partition(shape.partitions),
        now: app.now(),
        timestamp_type: shape.config.timestamp_type,
        record_bytes_max: usize::try_from(shape.config.record_bytes_max).unwrap_or(usize::MAX),
        batch_bytes_max: app.options.batch_bytes_max,
        records_max: app.options.request_records_max,
        append_bytes_max: app.store.options().commit_bytes_max,
        bytes_expected: bytes_expected(format, &keys, &body),
    };
    // Of the request itself: a retry has other times and another sticky
    // partition.
    let checksum =
        idempotency_key.as_ref().map(|_| request_checksum(parts.uri.query(), format, &body));
    // The body goes with it: what waits for the commit need not hold both.
    let is_large = body.len() > WORK_BYTES_MAX;
    let build = move || {
        let mut batching = Batching::new(routing);
        input::parse(format, &body, &keys, &mut |partition, record| {
            batching.push(partition, record)
        })?;
        batching.finish(expected_offset)
    };
    let appends = if is_large { tasks::run_blocking(build).await? } else { build()? };
    let request = AppendRequest { path, appends, idempotency_key };
    let answer = match checksum {
        Some(checksum) => app.store.append_with_checksum(request, checksum).await?,
        None => app.store.append(request).await?,
    };
    drop(reserved);
    json(
        StatusCode::OK,
        &Answer {
            appends: merged(answer.appends),
            timestamp: answer.appended.get(),
            duplicate: answer.is_duplicate,
        },
    )
}

/// About what the records take in one batch; 0 where they go to several.
fn bytes_expected(format: Format, keys: &Keys, body: &[u8]) -> usize {
    let key = keys.fixed.as_ref().map_or(0, |key| key.len());
    match format {
        _ if keys.field.is_some() => 0,
        Format::Ndjson | Format::Lines => {
            let records = memchr::memchr_iter(b'\n', body).count() + 1;
            body.len() + records * (RECORD_OVERHEAD_BYTES + key)
        }
        Format::Octets => body.len() + RECORD_OVERHEAD_BYTES + key,
        Format::Json => 0,
    }
}

/// What tells a repeated request from another one under the same key.
fn request_checksum(query: Option<&str>, format: Format, body: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(query.unwrap_or_default().as_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(checksum, &[format as u8]), body)
}

fn check_keys(keys: &Keys, format: Format) -> Result<(), Problem> {
    if keys.field.is_none() {
        return Ok(());
    }
    if keys.fixed.is_some() {
        return Err(Problem::invalid("key and key_field exclude each other"));
    }
    if !matches!(format, Format::Ndjson | Format::Json) {
        return Err(Problem::invalid("key_field needs records that are JSON"));
    }
    Ok(())
}

fn idempotency_key(headers: &axum::http::HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::invalid(
            "the header Idempotency-Key has 1 to 255 visible ASCII characters",
        )),
    }
}

/// One entry a partition: several batches of one lie one behind the other,
/// since the append is atomic.
fn merged(appends: Vec<Appended>) -> Vec<Appended> {
    let mut merged: Vec<Appended> = Vec::with_capacity(appends.len());
    for append in appends {
        let continued = merged.iter_mut().find(|before| {
            before.partition == append.partition
                && before.base_offset.plus(before.count.into()) == append.base_offset
        });
        match continued {
            Some(before) => before.count += append.count,
            None => merged.push(append),
        }
    }
    merged.sort_by_key(|append| (append.partition, append.base_offset));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_a_partition_are_one_append() {
        let append = |partition, base_offset, count| Appended {
            partition: PartitionIndex(partition),
            base_offset: Offset(base_offset),
            count,
        };
        let merged = merged(vec![append(1, 5, 2), append(0, 0, 1), append(1, 7, 3)]);
        assert_eq!(merged, [append(0, 0, 1), append(1, 5, 5)]);
    }
}
