//! The context: from a task's past to the bytes of a request.
//!
//! Order: prefix (words, rules, environment), tools, goal, history, tail. Words of the user and
//! notes enter between steps, never between a call and its result. Invariant: what was rendered once
//! is rendered the same for ever, but for old material left out when the window is full.

mod fit;
#[cfg(test)]
mod tests;

use crate::prompt;
use crate::turn::is_own;
use std::collections::VecDeque;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::Past;
use tinkerbell_core::event::{Action, Ask, Call, Observation, PartKind, Reply, ResultSeen, Verdict, Verify};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::model::{Message, ModelCall, ModelCard};
use tinkerbell_core::tool::{ToolSpec, output_name};
use tinkerbell_core::words::{BlobRef, Lsn};

/// All that a request is made of.
pub struct Sources<'a> {
    /// The task.
    pub task: &'a Task,
    /// The model.
    pub card: &'a ModelCard,
    /// The tools, in fixed order.
    pub tools: &'a [ToolSpec],
    /// The past; what lies behind the question's `through` is left out.
    pub past: &'a [Past],
    /// The question.
    pub ask: &'a Ask,
    /// When a silent model is given up.
    pub stall: Duration,
}

/// When a check ran that was not the first and not the gate.
const AFTER_CHANGE: &str = "after your newest change";

/// A message, and the line that stands for it when the window is full.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    message: Message,
    reference: Option<String>,
}

/// Messages that stay or go together: an answer with its results, or a note.
type Block = Vec<Item>;

/// Renders a request.
///
/// # Errors
/// TB-AGENT-003 when even the goal alone does not fit into the model's window.
pub fn render(sources: &Sources<'_>, window_tokens: u64) -> Result<ModelCall, Fault> {
    let Some(prepared) = &sources.task.prepared else {
        return Err(Fault::new("TB-AGENT-006", exit::INTERNAL, "a model was to be asked before the workspace stood"));
    };
    let mut call = ModelCall {
        task: sources.task.id,
        seq: 0,
        attempt: 0,
        model: sources.card.name.clone(),
        system: prompt::system(sources.card, prepared),
        tools: prompt::tools(sources.card, sources.tools, prepared),
        messages: Vec::new(),
        tail: sources.ask.tail.clone(),
        max_output_tokens: sources.ask.max_output_tokens,
        stall: sources.stall,
    };
    let fixed = fit::fixed_bytes(&call);
    let mut blocks = vec![vec![user(sources.task.submitted.goal.clone())]];
    blocks.extend(history(sources.past, Lsn(sources.ask.through)));
    let limit = window_tokens.saturating_sub(sources.ask.max_output_tokens).max(window_tokens / 4);
    fit::fit(&mut blocks, fixed, limit)?;
    call.messages = blocks.into_iter().flatten().map(|item| item.message).collect();
    Ok(call)
}

/// Estimated tokens of a request.
pub fn tokens(call: &ModelCall) -> u64 {
    let messages: usize = call.messages.iter().map(fit::message_bytes).sum();
    fit::estimate(fit::fixed_bytes(call) + messages)
}

fn user(text: String) -> Item {
    Item { message: Message::User(text), reference: None }
}

/// The past as blocks of messages.
fn history(past: &[Past], through: Lsn) -> Vec<Block> {
    let mut history = History::default();
    for entry in past {
        match entry {
            Past::Effect { lsn, action, observation, .. } if *lsn <= through => history.effect(action, observation),
            Past::Note { lsn, text, from_user } if *lsn <= through => {
                history.note(if *from_user { text.clone() } else { format!("[runtime] {text}") });
            }
            _ => {}
        }
    }
    history.close("not run: the task stopped before this call");
    history.blocks
}

/// Folds the past; `open` are calls of the newest answer that have no result yet.
#[derive(Default)]
struct History {
    blocks: Vec<Block>,
    open: VecDeque<(String, String)>,
    held: Vec<Item>,
    cut: bool,
    checks: u32,
    /// What the newest check printed.
    printed: Option<String>,
}

impl History {
    /// When a check ran, in words.
    fn when(&mut self, verify: &Verify) -> String {
        self.checks += 1;
        match verify.round {
            0 if self.checks == 1 => "before your first edit".to_owned(),
            0 => AFTER_CHANGE.to_owned(),
            round => format!("after your answer, round {round} of {}", crate::turn::MAX_ROUNDS),
        }
    }

