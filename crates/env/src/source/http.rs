//! One object of a web server.
//!
//! The server reads what its clients name, so an address must not lead them to
//! what only the server can reach: names that resolve to an address of this
//! machine, of a private network or of a link (where clouds keep the service
//! that tells a machine its credentials) are refused, unless the host is
//! listed. Redirections are followed under the same rule.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use url::{Host, Url};

use super::read::{SourceBody, blocking_body};
use super::{READ_MS_MAX, SourceObject, changed};
use crate::store::{StoreError, StoreErrorKind};

const CONNECT_MS_MAX: u64 = 10_000;
const REDIRECTIONS_MAX: usize = 5;

#[derive(Debug)]
pub(super) struct HttpSource {
    client: Client,
    url: Url,
}

impl HttpSource {
    pub(super) fn open(url: &Url, private_hosts: Vec<String>) -> Result<Self, StoreError> {
        let private_hosts: Arc<[String]> = private_hosts.into();
        if !is_allowed(url, &private_hosts) {
            return Err(StoreError::refused(url.as_str(), PRIVATE));
        }
        let hosts = private_hosts.clone();
        let policy = Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTIONS_MAX {
                return attempt.error("too many redirections");
            }
            match is_allowed(attempt.url(), &hosts) {
                true => attempt.follow(),
                false => attempt.error(PRIVATE),
            }
        });
        let client = Client::builder()
            // A proxy would resolve names itself, and nobody would look at what they are.
            .no_proxy()
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .read_timeout(Duration::from_millis(READ_MS_MAX))
            .redirect(policy)
            .dns_resolver(Arc::new(PublicOnly { private_hosts }))
            .build()
            .map_err(|error| StoreError::refused(url.as_str(), error.to_string()))?;
        Ok(Self { client, url: url.clone() })
    }

    pub(super) async fn head(&self) -> Result<SourceObject, StoreError> {
        let answer = self.send(self.client.request(Method::HEAD, self.url.clone())).await?;
        let Some(bytes) = content_length(answer.headers()) else {
            let why = "the server does not tell the object's length";
            return Err(StoreError::refused(self.url.as_str(), why));
        };
        let version = version(answer.headers(), bytes);
        let e_tag = text(answer.headers(), header::ETAG).map(str::to_owned);
        let name = self.url.path_segments().and_then(|mut parts| parts.next_back());
        Ok(SourceObject {
            url: self.shown(),
            name: name.unwrap_or_default().to_owned(),
            bytes,
            version,
            modified_ms: 0,
            // A weak tag does not promise equal bytes, and cannot be insisted on.
            e_tag: e_tag.filter(|tag| !tag.starts_with("W/")),
            location: String::new(),
        })
    }

    /// The address as it may stand in a status: a query may hold a signature.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.into()
    }

    fn get(&self, object: &SourceObject) -> RequestBuilder {
        let request = self.client.request(Method::GET, self.url.clone());
        match &object.e_tag {
            Some(tag) => request.header(header::IF_MATCH, tag),
            None => request,
        }
    }

    pub(super) async fn read(&self, object: &SourceObject) -> Result<SourceBody, StoreError> {
        let answer = self.send(self.get(object)).await?;
        let is_other = content_length(answer.headers()).is_some_and(|bytes| bytes != object.bytes);
        if is_other || version(answer.headers(), object.bytes) != object.version {
            return Err(changed(object));
        }
        let url = object.url.clone();
        let pieces = answer.bytes_stream().map_err(move |error| of_transport(&url, &error));
        Ok(blocking_body(&object.url, Some(object.bytes), pieces.boxed()))
    }

    pub(super) async fn read_range(
        &self,
        object: &SourceObject,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let last = range.end.saturating_sub(1);
        let request =
            self.get(object).header(header::RANGE, format!("bytes={}-{last}", range.start));
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            let why = "the server does not answer parts of an object, which Parquet needs";
            return Err(StoreError::refused(object.url.as_str(), why));
        }
        // The length of an answer is that of the part: of the whole, the range tells.
        let told = content_range(answer.headers());
        let is_other = told.is_some_and(|(_, of)| of.is_some_and(|bytes| bytes != object.bytes));
        if is_other || version(answer.headers(), object.bytes) != object.version {
            return Err(changed(object));
        }
        if told.is_some_and(|(start, _)| start != range.start) {
            return Err(StoreError::refused(object.url.as_str(), "another part was answered"));
        }
        let wanted = range.end.saturating_sub(range.start);
        if content_length(answer.headers()).is_some_and(|bytes| bytes > wanted) {
            return Err(StoreError::refused(object.url.as_str(), "another part was answered"));
        }
        let mut pieces = answer.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| of_transport(&object.url, &error))?);
            if bytes.len() as u64 > wanted {
                return Err(StoreError::refused(object.url.as_str(), "another part was answered"));
            }
        }
        Ok(bytes.into())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, StoreError> {
        let url = self.shown();
        let limit = Duration::from_millis(READ_MS_MAX);
        let answer = match tokio::time::timeout(limit, request.send()).await {
            Ok(answer) => answer.map_err(|error| of_transport(&url, &error))?,
            Err(_) => {
                let why = format!("no answer within {} s", limit.as_secs());
                return Err(StoreError::unavailable(url, why));
            }
        };
        let status = answer.status();
        let kind = match status {
            _ if status.is_success() => return Ok(answer),
            StatusCode::NOT_FOUND | StatusCode::GONE => StoreErrorKind::NotFound,
            StatusCode::PRECONDITION_FAILED => StoreErrorKind::Precondition,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StoreErrorKind::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                StoreErrorKind::Unavailable
            }
            _ if status.is_server_error() => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Other,
        };
        Err(StoreError::new(kind, url, format!("the server answered {status}")))
    }
}

