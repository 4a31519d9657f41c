//! `aquifer doctor`: looks at everything that a server needs, one check after
//! the other, and says the mend for what is wrong.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use aquifer_env::store::open_store;
use aquifer_env::{
    Clock, DirectoryLock, DirectoryLockError, Disk, RealClock, RealDisk, RealRandom, tasks,
};
use rustix::fs::statfs;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::cli::{DoctorArguments, Output};
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::output::{self, bytes};

/// A clock before this is wrong: 2026-01-01.
const CLOCK_MS_MIN: i64 = 1_767_225_600_000;
/// How many writes are synced to measure the disk.
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4096;
/// A median above this makes every append slow.
const SYNC_MICROS_SLOW: u64 = 20_000;
/// Descriptors beyond the connections: journal, catalog, chunks.
const FILES_BESIDE_CONNECTIONS: u64 = 512;
/// Tier 2 answers within this, or not.
const PROBE_MAX: Duration = Duration::from_secs(20);
const PROBE_FILE: &str = "doctor.probe";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Doubtful => "warning",
            Self::Bad => "error",
        }
    }
}

/// What one check found.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    mend: Option<String>,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, found: found.into(), mend: None }
    }

    fn doubtful(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Doubtful, found: found.into(), mend: Some(mend.into()) }
    }

    fn bad(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Bad, found: found.into(), mend: Some(mend.into()) }
    }
}

pub(crate) async fn run(arguments: DoctorArguments) -> Result<(), Failure> {
    let mut config = config::of_arguments(&arguments.config)?;
    if let Some(listen) = arguments.listen {
        config.http.listen = listen;
    }
    if let Some(listen) = arguments.kafka_listen {
        config.kafka.listen = listen;
    }
    if let Some(listen) = arguments.postgres_listen {
        config.postgres.listen = listen;
    }
    if let Some(listen) = arguments.flight_listen {
        config.flight.listen = listen;
    }
    let store = config.store.clone();
    let mut findings = tasks::run_blocking(move || examine(&config)).await;
    let place = findings.iter().position(|finding| finding.check == "clock").unwrap_or(0);
    findings.insert(place, check_tier2(&store).await);
    show(arguments.output, &findings)?;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 {
        return Err(Failure::failed(format!("{bad} of {} checks failed", findings.len())));
    }
    Ok(())
}

fn show(form: Output, findings: &[Finding]) -> Result<(), Failure> {
    if form == Output::Json {
        let findings = findings.iter().map(|finding| {
            json!({
                "check": finding.check, "verdict": finding.verdict.name(),
                "found": finding.found, "mend": finding.mend,
            })
        });
        return output::json(&json!({ "checks": findings.collect::<Vec<_>>() }));
    }
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!(
            "{:<8} {:<16} {}\n",
            finding.verdict.name(),
            finding.check,
            finding.found
        ));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("{:<8} {:<16} → {mend}\n", "", ""));
        }
    }
    output::write(text.as_bytes())
}

fn examine(config: &Config) -> Vec<Finding> {
    let disk = RealDisk::new();
    let clock = RealClock::new();
    let mut findings = Vec::new();
    let data = std::path::absolute(&config.store.data).unwrap_or(config.store.data.clone());
    let writable = check_directory("data directory", &disk, &data);
    let is_writable = writable.verdict == Verdict::Good;
    findings.push(writable);
    if is_writable {
        let (lock, is_free) = check_lock(&data);
        findings.push(lock);
        findings.push(check_file_system(&data));
        findings.push(check_syncs(&disk, &clock, &data));
        findings.push(check_space(&disk, &data, config));
        // A running server holds its own ports.
        findings.extend(check_ports(config, is_free));
    } else {
        findings.extend(check_ports(config, true));
    }
    if let Some(path) = config.store.tier2_url().strip_prefix("file://") {
        findings.push(check_directory("tier 2 directory", &disk, Path::new(path)));
    }
    findings.push(check_clock(&clock));
    findings.push(check_descriptors(config));
    findings.push(check_exposure(config));
    if config.kafka.enabled {
        findings.push(check_kafka_exposure(config));
    }
    if config.postgres.enabled {
        findings.push(check_postgres_exposure(config));
    }
    if config.flight.enabled {
        findings.push(check_flight_exposure(config));
    }
    findings
}

