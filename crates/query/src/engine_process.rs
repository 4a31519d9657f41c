//! The engine's process: started when it is first needed, ended when nobody
//! asks for long, started again when it died.
//!
//! It is a child of the same binary. It listens on a local socket that only this
//! user can reach, which the server binds and the child inherits as its standard
//! input; a question is a connection of its own. The first connection is the
//! [`StartEngine`] message's, and stays open: when the server is gone, however
//! that happened, the engine sees it close and ends. The child has nothing that
//! must be kept, so it is ended by a signal that cannot be handled.
//!
//! One task looks after each child: its log, its memory, its end. What questions
//! say when it ends is decided here; they themselves only find their connection
//! closed.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::process::{kill_signal, out_of_memory_kills, resident_bytes};
use aquifer_env::{Clock, PrivateSocket, Random};
use aquifer_types::ErrorKind;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine_log::EngineLog;
use crate::running::RunningQuestions;
use crate::wire::{EngineReady, Refusal, StartEngine};
use crate::{EngineOptions, FrameReader, FrameWriter, QueryMetrics, QueryOptions};

/// The socket's name in its directory.
const SOCKET_NAME: &str = "socket";
/// A question whose connection closed waits this long for word of the engine's
/// end, which comes by another way.
const END_TOLD_MAX: Duration = Duration::from_secs(2);
/// After the first failed start the pause is this part of the longest one.
const FIRST_PAUSE_PART: u64 = 100;
/// A shorter pause before a start is waited for.
const PAUSE_WAITED_FOR_MAX: Duration = Duration::from_secs(1);
/// The last lines of its log come by another way than its end.
const LOG_ENDS_MAX: Duration = Duration::from_millis(500);
/// Memory that a question held is not given back at once when it is ended.
const MEMORY_SETTLES: Duration = Duration::from_secs(1);

/// How the engine is started.
#[derive(Debug, Clone)]
pub struct EngineCommand {
    /// The program, which is this one.
    pub program: PathBuf,
    /// What it is called among the processes.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables of the environment that it does not inherit.
    pub variables_left_out: Vec<String>,
    /// Where its socket is put if the data directory's path is too long for one.
    pub temporary_directory: PathBuf,
    /// What it logs, as the server's own filter says.
    pub log_filter: String,
}

/// The engine, whether or not it runs.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    command: EngineCommand,
    /// The engine's own directory.
    directory: PathBuf,
    start: StartEngine,
    options: Arc<QueryOptions>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: QueryMetrics,
    questions: RunningQuestions,
    /// Held while one is started, so that only one is.
    state: tokio::sync::Mutex<State>,
    failures: Arc<Mutex<Failures>>,
}

#[derive(Debug)]
enum State {
    Absent,
    Running(Arc<Engine>),
    Stopped,
}

/// Failed starts and sudden ends in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// Not before this, on the monotonic clock.
    next_start_ns: u64,
}

/// One child, from its start to its end.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    /// How it ended, once it has.
    end: watch::Receiver<Option<End>>,
    gate: Arc<Mutex<Gate>>,
    stop: watch::Sender<bool>,
}

/// Decides between a question that comes and the end of an unused engine.
#[derive(Debug)]
struct Gate {
    /// When it was asked last, on the monotonic clock.
    used_ns: u64,
    /// No question may go to it any more.
    is_closed: bool,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    /// For people.
    pub(crate) what: String,
}

/// What a question is told whose engine has gone.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) refusal: Refusal,
    /// Whether the next engine may answer it.
    pub(crate) may_repeat: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Nobody had asked for long, or the server stops.
    Unused,
    /// By a signal that the server did not send.
    Killed,
    /// The system, the allocator or the server found that it held too much.
    Memory,
    /// By itself.
    Crash,
}