const PRIVATE: &str = "the host's address is a private one (objects.private_hosts)";

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_LENGTH)?.parse().ok()
}

/// Where the part that was answered begins, and how long the whole is, where
/// that is said (RFC 9110, 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (part, whole) =
        text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = part.split_once('-')?;
    Some((start.parse().ok()?, whole.parse().ok()))
}

/// What tells an object of so many bytes from what it was before.
fn version(headers: &HeaderMap, bytes: u64) -> String {
    match (text(headers, header::ETAG), text(headers, header::LAST_MODIFIED)) {
        (Some(tag), _) => format!("{bytes}#{tag}"),
        (None, Some(modified)) => format!("{bytes}@{modified}"),
        (None, None) => bytes.to_string(),
    }
}

/// What went wrong on the way, with the innermost cause; the library's own text
/// shows the whole address.
fn of_transport(url: &str, error: &reqwest::Error) -> StoreError {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let why = cause.to_string();
    match error.is_redirect() || error.is_builder() || why.contains(PRIVATE) {
        true => StoreError::refused(url, why),
        false => StoreError::unavailable(url, why),
    }
}

/// Whether the host is listed, or no address that is private by itself.
fn is_allowed(url: &Url, private_hosts: &[String]) -> bool {
    if !matches!(url.scheme(), "http" | "https") {
        return false;
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        // Names are looked at when they are resolved.
        Some(Host::Domain(_)) => return true,
        None => return false,
    };
    is_public(address) || url.host_str().is_some_and(|host| is_listed(host, private_hosts))
}

fn is_listed(host: &str, private_hosts: &[String]) -> bool {
    private_hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host))
}

