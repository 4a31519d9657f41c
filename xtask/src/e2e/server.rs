//! The real binary as a child process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::{Rng, RngExt as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::e2e::client::Client;

/// The line of standard output that ends in the address.
const LISTENING: &str = "http listening on ";
/// The same of the Kafka door; it comes behind that of HTTP.
const KAFKA_LISTENING: &str = "kafka listening on ";
const POSTGRES_LISTENING: &str = "postgres listening on ";
const FLIGHT_LISTENING: &str = "flight listening on ";

/// Listeners of the Kafka door whose addresses are kept.
const KAFKA_LISTENERS_MAX: usize = 4;

/// A start, recovery included, takes less than this.
const START_MAX: Duration = Duration::from_secs(60);

/// A graceful stop takes less than this.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Bytes at the end of the log that an error shows.
const LOG_TAIL_BYTES: u64 = 4096;

/// How to start a server; cloned for each restart on the same data.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    /// A program and its arguments that starts the binary in its own process.
    wrapper: Vec<String>,
    /// `KEY=VALUE` of the configuration, for every command.
    settings: Vec<String>,
    kafka_listen: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Options {
    /// A server of `binary` with its data in `directory/data` and its output
    /// in `directory/server.log`.
    pub(crate) fn new(binary: PathBuf, directory: &Path) -> Self {
        Self {
            binary,
            data: directory.join("data"),
            log: directory.join("server.log"),
            wrapper: Vec::new(),
            settings: Vec::new(),
            kafka_listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Puts the data elsewhere.
    pub(crate) fn with_data(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// Sets fields of the configuration, each as `KEY=VALUE`.
    pub(crate) fn with_settings(mut self, settings: &[&str]) -> Self {
        self.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        self
    }

    /// A port of the Kafka door that restarts keep. It is none of those that
    /// the system gives to whoever asks for any, so that nobody takes it while
    /// the server is down.
    pub(crate) fn with_fixed_kafka_port(mut self, random: &mut impl Rng) -> Result<Self> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let address = format!("127.0.0.1:{}", random.random_range(10_000..30_000));
            if TcpListener::bind(&address).is_ok() {
                self.kafka_listen = address;
                return Ok(self);
            }
        }
        bail!("no free port in {TRIES} tries")
    }

    /// Starts the binary through `wrapper`, which must become the binary, so
    /// that its process is the one that is killed.
    pub(crate) fn with_wrapper(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Adds arguments of `aquifer serve`.
    pub(crate) fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Adds an environment variable.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().flat_map(|setting| ["--set", setting])
    }

    /// Runs another command of the binary on the same data, quietly.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--data").arg(&self.data).args(self.set());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        crate::workspace::run_quietly(&mut command)
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    options: Options,
    url: String,
    kafka: Receiver<String>,
}

impl Server {
    /// Starts a server on a free port and waits until it is ready.
    pub(crate) fn start(options: &Options) -> Result<Self> {
        let mut starting = Starting::spawn(options)?;
        let url = starting.wait_for_url()?;
        let mut server = starting.into_server(url);
        server.wait_until_ready()?;
        Ok(server)
    }

    /// A client of this server; cheap to make, one per thread.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// The address of its HTTP door.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The address of its Kafka door; asked again, that of its next listener.
    pub(crate) fn kafka(&self) -> Result<String> {
        let address = self.kafka.recv_timeout(START_MAX);
        address.with_context(|| format!("no `{KAFKA_LISTENING}…`\n{}", log_tail(&self.options)))
    }

    /// The address of its PostgreSQL door, as the last start logged it.
    pub(crate) fn postgres(&self) -> Result<String> {
        self.logged(POSTGRES_LISTENING)
    }

    /// The address of its Flight door, as the last start logged it.
    pub(crate) fn flight(&self) -> Result<String> {
        self.logged(FLIGHT_LISTENING)
    }

    /// What its log last had behind `start`.
    fn logged(&self, start: &str) -> Result<String> {
        let asked = Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.options.log)?;
            let mut lines = log.lines().rev();
            let address = lines.find_map(|line| line.strip_prefix(start));
            if let Some(address) = address {
                return Ok(address.trim().to_owned());
            }
            if asked.elapsed() > START_MAX {
                bail!("no `{start}…`\n{}", log_tail(&self.options));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends the process as a crash would: no handler runs, nothing is flushed.
    pub(crate) fn kill9(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the killed server")?;
        Ok(())
    }

    /// The same, and starts it again on the same data; its HTTP door is
    /// elsewhere then.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the killed server")?;
        *self = Self::start(&self.options)?;
        Ok(())
    }

    /// Asks for a graceful stop and waits for it; a status other than zero is
    /// an error.
    pub(crate) fn stop(mut self) -> Result<()> {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM).context("cannot signal the server")?;
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if asked.elapsed() > STOP_MAX {
                bail!("the server did not stop within {STOP_MAX:?}\n{}", log_tail(&self.options));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.success() {
            bail!("the server stopped with {status}\n{}", log_tail(&self.options));
        }
        Ok(())
    }

    /// The end of the server's log, for an error's context.
    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.options)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client();
        let asked = Instant::now();
        loop {
            let last = match client.get_status("/readyz") {
                Ok(200) => return Ok(()),
                Ok(status) => format!("/readyz answers {status}"),
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}\n{}", log_tail(&self.options));
            }
            if asked.elapsed() > START_MAX {
                bail!("not ready within {START_MAX:?}: {last}\n{}", log_tail(&self.options));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server whose address is not known yet; killed when dropped.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Option<Child>,
    options: Options,
    url: Receiver<String>,
    kafka: Receiver<String>,
}

impl Starting {
    /// Starts the process and returns at once.
    pub(crate) fn spawn(options: &Options) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)
            .with_context(|| format!("cannot open {}", options.log.display()))?;
        let mut command = match options.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&options.binary);
                command
            }
            None => Command::new(&options.binary),
        };
        let mut child = command
            .arg("serve")
            .arg("--data")
            .arg(&options.data)
            .args(["--listen", "127.0.0.1:0", "--kafka-listen", &options.kafka_listen])
            .args(["--postgres-listen", "127.0.0.1:0", "--flight-listen", "127.0.0.1:0"])
            .args(options.set())
            .args(&options.arguments)
            .envs(options.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", options.binary.display()))?;
        let (found, url) = sync_channel(1);
        let (found_kafka, kafka) = sync_channel(KAFKA_LISTENERS_MAX);
        if let Some(output) = child.stdout.take() {
            // Ends with the process, whose output it must keep reading.
            std::thread::spawn(move || {
                copy_output(BufReader::new(output), log, found, found_kafka)
            });
        }
        Ok(Self { child: Some(child), options: options.clone(), url, kafka })
    }

    /// Kills the process, wherever in its start it is.
    pub(crate) fn kill9(self) {
        drop(self);
    }

    fn wait_for_url(&mut self) -> Result<String> {
        match self.url.recv_timeout(START_MAX) {
            Ok(url) => Ok(url),
            Err(RecvTimeoutError::Timeout) => {
                bail!("no `{LISTENING}…` within {START_MAX:?}\n{}", log_tail(&self.options))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.as_mut().map(Child::wait).transpose()?;
                let status =
                    status.map_or_else(String::new, |status: ExitStatus| status.to_string());
                bail!("the server ended with {status}\n{}", log_tail(&self.options))
            }
        }
    }

    fn into_server(mut self, url: String) -> Server {
        let child = self.child.take().expect("a starting server has a process until here");
        let (_, unused) = sync_channel(0);
        let kafka = std::mem::replace(&mut self.kafka, unused);
        Server { child, options: self.options.clone(), url, kafka }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn copy_output(
    output: impl BufRead,
    mut log: File,
    found: SyncSender<String>,
    found_kafka: SyncSender<String>,
) {
    for line in output.lines().map_while(Result::ok) {
        if let Some((_, url)) = line.split_once(LISTENING) {
            let url = url.split_whitespace().next().unwrap_or_default();
            // A second such line finds the channel full; the first one counts.
            let _ = found.try_send(url.trim_end_matches('/').to_owned());
        }
        if let Some((_, address)) = line.split_once(KAFKA_LISTENING) {
            // As above.
            let _ = found_kafka.try_send(address.trim().to_owned());
        }
        let _ = writeln!(log, "{line}");
    }
}

fn log_tail(options: &Options) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(&options.log)?;
        let len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => format!("the end of its log:\n{text}"),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}
