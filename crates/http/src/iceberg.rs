//! The catalog of open tables: the reading part of Iceberg's REST protocol
//! (<https://iceberg.apache.org/rest-catalog-spec/>) below `/iceberg`.
//!
//! A tenant is a namespace, a stream a table. Nothing can be created or changed
//! here. Parameters and headers that are not known are ignored, as the protocol
//! asks for. A problem is answered as everywhere else, with the member `error`
//! that Iceberg's clients read beside it.

use aquifer_tables::{Snapshots, Tables};
use aquifer_types::{ErrorKind, StreamName, StreamPath, TenantName};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::Problem;
use crate::app::{App, Shared, json, tenant};

/// What the paths of the catalog begin with.
pub(crate) const PREFIX: &str = "/iceberg/";

/// What of the protocol is answered, in its own spelling.
const ENDPOINTS: [&str; 6] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
];

#[derive(Deserialize)]
pub(crate) struct NamespacesQuery {
    parent: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct TableQuery {
    snapshots: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LoadedJson<'a> {
    metadata_location: &'a str,
    metadata: &'a RawValue,
    config: serde_json::Map<String, serde_json::Value>,
}

pub(crate) async fn config(State(app): State<App>) -> Result<Response, Problem> {
    // Readers may override these: they may see the store at another address.
    let defaults: serde_json::Map<_, _> = tables(&app)?
        .reader_settings()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let body = json!({ "defaults": defaults, "overrides": {}, "endpoints": ENDPOINTS });
    json(StatusCode::OK, &body)
}

pub(crate) async fn namespaces(
    State(app): State<App>,
    Query(query): Query<NamespacesQuery>,
) -> Result<Response, Problem> {
    tables(&app)?;
    let namespaces = match query.parent.filter(|parent| !parent.is_empty()) {
        None => vec![[tenant().to_string()]],
        Some(parent) => {
            find_namespace(&parent)?;
            Vec::new()
        }
    };
    json(StatusCode::OK, &json!({ "namespaces": namespaces }))
}

pub(crate) async fn describe_namespace(
    State(app): State<App>,
    Path(namespace): Path<String>,
) -> Result<Response, Problem> {
    tables(&app)?;
    let namespace = find_namespace(&namespace)?.to_string();
    json(StatusCode::OK, &json!({ "namespace": [namespace], "properties": {} }))
}

pub(crate) async fn has_namespace(
    State(app): State<App>,
    Path(namespace): Path<String>,
) -> Result<Response, Problem> {
    tables(&app)?;
    find_namespace(&namespace)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn list(
    State(app): State<App>,
    Path(namespace): Path<String>,
) -> Result<Response, Problem> {
    let tables = tables(&app)?;
    let tenant = find_namespace(&namespace)?;
    let names = tables.list(&tenant);
    let identifiers: Vec<_> = names
        .iter()
        .map(|name| json!({ "namespace": [tenant.as_str()], "name": name.as_str() }))
        .collect();
    json(StatusCode::OK, &json!({ "identifiers": identifiers }))
}

pub(crate) async fn load(
    State(app): State<App>,
    Path((namespace, table)): Path<(String, String)>,
    Query(query): Query<TableQuery>,
) -> Result<Response, Problem> {
    let which = match query.snapshots.as_deref() {
        Some("refs") => Snapshots::Current,
        _ => Snapshots::All,
    };
    let path = path_of(&namespace, &table)?;
    let loaded = tables(&app)?.load(&path, which).await.map_err(of_tables)?;
    let metadata: &RawValue = serde_json::from_slice(&loaded.metadata)
        .map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))?;
    let body = LoadedJson {
        metadata_location: &loaded.metadata_location,
        metadata,
        config: serde_json::Map::new(),
    };
    json(StatusCode::OK, &body)
}

pub(crate) async fn has_table(
    State(app): State<App>,
    Path((namespace, table)): Path<(String, String)>,
) -> Result<Response, Problem> {
    tables(&app)?.find(&path_of(&namespace, &table)?).map_err(of_tables)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn tables(app: &Shared) -> Result<&Tables, Problem> {
    app.tables.as_ref().ok_or_else(|| {
        let problem = Problem::new(ErrorKind::Unsupported, "open tables are switched off");
        with_error(problem.next("Start the server with tables.enabled=true."), None)
    })
}

fn find_namespace(name: &str) -> Result<TenantName, Problem> {
    tenant_of(name).map_err(|problem| with_error(problem, Some("NoSuchNamespaceException")))
}

fn tenant_of(namespace: &str) -> Result<TenantName, Problem> {
    let tenant = tenant();
    if tenant.as_str() == namespace {
        return Ok(tenant);
    }
    let name: String = namespace.chars().take(80).collect();
    let problem = Problem::new(ErrorKind::NotFound, format!("there is no namespace '{name}'"));
    Err(problem.next(format!("The one namespace is '{tenant}'.")))
}

/// Of a table the protocol knows one error, whatever of its name is not there.
/// Clients in Java rely on it: they ask for `default.audit.snapshots` as for a
/// table `snapshots`, and look for what it is once there is no such table.
fn path_of(namespace: &str, table: &str) -> Result<StreamPath, Problem> {
    let no_table = |problem| with_error(problem, Some("NoSuchTableException"));
    let tenant = tenant_of(namespace).map_err(no_table)?;
    // No stream can have a name that is none, so there is no such table.
    let name = StreamName::new(table)
        .map_err(|error| no_table(Problem::new(ErrorKind::NotFound, error.to_string())))?;
    Ok(StreamPath::new(tenant, name))
}

fn of_tables(error: aquifer_tables::Error) -> Problem {
    let kind = error.kind();
    let problem = match error {
        aquifer_tables::Error::Store(error) => Problem::from(error),
        error => Problem::new(kind, error.to_string()),
    };
    with_error(problem, (kind == ErrorKind::NotFound).then_some("NoSuchTableException"))
}

/// Adds what Iceberg's clients read of a problem; `name` is the error's in the
/// protocol where its status does not say it.
pub(crate) fn with_error(problem: Problem, name: Option<&str>) -> Problem {
    let status = problem.status();
    let name = name.unwrap_or(match status.as_u16() {
        400 => "BadRequestException",
        401 => "NotAuthorizedException",
        403 => "ForbiddenException",
        404 => "NotFoundException",
        409 => "CommitFailedException",
        429 => "TooManyRequestsException",
        501 => "UnsupportedOperationException",
        503 => "ServiceUnavailableException",
        _ => "InternalServerError",
    });
    let error = json!({ "message": problem.detail(), "type": name, "code": status.as_u16() });
    problem.member("error", error)
}
