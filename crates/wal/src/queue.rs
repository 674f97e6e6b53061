//! Records on their way to the disk: the batch that fills while another one is being written.
//!
//! Callers come in under a short lock that never waits for the disk; one flusher thread goes out.
//! Invariant: numbers are given under the lock in the order of the queue, a batch's trailer takes
//! the number behind its last record, and one append is never split.

use crate::error::Error;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tokio::sync::oneshot;

/// How often the flusher gives the processor away for nothing before it stops gathering.
const PATIENCE: u32 = 8;

/// Tells one caller how its append ended.
pub(crate) type Owner = oneshot::Sender<Result<(), Fault>>;

/// Limits of a batch and of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) queue_bytes: usize,
}

/// The records of one append, encoded without numbers.
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: usize,
    pub(crate) owner: Owner,
}

/// Appends that become durable with one sync.
#[derive(Default)]
pub(crate) struct Batch {
    /// The number of the first record.
    pub(crate) first: u64,
    pub(crate) records: usize,
    /// Their frames, encoded without numbers.
    pub(crate) body: Vec<u8>,
    /// Bytes that were accepted, which `body` has no more once it was written.
    bytes: usize,
    owners: Vec<Owner>,
}

/// What the flusher does next.
pub(crate) enum Work {
    /// Write this and sync.
    Write(Batch),
    /// Everything is written; leave the mark of a clean shutdown if told so, and end.
    End { mark: bool },
}

enum Phase {
    Open,
    Closing { mark: bool },
    Closed,
    Poisoned(String),
}

struct State {
    next: u64,
    open: Batch,
    sealed: VecDeque<Batch>,
    /// Bytes that were accepted and are neither durable nor failed.
    waiting: usize,
    phase: Phase,
    closers: Vec<Owner>,
    /// Whether the flusher waits to be woken: a wake-up is a system call, and one an append would
    /// cost more than the append.
    sleeps: bool,
    /// The buffers of a batch that is done, for the next one.
    spare: Option<(Vec<u8>, Vec<Owner>)>,
}

