//! A server over a real store, and a raw client of it.
//!
//! ```ignore
//! let server = Server::start(KafkaOptions::default()).await;
//! let mut client = server.client().await;
//! let response = client.call(4, MetadataRequest::default()).await;
//! server.stop().await;
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use aquifer_env::{RealClock, RealRandom};
use aquifer_stream::{Environment, Options, StreamStore};
use aquifer_users::Users;
use aquifer_users::sasl::TokenValidator;
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{AllowAll, Authorizer, KafkaEnvironment, KafkaMetrics, KafkaOptions, KafkaServer};

/// A server on a free port, over a store in a directory of its own.
pub(crate) struct Server {
    pub(crate) store: StreamStore,
    pub(crate) metrics: KafkaMetrics,
    kafka: KafkaServer,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts one that allows everything.
    pub(crate) async fn start(options: KafkaOptions) -> Self {
        Self::start_with(options, Arc::new(AllowAll)).await
    }

    /// Starts one whose requests `authorizer` decides about.
    pub(crate) async fn start_with(options: KafkaOptions, authorizer: Arc<dyn Authorizer>) -> Self {
        Self::open(options, authorizer, None, tempfile::tempdir().unwrap()).await
    }

    /// Starts one that takes the tokens that `validator` does.
    pub(crate) async fn start_with_tokens(
        options: KafkaOptions,
        validator: Arc<dyn TokenValidator>,
    ) -> Self {
        Self::open(options, Arc::new(AllowAll), Some(validator), tempfile::tempdir().unwrap()).await
    }

    /// The users of its store.
    pub(crate) fn users(&self) -> Users {
        Users::new(self.store.clone(), Arc::new(RealClock::new()), Arc::new(RealRandom))
    }

    async fn open(
        options: KafkaOptions,
        authorizer: Arc<dyn Authorizer>,
        token_validator: Option<Arc<dyn TokenValidator>>,
        directory: tempfile::TempDir,
    ) -> Self {
        let (store, metrics, kafka, directory) =
            Self::try_open(options, authorizer, token_validator, directory).await;
        Self { store, metrics, kafka: kafka.unwrap(), directory }
    }

    async fn try_open(
        options: KafkaOptions,
        authorizer: Arc<dyn Authorizer>,
        token_validator: Option<Arc<dyn TokenValidator>>,
        directory: tempfile::TempDir,
    ) -> (StreamStore, KafkaMetrics, io::Result<KafkaServer>, tempfile::TempDir) {
        let mut registry = Registry::with_prefix("aquifer");
        let metrics = KafkaMetrics::register(&mut registry);
        let environment = Environment::real();
        let (clock, random) = (environment.clock.clone(), environment.random.clone());
        let store_options = Options {
            data: directory.path().join("data"),
            journal_file_bytes: 1 << 20,
            compaction_interval_ms: 10,
            ..Options::default()
        };
        let store = StreamStore::open(store_options, environment, &mut registry).await.unwrap();
        let options = KafkaOptions { listen: "127.0.0.1:0".parse().unwrap(), ..options };
        let environment = KafkaEnvironment {
            clock,
            random,
            metrics: metrics.clone(),
            authorizer,
            token_validator,
        };
        let kafka = KafkaServer::start(store.clone(), options, environment).await;
        (store, metrics, kafka, directory)
    }

    /// Why a server with these options does not start.
    pub(crate) async fn refused(options: KafkaOptions) -> String {
        let directory = tempfile::tempdir().unwrap();
        let (store, _, kafka, _directory) =
            Self::try_open(options, Arc::new(AllowAll), None, directory).await;
        store.shutdown().await.unwrap();
        kafka.unwrap_err().to_string()
    }

    /// Stops it gracefully and starts another over the same data.
    pub(crate) async fn restart(self, options: KafkaOptions) -> Self {
        let directory = self.stop().await;
        Self::open(options, Arc::new(AllowAll), None, directory).await
    }

    /// Where its first listener listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.kafka.addresses()[0]
    }

    /// A connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// Stops it gracefully; its data stay as long as what is returned.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.kafka.stop().await;
        self.store.shutdown().await.unwrap();
        self.directory
    }
}

/// A connection that speaks raw requests; answers come in order.
#[derive(Debug)]
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    correlation: i32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, correlation: 0 }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        let sent = self.send(version, &request).await;
        let (correlation, response) = self.receive::<R>(version).await.unwrap();
        assert_eq!(correlation, sent);
        response
    }

    /// As `call`, for a version that the codec does not know and whose fields are
    /// those of `known`; the answer's bytes behind its header.
    pub(crate) async fn call_beyond<R: Request>(
        &mut self,
        version: i16,
        known: i16,
        request: &R,
    ) -> Bytes {
        self.correlation += 1;
        let mut frame = frame(known, self.correlation, request).to_vec();
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        self.stream.write_all(&frame).await.unwrap();
        let mut bytes = self.receive_bytes().await.unwrap();
        let header_version = R::Response::header_version(known);
        let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
        assert_eq!(header.correlation_id, self.correlation);
        bytes
    }

    /// Sends a request; its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation += 1;
        let frame = frame(version, self.correlation, request);
        self.stream.write_all(&frame).await.unwrap();
        self.correlation
    }

    /// The next answer and its correlation id; none where the server closed
    /// the connection.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> Option<(i32, R::Response)> {
        let mut bytes = self.receive_bytes().await?;
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
        let response = R::Response::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty(), "{} bytes are left over", bytes.len());
        Some((header.correlation_id, response))
    }

    /// The next frame without its length; none where the server closed the
    /// connection.
    pub(crate) async fn receive_bytes(&mut self) -> Option<Bytes> {
        let length = match self.stream.read_i32().await {
            Ok(length) => usize::try_from(length).unwrap(),
            Err(_) => return None,
        };
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes.into())
    }

    /// Whether the server closed the connection without a further answer.
    pub(crate) async fn is_closed(&mut self) -> bool {
        // A connection with unread bytes is reset, not ended.
        self.stream.read_u8().await.is_err()
    }
}

/// A whole frame: its length, header and body.
pub(crate) fn frame<R: Request>(version: i16, correlation: i32, request: &R) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut bytes, R::header_version(version))
        .unwrap();
    request.encode(&mut bytes, version).unwrap();
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.freeze()
}
