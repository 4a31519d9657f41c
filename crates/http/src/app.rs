//! What all handlers share: the store, the limits, the budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aquifer_env::{Clock, Random};
use aquifer_objects::Objects;
use aquifer_query::Queries;
use aquifer_stream::StreamStore;
use aquifer_tables::Tables;
use aquifer_types::{ErrorKind, PartitionIndex, StreamName, StreamPath, TenantName, Timestamp};
use aquifer_users::Users;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::metrics::GaugeGuard;
use crate::problem::HttpProblem;
use crate::rendered::RenderedCache;
use crate::{HttpEnvironment, HttpMetrics, HttpOptions, Problem};

/// The largest body of a request that is not an append.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// More bytes than these are parsed or rendered on the blocking pool, so that no
/// other request waits for them.
pub(crate) const WORK_BYTES_MAX: usize = 512 << 10;

/// Cloning shares everything.
pub(crate) type App = Arc<Shared>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: StreamStore,
    pub(crate) queries: Queries,
    pub(crate) users: Users,
    /// Absent where they are switched off.
    pub(crate) tables: Option<Tables>,
    /// Absent where they are switched off.
    pub(crate) objects: Option<Objects>,
    pub(crate) options: HttpOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: HttpMetrics,
    pub(crate) registries: Vec<Arc<Registry>>,
    /// True from the moment that the server is asked to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) tails: Arc<Semaphore>,
    /// What tails share.
    pub(crate) rendered: RenderedCache,
    request_bytes: Arc<Semaphore>,
    read_bytes: Arc<Semaphore>,
    next_sticky: AtomicU32,
}

/// A part of a budget of bytes, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    _permit: OwnedSemaphorePermit,
    _gauge: GaugeGuard,
}

impl Shared {
    pub(crate) fn new(
        store: StreamStore,
        options: HttpOptions,
        environment: HttpEnvironment,
        stopping: watch::Receiver<bool>,
    ) -> App {
        let HttpEnvironment { clock, random, queries, tables, objects, metrics, registries } =
            environment;
        Arc::new(Self {
            tails: Arc::new(Semaphore::new(options.tail_clients_max)),
            rendered: RenderedCache::new(options.tail_cache_bytes_max),
            request_bytes: Arc::new(Semaphore::new(options.requests_bytes_max)),
            read_bytes: Arc::new(Semaphore::new(options.reads_bytes_max)),
            next_sticky: AtomicU32::new(random.next_u64() as u32),
            users: Users::new(store.clone(), clock.clone(), random.clone()),
            store,
            queries,
            tables,
            objects,
            options,
            clock,
            random,
            metrics,
            registries,
            stopping,
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    /// The partition for the records of one request that have no key, in turns.
    pub(crate) fn sticky_partition(&self, partitions: u32) -> PartitionIndex {
        PartitionIndex(self.next_sticky.fetch_add(1, Ordering::Relaxed) % partitions.max(1))
    }

    /// Reserves memory for a read's answer.
    pub(crate) fn reserve_read(&self, bytes: usize) -> Result<Reserved, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.read_bytes).try_acquire_many_owned(permits) {
            Ok(permit) => Ok(Reserved {
                _permit: permit,
                _gauge: GaugeGuard::new(&self.metrics.read_bytes, i64::from(permits)),
            }),
            Err(_) => Err(Problem::new(
                ErrorKind::Throttled,
                format!(
                    "reads are answering {} bytes already (reads_bytes_max)",
                    self.options.reads_bytes_max
                ),
            )
            .member("limit", self.options.reads_bytes_max)),
        }
    }

    fn reserve_request(&self, bytes: usize) -> Result<Reserved, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.request_bytes).try_acquire_many_owned(permits) {
            Ok(permit) => Ok(Reserved {
                _permit: permit,
                _gauge: GaugeGuard::new(&self.metrics.request_bytes, i64::from(permits)),
            }),
            Err(_) => Err(Problem::new(
                ErrorKind::Throttled,
                format!(
                    "request bodies of {} bytes are in memory already (requests_bytes_max)",
                    self.options.requests_bytes_max
                ),
            )
            .member("limit", self.options.requests_bytes_max)),
        }
    }

    /// A small body that is one document.
    pub(crate) async fn document_body(&self, parts: &Parts, body: Body) -> Result<Bytes, Problem> {
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let essence = content_type.map(|value| {
            value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim()
        });
        if essence.is_some_and(|essence| !essence.eq_ignore_ascii_case("application/json")) {
            return Err(Problem::http(
                HttpProblem::UnsupportedMediaType,
                "the body must be application/json",
            ));
        }
        let limit = DOCUMENT_BYTES_MAX.min(self.options.request_bytes_max);
        Ok(self.collect(parts, body, limit, "1 MiB for a document").await?.0)
    }

    /// The body of an append, with the reservation that it holds.
    pub(crate) async fn records_body(
        &self,
        parts: &Parts,
        body: Body,
    ) -> Result<(Bytes, Vec<Reserved>), Problem> {
        self.collect(parts, body, self.options.request_bytes_max, "request_bytes_max").await
    }

    async fn collect(
        &self,
        parts: &Parts,
        body: Body,
        limit: usize,
        limit_name: &str,
    ) -> Result<(Bytes, Vec<Reserved>), Problem> {
        check_encoding(&parts.headers)?;
        let too_large = || {
            Problem::new(
                ErrorKind::TooLarge,
                format!("the request's body is larger than {limit} bytes ({limit_name})"),
            )
            .member("limit", limit)
            .next("Send the records in several requests; nothing was appended.")
        };
        let announced = parts
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        let mut reserved = Vec::new();
        let mut reserved_bytes = 0;
        let mut body = body;
        let receive = async {
            let mut first = Bytes::new();
            let mut all = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    Problem::invalid(format!("the request's body broke off: {error}"))
                })?;
                let Ok(data) = frame.into_data() else { continue };
                let bytes = first.len() + all.len() + data.len();
                if bytes > limit {
                    return Err(too_large());
                }
                if bytes > reserved_bytes {
                    // For what arrives, in growing steps: whoever announces much and
                    // sends nothing holds nobody up.
                    let step = (bytes - reserved_bytes).max(reserved_bytes).max(64 << 10);
                    let most = announced.unwrap_or(limit).max(bytes);
                    let step = step.min(most - reserved_bytes);
                    reserved.push(self.reserve_request(step)?);
                    reserved_bytes += step;
                }
                if first.is_empty() && all.is_empty() {
                    // Most bodies are one frame, and need no copy.
                    first = data;
                } else {
                    if all.is_empty() {
                        all.reserve(announced.unwrap_or(bytes).max(bytes));
                        all.extend_from_slice(&std::mem::take(&mut first));
                    }
                    all.extend_from_slice(&data);
                }
            }
            Ok(if all.is_empty() { first } else { all.freeze() })
        };
        let received = tokio::time::timeout(self.options.request_time_max(), receive).await;
        let body = received.map_err(|_| {
            Problem::http(
                HttpProblem::RequestTimeout,
                format!(
                    "the body did not arrive within {} ms (request_ms_max)",
                    self.options.request_ms_max
                ),
            )
        })??;
        self.metrics.bytes_in.inc_by(body.len() as u64);
        Ok((body, reserved))
    }
}