impl EndReason {
    const fn label(self) -> &'static str {
        match self {
            Self::Unused => "idle",
            Self::Killed => "killed",
            Self::Memory => "memory",
            Self::Crash => "crash",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl End {
    /// What the question says that was under way.
    fn refusal(&self) -> Refusal {
        let (code, sqlstate, mend) = match self.reason {
            EndReason::Memory => (
                "engine-memory",
                "53200",
                "ask for less at a time, or raise query.engine_memory_bytes_max",
            ),
            EndReason::Unused => ("engine-stopped", "57P01", "ask again"),
            EndReason::Killed => ("engine-killed", "57P02", "ask again"),
            EndReason::Crash => (
                "engine-crashed",
                "57P02",
                "ask again; if the same question ends it again, please report it",
            ),
        };
        let message = format!("the engine ended while it worked on the question: {self}; {mend}");
        Refusal::new(ErrorKind::Unavailable, code, sqlstate, message)
    }

    fn gone(&self) -> Gone {
        // Who asked for too much memory would ask for it again.
        Gone { refusal: self.refusal(), may_repeat: self.reason != EndReason::Memory }
    }
}

impl EngineProcess {
    pub(crate) fn new(
        command: EngineCommand,
        store: &aquifer_stream::Options,
        options: Arc<QueryOptions>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: QueryMetrics,
        questions: RunningQuestions,
    ) -> Self {
        let directory = store.data.join("engine");
        let spill_directory = match &options.spill_directory {
            // What the engine finds in its directory it removes: not what
            // others have there, another server's engine among them.
            Some(parent) => parent.join(format!("aquifer-spill-{}", name_of(&store.data))),
            None => directory.join("spill"),
        };
        let engine_options = EngineOptions {
            tier2: store.tier2_url(),
            tier2_options: store.tier2_options.clone(),
            spill_directory,
            ..options.engine()
        };
        let start = StartEngine { options: engine_options, log_filter: command.log_filter.clone() };
        let state = tokio::sync::Mutex::new(State::Absent);
        let failures = Arc::default();
        Self {
            command,
            directory,
            start,
            options,
            clock,
            random,
            metrics,
            questions,
            state,
            failures,
        }
    }

    /// A connection for one question, to an engine that is started if there is
    /// none.
    ///
    /// # Errors
    /// `engine-unavailable` where it cannot be started, or failed so lately that
    /// it is not tried yet; `stopping`.
    pub(crate) async fn connect(&self) -> Result<(UnixStream, Arc<Engine>), Refusal> {
        let mut last = None;
        // An engine that is there may have ended without its end being known yet.
        for _ in 0..2 {
            let engine = self.running(last.take()).await?;
            if !engine.enter(self.clock.monotonic_ns()) {
                last = Some((engine, std::io::ErrorKind::ConnectionRefused.into()));
                continue;
            }
            match UnixStream::connect(&engine.socket).await {
                Ok(connection) => return Ok((connection, engine)),
                Err(error) if is_refused(&error) => last = Some((engine, error)),
                // It is there, and has no room or no descriptor.
                Err(error) => return Err(Refusal::not_started(&error.to_string())),
            }
        }
        let why = last.map_or_else(String::new, |(_, error)| error.to_string());
        Err(Refusal::not_started(&why))
    }

    /// Ends it for good.
    pub(crate) async fn stop(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, State::Stopped);
        if let State::Running(engine) = state {
            engine.ended().await;
        }
    }

    async fn running(
        &self,
        gone: Option<(Arc<Engine>, std::io::Error)>,
    ) -> Result<Arc<Engine>, Refusal> {
        let mut state = self.state.lock().await;
        if let State::Running(engine) = &*state {
            let is_gone = gone.is_some_and(|(gone, _)| Arc::ptr_eq(&gone, engine));
            if engine.end.borrow().is_none() && !is_gone {
                return Ok(engine.clone());
            }
            // Its socket has the next one's path: it goes first.
            let engine = engine.clone();
            engine.ended().await;
            *state = State::Absent;
        }
        if matches!(*state, State::Stopped) {
            return Err(Refusal::stopping());
        }
        self.wait_for_turn().await?;
        match self.start().await {
            Ok(engine) => {
                let engine = Arc::new(engine);
                *state = State::Running(engine.clone());
                Ok(engine)
            }
            Err(why) => {
                self.metrics.engine_ended("start");
                tracing::error!(why, "the engine cannot be started");
                self.failures.lock().note(&*self.clock, &self.options);
                Err(Refusal::not_started(&why))
            }
        }
    }

    /// The last question was answered to its end.
    pub(crate) fn worked(&self) {
        *self.failures.lock() = Failures::default();
    }

    /// After failures it is started again after a pause. A short one is waited
    /// for; of a longer one the client is told, and may come again.
    async fn wait_for_turn(&self) -> Result<(), Refusal> {
        let (wait, count) = {
            let failures = self.failures.lock();
            let now = self.clock.monotonic_ns();
            (Duration::from_nanos(failures.next_start_ns.saturating_sub(now)), failures.count)
        };
        if wait > PAUSE_WAITED_FOR_MAX {
            return Err(Refusal::not_started(&format!(
                "it failed {count} times in a row and is started again in {} ms",
                wait.as_millis()
            )));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn start(&self) -> Result<Engine, String> {
        let command = &self.command;
        let (socket, listener) = PrivateSocket::listen(
            &self.directory,
            SOCKET_NAME,
            &command.temporary_directory,
            &*self.random,
        )
        .map_err(|error| format!("it has no socket: {error}"))?;
        let kills_before = out_of_memory_kills();
        let mut child = Command::new(&command.program);
        for variable in &command.variables_left_out {
            child.env_remove(variable);
        }
        // A signal to the server's group, as a terminal sends it, is the
        // server's to answer.
        let mut child = child
            .arg0(&command.name)
            .args(&command.arguments)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.program.display()))?;
        let process = child.id().unwrap_or_default();
        let log = EngineLog::default();
        let following = child.stderr.take();
        let following = following.map(|stderr| tokio::spawn(log.clone().follow(stderr, process)));
        let limit = Duration::from_millis(self.options.start_ms_max);
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(limit, self.greet(&socket)) => greeted,
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |it| it.to_string());
                return Err(format!("it ended at its start with {status}; the log says more"));
            }
        };
        let lifeline = match greeted {
            Ok(Ok(lifeline)) => lifeline,
            Ok(Err(error)) => {
                return Err(format!("it does not answer: {error}; the log says more"));
            }
            Err(_) => {
                return Err(format!("it was not ready within {limit:?} (query.start_ms_max)"));
            }
        };
        self.metrics.engine_starts.inc();
        tracing::info!(process, "the engine was started");
        let (told, end) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let used_ns = self.clock.monotonic_ns();
        let gate = Arc::new(Mutex::new(Gate { used_ns, is_closed: false }));
        let engine = Engine { socket: socket.path().to_owned(), end, gate: gate.clone(), stop };
        let supervisor = Supervisor {
            options: self.options.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            questions: self.questions.clone(),
            failures: self.failures.clone(),
            process,
            gate,
            log,
            following,
            kills_before,
            settled_ns: 0,
            _socket: socket,
            _lifeline: lifeline,
        };
        tokio::spawn(supervisor.run(child, told, stopping));
        Ok(engine)
    }

    /// Tells the child what it is to be, and waits until it is.
    async fn greet(&self, socket: &PrivateSocket) -> std::io::Result<UnixStream> {
        let mut connection = UnixStream::connect(socket.path()).await?;
        FrameWriter::new(&mut connection).message(&self.start).await?;
        match FrameReader::new(&mut connection).message::<EngineReady>().await? {
            Some(EngineReady {}) => Ok(connection),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Engine {
    /// Lets a question in; false where it is about to end.
    fn enter(&self, now_ns: u64) -> bool {
        let mut gate = self.gate.lock();
        gate.used_ns = now_ns;
        !gate.is_closed
    }

    /// What became of it, for a question whose connection has closed.
    pub(crate) async fn gone(&self) -> Gone {
        let mut end = self.end.clone();
        let told = tokio::time::timeout(END_TOLD_MAX, end.wait_for(Option::is_some)).await;
        let once = |refusal| Gone { refusal, may_repeat: false };
        match told {
            Ok(Ok(end)) => end.as_ref().map_or_else(|| once(Refusal::stopping()), End::gone),
            Ok(Err(_)) => once(Refusal::stopping()),
            Err(_) => once(Refusal::protocol("closed the connection without an answer")),
        }
    }

    /// Ends it, and waits until it has.
    async fn ended(&self) {
        self.stop.send_replace(true);
        // Whoever waits may be dropped: the next one waits as long.
        let _ = self.end.clone().wait_for(Option::is_some).await;
    }
}

impl Failures {
    fn note(&mut self, clock: &dyn Clock, options: &QueryOptions) {
        self.count = self.count.saturating_add(1);
        let longest = options.restart_pause_ms_max;
        let first = (longest / FIRST_PAUSE_PART).max(1);
        let pause_ms = first.saturating_mul(1 << (self.count - 1).min(16)).min(longest);
        self.next_start_ns =
            clock.monotonic_ns().saturating_add(pause_ms.saturating_mul(1_000_000));
    }
}

/// Looks after one child.
struct Supervisor {
    options: Arc<QueryOptions>,
    clock: Arc<dyn Clock>,
    metrics: QueryMetrics,
    questions: RunningQuestions,
    failures: Arc<Mutex<Failures>>,
    process: u32,
    gate: Arc<Mutex<Gate>>,
    log: EngineLog,
    following: Option<JoinHandle<()>>,
    kills_before: Option<u64>,
    /// Memory is not judged before this, on the monotonic clock.
    settled_ns: u64,
    /// Its path goes with the child, before the next one takes it.
    _socket: PrivateSocket,
    /// The engine ends when it closes.
    _lifeline: UnixStream,
}

impl Supervisor {
    async fn run(
        mut self,
        mut child: Child,
        told: watch::Sender<Option<End>>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut ticks = tokio::time::interval(Duration::from_millis(self.options.memory_check_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = loop {
            let reason = tokio::select! {
                status = child.wait() => Err(status),
                () = asked(&mut stopping) => {
                    Ok(End { reason: EndReason::Unused, what: "it was stopped".to_owned() })
                }
                _ = ticks.tick() => match self.look() {
                    Some(end) => Ok(end),
                    None => continue,
                },
            };
            break match reason {
                Ok(end) => {
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                    end
                }
                Err(status) => self.judge(status).await,
            };
        };
        self.gate.lock().is_closed = true;
        self.metrics.engine_memory.set(0);
        self.metrics.engine_ended(end.reason.label());
        let process = self.process;
        if end.reason == EndReason::Unused {
            tracing::info!(process, %end, "the engine was ended");
        } else {
            tracing::warn!(process, %end, "the engine ended");
            self.failures.lock().note(&*self.clock, &self.options);
        }
        // Its path first: whoever hears of the end may start the next one.
        drop(self);
        told.send_replace(Some(end));
    }

    /// Looks at its memory and at whether anybody asks; why it is to be ended,
    /// if it is.
    fn look(&mut self) -> Option<End> {
        let now_ns = self.clock.monotonic_ns();
        let held = resident_bytes(self.process).unwrap_or(0);
        self.metrics.engine_memory.set(i64::try_from(held).unwrap_or(i64::MAX));
        let limit = self.options.engine_memory_bytes_max;
        if held > limit {
            return self.too_large(held, limit, now_ns);
        }
        let mut gate = self.gate.lock();
        let idle_ms = now_ns.saturating_sub(gate.used_ns) / 1_000_000;
        if self.questions.len() > 0 {
            gate.used_ns = now_ns;
        } else if idle_ms >= self.options.idle_ms_max {
            gate.is_closed = true;
            let what = format!("nobody had asked for {idle_ms} ms");
            return Some(End { reason: EndReason::Unused, what });
        }
        None
    }

    fn too_large(&mut self, held: u64, limit: u64, now_ns: u64) -> Option<End> {
        let what = format!("it held {held} bytes of memory, the limit is {limit}");
        let end = End { reason: EndReason::Memory, what };
        if held > limit.saturating_add(limit / 4) {
            return Some(end);
        }
        if now_ns < self.settled_ns {
            return None;
        }
        // Who holds it is not known; what came last changed things.
        let why = Refusal::new(
            ErrorKind::Unavailable,
            "engine-memory",
            "53200",
            format!(
                "the engine was short of memory and ended the newest question, this one: {end}; \
                 ask for less at a time, or raise query.engine_memory_bytes_max"
            ),
        );
        if self.questions.end_newest(why) {
            tracing::warn!(process = self.process, %end, "the newest question was ended");
            self.metrics.memory_cancels.inc();
            let settles = u64::try_from(MEMORY_SETTLES.as_nanos()).unwrap_or(u64::MAX);
            self.settled_ns = now_ns.saturating_add(settles);
            return None;
        }
        Some(end)
    }

    /// What an end means that the server did not ask for.
    async fn judge(&mut self, status: std::io::Result<ExitStatus>) -> End {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(following) = self.following.take() {
            let _ = tokio::time::timeout(LOG_ENDS_MAX, following).await;
        }
        let (signal, what) = match &status {
            Ok(status) => (status.signal(), status.to_string()),
            Err(error) => (None, error.to_string()),
        };
        let was_for_memory = match (self.kills_before, out_of_memory_kills()) {
            (Some(before), Some(now)) => now > before,
            _ => false,
        };
        let reason = match signal {
            _ if self.log.has_run_out_of_memory() => EndReason::Memory,
            Some(signal) if signal == kill_signal() && was_for_memory => EndReason::Memory,
            Some(signal) if signal == kill_signal() => EndReason::Killed,
            _ => EndReason::Crash,
        };
        let what = match reason {
            EndReason::Memory => format!("it ran out of memory ({what})"),
            EndReason::Killed => format!("it was killed from outside ({what})"),
            EndReason::Unused | EndReason::Crash => format!("it crashed ({what})"),
        };
        End { reason, what }
    }
}

/// Waits until somebody wants the engine ended.
async fn asked(stopping: &mut watch::Receiver<bool>) {
    // Whoever could ask has gone: nobody looks after it any more.
    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
}

/// Whether nobody listens there.
fn is_refused(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
}

/// A name for a directory that belongs to this data directory.
fn name_of(data: &std::path::Path) -> String {
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(data, &mut hash);
    format!("{:016x}", std::hash::Hasher::finish(&hash))
}
