//! The binary as a person or a script meets it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a step that fails is the test's failure, and it sets the stage with plain files"
)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn aquifer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquifer"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AQUIFER_")) {
        command.env_remove(name);
    }
    command
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, listen: &str, more: &[&str]) -> Self {
        let mut child = aquifer(&["serve", "--data", data.to_str().unwrap(), "--listen", listen])
            .args(["--set", "store.journal_file_bytes=1048576"])
            .args(["--kafka-listen", "127.0.0.1:0", "--postgres-listen", "127.0.0.1:0"])
            .args(["--flight-listen", "127.0.0.1:0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.map(Result::unwrap);
        let url = lines
            .map_while(|line| (!line.is_empty()).then_some(line))
            .find_map(|line| line.strip_prefix("http listening on ").map(str::to_owned));
        let url = url.unwrap();
        Self { child, url }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        aquifer(arguments).env("AQUIFER_URL", &self.url).output().unwrap()
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn failures_say_what_and_what_next() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let config = directory.path().join("aquifer.toml");
    std::fs::write(&config, "[http]\nlistens = \"127.0.0.1:0\"\n").unwrap();
    let config = config.to_str().unwrap();
    let check = |arguments: &[&str], status: i32, parts: &[&str]| {
        let output = aquifer(arguments).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    };
    check(&["stream"], 2, &["Usage"]);
    check(&["stream", "list", "--url", "http://127.0.0.1:1"], 3, &["127.0.0.1:1", "aquifer serve"]);
    check(
        &["serve", "--data", data, "--listen", "0.0.0.0:0"],
        1,
        &["no token is set", "--token-file", "--insecure"],
    );
    check(
        &["serve", "--data", data, "--kafka-listen", "0.0.0.0:0"],
        1,
        &["Kafka", "kafka.security", "--insecure"],
    );
    check(
        &["serve", "--data", data, "--postgres-listen", "0.0.0.0:0"],
        1,
        &["PostgreSQL", "postgres.security", "--insecure"],
    );
    check(
        &["serve", "--data", data, "--flight-listen", "0.0.0.0:0"],
        1,
        &["Flight", "flight.security", "--insecure"],
    );
    check(&["serve", "--data", data, "--config", config], 1, &["listens", "configuration.md"]);
    check(&["serve", "--data", data, "--set", "store.unknown=1"], 1, &["unknown"]);
    check(&["serve", "--data", data, "--token-file", "/none"], 1, &["/none"]);
    check(&["serve", "--data", "/proc/none"], 1, &["/proc/none", "aquifer doctor"]);
    check(&["append", "s", "/none", "--url", "http://127.0.0.1:1"], 1, &["/none"]);
    let output = aquifer(&["completions", "bash"]).output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("aquifer"));
    // The environment may hold what is no text, of others or of ours.
    for (name, part) in [
        ("OTHER", "/proc/none"),
        ("AQUIFER_HTTP_LISTEN", "AQUIFER_HTTP_LISTEN is not UTF-8"),
        ("AQUIFER_TOKEN", "AQUIFER_TOKEN"),
    ] {
        let mut command = aquifer(&["serve", "--data", "/proc/none"]);
        let output = command.env(name, OsStr::from_bytes(b"\xff\xfe")).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn the_demo_takes_nothing_of_a_real_server() {
    let directory = tempfile::tempdir().unwrap();
    let tier2 = directory.path().join("tier2");
    let mut child =
        aquifer(&["demo", "--exit", "--listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0"])
            .env("AQUIFER_STORE_TIER2", format!("file://{}", tier2.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("2.")), "it runs");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    lines.for_each(drop);
    child.wait().unwrap();
    assert!(!tier2.exists(), "its server used the tier 2 of another");
}

#[test]
fn what_is_appended_is_read_over_a_restart_and_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, "127.0.0.1:0", &[]);
    let listen = server.url.strip_prefix("http://").unwrap().to_owned();
    assert!(server.run(&["stream", "create", "s", "--partitions", "3"]).status.success());
    let again = server.run(&["stream", "create", "s"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("exists already"));

    // A follower that is there from the beginning sees each record once.
    let mut follower = aquifer(&["read", "s", "--follow", "--from", "earliest"])
        .env("AQUIFER_URL", &server.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut append = |server: &Server, range: std::ops::Range<u32>| {
        let mut child = aquifer(&["append", "s", "--key-field", "n", "--format", "ndjson"])
            .env("AQUIFER_URL", &server.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: String = range.clone().map(|n| format!("{{\"n\":{n}}}\n")).collect();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let mut seen: Vec<String> = (&mut followed).take(range.len()).map(Result::unwrap).collect();
        seen.sort();
        let mut expected: Vec<String> = lines.lines().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(seen, expected);
    };
    append(&server, 0..500);
    assert_eq!(server.signal(Signal::TERM).code(), Some(0));
    let mut server = Server::start(&data, &listen, &[]);
    append(&server, 500..600);
    assert_eq!(server.signal(Signal::KILL).code(), None);
    let mut server = Server::start(&data, &listen, &[]);
    append(&server, 600..700);
    follower.kill().unwrap();
    follower.wait().unwrap();

    let all = server.run(&["read", "s", "--output", "json"]);
    assert_eq!(text(&all.stdout).lines().count(), 700);
    let some = server.run(&["read", "s", "--limit", "5"]);
    assert_eq!(text(&some.stdout).lines().count(), 5);
    let one = server.run(&["read", "s", "--partition", "9"]);
    assert_eq!(one.status.code(), Some(1));
    // A line that is not JSON appends nothing of its request.
    let file = directory.path().join("bad.ndjson");
    std::fs::write(&file, "{\"n\":1}\nnot json\n").unwrap();
    let bad = server.run(&["append", "s", file.to_str().unwrap(), "--format", "ndjson"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("line 2 is not JSON"), "{}", text(&bad.stderr));
    let all = server.run(&["read", "s"]);
    assert_eq!(text(&all.stdout).lines().count(), 700);
    // A reader that has seen enough is no failure.
    let mut reader = aquifer(&["read", "s"])
        .env("AQUIFER_URL", &server.url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(reader.stdout.take());
    let mut error = String::new();
    reader.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!((reader.wait().unwrap().code(), error.as_str()), (Some(0), ""));
    assert_eq!(server.signal(Signal::INT).code(), Some(0));
}

#[test]
fn a_token_lets_in_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "a-long-secret\n").unwrap();
    let file = file.to_str().unwrap();
    let server =
        Server::start(&directory.path().join("data"), "0.0.0.0:0", &["--token-file", file]);
    let url = server.url.replace("0.0.0.0", "127.0.0.1");
    let list = |arguments: &[&str], token: Option<&str>| {
        let mut command = aquifer(&["stream", "list", "--url", &url]);
        command.args(arguments);
        if let Some(token) = token {
            command.env("AQUIFER_TOKEN", token);
        }
        command.output().unwrap()
    };
    assert_eq!(list(&[], None).status.code(), Some(1));
    assert_eq!(list(&[], Some("another-secret")).status.code(), Some(1));
    assert!(list(&[], Some("a-long-secret")).status.success());
    assert!(list(&["--token-file", file], None).status.success());
}

#[test]
fn the_doctor_fails_only_where_something_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let doctor = |arguments: &[&str]| {
        let output = aquifer(&["doctor", "--output", "json", "--kafka-listen", "127.0.0.1:0"])
            .args(["--postgres-listen", "127.0.0.1:0", "--flight-listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), found)
    };
    let (_, found) = doctor(&["--data", data, "--listen", "127.0.0.1:0"]);
    assert!(found["checks"].as_array().unwrap().len() >= 9);
    let (status, found) = doctor(&["--data", "/proc/none", "--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert_eq!(found["checks"][0]["verdict"], "error");
    assert!(found["checks"][0]["mend"].is_string());
}

#[test]
fn users_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"), "127.0.0.1:0", &[]);
    let file = directory.path().join("password");
    std::fs::write(&file, "correct horse\n").unwrap();
    let file = file.to_str().unwrap();
    let created = server.run(&["user", "create", "alice", "--password-file", file]);
    assert_eq!(text(&created.stdout), "user alice may log in\n", "{}", text(&created.stderr));
    let again = server.run(&["user", "create", "alice", "--password-file", file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("alice already"));

    let mut child = aquifer(&["user", "create", "bob", "--iterations", "4096", "--output", "json"])
        .env("AQUIFER_URL", &server.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"battery staple").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("\"iterations\""));
    let nothing = server.run(&["user", "create", "carol", "--password-file", "/dev/null"]);
    assert!(text(&nothing.stderr).contains("no password"));

    let list = text(&server.run(&["user", "list"]).stdout);
    assert!(list.contains("alice") && list.contains("SCRAM-SHA-256, SCRAM-SHA-512"), "{list}");
    assert!(list.contains("4096, 4096") && list.contains("8192, 8192"), "{list}");
    assert!(!list.contains("horse") && !list.contains("carol"), "{list}");
    let deleted = server.run(&["user", "delete", "alice"]);
    assert_eq!(text(&deleted.stdout), "deleted user alice\n");
    assert_eq!(server.run(&["user", "delete", "alice"]).status.code(), Some(1));
}

#[test]
fn groups_are_shown_reset_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"), "127.0.0.1:0", &[]);
    let run = |arguments: &[&str]| {
        let output = server.run(arguments);
        let error = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        text(&output.stdout)
    };
    run(&["stream", "create", "s"]);
    let lines = directory.path().join("lines");
    std::fs::write(&lines, "a\nb\nc\n").unwrap();
    run(&["append", "s", lines.to_str().unwrap()]);

    let reset = ["group", "reset", "a/b", "--stream", "s", "--partition", "0", "--to", "1"];
    let shown = run(&reset);
    assert!(shown.contains("s               0     -   1    3"), "{shown}");
    assert!(shown.contains("--execute"), "{shown}");
    assert_eq!(run(&["group", "list"]), "NAME\n");
    let done = run(&[&reset[..], &["--execute"]].concat());
    assert!(done.contains("s               0     -   1    3\n"), "{done}");
    assert_eq!(run(&["group", "list"]), "NAME\na/b\n");
    let described = run(&["group", "describe", "a/b"]);
    assert!(described.contains("state               empty\n"), "{described}");
    assert!(described.contains("s               0       1    3    2  -\n"), "{described}");
    let described = run(&["group", "describe", "a/b", "--output", "json"]);
    assert!(described.contains("\"lag\": 2"), "{described}");

    let refused = server.run(&["group", "reset", "a/b", "--to", "soon"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("RFC 3339"));
    let misspelt = server.run(&["group", "reset", "a/b", "--to", "1", "--partition", "0"]);
    assert_eq!(misspelt.status.code(), Some(2), "a partition is of a stream");
    assert_eq!(run(&["group", "delete", "a/b"]), "deleted group a/b\n");
    assert_eq!(server.run(&["group", "describe", "a/b"]).status.code(), Some(1));
    let output = aquifer(&["completions", "bash"]).output().unwrap();
    assert!(text(&output.stdout).contains("aquifer__subcmd__group__subcmd__reset"));
}
