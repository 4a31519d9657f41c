//! What every request passes: counting, the log, and who may come in.

use std::net::{IpAddr, SocketAddr};

use aquifer_types::ErrorKind;
use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::{App, Shared};
use crate::metrics::{AnswerLabels, GaugeGuard, RouteLabels};
use crate::problem::ProblemDetail;
use crate::routes::known_path;
use crate::{Problem, iceberg};

/// Paths that need no token: they tell nothing but that the server lives.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/"];

/// The methods that are labels of metrics.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"];

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Measures and logs a request.
pub(crate) async fn observe(
    State(app): State<App>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let _in_flight = GaugeGuard::new(&app.metrics.requests, 1);
    let begun = app.clock.monotonic_ns();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("unknown", |path| known_path(path.as_str()));
    let peer = request.extensions().get::<Peer>().copied();
    let uri = request.uri().clone();
    let response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) if uri.path().starts_with(iceberg::PREFIX) => {
            iceberg::with_error(problem, None).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    let status = response.status();
    let ns = app.clock.monotonic_ns().saturating_sub(begun);
    // A method that nobody knows must not become a label of its own.
    let label = METHODS.iter().find(|known| **known == method.as_str()).copied();
    let label = label.unwrap_or("other");
    let seconds = RouteLabels { method: label, route };
    app.metrics.seconds.get_or_create(&seconds).observe(ns as f64 / 1e9);
    let answers = AnswerLabels { method: label, route, status: status.as_u16() };
    app.metrics.answers.get_or_create(&answers).inc();
    let problem = response.extensions().get::<ProblemDetail>().map(|detail| detail.0.as_str());
    if status.is_server_error() {
        let (method, path) = (method.as_str(), uri.path());
        tracing::warn!(method, path, status = status.as_u16(), problem, "request failed");
    }
    if app.options.access_log {
        tracing::info!(
            target: "aquifer::access",
            client = peer.map(|peer| peer.0.to_string()),
            method = method.as_str(),
            path = uri.path(),
            status = status.as_u16(),
            micros = ns / 1000,
            bytes = response.body().size_hint().exact(),
            problem,
            "request",
        );
    }
    response
}

fn check(app: &Shared, request: &Request<Body>) -> Result<(), Problem> {
    check_origin(request.headers(), app.options.token.is_none() && !app.options.is_exposed())?;
    let Some(token) = &app.options.token else { return Ok(()) };
    if OPEN_PATHS.contains(&request.uri().path()) {
        return Ok(());
    }
    let presented = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match presented.and_then(bearer) {
        Some(presented) if token.matches(presented) => Ok(()),
        Some(_) => Err(Problem::new(ErrorKind::Unauthenticated, "the bearer token is wrong")),
        None => Err(Problem::new(ErrorKind::Unauthenticated, "the request has no bearer token")),
    }
}

/// The token of `Bearer TOKEN` (RFC 6750; the scheme in any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// Keeps out pages of other sites that a browser on this machine has open:
/// a server without a token trusts whoever can reach it, and a browser carries
/// anyone's requests to loopback.
fn check_origin(headers: &HeaderMap, is_trusting: bool) -> Result<(), Problem> {
    let text =
        |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if let Some(origin) = text(header::ORIGIN) {
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        if !authority.eq_ignore_ascii_case(host) {
            return Err(Problem::new(
                ErrorKind::Forbidden,
                "the request comes from a page of another site",
            )
            .next("Call the API from a program, or from the server's own page."));
        }
    }
    if is_trusting && !host.is_empty() && !is_local(host) {
        // DNS rebinding: another site's name that was made to mean loopback.
        return Err(Problem::new(
            ErrorKind::Forbidden,
            "the request names a host that is not this machine, and the server has no token",
        )
        .next("Use localhost or an IP address, or start the server with --token-file."));
    }
    Ok(())
}

/// Whether a `Host` is `localhost`, a name below it, or an address.
fn is_local(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn tokens_are_found() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        let check = |host: &'static str, origin: Option<&'static str>, trusting, allowed: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(check_origin(&headers, trusting).is_ok(), allowed, "{host} {origin:?}");
        };
        check("localhost:8080", None, true, true);
        check("127.0.0.1:8080", None, true, true);
        check("[::1]:8080", None, true, true);
        check("aquifer.localhost", None, true, true);
        check("evil.example:8080", None, true, false);
        check("aquifer.example", None, false, true);
        check("localhost:8080", Some("http://localhost:8080"), true, true);
        check("localhost:8080", Some("http://localhost:3000"), true, false);
        check("localhost:8080", Some("https://evil.example"), true, false);
        check("localhost:8080", Some("null"), true, false);
        check("aquifer.example", Some("https://aquifer.example"), false, true);
    }
}
