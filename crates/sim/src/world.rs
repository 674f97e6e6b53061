//! Everything that outlives a daemon, in one place.
//!
//! Invariant: nothing in here is dropped or reset when a daemon dies.

use crate::blobs::Blobs;
use crate::client::People;
use crate::dice::{Dice, Topic};
use crate::disk::SimDisk;
use crate::hold;
use crate::host::{Host, Order};
use crate::oracle::Oracle;
use crate::peer::Peer;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::stats::{Count, Stats};
use crate::time::Time;
use std::sync::{Arc, Mutex};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::words::Seq;

/// One history's world.
pub struct World {
    /// What is going to happen.
    pub plan: Plan,
    /// The bug that is planted, if any.
    pub plant: Option<Plant>,
    /// Luck.
    pub dice: Dice,
    /// Time.
    pub time: Arc<Time>,
    /// The journal's disk.
    pub disk: Arc<SimDisk>,
    /// Processes.
    pub host: Arc<Host>,
    /// What lies outside.
    pub peer: Peer,
    /// Stored bytes.
    pub blobs: Blobs,
    /// Clients, watchers, a person.
    pub people: People,
    /// What must hold.
    pub oracle: Oracle,
    /// What happened.
    pub stats: Arc<Mutex<Stats>>,
}

impl World {
    /// A world at its beginning.
    pub fn new(plan: Plan, plant: Option<Plant>, verbose: bool) -> Arc<Self> {
        let dice = Dice::new(plan.seed);
        let stats: Arc<Mutex<Stats>> = Arc::default();
        let time = Arc::new(Time::new(dice));
        Arc::new(Self {
            people: People::new(&plan),
            plan,
            plant,
            dice,
            disk: Arc::new(SimDisk::new(dice, stats.clone())),
            host: Arc::new(Host::new(dice, time.clone(), stats.clone())),
            peer: Peer::new(dice, stats.clone()),
            blobs: Blobs::default(),
            oracle: Oracle::new(verbose),
            time,
            stats,
        })
    }

    /// Counts one.
    pub fn count(&self, count: Count) {
        hold(&self.stats).one(count);
    }

    /// Whether the machine died at least once.
    pub fn cut(&self) -> bool {
        hold(&self.stats).of(Count::PowerCut) > 0
    }

    /// Whether the disk failed to read at least once.
    pub fn read_failed(&self) -> bool {
        hold(&self.stats).of(Count::ReadFailed) > 0
    }

    /// Keeps a line of history.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.oracle.note(self.time.now_ms(), line);
    }

    /// A task's name in the plan.
    pub fn name_of(&self, task: &Task) -> u64 {
        task.submitted.goal.strip_prefix("task ").and_then(|name| name.parse().ok()).unwrap_or(u64::MAX)
    }

    /// What a command of the plan does.
    pub fn order(&self, name: (u64, Seq), ms: u64, lines: u64) -> Order {
        let code = i32::try_from(self.dice.between(0, 3, Topic::Act, &[name.0, name.1.into(), 99])).unwrap_or(0);
        Order { name: (name.0, name.1.into()), ms, lines, code }
    }
}
