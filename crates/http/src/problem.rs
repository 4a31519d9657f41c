//! Errors as RFC 9457 problem details: a stable type, what happened, and the
//! caller's next step.

use std::borrow::Cow;
use std::time::Duration;

use aquifer_types::{BatchError, ConfigError, ErrorKind, NameError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The media type of problem details.
const MEDIA_TYPE: &str = "application/problem+json";
/// What a problem's type begins with.
pub const TYPE_PREFIX: &str = "urn:aquifer:problem:";

/// What follows [`TYPE_PREFIX`], all of them.
#[cfg(test)]
pub(crate) const NAMES: [&str; 20] = [
    "invalid-request",
    "unauthenticated",
    "forbidden",
    "not-found",
    "method-not-allowed",
    "not-acceptable",
    "request-timeout",
    "already-exists",
    "conflict",
    "fenced",
    "too-large",
    "unsupported-media-type",
    "out-of-range",
    "throttled",
    "internal",
    "damaged",
    "unsupported",
    "unavailable",
    "indefinite",
    "storage-full",
];

/// The kinds of problems that clients can tell apart, beyond those that every
/// layer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpProblem {
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    RequestTimeout,
}

/// A problem, ready to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Details>);

#[derive(Debug, Clone, PartialEq)]
struct Details {
    status: StatusCode,
    name: Cow<'static, str>,
    title: &'static str,
    detail: String,
    next: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    retry_after: Option<Duration>,
}

/// The `detail` of a problem, left on its answer for the log.
#[derive(Debug, Clone)]
pub(crate) struct ProblemDetail(pub(crate) String);

impl Problem {
    /// The problem of an error of this kind.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let (status, name, title, next) = of_kind(kind);
        let retry_after = matches!(
            kind,
            ErrorKind::Throttled
                | ErrorKind::Unavailable
                | ErrorKind::StorageFull
                | ErrorKind::Indefinite
        )
        .then_some(Duration::from_secs(1));
        Self(Box::new(Details {
            status,
            name: Cow::Borrowed(name),
            title,
            detail: detail.into(),
            next: Cow::Borrowed(next),
            members: Vec::new(),
            retry_after,
        }))
    }

    /// A malformed request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, detail)
    }

    pub(crate) fn http(problem: HttpProblem, detail: impl Into<String>) -> Self {
        let (status, name, title, next) = match problem {
            HttpProblem::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The path has no such method",
                "See /openapi.json for the methods of this path.",
            ),
            HttpProblem::NotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "not-acceptable",
                "No media type that is accepted can be answered",
                "Accept application/x-ndjson, application/json or another type that the path is described with in /openapi.json.",
            ),
            HttpProblem::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body's media type is not known here",
                "Set the Content-Type to one that the detail names.",
            ),
            HttpProblem::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The request did not arrive in time",
                "Send the body faster or in smaller requests; nothing was appended.",
            ),
        };
        Self(Box::new(Details {
            status,
            name: Cow::Borrowed(name),
            title,
            detail: detail.into(),
            next: Cow::Borrowed(next),
            members: Vec::new(),
            retry_after: None,
        }))
    }

    /// Replaces the type by a more precise one, which stays as stable.
    #[must_use]
    pub(crate) fn named(mut self, name: String) -> Self {
        self.0.name = Cow::Owned(name);
        self
    }

    /// Replaces the next step by a more precise one.
    #[must_use]
    pub fn next(mut self, next: impl Into<Cow<'static, str>>) -> Self {
        self.0.next = next.into();
        self
    }

    /// Adds a member of its own, such as the line that is wrong.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.push((name, value.into()));
        self
    }

    /// Sets when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What happened.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The problem as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and what serde_json itself made cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The one mapping of error kinds to HTTP.
