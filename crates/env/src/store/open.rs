//! From an address to a store.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::remote::RemoteBackend;
use super::{StoreError, TierStore};
use crate::random::RealRandom;
use crate::real_disk::RealDisk;

const CONNECT_MS_MAX: u64 = 5_000;
const RETRIES_MAX: usize = 3;
const RETRY_MS_MAX: u64 = 5_000;

/// Opens the store at `url`: `file:///directory`, `s3://bucket/prefix`,
/// `gs://bucket/prefix`, `az://container/prefix` or `memory://`.
///
/// The options are those of the `object_store` crate for the kind of store
/// (`region`, `endpoint`, `access_key_id`, `allow_http`, …) and override what
/// `AWS_*`, `GOOGLE_*` and `AZURE_*` in the environment say. An `http://`
/// endpoint needs no `allow_http`. A directory is made if absent, and cleaned
/// of what a crash has left; this blocks. Nothing else is reached yet:
/// [`TierStore::probe`] does that.
pub fn open_store(url: &str, options: &[(String, String)]) -> Result<TierStore, StoreError> {
    open(url, options, |directory| {
        let random = Arc::new(RealRandom::new());
        TierStore::in_directory(Arc::new(RealDisk::new()), random, directory)
    })
}

/// As [`open_store`], where others may be writing at the same time: of what is
/// half written nothing is removed.
pub fn open_shared_store(url: &str, options: &[(String, String)]) -> Result<TierStore, StoreError> {
    open(url, options, |directory| {
        let random = Arc::new(RealRandom::new());
        TierStore::in_shared_directory(Arc::new(RealDisk::new()), random, directory)
    })
}

/// As [`open_store`], for reading what another process keeps there: no
/// directory is made, none is cleaned up, and every change is refused.
pub fn open_store_to_read(
    url: &str,
    options: &[(String, String)],
) -> Result<TierStore, StoreError> {
    let store = open(url, options, |directory| {
        let random = Arc::new(RealRandom::new());
        Ok(TierStore::in_directory_to_read(Arc::new(RealDisk::new()), random, directory))
    })?;
    Ok(store.read_only())
}

fn open(
    url: &str,
    options: &[(String, String)],
    in_directory: impl FnOnce(&Path) -> Result<TierStore, StoreError>,
) -> Result<TierStore, StoreError> {
    let invalid = |error: &dyn Display| StoreError::other(url, error.to_string());
    let parsed = Url::parse(url).map_err(|error| invalid(&error))?;
    let root = || object_store::path::Path::from_url_path(parsed.path());
    let remote = |store: Arc<dyn ObjectStore>| {
        let root = root().map_err(|error| invalid(&error))?;
        Ok(TierStore::of(RemoteBackend::new(store, root, address(&parsed))))
    };
    match parsed.scheme() {
        "file" => {
            refuse_options(url, options)?;
            let directory = parsed
                .to_file_path()
                .map_err(|()| invalid(&"a file store is file:///absolute/directory"))?;
            in_directory(&directory)
        }
        "memory" => {
            refuse_options(url, options)?;
            Ok(TierStore::in_memory())
        }
        "s3" => remote(s3(&parsed, options).map_err(|error| invalid(&error))?),
        "gs" => remote(gcs(&parsed, options).map_err(|error| invalid(&error))?),
        "az" => remote(azure(&parsed, options).map_err(|error| invalid(&error))?),
        scheme => Err(invalid(&format!("unknown scheme {scheme}: use file, s3, gs, az or memory"))),
    }
}

/// The bucket that an address names, without the path in it.
pub(crate) fn remote_store(
    url: &Url,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let opened = match url.scheme() {
        "s3" => s3(url, options),
        "gs" => gcs(url, options),
        "az" => azure(url, options),
        scheme => return Err(StoreError::refused(address(url), format!("{scheme} is no bucket"))),
    };
    opened.map_err(|error| StoreError::refused(address(url), error.to_string()))
}

