//! `wal repair`: what is wrong with a damaged journal, what mending it would lose, and the mending.
//!
//! The journal plans and acts; this only finds the words. Invariant: without `apply` nothing is
//! changed, and with it nothing is done that was not printed first.

use super::super::Shop;
use super::super::text::size;
use super::is_missing;
use std::path::Path;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_wal::repair::{Act, Plan, Repair, Step};

/// Explains, and with `apply` mends.
///
/// # Errors
/// When a daemon holds the journal, when nothing mends it, or when a directory can not be used.
pub fn repair(shop: &Shop<'_>, apply: bool, from: Option<&Path>, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    let repair = Repair::look(&shop.places.journal(), from)?;
    let plan = repair.plan().clone();
    words(&plan).iter().for_each(|line| out.data(line));
    if plan.steps.is_empty() && plan.stuck.is_none() {
        return Ok(exit::DONE);
    }
    if !apply && plan.stuck.is_none() {
        if from.is_none() {
            out.talk("a backup of the journal may lose less: tinkerbell wal repair --from DIR");
        }
        out.talk("nothing was changed; to do this: the same command with --apply");
        return Ok(exit::FAILED);
    }
    // A plan that is stuck is refused here with its reason.
    let done = repair.apply()?;
    done.aside.iter().for_each(|name| out.data(&format!("kept      {name}")));
    out.data(&format!("repaired  the newest record is {}", done.tip));
    Ok(exit::DONE)
}

fn words(plan: &Plan) -> Vec<String> {
    if plan.steps.is_empty() && plan.stuck.is_none() {
        return vec![format!("the journal is whole up to record {}; there is nothing to repair", plan.tip)];
    }
    let mut lines = vec![format!("stands    up to record {}", plan.stands)];
    for step in &plan.steps {
        lines.push(format!("damaged   {}, byte {}, record {}: {}", step.damage.file, step.damage.offset, step.damage.lsn, step.damage.why));
        lines.push(format!("  mend    {}", act(step)));
        lines.push(format!("  loses   {}", loss(step)));
    }
    if let Some((damage, why)) = &plan.stuck {
        lines.push(format!("damaged   {}, byte {}, record {}: {}", damage.file, damage.offset, damage.lsn, damage.why));
        lines.push(format!("  stuck   {why}"));
    } else {
        lines.push("aside     each file that is replaced is copied to NAME.damaged-<n> first".to_owned());
    }
    if plan.checkpoint {
        lines
            .push("aside     the checkpoint too, because it stands for records that are lost; the next start reads all records".to_owned());
    }
    lines.extend(plan.refused.iter().map(|copy| format!("unfit     {copy}")));
    if plan.stuck.is_none() {
        lines.push(format!("then      the newest record is {}", plan.tip));
    }
    lines
}

fn act(step: &Step) -> String {
    match &step.act {
        Act::Cut { at } => format!("end {} at byte {at}, behind its last good batch", step.damage.file),
        Act::Take { from, name, size_bytes } => format!("take {name} ({}) from {}", size(*size_bytes), from.display()),
    }
}

fn loss(step: &Step) -> String {
    let cut = matches!(step.act, Act::Cut { .. });
    let whole = if step.whole > 0 { format!("; {} of what is cut are whole and stay in the copy", step.whole) } else { String::new() };
    match step.loses {
        Some((first, last)) => format!("records {first} to {last}, which had been acknowledged{whole}"),
        None if cut => format!("whatever followed; nothing is left that tells how much{whole}"),
        None => "nothing".to_owned(),
    }
}
