//! Which addresses clients may name, and the stores behind them.
//!
//! The server opens what a client names, with the server's rights: so it opens
//! nothing but what its operator allowed.

use std::path::{Path, PathBuf};

use aquifer_env::source::{SourceRules, SourceStore};
use aquifer_env::store::TierStore;

use crate::imported::beginning;
use crate::{Error, ObjectOptions};

/// Of the digest of an address's query.
const QUERY_DIGEST_BYTES: usize = 9;

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
    Ok(aquifer_env::open_shared_store(url, &store_options(url, options))?)
}

/// A directory to write into need not exist; what exists of its path must not
/// lead out of what is allowed.
fn check_destination(url: &str, directory: &Path) -> Result<(), Error> {
    let not_allowed = || Error::NotAllowed(shown(url));
    // The very path that is opened: the address may have more than that.
    let path = aquifer_env::file_path(url).ok_or_else(not_allowed)?;
    let directory = std::fs::canonicalize(directory).map_err(|_| not_allowed())?;
    match linked(&path).starts_with(&directory) {
        true => Ok(()),
        false => Err(not_allowed()),
    }
}

/// A path with all links followed in what exists of it. This blocks.
fn linked(path: &Path) -> PathBuf {
    let existing =
        path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    match existing {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

/// Whether one of two addresses lies in the other, however they are written.
/// This blocks where they are directories.
pub(crate) fn is_within(one: &str, other: &str) -> bool {
    let (one, other) = (place(one), place(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// An address as a path: of a file where it really is, else of scheme, bucket
/// and names.
fn place(url: &str) -> PathBuf {
    match aquifer_env::file_path(url) {
        Some(path) => linked(&path),
        None => PathBuf::from(decoded(shown(url).trim())),
    }
}

/// The entry that allows an address.
fn allowed_by<'a>(url: &str, options: &'a ObjectOptions) -> Result<&'a str, Error> {
    crate::spec::check_url(url)?;
    // What the parser of addresses, or a file system, takes for the folder above:
    // a query ends a name, and blanks at the end are cut off.
    let has_parents = decoded(url).split(['/', '\\', '?', '#']).any(|part| part.trim_end() == "..");
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

/// A text without percent encoding, which is undone once, as what opens an
/// address does. What is not UTF-8 then becomes U+FFFD.
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
    String::from_utf8_lossy(&bytes).into_owned()
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

/// What an object is known by: its address and, of a web server, a digest of the
/// query. That may be what tells objects apart, and may hold a signature, so it
/// is not shown.
pub(crate) fn identity(opened: &str, object: &str) -> String {
    let bare = opened.split('#').next().unwrap_or_default();
    match bare.split_once('?') {
        Some((_, query)) if bare.starts_with("http") && !query.is_empty() => {
            format!("{object}#{}", beginning(query, QUERY_DIGEST_BYTES))
        }
        _ => object.to_owned(),
    }
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
        for inside in ["a..b", "..a/b", "%252e%252e/b", "a%2Fb", "...", "a?b#c"] {
            check(&["file:///data/"], &format!("file:///data/{inside}"), true);
        }
        for outside in [
            ".%2e/x",
            "%2e./x",
            "%2E%2e/x",
            "x%2F..%2F..%2Fetc",
            "x\\..\\..\\etc",
            "x%5C..%5C..%5Cetc",
            "nope/.%2e/.%2e/etc/x",
            "%ff/.%2E/.%2E/x",
            "..?x",
            "..#x",
            ".. ",
        ] {
            check(&["file:///data/"], &format!("file:///data/{outside}"), false);
        }
        check(&["s3://mine/in/"], "s3://mine/in/.%2e/secret/", false);
        check(&["s3://mine/in/"], "s3://mine/in/%ff/.%2E/x", false);
        check(&["https://host/in/"], "https://host/in/\\..\\x", false);
        check(&["s3://mine/in/"], "s3://mine/in/a", true);
        check(&["s3://mine/in/"], "s3://mine/inner/a", false);
        check(&["s3://mine"], "s3://mine2/a", false);
        check(&["s3://"], "s3://any/a\nb", false);
    }

    #[test]
    fn what_is_written_stays_where_it_may_lie() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap();
        for directory in ["in", "out"] {
            std::fs::create_dir(root.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("out"), root.join("in/link")).unwrap();
        let check = |url: String, expected: bool| {
            assert_eq!(check_destination(&url, &root.join("in")).is_ok(), expected, "{url}");
        };
        let inside = format!("file://{}/in", root.display());
        check(inside.clone(), true);
        check(format!("{inside}/new/a%20b"), true);
        check(format!("{inside}/%ff/new"), true);
        check(format!("file://{}/other", root.display()), false);
        // A link leads out, whatever stands behind its name.
        for link in ["link", "link/new", "link?x", "link#x", "link ", "link\\new", "l%69nk"] {
            check(format!("{inside}/{link}"), false);
        }
        check("s3://bucket/in".to_owned(), false);
    }

    #[test]
    fn addresses_within_each_other_are_found() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("tier2")).unwrap();
        std::os::unix::fs::symlink(root.join("tier2"), root.join("link")).unwrap();
        let url = |path: &str| format!("file://{}/{path}", root.display());
        for (path, expected) in [
            ("tier2", true),
            ("/tier2", true),
            ("tier%32", true),
            ("tier2/default?x", true),
            ("link/default", true),
            ("", true),
            ("tier2-export", false),
            ("other/", false),
        ] {
            assert_eq!(is_within(&url(path), &url("tier2/")), expected, "{path}");
        }
        for (url, expected) in [
            ("file:///data", true),
            ("file:///data/tier2/default", true),
            ("file:///data/tier2-export", false),
            ("s3://data/tier2", false),
        ] {
            assert_eq!(is_within(url, "file:///data/tier2"), expected, "{url}");
        }
        for (url, expected) in [
            ("s3://bucket", true),
            ("s3://bucket/tier%32/a", true),
            ("s3://id:secret@bucket/./tier2?x", true),
            ("s3://bucket/tier2-export", false),
            ("s3://bucket2/tier2", false),
            ("gs://bucket/tier2", false),
        ] {
            assert_eq!(is_within(url, "s3://bucket/tier2"), expected, "{url}");
        }
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
    fn a_query_tells_objects_apart_and_is_not_shown() {
        let of = |opened: &str| identity(opened, "https://host/a");
        assert_eq!(of("https://host/a"), "https://host/a");
        assert_eq!(of("https://host/a?#f?x"), "https://host/a");
        let (one, two) = (of("https://host/a?id=secret1"), of("https://host/a?id=secret2#f"));
        assert!(one.starts_with("https://host/a#") && one != two, "{one} {two}");
        assert!(!one.contains("secret"), "{one}");
        assert_eq!(one, of("https://host/a?id=secret1#f"));
        // A bucket and a directory have no queries.
        assert_eq!(identity("s3://bucket/a?x", "s3://bucket/a"), "s3://bucket/a");
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
