//! Lists of tasks, page by page: an engine may hold a million of them.
//!
//! Newest activity first, so that what people look for stands on the first page. Invariant: pages
//! that follow each other show no task twice while nothing happens in between.

use crate::lifecycle::Task;
use crate::words::Lsn;

/// Which tasks to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListQuery {
    /// Only those that have not ended.
    pub open: bool,
    /// Only those that wait for a person's answer.
    pub waiting: bool,
    /// At most so many.
    pub limit: usize,
    /// Only those whose place is before this one; see [`Listing::before`].
    pub before: Option<Lsn>,
}

impl Default for ListQuery {
    /// The newest hundred of all.
    fn default() -> Self {
        Self { open: false, waiting: false, limit: 100, before: None }
    }
}

/// A task, and how much of its id names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The task. In lists it may hold only its newest operations; see `OpLog::below`.
    pub task: Task,
    /// Digits of its id that no other task's id begins with.
    pub digits: usize,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// The tasks, newest activity first.
    pub tasks: Vec<Listed>,
    /// Where the next page begins; `None` when this is the last.
    pub before: Option<Lsn>,
    /// Tasks that are not removed.
    pub total: u64,
    /// Of those, tasks that have not ended.
    pub open: u64,
}
