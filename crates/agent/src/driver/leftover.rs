//! What commands in the background did on the network since somebody last waited for them.
//!
//! The check and the end of a task tell it, so that no connection is missing in the journal. Invariant: a
//! connection is told by one effect, and by that one again when it is done again.

use super::House;
use super::told;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::Past;
use tinkerbell_core::event::{Action, Connection, Observation};
use tinkerbell_core::port::Found;
use tinkerbell_core::words::{RunId, Seq, TaskId};

/// Most different connections that are told at once; each command told at most a hundred by itself.
const MOST: usize = 400;

/// The connections of all background commands that no effect before `seq` has told.
///
/// # Errors
/// The files of a run can not be read.
pub async fn connections(house: &House, (task, seq): (TaskId, Seq), past: &[Past]) -> Result<Vec<Connection>, Fault> {
    let mut found = Vec::new();
    for unit in past.iter().filter_map(background) {
        if let Found::Unit(unit) | Found::Lost(unit) = house.deps.sandbox.attach(RunId { task, seq: unit }).await? {
            found.extend(unit.shown(seq, None).await?.1.connections);
        }
    }
    Ok(found.iter().take(MOST).map(|one| told::connection(&*house.deps.guard, one)).collect())
}

/// The number after the last effect.
pub fn after(past: &[Past]) -> Seq {
    let numbers = past.iter().filter_map(|entry| if let Past::Effect { seq, .. } = entry { Some(*seq) } else { None });
    numbers.max().unwrap_or(0).saturating_add(1)
}

/// The number of a command that went on when its call ended.
fn background(entry: &Past) -> Option<Seq> {
    match entry {
        Past::Effect { seq, action: Action::Call(call), observation: Observation::Result(result), .. } => {
            (call.tool == "exec" && result.status == "running").then_some(*seq)
        }
        _ => None,
    }
}
