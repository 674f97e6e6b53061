//! Bugs on purpose, to prove that the oracle has teeth.
//!
//! They live in the wrappers of the simulator: product code has no switch for any of them.
//! Invariant: without a name on the command line there is none.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// One sync in eight says that it has synced and has not: records are acknowledged before they
    /// are durable.
    EarlyAck,
    /// The sandbox ignores the latch and takes a running command for one that never ran.
    DoubleStart,
    /// Each start begins with cutting the last durable batch off the journal.
    DroppedTail,
    /// Each twentieth observation is recorded twice.
    DoubleDelivery,
    /// Each twentieth timer is recorded as fired twice.
    DoubleTimer,
    /// An act runs before the intent is durable.
    EarlyAct,
}

/// All of them, by name.
pub const ALL: &[(&str, Plant)] = &[
    ("early-ack", Plant::EarlyAck),
    ("double-start", Plant::DoubleStart),
    ("dropped-tail", Plant::DroppedTail),
    ("double-delivery", Plant::DoubleDelivery),
    ("double-timer", Plant::DoubleTimer),
    ("early-act", Plant::EarlyAct),
];

impl Plant {
    /// The bug of this name.
    pub fn parse(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, plant)| *plant)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, plant)| *plant == self).map_or("", |(name, _)| *name)
    }
}
