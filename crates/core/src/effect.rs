//! Effects: the only way in which the world changes.
//!
//! An effect is an intent in the journal, an act, and an observation in the journal; its class tells
//! recovery what to do when the observation is missing. This module does nothing itself.
//! Invariant: an observed effect is never acted again.

use crate::approval::{Approved, Fact, Grant};
use crate::code::Fault;
use crate::event::{Action, Observation, OpDone};
use crate::money::{NanoUsd, Usage};
use crate::port::Used;
use crate::words::{Lsn, Seq, TaskId};
use bytes::Bytes;
use futures_core::future::BoxFuture;

/// What recovery may do with an effect whose intent is recorded and whose observation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffectClass {
    /// Changes nothing: run again.
    Pure,
    /// Send again under the same key; the other side joins both.
    Idempotent,
    /// Look at the world first, then skip, redo or repair.
    Verifiable,
    /// Never again without a person's word.
    Unsafe,
    /// A command: the keeper knows; if it is lost, obey the other class.
    Adoptable(Fallback),
}

/// The class that holds once a keeper is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// As [`EffectClass::Pure`].
    Pure,
    /// As [`EffectClass::Verifiable`].
    Verifiable,
    /// As [`EffectClass::Unsafe`].
    Unsafe,
}

impl EffectClass {
    /// The number that the journal carries.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Pure => 1,
            Self::Idempotent => 2,
            Self::Verifiable => 3,
            Self::Unsafe => 4,
            Self::Adoptable(Fallback::Pure) => 5,
            Self::Adoptable(Fallback::Verifiable) => 6,
            Self::Adoptable(Fallback::Unsafe) => 7,
        }
    }

    /// The class of a number from the journal; an unknown number is the strictest class.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Pure,
            2 => Self::Idempotent,
            3 => Self::Verifiable,
            5 => Self::Adoptable(Fallback::Pure),
            6 => Self::Adoptable(Fallback::Verifiable),
            7 => Self::Adoptable(Fallback::Unsafe),
            _ => Self::Unsafe,
        }
    }
}

/// Who may act on a task: raised at each daemon start and each lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence {
    /// Counts the journal's openings.
    pub epoch: u64,
    /// Counts the leases of the task.
    pub generation: u64,
}

/// Whether an act is tried for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing has been tried: the intent was recorded just now.
    First,
    /// The intent was recorded earlier and its observation is missing.
    Recover,
}

/// An intent on its way into the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Intended {
    /// The effect's number within the task.
    pub seq: Seq,
    /// What recovery may do.
    pub class: EffectClass,
    /// What is going to happen.
    pub action: Action,
    /// Money to reserve before acting; it must fit in what the budget has left.
    pub hold: NanoUsd,
    /// Tokens to reserve likewise.
    pub hold_tokens: u64,
    /// For an effect that runs a command: what commands of the task have used until now. What is
    /// left of its CPU time and disk is reserved before acting.
    pub used: Option<Used>,
    /// The coroutine's state, in which it waits for this very effect.
    pub state: Bytes,
}

/// What an act gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct Acted {
    /// The fact to record.
    pub observation: Observation,
    /// What it really cost, where something was reserved.
    pub spent: Option<(NanoUsd, Usage)>,
    /// The operation that it was, where a checkpoint tree changed.
    pub op: Option<OpDone>,
    /// What all commands of the task have used until now, where the act had to do with one.
    pub used: Option<Used>,
}

impl From<Observation> for Acted {
    fn from(observation: Observation) -> Self {
        Self { observation, spent: None, op: None, used: None }
    }
}

/// Why a task can not go on at this moment. None of these loses the task.
#[derive(Debug, Clone, PartialEq)]
pub enum Stall {
    /// A person must approve or answer; the number names the approval within the task.
    Person(u32),
    /// A cap is reached; the text names it.
    Budget(String),
    /// A provider key is missing; the text names the variable.
    Key(String),
    /// The disk is full or the journal is read-only.
    Disk(String),
    /// The daemon stops or the task was cancelled or paused: leave quietly.
    Stopped,
    /// A fault of our own house that ends the task as failed.
    Broken(Fault),
}

