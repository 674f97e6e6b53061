//! Making a request fit into the model's window.
//!
//! First old results give way to one line each, then old answers go with their results, oldest
//! first. Room is made in quarters of the window, so that the prefix moves rarely. Invariant: a
//! call and its result are never parted, and the same blocks always give the same bytes.

use super::{Block, Item, user};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::model::{Message, ModelCall};
use tinkerbell_core::text::estimate_tokens;

/// Bytes that roles and punctuation cost per message.
const FRAME: usize = 16;
/// Newest blocks that are not touched in the first pass: what the model asked for just now.
const FRESH: usize = 1;
const LEFT_OUT: &str = "[runtime] Older steps were left out to save room. The files in the worktree are as those steps left them.";

/// Estimated tokens of so many bytes, with a margin for texts that are denser than prose.
pub fn estimate(bytes: usize) -> u64 {
    let plain = estimate_tokens(bytes);
    plain.saturating_add(plain / 8)
}

/// Bytes of all but the messages.
pub fn fixed_bytes(call: &ModelCall) -> usize {
    let tools: usize = call.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.schema.len() + FRAME).sum();
    call.system.len() + tools + call.tail.len()
}

/// Bytes of a message.
pub fn message_bytes(message: &Message) -> usize {
    FRAME
        + match message {
            Message::User(text) => text.len(),
            Message::Assistant { parts, .. } => {
                parts.iter().map(|part| part.text.len() + part.tool.len() + part.call_id.len() + FRAME).sum()
            }
            Message::Tool { call_id, tool, text } => call_id.len() + tool.len() + text.len(),
        }
}

/// Shortens `blocks` until they fit beside `fixed` bytes into `limit` tokens.
pub fn fit(blocks: &mut Vec<Block>, fixed: usize, limit: u64) -> Result<(), Fault> {
    let size = |blocks: &[Block]| estimate(fixed + blocks.iter().flatten().map(|item| message_bytes(&item.message)).sum::<usize>());
    let total = size(blocks);
    if total <= limit {
        return Ok(());
    }
    let quarter = (limit / 4).max(1);
    let goal = total.saturating_sub((total - limit).div_ceil(quarter).saturating_mul(quarter));
    let old = blocks.len().saturating_sub(FRESH);
    let mut bytes: usize = blocks.iter().flatten().map(|item| message_bytes(&item.message)).sum();
    for item in blocks.iter_mut().take(old).flatten() {
        if estimate(fixed + bytes) <= goal {
            break;
        }
        bytes = bytes.saturating_sub(message_bytes(&item.message));
        shorten(item);
        bytes += message_bytes(&item.message);
    }
    if size(blocks) <= limit {
        return Ok(());
    }
    let mut left_out = false;
    while blocks.len() > 2 && size(blocks) > goal.max(limit / 2) {
        blocks.remove(1);
        left_out = true;
    }
    if left_out {
        blocks.insert(1, vec![user(LEFT_OUT.to_owned())]);
    }
    if size(blocks) > limit {
        blocks.iter_mut().flatten().for_each(shorten);
    }
    if size(blocks) > limit { Err(overflow(size(blocks), limit)) } else { Ok(()) }
}

fn shorten(item: &mut Item) {
    let Some(reference) = item.reference.take() else { return };
    if let Message::Tool { text, .. } = &mut item.message
        && reference.len() < text.len()
    {
        *text = reference;
    }
}

fn overflow(tokens: u64, limit: u64) -> Fault {
    let message = format!("the request needs about {tokens} tokens and the model's window leaves {limit}");
    Fault::new("TB-AGENT-003", exit::FAILED, message)
        .hint("take a model with a larger window: -m PROVIDER/MODEL")
        .hint("or correct `context_tokens` of the model in the configuration")
}
