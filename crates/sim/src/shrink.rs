//! Making a failing plan smaller while it fails in the same way.
//!
//! Invariant: what it gives back was run and failed.

use crate::history::{Outcome, run};
use crate::plan::{Plan, Verb};
use crate::plant::Plant;

/// Runs that shrinking may take.
const RUNS: u32 = 400;

/// Takes away tasks, acts, faults and deeds, one by one, as long as the failure stays.
pub fn shrink(mut plan: Plan, mut outcome: Outcome, plant: Option<Plant>) -> (Plan, Outcome) {
    let Some(kind) = outcome.violation.as_ref().map(|found| found.kind) else { return (plan, outcome) };
    let mut left = RUNS;
    loop {
        let mut is_smaller = false;
        for smaller in candidates(&plan) {
            if left == 0 {
                return (plan, outcome);
            }
            left -= 1;
            let tried = run(smaller.clone(), plant, true);
            if tried.violation.as_ref().is_some_and(|found| found.kind == kind) {
                (plan, outcome, is_smaller) = (smaller, tried, true);
                break;
            }
        }
        if !is_smaller {
            return (plan, outcome);
        }
    }
}

fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut found = Vec::new();
    for at in 0..plan.tasks.len() {
        let mut smaller = plan.clone();
        let gone = smaller.tasks.remove(at).name;
        smaller.acts.retain(|act| act.task != gone);
        found.push(smaller);
    }
    for at in 0..plan.faults.len() {
        let mut smaller = plan.clone();
        smaller.faults.remove(at);
        found.push(smaller);
    }
    for at in (0..plan.acts.len()).filter(|at| plan.acts.get(*at).is_some_and(|act| act.verb != Verb::Submit)) {
        let mut smaller = plan.clone();
        smaller.acts.remove(at);
        found.push(smaller);
    }
    for (at, task) in plan.tasks.iter().enumerate() {
        for deed in 0..task.deeds.len() {
            let mut smaller = plan.clone();
            if let Some(task) = smaller.tasks.get_mut(at) {
                task.deeds.remove(deed);
            }
            found.push(smaller);
        }
    }
    if plan.watchers > 0 {
        found.push(Plan { watchers: 0, ..plan.clone() });
    }
    found
}
