//! The shell: a prompt, statements that end with a semicolon, and commands that
//! begin with a backslash.

use std::sync::Arc;

use aquifer_env::tasks;
use parking_lot::RwLock;
use serde_json::Value;

use super::answer;
use super::cells::printable;
use super::complete::Names;
use super::editor::{Prompt, Typed};
use super::printer::{self, Layout, Printer};
use super::progress::ProgressLine;
use super::{Settings, fault, split};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, count};

/// No more columns are completed.
const COLUMNS_MAX: usize = 10_000;

const HELP: &str = "\
Statements end with a semicolon and may span lines. Tab completes, Ctrl-C cancels.
  \\d         streams and views
  \\d NAME    the columns of one
  \\x         each row as a list of its columns, on or off
  \\timing    what each statement took, on or off
  \\q         leave (also Ctrl-D)
";

struct Shell {
    client: Client,
    settings: Settings,
    names: Arc<RwLock<Names>>,
    is_expanded: bool,
    has_timing: bool,
}

/// What the shell does next.
enum Next {
    GoOn,
    Leave,
}

pub(super) async fn run(client: Client, settings: Settings) -> Result<(), Failure> {
    // Fails here where there is no server, before anybody types a statement.
    let names = Names { tables: streams(&client).await?, ..Names::default() };
    output::line(&format!(
        "aquifer {}: statements end with ;  \\? helps, \\q leaves",
        env!("CARGO_PKG_VERSION")
    ))?;
    let names = Arc::new(RwLock::new(names));
    let mut shell =
        Shell { client, settings, names: Arc::clone(&names), is_expanded: false, has_timing: true };
    let mut prompt = Prompt::new(names);
    let learning = tokio::spawn(learn(shell.client.clone(), Arc::clone(&shell.names)));
    let left = loop {
        let read = tasks::run_blocking(move || {
            let typed = prompt.read();
            (prompt, typed)
        });
        let typed;
        (prompt, typed) = read.await;
        match typed? {
            Typed::Text(text) => match shell.take(text.trim()).await {
                Ok(Next::GoOn) => {}
                Ok(Next::Leave) => break Ok(()),
                Err(failure) => break Err(failure),
            },
            Typed::Interrupted => {}
            Typed::End => break Ok(()),
        }
    };
    learning.abort();
    left
}

impl Shell {
    /// Does what was typed. What goes wrong is said, and the shell goes on.
    async fn take(&mut self, text: &str) -> Result<Next, Failure> {
        let result = match text.to_ascii_lowercase().as_str() {
            "" => Ok(()),
            "\\q" | "quit" | "exit" => return Ok(Next::Leave),
            "\\?" | "\\h" | "help" => output::write(HELP.as_bytes()),
            "\\d" | "\\dt" | "\\l" => self.list().await,
            "\\x" => {
                self.is_expanded = !self.is_expanded;
                output::line(&format!("rows as lists: {}", on_off(self.is_expanded)))
            }
            "\\timing" => {
                self.has_timing = !self.has_timing;
                output::line(&format!("timing: {}", on_off(self.has_timing)))
            }
            _ => match text.strip_prefix("\\d ") {
                Some(name) => self.describe(name.trim().trim_end_matches(';')).await,
                None if text.starts_with('\\') => {
                    output::line(&format!("no such command: {}", printable(text)))?;
                    output::write(HELP.as_bytes())
                }
                None => self.statements(text).await,
            },
        };
        match result {
            Ok(()) => Ok(Next::GoOn),
            Err(Failure::OutputClosed) => Err(Failure::OutputClosed),
            Err(failure) => {
                let _ = failure.report();
                Ok(Next::GoOn)
            }
        }
    }

    async fn statements(&self, text: &str) -> Result<(), Failure> {
        for statement in split::statements(text) {
            if !self.statement(statement, &self.settings).await? {
                return output::line("cancelled");
            }
            let word = statement.split_whitespace().next().unwrap_or_default();
            if word.eq_ignore_ascii_case("create") || word.eq_ignore_ascii_case("drop") {
                tokio::spawn(learn(self.client.clone(), Arc::clone(&self.names)));
            }
        }
        Ok(())
    }

