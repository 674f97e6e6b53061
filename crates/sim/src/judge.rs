//! The judgement at the end: what was recorded against what really happened.
//!
//! Invariant: every deed of a finished task happened as often as its class allows, and what was
//! recorded of it is the truth.

use crate::plan::Deed;
use crate::stats::Count;
use crate::world::World;
use std::collections::BTreeMap;
use tinkerbell_core::event::{Action, Observation};
use tinkerbell_core::lifecycle::{OP_SEQ, Status, Task};
use tinkerbell_core::words::{RunId, Seq, TaskId};

/// What was recorded of one effect.
struct Recorded {
    seq: Seq,
    /// The tool, or another word for what it was.
    what: String,
    /// The unit that it waited for.
    unit: Option<Seq>,
    outcome: Option<Observation>,
}

/// Judges a history that ended by itself.
pub fn judge(world: &World) {
    for task in world.oracle.tasks() {
        let effects = effects(world, task.id);
        for effect in &effects {
            once(world, &task, effect);
        }
        commands(world, &task, &effects);
        money(world, &task, &effects);
        ending(world, &task, &effects);
    }
    for run in world.host.living() {
        world.oracle.fail("orphan process", format!("command {run} lives although all is done"));
    }
    for watched in world.people.watched() {
        let wanted = world.oracle.numbers(watched.task, watched.since, watched.last);
        let missed: Vec<u64> =
            wanted.iter().filter(|lsn| !watched.seen.contains(lsn) && !world.oracle.may_be_gone(**lsn)).copied().collect();
        let foreign: Vec<u64> = watched.seen.iter().filter(|lsn| !wanted.contains(lsn)).copied().collect();
        if !missed.is_empty() || !foreign.is_empty() {
            world.oracle.fail("watcher misses", format!("of {:?} it missed {missed:?}, and saw {foreign:?}", watched.task));
        }
    }
}

fn effects(world: &World, id: TaskId) -> Vec<Recorded> {
    let outcomes: BTreeMap<Seq, Observation> = world.oracle.observations(id).into_iter().collect();
    let mut found = Vec::new();
    for (seq, action) in world.oracle.intents(id) {
        let (what, unit) = match action {
            Action::Call(call) => (call.tool, unit_of(&call.args)),
            Action::Ask(_) => ("ask".to_owned(), None),
            Action::Op(op) => (op.kind, None),
            _ => ("prepare".to_owned(), None),
        };
        found.push(Recorded { seq, what, unit, outcome: outcomes.get(&seq).cloned() });
    }
    found
}

/// The unit in the arguments of `exec_wait`.
fn unit_of(args: &str) -> Option<Seq> {
    let rest = args.split_once("\"unit\":\"u")?.1;
    rest.split_once('"')?.0.parse().ok()
}

/// Each effect as often as its class allows.
fn once(world: &World, task: &Task, effect: &Recorded) {
    let done = world.peer.done(task.id, effect.seq);
    let which = format!("{} {} of task {} happened {done} times", effect.what, effect.seq, task.id.short(6));
    let text = match &effect.outcome {
        Some(Observation::Result(result)) => Some(result.text.as_str()),
        _ => None,
    };
    match effect.what.as_str() {
        "send" if done > 1 => world.oracle.fail("idempotent effect twice", which),
        "send" => {
            let truth = world.peer.joined(task.id, effect.seq).map(|answer| answer.to_string());
            if text.is_some() && truth.as_deref() != text {
                world.oracle.fail("untrue outcome", format!("{which}; recorded {text:?}, true is {truth:?}"));
            }
        }
        "look" | "land" | "unland" if done > 1 => world.oracle.fail("verifiable effect twice", which),
        "look" if text.is_some() && done == 0 => world.oracle.fail("recorded and never done", which),
        "unsafe" if done > 1 + world.oracle.allowed(task.id, effect.seq) => world.oracle.fail("unsafe effect twice", which),
        "unsafe" if text == Some("done") && done == 0 => world.oracle.fail("recorded and never done", which),
        _ => {}
    }
}

