//! Old segments: what opening did not read because a checkpoint stands for it.
//!
//! They are read whole when a reader first needs one of their records, and else by a scrub that runs
//! behind the daemon's start. Invariant: nothing of such a segment is shown before all of it was
//! checked as an opening without a checkpoint checks it; a damaged one is named at every read, and
//! nothing is compacted or archived before all are found whole.

use crate::compact::scan::Vouching;
use crate::disk::Disk;
use crate::error::Error;
use crate::flush::lock;
use crate::index::{Extent, Index};
use crate::survey::{Unread, reread};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How long after the opening the scrub begins: the first moments belong to the tasks that go on.
const SCRUB_AFTER_MS: u64 = 1_000;
/// There is nothing to scrub.
const NEVER: u64 = u64::MAX;

/// One that was not read.
struct Waiting {
    unread: Unread,
    /// Whether the scrub has read it and found it damaged.
    tried: bool,
}

struct State {
    /// By name, which is their order.
    waiting: BTreeMap<String, Waiting>,
    vouching: Vouching,
}

/// The old segments of one journal.
pub(crate) struct Old {
    disk: Arc<dyn Disk>,
    index: Arc<Mutex<Index>>,
    /// Held while a segment is read, so that each is read once.
    state: Mutex<State>,
    /// The first damage that was found.
    damage: Mutex<Option<String>>,
    /// When the next piece of the scrub is due, in monotonic milliseconds.
    due_ms: AtomicU64,
}

impl Old {
    pub(crate) fn new(disk: &Arc<dyn Disk>, index: &Arc<Mutex<Index>>, unread: Vec<Unread>, vouching: Vouching, now_ms: u64) -> Self {
        let due_ms = if unread.is_empty() { NEVER } else { now_ms.saturating_add(SCRUB_AFTER_MS) };
        let waiting = unread.into_iter().map(|unread| (unread.name.clone(), Waiting { unread, tried: false })).collect();
        Self {
            disk: Arc::clone(disk),
            index: Arc::clone(index),
            state: Mutex::new(State { waiting, vouching }),
            damage: Mutex::new(None),
            due_ms: AtomicU64::new(due_ms),
        }
    }

    /// The stretch that holds `lsn`, as [`Index::find`]; reads its segment first if nobody has.
    pub(crate) fn find(&self, lsn: u64) -> Result<Option<(Extent, String)>, Error> {
        let found = lock(&self.index).find(lsn);
        let Some((_, name)) = found.as_ref().filter(|(extent, _)| extent.unread) else { return Ok(found) };
        self.fill(&mut lock(&self.state), name)?;
        Ok(lock(&self.index).find(lsn))
    }

    /// Reads everything that nobody has read; `goes_on` is asked before each segment.
    ///
    /// # Errors
    /// The first damage, or what `goes_on` says.
    pub(crate) fn all(&self, goes_on: &dyn Fn() -> Result<(), Error>) -> Result<(), Error> {
        let mut state = lock(&self.state);
        while let Some(name) = state.waiting.keys().next().cloned() {
            goes_on()?;
            self.fill(&mut state, &name)?;
        }
        state.vouching.damage().map_or(Ok(()), |damage| Err(self.note(damage)))
    }

    /// Reads the next segment that nobody has read, once that is due; tells whether there was one.
    pub(crate) fn scrub(&self, now_ms: u64) -> bool {
        if now_ms < self.due_ms.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = lock(&self.state);
        let next = state.waiting.iter().find(|(_, waiting)| !waiting.tried).map(|(name, _)| name.clone());
        let Some(name) = next else {
            self.due_ms.store(NEVER, Ordering::Relaxed);
            match state.vouching.damage() {
                Some(damage) => drop(self.note(damage)),
                None if state.waiting.is_empty() => tracing::info!("the journal's old segments are whole"),
                None => {}
            }
            return true;
        };
        // What it found is noted; every later read of the segment tells it again.
        if let Err(error) = self.fill(&mut state, &name) {
            tracing::debug!(%error, name, "the scrub goes on behind a damaged segment");
            if let Some(waiting) = state.waiting.get_mut(&name) {
                waiting.tried = true;
            }
        }
        true
    }

    /// How long until the scrub has something to do; `None` when it is done.
    pub(crate) fn pause_ms(&self, now_ms: u64) -> Option<u64> {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        (due_ms != NEVER).then(|| due_ms.saturating_sub(now_ms))
    }

    /// The first damage that was found.
    pub(crate) fn damage(&self) -> Option<String> {
        lock(&self.damage).clone()
    }

    /// Reads one; nothing when somebody else did meanwhile.
    fn fill(&self, state: &mut State, name: &str) -> Result<(), Error> {
        let Some(waiting) = state.waiting.get(name) else { return Ok(()) };
        let read = reread(&*self.disk, &waiting.unread, &mut state.vouching);
        let part = read.map_err(|error| self.note(error))?;
        lock(&self.index).fill(name, part);
        state.waiting.remove(name);
        Ok(())
    }

    /// Tells of damage as loudly as a log can, once.
    fn note(&self, error: Error) -> Error {
        let mut damage = lock(&self.damage);
        if damage.is_none() {
            tracing::error!(
                %error,
                "an old segment of the journal is damaged; tasks go on from the checkpoint, nothing is compacted; \
                 stop the daemon and run `tinkerbell wal repair --from BACKUP`"
            );
            *damage = Some(error.to_string());
        }
        drop(damage);
        error
    }
}
