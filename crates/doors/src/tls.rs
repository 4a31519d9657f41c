//! TLS for listeners: certificates from files, and from the same files again
//! when they change.
//!
//! The files are read at the start, which fails where they are unusable, and
//! at an interval after it. What was read is used for new
//! connections only if all of it holds together; until then the last good one
//! stays. Files behind links that are swapped, as Kubernetes swaps `..data`,
//! are just files that changed. Keys are held by rustls alone and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Disk, RealDisk, tasks};
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// No certificate file is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permission to read for everybody.
const WORLD_READABLE: u32 = 0o004;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is no certificate by its size.
    #[error("{path} is larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A key that anybody can take.
    #[error(
        "{path} can be read by everybody on this machine: take that permission away (chmod o-r)"
    )]
    WorldReadable {
        /// The file.
        path: PathBuf,
    },
    /// A file without what it is there for.
    #[error("{path} holds no {what} in PEM")]
    Nothing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate that is none.
    #[error("{path}: a certificate cannot be read: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Each is sound, and all together are not.
    #[error("certificate, key and authorities do not go together: {0}")]
    Refused(String),
}

/// What a TLS listener asks of its clients' certificates.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Nothing.
    #[default]
    None,
    /// A client may show one; then it must be signed by the authority.
    Requested,
    /// A client must show one that the authority signed.
    Required,
}

/// Where a door's certificates are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM; not to be readable by everybody.
    pub key: PathBuf,
    /// The authorities that clients' certificates are signed by, PEM.
    pub client_ca: Option<PathBuf>,
}

/// What is counted and measured of TLS at a door.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    /// When the certificate expires, seconds since 1970.
    pub expiry: Gauge,
    /// New files that could not be used.
    pub failures: Counter,
    /// Handshakes that failed or took too long; the door counts them.
    pub handshakes_failed: Counter,
}

impl TlsMetrics {
    /// Registers them under `registry`'s prefix, which is the door's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or took too long",
            self.handshakes_failed.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_expiry",
            "When the certificate expires, since 1970-01-01 UTC",
            Unit::Seconds,
            self.expiry.clone(),
        );
        registry.register(
            "tls_reload_failures",
            "Changed certificate files that could not be used",
            self.failures.clone(),
        );
    }
}

/// The files, and what was last read from them.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// The forms in which listeners need it.
    forms: BTreeSet<ClientCertificates>,
    current: RwLock<Arc<Loaded>>,
    metrics: TlsMetrics,
}

/// The bytes of all files.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Loaded {
    configs: BTreeMap<ClientCertificates, Arc<ServerConfig>>,
    /// When the first certificate of the chain expires, seconds since 1970.
    expiry: i64,
}

impl Tls {
    /// Reads the files. What is returned beside is what they held, for
    /// [`Tls::keep_current`].
    ///
    /// # Errors
    /// Files that cannot be read or do not go together.
    pub async fn load(
        files: TlsFiles,
        forms: BTreeSet<ClientCertificates>,
        metrics: TlsMetrics,
    ) -> Result<(Arc<Self>, Seen), TlsError> {
        let (of_files, of_forms) = (files.clone(), forms.clone());
        let (contents, loaded) = tasks::run_blocking(move || {
            let contents = of_files.read(&RealDisk::new())?;
            let loaded = of_files.parse(&contents, &of_forms)?;
            Ok::<_, TlsError>((contents, loaded))
        })
        .await?;
        let current = RwLock::new(Arc::new(loaded));
        let tls = Arc::new(Self { files, forms, current, metrics });
        tls.tell();
        Ok((tls, Seen(contents)))
    }

    /// What a new connection is served with.
    #[must_use]
    pub fn config(&self, form: ClientCertificates) -> Option<Arc<ServerConfig>> {
        self.current.read().configs.get(&form).cloned()
    }

