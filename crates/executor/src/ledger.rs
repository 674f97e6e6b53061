//! What the commands of a task have used, one small file per run in the task's private directory.
//!
//! Each keeper writes its own figures and reads those of its neighbours, so that several commands
//! share what the task has left, also while no daemon runs. The figures outlive the keeper. Those of
//! ended runs are folded into one file now and then, or a task of thousands of commands would read as many files
//! at each start. Invariant: a run's figure never shrinks while its file stands, and a file goes only after its
//! figures are counted elsewhere, so a total is never too small.

use crate::format::{Folded, Spent, VERSION};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::port::Used;

/// Name of the directory in a task's private one.
const DIR: &str = "usage";
/// Name of the file that holds what the directories took before the task's first command.
const BASE: &str = "base";

/// Name of the file that holds what folded runs have used together.
const FOLDED: &str = "folded";
/// Modes of our own directories and files.
const OWN_DIR: u32 = 0o700;
const OWN_FILE: u32 = 0o600;
/// The ledger, the task's private directory, and the one of all tasks.
const OWN_DEPTH: usize = 3;
/// So many ended runs keep files of their own.
const LOOSE: usize = 32;
/// How often a reader asks for its turn, a millisecond apart, while another folds. A keeper that was stopped in the
/// middle of that must not hold up the others for ever.
const TURNS: u32 = 100;

/// The figures of one task.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    /// Figures that will not change any more.
    ended: HashMap<String, Spent>,
}

impl Ledger {
    /// The ledger in a task's private directory; touches nothing.
    #[must_use]
    pub fn of(private: &Path) -> Self {
        Self { dir: private.join(DIR), ended: HashMap::new() }
    }

