//! Events: what happened, as the journal keeps it.
//!
//! The payload types stand in [`format`]; this module names them, numbers them, and encodes them.
//! Invariant: a record that one version wrote is readable by every later one.

pub mod format;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use format::{
    Action, ApprovalAsked, ApprovalGiven, Ask, Call, Caps, Commit, Committed, Connection, Entry, Event, Fact, Failed, FileChange, Finished,
    Granted, Intent, LostTry, Made, Observation, Observed, Op, OpDone, Operated, OrphanReaped, Part, PartKind, Paused, PlanStep, Prepare,
    Prepared, Released, Reply, Reserved, ResultSeen, Settled, Signal, Started, StateSaved, Submitted, Timer, TimerFired, Verdict, Verify,
    Waiver,
};

use crate::words::{Lsn, TaskId};
use prost::Message as _;

/// The version of the payloads in [`format`], carried by each record.
pub const SCHEMA: u8 = 1;

/// A payload that this version can not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {lsn} has a payload that this version can not read: {why}")]
pub struct Unreadable {
    /// The record.
    pub lsn: Lsn,
    /// The decoder's words.
    pub why: String,
}

impl Event {
    /// The record type number: the field number of the event in [`Entry`], plus 15.
    ///
    /// Types below 16 belong to the journal itself.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Submitted(_) => 17,
            Self::Started(_) => 18,
            Self::Intent(_) => 19,
            Self::Observed(_) => 20,
            Self::Reserved(_) => 21,
            Self::Settled(_) => 22,
            Self::Released(_) => 23,
            Self::StateSaved(_) => 24,
            Self::Signal(_) => 25,
            Self::ApprovalAsked(_) => 26,
            Self::ApprovalGiven(_) => 27,
            Self::OpDone(_) => 28,
            Self::Paused(_) => 29,
            Self::Finished(_) => 30,
            Self::OrphanReaped(_) => 31,
            Self::TimerFired(_) => 32,
            Self::Snapshot(_) => 33,
            Self::Page(_) => 34,
            Self::Granted(_) => 35,
        }
    }

    /// Whether it is the engine's own bookkeeping, which says nothing new of the task.
    #[must_use]
    pub const fn is_bookkeeping(&self) -> bool {
        matches!(self, Self::Snapshot(_) | Self::Page(_))
    }

    /// The event's name in logs and dumps.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "submitted",
            Self::Started(_) => "started",
            Self::Intent(_) => "intent",
            Self::Observed(_) => "observed",
            Self::Reserved(_) => "reserved",
            Self::Settled(_) => "settled",
            Self::Released(_) => "released",
            Self::StateSaved(_) => "state-saved",
            Self::Signal(_) => "signal",
            Self::ApprovalAsked(_) => "approval-asked",
            Self::ApprovalGiven(_) => "approval-given",
            Self::OpDone(_) => "op-done",
            Self::Paused(_) => "paused",
            Self::Finished(_) => "finished",
            Self::OrphanReaped(_) => "orphan-reaped",
            Self::TimerFired(_) => "timer-fired",
            Self::Snapshot(_) => "snapshot",
            Self::Page(_) => "page",
            Self::Granted(_) => "granted",
        }
    }
}

/// Whether this version can read records of that type and payload version.
#[must_use]
pub fn is_known(kind: u16, schema: u8) -> bool {
    let Some(field) = kind.checked_sub(15).filter(|_| schema <= SCHEMA) else { return false };
    // The event as an empty message in its field: whoever knows the field decodes it.
    let mut bytes = Vec::new();
    prost::encoding::encode_key(u32::from(field), prost::encoding::WireType::LengthDelimited, &mut bytes);
    bytes.push(0);
    Entry::decode(bytes.as_slice()).is_ok_and(|entry| entry.event.is_some())
}

/// Encodes an event with its wall time (milliseconds since the epoch).
#[must_use]
pub fn encode(event: Event, at_ms: u64) -> Vec<u8> {
    Entry { at_ms, event: Some(event) }.encode_to_vec()
}

/// Decodes what [`encode`] made.
///
/// # Errors
/// [`Unreadable`] when the bytes are damaged or of a type that this version does not know.
pub fn decode(lsn: Lsn, bytes: &[u8]) -> Result<(u64, Event), Unreadable> {
    let entry = Entry::decode(bytes).map_err(|error| Unreadable { lsn, why: error.to_string() })?;
    let event = entry.event.ok_or_else(|| Unreadable { lsn, why: "unknown event type".to_owned() })?;
    Ok((entry.at_ms, event))
}

/// An event with its place: what watchers and projections read.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its number in the log.
    pub lsn: Lsn,
    /// Wall time in milliseconds since the epoch.
    pub at_ms: u64,
    /// The task it belongs to.
    pub task: TaskId,
    /// The event.
    pub event: Event,
}
