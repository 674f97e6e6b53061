//! Following a task's events over losses of the daemon.
//!
//! No rendering. Invariant: a lost daemon is started again at most once between two events, so
//! that one which dies at each start is not started for ever.

use super::{Desk, is_lost};
use tinkerbell_api::Client;
use tinkerbell_api::client::{Arrival, EventStream};
use tinkerbell_api::wire::{ApprovalRequested, Body, Envelope, Halt, ItemKind, ResultBody};
use tinkerbell_core::code::Fault;

/// A pause that ends by itself within this time is no reason to leave: twenty minutes, a little more
/// than the daemon lets pass between two tries of its own.
const SOON_MS: u64 = 20 * 60_000;

/// A task under watch.
pub struct Watch {
    desk: Desk,
    /// The daemon's client, for commands in between.
    pub client: Client,
    /// Whole id.
    pub task: String,
    stream: EventStream,
    live: bool,
    was_revived: bool,
    /// How the task stands, as its events told.
    pub standing: Standing,
}

/// How a task stands, folded from published events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// All that was recorded has been seen.
    pub is_caught_up: bool,
    /// The question that is open.
    pub asked: Option<ApprovalRequested>,
    /// Why it stands still.
    pub halted: Option<Halt>,
    /// How it ended.
    pub result: Option<ResultBody>,
}

impl Standing {
    /// Takes an event in.
    pub fn absorb(&mut self, envelope: &Envelope) {
        match &envelope.body {
            Body::ItemStarted(item) if item.kind != ItemKind::Operation => (self.halted, self.result) = (None, None),
            Body::ItemCompleted(item) if item.role.as_deref() == Some("user") => self.result = None,
            Body::ApprovalRequested(asked) => self.asked = Some(asked.clone()),
            Body::ApprovalResolved(resolved) => {
                self.asked.take_if(|asked| asked.id == resolved.id);
                self.halted.take_if(|halt| halt.why == "person");
            }
            Body::TaskPaused(halt) | Body::BudgetPaused(halt) => self.halted = Some(halt.clone()),
            Body::Result(result) => (self.halted, self.result) = (None, Some((**result).clone())),
            _ => {}
        }
    }

    /// How it ended, once nothing recorded follows.
    #[must_use]
    pub fn ended(&self) -> Option<&ResultBody> {
        self.result.as_ref().filter(|_| self.is_caught_up)
    }

    /// Why it stands still, once nothing recorded follows.
    #[must_use]
    pub fn halt(&self) -> Option<&Halt> {
        self.halted.as_ref().filter(|_| self.is_caught_up)
    }
}

/// What a watcher is given.
pub enum Glimpse {
    /// A published event.
    Event {
        /// Its JSON as sent.
        raw: String,
        /// The same, typed, if this release knows its type.
        envelope: Option<Box<Envelope>>,
    },
    /// All that was recorded has been seen.
    CaughtUp,
    /// The daemon was gone and is there again.
    Revived,
}

impl Watch {
    /// Begins after `after`.
    pub async fn open(desk: &Desk, client: Client, task: &str, live: bool) -> Result<Self, Fault> {
        let stream = client.events(Some(task), 0, live).await?;
        Ok(Self { desk: desk.clone(), client, task: task.to_owned(), stream, live, was_revived: false, standing: Standing::default() })
    }

    /// The next thing to see. Cancel safe.
    pub async fn next(&mut self) -> Result<Glimpse, Fault> {
        match self.stream.next().await {
            Ok(Arrival::Event { raw, envelope }) => {
                self.was_revived = false;
                if let Some(envelope) = &envelope {
                    self.standing.absorb(envelope);
                }
                Ok(Glimpse::Event { raw, envelope })
            }
            Ok(Arrival::CaughtUp(_)) => {
                self.standing.is_caught_up = true;
                Ok(Glimpse::CaughtUp)
            }
            Err(fault) if is_lost(&fault) && !self.was_revived => self.revive().await,
            Err(fault) => Err(fault),
        }
    }

    /// Why the task stands still now. The pause on record may be over already: going on is no
    /// event of its own, it shows with the next item only.
    pub async fn halt(&mut self) -> Result<Option<Halt>, Fault> {
        if self.standing.halt().is_none() {
            return Ok(None);
        }
        let Some(paused) = self.client.task(&self.task).await?.paused else {
            self.standing.halted = None;
            return Ok(None);
        };
        // What was told to begin later is waited for, and so is a provider that is soon asked again.
        let is_soon = match paused.why.as_str() {
            "later" => paused.wait_ms.is_some(),
            // A script hears of it instead, and decides itself whether to `wait`.
            "provider" => self.desk.out.can_ask() && paused.wait_ms.is_some_and(|wait_ms| wait_ms <= SOON_MS),
            _ => false,
        };
        Ok(self.standing.halt().filter(|_| !is_soon).cloned())
    }

    async fn revive(&mut self) -> Result<Glimpse, Fault> {
        self.was_revived = true;
        self.client = self.desk.again(&self.client).await?;
        // A new daemon knows none of our keys.
        self.client.environment(self.desk.house.surroundings().env).await?;
        self.stream = self.client.events(Some(&self.task), self.stream.last(), self.live).await?;
        self.standing.is_caught_up = false;
        Ok(Glimpse::Revived)
    }
}
