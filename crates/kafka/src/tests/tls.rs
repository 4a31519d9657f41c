//! TLS listeners over a socket.

#![allow(clippy::disallowed_methods, reason = "a test writes the files that the server reads")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::client::{Client, Server};
use super::sasl;
use crate::{
    Action, Authorizer, ClientCertificates, Decision, KafkaOptions, ListenerSecurity, Principal,
    Proof, Resource,
};

/// An authority and what it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate with its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    async fn connect(
        &self,
        server: &Server,
        version: &'static SupportedProtocolVersion,
        identity: Option<&Identity>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(of) => {
                let key = PrivatePkcs8KeyDer::from(of.key.serialize_der());
                let chain = vec![of.certificate.der().clone()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from(key)).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(server.address()).await?;
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Client::over(stream))
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory as Kubernetes mounts a secret: files behind `..data`, a link
/// that is swapped as a whole.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(authority: &Authority, identity: &Identity) -> Self {
        let mounted = Self(tempfile::tempdir().unwrap());
        mounted.put("first", &identity.certificate.pem(), &identity.key.serialize_pem());
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), mounted.path(file)).unwrap();
        }
        write(&mounted.path("ca.crt"), &authority.certificate.pem(), 0o644);
        mounted
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn put(&self, version: &str, certificate: &str, key: &str) {
        let directory = self.path(version);
        std::fs::create_dir(&directory).unwrap();
        write(&directory.join("tls.crt"), certificate, 0o644);
        write(&directory.join("tls.key"), key, 0o640);
        symlink(version, self.path("..next")).unwrap();
        std::fs::rename(self.path("..next"), self.path("..data")).unwrap();
    }

    fn options(&self) -> KafkaOptions {
        KafkaOptions {
            security: ListenerSecurity::Tls,
            tls_certificate_file: Some(self.path("tls.crt")),
            tls_key_file: Some(self.path("tls.key")),
            tls_reload_interval_ms: 10,
            ..KafkaOptions::default()
        }
    }
}

fn served(client: &Client<TlsStream<TcpStream>>) -> CertificateDer<'static> {
    client.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

const TLS_13: &SupportedProtocolVersion = &rustls::version::TLS13;

