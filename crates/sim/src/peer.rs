//! The world outside the machine: peers that effects reach, the provider, the people's trees.
//!
//! It counts what really happened, whatever anybody recorded. Invariant: nothing here is undone by a
//! crash of ours.

use crate::dice::{Dice, Topic};
use crate::hold;
use crate::stats::{Count, Stats};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use tinkerbell_core::words::{Seq, TaskId};

/// What the network does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It never arrives.
    RequestLost,
    /// It arrives and the answer does not.
    ReplyLost,
    /// It arrives twice.
    Twice,
    /// All is well.
    Fine,
}

/// What a call at the provider gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// An answer that costs this much, in nano-dollars.
    Answer(u64),
    /// Refused for so many milliseconds; nothing was paid.
    Throttled(u64),
    /// Nothing was heard; it may have been paid.
    Silence,
}

#[derive(Default)]
struct State {
    down_until_ms: u64,
    throttled_until_ms: u64,
    tries: BTreeMap<(TaskId, Seq), u64>,
    done: BTreeMap<(TaskId, Seq), u32>,
    joined: BTreeMap<(TaskId, Seq), u64>,
    paid: BTreeMap<(TaskId, Seq), Vec<u64>>,
    trees: BTreeMap<TaskId, String>,
}

/// The world outside.
pub struct Peer {
    dice: Dice,
    stats: Arc<Mutex<Stats>>,
    state: Mutex<State>,
}

impl Peer {
    /// A world in which nothing has happened.
    pub fn new(dice: Dice, stats: Arc<Mutex<Stats>>) -> Self {
        Self { dice, stats, state: Mutex::default() }
    }

    fn count(&self, count: Count) {
        hold(&self.stats).one(count);
    }

    /// Messages are lost until then.
    pub fn net_down(&self, until_ms: u64) {
        hold(&self.state).down_until_ms = until_ms;
    }

    /// The provider refuses until then.
    pub fn throttle(&self, until_ms: u64) {
        hold(&self.state).throttled_until_ms = until_ms;
    }

    /// Draws what happens to the next message of this effect.
    fn delivery(&self, id: TaskId, name: (u64, Seq), now_ms: u64) -> Delivery {
        let mut state = hold(&self.state);
        let tries = state.tries.entry((id, name.1)).or_default();
        *tries += 1;
        let tries = *tries;
        if now_ms < state.down_until_ms {
            self.count(Count::RequestLost);
            return Delivery::RequestLost;
        }
        let (found, count) = match self.dice.roll(Topic::Net, &[name.0, u64::from(name.1), tries]) % 100 {
            0..=4 => (Delivery::RequestLost, Count::RequestLost),
            5..=11 => (Delivery::ReplyLost, Count::ReplyLost),
            12..=16 => (Delivery::Twice, Count::Duplicate),
            _ => return Delivery::Fine,
        };
        self.count(count);
        found
    }

    /// Sends a message under its key; gives the answer, if one came back.
    pub fn send(&self, id: TaskId, name: (u64, Seq), now_ms: u64) -> Option<u64> {
        let delivery = self.delivery(id, name, now_ms);
        if delivery == Delivery::RequestLost {
            return None;
        }
        let key = (id, name.1);
        let state = &mut *hold(&self.state);
        for _ in 0..if delivery == Delivery::Twice { 2 } else { 1 } {
            if let Entry::Vacant(free) = state.joined.entry(key) {
                free.insert(self.dice.roll(Topic::Act, &[name.0, u64::from(name.1)]));
                *state.done.entry(key).or_default() += 1;
            }
        }
        state.joined.get(&key).copied().filter(|_| delivery != Delivery::ReplyLost)
    }

    /// What the peer knows under a key.
    pub fn joined(&self, id: TaskId, seq: Seq) -> Option<u64> {
        hold(&self.state).joined.get(&(id, seq)).copied()
    }

    /// Asks the provider; what an answer costs depends on the effect alone.
    pub fn ask(&self, id: TaskId, name: (u64, Seq), hold_nano: u64, now_ms: u64) -> Served {
        self.count(Count::ModelCall);
        let until = hold(&self.state).throttled_until_ms;
        if now_ms < until {
            self.count(Count::Throttled);
            return Served::Throttled(until - now_ms);
        }
        let delivery = self.delivery(id, name, now_ms);
        if delivery == Delivery::RequestLost {
            return Served::Silence;
        }
        let cost = self.dice.between(1, hold_nano.max(1), Topic::Cost, &[name.0, u64::from(name.1)]);
        hold(&self.state).paid.entry((id, name.1)).or_default().push(cost);
        if delivery == Delivery::ReplyLost { Served::Silence } else { Served::Answer(cost) }
    }

    /// What was paid for an effect, call by call.
    pub fn paid(&self, id: TaskId, seq: Seq) -> Vec<u64> {
        hold(&self.state).paid.get(&(id, seq)).cloned().unwrap_or_default()
    }

    /// Does something that can be counted; gives how often it has happened now.
    pub fn deed(&self, id: TaskId, seq: Seq) -> u32 {
        let mut state = hold(&self.state);
        let done = state.done.entry((id, seq)).or_default();
        *done += 1;
        *done
    }

    /// How often something has happened.
    pub fn done(&self, id: TaskId, seq: Seq) -> u32 {
        hold(&self.state).done.get(&(id, seq)).copied().unwrap_or(0)
    }

    /// The tree of a task.
    pub fn tree(&self, id: TaskId) -> String {
        hold(&self.state).trees.get(&id).cloned().unwrap_or_else(|| checkpoint(0))
    }

    /// Brings the tree of a task somewhere.
    pub fn set_tree(&self, id: TaskId, tree: String) {
        hold(&self.state).trees.insert(id, tree);
    }
}

/// The checkpoint after an effect.
pub fn checkpoint(seq: u64) -> String {
    format!("{seq:040x}")
}
