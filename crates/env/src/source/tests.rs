//! Files as sources, with links and changes.

use std::io::Read as _;
use std::path::Path;

use super::*;
use crate::store::file_url;
use crate::tasks;

fn open(path: &Path, directory: Option<&Path>) -> SourceStore {
    let directory = directory.map(Path::to_owned);
    let rules = SourceRules { directory, ..SourceRules::default() };
    SourceStore::open(&file_url(path).unwrap(), rules).expect("a source")
}

async fn text(store: &SourceStore, object: &SourceObject) -> Result<String, String> {
    let body = store.read(object).await.map_err(|error| error.to_string())?;
    let read = move || {
        let mut body = body;
        let mut text = String::new();
        body.read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    };
    tasks::run_blocking(read).await
}

#[tokio::test]
async fn a_directory_is_listed_by_name_and_read() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::create_dir(parent.path().join("b")).unwrap();
    let large = "x".repeat(600_000);
    for (name, content) in [("c", "3"), ("b/a", &large), ("a b", "")] {
        std::fs::write(parent.path().join(name), content).unwrap();
    }
    let store = open(parent.path(), Some(parent.path()));
    let objects = store.list(10).await.unwrap();
    let names: Vec<_> = objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["a b", "b/a", "c"]);
    assert_eq!(text(&store, &objects[0]).await.unwrap(), "");
    assert_eq!(text(&store, &objects[1]).await.unwrap(), large);
    assert_eq!(store.read_range(&objects[1], 5..9).await.unwrap(), "xxxx");
    assert!(store.read_range(&objects[2], 0..2).await.is_err());
    let too_many = store.list(2).await.unwrap_err().to_string();
    assert!(too_many.contains("more than 2 objects"), "{too_many}");
    // One file is an object by itself.
    let store = open(&parent.path().join("c"), None);
    assert_eq!(store.list(1).await.unwrap()[0].name, "c");
    let store = open(&parent.path().join("d"), None);
    assert_eq!(store.list(1).await.unwrap_err().kind, StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_changed_is_not_read() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a");
    std::fs::write(&path, "one").unwrap();
    let store = open(&path, None);
    let before = store.list(1).await.unwrap().remove(0);
    std::fs::write(&path, "three").unwrap();
    let error = store.read(&before).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Precondition, "{error}");
    let after = store.list(1).await.unwrap().remove(0);
    assert_ne!(before.version, after.version);
    // A change in the middle is seen at the end at the latest.
    let body = store.read(&after).await.unwrap();
    let failure = body.failure();
    std::fs::write(&path, "tw").unwrap();
    let read = move || {
        let mut body = body;
        body.read_to_end(&mut Vec::new()).map_err(|error| error.to_string())
    };
    assert!(tasks::run_blocking(read).await.unwrap_err().contains("changed"));
    let kind = failure.lock().as_ref().map(|error| error.kind);
    assert_eq!(kind, Some(StoreErrorKind::Precondition));
}

#[tokio::test]
async fn links_do_not_lead_out() {
    let parent = tempfile::tempdir().unwrap();
    let (inside, outside) = (parent.path().join("in"), parent.path().join("out"));
    for directory in [&inside, &outside] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("file"), "text").unwrap();
    }
    std::os::unix::fs::symlink(outside.join("file"), inside.join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("folder")).unwrap();
    let objects = open(&inside, Some(&inside)).list(10).await.unwrap();
    assert_eq!(objects.len(), 1, "links are no objects: {objects:?}");
    for path in [inside.join("link"), inside.join("folder"), inside.join("../out/file")] {
        let error = open(&path, Some(&inside)).list(10).await.unwrap_err().to_string();
        assert!(error.contains("outside of the directory"), "{error}");
    }
}

#[test]
fn what_is_no_source_is_refused() {
    let check = |url: &str, part: &str| {
        let error = SourceStore::open(url, SourceRules::default()).unwrap_err().to_string();
        assert!(error.contains(part), "{url}: {error}");
    };
    check("no url", "relative URL");
    check("ftp://a/b", "unknown scheme ftp");
    check("file://host/a", "file:///absolute/path");
    check("http://169.254.169.254/latest/meta-data", "private");
    check("http://[fd00:ec2::254]/", "private");
    check("s3://bucket/a//b", "empty path segment");
}
