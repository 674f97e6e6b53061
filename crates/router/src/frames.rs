//! The raw frames of a stream, heard beside genai's events.
//!
//! genai's end event is no proof of completion, and it drops what we need: who answered, why it
//! stopped, calls without an index, sealed reasoning. Pure over text; decides nothing. Invariant:
//! what was not said on the wire is absent here.

use crate::options::Wire;
use genai::chat::{ChatFrameSink, FrameCtx, RawFrameRef};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use tinkerbell_core::model::StopReason;
use tinkerbell_core::money::Usage;

/// A call as it came over the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawCall {
    /// The provider's id; empty when it gave none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Arguments, as the model wrote them.
    pub args: String,
    /// The provider's index, where it gave one.
    index: Option<u64>,
}

/// An error inside a stream that began well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InStream {
    /// The provider's word for it.
    pub kind: String,
    /// The provider's sentence.
    pub message: String,
}

/// All that was heard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// The model that answers, as the provider names it.
    pub served: String,
    /// The provider's id of the answer.
    pub reply_id: String,
    /// Why it stopped.
    pub stop: Option<StopReason>,
    /// Calls of the chat wire.
    pub calls: Vec<RawCall>,
    /// Usage of the chat wire.
    pub usage: Option<Usage>,
    /// Sealed reasoning of Responses, in order.
    pub seals: Vec<String>,
    /// OpenRouter's reasoning blocks, in order.
    pub details: Vec<Value>,
    /// An error that the stream reported.
    pub error: Option<InStream>,
}

/// Listens to one stream.
#[derive(Debug)]
pub struct Ear {
    wire: Wire,
    heard: Mutex<Heard>,
}

impl Ear {
    /// Listens to a stream of this wire.
    pub fn new(wire: Wire) -> Self {
        Self { wire, heard: Mutex::new(Heard::default()) }
    }

