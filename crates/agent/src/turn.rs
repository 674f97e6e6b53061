//! The turn: Prepare → Ask → Calls → Commit → … → Verify → Done, as a pure coroutine.
//!
//! It thinks; the driver acts. It never sees a clock, a file or a model: what it must know beside
//! its inputs comes as [`Facts`], a fold over the journal. Invariant: the same state, facts and
//! input give the same yield, and the saved state always holds the effect that is waited for.

mod aid;
mod finish;
mod guard;
mod reply;
mod result;
mod tail;
#[cfg(test)]
mod tests;

pub(crate) use aid::is_own;
pub(crate) use result::unit_of;

use crate::format::{State, VERSION};
use prost::Message as _;
use tinkerbell_core::coroutine::{Coroutine, Input, LoadError, Wake, Yielded};
use tinkerbell_core::effect::{EffectClass, Fallback};
use tinkerbell_core::event::{Action, Ask, Caps, Intent, Observation, PlanStep, Prepare, Prepared, Verify};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::words::Lsn;

/// Rounds of verification after the model believed that it was done.
pub(crate) const MAX_ROUNDS: u32 = 3;

/// What the turn knows of its task beside its own state; a fold over the journal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// What the user asked for.
    pub goal: String,
    /// The plan as the model last gave it.
    pub plan: Vec<PlanStep>,
    /// Limits in force.
    pub caps: Caps,
    /// Money spent.
    pub spent: NanoUsd,
    /// Tokens used.
    pub tokens: u64,
    /// CPU time that commands have used, in milliseconds, and bytes of disk.
    pub used: (u64, u64),
    /// Whether the user spoke after the newest model call was rendered.
    pub unheard: bool,
    /// Limit of the next answer.
    pub max_output_tokens: u64,
    /// Whether the model needs help to keep going: it has no tool calls of its own.
    pub small: bool,
    /// Number of operations so far.
    pub ops: u32,
    /// Where the user's newest operation left tree and branch, when it is newer than the turn knows.
    pub moved: Option<(String, String)>,
}

impl Facts {
    /// What `task` tells a turn that knows `ops_seen` of its operations.
    #[must_use]
    pub fn of(task: &Task, ops_seen: u32, max_output_tokens: u64) -> Self {
        let entries = task.ops.entries();
        let by_user = |kind: &str| matches!(kind, "undo" | "redo" | "restore");
        let moved = entries.iter().rev().take_while(|entry| entry.number > ops_seen).find(|entry| by_user(&entry.done.kind));
        Self {
            goal: task.submitted.goal.clone(),
            plan: task.plan.clone(),
            caps: task.caps.clone(),
            spent: task.spent,
            tokens: task.usage.total(),
            used: (task.cpu_ms, task.disk_bytes),
            unheard: task.has_unheard(),
            max_output_tokens,
            small: false,
            ops: task.ops.count(),
            moved: moved.map(|entry| (entry.done.after.clone(), entry.done.commit.clone())),
        }
    }
}

/// The turn of one task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    state: State,
    facts: Facts,
    now_s: u64,
    lsn: Lsn,
}

