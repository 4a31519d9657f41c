//! TLS for listeners: certificates from files, and from the same files again
//! when they change.
//!
//! The files are read at the start, which fails where they are unusable, and
//! every `tls_reload_interval_ms` after it. What was read is used for new
//! connections only if all of it holds together; until then the last good one
//! stays. Files behind links that are swapped, as Kubernetes swaps `..data`,
//! are just files that changed. Keys are held by rustls alone and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Disk, RealDisk, tasks};
use aquifer_types::TenantName;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use crate::authorizer::{Principal, Proof};
use crate::metrics::KafkaMetrics;
use crate::options::{ClientCertificates, KafkaOptions};

/// No certificate file is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permission to read for everybody.
const WORLD_READABLE: u32 = 0o004;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is larger than 1 MiB")]
    TooLarge { path: PathBuf },
    #[error(
        "{path} can be read by everybody on this machine: take that permission away (chmod o-r)"
    )]
    WorldReadable { path: PathBuf },
    #[error("{path} holds no {what} in PEM")]
    Nothing { path: PathBuf, what: &'static str },
    #[error("{path}: a certificate cannot be read: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("certificate, key and authorities do not go together: {0}")]
    Refused(String),
}

/// The files, and what was last read from them.
#[derive(Debug)]
pub(crate) struct Tls {
    files: Files,
    /// The forms in which listeners need it.
    forms: BTreeSet<ClientCertificates>,
    current: RwLock<Arc<Loaded>>,
    metrics: KafkaMetrics,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
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
    /// Reads the files that the options name, if a listener needs them. What is
    /// returned beside is what they held, for [`Tls::keep_current`].
    pub(crate) async fn load(
        options: &KafkaOptions,
        metrics: KafkaMetrics,
    ) -> Result<Option<(Arc<Self>, Seen)>, TlsError> {
        let (Some(certificate), Some(key)) =
            (options.tls_certificate_file.clone(), options.tls_key_file.clone())
        else {
            return Ok(None);
        };
        let listeners = options.all_listeners();
        let forms: BTreeSet<_> = listeners
            .iter()
            .filter(|of| of.security.is_tls())
            .map(|of| options.client_certificates(of))
            .collect();
        if forms.is_empty() {
            return Ok(None);
        }
        let files = Files { certificate, key, client_ca: options.tls_client_ca_file.clone() };
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
        Ok(Some((tls, Seen(contents))))
    }

    /// What a new connection is served with.
    pub(crate) fn config(&self, form: ClientCertificates) -> Option<Arc<ServerConfig>> {
        self.current.read().configs.get(&form).cloned()
    }

    /// Looks at the files again and again until the server stops.
    pub(crate) async fn keep_current(
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
                        self.metrics.certificate_failures.inc();
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
        self.metrics.certificate_expiry.set(expiry);
        let file = self.files.certificate.display();
        tracing::info!(%file, expires = expiry, "a certificate is in use");
    }
}

/// What the files held when they were last usable.
pub(crate) struct Seen(Contents);

impl Files {
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

/// The principal that a client's certificate proves; none where it has no
/// subject that can be written down.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Option<Principal> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let user = distinguished_name(certificate.subject())?;
    let tenant = TenantName::default_tenant();
    Some(Principal { tenant, user, proof: Proof::Certificate })
}

/// A name as RFC 2253 writes it: the last part first, as Kafka's own
/// principals are written.
fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in part.iter() {
            let oid = attribute.attr_type();
            let kind = match oid.to_id_string().as_str() {
                "2.5.4.3" => "CN".to_owned(),
                "2.5.4.6" => "C".to_owned(),
                "2.5.4.7" => "L".to_owned(),
                "2.5.4.8" => "ST".to_owned(),
                "2.5.4.9" => "STREET".to_owned(),
                "2.5.4.10" => "O".to_owned(),
                "2.5.4.11" => "OU".to_owned(),
                "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
                "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
                other => other.to_owned(),
            };
            attributes.push(format!("{kind}={}", escaped(attribute.as_str().ok()?)?));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// RFC 2253, section 2.4; none for control characters, which could make one
/// name look like another.
fn escaped(value: &str) -> Option<String> {
    if value.chars().any(char::is_control) {
        return None;
    }
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        let is_edge_space = character == ' ' && (at == 0 || at == last);
        let is_first_hash = character == '#' && at == 0;
        if ",+\"\\<>;".contains(character) || is_edge_space || is_first_hash {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn subjects_are_written_as_kafka_writes_them() {
        let check = |names: &[(DnType, &str)], expected: Option<&str>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, name) in names {
                params.distinguished_name.push(kind.clone(), *name);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = principal(certificate.der());
            assert_eq!(found.as_ref().map(|found| found.user.as_str()), expected);
            assert!(found.is_none_or(|found| found.proof == Proof::Certificate));
        };
        let (common, organisation, country) =
            (DnType::CommonName, DnType::OrganizationName, DnType::CountryName);
        check(
            &[(country, "DE"), (organisation, "Example, Inc."), (common.clone(), "client-1")],
            Some("CN=client-1,O=Example\\, Inc.,C=DE"),
        );
        check(&[(common.clone(), " #a+b ")], Some("CN=\\ #a\\+b\\ "));
        check(&[(common.clone(), "#a")], Some("CN=\\#a"));
        check(&[(common, "a\u{7}")], None);
        check(&[], None);
    }
}