/// What other readers of the store at `url` have to know to reach it, in the
/// words of Iceberg's clients: endpoint and region, nothing secret. Taken from
/// where [`open_store`] takes it.
pub fn reader_settings(url: &str, options: &[(String, String)]) -> Vec<(&'static str, String)> {
    let is_s3 = Url::parse(url).is_ok_and(|url| url.scheme() == "s3");
    let settings = is_s3.then(|| settings::<AmazonS3ConfigKey>(&["AWS_"], options));
    let Some(Ok(settings)) = settings else { return Vec::new() };
    let (mut endpoint, mut region, mut is_virtual_hosted) = (None, None, false);
    for (key, value) in settings {
        // What was given last counts.
        match key {
            AmazonS3ConfigKey::Endpoint => endpoint = Some(value),
            AmazonS3ConfigKey::Region | AmazonS3ConfigKey::DefaultRegion => region = Some(value),
            AmazonS3ConfigKey::VirtualHostedStyleRequest => is_virtual_hosted = is_yes(&value),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(region) = region {
        // Clients in Python know it by the one name, those in Java by the other.
        found.push(("s3.region", region.clone()));
        found.push(("client.region", region));
    }
    if let Some(endpoint) = endpoint {
        // Clients in Java make the bucket a part of the host's name else.
        if !is_virtual_hosted {
            found.push(("s3.path-style-access", "true".to_owned()));
        }
        found.push(("s3.endpoint", endpoint));
    }
    found
}

/// What stores read as a yes.
fn is_yes(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// The address of the store in an absolute `directory`.
pub fn file_url(directory: &Path) -> Option<String> {
    let url = Url::from_file_path(directory).ok()?;
    Some(url.into())
}

/// The path that is opened for an address of the scheme `file`; none for others.
#[must_use]
pub fn file_path(url: &str) -> Option<PathBuf> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

/// Without credentials or query.
fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{}", url.scheme(), url.path())
}

fn refuse_options(url: &str, options: &[(String, String)]) -> Result<(), StoreError> {
    match options.first() {
        None => Ok(()),
        Some((key, _)) => Err(StoreError::other(url, format!("unknown option {key}"))),
    }
}

fn s3(url: &Url, options: &[(String, String)]) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new();
    builder = builder.with_client_options(client_options()).with_retry(retries());
    for (key, value) in settings::<AmazonS3ConfigKey>(&["AWS_"], options)? {
        if key == AmazonS3ConfigKey::Endpoint {
            builder = builder.with_allow_http(value.starts_with("http://"));
        }
        builder = builder.with_config(key, value);
    }
    Ok(Arc::new(builder.with_url(bare(url)).build()?))
}

fn gcs(url: &Url, options: &[(String, String)]) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new();
    builder = builder.with_client_options(client_options()).with_retry(retries());
    for (key, value) in settings::<GoogleConfigKey>(&["GOOGLE_", "SERVICE_ACCOUNT"], options)? {
        if key == GoogleConfigKey::BaseUrl {
            let client_options = client_options().with_allow_http(value.starts_with("http://"));
            builder = builder.with_client_options(client_options);
        }
        builder = builder.with_config(key, value);
    }
    Ok(Arc::new(builder.with_url(bare(url)).build()?))
}

fn azure(url: &Url, options: &[(String, String)]) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new();
    builder = builder.with_client_options(client_options()).with_retry(retries());
    for (key, value) in settings::<AzureConfigKey>(&["AZURE_", "MSI_ENDPOINT"], options)? {
        if key == AzureConfigKey::Endpoint {
            builder = builder.with_allow_http(value.starts_with("http://"));
        }
        builder = builder.with_config(key, value);
    }
    Ok(Arc::new(builder.with_url(bare(url)).build()?))
}

/// What the environment says, as far as the store knows it, and then the
/// options, each of which it must know.
fn settings<Key: FromStr<Err = object_store::Error>>(
    prefixes: &[&str],
    options: &[(String, String)],
) -> object_store::Result<Vec<(Key, String)>> {
    let mut settings = Vec::new();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        if prefixes.iter().any(|prefix| name.starts_with(prefix))
            && let Ok(key) = Key::from_str(&name.to_ascii_lowercase())
        {
            settings.push((key, value.to_owned()));
        }
    }
    for (name, value) in options {
        settings.push((Key::from_str(&name.to_ascii_lowercase())?, value.clone()));
    }
    Ok(settings)
}