    /// Looks at the files again and again until the server stops.
    pub async fn keep_current(
        self: Arc<Self>,
        seen: Seen,
        interval: Duration,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut seen = Some(seen);
        let mut last_failure = String::new();
        loop {
            tokio::select! {
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
                () = tokio::time::sleep(interval) => {}
            }
            let tls = self.clone();
            let before = seen.take();
            let (now, result) = tasks::run_blocking(move || tls.reload(before)).await;
            seen = now;
            match result {
                Ok(is_new) => {
                    last_failure.clear();
                    if is_new {
                        self.tell();
                    }
                }
                Err(error) => {
                    // Said once, not at every look.
                    let failure = error.to_string();
                    if failure != last_failure {
                        self.metrics.failures.inc();
                        tracing::error!(%error, "new certificates cannot be used, the last ones stay");
                        last_failure = failure;
                    }
                }
            }
        }
    }

    /// What the files hold now, and whether it was taken over. A pair that does
    /// not go together may be one that is being replaced: it is tried again at
    /// the next look.
    fn reload(&self, before: Option<Seen>) -> (Option<Seen>, Result<bool, TlsError>) {
        let contents = match self.files.read(&RealDisk::new()) {
            Ok(contents) => contents,
            Err(error) => return (before, Err(error)),
        };
        if before.as_ref().is_some_and(|before| before.0 == contents) {
            return (before, Ok(false));
        }
        match self.files.parse(&contents, &self.forms) {
            Ok(loaded) => {
                *self.current.write() = Arc::new(loaded);
                (Some(Seen(contents)), Ok(true))
            }
            Err(error) => (before, Err(error)),
        }
    }

    fn tell(&self) {
        let expiry = self.current.read().expiry;
        self.metrics.expiry.set(expiry);
        let file = self.files.certificate.display();
        tracing::info!(%file, expires = expiry, "a certificate is in use");
    }
}

/// What the files held when they were last usable.
pub struct Seen(Contents);

impl std::fmt::Debug for Seen {
    // A private key is among it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seen(…)")
    }
}

impl TlsFiles {
    fn read(&self, disk: &dyn Disk) -> Result<Contents, TlsError> {
        let file = |error| TlsError::File { path: self.key.clone(), error };
        let status = rustix::fs::stat(&self.key).map_err(|error| file(error.into()))?;
        if status.st_mode & WORLD_READABLE != 0 {
            return Err(TlsError::WorldReadable { path: self.key.clone() });
        }
        Ok(Contents {
            certificate: read(disk, &self.certificate)?,
            key: read(disk, &self.key)?.into(),
            client_ca: self.client_ca.as_deref().map(|path| read(disk, path)).transpose()?,
        })
    }

    fn parse(
        &self,
        contents: &Contents,
        forms: &BTreeSet<ClientCertificates>,
    ) -> Result<Loaded, TlsError> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| TlsError::Nothing { path: self.key.clone(), what: "private key" })?;
        let expiry = chain
            .iter()
            .map(|of| expiry(&self.certificate, of))
            .try_fold(i64::MAX, |first, expiry| expiry.map(|expiry| first.min(expiry)))?;
        let roots = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(bytes)) => Some(Arc::new(roots(path, bytes)?)),
            _ => None,
        };
        let mut configs = BTreeMap::new();
        for form in forms {
            let config = config(*form, roots.clone(), chain.clone(), key.clone_key())?;
            configs.insert(*form, Arc::new(config));
        }
        Ok(Loaded { configs, expiry })
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::File { path: path.to_owned(), error };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let file = disk.open_read(&absolute).map_err(failed)?;
    let length = file.len().map_err(failed)?;
    if length > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate { path: path.to_owned(), why: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::Nothing { path: path.to_owned(), what: "certificate" });
    }
    Ok(certificates)
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| TlsError::Certificate {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn expiry(path: &Path, certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate.validity().not_after.timestamp()),
        Err(error) => Err(TlsError::Certificate { path: path.to_owned(), why: error.to_string() }),
    }
}

fn config(
    form: ClientCertificates,
    roots: Option<Arc<RootCertStore>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Refused(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| refused(&error))?;
    let builder = match (form, roots) {
        (ClientCertificates::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(refused(&"there are no authorities for clients' certificates")),
        (form, Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match form {
                ClientCertificates::Requested => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| refused(&error))
}
