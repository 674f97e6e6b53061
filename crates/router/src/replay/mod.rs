//! The provider `replay`: recorded turns instead of a model.
//!
//! Keeps no count of its own: which turn is due follows from the transcript, so a task that was
//! killed and resumed goes on where it was. Invariant: the same transcript gets the same turn.

mod format;

use crate::answer;
use crate::fault;
use crate::provider::Target;
use format::Turn;
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::{Made, Part, PartKind};
use tinkerbell_core::model::{Completion, Message, ModelCall, StopReason};
use tinkerbell_core::money::Usage;

/// The turn that is due, and how long it takes.
///
/// # Errors
/// `TB-ROUTER-010` when the recording is damaged or at its end.
pub fn answer(recording: &[u8], call: &ModelCall, target: &Target) -> Result<(Completion, Duration), Fault> {
    let text = std::str::from_utf8(recording).map_err(|_| fault::replay(format!("the recording of `{}` is no text", target.provider)))?;
    let due = call.messages.iter().filter(|message| matches!(message, Message::Assistant { .. })).count();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (at, line) = lines.clone().nth(due).ok_or_else(|| {
        fault::replay(format!("the recording of `{}` has {} turns and the task asked for one more", target.provider, lines.count()))
    })?;
    let turn: Turn = serde_json::from_str(line)
        .map_err(|error| fault::replay(format!("line {} of the recording of `{}` can not be read: {error}", at + 1, target.provider)))?;
    let wait = Duration::from_millis(turn.delay_ms);
    Ok((completion(turn, due, call, target), wait))
}

fn completion(turn: Turn, due: usize, call: &ModelCall, target: &Target) -> Completion {
    let part = |kind: PartKind, text: &str| Part { kind: kind as i32, text: text.to_owned(), ..Part::default() };
    let mut parts = Vec::new();
    if !turn.reasoning.is_empty() {
        parts.push(part(PartKind::Reasoning, &turn.reasoning));
    }
    if !turn.text.is_empty() {
        parts.push(part(PartKind::Text, &turn.text));
    }
    for (at, made) in turn.calls.iter().enumerate() {
        let args = serde_json::Value::Object(made.args.clone()).to_string();
        parts.push(Part { kind: PartKind::Call as i32, text: args, call_id: format!("call_{due}_{at}"), tool: made.tool.clone() });
    }
    let told = turn.usage.map(|tokens| Usage { input: tokens.input, cached: tokens.cached, cache_write: 0, output: tokens.output });
    let output = answer::tokens(parts.iter().map(|part| part.text.len()).sum());
    let made = Made {
        provider: target.provider.clone(),
        wire: target.wire.name().to_owned(),
        host: String::new(),
        asked: target.model.clone(),
        served: turn.priced_as.unwrap_or_else(|| target.model.clone()),
        reply_id: format!("turn-{}", due + 1),
    };
    Completion {
        stop: if turn.calls.is_empty() { StopReason::End } else { StopReason::Calls },
        parts,
        made,
        estimated: told.is_none(),
        usage: told.unwrap_or_else(|| Usage { input: answer::estimate_input(call), output, ..Usage::default() }),
        retries: 0,
        lost: Usage::default(),
    }
}
