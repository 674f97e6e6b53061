//! Between the house's words and those of disk and socket.
//!
//! Pure, but for the memory of words that must live for ever. Invariant: what one side writes the
//! other reads back as it was; what it does not know of becomes the strictest meaning.

use super::format::{self, Answer, Event, Failure, Kind, Tokens};
use super::wire;
use crate::attempt::Item;
use crate::desk::Order;
use crate::options::{Pacing, Reasoning, Wire};
use crate::provider::Target;
use std::collections::HashSet;
use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::code::{Code, Fault};
use tinkerbell_core::model::{CallId, Completion, EditStyle, Message, ModelCall, ModelCard, ModelError, ModelEvent, StopReason, ToolMode};
use tinkerbell_core::money::Usage;
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_secret::{Named, Secret};

/// Most different words that are kept: the tools of a few releases and all error codes.
const MOST_WORDS: usize = 4_096;

/// Words that live as long as the process, because tools and error codes are constants elsewhere.
#[derive(Default)]
pub struct Words {
    known: Mutex<HashSet<&'static str>>,
}

impl Words {
    /// The same text for ever; `None` once too many different ones came.
    pub fn keep(&self, text: &str) -> Option<&'static str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(word) = known.get(text) {
            return Some(word);
        }
        if known.len() >= MOST_WORDS {
            return None;
        }
        let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
        known.insert(word);
        Some(word)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn tokens(usage: Usage) -> Option<Tokens> {
    let Usage { input, cached, cache_write, output } = usage;
    (usage != Usage::default()).then_some(Tokens { input, cached, cache_write, output })
}

/// Tokens as the house counts them.
pub fn usage(tokens: Option<Tokens>) -> Usage {
    tokens.map_or_else(Usage::default, |told| Usage {
        input: told.input,
        cached: told.cached,
        cache_write: told.cache_write,
        output: told.output,
    })
}

/// An event of a stream as it is written; every text passes `clean`.
pub fn event(item: &Item, clean: &dyn Fn(&str) -> String) -> Event {
    Event::of(match item {
        Ok(ModelEvent::Text(text)) => Kind::Text(clean(text)),
        Ok(ModelEvent::Reasoning(text)) => Kind::Reasoning(clean(text)),
        Ok(ModelEvent::Retrying { why, wait, spent }) => {
            Kind::Retrying(format::Retrying { why: clean(why), wait_ms: millis(*wait), spent: tokens(*spent) })
        }
        Ok(ModelEvent::Done(done)) => Kind::Done(answer(done, clean)),
        Err(error) => Kind::Failed(failure(error, clean)),
    })
}

fn answer(done: &Completion, clean: &dyn Fn(&str) -> String) -> Answer {
    let mut parts = done.parts.clone();
    for part in &mut parts {
        // A model may put anything into any of them.
        for text in [&mut part.text, &mut part.tool, &mut part.call_id] {
            *text = clean(text);
        }
    }
    Answer {
        parts,
        made: Some(done.made.clone()),
        usage: tokens(done.usage),
        estimated: done.estimated,
        stop: done.stop.word().to_owned(),
        retries: done.retries,
        lost: tokens(done.lost),
    }
}

fn failure(error: &ModelError, clean: &dyn Fn(&str) -> String) -> Failure {
    match error {
        ModelError::TooLong { limit } => Failure { too_long: Some(format::TooLong { limit: *limit }), ..Failure::default() },
        ModelError::Fault(fault) => of_fault(fault, clean),
        // Neither arises where a key and a target are given.
        ModelError::NeedsKey(_) | ModelError::Cut(_) => of_fault(&crate::fault::courier_mute(&error.to_string()), clean),
    }
}

/// A fault as it is written.
pub fn of_fault(fault: &Fault, clean: &dyn Fn(&str) -> String) -> Failure {
    Failure {
        too_long: None,
        code: fault.code.0.to_owned(),
        exit: u32::from(fault.exit),
        message: clean(&fault.message),
        hints: fault.hints.iter().map(|hint| clean(hint)).collect(),
        retryable: fault.retryable,
        retry_after_ms: fault.retry_after_ms,
    }
}

