//! Grounds: the user's own words, and what others wrote that the model has read.
//!
//! Gathered only for deeds whose judgement may depend on them. Invariant: a text counts as the user's only
//! if the journal says that the user wrote it, the work is bounded, and what was left out is said.

use super::stage::Stage;
use tinkerbell_core::effect::{Past, Stall};
use tinkerbell_core::event::{Action, Observation};
use tinkerbell_core::lifecycle::Approval;
use tinkerbell_core::port::Grounds;
use tinkerbell_core::words::Lsn;

/// Most bytes of untrusted text that are looked at, newest first.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Fills in words and untrusted texts.
pub async fn gather(stage: &Stage, grounds: &mut Grounds) -> Result<(), Stall> {
    let past = stage.effects.past(Lsn(0)).await?;
    let task = stage.effects.task();
    let mut words = vec![task.submitted.goal.clone()];
    words.extend(task.submitted.verify.clone());
    words.extend(past.iter().filter_map(|entry| match entry {
        Past::Note { text, from_user: true, .. } => Some(text.clone()),
        _ => None,
    }));
    words.extend(task.approvals.values().filter_map(typed).cloned());
    // What a repository's configuration holds is taken out of them, too. Whoever wrote that could take a "not" away.
    words.retain(|text| !tinkerbell_secret::has_hole(text));
    let mut room = MOST_BYTES;
    let rules = task.prepared.as_ref().map(|prepared| prepared.rules.as_str());
    let texts = rules.into_iter().chain(past.iter().rev().filter_map(read));
    let (mut untrusted, mut is_cut) = (Vec::new(), past.iter().any(Past::is_cut));
    for text in texts {
        let kept = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
        room -= kept.len();
        is_cut |= kept.len() < text.len();
        if !kept.is_empty() {
            untrusted.push(kept.to_owned());
        }
        if is_cut && room == 0 {
            break;
        }
    }
    (grounds.words, grounds.untrusted, grounds.is_cut) = (words.into(), untrusted.into(), is_cut);
    Ok(())
}

/// The text of a yes. A no says what the user does not want, and an option that was chosen the model wrote.
fn typed(approval: &Approval) -> Option<&String> {
    let (yes, text) = approval.answer.as_ref()?;
    (*yes && !approval.asked.options.contains(text)).then_some(text)
}

/// What the model read of an effect, where somebody else may have written it.
fn read(entry: &Past) -> Option<&str> {
    match entry {
        Past::Effect { action: Action::Call(call), observation: Observation::Result(result), .. } => {
            // Its own plan, and the user's answers, which count as words.
            (!matches!(call.tool.as_str(), "plan" | "ask")).then_some(result.text.as_str())
        }
        Past::Effect { observation: Observation::Verdict(verdict), .. } => Some(verdict.text.as_str()),
        _ => None,
    }
}
