//! How many commands of a task run at once.
//!
//! Limits of memory and processes are per command, so the number of commands at once is limited, too. What may
//! live is remembered, because a long task has thousands of runs that ended. Invariant: a run that lives is counted,
//! also one that another daemon started.

use crate::run::{Run, Standing};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tinkerbell_core::words::{RunId, Seq, TaskId};

/// Commands of one task that run at once.
const MOST: usize = 8;

/// The runs of each task that may live.
#[derive(Debug, Default)]
pub struct Crowd {
    live: Mutex<HashMap<TaskId, BTreeSet<Seq>>>,
}

impl Crowd {
    /// Counts a command in, or says how many others run. Starts of one task come one by one. Blocks: reads a few
    /// small files of each run that may live, and, for a task that was not seen before, of all its runs.
    pub fn enter(&self, runs_dir: &Path, own: RunId) -> Result<(), usize> {
        let lives = |seq: Seq| {
            let id = RunId { task: own.task, seq };
            Run::new(runs_dir, id.to_string()).look().is_ok_and(|standing| standing == Standing::Running)
        };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let known = live.entry(own.task).or_insert_with(|| all(runs_dir, own.task));
        known.retain(|seq| *seq != own.seq && lives(*seq));
        let count = known.len();
        if count >= MOST {
            return Err(count);
        }
        known.insert(own.seq);
        Ok(())
    }

    /// Forgets a task that is removed.
    pub fn forget(&self, task: TaskId) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }
}

/// All commands of a task that left a directory.
fn all(runs_dir: &Path, task: TaskId) -> BTreeSet<Seq> {
    let names = std::fs::read_dir(runs_dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.parse::<RunId>().ok());
    ids.filter(|id| id.task == task && !id.is_service()).map(|id| id.seq).collect()
}