/// The address that a builder takes its bucket from.
fn bare(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Without a limit on whole requests, which [`RemoteBackend`] sets by length.
fn client_options() -> ClientOptions {
    let connect = Duration::from_millis(CONNECT_MS_MAX);
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(connect)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: Duration::from_millis(RETRY_MS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(url: &str, options: &[(&str, &str)]) -> String {
        let options: Vec<(String, String)> =
            options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        match open_store(url, &options) {
            Ok(store) => store.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_scheme_opens_its_store() {
        assert_eq!(check("memory://", &[]), "memory://");
        assert_eq!(check("s3://bucket/a/b/", &[("region", "x")]), "s3://bucket/a/b/");
        assert_eq!(check("s3://id:secret@bucket/a?x=y", &[]), "s3://bucket/a");
        assert_eq!(check("gs://bucket", &[("skip_signature", "true")]), "gs://bucket");
        assert_eq!(check("az://container/a", &[("account_name", "x")]), "az://container/a");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (url, options, reason) in [
            ("/var/data", None, "relative URL without a base"),
            ("ftp://host/a", None, "unknown scheme ftp"),
            ("file://host/a", None, "file:///absolute/directory"),
            ("file:///a", Some(("region", "x")), "unknown option region"),
            ("s3://bucket", Some(("regoin", "x")), "regoin"),
            ("s3://bucket/a//b", None, "empty path segment"),
            ("az://container", None, "ccount"),
        ] {
            let text = check(url, options.as_slice());
            assert!(text.starts_with(url) && text.contains(reason), "{url}: {text}");
        }
    }

    #[test]
    fn readers_are_told_where_a_bucket_is_and_nothing_secret() {
        let check = |url: &str, options: &[(&str, &str)], expected: &[(&str, &str)]| {
            let options: Vec<(String, String)> =
                options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            let found = reader_settings(url, &options);
            let found: Vec<(&str, &str)> =
                found.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(found, expected, "{url} {options:?}");
        };
        let address = "http://minio:9000";
        let given = [
            ("region", "old"),
            ("secret_access_key", "secret"),
            ("region", "x"),
            ("endpoint", address),
        ];
        let region = [("s3.region", "x"), ("client.region", "x")];
        let path = ("s3.path-style-access", "true");
        let endpoint = ("s3.endpoint", address);
        check("s3://bucket/a", &given, &[region[0], region[1], path, endpoint]);
        let by_host = [given.as_slice(), &[("virtual_hosted_style_request", "True")]].concat();
        check("s3://bucket/a", &by_host, &[region[0], region[1], endpoint]);
        check("file:///a", &given, &[]);
        check("s3://bucket/a", &[("regoin", "x")], &[]);
    }

    #[tokio::test]
    async fn what_is_opened_for_reading_is_left_as_it_is() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let url = file_url(parent.path()).expect("an address");
        let writer = open_store(&url, &[]).expect("a store");
        writer.put_new("a/b", Bytes::from_static(b"bytes")).await.expect("stored");
        let half_written = parent.path().join(".aquifer-tmp/half");
        std::fs::write(&half_written, b"half").expect("written");
        let reader = open_store_to_read(&url, &[]).expect("a store");
        assert!(half_written.exists());
        assert_eq!(reader.get("a/b").await.expect("read"), "bytes");
        for refused in [
            reader.put("a/b", Bytes::new()).await,
            reader.put_new("a/c", Bytes::new()).await,
            reader.delete("a/b").await,
        ] {
            let error = refused.expect_err("nothing is changed").to_string();
            assert!(error.contains("reading only"), "{error}");
        }
        assert_eq!(writer.get("a/b").await.expect("read"), "bytes");
        assert!(open_store_to_read("memory://", &[]).is_ok());
        let absent = parent.path().join("absent");
        let absent_url = file_url(&absent).expect("an address");
        open_store_to_read(&absent_url, &[]).expect("opened").get("a").await.expect_err("absent");
        assert!(!absent.exists());
    }

    #[tokio::test]
    async fn what_others_are_writing_is_left_to_them() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("new");
        let url = file_url(&directory).expect("an address");
        let first = open_shared_store(&url, &[]).expect("a store");
        let half_written = directory.join(".aquifer-tmp/half");
        std::fs::write(&half_written, b"half").expect("written");
        let second = open_shared_store(&url, &[]).expect("a store");
        assert!(half_written.exists());
        for (store, name) in [(&first, "a"), (&second, "b")] {
            store.put_new(name, Bytes::from_static(b"bytes")).await.expect("stored");
        }
        assert_eq!(first.get("b").await.expect("read"), "bytes");
        open_store(&url, &[]).expect("a store");
        assert!(!half_written.exists(), "a store of one's own is cleaned up");
    }

    #[test]
    fn a_directory_has_an_address_whatever_its_name() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("a b%20#?ö");
        let url = file_url(&directory).expect("an address");
        open_store(&url, &[]).expect("a store");
        assert!(directory.is_dir(), "{url}");
        assert_eq!(file_path(&url), Some(directory));
        assert_eq!(file_path("file:///a/./b?c"), Some(PathBuf::from("/a/b")));
        assert_eq!(file_path("s3://a/b"), None);
        assert_eq!(file_url(Path::new("relative")), None);
    }
}