fn check_directory(check: &'static str, disk: &RealDisk, directory: &Path) -> Finding {
    let shown = directory.display();
    if let Err(error) = disk.create_dir_all(directory) {
        return Finding::bad(
            check,
            format!("{shown} cannot be created: {error}"),
            "choose another directory with --data, or make its parent writable for this user",
        );
    }
    let probe = directory.join(PROBE_FILE);
    // What an earlier run that was cut off left behind.
    let _ = disk.remove(&probe);
    let write = || -> std::io::Result<()> {
        disk.create(&probe)?.write_at(b"probe", 0)?;
        disk.remove(&probe)
    };
    match write() {
        Ok(()) => Finding::good(check, format!("{shown} is writable")),
        Err(error) => Finding::bad(
            check,
            format!("{shown} cannot be written to: {error}"),
            format!("make it writable for this user: chown -R $(id -u) {shown}"),
        ),
    }
}

/// The finding, and whether nobody uses the directory.
fn check_lock(data: &Path) -> (Finding, bool) {
    match DirectoryLock::acquire(data) {
        Ok(_released) => (Finding::good("lock", "no other process uses the directory"), true),
        Err(error @ DirectoryLockError::Held { .. }) => (
            Finding::doubtful(
                "lock",
                error.to_string(),
                "if that is the server, all is well; else stop it or use another --data",
            ),
            false,
        ),
        Err(error) => (
            Finding::bad("lock", error.to_string(), "make the file LOCK writable for this user"),
            true,
        ),
    }
}

fn check_file_system(data: &Path) -> Finding {
    const CHECK: &str = "file system";
    let kind = match statfs(data) {
        Ok(found) => found.f_type as u64,
        Err(error) => {
            return Finding::doubtful(CHECK, format!("unknown: {error}"), "use ext4 or xfs");
        }
    };
    // linux/magic.h
    match kind {
        0xef53 => Finding::good(CHECK, "ext4"),
        0x5846_5342 => Finding::good(CHECK, "xfs"),
        0x9123_683e => Finding::doubtful(
            CHECK,
            "btrfs: journal files that are rewritten in place become scattered",
            "switch copy-on-write off for the new directory: chattr +C DIR, or use ext4 or xfs",
        ),
        0x2fc1_2fc1 => Finding::good(CHECK, "zfs"),
        0x0102_1994 | 0x8584_58f6 => Finding::bad(
            CHECK,
            "in memory (tmpfs): everything is lost with the machine",
            "put --data on a disk",
        ),
        0x794c_7630 => Finding::doubtful(
            CHECK,
            "overlayfs: a container's own layer, which is deleted with the container",
            "mount a volume and put --data on it",
        ),
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x517b => Finding::doubtful(
            CHECK,
            "a network file system: syncs are slow, and locks may not hold",
            "put --data on a local disk; tier 2 may well be on the network",
        ),
        0x6573_5546 => Finding::doubtful(
            CHECK,
            "FUSE: whether a sync reaches a disk is up to its program",
            "put --data on a local disk with ext4 or xfs",
        ),
        other => Finding::doubtful(
            CHECK,
            format!("kind {other:#x}, which was not tried"),
            "use ext4 or xfs if in doubt",
        ),
    }
}

/// Median and maximum of synced writes into a file that was written before, as
/// the journal does it.
fn check_syncs(disk: &RealDisk, clock: &RealClock, data: &Path) -> Finding {
    const CHECK: &str = "sync latency";
    let probe = data.join(PROBE_FILE);
    let measure = || -> std::io::Result<Vec<u64>> {
        let file = disk.create(&probe)?;
        let page = [7_u8; SYNC_BYTES];
        for number in 0..SYNCS {
            file.write_at(&page, (number * SYNC_BYTES) as u64)?;
        }
        file.sync_data()?;
        let mut micros = Vec::with_capacity(SYNCS);
        for number in 0..SYNCS {
            let begun = clock.monotonic_ns();
            file.write_at(&page, (number * SYNC_BYTES) as u64)?;
            file.sync_data()?;
            micros.push((clock.monotonic_ns() - begun) / 1000);
        }
        micros.sort_unstable();
        Ok(micros)
    };
    let measured = measure();
    // It may not have been created.
    let _ = disk.remove(&probe);
    let micros = match measured {
        Ok(micros) => micros,
        Err(error) => {
            return Finding::bad(
                CHECK,
                format!("a synced write failed: {error}"),
                "look at the system's log (dmesg): the disk or its file system is failing",
            );
        }
    };
    let median = micros.get(SYNCS / 2).copied().unwrap_or(0);
    let max = micros.last().copied().unwrap_or(0);
    let found = format!("4 KiB in {median} µs (median), {max} µs (longest of {SYNCS})");
    if median > SYNC_MICROS_SLOW {
        Finding::doubtful(
            CHECK,
            format!("{found}: every append waits for one"),
            "use an SSD, or class relaxed for streams that may lose their last moments to a \
             power cut",
        )
    } else {
        Finding::good(CHECK, found)
    }
}

