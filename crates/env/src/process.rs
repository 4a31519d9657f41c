//! What a process asks of the system for itself, and what it can see of a child.
//!
//! Linux tells all of this; elsewhere, and where the system refuses, the answer
//! is that it is not known, and nothing else changes.

use std::fs;
use std::io;

use rustix::process::Signal;

/// Ends this process when the thread that started it does.
///
/// # Errors
/// What the system refuses.
pub fn die_with_parent() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Lets the system end this process before others when memory runs out;
/// `score` is 0 to 1000. Children inherit it.
///
/// # Errors
/// What the system refuses.
pub fn set_out_of_memory_score(score: u16) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", score.min(1000).to_string())
}

/// The memory that a process holds, in bytes; none where it is gone, or the
/// system does not tell.
#[must_use]
pub fn resident_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// How many processes the system has ended for want of memory since it was
/// started; none where it does not tell.
#[must_use]
pub fn out_of_memory_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The signal's number that ends a process at once, with no handler run.
#[must_use]
pub fn kill_signal() -> i32 {
    Signal::KILL.as_raw()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory() {
        let held = resident_bytes(std::process::id()).expect("Linux tells it");
        assert!(held > 1 << 20, "{held} bytes");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