    /// Runs a statement; false where it was cancelled.
    async fn statement(&self, statement: &str, settings: &Settings) -> Result<bool, Failure> {
        let (is_expanded, has_timing) = (self.is_expanded, self.has_timing);
        let layout = Layout { is_expanded, has_timing, width: printer::width() };
        let mut printer = Printer::new(layout);
        let mut line = ProgressLine::new();
        let answer = answer::ask(&self.client, settings, statement);
        tokio::select! {
            biased;
            result = answer.run(&mut printer, &mut line) => {
                result.map_err(|error| {
                    line.clear();
                    fault::failure(error, statement)
                })?;
                Ok(true)
            }
            // Dropping the answer closes its connection, which ends the
            // statement at the server.
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                line.clear();
                Ok(false)
            }
        }
    }

    /// Streams with their sizes, and views.
    async fn list(&self) -> Result<(), Failure> {
        let answer = self.client.get("/v1/streams").await?;
        let columns = [
            ("name", Align::Left),
            ("kind", Align::Left),
            ("partitions", Align::Right),
            ("records", Align::Right),
            ("bytes", Align::Right),
        ];
        let mut table = Table::new(&columns);
        let mut names = std::collections::BTreeSet::new();
        for stream in answer.get("streams").and_then(Value::as_array).into_iter().flatten() {
            let number = |name| stream.get(name).and_then(Value::as_u64).unwrap_or(0);
            let name = stream.get("name").and_then(Value::as_str).unwrap_or_default();
            names.insert(name.to_owned());
            table.row(vec![
                name.to_owned(),
                "stream".to_owned(),
                count(number("partition_count")),
                count(number("records")),
                bytes(number("bytes")),
            ]);
        }
        for view in views(&self.client).await? {
            table.row(vec![view.clone(), "view".into(), "".into(), "".into(), "".into()]);
            names.insert(view);
        }
        self.names.write().tables = names;
        output::write(table.render().as_bytes())
    }

    async fn describe(&self, name: &str) -> Result<(), Failure> {
        let name = name.trim_matches('"');
        let sql = "SELECT column_name, data_type FROM information_schema.columns \
                   WHERE table_name = $1 ORDER BY ordinal_position";
        let settings = Settings { parameters: vec![name.to_owned()], ..Settings::default() };
        let rows = answer::ask(&self.client, &settings, sql).collect(COLUMNS_MAX).await;
        let rows = rows.map_err(|error| fault::failure(error, sql))?;
        if rows.is_empty() {
            return Err(Failure::with_next(
                format!("there is no stream or view {}", printable(name)),
                "\\d lists them; names are matched exactly here",
            ));
        }
        let mut table = Table::new(&[("column", Align::Left), ("type", Align::Left)]);
        for row in rows {
            table.row(row.iter().map(|cell| printable(cell)).collect());
        }
        output::write(table.render().as_bytes())
    }
}

const fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

async fn streams(client: &Client) -> Result<std::collections::BTreeSet<String>, Failure> {
    let answer = client.get("/v1/streams").await?;
    let streams = answer.get("streams").and_then(Value::as_array).into_iter().flatten();
    let names = streams.filter_map(|stream| stream.get("name").and_then(Value::as_str));
    Ok(names.map(str::to_owned).collect())
}

async fn views(client: &Client) -> Result<Vec<String>, Failure> {
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW' \
               AND table_schema <> 'information_schema' ORDER BY 1";
    let rows = answer::ask(client, &Settings::default(), sql).collect(COLUMNS_MAX).await;
    let rows = rows.map_err(|error| fault::failure(error, sql))?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
}

/// Asks for the names that are completed. Without them the shell works as well.
async fn learn(client: Client, names: Arc<RwLock<Names>>) {
    let (Ok(mut tables), Ok(views)) = (streams(&client).await, views(&client).await) else {
        return;
    };
    tables.extend(views);
    names.write().tables = tables;
    let sql = "SELECT DISTINCT column_name FROM information_schema.columns \
               WHERE table_schema <> 'information_schema' AND table_schema <> 'pg_catalog'";
    let rows = answer::ask(&client, &Settings::default(), sql).collect(COLUMNS_MAX).await;
    if let Ok(rows) = rows {
        names.write().columns = rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
    }
}
