//! Simulated time: one queue of what is due, for sleepers of the daemon and for the world outside.
//!
//! Time moves only when nothing can run. Things due in the same millisecond come in an order that
//! the seed decides. Invariant: the monotonic clock never goes back within one boot; the wall clock
//! does what the plan says.

use crate::dice::{Dice, Topic};
use crate::life::Life;
use crate::plan::Verb;
use crate::{hold, millis};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::words::RunId;
use tinkerbell_testkit::fake::START_WALL_MS;

/// Something of the world outside that is due.
#[derive(Debug, Clone)]
pub enum Job {
    /// A client's act, by its number in the plan.
    Act(usize),
    /// A request that is made again: its daemon was not there, or died.
    Again(usize, Verb),
    /// A fault, by its number in the plan.
    Fault(usize),
    /// A fault is over.
    Heal(usize),
    /// The next stage of a keeper's life.
    Keeper(RunId, u32, u32),
    /// A person looks at what waits.
    Person,
    /// A watcher leaves and comes back.
    Watcher(usize),
    /// Somebody looks whether all is done.
    Look,
    /// The daemon is started again.
    Start,
}

/// What is due.
pub enum Due {
    /// A sleeper of the daemon.
    Wake(Arc<Sleeper>),
    /// The world.
    Do(Job),
}

/// Somebody who sleeps.
#[derive(Default)]
pub struct Sleeper {
    over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Sleeper {
    /// Ends the sleep.
    pub fn wake(&self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(waker) = hold(&self.waker).take() {
            waker.wake();
        }
    }
}

/// Milliseconds, a tie-break, and a number that makes it unique.
type Key = (u64, u64, u64);

struct State {
    now_ms: u64,
    boot_ms: u64,
    jump_ms: i64,
    queued: u64,
    due: BTreeMap<Key, Due>,
}

/// The time of one history.
pub struct Time {
    dice: Dice,
    state: Mutex<State>,
}

impl Time {
    /// Time at its beginning.
    pub const fn new(dice: Dice) -> Self {
        let state = State { now_ms: 0, boot_ms: 0, jump_ms: 0, queued: 0, due: BTreeMap::new() };
        Self { dice, state: Mutex::new(state) }
    }

    /// Milliseconds since the history began.
    pub fn now_ms(&self) -> u64 {
        hold(&self.state).now_ms
    }

    /// Both clocks, as a daemon reads them.
    pub fn stamp(&self) -> Stamp {
        let state = hold(&self.state);
        let wall_ms = (START_WALL_MS + state.now_ms).saturating_add_signed(state.jump_ms);
        Stamp { wall_ms, mono_ms: 1_000 + state.now_ms - state.boot_ms }
    }

    /// The wall clock jumps.
    pub fn jump(&self, by_ms: i64) {
        hold(&self.state).jump_ms += by_ms;
    }

    /// The machine starts anew: its monotonic clock begins again.
    pub fn boot(&self) {
        let mut state = hold(&self.state);
        state.boot_ms = state.now_ms;
    }

    fn queue(&self, in_ms: u64, due: Due) -> Key {
        let mut state = hold(&self.state);
        state.queued += 1;
        let n = state.queued;
        let key = (state.now_ms.saturating_add(in_ms), self.dice.roll(Topic::Order, &[n]), n);
        state.due.insert(key, due);
        key
    }

    /// Lets something happen after `in_ms`.
    pub fn plan(&self, in_ms: u64, job: Job) {
        self.queue(in_ms, Due::Do(job));
    }

    /// Moves time to what is due next.
    pub fn pop(&self) -> Option<Due> {
        let mut state = hold(&self.state);
        let (key, due) = state.due.pop_first()?;
        state.now_ms = state.now_ms.max(key.0);
        Some(due)
    }

    fn forget(&self, key: Key) {
        hold(&self.state).due.remove(&key);
    }
}

/// The clock as one daemon sees it.
pub struct SimClock {
    /// The world's time.
    pub time: Arc<Time>,
    /// The daemon.
    pub life: Arc<Life>,
}

impl Clock for SimClock {
    fn now(&self) -> Stamp {
        self.time.stamp()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let sleeper = Arc::new(Sleeper::default());
        self.life.touch();
        let key = self.time.queue(millis(duration), Due::Wake(sleeper.clone()));
        let bed = Bed { time: self.time.clone(), key, sleeper };
        Box::pin(async move {
            poll_fn(|context| {
                if bed.sleeper.over.load(Ordering::Relaxed) {
                    return Poll::Ready(());
                }
                *hold(&bed.sleeper.waker) = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        })
    }
}

/// Leaves the queue when nobody waits any more.
struct Bed {
    time: Arc<Time>,
    key: Key,
    sleeper: Arc<Sleeper>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.time.forget(self.key);
    }
}
