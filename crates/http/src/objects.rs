//! Objects in and out: imports, watches and exports as jobs, and objects that a
//! client sends itself.

use aquifer_objects::{
    Compression, CsvTypes, ExportSpec, Format, ImportSpec, JobStatus, Objects, OnError, Upload,
    Work,
};
use aquifer_stream::DocumentKind;
use aquifer_types::ErrorKind;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Problem;
use crate::app::{App, Shared, StreamAt, json as answer, segment, tenant};
use crate::parameters::Parameters;

/// The segment `{id}` of the path.
pub(crate) struct JobAt(String);

impl<S: Send + Sync> FromRequestParts<S> for JobAt {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(segment(parts, state).await?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchChange {
    paused: bool,
}

impl Shared {
    fn objects(&self) -> Result<&Objects, Problem> {
        let off = || Problem::new(ErrorKind::Unsupported, "imports and exports are switched off");
        self.objects.as_ref().ok_or_else(off)
    }
}

async fn body_of<T: DeserializeOwned>(app: &App, request: Request<Body>) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("the body is not as it should be: {error}")))
}

async fn begin(app: &App, path: &str, work: Work) -> Result<Response, Problem> {
    let status = app.objects()?.create(&tenant(), work).await?;
    let mut response = answer(StatusCode::CREATED, &status)?;
    if let Ok(location) = HeaderValue::try_from(format!("/v1/{path}/{}", status.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn create_import(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let spec: ImportSpec = body_of(&app, request).await?;
    begin(&app, "imports", Work::Import(spec)).await
}

pub(crate) async fn create_watch(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let spec: ImportSpec = body_of(&app, request).await?;
    begin(&app, "watches", Work::Watch(spec)).await
}

pub(crate) async fn create_export(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let spec: ExportSpec = body_of(&app, request).await?;
    begin(&app, "exports", Work::Export(spec)).await
}

fn listed(app: &App, request: &Request<Body>, kind: DocumentKind) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let jobs: Vec<JobStatus> = app.objects()?.list(&tenant(), kind);
    let jobs: Value = serde_json::to_value(&jobs)
        .map_err(|e| Problem::new(ErrorKind::Internal, e.to_string()))?;
    let name = match kind {
        DocumentKind::Watch => "watches",
        DocumentKind::Export => "exports",
        _ => "imports",
    };
    answer(StatusCode::OK, &json!({ name: jobs }))
}

pub(crate) async fn list_imports(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    listed(&app, &request, DocumentKind::Import)
}

pub(crate) async fn list_watches(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    listed(&app, &request, DocumentKind::Watch)
}

pub(crate) async fn list_exports(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    listed(&app, &request, DocumentKind::Export)
}

fn shown(
    app: &App,
    request: &Request<Body>,
    kind: DocumentKind,
    id: &str,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    answer(StatusCode::OK, &app.objects()?.get(&tenant(), kind, id)?)
}

pub(crate) async fn get_import(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    shown(&app, &request, DocumentKind::Import, &id)
}

pub(crate) async fn get_watch(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    shown(&app, &request, DocumentKind::Watch, &id)
}

pub(crate) async fn get_export(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    shown(&app, &request, DocumentKind::Export, &id)
}

async fn deleted(
    app: &App,
    request: Request<Body>,
    kind: DocumentKind,
    id: &str,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    drop(request);
    app.objects()?.delete(&tenant(), kind, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn delete_import(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    deleted(&app, request, DocumentKind::Import, &id).await
}

pub(crate) async fn delete_watch(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    deleted(&app, request, DocumentKind::Watch, &id).await
}

pub(crate) async fn delete_export(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    deleted(&app, request, DocumentKind::Export, &id).await
}

pub(crate) async fn change_watch(
    State(app): State<App>,
    JobAt(id): JobAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let WatchChange { paused } = body_of(&app, request).await?;
    answer(StatusCode::OK, &app.objects()?.pause_watch(&tenant(), &id, paused).await?)
}

/// An object in the request's body. It is read as fast as it is appended, and
/// so may be larger than any limit on requests.
pub(crate) async fn upload(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let parameters = Parameters::parse(
        parts.uri.query(),
        &[
            "name",
            "version",
            "format",
            "compression",
            "on_error",
            "key_field",
            "timestamp_field",
            "partition",
            "csv_types",
            "delimiter",
        ],
    )?;
    let needed = |name: &'static str| {
        let missing = || Problem::invalid(format!("the parameter '{name}' is missing"));
        parameters.text(name)?.map(str::to_owned).ok_or_else(missing)
    };
    let (name, version) = (needed("name")?, needed("version")?);
    let text = |name| Ok::<_, Problem>(parameters.text(name)?.map(str::to_owned));
    let spec = ImportSpec {
        stream: path.name,
        urls: Vec::new(),
        format: word::<Format>(&parameters, "format")?,
        compression: word::<Compression>(&parameters, "compression")?,
        on_error: word::<OnError>(&parameters, "on_error")?,
        key_field: text("key_field")?,
        timestamp_field: text("timestamp_field")?,
        partition: parameters.parsed("partition", "the number of a partition")?,
        csv_types: word::<CsvTypes>(&parameters, "csv_types")?,
        delimiter: parameters.parsed("delimiter", "one character")?,
    };
    let received = app.metrics.bytes_in.clone();
    let pieces = body
        .into_data_stream()
        .inspect_ok(move |piece| {
            received.inc_by(piece.len() as u64);
        })
        .map_err(|error| format!("the request's body broke off: {error}"));
    let upload = Upload { spec, name, version };
    answer(StatusCode::OK, &app.objects()?.upload(&tenant(), upload, pieces.boxed()).await?)
}

/// A parameter that is one of a few words; the default where it is absent.
fn word<T: DeserializeOwned + Default>(
    parameters: &Parameters,
    name: &'static str,
) -> Result<T, Problem> {
    let Some(text) = parameters.text(name)? else { return Ok(T::default()) };
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| {
        Problem::invalid(format!("the parameter '{name}': {error}")).member("parameter", name)
    })
}

impl From<aquifer_objects::Error> for Problem {
    fn from(error: aquifer_objects::Error) -> Self {
        use aquifer_objects::Error as E;
        let (kind, text, retry) = (error.kind(), error.to_string(), error.retry_after());
        let problem = match error {
            E::Store(error) => return error.into(),
            E::Row { object, row, .. } => {
                Self::new(kind, text).member("object", object).member("row", row).next(
                    "What is before the row is imported. Mend the object, or send it again with \
                     on_error=skip: it goes on at the row.",
                )
            }
            E::Broken { object, row, .. } => {
                Self::new(kind, text).member("object", object).member("row", row).next(
                    "What is before the row is imported. Send the object as it should be, as \
                     another version of it: all of that is imported.",
                )
            }
            E::NotAllowed(_) => Self::new(kind, text).next(
                "Ask whoever operates the server to list the address under objects.allowed, or \
                 send the object itself to POST /v1/streams/{stream}/import.",
            ),
            E::NotFound { what, .. } => {
                let plural = match what {
                    "watch" => "watches",
                    "export" => "exports",
                    _ => "imports",
                };
                Self::new(kind, text).next(format!("GET /v1/{plural} lists what there is."))
            }
            E::Limit { limit, limit_name, .. } => {
                Self::new(kind, text).member("limit", limit).member("limit_name", limit_name)
            }
            E::Busy(_) => Self::new(kind, text)
                .next("Wait until that ends; then the same request imports what is missing."),
            _ => Self::new(kind, text),
        };
        match retry {
            Some(after) => problem.retry_after(after),
            None => problem,
        }
    }
}
