//! What operators and their tools ask: health, readiness, metrics, the API's
//! description and the status page.

use aquifer_types::ErrorKind;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use serde::Serialize;

use crate::Problem;
use crate::app::{App, json};

/// The description of this API in OpenAPI 3.1.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");
const CONSOLE: &str = include_str!("console/console.html");
/// What the page does for jobs and statements, and where each of it goes.
const SCRIPTS: [(&str, &str); 2] = [
    ("{{jobs.js}}", include_str!("console/jobs.js")),
    ("{{sql.js}}", include_str!("console/sql.js")),
];
/// What stands in the page where the nonce goes.
const NONCE: &str = "{{nonce}}";

#[derive(Serialize)]
struct ReadyJson {
    ready: bool,
    appends: String,
    tier2: String,
    catalog: String,
    journal_bytes: u64,
    journal_bytes_max: u64,
    tiering_lag_ms: u64,
}

/// The process lives and answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Appends are taken. A tier 2 that is away does not make it unready: appends
/// go on until the journal is full, and that does.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    let health = app.store.health();
    let is_stopping = *app.stopping.borrow();
    let text = |state: &Result<(), String>| match state {
        Ok(()) => "ok".to_owned(),
        Err(why) => why.clone(),
    };
    let ready = health.appends.is_ok() && !is_stopping;
    let (journal_bytes, journal_bytes_max) = health.journal_bytes;
    let body = ReadyJson {
        ready,
        appends: if is_stopping { "the server is stopping".into() } else { text(&health.appends) },
        tier2: text(&health.tier2),
        catalog: text(&health.catalog),
        journal_bytes,
        journal_bytes_max,
        tiering_lag_ms: health.tiering_lag_ms,
    };
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

/// All metrics in the text format of OpenMetrics, which Prometheus reads.
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let mut text = String::with_capacity(32 << 10);
    let internal = |error: std::fmt::Error| Problem::new(ErrorKind::Internal, error.to_string());
    for registry in &app.registries {
        encode_registry(&mut text, registry).map_err(internal)?;
    }
    encode_eof(&mut text).map_err(internal)?;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(with_type(text, media_type))
}

pub(crate) async fn openapi() -> Response {
    with_type(OPENAPI, "application/json")
}

/// The status page. It holds no data: its script asks for it as any client
/// does, with the token that is typed in.
pub(crate) async fn console(State(app): State<App>) -> Response {
    let mut random = [0; 16];
    app.random.fill(&mut random);
    let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut response = with_type(page(&nonce), "text/html; charset=utf-8");
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The status page as it is sent.
fn page(nonce: &str) -> String {
    let mut page = CONSOLE.to_owned();
    for (place, script) in SCRIPTS {
        page = page.replace(place, script);
    }
    page.replace(NONCE, nonce)
}

fn with_type(body: impl Into<axum::body::Body>, media_type: &'static str) -> Response {
    let mut response = body.into().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_asks_nobody_else() {
        assert!(CONSOLE.matches(NONCE).count() >= 2, "style and script carry the nonce");
        for (place, script) in SCRIPTS {
            assert!(CONSOLE.contains(place) && !script.contains("</script"), "{place}");
        }
        let page = page("0123");
        assert!(!page.contains("{{"), "everything is in its place");
        for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for inline in [" style=\"", " onclick=\"", " onload=\"", "innerHTML"] {
            assert!(!page.contains(inline), "{inline}");
        }
    }

    #[test]
    fn what_the_scripts_name_is_in_the_page() {
        let page = page("0123");
        let mut found = 0;
        for named in page.split("byId(\"").skip(1) {
            let Some((id, rest)) = named.split_once('"') else { continue };
            // Some are put together of a literal and a variable.
            if rest.starts_with(')') {
                assert_eq!(CONSOLE.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
                found += 1;
            }
        }
        assert!(found > 50);
    }
}
