//! The client side of the HTTP API, as the commands use it.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::ServerArguments;
use crate::config::{TOKEN_VARIABLE, variable};
use crate::failure::Failure;
use crate::files::read_text;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server to talk to. Cloning shares its connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// A problem that the server answered.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) next: Option<String>,
    /// PostgreSQL's code, where a statement was refused.
    #[serde(default)]
    pub(crate) sqlstate: Option<String>,
    /// Where in the statement, in characters from 1.
    #[serde(default)]
    pub(crate) position: Option<usize>,
}

/// Why a request has no answer to use.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The server could not be reached, or the connection broke.
    Transport(String, /** nothing was sent */ bool),
    /// Something went wrong here, such as an output that was closed.
    Local(Failure),
    /// The server answered with a problem.
    Refused(StatusCode, Problem, /** when to try again */ Option<Duration>),
}

impl RequestError {
    /// Whether the same request may succeed later, sent again with the same
    /// idempotency key.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Transport(..) => true,
            Self::Local(_) => false,
            Self::Refused(status, ..) => matches!(status.as_u16(), 429 | 503 | 507),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Transport(why, true) => Self::Unreachable(why),
            RequestError::Transport(why, false) => Self::failed(why),
            RequestError::Local(failure) => failure,
            RequestError::Refused(_, problem, _) => Self::Failed(problem.detail, problem.next),
        }
    }
}

impl Client {
    pub(crate) fn new(arguments: &ServerArguments) -> Result<Self, Failure> {
        Self::connect(&arguments.url, arguments.token_file.as_deref())
    }

    /// A server at `url`, with the token of a file or of the environment.
    pub(crate) fn connect(url: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        let token = match token_file {
            Some(path) => Some(read_text(path).map_err(Failure::failed)?.trim().to_owned()),
            None => variable(TOKEN_VARIABLE),
        };
        Self::of_url(url, token)
    }

    pub(crate) fn of_url(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// A request for a path below the server's URL.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; every answer that is not a success is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, RequestError> {
        let answer = request.send().await.map_err(|error| self.transport(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let text = answer.text().await.unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            detail: format!("{} answered {status}", self.url),
            ..Problem::default()
        });
        Err(RequestError::Refused(status, problem, retry_after))
    }

    /// Sends a request and reads its answer as JSON; an empty one is null.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, RequestError> {
        let answer = self.send(request).await?;
        let text = answer.text().await.map_err(|error| self.transport(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| {
            RequestError::Transport(format!("{} answered no JSON: {error}", self.url), false)
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, RequestError> {
        self.json(self.request(Method::GET, path)).await
    }

    /// What went wrong on the way, with the innermost cause.
    pub(crate) fn transport(&self, error: &reqwest::Error) -> RequestError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let is_unsent = error.is_connect() || error.is_builder();
        let what = if is_unsent { "cannot be reached" } else { "did not answer" };
        RequestError::Transport(format!("{} {what}: {cause}", self.url), is_unsent)
    }
}

/// A name as a segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_safe_segments() {
        assert_eq!(segment("audit.k8s-1_x"), "audit.k8s-1_x");
        assert_eq!(segment("my group/ä"), "my%20group%2F%C3%A4");
    }
}
