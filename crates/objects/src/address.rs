//! Which addresses clients may name, and the stores behind them.
//!
//! The server opens what a client names, with the server's rights: so it opens
//! nothing but what its operator allowed.

use std::path::PathBuf;

use aquifer_env::source::{SourceRules, SourceStore};
use aquifer_env::store::TierStore;

use crate::{Error, ObjectOptions};

/// Opens an address for reading.
///
/// # Errors
/// [`Error::NotAllowed`]; [`Error::Objects`] for an address that is none.
pub(crate) fn open_source(url: &str, options: &ObjectOptions) -> Result<SourceStore, Error> {
    let allowed = allowed_by(url, options)?;
    let rules = SourceRules {
        options: store_options(url, options),
        private_hosts: options.private_hosts.clone(),
        directory: directory_of(allowed),
    };
    Ok(SourceStore::open(url, rules)?)
}

/// Opens an address for writing. This blocks where it is a directory.
///
/// # Errors
/// As [`open_source`].
pub(crate) fn open_destination(url: &str, options: &ObjectOptions) -> Result<TierStore, Error> {
    let allowed = allowed_by(url, options)?;
    if let Some(directory) = directory_of(allowed) {
        check_destination(url, &directory)?;
    }
    if url.starts_with("http") {
        return Err(Error::Invalid("records are exported to file, s3, gs or az".into()));
    }
    Ok(aquifer_env::open_store(url, &store_options(url, options))?)
}

/// A directory to write into need not exist; what exists of its path must not
/// lead out of what is allowed.
fn check_destination(url: &str, directory: &std::path::Path) -> Result<(), Error> {
    let not_allowed = || Error::NotAllowed(shown(url));
    let path = url.strip_prefix("file://").map(decoded).ok_or_else(not_allowed)?;
    let real = |path: &std::path::Path| std::fs::canonicalize(path).ok();
    let directory = real(directory).ok_or_else(not_allowed)?;
    let mut existing = PathBuf::from(path);
    loop {
        if let Some(found) = real(&existing) {
            return found.starts_with(&directory).then_some(()).ok_or_else(not_allowed);
        }
        if !existing.pop() {
            return Err(not_allowed());
        }
    }
}

/// The entry that allows an address.
fn allowed_by<'a>(url: &str, options: &'a ObjectOptions) -> Result<&'a str, Error> {
    crate::spec::check_url(url)?;
    let has_parents = url.split('/').any(|part| matches!(part, ".." | "%2e%2e" | "%2E%2E"));
    let matching = options.allowed.iter().find(|allowed| covers(allowed, url));
    match matching {
        Some(allowed) if !has_parents => Ok(allowed),
        _ => Err(Error::NotAllowed(shown(url))),
    }
}

/// Whether an entry allows an address: as its beginning, up to the end of a
/// name.
fn covers(allowed: &str, url: &str) -> bool {
    match url.strip_prefix(allowed) {
        Some(rest) => rest.is_empty() || allowed.ends_with('/') || rest.starts_with('/'),
        // The folder itself without the line at its end.
        None => allowed.strip_suffix('/').is_some_and(|folder| folder == url),
    }
}

/// The directory that an entry allows.
fn directory_of(allowed: &str) -> Option<PathBuf> {
    allowed.strip_prefix("file://").map(|path| PathBuf::from(decoded(path)))
}

/// A path without percent encoding; one that is not UTF-8 then is left as it
/// is, and will not be found.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

/// The options for the scheme of an address.
fn store_options(url: &str, options: &ObjectOptions) -> Vec<(String, String)> {
    let prefix = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3") => "aws_",
        Some("gs") => "google_",
        Some("az") => "azure_",
        _ => return Vec::new(),
    };
    let of_scheme = options.store_options.iter().filter(|(key, _)| {
        key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    });
    of_scheme.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An address as it may be shown: without what stands before an `@`, and
/// without its query.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let slash = if rest.contains('/') { "/" } else { "" };
            format!("{scheme}://{host}{slash}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(allowed: &[&str]) -> ObjectOptions {
        let allowed = allowed.iter().map(|url| (*url).to_owned()).collect();
        ObjectOptions { allowed, ..ObjectOptions::default() }
    }

    #[test]
    fn only_what_is_allowed_is_opened() {
        let check = |allowed: &[&str], url: &str, expected: bool| {
            assert_eq!(allowed_by(url, &options(allowed)).is_ok(), expected, "{url}");
        };
        let defaults = ObjectOptions::default();
        assert!(allowed_by("file:///etc/passwd", &defaults).is_err());
        assert!(allowed_by("s3://bucket/a", &defaults).is_ok());
        check(&["file:///data/"], "file:///data/a", true);
        check(&["file:///data/"], "file:///data", true);
        check(&["file:///data"], "file:///data/a", true);
        check(&["file:///data"], "file:///database/a", false);
        check(&["file:///data/"], "file:///data/../etc/passwd", false);
        check(&["file:///data/"], "file:///data/%2e%2e/etc/passwd", false);
        check(&["s3://mine/in/"], "s3://mine/in/a", true);
        check(&["s3://mine/in/"], "s3://mine/inner/a", false);
        check(&["s3://mine"], "s3://mine2/a", false);
        check(&["s3://"], "s3://any/a\nb", false);
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, expected) in [
            ("s3://id:secret@bucket/a?x=y", "s3://bucket/a"),
            ("https://host/a?signature=1#f", "https://host/a"),
            ("https://host", "https://host"),
            ("upload:a/b", "upload:a/b"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn options_go_to_the_store_of_their_scheme() {
        let mut options = options(&[]);
        for key in ["aws_region", "AWS_ENDPOINT", "google_service_account"] {
            options.store_options.insert(key.to_owned(), "x".to_owned());
        }
        assert_eq!(store_options("s3://a", &options).len(), 2);
        assert_eq!(store_options("gs://a", &options).len(), 1);
        assert_eq!(store_options("file:///a", &options).len(), 0);
    }
}