/// An event as the house knows it; `None` for kinds of a later release, and for `Cancelled`.
pub fn item(event: Event, words: &Words) -> Option<Item> {
    Some(match event.kind? {
        Kind::Text(text) => Ok(ModelEvent::Text(text)),
        Kind::Reasoning(text) => Ok(ModelEvent::Reasoning(text)),
        Kind::Retrying(told) => {
            Ok(ModelEvent::Retrying { why: told.why, wait: Duration::from_millis(told.wait_ms), spent: usage(told.spent) })
        }
        Kind::Done(answer) => Ok(ModelEvent::Done(Box::new(completion(answer)))),
        Kind::Failed(failed) => Err(error(failed, words)),
        Kind::Cancelled(_) => return None,
    })
}

fn completion(answer: Answer) -> Completion {
    let stop = match answer.stop.as_str() {
        "end" => StopReason::End,
        "calls" => StopReason::Calls,
        "filter" => StopReason::Filter,
        // An unknown reason: nothing in the answer may run.
        _ => StopReason::Length,
    };
    Completion {
        parts: answer.parts,
        made: answer.made.unwrap_or_default(),
        usage: usage(answer.usage),
        estimated: answer.estimated,
        stop,
        retries: answer.retries,
        lost: usage(answer.lost),
    }
}

fn error(failed: Failure, words: &Words) -> ModelError {
    if let Some(told) = failed.too_long {
        return ModelError::TooLong { limit: told.limit };
    }
    let code = words.keep(&failed.code).unwrap_or("TB-ROUTER-020");
    ModelError::Fault(Fault {
        code: Code(code),
        exit: u8::try_from(failed.exit).unwrap_or(tinkerbell_core::code::exit::INTERNAL),
        message: failed.message,
        hints: failed.hints,
        retryable: failed.retryable,
        retry_after_ms: failed.retry_after_ms,
    })
}

fn pairs(of: &[(String, String)]) -> Vec<wire::Pair> {
    of.iter().map(|(name, value)| wire::Pair { name: name.clone(), value: value.clone() }).collect()
}

/// Secrets for the socket, which is the one place where they stand in a message.
fn told(of: &[Named]) -> Vec<wire::Pair> {
    of.iter().map(|(name, value)| wire::Pair { name: name.clone(), value: value.expose().clone() }).collect()
}

fn untold(pairs: Vec<wire::Pair>) -> Vec<Named> {
    pairs.into_iter().map(|mut pair| (take(&mut pair.name), Secret::shared(take(&mut pair.value)))).collect()
}

fn unpair(pairs: Vec<wire::Pair>) -> Vec<(String, String)> {
    pairs.into_iter().map(|mut pair| (take(&mut pair.name), take(&mut pair.value))).collect()
}

/// An order for the socket.
pub fn order(order: &Order) -> wire::Order {
    wire::Order {
        id: order.call.id().to_string(),
        call: Some(call(&order.call)),
        target: Some(target(&order.target)),
        key: order.key.as_ref().map(|key| key.expose().clone()),
        network: told(&order.network),
        secrets: told(&order.secrets),
        pacing: Some(wire::Pacing {
            tries: order.pacing.tries,
            base_ms: millis(order.pacing.base),
            cap_ms: millis(order.pacing.cap),
            patience_ms: millis(order.pacing.patience),
            deadline_ms: millis(order.pacing.deadline),
            local_first_token: order.pacing.local_first_token,
            first_token_ms: millis(order.pacing.first_token),
        }),
    }
}

fn call(call: &ModelCall) -> wire::Call {
    let tool = |tool: &ToolSpec| wire::Tool {
        name: tool.name.to_owned(),
        description: tool.description.to_owned(),
        schema: tool.schema.to_owned(),
    };
    let message = |message: &Message| wire::Message {
        spoken: Some(match message {
            Message::User(text) => wire::Spoken::User(text.clone()),
            Message::Assistant { parts, made } => wire::Spoken::Assistant(wire::Assistant { parts: parts.clone(), made: made.clone() }),
            Message::Tool { call_id, tool, text } => {
                wire::Spoken::Result(wire::ToolResult { call_id: call_id.clone(), tool: tool.clone(), text: text.clone() })
            }
        }),
    };
    wire::Call {
        model: call.model.clone(),
        system: call.system.clone(),
        tools: call.tools.iter().map(tool).collect(),
        messages: call.messages.iter().map(message).collect(),
        tail: call.tail.clone(),
        max_output_tokens: call.max_output_tokens,
        stall_ms: millis(call.stall),
    }
}