    /// A file that the runtime shows unasked; one that is not there was only a word.
    fn shown(&mut self, call: &Call, result: &ResultSeen) {
        if result.status == "done" {
            let reference = Some(reference(&call.tool, result));
            let message = Message::User(format!("[runtime] {}", result.text.trim_end()));
            self.blocks.push(vec![Item { message, reference }]);
        }
    }

    fn effect(&mut self, action: &Action, observation: &Observation) {
        match (action, observation) {
            (Action::Ask(_), Observation::Reply(reply)) => self.reply(reply),
            (Action::Call(call), Observation::Result(result)) if is_own(call) => self.shown(call, result),
            (Action::Call(call), Observation::Result(result)) => self.result(call, result),
            (Action::Verify(verify), Observation::Verdict(verdict)) => {
                let when = self.when(verify);
                let mut text = verdict_text(verify, verdict, &when);
                if when == AFTER_CHANGE && !verdict.passed && self.printed.as_ref() == Some(&verdict.text) {
                    text.push_str("\nThe output is the same as before your change: the cause is elsewhere.");
                }
                self.printed = Some(verdict.text.clone());
                self.note(text);
            }
            _ => {}
        }
    }

    fn reply(&mut self, reply: &Reply) {
        self.close("not run: the task stopped before this call");
        self.cut = reply.stop == "length";
        let calls = reply.parts.iter().filter(|part| part.kind == PartKind::Call as i32);
        self.open = calls.map(|part| (part.call_id.clone(), part.tool.clone())).collect();
        let says = reply.parts.iter().any(|part| part.kind == PartKind::Text as i32 && !part.text.trim().is_empty());
        // An answer without words and calls is left out: providers refuse empty messages.
        if says || !self.open.is_empty() {
            let message = Message::Assistant { parts: reply.parts.clone(), made: reply.made.clone() };
            self.blocks.push(vec![Item { message, reference: None }]);
        }
        if self.cut {
            self.close("not run: the answer was cut at the output limit");
        }
    }

    fn result(&mut self, call: &Call, result: &ResultSeen) {
        let at = self.open.iter().position(|(id, _)| *id == call.call_id);
        let Some((call_id, tool)) = at.and_then(|at| self.open.remove(at)) else { return };
        let reference = Some(reference(&tool, result));
        self.append(Item { message: Message::Tool { call_id, tool, text: result.text.clone() }, reference });
        if self.open.is_empty() {
            self.release();
        }
    }

    fn note(&mut self, text: String) {
        if self.open.is_empty() {
            self.blocks.push(vec![user(text)]);
        } else {
            self.held.push(user(text));
        }
    }

    /// Gives every open call a result, because providers refuse a call without one.
    fn close(&mut self, why: &str) {
        while let Some((call_id, tool)) = self.open.pop_front() {
            self.append(Item { message: Message::Tool { call_id, tool, text: why.to_owned() }, reference: None });
        }
        self.release();
    }

    fn release(&mut self) {
        for item in std::mem::take(&mut self.held) {
            self.blocks.push(vec![item]);
        }
    }

    fn append(&mut self, item: Item) {
        match self.blocks.last_mut() {
            Some(block) => block.push(item),
            None => self.blocks.push(vec![item]),
        }
    }
}

/// The line that stands for a result when the window is full.
fn reference(tool: &str, result: &ResultSeen) -> String {
    let kept = BlobRef::from_bytes(&result.full).map_or(String::new(), |blob| format!("; whole output: {}", output_name(&blob)));
    let what = if result.summary.is_empty() { tool } else { &result.summary };
    format!("[older result left out to save room: {what}{kept}]")
}

fn verdict_text(verify: &Verify, verdict: &Verdict, when: &str) -> String {
    let how = if verdict.passed { "passed".to_owned() } else { format!("failed with exit {}", verdict.exit) };
    let restored = if verdict.restored.is_empty() {
        String::new()
    } else {
        format!("\nIt changed these files, which were put back: {}", verdict.restored.join(", "))
    };
    let text = if verdict.passed { "" } else { verdict.text.as_str() };
    let next = match (verdict.passed, verify.round) {
        (true, 0) if when == AFTER_CHANGE => "If nothing of the task is left, end it.",
        (true, _) | (false, 0) => "",
        (false, _) => "\nThe task is not done. Find the cause and go on.",
    };
    format!("[runtime] The check `{}` {how} ({when}).{restored}\n{text}{next}", verify.command).trim_end().to_owned()
}