/// The name of the file in the data directory that halts all effects while it stands, and of the cause
/// that a command's end has for it.
pub const HALT_MARK: &str = "halted";

/// The act itself; runs at most once per call of [`crate::port::Effects::once`].
pub type Act = Box<dyn FnOnce(Attempt) -> BoxFuture<'static, Result<Acted, Stall>> + Send>;

/// A question to a person, bound to exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The effect that waits for the answer.
    pub seq: Seq,
    /// What is asked for.
    pub kind: QuestionKind,
    /// One line: what and why.
    pub title: String,
    /// Exactly what would happen (command, diff), shown whole.
    pub body: String,
    /// The answers to choose from; empty for free text or yes and no.
    pub options: Vec<String>,
    /// SHA-256 of what is asked for, hexadecimal: equal for equal questions, whenever and in whichever
    /// task they are asked.
    pub digest: String,
    /// What else an approval is bound to; the answer holds for these and nothing else.
    pub facts: Vec<Fact>,
    /// Void after so many milliseconds; `None` for a day.
    pub lasts_ms: Option<u64>,
    /// The rules that want a person asked.
    pub rules: Vec<String>,
    /// What the person may allow beyond this one time.
    pub offer: Option<Grant>,
}

/// The kinds of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuestionKind {
    /// May this happen? Answered by `approve` or `deny`.
    #[default]
    Approval,
    /// The model asks; answered by `approve --answer`.
    Answer,
    /// A command's outcome is unknown: run it again (`approve`) or go on without (`deny`).
    Unknown,
}

impl QuestionKind {
    /// The number that the journal carries.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Approval => 1,
            Self::Answer => 2,
            Self::Unknown => 3,
        }
    }

    /// The kind of a number from the journal.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            2 => Self::Answer,
            3 => Self::Unknown,
            _ => Self::Approval,
        }
    }
}

/// A person's recorded answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Approved, or answered with text.
    pub yes: bool,
    /// The text given with it; empty when none.
    pub text: String,
    /// Whether nobody answered in time; it then counts as denied.
    pub expired: bool,
    /// What exactly was approved.
    pub approved: Option<Approved>,
}

/// What a task knows of its own past, in journal order.
#[derive(Debug, Clone, PartialEq)]
pub enum Past {
    /// A finished effect.
    Effect {
        /// Where its observation stands.
        lsn: Lsn,
        /// Where its intent stands.
        intent_lsn: Lsn,
        /// Its number.
        seq: Seq,
        /// What was intended.
        action: Action,
        /// What was observed.
        observation: Observation,
    },
    /// A word of the user, or a note of the runtime that the model must read.
    Note {
        /// Where it stands.
        lsn: Lsn,
        /// The text.
        text: String,
        /// Whether the user wrote it (only the user's own words authorise).
        from_user: bool,
    },
}

impl Past {
    /// What is told where the beginning of the past is missing.
    pub const CUT: &str = "Older steps of this task are not kept any more.";

    /// Whether something before it is missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Note { text, from_user: false, .. } if text == Self::CUT)
    }
}

/// Progress that is shown but never recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The task.
    pub task: TaskId,
    /// The effect.
    pub seq: Seq,
    /// What happened.
    pub delta: LiveDelta,
}

/// Kinds of live progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveDelta {
    /// A piece of the model's answer.
    Text(String),
    /// A piece of the model's reasoning.
    Reasoning(String),
    /// A piece of a command's output.
    Output(String),
    /// The provider is asked again after a failure.
    Retrying {
        /// Why.
        why: String,
        /// After how many milliseconds.
        wait_ms: u64,
    },
}
