//! The tail of a request: what moves from step to step, in few words.
//!
//! It is recorded with the intent and sent with the newest message only. Invariant: it never holds
//! more than a screen, and nothing that only a clock could tell.

use super::Turn;
use std::fmt::Write as _;

/// Steps of a plan that are shown.
const PLAN_SHOWN: usize = 20;
/// Longest line of the plan, in characters.
const PLAN_LINE: usize = 120;

impl Turn {
    pub(super) fn tail(&self) -> String {
        let mut out = String::new();
        self.tail_plan(&mut out);
        if !self.state.units.is_empty() {
            let units: Vec<String> = self.state.units.iter().map(|seq| format!("u{seq}")).collect();
            line(&mut out, &format!("Running in the background: {}. Use exec_wait.", units.join(", ")));
        }
        if let Some(left) = self.budget() {
            line(&mut out, &left);
        }
        for nudge in &self.state.nudges {
            line(&mut out, nudge);
        }
        out
    }

    fn tail_plan(&self, out: &mut String) {
        for (index, step) in self.facts.plan.iter().take(PLAN_SHOWN).enumerate() {
            if index == 0 {
                line(out, "Plan:");
            }
            let mark = match step.status.as_str() {
                "done" => "x",
                "active" => ">",
                _ => " ",
            };
            let text: String = step.text.chars().take(PLAN_LINE).collect();
            line(out, &format!("[{mark}] {text}"));
        }
    }

    /// What is left of the scarcest limit, once less than half is left.
    fn budget(&self) -> Option<String> {
        let caps = &self.facts.caps;
        let share = |used: u64, cap: Option<u64>| cap.filter(|cap| *cap > 0).map(|cap| cap.saturating_sub(used).saturating_mul(100) / cap);
        let left = [
            ("steps", share(u64::from(self.state.step.saturating_sub(1)), caps.steps.map(u64::from))),
            ("money", share(self.facts.spent.0, caps.nano_usd)),
            ("tokens", share(self.facts.tokens, caps.tokens)),
            ("CPU time of commands", share(self.facts.used.0, caps.cpu_ms)),
            ("disk for commands", share(self.facts.used.1, caps.disk_bytes)),
        ];
        let (what, left) = left.into_iter().filter_map(|(what, left)| left.map(|left| (what, left))).min_by_key(|(_, left)| *left)?;
        match left {
            50.. => None,
            25..50 => Some(format!("Less than half of the {what} is left.")),
            10..25 => Some(format!("Less than a quarter of the {what} is left: finish what matters most.")),
            _ => Some(format!("Less than a tenth of the {what} is left: bring the work to a clean end and say what is missing.")),
        }
    }
}

fn line(out: &mut String, text: &str) {
    // Writing into a string can not fail.
    writeln!(out, "{text}").unwrap_or_default();
}
