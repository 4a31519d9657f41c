//! One call, from its headers to the last byte of its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::arrival::Arriving;
use crate::login;
use crate::problem::Problem;
use crate::server::Door;
use crate::service::FlightSql;

/// How long a client waits, as it says (gRPC over HTTP/2, Timeout).
const TIMEOUT_HEADER: &str = "grpc-timeout";
const TIMEOUT_DIGITS_MAX: usize = 8;

/// How long a call's statement may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimit(pub(crate) Duration);

/// A connection, as its calls see it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    under_way: AtomicUsize,
    /// When a call last began or ended.
    last_ns: AtomicU64,
    is_let_in: AtomicBool,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, now: Duration) -> Self {
        Self {
            address,
            under_way: AtomicUsize::new(0),
            last_ns: AtomicU64::new(nanos(now)),
            is_let_in: AtomicBool::new(false),
        }
    }

    /// Since when no call is under way; none while one is.
    pub(crate) fn idle_since(&self) -> Option<Duration> {
        let is_idle = self.under_way.load(Ordering::Acquire) == 0;
        is_idle.then(|| Duration::from_nanos(self.last_ns.load(Ordering::Acquire)))
    }

    /// Whether a call of it was let in.
    pub(crate) fn is_let_in(&self) -> bool {
        self.is_let_in.load(Ordering::Acquire)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts a call as under way until it is dropped.
struct UnderWay {
    door: Arc<Door>,
    peer: Arc<Peer>,
}

impl UnderWay {
    fn new(door: Arc<Door>, peer: Arc<Peer>) -> Self {
        peer.under_way.fetch_add(1, Ordering::AcqRel);
        Self { door, peer }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.peer.last_ns.store(nanos(self.door.now()), Ordering::Release);
        self.peer.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers a call.
pub(crate) async fn answer(
    door: Arc<Door>,
    peer: Arc<Peer>,
    mut service: FlightServiceServer<FlightSql>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let under_way = UnderWay::new(door.clone(), peer.clone());
    // Before it takes a place: whoever fails to log in waits long, and would keep
    // others out.
    let admitted = match login::admit(&door, peer.address.ip(), request.headers()).await {
        Ok(admitted) => admitted,
        Err(problem) => return Status::from(problem).into_http(),
    };
    peer.is_let_in.store(true, Ordering::Release);
    let Ok(place) = door.calls.clone().try_acquire_owned() else {
        door.metrics.calls_refused.inc();
        let max = door.options.calls_max;
        let message = format!("{max} calls are under way (flight.calls_max): try again later");
        return Status::from(Problem::limit(message)).into_http();
    };
    door.metrics.calls.inc();
    let limit = Duration::from_millis(door.options.statement_ms_max);
    let limit = timeout(request.headers()).map_or(limit, |wait| wait.min(limit));
    request.extensions_mut().insert(admitted.caller);
    request.extensions_mut().insert(TimeLimit(limit));
    let arrival = Duration::from_millis(door.options.message_ms_max);
    let request = request.map(|body| Arriving::new(body, door.budget.clone(), arrival));
    let Ok(mut response) = service.call(request).await;
    if let Some(token) = admitted.token
        && let Ok(value) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        response.headers_mut().insert(AUTHORIZATION, value);
    }
    // The call is under way until its answer is taken, or given up.
    let held = (place, under_way);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &held;
            frame
        }))
    })
}

/// What the client says it waits; none where it does not, or nothing sensible.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let limit = match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_patience_is_read() {
        let check = |text: &str, expected: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT_HEADER, HeaderValue::try_from(text).unwrap());
            assert_eq!(timeout(&headers), expected, "{text}");
        };
        check("5S", Some(Duration::from_secs(5)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3_600)));
        check("100m", Some(Duration::from_millis(100)));
        check("7u", Some(Duration::from_micros(7)));
        for wrong in ["", "S", "5", "-5S", "5s", "999999999S", "5 S"] {
            check(wrong, None);
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