/// Resolves names to public addresses only.
#[derive(Debug)]
struct PublicOnly {
    private_hosts: Arc<[String]>,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let is_listed = is_listed(name.as_str(), &self.private_hosts);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> =
                found.filter(|address| is_listed || is_public(address.ip())).collect();
            match found.is_empty() {
                true => Err(PRIVATE.into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address belongs to the internet (RFC 6890 has the others).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_special = (first == 192 && second == 0 && third == 0)
        || (first == 198 && (second == 18 || second == 19))
        || first == 0
        || first >= 240;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || is_shared
        || is_special)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4() {
        // ::1 and :: are of this form too, and 0.0.0.0/8 is not public.
        return is_public_v4(inner);
    }
    let [first, second, ..] = address.segments();
    let is_unique_local = first & 0xfe00 == 0xfc00;
    let is_link_local = first & 0xffc0 == 0xfe80;
    let is_site_local = first & 0xffc0 == 0xfec0;
    // 64:ff9b::/96, 6to4 and Teredo lead to an IPv4 address of anybody's.
    let is_translated =
        (first == 0x64 && second == 0xff9b) || first == 0x2002 || (first == 0x2001 && second == 0);
    !(address.is_multicast() || is_unique_local || is_link_local || is_site_local || is_translated)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::source::{SourceRules, SourceStore};
    use crate::tasks;

    const LISTED: &str =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"1\"\r\nContent-Length: 4\r\n\r\n";

    /// A web server that gives each connection the next of `answers`, and a
    /// source of it.
    async fn serving(answers: Vec<String>) -> SourceStore {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let private_hosts = vec!["127.0.0.1".to_owned()];
        SourceStore::open(&url, SourceRules { private_hosts, ..SourceRules::default() }).unwrap()
    }

    /// What of the listed object is read from an answer with these headers.
    async fn read(headers: &str, body: &str) -> Result<String, StoreErrorKind> {
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n{body}");
        let store = serving(vec![LISTED.to_owned(), answer]).await;
        let object = store.list(1).await.unwrap().remove(0);
        assert_eq!((object.bytes, object.version.as_str()), (4, "4#\"1\""));
        let mut body = store.read(&object).await.map_err(|error| error.kind)?;
        let failure = body.failure();
        let read = move || {
            let mut text = String::new();
            body.read_to_string(&mut text).map(|_| text).map_err(drop)
        };
        let unknown = StoreErrorKind::Other;
        tasks::run_blocking(read)
            .await
            .map_err(|()| failure.lock().as_ref().map_or(unknown, |error| error.kind))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_read_is_what_was_listed() {
        let changed = Err(StoreErrorKind::Precondition);
        for (headers, body, expected) in [
            ("ETag: \"1\"\r\nContent-Length: 4\r\n", "text", Ok("text".to_owned())),
            // Of an answer without a length, the connection's end is the body's.
            ("ETag: \"1\"\r\n", "text", Ok("text".to_owned())),
            ("ETag: \"1\"\r\n", "tex", changed.clone()),
            ("ETag: \"1\"\r\n", "texts", changed.clone()),
            ("ETag: \"1\"\r\nContent-Length: 5\r\n", "texts", changed.clone()),
            ("ETag: \"2\"\r\nContent-Length: 4\r\n", "othe", changed.clone()),
            ("Content-Length: 4\r\n", "othe", changed),
        ] {
            assert_eq!(read(headers, body).await, expected, "{headers}{body}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_is_of_what_was_listed() {
        for (headers, expected) in [
            ("ETag: \"1\"\r\nContent-Range: bytes 1-2/4\r\n", Ok(Bytes::from_static(b"ex"))),
            ("ETag: \"1\"\r\n", Ok(Bytes::from_static(b"ex"))),
            ("ETag: \"2\"\r\n", Err(StoreErrorKind::Precondition)),
            ("ETag: \"1\"\r\nContent-Range: bytes 1-2/5\r\n", Err(StoreErrorKind::Precondition)),
            ("ETag: \"1\"\r\nContent-Range: bytes 0-1/4\r\n", Err(StoreErrorKind::Other)),
        ] {
            let part = format!(
                "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 2\r\n\
                 {headers}\r\nex"
            );
            let store = serving(vec![LISTED.to_owned(), part]).await;
            let object = store.list(1).await.unwrap().remove(0);
            let found: Result<Bytes, _> = store.read_range(&object, 1..3).await;
            assert_eq!(found.map_err(|error| error.kind), expected, "{headers}");
        }
    }

    #[test]
    fn only_the_internet_is_public() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("93.184.216.34", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:a9fe:a9fe::", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn listed_hosts_may_be_private() {
        let check = |url: &str, listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|host| (*host).to_owned()).collect();
            is_allowed(&Url::parse(url).unwrap(), &listed)
        };
        assert!(!check("http://169.254.169.254/latest", &[]));
        assert!(!check("http://[::1]:80/", &[]));
        // The parser writes odd forms of an address as what they are.
        assert!(!check("http://2130706433/", &[]));
        assert!(!check("http://0x7f.1/", &[]));
        assert!(check("http://127.0.0.1:9/", &["127.0.0.1"]));
        assert!(check("http://example.org/", &[]));
        assert!(!check("ftp://example.org/", &[]));
    }
}
