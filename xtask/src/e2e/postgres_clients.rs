//! Scenario `postgres_clients`: psql and psycopg log in over TLS, ask, fetch,
//! cancel, and look into the catalogs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kafka_security::{create_user, write_certificates};
use crate::debian::{Unpacked, find};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const CLIENTS: &str = include_str!("postgres_clients.py");
const USER: &str = "alice";
const PASSWORD: &str = "correct horse, battery staple";
pub(super) const RECORDS: usize = 2_000;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("postgres_clients")?;
    let files = directory.path().join("tls");
    write_certificates(&files)?;
    let file = |name: &str| files.join(name).display().to_string();
    let options = context.options(directory.path()).with_settings(&[
        "postgres.security=password",
        "postgres.tls_required=true",
        &format!("postgres.tls_certificate_file={}", file("tls.crt")),
        &format!("postgres.tls_key_file={}", file("tls.key")),
        // Wrong passwords are tried on purpose, from the address of the others.
        "postgres.login_delay_ms_max=20",
    ]);
    let server = Server::start(&options)?;
    create_user(context, &server, USER, PASSWORD)?;
    append(context, &server)?;
    let address = server.postgres()?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();

    let script = directory.path().join("postgres_clients.py");
    std::fs::write(&script, CLIENTS)?;
    let output = run_quietly(
        Command::new(python)
            .arg(&script)
            .args(["localhost", &port, &RECORDS.to_string(), USER, PASSWORD])
            .arg(file("ca.crt")),
    )?;
    let things = output.lines().count();
    let report = match psql(&context.workspace.target) {
        Ok(psql) => {
            check_psql(&psql, &port, &file("ca.crt"))?;
            Report::passed(format!("{things} things were shown by psycopg; psql's commands work"))
        }
        Err(reason) => Report::could_not_run(reason),
    };
    server.stop()?;
    Ok(report)
}

/// A stream `audit` of [`RECORDS`] records.
pub(super) fn append(context: &Context, server: &Server) -> Result<()> {
    let records: String =
        (0..RECORDS).map(|n| format!("{{\"n\":{n},\"verb\":\"get\"}}\n")).collect();
    let create = ["stream", "create", "audit", "--url", server.url()];
    run_quietly(Command::new(&context.binary).args(create))?;
    let mut child = Command::new(&context.binary)
        .args(["append", "audit", "-", "--url", server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    child.stdin.take().context("no standard input")?.write_all(records.as_bytes())?;
    ensure!(child.wait()?.success(), "the records were not appended");
    Ok(())
}

/// psql itself: what Debian has in the path only looks for it.
struct Psql {
    path: PathBuf,
    libraries: String,
}

fn psql(target: &std::path::Path) -> Result<Psql, String> {
    // Where it is installed, its packages are not fetched anew.
    if let Some(path) = find(std::path::Path::new("/usr/lib/postgresql"), "psql") {
        return Ok(Psql { path, libraries: String::new() });
    }
    let unpacked = Unpacked::packages(target, "postgresql-client", &[])?;
    let path = unpacked.find_below("usr/lib/postgresql", "psql");
    let path = path.ok_or("Debian's package postgresql-client has no psql")?;
    Ok(Psql { path, libraries: unpacked.libraries() })
}

/// psql's own commands, and what their answers have to hold.
const COMMANDS: &[(&str, &[&str])] = &[
    ("\\conninfo", &["default", USER]),
    ("\\d", &["public | audit | table | alice"]),
    ("\\dt", &["audit"]),
    ("\\dt aud*", &["audit"]),
    ("\\dv", &["recent"]),
    (
        "\\d audit",
        &["Table \"public.audit\"", "_offset | bigint", "_timestamp | timestamp with time zone"],
    ),
    ("\\d recent", &["View \"public.recent\"", "_offset | bigint"]),
    ("\\d+ recent", &["View definition:", "_offset > 10"]),
    ("\\dt+", &["audit"]),
    ("\\dp", &["public | audit | table"]),
    ("\\l", &["default | alice | UTF8"]),
    ("\\l+", &["default | alice | UTF8"]),
    ("\\dn", &["public"]),
    ("\\df", &["(0 rows)"]),
    ("\\di", &[]),
    ("\\du", &["alice"]),
    ("SELECT count(*) FROM audit", &["2000"]),
    ("SELECT count(*) FROM audit WHERE _value->>'verb' = 'get'", &["2000"]),
    ("SELECT 1 AS a; SELECT 2 AS b", &["2"]),
    ("EXPLAIN SELECT count(*) FROM audit", &["plan"]),
    ("SHOW TABLES", &["audit"]),
    ("SHOW server_version", &["9.6"]),
];

fn check_psql(psql: &Psql, port: &str, authority: &str) -> Result<()> {
    let run = |command: &str| -> Result<String> {
        let place = format!(
            "host=localhost port={port} dbname=default user={USER} sslmode=verify-full \
             sslrootcert={authority}"
        );
        let output = Command::new(&psql.path)
            .env("LD_LIBRARY_PATH", &psql.libraries)
            .env("PGPASSWORD", PASSWORD)
            .args(["--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--command", command, &place])
            .stdin(Stdio::null())
            .output()
            .context("psql cannot be started")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_clean = output.status.success() && !error.contains("ERROR");
        ensure!(is_clean, "{command}: {error}{found}");
        Ok(format!("{found}{error}"))
    };
    run("CREATE VIEW recent AS SELECT _offset, _value FROM audit WHERE _offset > 10")?;
    for (command, parts) in COMMANDS {
        // Columns are filled up with space.
        let found = run(command)?.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in *parts {
            ensure!(found.contains(part), "{command} does not say {part}:\n{found}");
        }
    }
    run("DROP VIEW recent")?;
    Ok(())
}