    /// The ledger in this directory.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ended: HashMap::new() }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the task's directories took before its first command; measured by `measure` and noted
    /// where it is not known yet.
    ///
    /// # Errors
    /// When it can not be noted.
    pub fn base(&self, measure: impl FnOnce() -> u64) -> std::io::Result<u64> {
        self.opened()?;
        crate::host::make_dir(&self.dir).map_err(std::io::Error::other)?;
        let text = self.read(BASE)?;
        if let Some(base) = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(base);
        }
        let base = measure();
        self.put(BASE, base.to_string().as_bytes())?;
        Ok(base)
    }

    /// Notes a run's figures.
    ///
    /// # Errors
    /// When they can not be written.
    pub fn note(&self, name: &str, spent: &Spent) -> std::io::Result<()> {
        self.put(name, &serde_json::to_vec(spent)?)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.opened()?;
        std::fs::rename(self.put_aside(name, bytes)?, self.dir.join(name))
    }

    /// Writes a file under a name that only we use.
    fn put_aside(&self, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
        // Two commands of a task may begin at once, each with a process or thread of its own.
        let new = self.dir.join(format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        std::fs::write(&new, bytes)?;
        Ok(new)
    }

    /// Figures of all runs by name; those of folded runs are one.
    ///
    /// # Errors
    /// When they stand there and can not be read: nobody knows what is left then.
    pub fn all(&mut self) -> std::io::Result<Vec<(String, Spent)>> {
        if !self.opened()? {
            return Ok(Vec::new());
        }
        let _turn = self.turn(FlockOperation::NonBlockingLockShared, TURNS);
        let folded = self.folded()?;
        let mut all = self.loose(&folded)?;
        if folded.spent.version > 0 {
            all.push((FOLDED.to_owned(), folded.spent));
        }
        Ok(all)
    }

    /// Whether the directory is there. At level `landlock` a command can change the modes of what its user owns, ours
    /// among it: they are put back.
    fn opened(&self) -> std::io::Result<bool> {
        let above: Vec<&Path> = self.dir.ancestors().take(OWN_DEPTH).collect();
        for dir in above.into_iter().rev() {
            match std::fs::metadata(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Ok(meta) if meta.permissions().mode() & OWN_DIR != OWN_DIR => {
                    std::fs::set_permissions(dir, Permissions::from_mode(OWN_DIR))?;
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A file's bytes; none where it is not there.
    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let path = self.dir.join(name);
        let read = || match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.opened()?;
                std::fs::set_permissions(&path, Permissions::from_mode(OWN_FILE))?;
                read()
            }
            other => other,
        }
    }

    /// Figures of the runs that have files of their own and are not counted in `folded`.
    fn loose(&mut self, folded: &Folded) -> std::io::Result<Vec<(String, Spent)>> {
        let entries = std::fs::read_dir(&self.dir)?.collect::<std::io::Result<Vec<_>>>()?;
        let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
        let is_run = |name: &String| ![BASE, FOLDED].contains(&name.as_str()) && !name.starts_with('.') && !folded.runs.contains(name);
        let mut all = Vec::new();
        for name in names.filter(is_run) {
            if let Some(spent) = self.ended.get(&name) {
                all.push((name, *spent));
                continue;
            }
            let bytes = self.read(&name)?;
            let Ok(spent) = serde_json::from_slice::<Spent>(&bytes) else { continue };
            if spent.ended && spent.version <= VERSION {
                self.ended.insert(name.clone(), spent);
            }
            all.push((name, spent));
        }
        Ok(all)
    }

    /// What was folded; nothing where a power cut left nothing.
    fn folded(&self) -> std::io::Result<Folded> {
        Ok(serde_json::from_slice(&self.read(FOLDED)?).unwrap_or_default())
    }

    /// Folds ended runs into one file when there are many. One that is interrupted is finished by the next, and
    /// what another does at the same time is left to that one.
    ///
    /// # Errors
    /// When the sum can not be written; then all files stand as they stood.
    pub fn fold(&mut self) -> std::io::Result<()> {
        let Some(_turn) = self.turn(FlockOperation::NonBlockingLockExclusive, 1) else { return Ok(()) };
        let folded = self.folded()?;
        let ended: Vec<(String, Spent)> = self.loose(&folded)?.into_iter().filter(|(name, _)| self.ended.contains_key(name)).collect();
        if ended.len() < LOOSE {
            return Ok(());
        }
        // Else an older fold's file would count again once its name is forgotten.
        self.remove(&folded.runs)?;
        let all: Vec<Spent> = ended.iter().map(|(_, spent)| *spent).chain((folded.spent.version > 0).then_some(folded.spent)).collect();
        let (used, at_ms) = sum(&all);
        let Used { cpu_ms, memory_bytes, processes, disk_bytes } = used;
        let spent = Spent { version: VERSION, cpu_ms, memory_bytes, processes, disk_bytes, at_ms, ended: true };
        let runs: Vec<String> = ended.into_iter().map(|(name, _)| name).collect();
        let new = self.put_aside(FOLDED, &serde_json::to_vec(&Folded { spent, runs: runs.clone() })?)?;
        // The single files go, so the sum must be there after a power cut.
        File::open(&new)?.sync_data()?;
        std::fs::rename(new, self.dir.join(FOLDED))?;
        self.ended.retain(|name, _| !runs.contains(name));
        self.remove(&runs)
    }

    fn remove(&self, names: &[String]) -> std::io::Result<()> {
        names.iter().try_for_each(|name| match std::fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// A turn among readers and folders, asked for so many times; `None` when others did not end theirs.
    fn turn(&self, kind: FlockOperation, times: u32) -> Option<File> {
        let dir = File::open(&self.dir).ok()?;
        for time in 1..=times {
            if flock(&dir, kind).is_ok() {
                return Some(dir);
            }
            if time < times {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        None
    }

    /// What all runs together have used.
    ///
    /// # Errors
    /// As for [`Self::all`].
    pub fn total(&mut self) -> std::io::Result<Used> {
        let all: Vec<Spent> = self.all()?.into_iter().map(|(_, spent)| spent).collect();
        Ok(sum(&all).0)
    }
}

/// What runs have used together, and when that was seen last.
fn sum(all: &[Spent]) -> (Used, u64) {
    let newest = all.iter().max_by_key(|spent| spent.at_ms);
    let used = Used {
        cpu_ms: all.iter().map(|spent| spent.cpu_ms).fold(0, u64::saturating_add),
        memory_bytes: all.iter().map(|spent| spent.memory_bytes).max().unwrap_or(0),
        processes: all.iter().map(|spent| spent.processes).max().unwrap_or(0),
        // All see the same directories; who looked last knows best.
        disk_bytes: newest.map_or(0, |spent| spent.disk_bytes),
    };
    (used, newest.map_or(0, |spent| spent.at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task's private directory, in the one of all tasks.
    fn home() -> Private {
        let all = tempfile::tempdir().unwrap();
        let private = all.path().join("homes/task");
        std::fs::create_dir_all(&private).unwrap();
        Private { private, _all: all }
    }

    struct Private {
        private: PathBuf,
        _all: tempfile::TempDir,
    }

    impl Private {
        fn path(&self) -> &Path {
            &self.private
        }
    }

    #[test]
    fn runs_of_a_task_are_added_up_and_the_base_is_measured_once() {
        let dir = home();
        let mut ledger = Ledger::of(dir.path());
        assert_eq!(ledger.total().unwrap(), Used::default());
        assert_eq!(ledger.base(|| 700).unwrap(), 700);
        assert_eq!(ledger.base(|| panic!("measured again")).unwrap(), 700);
        let spent =
            |cpu_ms, at_ms, ended| Spent { version: 1, cpu_ms, memory_bytes: 9, processes: 2, disk_bytes: at_ms * 10, at_ms, ended };
        ledger.note("1", &spent(5, 1, true)).unwrap();
        ledger.note("2", &spent(20, 9, false)).unwrap();
        ledger.note("3", &spent(1, 4, false)).unwrap();
        assert_eq!(ledger.total().unwrap(), Used { cpu_ms: 26, memory_bytes: 9, processes: 2, disk_bytes: 90 });
        ledger.note("2", &spent(30, 11, true)).unwrap();
        assert_eq!(ledger.total().unwrap(), Used { cpu_ms: 36, memory_bytes: 9, processes: 2, disk_bytes: 110 });
        // A file that a power cut emptied counts nothing and breaks nothing.
        std::fs::write(ledger.dir().join("3"), "").unwrap();
        assert_eq!(Ledger::of(dir.path()).total().unwrap().cpu_ms, 35);
    }

    #[test]
    fn modes_that_a_command_changed_reset_nothing() {
        let dir = home();
        let mut ledger = Ledger::of(dir.path());
        ledger.base(|| 700).unwrap();
        ledger.note("1", &Spent { version: 1, cpu_ms: 5, ..Spent::default() }).unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for (base, run, usage, private) in [(0, 0o600, 0o700, 0o700), (0o600, 0, 0o300, 0o700), (0, 0, 0, 0), (0o600, 0o200, 0o400, 0o600)]
        {
            set(&ledger.dir().join(BASE), base);
            set(&ledger.dir().join("1"), run);
            set(ledger.dir(), usage);
            set(dir.path(), private);
            set(dir.path().parent().unwrap(), private);
            let mut anew = Ledger::of(dir.path());
            assert_eq!(anew.total().unwrap().cpu_ms, 5, "{base:o} {run:o} {usage:o} {private:o}");
            assert_eq!(anew.base(|| panic!("measured again")).unwrap(), 700);
        }
        // What can not be read is no empty one.
        std::fs::remove_dir_all(dir.path().join(DIR)).unwrap();
        std::fs::write(dir.path().join(DIR), "").unwrap();
        assert!(ledger.total().is_err() && ledger.base(|| 0).is_err());
    }

    #[test]
    fn many_ended_runs_become_one_file_and_count_the_same() {
        let dir = home();
        let mut ledger = Ledger::of(dir.path());
        ledger.base(|| 0).unwrap();
        let spent = |n: u64, ended| Spent { version: 1, cpu_ms: n, memory_bytes: n % 7, processes: n % 5, disk_bytes: n, at_ms: n, ended };
        let mut cpu_ms = 0;
        for n in 1..=200_u64 {
            ledger.note(&format!("run-{n}"), &spent(n, !n.is_multiple_of(50))).unwrap();
            cpu_ms += n;
            ledger.fold().unwrap();
            let wanted = Used { cpu_ms, memory_bytes: (n.min(6)), processes: n.min(4), disk_bytes: n };
            assert_eq!(ledger.total().unwrap(), wanted, "run {n}, for one that saw all");
            assert_eq!(Ledger::of(dir.path()).total().unwrap(), wanted, "run {n}, for a newcomer");
            assert!(std::fs::read_dir(ledger.dir()).unwrap().count() <= LOOSE + 6, "run {n}");
        }
    }

    #[test]
    fn a_fold_that_was_cut_off_counts_nothing_twice() {
        let dir = home();
        let mut ledger = Ledger::of(dir.path());
        ledger.base(|| 0).unwrap();
        let spent = Spent { version: 1, cpu_ms: 10, ended: true, ..Spent::default() };
        let note = |ledger: &Ledger, runs: std::ops::Range<usize>| runs.for_each(|n| ledger.note(&format!("run-{n}"), &spent).unwrap());
        note(&ledger, 0..LOOSE);
        ledger.fold().unwrap();
        // As if it had been killed before it removed any of the files.
        note(&ledger, 0..LOOSE);
        assert_eq!(Ledger::of(dir.path()).total().unwrap().cpu_ms, 10 * LOOSE as u64);
        note(&ledger, LOOSE..2 * LOOSE);
        let mut next = Ledger::of(dir.path());
        next.fold().unwrap();
        assert_eq!(next.total().unwrap().cpu_ms, 20 * LOOSE as u64);
        assert_eq!(std::fs::read_dir(next.dir()).unwrap().count(), 2, "the sum and the base");
        // While somebody reads, nobody folds.
        note(&ledger, 2 * LOOSE..3 * LOOSE);
        let reader = next.turn(FlockOperation::NonBlockingLockShared, 1).unwrap();
        ledger.fold().unwrap();
        assert_eq!(std::fs::read_dir(next.dir()).unwrap().count(), 2 + LOOSE);
        drop(reader);
        ledger.fold().unwrap();
        assert_eq!(ledger.total().unwrap().cpu_ms, 30 * LOOSE as u64);
    }
}