/// The queue.
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    pub(crate) const fn new(next: u64, limits: Limits) -> Self {
        let open = Batch { first: next, records: 0, body: Vec::new(), bytes: 0, owners: Vec::new() };
        let state =
            State { next, open, sealed: VecDeque::new(), waiting: 0, phase: Phase::Open, closers: Vec::new(), sleeps: false, spare: None };
        Self { limits, state: Mutex::new(state), wake: Condvar::new() }
    }

    /// A panic while the lock is held can not leave half an append behind, because nothing in
    /// there can fail; so a poisoned mutex is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers an append and queues it; gives the first number.
    pub(crate) fn push(&self, chunk: Chunk) -> Result<u64, Error> {
        let mut state = self.lock();
        state.accepts()?;
        let queued = state.waiting.saturating_add(chunk.bytes.len());
        if queued > self.limits.queue_bytes && state.waiting > 0 {
            return Err(Error::QueueFull { queued: state.waiting, limit: self.limits.queue_bytes });
        }
        let full = state.open.bytes + chunk.bytes.len() > self.limits.batch_bytes
            || state.open.records + chunk.records > self.limits.batch_records;
        if full {
            state.seal();
        }
        let first = state.next;
        state.next += chunk.records as u64;
        state.waiting = queued;
        state.open.records += chunk.records;
        state.open.bytes += chunk.bytes.len();
        state.open.body.extend_from_slice(&chunk.bytes);
        state.open.owners.push(chunk.owner);
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.wake.notify_one();
        }
        Ok(first)
    }

    /// The last number that was given, and whether the queue still accepts.
    pub(crate) fn newest(&self) -> Result<u64, Error> {
        let state = self.lock();
        state.accepts()?;
        Ok(state.next.saturating_sub(1))
    }

    /// Waits for work, at most `patience` when that is given. No timer gathers a batch: it is taken
    /// as soon as the flusher is free, so it holds whatever came in during the sync before.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let work = state.work();
            if work.is_some() {
                return work;
            }
            state.sleeps = true;
            state = match patience {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (mut state, _) = self.wake.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    state.sleeps = false;
                    return state.work();
                }
            };
        }
    }

    /// Lets those who were just woken come back with their next records before the next sync begins:
    /// `count` of them at most. It gives the processor away and goes on as soon as nobody comes, so
    /// it waits for no clock. Without it half of them miss the sync and wait for the one after.
    pub(crate) fn gather(&self, count: usize) {
        let (mut before, mut idle) = (0, 0);
        while idle < PATIENCE {
            std::thread::yield_now();
            let state = self.lock();
            let here = state.open.owners.len();
            if here >= count || !state.sealed.is_empty() || !matches!(state.phase, Phase::Open) {
                return;
            }
            idle = if here > before { 0 } else { idle + 1 };
            before = here;
        }
    }

    /// The work that is there.
    pub(crate) fn try_take(&self) -> Option<Work> {
        self.lock().work()
    }

    /// Wakes the owners of a batch that is durable; gives their number.
    pub(crate) fn done(&self, mut batch: Batch) -> usize {
        let count = batch.owners.len();
        let mut state = self.lock();
        state.waiting = state.waiting.saturating_sub(batch.bytes);
        drop(state);
        answer(batch.owners.drain(..), &Ok(()));
        batch.body.clear();
        self.lock().spare = Some((batch.body, batch.owners));
        count
    }

    /// Fails a batch of which nothing stayed on disk, and everything behind it; then goes on with
    /// its number.
    pub(crate) fn give_back(&self, batch: Batch, error: Error) {
        let mut state = self.lock();
        let owners = state.drain(batch);
        state.next = owners.first;
        state.open.first = owners.first;
        drop(state);
        answer(owners.list, &Err(error.into()));
    }

    /// Fails everything, now and for ever.
    pub(crate) fn poison(&self, batch: Batch, why: &str) {
        let mut state = self.lock();
        let mut owners = state.drain(batch);
        owners.list.append(&mut state.closers);
        state.phase = Phase::Poisoned(why.to_owned());
        drop(state);
        answer(owners.list, &Err(Error::Poisoned { why: why.to_owned() }.into()));
    }

    /// Asks for the end; `closer` hears when it is reached.
    pub(crate) fn close(&self, mark: bool, closer: Option<Owner>) {
        let mut state = self.lock();
        let answered = match &state.phase {
            Phase::Open => {
                state.phase = Phase::Closing { mark };
                None
            }
            Phase::Closing { .. } => None,
            Phase::Closed => Some(Ok(())),
            Phase::Poisoned(why) => Some(Err(Error::Poisoned { why: why.clone() }.into())),
        };
        match (answered, closer) {
            (Some(result), Some(closer)) => answer([closer], &result),
            (None, Some(closer)) => state.closers.push(closer),
            (_, None) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The flusher has ended.
    pub(crate) fn closed(&self, result: Result<(), Error>) {
        let mut state = self.lock();
        match &result {
            Err(error) => state.phase = Phase::Poisoned(error.to_string()),
            Ok(()) if matches!(state.phase, Phase::Poisoned(_)) => {}
            Ok(()) => state.phase = Phase::Closed,
        }
        let closers = std::mem::take(&mut state.closers);
        drop(state);
        answer(closers, &result.map_err(Fault::from));
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        matches!(self.lock().phase, Phase::Poisoned(_))
    }

    /// The number for the mark of a clean shutdown, when nothing is queued any more.
    pub(crate) fn mark_number(&self) -> u64 {
        self.lock().next
    }
}

struct Owners {
    first: u64,
    list: Vec<Owner>,
}

impl State {
    fn accepts(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing { .. } | Phase::Closed => Err(Error::Closed),
            Phase::Poisoned(why) => Err(Error::Poisoned { why: why.clone() }),
        }
    }

    /// What the flusher does next, if there is anything.
    fn work(&mut self) -> Option<Work> {
        if self.sealed.is_empty() && !self.open.owners.is_empty() {
            self.seal();
        }
        if let Some(batch) = self.sealed.pop_front() {
            return Some(Work::Write(batch));
        }
        match self.phase {
            Phase::Open => None,
            Phase::Closing { mark } => Some(Work::End { mark }),
            Phase::Closed | Phase::Poisoned(_) => Some(Work::End { mark: false }),
        }
    }

    /// Ends the open batch; the trailer's number is taken here, under the lock, so that the next
    /// record can have its own without waiting for the flusher.
    fn seal(&mut self) {
        self.next += 1;
        let (body, owners) = self.spare.take().unwrap_or_default();
        let fresh = Batch { first: self.next, body, owners, ..Batch::default() };
        let full = std::mem::replace(&mut self.open, fresh);
        self.sealed.push_back(full);
    }

    /// Empties the queue.
    fn drain(&mut self, batch: Batch) -> Owners {
        let first = batch.first;
        let open = std::mem::take(&mut self.open);
        let rest = std::mem::take(&mut self.sealed);
        self.waiting = 0;
        let list = std::iter::once(batch).chain(rest).chain([open]).flat_map(|b| b.owners).collect();
        Owners { first, list }
    }
}

/// Wakes exactly these callers.
fn answer(owners: impl IntoIterator<Item = Owner>, result: &Result<(), Fault>) {
    for owner in owners {
        // An owner that stopped listening has lost interest, not its records.
        drop(owner.send(result.clone()));
    }
}
