//! What the turn makes of a model's answer.
//!
//! Invariant: calls of an answer that was cut never run; who reads the transcript sees them marked
//! as not run.

use super::Turn;
use crate::fingerprint;
use crate::turn::guard::DEMAND;
use tinkerbell_core::coroutine::Yielded;
use tinkerbell_core::event::{Call, PartKind, Reply};

/// Most calls of one answer that are run; more than this is a model that has lost its way.
const MAX_CALLS: usize = 32;
/// Malformed answers or calls in a row before a change is demanded; twice as many end the task.
const MALFORMED: u32 = 3;
/// Empty answers in a row before a change is demanded; one more ends the task.
const EMPTIES: u32 = 3;

impl Turn {
    pub(super) fn replied(&mut self, reply: Reply) -> Yielded {
        if let Some(made) = &reply.made {
            self.state.model = if made.served.is_empty() { made.asked.clone() } else { made.served.clone() };
        }
        let has = |kind: PartKind| reply.parts.iter().any(|part| part.kind == kind as i32 && !part.text.trim().is_empty());
        let says = has(PartKind::Text);
        let calls = self.calls(&reply);
        if reply.stop == "length" {
            return self.cut(calls.len());
        }
        if !calls.is_empty() {
            self.state.empties = 0;
            self.state.queue = calls;
            return self.next();
        }
        if !says || reply.stop == "filter" {
            return self.empty();
        }
        self.state.empties = 0;
        self.state.malformed = 0;
        if self.facts.unheard {
            return self.ask();
        }
        self.conclude()
    }

    fn calls(&self, reply: &Reply) -> Vec<Call> {
        let step = self.state.step;
        let calls = reply.parts.iter().filter(|part| part.kind == PartKind::Call as i32).take(MAX_CALLS);
        calls.map(|part| Call { call_id: part.call_id.clone(), tool: part.tool.clone(), args: part.text.clone(), step }).collect()
    }

    fn cut(&mut self, calls: usize) -> Yielded {
        let what = if calls > 0 { "its calls were not run" } else { "go on in smaller pieces" };
        self.nudge(format!("Your answer was cut at the output limit and {what}. Keep answers short; write long files in several edits."));
        self.misshapen("answers were cut at the output limit")
    }

    /// Counts a malformed answer or call, demands a change, then gives up.
    fn misshapen(&mut self, what: &str) -> Yielded {
        self.count_malformed();
        if self.state.malformed >= MALFORMED * 2 {
            return self.give_up(&format!("{} {what} in a row", self.state.malformed));
        }
        self.ask()
    }

    /// Counts; at the threshold the next request demands a change.
    pub(super) fn count_malformed(&mut self) {
        self.state.malformed = self.state.malformed.saturating_add(1);
        if self.state.malformed == MALFORMED {
            self.nudge(format!("{MALFORMED} malformed calls in a row. {DEMAND}"));
        }
    }

    /// Whether malformed calls must end the task.
    pub(super) const fn too_malformed(&self) -> bool {
        self.state.malformed >= MALFORMED * 2
    }

    fn empty(&mut self) -> Yielded {
        self.state.empties = self.state.empties.saturating_add(1);
        if self.state.empties > EMPTIES {
            return self.give_up(&format!("{} empty answers in a row", self.state.empties));
        }
        let demand = if self.state.empties == EMPTIES { DEMAND } else { "" };
        let text = "Your last answer was empty. If the task is done, say in a few lines what you did; else make the next call.";
        self.nudge(format!("{text} {demand}").trim_end().to_owned());
        self.ask()
    }

    /// Whether a call can not be run at all: no such tool, or arguments that are no JSON object.
    pub(super) fn is_malformed(call: &Call) -> bool {
        let object = serde_json::from_str::<serde_json::Value>(&call.args).is_ok_and(|value| value.is_object());
        !object || !crate::TOOL_ORDER.contains(&call.tool.as_str())
    }

    pub(super) fn request_print(call: &Call) -> u64 {
        fingerprint::request(&call.tool, &call.args)
    }
}
