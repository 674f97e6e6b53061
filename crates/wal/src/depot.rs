//! The depot: files that wait to become segments, made while nobody waits for them.
//!
//! *Spares* are whole segments, filled with zeros or freed by compaction, so that a sync in them
//! writes no metadata. The *reserve* is space that is taken before the disk is full. Both are made
//! in bounded pieces by a thread of their own, or by the steps of a simulation. Invariant: a file
//! in the depot holds nothing that anybody still needs, and what stands in it from an earlier use
//! carries another incarnation, so it is never read as a record.

use crate::disk::{Disk, DiskFile, Mode, write_full};
use crate::error::Error;
use crate::flush::lock;
use crate::old::Old;
use crate::options::Options;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::Clock;

/// Beginning of a spare's name.
pub(crate) const SPARE: &str = "spare-";
/// Name of the reserve.
pub(crate) const RESERVE: &str = "reserve";
const RESERVE_NEW: &str = "reserve.new";
/// Zeros that one piece of work writes.
const PIECE: usize = 1 << 20;
/// How long after a failure, or while the disk is full, the next try comes.
const RETRY_MS: u64 = 250;
/// How often a disk is asked again that has been too small for a reserve all the time.
const SELDOM_MS: u64 = 60_000;
/// A disk must have this many times the reserve free before one is taken.
pub(crate) const RESERVE_SHARE: u64 = 4;
/// Spares that are kept; more are given back to the disk.
const SPARES: usize = 2;

/// What is to be kept ready.
#[derive(Debug, Clone, Copy)]
struct Plan {
    segment_bytes: u64,
    preallocate: bool,
    reserve_bytes: u64,
}

/// A spare that is being filled.
struct Making {
    name: String,
    file: Box<dyn DiskFile>,
    filled: u64,
}

#[derive(Default)]
struct State {
    /// Names of whole spares.
    spares: Vec<String>,
    making: Option<Making>,
    /// Whether the next segment should stand ready.
    wanted: bool,
    /// Whether the reserve stands ready.
    reserve: bool,
    /// Whether the reserve was taken and has not come back.
    spent: bool,
    /// Whether the disk can not take space ahead.
    unsupported: bool,
    /// Nothing is tried before this moment.
    not_before_ms: u64,
    number: u64,
    ended: bool,
    /// Whether compaction has to wait for the next opening.
    held: bool,
}

/// The depot of one journal.
pub(crate) struct Depot {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    plan: Plan,
    state: Mutex<State>,
    wake: Condvar,
    /// Held while a piece of work is done.
    busy: Mutex<()>,
    /// What is scrubbed when nothing else is to do.
    old: Arc<Old>,
}

impl Depot {
    /// Looks at what an earlier opening left. Called under the directory's lock.
    pub(crate) fn open(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, options: &Options, old: Arc<Old>) -> Result<Self, Error> {
        let names = disk.list().map_err(|e| Error::io("read the directory", disk.path(), e))?;
        let preallocate = options.preallocate.unwrap_or_else(|| disk.ground().is_ok_and(|ground| ground.preallocate));
        let plan = Plan { segment_bytes: options.segment_bytes, preallocate, reserve_bytes: options.reserve_bytes };
        let number = names.iter().filter_map(|name| u64::from_str_radix(name.strip_prefix(SPARE)?, 16).ok()).max().unwrap_or(0);
        let mut state = State { number, ..State::default() };
        for name in names {
            if name == RESERVE {
                // A reserve of another size is made anew: the option was changed.
                state.reserve = plan.reserve_bytes > 0 && size(&**disk, &name).is_ok_and(|size| size == plan.reserve_bytes);
                if !state.reserve {
                    drop_file(&**disk, &name);
                }
            } else if name.starts_with(SPARE) && !name.ends_with(crate::survey::NEW_SUFFIX) {
                let fits = preallocate && state.spares.len() < SPARES && size(&**disk, &name).is_ok_and(|size| size >= plan.segment_bytes);
                if fits {
                    state.spares.push(name);
                } else {
                    drop_file(&**disk, &name);
                }
            }
        }
        Ok(Self {
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            plan,
            state: Mutex::new(state),
            wake: Condvar::new(),
            busy: Mutex::new(()),
            old,
        })
    }

