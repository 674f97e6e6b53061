//! What the commands of a task have used, one small file per run in the task's private directory.
//!
//! Each keeper writes its own figures and reads those of its neighbours, so that several commands
//! share what the task has left, also while no daemon runs. The figures outlive the keeper.
//! Invariant: a run's figure never shrinks while its file stands, so a total is never too small.

use crate::format::{Spent, VERSION};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tinkerbell_core::port::Used;

/// Name of the directory in a task's private one.
const DIR: &str = "usage";
/// Name of the file that holds what the directories took before the task's first command.
const BASE: &str = "base";

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
        let path = self.dir.join(BASE);
        if let Some(base) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(base);
        }
        crate::host::make_dir(&self.dir).map_err(std::io::Error::other)?;
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
        // Two commands of a task may begin at once, each with a process or thread of its own.
        let new = self.dir.join(format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        std::fs::write(&new, bytes)?;
        std::fs::rename(new, self.dir.join(name))
    }

    /// Figures of all runs by name.
    pub fn all(&mut self) -> Vec<(String, Spent)> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let mut all = Vec::new();
        for name in names.into_iter().filter(|name| name != BASE && !name.starts_with('.')) {
            if let Some(spent) = self.ended.get(&name) {
                all.push((name, *spent));
                continue;
            }
            let bytes = std::fs::read(self.dir.join(&name)).unwrap_or_default();
            let Ok(spent) = serde_json::from_slice::<Spent>(&bytes) else { continue };
            if spent.ended && spent.version <= VERSION {
                self.ended.insert(name.clone(), spent);
            }
            all.push((name, spent));
        }
        all
    }

    /// What all runs together have used.
    pub fn total(&mut self) -> Used {
        let all = self.all();
        let newest = all.iter().max_by_key(|(_, spent)| spent.at_ms);
        Used {
            cpu_ms: all.iter().map(|(_, spent)| spent.cpu_ms).fold(0, u64::saturating_add),
            memory_bytes: all.iter().map(|(_, spent)| spent.memory_bytes).max().unwrap_or(0),
            processes: all.iter().map(|(_, spent)| spent.processes).max().unwrap_or(0),
            // All see the same directories; who looked last knows best.
            disk_bytes: newest.map_or(0, |(_, spent)| spent.disk_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_task_are_added_up_and_the_base_is_measured_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::of(dir.path());
        assert_eq!(ledger.total(), Used::default());
        assert_eq!(ledger.base(|| 700).unwrap(), 700);
        assert_eq!(ledger.base(|| panic!("measured again")).unwrap(), 700);
        let spent =
            |cpu_ms, at_ms, ended| Spent { version: 1, cpu_ms, memory_bytes: 9, processes: 2, disk_bytes: at_ms * 10, at_ms, ended };
        ledger.note("1", &spent(5, 1, true)).unwrap();
        ledger.note("2", &spent(20, 9, false)).unwrap();
        ledger.note("3", &spent(1, 4, false)).unwrap();
        assert_eq!(ledger.total(), Used { cpu_ms: 26, memory_bytes: 9, processes: 2, disk_bytes: 90 });
        ledger.note("2", &spent(30, 11, true)).unwrap();
        assert_eq!(ledger.total(), Used { cpu_ms: 36, memory_bytes: 9, processes: 2, disk_bytes: 110 });
        // A file that a power cut emptied counts nothing and breaks nothing.
        std::fs::write(ledger.dir().join("3"), "").unwrap();
        assert_eq!(Ledger::of(dir.path()).total().cpu_ms, 35);
    }
}