#[tokio::test]
async fn both_versions_are_spoken_and_nothing_else() {
    let authority = Authority::new();
    let mounted = Mounted::new(&authority, &authority.sign("server"));
    let options = KafkaOptions { tls_handshake_ms_max: 100, ..mounted.options() };
    let server = Server::start(options).await;
    for version in [TLS_13, &rustls::version::TLS12] {
        let mut client = authority.connect(&server, version, None).await.unwrap();
        assert!(sasl::is_served(&mut client).await);
    }
    assert!(server.metrics.tls.expiry.get() > 0);
    // Clear text, and nothing at all.
    let mut client = server.client().await;
    assert!(!sasl::is_served(&mut client).await);
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(server.metrics.tls.handshakes_failed.get(), 2);
    // Another authority's clients do not trust it.
    assert!(Authority::new().connect(&server, TLS_13, None).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_swapped_under_open_connections() {
    let authority = Authority::new();
    let mounted = Mounted::new(&authority, &authority.sign("server"));
    let server = Server::start(mounted.options()).await;
    let mut open = authority.connect(&server, TLS_13, None).await.unwrap();
    let first = served(&open);

    // A pair that does not go together: the last good one stays.
    let (one, other) = (authority.sign("one"), authority.sign("other"));
    mounted.put("bad", &one.certificate.pem(), &other.key.serialize_pem());
    while server.metrics.tls.failures.get() == 0 {
        tokio::task::yield_now().await;
    }
    let client = authority.connect(&server, TLS_13, None).await.unwrap();
    assert_eq!(served(&client), first);

    mounted.put("second", &one.certificate.pem(), &one.key.serialize_pem());
    loop {
        let mut client = authority.connect(&server, TLS_13, None).await.unwrap();
        assert!(sasl::is_served(&mut client).await);
        if served(&client) == *one.certificate.der() {
            break;
        }
        assert_eq!(served(&client), first);
    }
    assert!(sasl::is_served(&mut open).await);
    server.stop().await;
}

/// Remembers who asked.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Principal>>);

impl Authorizer for Asked {
    fn decide(&self, principal: &Principal, _: Action, _: Resource<'_>) -> Decision {
        self.0.lock().push(principal.clone());
        Decision::Allow
    }
}

#[tokio::test]
async fn clients_are_who_their_certificates_say() {
    let authority = Authority::new();
    let mounted = Mounted::new(&authority, &authority.sign("server"));
    let options = KafkaOptions {
        tls_client_ca_file: Some(mounted.path("ca.crt")),
        tls_client_certificates: ClientCertificates::Required,
        ..mounted.options()
    };
    let asked = Arc::new(Asked::default());
    let server = Server::start_with(options.clone(), asked.clone()).await;
    let identity = authority.sign("client, 1");
    // TLS 1.3 tells a client that it is refused only with the first answer.
    for refused in [None, Some(&Authority::new().sign("client"))] {
        if let Ok(mut client) = authority.connect(&server, TLS_13, refused).await {
            assert!(client.is_closed().await);
        }
    }
    let mut client = authority.connect(&server, TLS_13, Some(&identity)).await.unwrap();
    ask(&mut client).await;
    let principal = asked.0.lock().pop().unwrap();
    assert_eq!((principal.user.as_str(), principal.proof), ("CN=client\\, 1", Proof::Certificate));
    server.stop().await;

    let options =
        KafkaOptions { tls_client_certificates: ClientCertificates::Requested, ..options };
    let server = Server::start_with(options, asked.clone()).await;
    let mut client = authority.connect(&server, TLS_13, None).await.unwrap();
    ask(&mut client).await;
    assert_eq!(asked.0.lock().pop().unwrap(), Principal::anonymous());
    server.stop().await;
}

/// Asks something that needs a decision.
async fn ask(client: &mut Client<TlsStream<TcpStream>>) {
    let request = kafka_protocol::messages::DescribeUserScramCredentialsRequest::default();
    assert_eq!(client.call(0, request).await.error_code, 0);
}

#[tokio::test]
async fn logins_go_through_tls() {
    let authority = Authority::new();
    let mounted = Mounted::new(&authority, &authority.sign("server"));
    let options = KafkaOptions { security: ListenerSecurity::SaslTls, ..mounted.options() };
    let asked = Arc::new(Asked::default());
    let server = Server::start_with(options, asked.clone()).await;
    sasl::create(&server, "alice", "pencil").await;
    for mechanism in sasl::ALL {
        let mut client = authority.connect(&server, TLS_13, None).await.unwrap();
        let done = sasl::log_in(&mut client, 2, mechanism, "alice", "pencil").await;
        assert_eq!(done.error_code, 0, "{mechanism}");
        ask(&mut client).await;
        let principal = asked.0.lock().pop().unwrap();
        let proof = Proof::Sasl(mechanism.parse().unwrap());
        assert_eq!((principal.user.as_str(), principal.proof), ("alice", proof));
    }
    server.stop().await;
}

#[tokio::test]
async fn unusable_files_are_named_at_the_start() {
    let authority = Authority::new();
    let identity = authority.sign("server");
    let check = async |edit: &dyn Fn(&Mounted), part: &str| {
        let mounted = Mounted::new(&authority, &identity);
        edit(&mounted);
        let why = Server::refused(mounted.options()).await;
        assert!(why.contains(part), "{why}");
        assert!(!why.contains("PRIVATE"), "{why}");
    };
    let key = |mounted: &Mounted| mounted.path("..data").join("tls.key");
    let certificate = |mounted: &Mounted| mounted.path("..data").join("tls.crt");
    let pem = identity.key.serialize_pem();
    check(&|of| write(&key(of), &pem, 0o644), "can be read by everybody").await;
    check(&|of| write(&key(of), "nothing", 0o600), "no private key").await;
    check(&|of| write(&certificate(of), "nothing", 0o600), "no certificate").await;
    check(&|of| write(&certificate(of), &"x".repeat(2 << 20), 0o600), "larger than").await;
    check(&|of| std::fs::remove_file(key(of)).unwrap(), "tls.key").await;
    let other = authority.sign("other").key.serialize_pem();
    check(&|of| write(&key(of), &other, 0o600), "do not go together").await;
}