fn target(target: &Target) -> wire::Target {
    wire::Target {
        provider: target.provider.clone(),
        model: target.model.clone(),
        wire: target.wire.name().to_owned(),
        base_url: target.base_url.clone(),
        host: target.host.clone(),
        is_local: target.is_local,
        keys: target.keys.clone(),
        headers: pairs(&target.headers),
        reasoning: target.reasoning.map_or("", Reasoning::name).to_owned(),
        tools: match target.card.tools {
            ToolMode::Native => "native",
            ToolMode::JsonSchema => "json-schema",
            ToolMode::Auto => "auto",
        }
        .to_owned(),
        context_tokens: target.card.context_tokens,
        max_output_tokens: target.card.max_output_tokens,
    }
}

/// An order from the socket; the error says what in it is not understood.
pub fn read_order(order: wire::Order, words: &Words) -> Result<Order, String> {
    let id: CallId = order.id.parse().map_err(|_| "the call has no id".to_owned())?;
    let call = order.call.ok_or("the order has no call")?;
    let target = read_target(order.target.ok_or("the order has no target")?, &call.model)?;
    let pacing = order.pacing.ok_or("the order has no limits")?;
    Ok(Order {
        call: read_call(id, call, words)?,
        target,
        key: order.key.map(Secret::shared),
        network: untold(order.network),
        secrets: untold(order.secrets),
        pacing: Pacing {
            tries: pacing.tries,
            base: Duration::from_millis(pacing.base_ms),
            cap: Duration::from_millis(pacing.cap_ms),
            patience: Duration::from_millis(pacing.patience_ms),
            deadline: Duration::from_millis(pacing.deadline_ms),
            local_first_token: pacing.local_first_token,
            first_token: Duration::from_millis(pacing.first_token_ms),
        },
    })
}

fn read_call(id: CallId, call: wire::Call, words: &Words) -> Result<ModelCall, String> {
    let keep = |text: &str| words.keep(text).ok_or_else(|| "too many different tools".to_owned());
    let tool = |tool: wire::Tool| -> Result<ToolSpec, String> {
        Ok(ToolSpec { name: keep(&tool.name)?, description: keep(&tool.description)?, schema: keep(&tool.schema)? })
    };
    let message = |message: wire::Message| match message.spoken {
        Some(wire::Spoken::User(text)) => Ok(Message::User(text)),
        Some(wire::Spoken::Assistant(said)) => Ok(Message::Assistant { parts: said.parts, made: said.made }),
        Some(wire::Spoken::Result(result)) => Ok(Message::Tool { call_id: result.call_id, tool: result.tool, text: result.text }),
        None => Err("a message of an unknown kind".to_owned()),
    };
    Ok(ModelCall {
        task: id.task,
        seq: id.seq,
        attempt: id.attempt,
        model: call.model,
        system: call.system,
        tools: call.tools.into_iter().map(tool).collect::<Result<_, _>>()?,
        messages: call.messages.into_iter().map(message).collect::<Result<_, _>>()?,
        tail: call.tail,
        max_output_tokens: call.max_output_tokens,
        stall: Duration::from_millis(call.stall_ms),
    })
}

fn read_target(target: wire::Target, name: &str) -> Result<Target, String> {
    let wire = Wire::of(&target.wire).ok_or_else(|| format!("the wire `{}` is unknown", target.wire))?;
    let tools = match target.tools.as_str() {
        "native" => ToolMode::Native,
        "json-schema" => ToolMode::JsonSchema,
        "auto" => ToolMode::Auto,
        other => return Err(format!("the way of calling tools `{other}` is unknown")),
    };
    let reasoning = match target.reasoning.as_str() {
        "" => None,
        word => Some(Reasoning::of(word).ok_or_else(|| format!("the reasoning `{word}` is unknown"))?),
    };
    Ok(Target {
        // Prices and edit style are the daemon's business; nothing here reads them.
        card: ModelCard {
            name: name.to_owned(),
            provider: target.provider.clone(),
            wire: target.wire,
            host: target.host.clone(),
            context_tokens: target.context_tokens,
            max_output_tokens: target.max_output_tokens,
            tools,
            price: None,
            edits: EditStyle::Replace,
        },
        provider: target.provider,
        model: target.model,
        wire,
        base_url: target.base_url,
        host: target.host,
        is_local: target.is_local,
        keys: target.keys,
        needs_key: false,
        headers: unpair(target.headers),
        path: None,
        reasoning,
    })
}