    /// What was heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ChatFrameSink for Ear {
    fn on_frame(&self, _ctx: &FrameCtx, frame: RawFrameRef<'_>) {
        if let Some(data) = frame.json() {
            absorb(self.wire, &data, &mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Takes one frame in.
pub fn absorb(wire: Wire, data: &Value, heard: &mut Heard) {
    match wire {
        Wire::Openai | Wire::Ollama => chat(data, heard),
        Wire::OpenaiResponses => responses(data, heard),
        Wire::Anthropic => anthropic(data, heard),
        Wire::Gemini => gemini(data, heard),
        Wire::Replay => {}
    }
}

fn text<'a>(data: &'a Value, path: &str) -> &'a str {
    data.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Most that a count can be; more tokens no request has.
const MOST: u64 = u32::MAX as u64;

/// A count; one that is too large for a number counts as much as any can.
fn number(data: &Value, path: &str) -> u64 {
    let told = data.pointer(path);
    let whole = told.and_then(Value::as_u64);
    let huge = || told.and_then(Value::as_f64).filter(|count| *count >= MOST as f64).map(|_| MOST);
    whole.or_else(huge).unwrap_or(0).min(MOST)
}

fn keep(slot: &mut String, word: &str) {
    if !word.is_empty() {
        word.clone_into(slot);
    }
}

fn error_of(error: &Value) -> InStream {
    let first = |paths: &[&str]| {
        paths.iter().find_map(|path| match error.pointer(path) {
            Some(Value::String(word)) if !word.is_empty() => Some(word.clone()),
            Some(Value::Number(code)) => Some(code.to_string()),
            _ => None,
        })
    };
    InStream {
        kind: first(&["/type", "/code", "/status"]).unwrap_or_default(),
        message: first(&["/message"]).unwrap_or_else(|| error.as_str().unwrap_or_default().to_owned()),
    }
}

fn chat(data: &Value, heard: &mut Heard) {
    keep(&mut heard.served, text(data, "/model"));
    keep(&mut heard.reply_id, text(data, "/id"));
    if let Some(error) = data.get("error").filter(|error| !error.is_null()) {
        heard.error = Some(error_of(error));
    }
    if let Some(word) = data.pointer("/choices/0/finish_reason").and_then(Value::as_str) {
        heard.stop = Some(stop(word));
    }
    for entry in data.pointer("/choices/0/delta/tool_calls").and_then(Value::as_array).into_iter().flatten() {
        call_delta(entry, &mut heard.calls);
    }
    let details = data.pointer("/choices/0/delta/reasoning_details").and_then(Value::as_array);
    details.into_iter().flatten().for_each(|piece| detail_delta(piece, &mut heard.details));
    let usage = ["/usage", "/x_groq/usage"].iter().find_map(|path| data.pointer(path)).filter(|usage| usage.is_object());
    if let Some(usage) = usage.map(chat_usage).filter(|usage| usage.total() > 0) {
        heard.usage = Some(usage);
    }
}

/// Entries without index are told apart by their id, and by a name that starts a new call.
fn call_delta(entry: &Value, calls: &mut Vec<RawCall>) {
    let index = entry.get("index").and_then(Value::as_u64);
    let (id, name) = (text(entry, "/id"), text(entry, "/function/name"));
    let args = match entry.pointer("/function/arguments") {
        Some(Value::String(args)) => args.clone(),
        Some(Value::Null) | None => String::new(),
        Some(args) => args.to_string(),
    };
    let found = match index {
        Some(_) => calls.iter().position(|call| call.index == index),
        None if !id.is_empty() => calls.iter().position(|call| call.id == id),
        None if name.is_empty() => calls.len().checked_sub(1),
        None => None,
    };
    match found.and_then(|at| calls.get_mut(at)) {
        Some(call) => {
            keep(&mut call.id, id);
            if call.name.is_empty() {
                keep(&mut call.name, name);
            }
            call.args.push_str(&args);
        }
        None => calls.push(RawCall { id: id.to_owned(), name: name.to_owned(), args, index }),
    }
}

/// Pieces of one block are joined again: its maker wants back what it gave, not our chunking.
fn detail_delta(piece: &Value, details: &mut Vec<Value>) {
    let same =
        |last: &Value| last.get("type") == piece.get("type") && last.get("index") == piece.get("index") && piece.get("index").is_some();
    let (Some(last), Some(fields)) = (details.last_mut().filter(|last| same(last)).and_then(Value::as_object_mut), piece.as_object())
    else {
        details.push(piece.clone());
        return;
    };
    for (name, value) in fields {
        let joins = matches!(name.as_str(), "text" | "summary" | "data");
        match (last.get_mut(name), value) {
            (Some(Value::String(so_far)), Value::String(more)) if joins => so_far.push_str(more),
            (_, Value::Null) => {}
            _ => {
                last.insert(name.clone(), value.clone());
            }
        }
    }
}

fn chat_usage(usage: &Value) -> Usage {
    let cached = number(usage, "/prompt_tokens_details/cached_tokens").max(number(usage, "/prompt_cache_hit_tokens"));
    Usage {
        input: number(usage, "/prompt_tokens"),
        cached,
        cache_write: number(usage, "/prompt_tokens_details/cache_write_tokens"),
        output: number(usage, "/completion_tokens"),
    }
}

fn responses(data: &Value, heard: &mut Heard) {
    let kind = text(data, "/type");
    keep(&mut heard.served, text(data, "/response/model"));
    keep(&mut heard.reply_id, text(data, "/response/id"));
    match kind {
        "response.completed" => heard.stop = Some(StopReason::End),
        "response.incomplete" => {
            heard.stop = Some(if text(data, "/response/incomplete_details/reason") == "content_filter" {
                StopReason::Filter
            } else {
                StopReason::Length
            })
        }
        "response.failed" => heard.error = Some(data.pointer("/response/error").map(error_of).unwrap_or_default()),
        "error" => {
            heard.error =
                Some(data.get("error").map_or_else(
                    || InStream { kind: text(data, "/code").to_owned(), message: text(data, "/message").to_owned() },
                    error_of,
                ))
        }
        "response.output_item.done" if text(data, "/item/type") == "reasoning" => {
            let seal = text(data, "/item/encrypted_content");
            if !seal.is_empty() {
                heard.seals.push(seal.to_owned());
            }
        }
        _ => {}
    }
}

fn anthropic(data: &Value, heard: &mut Heard) {
    match text(data, "/type") {
        "message_start" => {
            keep(&mut heard.served, text(data, "/message/model"));
            keep(&mut heard.reply_id, text(data, "/message/id"));
        }
        "message_delta" => {
            if let Some(word) = data.pointer("/delta/stop_reason").and_then(Value::as_str) {
                heard.stop = Some(stop(word));
            }
        }
        "error" => heard.error = Some(data.get("error").map(error_of).unwrap_or_default()),
        _ => {}
    }
}

fn gemini(data: &Value, heard: &mut Heard) {
    keep(&mut heard.served, text(data, "/modelVersion"));
    keep(&mut heard.reply_id, text(data, "/responseId"));
    if let Some(error) = data.get("error") {
        heard.error = Some(error_of(error));
    }
    if let Some(word) = data.pointer("/candidates/0/finishReason").and_then(Value::as_str) {
        heard.stop = Some(stop(word));
    } else if data.pointer("/promptFeedback/blockReason").is_some() {
        heard.stop = Some(StopReason::Filter);
    }
}

/// A provider's word for why it stopped. Unknown words are an end: the provider did say it is done.
pub fn stop(word: &str) -> StopReason {
    match word {
        "tool_calls" | "tool_use" | "function_call" => StopReason::Calls,
        "length" | "max_tokens" | "MAX_TOKENS" | "model_length" | "model_context_window_exceeded" | "incomplete" => StopReason::Length,
        "content_filter" | "refusal" | "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => StopReason::Filter,
        _ => StopReason::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hear(wire: Wire, frames: &[Value]) -> Heard {
        let mut heard = Heard::default();
        frames.iter().for_each(|frame| absorb(wire, frame, &mut heard));
        heard
    }

    fn calls(entries: &[Value]) -> Vec<(String, String, String)> {
        let frames: Vec<Value> = entries.iter().map(|entry| json!({"choices": [{"delta": {"tool_calls": [entry]}}]})).collect();
        hear(Wire::Openai, &frames).calls.into_iter().map(|call| (call.id, call.name, call.args)).collect()
    }

    #[test]
    fn calls_are_joined_by_index_and_without_one_by_id_or_name() {
        let whole = |id: &str, name: &str, args: &str| (id.to_owned(), name.to_owned(), args.to_owned());
        let indexed = [
            json!({"index": 0, "id": "a", "function": {"name": "read", "arguments": ""}}),
            json!({"index": 1, "id": "b", "function": {"name": "exec", "arguments": "{\"c"}}),
            json!({"index": 0, "function": {"arguments": "{}"}}),
            json!({"index": 1, "function": {"arguments": "\":1}"}}),
        ];
        assert_eq!(calls(&indexed), [whole("a", "read", "{}"), whole("b", "exec", "{\"c\":1}")]);
        let bare = [
            json!({"id": "a", "function": {"name": "read", "arguments": "{"}}),
            json!({"function": {"arguments": "}"}}),
            json!({"function": {"name": "exec", "arguments": {"cmd": "ls"}}}),
        ];
        assert_eq!(calls(&bare), [whole("a", "read", "{}"), whole("", "exec", "{\"cmd\":\"ls\"}")]);
    }

    #[test]
    fn every_wire_tells_who_answered_and_why_it_stopped() {
        let chat = hear(
            Wire::Openai,
            &[
                json!({"id": "r1", "model": "m2", "choices": [{"finish_reason": "length"}]}),
                json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}}),
            ],
        );
        assert_eq!((chat.reply_id.as_str(), chat.served.as_str(), chat.stop), ("r1", "m2", Some(StopReason::Length)));
        assert_eq!(chat.usage, Some(Usage { input: 7, cached: 5, cache_write: 0, output: 2 }));
        let odd = chat_usage(&json!({"prompt_tokens": 1e30, "completion_tokens": -5, "prompt_cache_hit_tokens": u64::MAX}));
        assert_eq!(odd, Usage { input: MOST, cached: MOST, cache_write: 0, output: 0 });
        let claude = hear(
            Wire::Anthropic,
            &[
                json!({"type": "message_start", "message": {"id": "r1", "model": "m2"}}),
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
            ],
        );
        assert_eq!((claude.reply_id.as_str(), claude.served.as_str(), claude.stop), ("r1", "m2", Some(StopReason::Calls)));
        let responses = hear(
            Wire::OpenaiResponses,
            &[
                json!({"type": "response.output_item.done", "item": {"type": "reasoning", "encrypted_content": "s"}}),
                json!({"type": "response.completed", "response": {"id": "r1", "model": "m2"}}),
            ],
        );
        assert_eq!((responses.reply_id.as_str(), responses.stop, responses.seals), ("r1", Some(StopReason::End), vec!["s".to_owned()]));
        let failed = hear(
            Wire::OpenaiResponses,
            &[json!({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "no"}}})],
        );
        assert_eq!(failed.error, Some(InStream { kind: "server_error".to_owned(), message: "no".to_owned() }));
        let gemini = hear(Wire::Gemini, &[json!({"responseId": "r1", "modelVersion": "m2", "candidates": [{"finishReason": "STOP"}]})]);
        assert_eq!((gemini.served.as_str(), gemini.stop), ("m2", Some(StopReason::End)));
    }

    #[test]
    fn reasoning_blocks_come_back_in_one_piece() {
        let piece = |text: &str| json!({"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": text, "signature": null}]}}]});
        let seal = json!({"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.text", "index": 0, "signature": "s"}]}}]});
        let heard = hear(Wire::Openai, &[piece("a"), piece("b"), seal]);
        assert_eq!(heard.details, [json!({"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"})]);
    }
}
