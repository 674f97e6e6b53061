//! Counts of what really happened, so that a run proves that it did something.
//!
//! A planned fault counts when it struck, not when it was planned. Invariant: a long run in which a
//! kind of fault never struck is a failed run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    Kill,
    PowerCut,
    DeathInRecovery,
    KeeperKill,
    SyncFailed,
    WriteFailed,
    ReadFailed,
    DiskFull,
    SlowSync,
    TornFile,
    LostName,
    LostRunFile,
    RequestLost,
    ReplyLost,
    Duplicate,
    Throttled,
    ClockJump,
    StoppedInOrder,
    // From here on: what was done, not what went wrong.
    Start,
    StartRefused,
    Submitted,
    Finished,
    Cancelled,
    Removed,
    Command,
    Answer,
    Pure,
    Idempotent,
    Verifiable,
    Unsafe,
    UnsafeAsked,
    Exec,
    ExecAdopted,
    ExecLost,
    ModelCall,
    Operation,
    Record,
    Watched,
    Snapshot,
    Checkpoint,
    Compacted,
}

use Count as C;

/// Kinds that every long run must have met.
pub const REQUIRED: &[Count] = &[
    C::Kill,
    C::PowerCut,
    C::DeathInRecovery,
    C::KeeperKill,
    C::SyncFailed,
    C::WriteFailed,
    C::ReadFailed,
    C::DiskFull,
    C::SlowSync,
    C::TornFile,
    C::LostName,
    C::LostRunFile,
    C::RequestLost,
    C::ReplyLost,
    C::Duplicate,
    C::Throttled,
    C::ClockJump,
    C::StoppedInOrder,
    C::Submitted,
    C::Finished,
    C::Cancelled,
    C::Removed,
    C::Command,
    C::Answer,
    C::Pure,
    C::Idempotent,
    C::Verifiable,
    C::Unsafe,
    C::UnsafeAsked,
    C::Exec,
    C::ExecAdopted,
    C::ExecLost,
    C::ModelCall,
    C::Operation,
    C::Watched,
    C::Snapshot,
    C::Checkpoint,
    C::Compacted,
];

/// Counts of one history or of many.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    counts: BTreeMap<Count, u64>,
    /// Histories.
    pub histories: u64,
    /// Histories with at least one death.
    pub crashed: u64,
    /// Simulated milliseconds.
    pub virtual_ms: u64,
}

impl Stats {
    /// Counts one.
    pub fn one(&mut self, count: Count) {
        *self.counts.entry(count).or_default() += 1;
    }

    /// How often.
    pub fn of(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or(0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, number) in &other.counts {
            *self.counts.entry(*count).or_default() += number;
        }
        self.histories += other.histories;
        self.crashed += other.crashed;
        self.virtual_ms += other.virtual_ms;
    }

    /// Deaths of daemons and machines.
    pub fn deaths(&self) -> u64 {
        self.of(C::Kill) + self.of(C::PowerCut)
    }

    /// What every long run must have met and this one has not.
    pub fn missing(&self) -> Vec<Count> {
        REQUIRED.iter().copied().filter(|count| self.of(*count) == 0).collect()
    }

    /// The counts as lines.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (at, (count, number)) in self.counts.iter().enumerate() {
            let end = if at % 5 == 4 { "\n" } else { "" };
            // Writing into a string can not fail.
            write!(text, "  {:<16} {number:>9}{end}", format!("{count:?}")).unwrap_or_default();
        }
        text
    }
}
