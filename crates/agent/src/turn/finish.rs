//! Ends of a turn: the gate, its rounds, and the labels.
//!
//! Invariant: `verified` is said only after the gate itself passed on the final tree.

use super::{MAX_ROUNDS, Turn};
use crate::survey::is_agreed;
use tinkerbell_core::code::exit;
use tinkerbell_core::coroutine::Yielded;
use tinkerbell_core::event::{Failed, Finished, Verdict, Verify};

/// The codes of a gate that may not run; it is then not tried again.
pub(super) const REFUSED: [&str; 2] = ["TB-POLICY-006", "TB-TRUST-004"];
/// Runs of the gate with a lost outcome that are tried again.
const LOST_CHECKS: u32 = 2;
/// What a small model is told that ends without having changed anything.
const URGE: &str = "No file was changed so far. If the task asks for a change, make it now by calling a tool; \
if it does not, give your final answer again.";

impl Turn {
    /// The model believes that it is done.
    pub(super) fn conclude(&mut self) -> Yielded {
        let unchanged = self.state.tree == self.state.base;
        if self.facts.small && unchanged && !self.state.urged {
            self.state.urged = true;
            self.nudge(URGE.to_owned());
            return self.ask();
        }
        if self.state.verify.is_empty() {
            return self.label("unverified", exit::DONE, "Not verified: no verification command was given or found.");
        }
        // A gate that nobody asked for is not run for an answer that changed nothing.
        let agreed = is_agreed(&self.state.verify_origin);
        if !agreed && unchanged {
            return self.label("unverified", exit::DONE, "Not verified: no file was changed.");
        }
        self.verify(self.state.rounds.saturating_add(1))
    }

    pub(super) fn judged(&mut self, verify: &Verify, verdict: &Verdict) -> Yielded {
        self.state.lost_checks = 0;
        self.note_pace(verdict);
        let agreed = is_agreed(&self.state.verify_origin);
        // A guessed command that does not exist here says nothing about the change.
        if !agreed && matches!(verdict.exit, 126 | 127) {
            self.state.verify.clear();
            return if verify.round == 0 { self.next() } else { self.conclude() };
        }
        if verify.round == 0 {
            self.show_named(&verdict.text);
            return self.next();
        }
        if self.facts.unheard {
            self.state.rounds = 0;
            return self.ask();
        }
        if verdict.passed {
            self.state.rounds = 0;
            return self.label("verified", exit::DONE, "");
        }
        self.state.rounds = verify.round;
        if verify.round >= MAX_ROUNDS {
            let remark = format!("Not done: `{}` still fails after {MAX_ROUNDS} rounds.", verify.command);
            return self.label("gate-failed", exit::GATE, &remark);
        }
        self.ask()
    }

    /// The outcome of the gate is unknown; it changes nothing, so it runs again under a new number.
    pub(super) fn check_lost(&mut self, verify: &Verify) -> Yielded {
        self.state.lost_checks = self.state.lost_checks.saturating_add(1);
        if self.state.lost_checks <= LOST_CHECKS {
            return self.verify(verify.round);
        }
        self.state.lost_checks = 0;
        if verify.round == 0 {
            return self.next();
        }
        self.label("unverified", exit::DONE, "Not verified: the outcome of the verification command was lost.")
    }

    /// The gate may not run; before the first edit that says nothing about the task.
    pub(super) fn check_refused(&mut self, verify: &Verify, failed: &Failed) -> Yielded {
        if verify.round == 0 {
            return self.next();
        }
        self.label("unverified", exit::DONE, &format!("Not verified: {}.", failed.message))
    }

    /// Ends with a label; the driver puts the model's last words before the remark.
    fn label(&mut self, status: &str, code: u8, remark: &str) -> Yielded {
        let (status, text) = (status.to_owned(), remark.to_owned());
        self.finish(Finished { status, exit: u32::from(code), text, ..Finished::default() })
    }

    pub(super) fn give_up(&mut self, why: &str) -> Yielded {
        self.finish(Finished {
            status: "failed".to_owned(),
            exit: u32::from(exit::FAILED),
            text: format!("stopped: {why}, also after a change of approach was demanded"),
            code: "TB-AGENT-002".to_owned(),
            hints: vec!["say more precisely what to do with `tinkerbell tell TASK TEXT`, or try another model with -m".to_owned()],
            ..Finished::default()
        })
    }

    pub(super) fn failed(&mut self, failed: Failed) -> Yielded {
        self.finish(Finished {
            status: "failed".to_owned(),
            exit: if failed.exit == 0 { u32::from(exit::FAILED) } else { failed.exit },
            text: failed.message,
            code: failed.code,
            hints: failed.hints,
            ..Finished::default()
        })
    }

    pub(super) fn defect(&mut self, what: &str) -> Yielded {
        self.finish(Finished {
            status: "failed".to_owned(),
            exit: u32::from(exit::INTERNAL),
            text: format!("a defect of ours: {what}"),
            code: "TB-AGENT-006".to_owned(),
            ..Finished::default()
        })
    }

    pub(super) fn finish(&mut self, finished: Finished) -> Yielded {
        self.state.queue.clear();
        self.state.units.clear();
        self.state.done = Some(finished.clone());
        Yielded::Done(finished)
    }
}
