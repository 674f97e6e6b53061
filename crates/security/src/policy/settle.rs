//! After the rules: risk and the user's own words settle what no rule does, and a waiver answers asks.
//!
//! Invariants: nothing here turns a rule's `ask` or `forbid` into something milder, except a waiver, and
//! that leaves alone the floor, critical risk, and what a rule that forbids might be about.

use super::judge::{Layer, PROVENANCE, Reason, Source, Verdict};
use super::options::Decision;
use super::risk::{Risk, Weight};

/// Puts risk and authorisation into a verdict. A tool of somebody else's server is never allowed by it.
pub fn settle(verdict: &mut Verdict, weight: &Weight, is_served: bool) {
    let table = if is_served { weight.decision().max(Decision::Ask) } else { weight.decision() };
    let all = verdict.reasons.iter_mut().chain(verdict.commands.iter_mut().flat_map(|command| &mut command.reasons));
    for reason in all.filter(|reason| reason.source == Source::Risk) {
        reason.decision = table;
        if table != Decision::Ask {
            reason.why = format!("{} ({})", reason.why, weight.told());
        }
    }
    if weight.overwrites {
        push(verdict, Layer::Floor, "it overwrites or deletes a branch that others build upon");
    }
    verdict.decision = strictest(verdict);
    let copied = weight.tainted.as_ref().filter(|_| weight.risk >= Risk::High && verdict.decision == Decision::Allow && !is_ruled(verdict));
    if copied.is_some() {
        push(verdict, Layer::BuiltIn, "what it does was read somewhere, and you did not ask for it");
        verdict.decision = Decision::Ask;
    }
}

/// Why a person is asked. Risk and authorisation come first, where there is something to say: a line is cut
/// where a screen ends, and what a file says may be long.
#[must_use]
pub fn title(verdict: &Verdict, weight: &Weight) -> String {
    let plain = verdict.why();
    if weight.risk == Risk::Low && weight.tainted.is_none() { plain } else { format!("({}) {plain}", weight.told()) }
}

/// What becomes of an ask where the user wants nobody asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unasked {
    /// It is done.
    Done,
    /// It is asked all the same.
    Asked,
    /// It is refused.
    Refused(String),
}

/// Answers an ask under a waiver.
#[must_use]
pub fn unasked(verdict: &Verdict, weight: &Weight) -> Unasked {
    if weight.risk == Risk::Critical {
        return Unasked::Refused(format!("{}; nobody is asked, and critical risk is never taken unasked", title(verdict, weight)));
    }
    if reasons(verdict).any(|reason| reason.source == Source::Doubt { forbids: true }) {
        return Unasked::Refused(format!("{}; nobody is asked, and what a rule may forbid is not done unasked", title(verdict, weight)));
    }
    let is_floor = reasons(verdict).any(|reason| reason.layer == Layer::Floor && reason.decision == Decision::Ask);
    if is_floor { Unasked::Asked } else { Unasked::Done }
}

fn reasons(verdict: &Verdict) -> impl Iterator<Item = &Reason> {
    verdict.reasons.iter().chain(verdict.commands.iter().flat_map(|command| &command.reasons))
}

fn strictest(verdict: &Verdict) -> Decision {
    reasons(verdict).map(|reason| reason.decision).max().unwrap_or(Decision::Ask)
}

fn push(verdict: &mut Verdict, layer: Layer, why: &str) {
    let rule = if layer == Layer::Floor { String::new() } else { PROVENANCE.to_owned() };
    verdict.reasons.push(Reason { rule, ..Reason::of_house(layer, why.to_owned()) });
}

/// Whether a rule of the machine or the user allows it by name, so that a person has thought of it. A grant is
/// about a beginning: of what follows its example alone was seen, which counts among the words.
fn is_ruled(verdict: &Verdict) -> bool {
    let own = |reason: &Reason| reason.decision == Decision::Allow && matches!(reason.layer, Layer::Organisation | Layer::User);
    if verdict.commands.is_empty() {
        return verdict.reasons.iter().any(own);
    }
    verdict.opaque.is_none() && verdict.commands.iter().all(|command| command.reasons.iter().any(own))
}

#[cfg(test)]
mod tests;
