//! What commands may use, what they used, and how they ended.
//!
//! Plain numbers that ports carry; who enforces and counts them stands elsewhere. Invariant: of two
//! limits the tighter one holds.

use crate::code::Fault;
use crate::words::TaskId;
use futures_core::future::BoxFuture;

/// What a command may use, with everything that it starts; `None` where nothing limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory at once, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// CPU time in milliseconds that it and the commands of its task beside it may use from its start on.
    pub cpu_ms: Option<u64>,
    /// Bytes by which the task's worktree and private directories may have grown since its first command.
    pub disk_bytes: Option<u64>,
}

impl Limits {
    /// Of each limit the tighter one.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        let less = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            memory_bytes: less(self.memory_bytes, other.memory_bytes),
            processes: less(self.processes, other.processes),
            cpu_ms: less(self.cpu_ms, other.cpu_ms),
            disk_bytes: less(self.disk_bytes, other.disk_bytes),
        }
    }
}

/// What a command used with everything that it started, or what all commands of a task used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Most memory at once, in bytes, as far as it was seen.
    pub memory_bytes: u64,
    /// Most processes and threads at once, as far as they were seen.
    pub processes: u64,
    /// Bytes by which the task's worktree and private directories have grown since its first command.
    pub disk_bytes: u64,
}

/// What commands use, counted.
pub trait Meter: Send + Sync {
    /// What all commands of the task have used until now, those that still run included.
    fn used(&self, task: TaskId) -> BoxFuture<'_, Result<Used, Fault>>;
}

/// The end of a command, as its keeper wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal number, when a signal ended it.
    pub signal: Option<i32>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Bytes that it wrote to both streams.
    pub output_bytes: u64,
    /// Bytes that were not kept because the spool's cap was reached.
    pub dropped_bytes: u64,
    /// Why the keeper or the kernel ended it: `deadline`, `memory`, `processes`, `cpu`, `disk`,
    /// `cancelled`; empty otherwise.
    pub cause: String,
    /// The limit that it passed, with the numbers, in words.
    pub why: String,
    /// What it used.
    pub used: Used,
}

#[cfg(test)]
#[test]
fn the_tighter_limit_holds() {
    let a = Limits { memory_bytes: Some(5), processes: None, cpu_ms: Some(9), disk_bytes: None };
    let b = Limits { memory_bytes: Some(7), processes: Some(3), cpu_ms: Some(1), disk_bytes: None };
    let both = Limits { memory_bytes: Some(5), processes: Some(3), cpu_ms: Some(1), disk_bytes: None };
    assert_eq!((a.tighter(b), b.tighter(a), a.tighter(Limits::default())), (both, both, a));
}