/// The true outcome of each command, delivered once.
fn commands(world: &World, task: &Task, effects: &[Recorded]) {
    for effect in effects.iter().filter(|effect| effect.what == "exec") {
        let truth = world.host.truth_of(RunId { task: task.id, seq: effect.seq });
        let which = format!("command {} of task {}", effect.seq, task.id.short(6));
        if truth.begun > 1 {
            world.oracle.fail("command started twice", format!("{which} began {} times", truth.begun));
        }
        let told = effects.iter().filter(|other| other.seq == effect.seq || other.unit == Some(effect.seq));
        let results: Vec<_> =
            told.filter_map(|other| if let Some(Observation::Result(result)) = &other.outcome { Some(result) } else { None }).collect();
        let ends: Vec<_> = results.iter().filter(|result| result.status != "running").collect();
        let Some(end) = ends.first() else {
            if wants_end(task, effect) {
                world.oracle.fail("outcome not delivered", which);
            }
            continue;
        };
        if ends.len() > 1 {
            world.oracle.fail("outcome delivered twice", format!("{which}: {} ends", ends.len()));
        }
        let ended = truth.ended.clone().unwrap_or_default();
        let is_true = match end.status.as_str() {
            "exited" => Some(end.number) == ended.code,
            "signalled" => Some(end.number) == ended.signal,
            "lost" | "failed" => truth.witness_lost || world.cut(),
            _ => false,
        };
        if !is_true {
            world.oracle.fail("untrue outcome", format!("{which}: recorded {} {}, true is {truth:?}", end.status, end.number));
        }
        if end.status == "exited" && !world.cut() {
            let text: String = results.iter().map(|result| result.text.as_str()).collect();
            for at in 1..=truth.order.lines {
                let count = text.matches(&truth.order.line(at)).count();
                if count != 1 {
                    world.oracle.fail("output not delivered once", format!("{which}: line {at} was shown {count} times\n{text}"));
                }
            }
        }
    }
}

/// Whether the command's task went on to its own end, and so must have heard of it.
fn wants_end(task: &Task, effect: &Recorded) -> bool {
    effect.outcome.is_some() && task.finished.as_ref().is_some_and(|finished| finished.status == "unverified")
}

/// What was paid for was settled, once per answer that was heard.
fn money(world: &World, task: &Task, effects: &[Recorded]) {
    let mut settled: BTreeMap<Seq, Vec<u64>> = BTreeMap::new();
    for (seq, cost) in world.oracle.settled(task.id) {
        settled.entry(seq).or_default().push(cost);
    }
    for effect in effects.iter().filter(|effect| effect.what == "ask") {
        let costs = settled.get(&effect.seq).map_or(&[][..], Vec::as_slice);
        let paid = world.peer.paid(task.id, effect.seq);
        let which = format!("model call {} of task {}: settled {costs:?}, paid {paid:?}", effect.seq, task.id.short(6));
        match (effect.outcome.is_some(), costs) {
            (true, [cost]) if paid.last() == Some(cost) => {}
            (false, []) => {}
            _ => world.oracle.fail("money not settled once", which),
        }
    }
    if !task.held.is_empty() && !task.is_open() {
        world.oracle.fail("money still held", format!("task {}: {:?}", task.id.short(6), task.held));
    }
}

/// A task that ended by itself did all of its plan; others ended as somebody wanted.
fn ending(world: &World, task: &Task, effects: &[Recorded]) {
    let name = world.name_of(task);
    let which = format!("task {name}, {}", task.id.short(6));
    let Some(plan) = world.plan.task(name) else { return };
    if task.status == Status::Removed {
        return world.count(Count::Removed);
    }
    let Some(finished) = &task.finished else { return world.oracle.fail("task never ended", which) };
    match finished.status.as_str() {
        "unverified" => world.count(Count::Finished),
        "cancelled" => return world.count(Count::Cancelled),
        // A record that can not be read is our house's own fault, and ends the task that needs it.
        _ if world.read_failed() => return,
        _ => return world.oracle.fail("task failed", format!("{which}: {} {}", finished.code, finished.text)),
    }
    let own = effects.iter().filter(|effect| effect.seq < OP_SEQ && effect.outcome.is_some());
    let deeds = own.filter(|effect| !matches!(effect.what.as_str(), "prepare" | "exec_wait" | "ask")).count();
    let wanted = plan.deeds.iter().filter(|deed| **deed != Deed::Ask).count();
    if deeds != wanted {
        world.oracle.fail("plan not done", format!("{which} did {deeds} of {wanted}"));
    }
}
