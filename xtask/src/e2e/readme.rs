//! Scenario `readme`: follows README.md as a new user would, word by word.
//!
//! Every fenced block marked `sh` is run, in order, in one directory, as one
//! user with several terminals would do it:
//!
//! - lines that fetch or build (`git`, `cargo`, `cd aquifer`, `docker`) are
//!   what the `build` step did;
//! - a line that starts `aquifer serve` or `aquifer demo` goes on in a terminal
//!   of its own, and the next line waits until it is ready;
//! - a line that never ends by itself (`--follow`, `tail`, `curl -N`) is
//!   watched for a while, and must print something;
//! - every other line must end with status zero;
//! - blocks marked `python` are run in the full test, over and over until they
//!   succeed, since the README speaks of a minute's wait.
//!
//! Where root allows, all of it happens in a network namespace, so that the
//! default ports are free.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::e2e::Context;
use crate::steps::Report;
use crate::workspace::run_quietly;

/// What a line of the README is to somebody who follows it.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Build(String),
    Serve(String),
    Endless(String),
    Plain(String),
    Python(String),
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let path = context.workspace.root.join("README.md");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = lines_of(&text);
    lines.retain(|line| context.full || !matches!(line, Line::Python(_)));
    let python = match context.python() {
        Ok(python) => python.parent().map(Path::to_owned).unwrap_or_default(),
        Err(_) => PathBuf::new(),
    };
    ensure!(!lines.is_empty(), "README.md has no block marked `sh`");
    let directory = context.directory("readme")?;
    // Both the installed name and the one of a fresh build work.
    for place in ["bin", "target/release", "target/debug"] {
        let place = directory.path().join(place);
        std::fs::create_dir_all(&place)?;
        std::os::unix::fs::symlink(&context.binary, place.join("aquifer"))?;
    }
    let script = directory.path().join("readme.sh");
    std::fs::write(&script, script_of(&lines))?;

    let isolated = rustix::process::geteuid().is_root() && can_isolate();
    let mut command = if isolated {
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--kill-child", "bash", "-c"]);
        command.arg("ip link set lo up && exec bash \"$0\"").arg(&script);
        command
    } else if std::net::TcpListener::bind("127.0.0.1:8080").is_ok() {
        let mut command = Command::new("bash");
        command.arg(&script);
        command
    } else {
        return Ok(Report::could_not_run("port 8080 is taken, and a namespace needs root"));
    };
    let path = std::env::var("PATH").unwrap_or_default();
    command.current_dir(directory.path()).env(
        "PATH",
        format!("{}:{}:{path}", directory.path().join("bin").display(), python.display()),
    );
    match run_quietly(&mut command) {
        Ok(_) => Ok(Report::passed(format!("{} commands", lines.len()))),
        Err(error) => bail!("{error:#}\n{}", server_log(directory.path())),
    }
}

fn can_isolate() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "bash", "-c", "ip link set lo up"]);
    run_quietly(&mut command).is_ok()
}

fn server_log(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join("server.log")).unwrap_or_default();
    format!("the server said:\n{text}")
}

/// The commands of all `sh` blocks; a backslash at the end joins lines, and so
/// do quotes that are open.
fn lines_of(markdown: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut language = None;
    let mut command = String::new();
    for text in markdown.lines() {
        if let Some(fence) = text.trim().strip_prefix("```") {
            if language == Some("python") {
                lines.push(Line::Python(std::mem::take(&mut command)));
            }
            language = language.is_none().then_some(fence);
            continue;
        }
        if language == Some("python") {
            command.push_str(text);
            command.push('\n');
        }
        if language != Some("sh") || (command.is_empty() && is_comment(text)) {
            continue;
        }
        command.push_str(text);
        if text.ends_with('\\') || !is_complete(&command) {
            command.push('\n');
            continue;
        }
        lines.push(line_of(std::mem::take(&mut command)));
    }
    lines
}

fn is_comment(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}

fn is_complete(command: &str) -> bool {
    let mut quote = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => drop(characters.next()),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    quote.is_none()
}

fn line_of(command: String) -> Line {
    let words: Vec<&str> = command.split_whitespace().collect();
    let program = words.first().copied().unwrap_or_default();
    let is_aquifer = program == "aquifer" || program.ends_with("/aquifer");
    match words.as_slice() {
        ["git" | "cargo" | "docker" | "cd", ..] => Line::Build(command),
        [_, "serve" | "demo", ..] if is_aquifer => Line::Serve(command),
        _ if words
            .iter()
            .any(|word| matches!(*word, "--follow" | "-N") || word.contains("/tail")) =>
        {
            Line::Endless(command)
        }
        _ => Line::Plain(command),
    }
}

/// One bash script that stops at the first command that does not do what the
/// README says.
fn script_of(lines: &[Line]) -> String {
    let mut script = String::from(PRELUDE);
    for line in lines {
        match line {
            Line::Build(command) => {
                script.push_str(&format!("# {}\n", command.replace('\n', "\n# ")))
            }
            Line::Serve(command) => {
                let command = command.trim_end().trim_end_matches('&');
                script.push_str(&format!(
                    "say {0}\n( {1} ) >>server.log 2>&1 &\nready\n",
                    quoted(command),
                    command
                ));
            }
            Line::Endless(command) => {
                script.push_str(&format!("say {0}\nwatch_for_a_while {0}\n", quoted(command)));
            }
            Line::Python(code) => {
                script.push_str(&format!("say {0}\nuntil_it_works python3 -c {0}\n", quoted(code)));
            }
            Line::Plain(command) => {
                script.push_str(&format!("say {}\n{command}\n", quoted(command)))
            }
        }
    }
    script
}

const PRELUDE: &str = r#"set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
say() { printf '$ %s\n' "$1"; }
ready() {
    for _ in $(seq 600); do
        if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo 'the server does not listen'; return 1
}
until_it_works() {
    for _ in $(seq 60); do
        if "$@" >tried.txt 2>&1; then return; fi
        sleep 2
    done
    cat tried.txt; return 1
}
watch_for_a_while() {
    timeout 5 bash -c "$1" >endless.txt 2>&1 || [ $? -eq 124 ] || { cat endless.txt; return 1; }
    cat endless.txt
    [ -s endless.txt ] || { echo 'it printed nothing'; return 1; }
}
"#;

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_sorted() {
        let markdown = "# A\n```sh\n# comment\ncargo build --release\n./target/release/aquifer serve\n```\n\
            ```json\n{}\n```\n```python\nimport duckdb\n```\nText\n```sh\naquifer append logs \\\n  events.json\n\
            curl -d '{\"a\":\n1}' x\naquifer read logs --follow\n```\n";
        let lines = lines_of(markdown);
        let expected = [
            Line::Build("cargo build --release".to_owned()),
            Line::Serve("./target/release/aquifer serve".to_owned()),
            Line::Python("import duckdb\n".to_owned()),
            Line::Plain("aquifer append logs \\\n  events.json".to_owned()),
            Line::Plain("curl -d '{\"a\":\n1}' x".to_owned()),
            Line::Endless("aquifer read logs --follow".to_owned()),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn quotes_close() {
        assert!(is_complete(r#"echo 'a "b' "c 'd" \' \""#));
        assert!(!is_complete("echo 'a"));
        assert!(!is_complete(r#"echo "a\""#));
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
