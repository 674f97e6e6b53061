//! Ending everything at once: the commands of all runs, whether or not any daemon lives or hears.
//!
//! A mark in the data directory says that all effects are halted; whoever sees it begins nothing. What
//! it says and who may write it is decided elsewhere: here it stands or it does not. Invariant: no
//! process outside the runs of the given directory is signalled.

use crate::format::{Lock, Process, Started};
use crate::process::{all, boot_id, is_alive, mono_ms, signal, signal_all};
use crate::run::{Run, Standing};
use rustix::process::Signal;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use tinkerbell_core::effect::HALT_MARK as MARK;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// The mark that counts for runs below this directory.
#[must_use]
pub fn mark(runs_dir: &Path) -> PathBuf {
    runs_dir.parent().unwrap_or(runs_dir).join(MARK)
}

/// Whether a mark stands. One that can not be looked at counts: only "no such file" is a no.
#[must_use]
pub fn stands(mark: &Path) -> bool {
    match std::fs::symlink_metadata(mark) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

/// What was ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Runs whose processes were killed.
    pub runs: usize,
    /// Processes that were killed.
    pub processes: usize,
    /// What still lives when the time is over, by run.
    pub left: Vec<String>,
}

/// Kills the processes of all runs below a directory and waits until their keepers have written down
/// how they ended, for at most `limit`; blocks. Keepers are left to that, because their word is the
/// only true one; one that was stopped is continued. Put the mark there first: it is what keeps others
/// from beginning meanwhile.
#[must_use]
pub fn end_all(runs_dir: &Path, limit: Duration) -> Ended {
    let end_ms = mono_ms() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX >> 1);
    let (mut runs, mut killed) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let held = held(runs_dir);
        let found = processes(&held, runs_dir);
        let targets: Vec<Process> = found.iter().map(|(process, _)| *process).collect();
        for (process, run) in &found {
            killed.insert((process.pid, process.start));
            runs.insert(run.clone());
        }
        // Stopped first, so that a fork bomb can not outrun the rounds.
        signal_all(&targets, Signal::STOP);
        held.iter().filter_map(|held| held.cgroup.as_ref()).for_each(|cgroup| {
            // Where it fails, the processes are killed one by one.
            let _by_group = std::fs::write(Path::new(cgroup).join("cgroup.kill"), "1").is_ok();
        });
        signal_all(&targets, Signal::KILL);
        for keeper in held.iter().map(|held| held.keeper) {
            // It may be gone already, which is what is waited for.
            signal(keeper, Signal::CONT).ok();
        }
        let is_over = targets.is_empty() && held.is_empty();
        if is_over || mono_ms() >= end_ms {
            let left = if is_over { Vec::new() } else { left(&held, &found) };
            return Ended { runs: runs.len(), processes: killed.len(), left };
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether anything of any run below a directory lives: keepers, or processes of commands.
#[must_use]
pub fn is_quiet(runs_dir: &Path) -> bool {
    let held = held(runs_dir);
    held.is_empty() && processes(&held, runs_dir).is_empty()
}

fn left(held: &[Held], found: &[(Process, String)]) -> Vec<String> {
    let keepers = held.iter().map(|held| format!("keeper {} of run {}", held.keeper.pid, held.run));
    let others =
        found.iter().filter(|(process, _)| is_alive(*process)).map(|(process, run)| format!("process {} of run {run}", process.pid));
    keepers.chain(others).collect()
}

/// A run whose keeper lives.
struct Held {
    run: String,
    keeper: Process,
    cgroup: Option<String>,
}

fn names(runs_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(runs_dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn held(runs_dir: &Path) -> Vec<Held> {
    let boot = boot_id();
    let held = |run: Run| {
        if !matches!(run.look(), Ok(Standing::Running)) {
            return None;
        }
        // Read leniently: a mark must reach the keepers of other releases, too.
        let read = |name: &str| std::fs::read(run.dir.join(name)).unwrap_or_default();
        let lock: Lock = serde_json::from_slice(&read("lock")).ok()?;
        let started: Option<Started> = serde_json::from_slice(&read("started")).ok();
        let cgroup = started.filter(|started| started.boot_id == boot).and_then(|started| started.cgroup);
        (lock.boot_id == boot && is_alive(lock.keeper)).then_some(Held { run: run.name, keeper: lock.keeper, cgroup })
    };
    names(runs_dir).into_iter().filter_map(|name| held(Run::new(runs_dir, name))).collect()
}

/// Every process of these runs but the keepers: what descends from a keeper, and what carries the mark
/// of a run in its environment.
fn processes(held: &[Held], runs_dir: &Path) -> Vec<(Process, String)> {
    let all = all();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for stat in all.iter().filter(|stat| !stat.zombie) {
        children.entry(stat.parent).or_default().push(Process { pid: stat.pid, start: stat.start });
    }
    let mut found: HashMap<i32, (Process, String)> = HashMap::new();
    for Held { run, keeper, .. } in held {
        let mut open = vec![keeper.pid];
        while let Some(pid) = open.pop() {
            for process in children.remove(&pid).unwrap_or_default() {
                open.push(process.pid);
                found.insert(process.pid, (process, run.clone()));
            }
        }
    }
    let names: BTreeSet<String> = names(runs_dir).into_iter().collect();
    for stat in all.iter().filter(|stat| !stat.zombie) {
        if found.contains_key(&stat.pid) {
            continue;
        }
        let environ = std::fs::read(crate::process::place(stat.pid).join("environ")).unwrap_or_default();
        let run = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"TINKERBELL_RUN="));
        if let Some(run) = run.map(String::from_utf8_lossy).filter(|run| names.contains(run.as_ref())) {
            found.insert(stat.pid, (Process { pid: stat.pid, start: stat.start }, run.into_owned()));
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_beside_the_runs_and_only_its_absence_is_a_no() {
        let root = tempfile::tempdir().unwrap();
        let runs = root.path().join("data/runs");
        let mark = mark(&runs);
        assert_eq!(mark, root.path().join("data/halted"));
        assert!(!stands(&mark), "nothing is there yet");
        std::fs::create_dir_all(&runs).unwrap();
        std::fs::write(&mark, "").unwrap();
        assert!(stands(&mark), "an empty one counts");
        std::fs::remove_file(&mark).unwrap();
        std::os::unix::fs::symlink("nowhere", &mark).unwrap();
        assert!(stands(&mark), "so does a link that leads nowhere");
    }

    #[test]
    fn where_nothing_runs_nothing_is_ended() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(end_all(&root.path().join("runs"), Duration::from_secs(5)), Ended::default());
        assert!(is_quiet(root.path()));
    }
}
