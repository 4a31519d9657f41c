//! `aquifer user …`.
//!
//! A password comes from a prompt, a file or standard input, and from no
//! argument: those show in `ps` and stay in a shell's history.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use reqwest::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Map, Value};

use crate::cli::{Output, ServerArguments, UserArguments, UserCommand};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::files::read_text;
use crate::output::{self, Align, Table};

/// No password is longer, with its newline.
const PASSWORD_BYTES_MAX: u64 = 4096;

pub(crate) async fn run(arguments: UserArguments) -> Result<(), Failure> {
    match arguments.command {
        UserCommand::Create { name, password_file, iterations, replace, server } => {
            let mut body = Map::new();
            body.insert("password".into(), password(&name, password_file.as_deref())?.into());
            body.insert("name".into(), name.clone().into());
            body.insert("replace".into(), replace.into());
            if let Some(iterations) = iterations {
                body.insert("iterations".into(), iterations.into());
            }
            let client = Client::new(&server)?;
            let request = client.request(Method::POST, "/v1/users").json(&body);
            let user = client.json(request).await?;
            match server.output {
                Output::Json => output::json(&user),
                Output::Table => output::line(&format!("user {name} may log in")),
            }
        }
        UserCommand::List { server } => {
            let answer = Client::new(&server)?.get("/v1/users").await?;
            show(&server, &answer)
        }
        UserCommand::Delete { name, server } => {
            let client = Client::new(&server)?;
            let path = format!("/v1/users/{}", segment(&name));
            client.json(client.request(Method::DELETE, &path)).await?;
            match server.output {
                Output::Json => Ok(()),
                Output::Table => output::line(&format!("deleted user {name}")),
            }
        }
    }
}

fn show(server: &ServerArguments, answer: &Value) -> Result<(), Failure> {
    if server.output == Output::Json {
        return output::json(answer);
    }
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("mechanisms", Align::Left),
        ("iterations", Align::Left),
    ]);
    let users = answer.get("users").and_then(Value::as_array);
    for user in users.into_iter().flatten() {
        let mechanisms = user.get("mechanisms").and_then(Value::as_array);
        let cell = |field: &str| {
            let values = mechanisms.into_iter().flatten().filter_map(|of| of.get(field));
            let values: Vec<_> = values
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect();
            values.join(", ")
        };
        let name = user.get("name").and_then(Value::as_str).unwrap_or_default();
        table.row(vec![name.to_owned(), cell("name"), cell("iterations")]);
    }
    output::write(table.render().as_bytes())
}

/// The new password: from the file, else from whoever sits there, else from
/// standard input.
fn password(name: &str, file: Option<&Path>) -> Result<String, Failure> {
    let text = match file {
        Some(path) if path != Path::new("-") => read_text(path).map_err(Failure::failed)?,
        None if std::io::stdin().is_terminal() => return prompt(name),
        _ => {
            let mut text = String::new();
            std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
            text
        }
    };
    // The newline that editors and `echo` leave is not part of it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::with_next(
            "there is no password",
            "type it at the prompt, or give it with --password-file or on standard input",
        ));
    }
    Ok(text.to_owned())
}

fn prompt(name: &str) -> Result<String, Failure> {
    let first = ask(&format!("password of {name}: "))?;
    if first.is_empty() {
        return Err(Failure::failed("there is no password"));
    }
    if ask("the same again: ")? != first {
        return Err(Failure::failed("the two passwords are not the same"));
    }
    Ok(first)
}

fn ask(question: &str) -> Result<String, Failure> {
    let mut out = std::io::stderr().lock();
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    {
        let _silent = Silent::new()?;
        std::io::stdin().lock().take(PASSWORD_BYTES_MAX).read_line(&mut line)?;
    }
    writeln!(out)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Silent(Termios);

impl Silent {
    fn new() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| Failure::from(std::io::Error::from(error));
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Where the terminal has gone, there is nothing to give back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