/// A body that is compressed would be stored as it lies, or cut where there is no
/// line end.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut encodings = encodings.map(|value| value.to_str().unwrap_or("?"));
    match encodings.find(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(encoding) => {
            let encoding: String = encoding.chars().take(80).collect();
            let detail =
                format!("the request's body is encoded ({encoding}); it is taken as it is");
            Err(Problem::http(HttpProblem::UnsupportedMediaType, detail)
                .next("Send the body without compression, and without Content-Encoding."))
        }
    }
}

/// The tenant of a request: the default one until access control names others.
pub(crate) fn tenant() -> TenantName {
    TenantName::default_tenant()
}

/// The segment `{stream}` of the path.
pub(crate) struct StreamAt(pub(crate) StreamPath);

impl<S: Send + Sync> FromRequestParts<S> for StreamAt {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = segment(parts, state).await?;
        Ok(Self(StreamPath::new(tenant(), StreamName::new(&name)?)))
    }
}

/// The one segment of the path that is a name.
pub(crate) async fn segment<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<String, Problem> {
    match axum::extract::Path::<String>::from_request_parts(parts, state).await {
        Ok(axum::extract::Path(name)) => Ok(name),
        Err(error) => Err(Problem::invalid(format!("the path has no valid name: {error}"))),
    }
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))?;
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl From<aquifer_stream::Error> for Problem {
    fn from(error: aquifer_stream::Error) -> Self {
        use aquifer_stream::Error as E;
        let mut problem = Self::new(error.kind(), error.to_string());
        if let Some(after) = error.retry_after() {
            problem = problem.retry_after(after);
        }
        match &error {
            E::OutOfRange { earliest, end, .. } => {
                problem.member("earliest", earliest.get()).member("end", end.get()).next(format!(
                    "Read on from offset {earliest}, the earliest that is kept, or use \
                     offset=earliest."
                ))
            }
            E::UnexpectedOffset { expected, actual, .. } => problem
                .member("expected", expected.get())
                .member("actual", actual.get())
                .next("Read from the expected offset to the actual one and decide anew."),
            E::TooLarge { limit, limit_name, .. } => {
                problem.member("limit", *limit).member("limit_name", *limit_name)
            }
            E::Throttled { limit, limit_name, .. } | E::Backpressure { limit, limit_name, .. } => {
                problem.member("limit", *limit).member("limit_name", *limit_name)
            }
            E::FieldConflict { why, .. } => problem.member("field", why.field()).next(
                "GET …/schema shows the fields; declare it as it is there, or under another name.",
            ),
            E::GroupNotFound(_) => problem.next("GET /v1/groups lists the groups."),
            E::PartitionNotFound { partitions, .. } => problem
                .member("partitions", *partitions)
                .next("Name a partition from 0 to one below the number of partitions."),
            _ => problem,
        }
    }
}
