//! Processes of the host as `/proc` shows them, and the one function that ends a tree of them.
//!
//! A number alone names nothing, because numbers recur: every signal goes to a pidfd whose start
//! time was checked after opening it. Invariant: no process outside the given run is signalled.

use crate::format::{Process, Usage};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Number.
    pub pid: i32,
    /// Parent's number.
    pub parent: i32,
    /// Start time in clock ticks.
    pub start: u64,
    /// Whether it is dead and not reaped. One whose first thread alone has ended lives.
    pub zombie: bool,
    /// CPU time in clock ticks, of itself and of the children that it has waited for.
    pub ticks: u64,
    /// Number of threads.
    pub threads: u64,
    /// Pages in memory, shared ones included.
    pub pages: u64,
}

/// Milliseconds since boot, suspend included.
#[must_use]
pub fn mono_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The kernel's boot id; empty where it can not be read.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The kernel's release: its first two numbers; zeros where they can not be read.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let text = name.release().to_string_lossy();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Reads one process.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    let (stat, is_headless) = line(Path::new(&format!("/proc/{pid}")))?;
    // What its memory holds only a living thread tells.
    let pages = if is_headless { line(&place(pid)).map_or(0, |(thread, _)| thread.pages) } else { stat.pages };
    Some(Stat { pages, ..stat })
}

/// The directory in `/proc` that shows what a process holds: its own, or a living thread's where the first thread has
/// ended before the others.
#[must_use]
pub fn place(pid: i32) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    if !line(&own).is_some_and(|(_, is_headless)| is_headless) {
        return own;
    }
    let threads = std::fs::read_dir(own.join("task")).into_iter().flatten().flatten().map(|thread| thread.path());
    // A thread's own line tells its own state, and the number of threads of the whole.
    let mut living = threads.filter(|thread| line(thread).is_some_and(|(_, is_headless)| !is_headless));
    living.next().unwrap_or(own)
}

/// One process, or one thread, and whether that one has ended while others live.
fn line(dir: &Path) -> Option<(Stat, bool)> {
    // The kernel gives the line whole to one read that has room for it: at most 52 numbers and a short name.
    let mut block = [0; 2048];
    let count = std::fs::File::open(dir.join("stat")).ok()?.read(&mut block).ok()?;
    let text = String::from_utf8_lossy(block.get(..count)?);
    // The name stands in parentheses and may hold anything, parentheses included.
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split(' ').take(22).collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let (has_ended, threads) = (matches!(fields.first(), Some(&("Z" | "X"))), number(17)?);
    let stat = Stat {
        pid: dir.file_name()?.to_str()?.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        start: number(19)?,
        zombie: has_ended && threads <= 1,
        ticks: (11..15).filter_map(number).fold(0, u64::saturating_add),
        threads,
        pages: number(21)?,
    };
    Some((stat, has_ended && threads > 1))
}

/// A process with its start time.
#[must_use]
pub fn identify(pid: i32) -> Option<Process> {
    stat(pid).map(|stat| Process { pid, start: stat.start })
}

/// Whether this very process lives.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    stat(process.pid).is_some_and(|stat| stat.start == process.start && !stat.zombie)
}

/// Every process that `/proc` shows.
#[must_use]
pub fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(stat).collect()
}

/// Living descendants of a process, itself left out.
#[must_use]
pub fn descendants(root: i32) -> Vec<Process> {
    tree(root).into_iter().filter(|stat| !stat.zombie).map(|stat| Process { pid: stat.pid, start: stat.start }).collect()
}

/// All descendants of a process, dead ones that nobody has waited for included.
#[must_use]
pub fn tree(root: i32) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all() {
        children.entry(stat.parent).or_default().push(stat);
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        for stat in children.remove(&pid).unwrap_or_default() {
            open.push(stat.pid);
            found.push(stat);
        }
    }
    found
}

/// Memory of a process in bytes, its share of what it shares; `None` where that can not be read.
#[must_use]
pub fn share(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(place(pid).join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Signals this very process; a process that is gone is no error.
///
/// # Errors
/// When it lives and may not be signalled.
pub fn signal(process: Process, signal: Signal) -> rustix::io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        other => other?,
    };
    if stat(process.pid).is_none_or(|stat| stat.start != process.start) {
        return Ok(());
    }
    match pidfd_send_signal(&fd, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Signals each; losing one is right, because it is gone or the next round sees it again.
pub fn signal_all(processes: &[Process], number: Signal) {
    for process in processes {
        signal(*process, number).ok();
    }
}

/// Processes whose environment carries the mark of a run.
#[must_use]
pub fn marked(run: &str) -> Vec<Process> {
    let mark = format!("TINKERBELL_RUN={run}");
    let carries = |stat: &Stat| {
        let environ = std::fs::read(place(stat.pid).join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all().into_iter().filter(|stat| !stat.zombie && carries(stat)).map(|s| Process { pid: s.pid, start: s.start }).collect()
}

/// Kills whatever `find` gives, until it gives nothing or the time is over; says whether nothing
/// is left. They are stopped before they are killed, so that a fork bomb can not outrun the rounds.
pub fn kill_until_gone(limit: Duration, find: impl Fn() -> Vec<Process>) -> bool {
    let end = mono_ms() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    loop {
        let found = find();
        if found.is_empty() {
            return true;
        }
        signal_all(&found, Signal::STOP);
        signal_all(&find(), Signal::KILL);
        signal_all(&found, Signal::KILL);
        if mono_ms() >= end {
            return find().is_empty();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a control group and everything in it; `false` where that is not possible.
#[must_use]
pub fn kill_cgroup(path: &str, limit: Duration) -> bool {
    let dir = std::path::Path::new(path);
    if !dir.exists() {
        return true;
    }
    if std::fs::write(dir.join("cgroup.kill"), "1").is_err() {
        return false;
    }
    let end = mono_ms() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    while mono_ms() < end {
        let events = std::fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        if events.contains("populated 0") {
            return std::fs::remove_dir(dir).is_ok() || !dir.exists();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Removes control groups whose processes were killed, as soon as the kernel has let go of those.
pub fn remove_groups(groups: &[String]) {
    let end = mono_ms() + 500;
    for group in groups {
        // A group in which something still dies is busy; one that stays is only untidy.
        while std::fs::remove_dir(group).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) && mono_ms() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What all reaped children used.
#[must_use]
#[allow(unsafe_code)]
pub fn children_usage() -> Usage {
    // SAFETY: all-zero bytes are a valid `rusage`, and the pointer is to our own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let micros = |time: libc::timeval| u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0);
    Usage { user_us: micros(usage.ru_utime), system_us: micros(usage.ru_stime), max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0) }
}

#[cfg(test)]
#[test]
fn our_own_line_of_proc_is_read() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let own = identify(pid).unwrap();
    assert!(is_alive(own) && own.start > 0);
    assert!(!is_alive(Process { start: own.start + 1, ..own }));
    assert!(!boot_id().is_empty());
}
