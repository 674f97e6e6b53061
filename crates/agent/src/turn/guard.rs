//! The loop guard: calls that repeat with the same outcome, alone or in cycles of two and three.
//!
//! Four executions with one outcome are allowed, the fifth identical request is not run. Any
//! difference in arguments, outcome or tree resets. Invariant: waiting for a live unit never counts.

use super::Turn;
use crate::fingerprint;
use tinkerbell_core::coroutine::Yielded;
use tinkerbell_core::event::{Call, Finished, ResultSeen};

/// Executions with one outcome that are allowed.
const ALLOWED: usize = 4;
/// Executions with one outcome after which the model is told.
const NUDGE: usize = 3;
/// The same for small models, which repeat what they see more readily than others.
const NUDGE_SMALL: usize = 2;
/// Longest cycle that is looked for.
const PERIODS: usize = 3;
/// Most calls remembered: the longest cycle as often as allowed.
const MEMORY: usize = ALLOWED * PERIODS;
/// Failing calls of one tool in a row before a change is demanded; twice as many end the task.
const FAILING: u32 = 5;
/// Longest piece of evidence kept, in characters.
const EVIDENCE: usize = 160;

/// What a model is told when small corrections do not help.
pub(super) const DEMAND: &str = "Stop and change your approach: look at the facts again and take a different way.";

impl Turn {
    /// The period of the cycle that running `call` would continue beyond what is allowed.
    pub(super) fn looping(&self, call: &Call) -> Option<usize> {
        let request = Self::request_print(call);
        let continues = |period: usize| {
            let at = self.state.requests.len().checked_sub(period);
            at.and_then(|at| self.state.requests.get(at)) == Some(&request) && self.repeats(period, ALLOWED)
        };
        (1..=PERIODS).find(|period| continues(*period))
    }

    /// Whether the newest `period * rounds` calls are one cycle, run `rounds` times.
    fn repeats(&self, period: usize, rounds: usize) -> bool {
        let seen: Vec<(u64, u64)> = self.state.requests.iter().copied().zip(self.state.outcomes.iter().copied()).collect();
        let Some(start) = seen.len().checked_sub(period * rounds) else { return false };
        let window = seen.get(start..).unwrap_or_default();
        window.iter().zip(window.iter().skip(period)).all(|(earlier, later)| earlier == later)
    }

    /// Remembers a call with its outcome, and warns when it repeats.
    pub(super) fn remember(&mut self, call: &Call, result: &ResultSeen) {
        if matches!(call.tool.as_str(), "exec_wait" | "exec_send") && result.status == "running" {
            return;
        }
        self.state.requests.push(Self::request_print(call));
        self.state.outcomes.push(fingerprint::outcome(&result.status, result.number, &result.text, &self.state.tree));
        let excess = self.state.requests.len().saturating_sub(MEMORY);
        self.state.requests.drain(..excess);
        self.state.outcomes.drain(..excess);
        let said = if result.summary.is_empty() { &result.text } else { &result.summary };
        self.state.evidence = said.lines().next().unwrap_or_default().chars().take(EVIDENCE).collect();
        let nudge = if self.facts.small { NUDGE_SMALL } else { NUDGE };
        if let Some(period) = (1..=PERIODS).find(|period| self.repeats(*period, nudge)) {
            let what = if period == 1 { format!("`{}`", call.tool) } else { format!("the same {period} calls") };
            let evidence = self.state.evidence.clone();
            self.nudge(format!(
                "You ran {what} {nudge} times with the same outcome ({evidence}). Running it again changes nothing; do something else."
            ));
        }
    }

    /// Counts failing calls of one tool in a row; true when they must end the task.
    pub(super) fn count_failing(&mut self, call: &Call, result: &ResultSeen) -> bool {
        if !matches!(result.status.as_str(), "failed" | "denied" | "lost") {
            self.state.failing = 0;
            return false;
        }
        if self.state.failing_tool != call.tool {
            self.state.failing_tool.clone_from(&call.tool);
            self.state.failing = 0;
        }
        self.state.failing = self.state.failing.saturating_add(1);
        if self.state.failing == FAILING {
            self.nudge(format!("{FAILING} calls of `{}` failed in a row. {DEMAND}", call.tool));
        }
        self.state.failing >= FAILING * 2
    }

    pub(super) fn nudge(&mut self, text: String) {
        self.state.nudges.push(text);
    }

    /// Forgets all repetition: the user spoke, so the same call may mean something new.
    pub(super) fn calm(&mut self) {
        self.state.requests.clear();
        self.state.outcomes.clear();
        self.state.failing = 0;
        self.state.malformed = 0;
        self.state.empties = 0;
        self.state.nudges.clear();
    }

    pub(super) fn stop_loop(&mut self, call: &Call, period: usize) -> Yielded {
        let args: String = call.args.chars().take(EVIDENCE).collect();
        let what = if period == 1 { String::new() } else { format!(" as part of a cycle of {period} calls") };
        let evidence = &self.state.evidence;
        let text = format!(
            "stopped: the model asked a fifth time for `{} {args}`{what} after {ALLOWED} runs with the same outcome ({evidence})",
            call.tool
        );
        self.finish(Finished {
            status: "failed".to_owned(),
            exit: u32::from(tinkerbell_core::code::exit::FAILED),
            text,
            code: "TB-AGENT-001".to_owned(),
            hints: vec!["say what to do instead with `tinkerbell tell TASK TEXT`, or try another model with -m".to_owned()],
            ..Finished::default()
        })
    }
}