impl Turn {
    /// A turn that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State { version: VERSION, ..State::default() }, ..Self::default() }
    }

    /// Tells the turn what the journal says; to be called before each `resume`.
    pub fn learn(&mut self, facts: Facts) {
        if let Some((tree, tip)) = &facts.moved {
            self.state.tree.clone_from(tree);
            if !tip.is_empty() {
                self.state.tip.clone_from(tip);
            }
        }
        self.state.ops_seen = self.state.ops_seen.max(facts.ops);
        self.facts = facts;
    }

    /// How many operations of the task the turn knows of.
    #[must_use]
    pub const fn ops_seen(&self) -> u32 {
        self.state.ops_seen
    }

    /// The newest checkpoint that it knows of; empty before the workspace stands.
    #[must_use]
    pub fn tree(&self) -> &str {
        &self.state.tree
    }

    /// The number of the effect that it waits for.
    #[must_use]
    pub fn waits_for(&self) -> Option<u32> {
        self.state.pending.as_ref().map(|intent| intent.seq)
    }

    fn intend(&mut self, class: EffectClass, action: Action) -> Yielded {
        self.state.seq = self.state.seq.saturating_add(1);
        let seq = self.state.seq;
        self.state.pending = Some(Intent { seq, class: class.code(), action: Some(action.clone()), yolo: false });
        Yielded::Intent { seq, class, action }
    }

    /// The pending effect once more, or the end once more.
    fn again(&mut self) -> Yielded {
        if let Some(Intent { seq, class, action: Some(action), .. }) = self.state.pending.clone() {
            return Yielded::Intent { seq, class: EffectClass::from_code(class), action };
        }
        match self.state.done.clone() {
            Some(finished) => Yielded::Done(finished),
            // Nothing pending and not done: a state from before the first effect.
            None => self.intend(EffectClass::Idempotent, Action::Prepare(Prepare {})),
        }
    }

    fn told(&mut self) -> Yielded {
        if self.state.pending.is_some() {
            return self.again();
        }
        self.state.done = None;
        self.state.rounds = 0;
        self.state.lost_checks = 0;
        self.calm();
        if self.state.tree.is_empty() {
            return self.again();
        }
        self.ask()
    }

    fn observed(&mut self, observation: Observation) -> Yielded {
        let Some(action) = self.state.pending.take().and_then(|intent| intent.action) else {
            return self.defect("an observation came although no effect was pending");
        };
        match (action, observation) {
            (Action::Prepare(_), Observation::Prepared(prepared)) => self.prepared(prepared),
            (Action::Ask(_), Observation::Reply(reply)) => self.replied(reply),
            (Action::Call(call), Observation::Result(result)) => self.returned(&call, &result),
            (Action::Verify(verify), Observation::Verdict(verdict)) => self.judged(&verify, &verdict),
            (Action::Verify(verify), Observation::Failed(failed)) if finish::REFUSED.contains(&failed.code.as_str()) => {
                self.check_refused(&verify, &failed)
            }
            (Action::Verify(verify), Observation::Failed(_)) => self.check_lost(&verify),
            (Action::Commit(_), Observation::Committed(committed)) => {
                self.state.tip = committed.commit;
                self.next()
            }
            (_, Observation::Failed(failed)) => self.failed(failed),
            (action, _) => self.defect(&format!("an observation does not fit the effect {}", name(&action))),
        }
    }

    fn prepared(&mut self, prepared: Prepared) -> Yielded {
        self.state.tree.clone_from(&prepared.checkpoint);
        self.state.base = prepared.checkpoint;
        self.state.tip = prepared.base;
        self.state.verify = prepared.verify;
        self.state.verify_origin = prepared.verify_origin;
        // A small model seldom thinks of running the check; it does better with its output at hand.
        if self.facts.small && !self.state.verify.is_empty() {
            self.state.baseline = true;
            return self.verify(0);
        }
        self.show_named("");
        self.next()
    }

    /// The next call of the answer, or the next question to the model.
    fn next(&mut self) -> Yielded {
        let Some(call) = self.state.queue.first().cloned() else {
            return if self.owes_check() { self.verify(0) } else { self.ask() };
        };
        if edits(&call.tool) && !self.state.baseline && !self.state.verify.is_empty() {
            self.state.baseline = true;
            return self.verify(0);
        }
        if let Some(period) = self.looping(&call) {
            return self.stop_loop(&call, period);
        }
        self.state.queue.remove(0);
        // The driver lowers the class to what the tool plans; this is the strictest a call can have.
        self.intend(EffectClass::Adoptable(Fallback::Unsafe), Action::Call(call))
    }

    fn ask(&mut self) -> Yielded {
        self.state.step = self.state.step.saturating_add(1);
        let tail = self.tail();
        self.state.nudges.clear();
        let (through, step) = (self.lsn.0, self.state.step);
        let max_output_tokens = self.facts.max_output_tokens;
        self.intend(EffectClass::Pure, Action::Ask(Ask { through, tail, step, max_output_tokens }))
    }

    fn verify(&mut self, round: u32) -> Yielded {
        if round > 0 && !self.state.units.is_empty() {
            self.state.units.clear();
            self.nudge("Commands in the background were stopped for the check.".to_owned());
        }
        self.state.checked.clone_from(&self.state.tree);
        let command = self.state.verify.clone();
        self.intend(EffectClass::Adoptable(Fallback::Pure), Action::Verify(Verify { command, round, before: String::new() }))
    }
}

impl Coroutine for Turn {
    fn resume(&mut self, input: Input) -> Yielded {
        self.now_s = input.now.wall_ms / 1_000;
        self.lsn = input.lsn;
        match input.event {
            Wake::Started | Wake::Resumed => self.again(),
            Wake::Told => self.told(),
            Wake::Observed(observation) => self.observed(observation),
        }
    }

    fn save(&self) -> Vec<u8> {
        self.state.encode_to_vec()
    }

    fn load(state: &[u8]) -> Result<Self, LoadError> {
        let state = State::decode(state).map_err(|error| LoadError::Damaged(error.to_string()))?;
        if state.version > VERSION {
            return Err(LoadError::Newer { found: state.version, known: VERSION });
        }
        if state.version == 0 || state.requests.len() != state.outcomes.len() {
            return Err(LoadError::Damaged("its fields do not fit together".to_owned()));
        }
        Ok(Self { state, ..Self::default() })
    }
}

/// Whether a tool edits files, so that the check before the first edit is due.
fn edits(tool: &str) -> bool {
    matches!(tool, "edit" | "write" | "apply_patch")
}

const fn name(action: &Action) -> &'static str {
    match action {
        Action::Prepare(_) => "prepare",
        Action::Ask(_) => "ask",
        Action::Call(_) => "call",
        Action::Verify(_) => "verify",
        Action::Commit(_) => "commit",
        Action::Op(_) => "op",
    }
}
