//! The operation log of a task: what can be undone, redone, restored.
//!
//! Undo is itself an operation, so nothing is ever lost. Invariant: an operation's number never
//! changes, and each number is in at most one of the stacks `done` and `undone`.

use crate::event::{FileChange, Op, OpDone};
use crate::words::Lsn;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OpEntry {
    /// Its number within the task, from 1.
    pub number: u32,
    /// Where it stands in the journal.
    pub lsn: Lsn,
    /// When, wall time in milliseconds.
    pub at_ms: u64,
    /// What.
    pub done: OpDone,
}

impl OpEntry {
    /// What it changed.
    #[must_use]
    pub fn files(&self) -> &[FileChange] {
        &self.done.files
    }
}

/// All operations of a task, and which of them are in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OpLog {
    /// Older operations that are not held here; see [`OpLog::below`].
    below: u32,
    entries: Vec<OpEntry>,
    done: Vec<u32>,
    undone: Vec<u32>,
}

/// What an undo, redo or restore has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpMove {
    /// Do these operations in order.
    Do(Vec<Op>),
    /// There is nothing to do; the text says why.
    Nothing(String),
}

impl OpLog {
    /// A log of which the oldest `below` operations stand in their records only.
    #[must_use]
    pub const fn from_parts(below: u32, entries: Vec<OpEntry>, done: Vec<u32>, undone: Vec<u32>) -> Self {
        Self { below, entries, done, undone }
    }

    /// How many of the oldest operations are not held; they can be read from their records.
    #[must_use]
    pub const fn below(&self) -> u32 {
        self.below
    }

    /// Number of operations, those that are not held included.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.below.saturating_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    /// Numbers in force, and numbers that were taken back.
    #[must_use]
    pub fn stacks(&self) -> (&[u32], &[u32]) {
        (&self.done, &self.undone)
    }

    /// Puts operations that were not held in their places; oldest first, ending at `below`.
    pub fn complete(&mut self, older: Vec<OpEntry>) {
        let fits = older.last().is_some_and(|last| last.number == self.below);
        if let Some(first) = older.first().filter(|_| fits).map(|first| first.number) {
            self.below = first.saturating_sub(1);
            self.entries.splice(0..0, older);
        }
    }

    /// The operations that are held, oldest first: all of them, unless [`Self::below`] is not 0.
    #[must_use]
    pub fn entries(&self) -> &[OpEntry] {
        &self.entries
    }

    /// The operation with this number.
    #[must_use]
    pub fn entry(&self, number: u32) -> Option<&OpEntry> {
        let index = usize::try_from(number.checked_sub(self.below)?).ok()?.checked_sub(1)?;
        self.entries.get(index)
    }

    /// Whether the operation with this number is in force.
    #[must_use]
    pub fn in_force(&self, number: u32) -> bool {
        self.done.contains(&number)
    }

    /// The checkpoint that the newest operation left; `None` before the first.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.entries.iter().rev().map(|entry| entry.done.after.as_str()).find(|after| !after.is_empty())
    }

    pub(super) fn push(&mut self, lsn: Lsn, at_ms: u64, done: &OpDone) {
        let number = self.count().saturating_add(1);
        match done.kind.as_str() {
            "undo" | "unland" => {
                self.done.retain(|n| !done.ops.contains(n));
                self.undone.extend(done.ops.iter().copied());
            }
            "redo" => {
                self.undone.retain(|n| !done.ops.contains(n));
                self.done.extend(done.ops.iter().copied());
            }
            _ => {
                self.done.push(number);
                self.undone.clear();
            }
        }
        self.entries.push(OpEntry { number, lsn, at_ms, done: done.clone() });
    }

    /// Takes back the newest operation in force, or all of them down to `base`.
    #[must_use]
    pub fn undo(&self, all: bool, base: &str) -> OpMove {
        let Some(last) = self.done.last().and_then(|n| self.entry(*n)) else {
            return OpMove::Nothing("nothing to undo: no operation is in force".to_owned());
        };
        if !all {
            return OpMove::Do(vec![take_back(last)]);
        }
        let in_force: Vec<&OpEntry> = self.done.iter().filter_map(|n| self.entry(*n)).collect();
        let mut moves: Vec<Op> = in_force.iter().rev().filter(|e| e.done.kind == "land").map(|e| take_back(e)).collect();
        // Newest first, so that redo brings them back oldest first, each to its own result.
        let numbers: Vec<u32> = in_force.iter().rev().filter(|e| e.done.kind != "land").map(|e| e.number).collect();
        if !numbers.is_empty() {
            moves.push(Op { kind: "undo".to_owned(), target: base.to_owned(), ops: numbers, ..Op::default() });
        }
        OpMove::Do(moves)
    }

    /// Brings back what the newest undo took.
    #[must_use]
    pub fn redo(&self) -> OpMove {
        let Some(last) = self.undone.last().and_then(|n| self.entry(*n)) else {
            return OpMove::Nothing("nothing to redo: no operation was undone".to_owned());
        };
        if last.done.kind == "land" {
            return OpMove::Nothing("the landing was taken back; `tinkerbell land` brings it again".to_owned());
        }
        OpMove::Do(vec![Op { kind: "redo".to_owned(), target: last.done.after.clone(), ops: vec![last.number], ..Op::default() }])
    }

    /// Brings the tree to what it was after operation `number`; 0 is the base.
    #[must_use]
    pub fn restore(&self, number: u32, base: &str) -> OpMove {
        let target = if number == 0 { Some(base) } else { self.entry(number).map(|entry| entry.done.after.as_str()) };
        match target {
            None => OpMove::Nothing(format!("there is no operation {number}; `tinkerbell op log` lists them")),
            Some(target) => {
                OpMove::Do(vec![Op { kind: "restore".to_owned(), target: target.to_owned(), ops: vec![number], ..Op::default() }])
            }
        }
    }
}

fn take_back(entry: &OpEntry) -> Op {
    let kind = if entry.done.kind == "land" { "unland" } else { "undo" };
    Op {
        kind: kind.to_owned(),
        target: entry.done.before.clone(),
        ops: vec![entry.number],
        landed: if kind == "unland" { entry.done.commit.clone() } else { String::new() },
        ..Op::default()
    }
}