fn check_space(disk: &RealDisk, data: &Path, config: &Config) -> Finding {
    const CHECK: &str = "free space";
    let wanted = config.store.journal_bytes_max + config.store.disk_reserve_bytes;
    match disk.free_bytes(data) {
        Ok(free) if free < config.store.journal_file_bytes * 4 => Finding::bad(
            CHECK,
            format!("{} are free, too few to begin with", bytes(free)),
            "free space, or put --data on a larger disk",
        ),
        Ok(free) if free < wanted => Finding::doubtful(
            CHECK,
            format!("{} are free, the journal may grow to {}", bytes(free), bytes(wanted)),
            "free space, or lower --journal-bytes-max; a full disk refuses appends",
        ),
        Ok(free) => Finding::good(CHECK, format!("{} are free", bytes(free))),
        Err(error) => Finding::doubtful(CHECK, error.to_string(), "check the mount with df"),
    }
}

fn check_ports(config: &Config, must_be_free: bool) -> Vec<Finding> {
    let http = ("HTTP address", config.http.listen, "--listen");
    let kafka = if config.kafka.enabled { config.kafka.all_listeners() } else { Vec::new() };
    let kafka = kafka.iter().map(|of| ("Kafka address", of.listen, "--kafka-listen"));
    let postgres = config.postgres.enabled.then_some(config.postgres.listen);
    let postgres = postgres.map(|listen| ("PostgreSQL address", listen, "--postgres-listen"));
    let flight = config.flight.enabled.then_some(config.flight.listen);
    let flight = flight.map(|listen| ("Flight address", listen, "--flight-listen"));
    std::iter::once(http)
        .chain(kafka)
        .chain(postgres)
        .chain(flight)
        .map(|(check, listen, flag)| check_port(check, listen, flag, must_be_free))
        .collect()
}

fn check_port(check: &'static str, listen: SocketAddr, flag: &str, must_be_free: bool) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_closed) => Finding::good(check, format!("{listen} is free")),
        Err(error) if must_be_free => Finding::bad(
            check,
            format!("{listen} cannot be bound: {error}"),
            format!("stop what listens there (ss -ltnp shows it), or choose another with {flag}"),
        ),
        Err(_) => Finding::good(check, format!("{listen} is in use, as the directory is")),
    }
}

/// Puts an object into tier 2, reads it back and deletes it.
async fn check_tier2(options: &aquifer_stream::Options) -> Finding {
    const CHECK: &str = "tier 2";
    let url = options.tier2_url();
    let pairs: Vec<(String, String)> =
        options.tier2_options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let store = match open_store(&url, &pairs) {
        Ok(store) => store,
        Err(error) => {
            return Finding::bad(
                CHECK,
                format!("{url} cannot be opened: {error}"),
                "give --tier2 as file://, s3://, gs:// or az://, with store.tier2_options",
            );
        }
    };
    match tokio::time::timeout(PROBE_MAX, store.probe(&RealRandom)).await {
        Ok(Ok(())) => Finding::good(CHECK, format!("{url} takes, gives back and deletes objects")),
        Ok(Err(error)) => Finding::bad(
            CHECK,
            format!("{url}: {error}"),
            "check the address, the credentials (store.tier2_options or the environment, such as \
             AWS_ACCESS_KEY_ID) and the rights to put, get, list and delete",
        ),
        Err(_) => Finding::bad(
            CHECK,
            format!("{url} did not answer within {} s", PROBE_MAX.as_secs()),
            "check the address and the network; appends go on without it until \
             store.journal_bytes_max",
        ),
    }
}

fn check_clock(clock: &RealClock) -> Finding {
    const CHECK: &str = "clock";
    let now = clock.now_ms();
    if now < CLOCK_MS_MIN {
        return Finding::bad(
            CHECK,
            format!("it stands at {now} ms after 1970, which is long past"),
            "set it, and keep it set with chrony or systemd-timesyncd",
        );
    }
    Finding::good(CHECK, "plausible")
}

fn check_descriptors(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let connections = config.http.connections_max + config.kafka.connections_max;
    let wanted = connections as u64 + FILES_BESIDE_CONNECTIONS;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => Finding::doubtful(
            CHECK,
            format!("this process may open {limit}, {wanted} may be needed"),
            "raise it with ulimit -n or LimitNOFILE=, or lower http.connections_max and \
             kafka.connections_max",
        ),
        Some(limit) => Finding::good(CHECK, format!("this process may open {limit}")),
        None => Finding::good(CHECK, "unlimited"),
    }
}

