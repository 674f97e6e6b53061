//! What the turn makes of a tool's result: counting, background units, micro-commits.
//!
//! Invariant: a call whose tree differs is committed before the next effect.

use super::Turn;
use tinkerbell_core::coroutine::Yielded;
use tinkerbell_core::effect::EffectClass;
use tinkerbell_core::event::{Action, Call, Commit, ResultSeen};

/// Longest first line of a micro-commit, in characters.
const SUBJECT: usize = 72;

impl Turn {
    pub(super) fn returned(&mut self, call: &Call, result: &ResultSeen) -> Yielded {
        if super::is_own(call) {
            return self.next();
        }
        let cause = self.state.seq;
        self.note_units(call, result, cause);
        let changed = self.advance_tree(result);
        self.remember(call, result);
        let hopeless = self.count_failing(call, result);
        if result.status == "failed" && Self::is_malformed(call) {
            self.count_malformed();
        } else {
            self.state.malformed = 0;
        }
        if hopeless {
            return self.give_up(&format!("{} calls of `{}` failed in a row", self.state.failing, call.tool));
        }
        if self.too_malformed() {
            return self.give_up(&format!("{} malformed calls in a row", self.state.malformed));
        }
        match changed {
            Some(before) => self.commit(call, result, before, cause),
            None => self.next(),
        }
    }

    /// Takes over the tree that the call left; gives the one before when it differs.
    ///
    /// A result whose `before` is not our tree is stale: the user went back in between, and what
    /// the call had changed is gone.
    fn advance_tree(&mut self, result: &ResultSeen) -> Option<String> {
        if result.after.is_empty() || result.after == result.before || result.before != self.state.tree {
            return None;
        }
        Some(std::mem::replace(&mut self.state.tree, result.after.clone()))
    }

    fn commit(&mut self, call: &Call, result: &ResultSeen, before: String, cause: u32) -> Yielded {
        let commit = Commit {
            subject: self.subject(call, result),
            step: call.step,
            parent: self.state.tip.clone(),
            time_s: self.now_s,
            tree: self.state.tree.clone(),
            model: self.state.model.clone(),
            cost_micros: self.facts.spent.micros(),
            before,
            cause,
        };
        self.intend(EffectClass::Verifiable, Action::Commit(commit))
    }

    /// The active step of the plan, else what the call did.
    fn subject(&self, call: &Call, result: &ResultSeen) -> String {
        let active = self.facts.plan.iter().find(|step| step.status == "active").map(|step| step.text.as_str());
        let said = active.unwrap_or(&result.summary);
        let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(&call.tool);
        if line.chars().count() <= SUBJECT {
            return line.to_owned();
        }
        let mut short: String = line.chars().take(SUBJECT - 1).collect();
        short.push('…');
        short
    }

    fn note_units(&mut self, call: &Call, result: &ResultSeen, cause: u32) {
        if result.status == "running" && call.tool == "exec" {
            self.state.units.push(cause);
            return;
        }
        let ended = matches!(result.status.as_str(), "exited" | "signalled" | "lost");
        if ended
            && matches!(call.tool.as_str(), "exec_wait" | "exec_send")
            && let Some(unit) = unit_of(&call.args)
        {
            self.state.units.retain(|known| *known != unit);
        }
    }
}

/// The unit that a call of `exec_wait` or `exec_send` names: `u12` is effect 12.
pub(crate) fn unit_of(args: &str) -> Option<u32> {
    let value: serde_json::Value = serde_json::from_str(args).ok()?;
    value.get("unit")?.as_str()?.trim().trim_start_matches('u').parse().ok()
}