    /// Whether segments are filled with zeros ahead of the records.
    pub(crate) const fn preallocates(&self) -> bool {
        self.plan.preallocate
    }

    /// Whether the disk is full and the reserve is in use.
    pub(crate) fn is_spent(&self) -> bool {
        lock(&self.state).spent
    }

    /// Asks for a spare to be made ready.
    pub(crate) fn want(&self) {
        let mut state = lock(&self.state);
        if self.plan.preallocate && !state.wanted && state.spares.is_empty() {
            state.wanted = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// A whole spare, which is the caller's from now on.
    pub(crate) fn take_spare(&self) -> Option<String> {
        lock(&self.state).spares.pop()
    }

    /// The reserve, which is the caller's from now on, with its size.
    pub(crate) fn take_reserve(&self) -> Option<(String, u64)> {
        let mut state = lock(&self.state);
        if !std::mem::take(&mut state.reserve) {
            return None;
        }
        state.spent = true;
        state.not_before_ms = self.clock.now().mono_ms.saturating_add(RETRY_MS);
        drop(state);
        self.wake.notify_one();
        Some((RESERVE.to_owned(), self.plan.reserve_bytes))
    }

    /// Keeps compaction from running before the next opening.
    pub(crate) fn hold_compaction(&self) {
        lock(&self.state).held = true;
    }

    /// Whether compaction has to wait for the next opening.
    pub(crate) fn holds_compaction(&self) -> bool {
        lock(&self.state).held
    }

    /// Takes a segment that nobody needs any more: it becomes a spare, or is removed. The change of
    /// names is durable when this returns.
    pub(crate) fn retire(&self, name: &str) -> Result<(), Error> {
        let disk = &*self.disk;
        let failed = |e| Error::io("free", disk.path().join(name), e);
        let keep = self.plan.preallocate && size(disk, name).is_ok_and(|size| size >= self.plan.segment_bytes);
        let mut state = lock(&self.state);
        if keep && state.spares.len() < SPARES {
            let spare = state.name();
            disk.rename(name, &spare).map_err(failed)?;
            state.spares.push(spare);
        } else {
            disk.remove(name).map_err(failed)?;
        }
        drop(state);
        disk.sync_dir().map_err(failed)
    }

    /// Works until told to end.
    pub(crate) fn run(&self) {
        loop {
            if self.work() {
                continue;
            }
            let state = lock(&self.state);
            if state.ended {
                return;
            }
            let now_ms = self.clock.now().mono_ms;
            let left = state.not_before_ms.saturating_sub(now_ms).clamp(RETRY_MS, SELDOM_MS);
            let left = self.lacks(&state).then_some(left).into_iter().chain(self.old.pause_ms(now_ms)).min();
            match left.map(|left| Duration::from_millis(left.max(1))) {
                Some(patience) => drop(self.wake.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner)),
                None => drop(self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }

    /// Ends [`Depot::run`]; when this returns, nothing in the directory is touched any more.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.wake.notify_one();
        drop(lock(&self.busy));
    }

    const fn wants_reserve(&self, state: &State) -> bool {
        self.plan.reserve_bytes > 0 && !state.reserve && !state.unsupported
    }

    fn lacks(&self, state: &State) -> bool {
        state.wanted || self.wants_reserve(state)
    }

    /// Does one bounded piece; tells whether there was one.
    pub(crate) fn work(&self) -> bool {
        self.prepare() || self.scrub()
    }

    /// Reads one old segment; that may take as long as reading 64 MiB does.
    fn scrub(&self) -> bool {
        let busy = lock(&self.busy);
        let scrubbed = !lock(&self.state).ended && self.old.scrub(self.clock.now().mono_ms);
        drop(busy);
        scrubbed
    }

    fn prepare(&self) -> bool {
        let now_ms = self.clock.now().mono_ms;
        let busy = lock(&self.busy);
        let mut state = lock(&self.state);
        if state.ended || now_ms < state.not_before_ms {
            return false;
        }
        let reserve = self.wants_reserve(&state);
        let making = state.making.take();
        let wanted = std::mem::take(&mut state.wanted) && state.spares.is_empty();
        let fresh = (wanted && making.is_none()).then(|| state.name());
        drop(state);
        // The disk is not asked while the lock is held: an append must never wait for it.
        let done = if let Some(making) = making {
            self.fill(making).map(|()| true)
        } else if let Some(name) = fresh {
            self.begin(name).map(|()| true)
        } else if reserve {
            self.rebuild()
        } else {
            return false;
        };
        drop(busy);
        done.unwrap_or_else(|error| {
            tracing::warn!(%error, "the journal could not prepare space; it tries again");
            lock(&self.state).not_before_ms = now_ms.saturating_add(RETRY_MS);
            false
        })
    }

    fn begin(&self, name: String) -> io::Result<()> {
        let new = format!("{name}{}", crate::survey::NEW_SUFFIX);
        let file = self.disk.open(&new, Mode::Create)?;
        match file.allocate(self.plan.segment_bytes) {
            Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                drop_file(&*self.disk, &new);
                return Err(e);
            }
            // The zeros that follow take the space as well.
            _ => {}
        }
        lock(&self.state).making = Some(Making { name, file, filled: 0 });
        Ok(())
    }

    fn fill(&self, mut making: Making) -> io::Result<()> {
        let left = self.plan.segment_bytes.saturating_sub(making.filled);
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let new = format!("{}{}", making.name, crate::survey::NEW_SUFFIX);
        if piece > 0 {
            write_full(&*making.file, making.filled, &vec![0; piece]).inspect_err(|_| drop_file(&*self.disk, &new))?;
            making.filled = making.filled.saturating_add(piece as u64);
            lock(&self.state).making = Some(making);
            return Ok(());
        }
        // Whatever failed, the file is given up: a spare is only ever what was synced whole.
        let done = making.file.sync().and_then(|()| self.disk.rename(&new, &making.name)).and_then(|()| self.disk.sync_dir());
        done.inspect_err(|_| drop_file(&*self.disk, &new))?;
        lock(&self.state).spares.push(making.name);
        Ok(())
    }

    /// Takes the reserve from a disk that has plenty; `false` on one that has not.
    fn rebuild(&self) -> io::Result<bool> {
        let size_bytes = self.plan.reserve_bytes;
        if self.disk.ground()?.free_bytes < size_bytes.saturating_mul(RESERVE_SHARE) {
            let mut state = lock(&self.state);
            let pause_ms = if state.spent { RETRY_MS } else { SELDOM_MS };
            state.not_before_ms = self.clock.now().mono_ms.saturating_add(pause_ms);
            return Ok(false);
        }
        let made = self.disk.open(RESERVE_NEW, Mode::Create).and_then(|file| {
            file.allocate(size_bytes)?;
            file.sync()?;
            self.disk.rename(RESERVE_NEW, RESERVE)?;
            self.disk.sync_dir()
        });
        let mut state = lock(&self.state);
        match made {
            Ok(()) => (state.reserve, state.spent) = (true, false),
            Err(e) => {
                drop_file(&*self.disk, RESERVE_NEW);
                if e.kind() != io::ErrorKind::Unsupported {
                    return Err(e);
                }
                state.unsupported = true;
            }
        }
        Ok(true)
    }
}

impl State {
    fn name(&mut self) -> String {
        self.number = self.number.saturating_add(1);
        format!("{SPARE}{:016x}", self.number)
    }
}

fn size(disk: &dyn Disk, name: &str) -> io::Result<u64> {
    disk.open(name, Mode::Read)?.size()
}

/// Nothing in the file is needed; when it can not be removed now, the next opening does it.
fn drop_file(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name) {
        tracing::debug!(%error, name, "a file of the depot stays for now");
    }
}