fn check_exposure(config: &Config) -> Finding {
    const CHECK: &str = "exposure";
    let listen = config.http.listen;
    let has_token =
        config.http.token_file.is_some() || config::variable(config::TOKEN_VARIABLE).is_some();
    match (config.http.is_exposed(), has_token) {
        (false, _) => Finding::good(CHECK, format!("{listen} is reached from this machine only")),
        (true, true) => Finding::doubtful(
            CHECK,
            format!("{listen} is reached from other machines, and the token is sent unencrypted"),
            "put a proxy with TLS before it",
        ),
        (true, false) => Finding::bad(
            CHECK,
            format!("{listen} is reached from other machines, and there is no token"),
            "give one with --token-file or AQUIFER_TOKEN",
        ),
    }
}

fn check_kafka_exposure(config: &Config) -> Finding {
    const CHECK: &str = "Kafka exposure";
    if config.kafka.is_exposed() {
        return Finding::bad(
            CHECK,
            "a listener that asks for no user is reached from other machines",
            "give it kafka.security, or listen on 127.0.0.1",
        );
    }
    Finding::good(CHECK, "no listener lets strangers of other machines in")
}

fn check_postgres_exposure(config: &Config) -> Finding {
    const CHECK: &str = "PostgreSQL exposure";
    if config.postgres.is_exposed() {
        return Finding::bad(
            CHECK,
            "other machines reach it, and it asks for no user",
            "say postgres.security = \"password\", or listen on 127.0.0.1",
        );
    }
    Finding::good(CHECK, "it lets no strangers of other machines in")
}

fn check_flight_exposure(config: &Config) -> Finding {
    const CHECK: &str = "Flight exposure";
    if config.flight.is_exposed() {
        return Finding::bad(
            CHECK,
            "other machines reach it, and it asks for no user",
            "say flight.security = \"password\", or listen on 127.0.0.1",
        );
    }
    Finding::good(CHECK, "it lets no strangers of other machines in")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_in(data: &Path) -> Config {
        let mut config = Config::default();
        config.store.data = data.to_owned();
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.kafka.listen = config.http.listen;
        config.postgres.listen = config.http.listen;
        config.flight.listen = config.http.listen;
        config
    }

    fn verdict(findings: &[Finding], check: &str) -> Verdict {
        findings.iter().find(|finding| finding.check == check).unwrap().verdict
    }

    #[test]
    fn what_is_wrong_has_a_mend() {
        let directory = tempfile::tempdir().unwrap();
        let findings = examine(&config_in(directory.path()));
        for check in [
            "data directory",
            "lock",
            "HTTP address",
            "Kafka address",
            "tier 2 directory",
            "clock",
            "Kafka exposure",
        ] {
            assert_eq!(verdict(&findings, check), Verdict::Good, "{check}");
        }
        assert!(!directory.path().join(PROBE_FILE).try_exists().unwrap());

        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = config_in(Path::new("/proc/none"));
        config.http.listen = held.local_addr().unwrap();
        config.kafka.listen = config.http.listen;
        let findings = examine(&config);
        for check in ["data directory", "HTTP address", "Kafka address", "tier 2 directory"] {
            assert_eq!(verdict(&findings, check), Verdict::Bad, "{check}");
        }
        let all_mended = findings.iter().all(|f| f.mend.is_some() || f.verdict == Verdict::Good);
        assert!(all_mended);
    }

    #[tokio::test]
    async fn tier_2_is_tried_in_earnest() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config_in(directory.path());
        assert_eq!(check_tier2(&config.store).await.verdict, Verdict::Good);
        for wrong in ["ftp://host/x", "file:///proc/none"] {
            config.store.tier2 = Some(wrong.to_owned());
            let finding = check_tier2(&config.store).await;
            assert_eq!(finding.verdict, Verdict::Bad, "{wrong}");
            assert!(finding.mend.is_some());
        }
    }

    #[test]
    fn a_held_directory_is_doubtful_and_its_port_may_be_taken() {
        let directory = tempfile::tempdir().unwrap();
        let _lock = DirectoryLock::acquire(directory.path()).unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = config_in(directory.path());
        config.http.listen = held.local_addr().unwrap();
        let findings = examine(&config);
        assert_eq!(verdict(&findings, "lock"), Verdict::Doubtful);
        assert_eq!(verdict(&findings, "HTTP address"), Verdict::Good);
    }
}
