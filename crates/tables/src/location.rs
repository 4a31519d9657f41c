//! Where readers find tier 2: its URL as they spell it.
//!
//! Most readers take the path of a `file://` URL as it stands and decode
//! nothing, so that is what they are given.

use url::Url;

use crate::Error;

/// The URL of tier 2's root, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location(String);

impl Location {
    /// `configured`, else what tier 2's own URL means.
    pub(crate) fn new(configured: Option<&str>, tier2: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Location { url: tier2.to_owned(), why: why.to_owned() };
        if let Some(location) = configured {
            return Ok(Self(location.trim_end_matches('/').to_owned()));
        }
        let url = Url::parse(tier2).map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "memory" => Err(wrong("it is in this server's memory")),
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("it is no local path"))?;
                let path = path.to_str().ok_or_else(|| wrong("its path is not UTF-8"))?;
                Ok(Self(format!("file://{}", path.trim_end_matches('/'))))
            }
            _ => Ok(Self(tier2.trim_end_matches('/').to_owned())),
        }
    }

    /// The URL of an object.
    pub(crate) fn of(&self, object_path: &str) -> String {
        format!("{}/{object_path}", self.0)
    }

    /// The object that a URL is of.
    pub(crate) fn object_path<'a>(&self, url: &'a str) -> Option<&'a str> {
        url.strip_prefix(&self.0)?.strip_prefix('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_given_what_they_can_open() {
        let check = |configured: Option<&str>, tier2: &str, expected: Option<&str>| {
            let location = Location::new(configured, tier2).ok();
            let url = location.as_ref().map(|location| location.of("a/b"));
            assert_eq!(url.as_deref(), expected, "{configured:?} {tier2}");
            if let Some((location, url)) = location.zip(url) {
                assert_eq!(location.object_path(&url), Some("a/b"));
                assert_eq!(location.object_path("file:///elsewhere/a"), None);
            }
        };
        check(None, "file:///data/tier2", Some("file:///data/tier2/a/b"));
        check(None, "file:///with%20space/", Some("file:///with space/a/b"));
        check(None, "s3://bucket/prefix", Some("s3://bucket/prefix/a/b"));
        check(None, "s3://bucket", Some("s3://bucket/a/b"));
        check(None, "memory://", None);
        check(None, "nonsense", None);
        check(Some("s3a://bucket/p/"), "s3://bucket/p", Some("s3a://bucket/p/a/b"));
        check(Some("file:///mnt"), "memory://", Some("file:///mnt/a/b"));
    }
}