const fn of_kind(kind: ErrorKind) -> (StatusCode, &'static str, &'static str, &'static str) {
    match kind {
        ErrorKind::InvalidRequest => (
            StatusCode::BAD_REQUEST,
            "invalid-request",
            "The request is not valid",
            "Change the request as the detail says; the same one will fail again.",
        ),
        ErrorKind::Unauthenticated => (
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "The request does not prove who sends it",
            "Send the header `Authorization: Bearer TOKEN` with the server's token.",
        ),
        ErrorKind::Forbidden => (
            StatusCode::FORBIDDEN,
            "forbidden",
            "The request is not allowed",
            "Ask whoever operates the server.",
        ),
        ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            "Check the name; GET /v1/streams lists the streams.",
        ),
        ErrorKind::AlreadyExists => (
            StatusCode::CONFLICT,
            "already-exists",
            "A thing of that name exists already",
            "Use the one that exists, or choose another name.",
        ),
        ErrorKind::OutOfRange => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            "out-of-range",
            "The offset lies outside of what is kept",
            "Read on from the earliest offset.",
        ),
        ErrorKind::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "Something in the request is larger than its limit",
            "Send less at a time, or raise the limit that the detail names.",
        ),
        ErrorKind::Conflict => (
            StatusCode::CONFLICT,
            "conflict",
            "A condition of the request does not hold",
            "Read the current state and decide anew; nothing was changed.",
        ),
        ErrorKind::Fenced => (
            StatusCode::CONFLICT,
            "fenced",
            "A newer owner exists",
            "Stop: another instance has taken over.",
        ),
        ErrorKind::Throttled => (
            StatusCode::TOO_MANY_REQUESTS,
            "throttled",
            "A queue or quota is full",
            "Wait as long as Retry-After says and send the same request again.",
        ),
        ErrorKind::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Something that is needed is absent for now",
            "Wait as long as Retry-After says and send the same request again.",
        ),
        ErrorKind::StorageFull => (
            StatusCode::INSUFFICIENT_STORAGE,
            "storage-full",
            "There is no space left",
            "Free space or truncate streams; reads and truncation work, and appends resume by themselves.",
        ),
        ErrorKind::Indefinite => (
            StatusCode::SERVICE_UNAVAILABLE,
            "indefinite",
            "It may or may not have happened",
            "Send it again only with the same Idempotency-Key or expected_offset, or read what is there first.",
        ),
        ErrorKind::Damaged => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "damaged",
            "Stored bytes do not match their checksum",
            "Run `aquifer verify` on the stopped server; wrong bytes are never served.",
        ),
        ErrorKind::Unsupported => (
            StatusCode::NOT_IMPLEMENTED,
            "unsupported",
            "The feature does not exist here",
            "Do without it, or use a version or mode that has it.",
        ),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The server failed",
            "This is a bug: report it with the server's log.",
        ),
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("{TYPE_PREFIX}{}", self.0.name))?;
        map.serialize_entry("title", self.0.title)?;
        map.serialize_entry("status", &self.0.status.as_u16())?;
        map.serialize_entry("detail", &self.0.detail)?;
        map.serialize_entry("next", &self.0.next)?;
        for (name, value) in &self.0.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(after) = self.0.retry_after {
            // Whole seconds, and never 0: that would ask for a storm.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(ProblemDetail(self.0.detail));
        response
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::invalid(error.to_string()).member("field", error.field)
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_and_what_next() {
        let problem = Problem::new(ErrorKind::OutOfRange, "offset 3 is gone").member("earliest", 7);
        assert_eq!(
            String::from_utf8(problem.to_json()).unwrap(),
            "{\"type\":\"urn:aquifer:problem:out-of-range\",\
             \"title\":\"The offset lies outside of what is kept\",\"status\":416,\
             \"detail\":\"offset 3 is gone\",\"next\":\"Read on from the earliest offset.\",\
             \"earliest\":7}"
        );
    }

    #[test]
    fn every_kind_has_its_status() {
        use ErrorKind as K;
        for (kind, status, retries) in [
            (K::InvalidRequest, 400, false),
            (K::Unauthenticated, 401, false),
            (K::Forbidden, 403, false),
            (K::NotFound, 404, false),
            (K::AlreadyExists, 409, false),
            (K::OutOfRange, 416, false),
            (K::TooLarge, 413, false),
            (K::Conflict, 409, false),
            (K::Fenced, 409, false),
            (K::Throttled, 429, true),
            (K::Unavailable, 503, true),
            (K::StorageFull, 507, true),
            (K::Indefinite, 503, true),
            (K::Damaged, 500, false),
            (K::Unsupported, 501, false),
            (K::Internal, 500, false),
        ] {
            assert!(NAMES.contains(&of_kind(kind).1), "{kind:?}");
            let response = Problem::new(kind, "x").into_response();
            assert_eq!(response.status().as_u16(), status, "{kind:?}");
            let headers = response.headers();
            assert_eq!(headers.contains_key(header::RETRY_AFTER), retries, "{kind:?}");
            assert_eq!(headers[header::CONTENT_TYPE], MEDIA_TYPE);
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        for (ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (30_000, "30")] {
            let response = Problem::new(ErrorKind::Throttled, "x")
                .retry_after(Duration::from_millis(ms))
                .into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
