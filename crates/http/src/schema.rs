//! `/v1/streams/{stream}/schema`: the fields of a stream's values that are
//! columns, and declaring more of them.

use aquifer_types::{NewField, StreamSchema, fields_of_json_schema};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Problem;
use crate::app::{App, StreamAt, json};
use crate::input::document;
use crate::parameters::Parameters;

#[derive(Serialize)]
struct SchemaJson<'a> {
    version: u32,
    closed: bool,
    fields: Vec<FieldJson<'a>>,
}

#[derive(Serialize)]
struct FieldJson<'a> {
    id: i32,
    /// No name has a dot in it.
    path: String,
    kind: &'a str,
    since: u32,
    declared: bool,
}

impl<'a> SchemaJson<'a> {
    fn new(schema: &'a StreamSchema) -> Self {
        let fields = schema.fields().iter().map(|field| FieldJson {
            id: field.id,
            path: schema.path(field.id).join("."),
            kind: field.kind.name(),
            since: field.since,
            declared: field.is_declared,
        });
        Self { version: schema.version(), closed: schema.is_closed(), fields: fields.collect() }
    }
}

pub(crate) async fn describe(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let schema = app.store.stream_schema(&path)?;
    json(StatusCode::OK, &SchemaJson::new(&schema))
}

/// Adds what a JSON Schema declares. What is there already stays as it is, so
/// the same one may be sent again.
pub(crate) async fn declare(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let fields = declared(document::<&RawValue>(&body)?.get())?;
    let schema = app.store.declare_fields(&path, &fields).await?;
    json(StatusCode::OK, &SchemaJson::new(&schema))
}

/// The fields of a JSON Schema.
pub(crate) fn declared(text: &str) -> Result<Vec<NewField>, Problem> {
    fields_of_json_schema(text).map_err(|error| {
        Problem::invalid(format!("the schema is not as it should be: {error}"))
            .member("field", "schema")
            .member("pointer", error.at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_shown_field_by_field() {
        let fields = declared(
            r#"{"properties":{"b":{"type":"integer"},"a":{"properties":{"c":{"type":"string"}}}}}"#,
        );
        let schema = StreamSchema::default().declared(&fields.unwrap()).unwrap();
        let shown = serde_json::to_value(SchemaJson::new(&schema)).unwrap();
        let field = |id: i32, path: &str, kind: &str| {
            serde_json::json!(
                { "id": id, "path": path, "kind": kind, "since": 1, "declared": true }
            )
        };
        let expected = serde_json::json!({ "version": 1, "closed": false, "fields": [
            field(1000, "b", "int64"),
            field(1001, "a", "object"),
            field(1002, "a.c", "text"),
        ] });
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_no_schema_is_named() {
        let problem = declared(r#"{"properties":{"a":{"type":"text"}}}"#).unwrap_err();
        let shown: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(shown["status"], 400);
        assert_eq!(shown["pointer"], "#/properties/a/type");
        assert!(problem.detail().contains("'text' is none of the types"), "{}", problem.detail());
    }
}
