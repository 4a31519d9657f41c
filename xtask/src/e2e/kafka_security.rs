//! Scenario `kafka_security`: Kafka's Python clients log in over TLS, are
//! refused with a wrong password, and stay while the certificate is swapped.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const CLIENTS: &str = include_str!("kafka_security.py");
const USER: &str = "alice";
const PASSWORD: &str = "correct horse, battery=staple";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("kafka_security")?;
    let files = directory.path().join("tls");
    write_certificates(&files)?;
    let file = |name: &str| files.join(name).display().to_string();
    let options = context.options(directory.path()).with_settings(&[
        "kafka.security=sasl_tls",
        &format!("kafka.tls_certificate_file={}", file("tls.crt")),
        &format!("kafka.tls_key_file={}", file("tls.key")),
        "kafka.tls_reload_interval_ms=100",
        // Wrong passwords are tried on purpose, from the address of the others.
        "kafka.login_delay_ms_max=20",
    ]);
    let server = Server::start(&options)?;
    create_user(context, &server, USER, PASSWORD)?;

    let script = directory.path().join("kafka_security.py");
    std::fs::write(&script, CLIENTS)?;
    let output = run_quietly(
        Command::new(python).arg(&script).arg(server.kafka()?).arg(&files).args([USER, PASSWORD]),
    )?;
    server.stop()?;
    Ok(Report::passed(format!("{} things were shown by 3 clients", output.lines().count())))
}

/// Through the command line, with the password on standard input.
pub(super) fn create_user(
    context: &Context,
    server: &Server,
    name: &str,
    password: &str,
) -> Result<()> {
    let mut child = Command::new(&context.binary)
        .args(["user", "create", name, "--iterations", "4096", "--url", server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    writeln!(input, "{password}")?;
    drop(input);
    ensure!(child.wait()?.success(), "the user was not created");
    Ok(())
}

/// An authority, and two certificates that it signed, as Kubernetes mounts a
/// secret: behind a link that is swapped.
pub(super) fn write_certificates(directory: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    std::fs::create_dir(directory)?;
    std::fs::write(directory.join("ca.crt"), authority.pem())?;
    for version in ["first", "second"] {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let files = directory.join(version);
        std::fs::create_dir(&files)?;
        std::fs::write(files.join("tls.crt"), certificate.pem())?;
        std::fs::write(files.join("tls.key"), key.serialize_pem())?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(files.join("tls.key"), mode)?;
    }
    symlink("first", directory.join("..data"))?;
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), directory.join(file))?;
    }
    Ok(())
}
