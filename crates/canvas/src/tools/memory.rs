//! What each task has read, so that an edit of text the model never saw is refused.
//!
//! Lives in memory only and starts empty with the daemon. A task that was leased before this daemon
//! knew it may have read any file, so for such a task an unknown file counts as read: the match
//! ladder still demands that its text stands there exactly once, and refusing would make each
//! restart cost the model a read of every file. Invariant: a file that is known and differs is never
//! taken as read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::tool::ToolContext;
use tinkerbell_core::words::TaskId;

/// Tasks that are remembered at the same time.
const MAX_TASKS: usize = 256;
/// Bytes of text that are kept per task, to show what changed; beyond, only hashes are.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// What a task has read.
#[derive(Default)]
struct Known {
    /// Whether every read of the task was seen.
    complete: bool,
    text_bytes: usize,
    files: HashMap<String, Seen>,
}

struct Seen {
    hash: blake3::Hash,
    text: Option<Arc<[u8]>>,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<TaskId, Known>,
    forgot: bool,
}

/// The memory of all tasks.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

/// How a file stands to what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is what was read.
    Fresh,
    /// It may have been read before the daemon started.
    Unknown,
    /// It was never read.
    Unread,
    /// It changed since; the text that was read, where it was kept.
    Stale(Option<Arc<[u8]>>),
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the map whole: each change is one insertion.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the model knows these bytes, by reading or by writing them.
    pub fn saw(&self, ctx: &ToolContext, path: &str, bytes: &[u8]) {
        let mut inner = self.lock();
        let known = inner.task(ctx);
        let before = known.files.remove(path).and_then(|s| s.text).map_or(0, |t| t.len());
        known.text_bytes -= before;
        let keep = known.text_bytes + bytes.len() <= MAX_TEXT_BYTES;
        known.text_bytes += if keep { bytes.len() } else { 0 };
        known.files.insert(path.to_owned(), Seen { hash: blake3::hash(bytes), text: keep.then(|| bytes.into()) });
    }

    /// Forgets a file that is gone.
    pub fn lost(&self, ctx: &ToolContext, path: &str) {
        let mut inner = self.lock();
        let known = inner.task(ctx);
        known.text_bytes -= known.files.remove(path).and_then(|s| s.text).map_or(0, |t| t.len());
    }

    /// Compares a file with what was read of it.
    pub fn standing(&self, ctx: &ToolContext, path: &str, bytes: &[u8]) -> Standing {
        let mut inner = self.lock();
        let known = inner.task(ctx);
        match known.files.get(path) {
            Some(seen) if seen.hash == blake3::hash(bytes) => Standing::Fresh,
            Some(seen) => Standing::Stale(seen.text.clone()),
            None if known.complete => Standing::Unread,
            None => Standing::Unknown,
        }
    }
}

impl Inner {
    fn task(&mut self, ctx: &ToolContext) -> &mut Known {
        if self.tasks.len() >= MAX_TASKS && !self.tasks.contains_key(&ctx.task) {
            self.tasks.clear();
            self.forgot = true;
        }
        // The first lease of a task is held by the daemon that accepted it.
        let complete = ctx.fence.generation <= 1 && !self.forgot;
        self.tasks.entry(ctx.task).or_insert_with(|| Known { complete, ..Known::default() })
    }
}
