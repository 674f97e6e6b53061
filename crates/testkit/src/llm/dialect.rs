//! The wires the scripted server speaks, as bytes of server-sent events.
//!
//! Pure over a turn and a request. It writes what the real services write, as far as a client looks
//! at it. Invariant: the same turn and request give the same bytes.

use super::format::{Call, Fault, Tokens, Turn};
use serde_json::{Map, Value, json};

/// A wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/chat/completions`.
    Chat,
    /// `/responses`.
    Responses,
    /// `/messages`.
    Messages,
    /// `:streamGenerateContent`.
    Gemini,
}

impl Dialect {
    /// The wire that a path belongs to.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or(path);
        [
            ("/chat/completions", Self::Chat),
            ("/responses", Self::Responses),
            ("/messages", Self::Messages),
            (":streamGenerateContent", Self::Gemini),
        ]
        .into_iter()
        .find(|(end, _)| path.ends_with(end))
        .map(|(_, dialect)| dialect)
    }

    /// How many answers the conversation already has: neighbouring pieces of one answer count once.
    #[must_use]
    pub fn answers(self, body: &Value) -> usize {
        let name = match self {
            Self::Chat | Self::Messages => "messages",
            Self::Responses => "input",
            Self::Gemini => "contents",
        };
        let mut answers = 0;
        let mut within = false;
        for item in body.get(name).and_then(Value::as_array).into_iter().flatten() {
            let word = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
            let is_answer = matches!(word("role"), "assistant" | "model") || matches!(word("type"), "function_call" | "reasoning");
            if is_answer && (self != Self::Responses || !within) {
                answers += 1;
            }
            within = is_answer;
        }
        answers
    }
}

/// One request, as the dialects need it.
pub struct Asked<'a> {
    /// Its body.
    pub body: &'a Value,
    /// Bytes of its body.
    pub bytes: usize,
    /// Which turn it gets.
    pub number: usize,
}

/// The frames of a turn.
#[must_use]
pub fn frames(dialect: Dialect, turn: &Turn, fault: Option<&Fault>, asked: &Asked<'_>) -> Vec<String> {
    let mut turn = turn.clone();
    if asked.body.pointer("/response_format/type").and_then(Value::as_str) == Some("json_schema") {
        bind(&mut turn);
    }
    if fault == Some(&Fault::AsText) {
        write_calls(&mut turn);
    }
    let mut frames = match dialect {
        Dialect::Chat => chat(&turn, fault, asked),
        Dialect::Responses => responses(&turn, fault, asked),
        Dialect::Messages => messages(&turn, fault, asked),
        Dialect::Gemini => gemini(&turn, fault, asked),
    };
    if let Some(Fault::ErrorEvent { kind }) = fault {
        frames.truncate(frames.len().div_ceil(2));
        let error = json!({"type": "error", "error": {"type": kind, "message": "the server is not well"}});
        frames.push(format!("event: error\ndata: {error}\n\n"));
    }
    frames
}

/// An answer bound to a schema: what a grammar would have made of the turn.
fn bind(turn: &mut Turn) {
    let object = match turn.calls.first() {
        Some(call) => json!({"thought": turn.text, "tool": call.tool, "args": call.args}),
        None => json!({"thought": "", "tool": "final_answer", "args": {"answer": turn.text}}),
    };
    turn.text = object.to_string();
    turn.calls.clear();
}

fn write_calls(turn: &mut Turn) {
    for call in std::mem::take(&mut turn.calls) {
        let object = json!({"name": call.tool, "arguments": call.args});
        turn.text.push_str(&format!("\n```json\n{object}\n```"));
    }
}

fn model(turn: &Turn, asked: &Asked<'_>) -> String {
    turn.served
        .clone()
        .or_else(|| asked.body.get("model").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| "scripted".to_owned())
}

fn tokens(turn: &Turn, asked: &Asked<'_>) -> Tokens {
    let written = turn.text.len() + turn.calls.iter().map(|call| call.args.to_string().len()).sum::<usize>();
    turn.usage.unwrap_or(Tokens { input: asked.bytes as u64 / 4, cached: 0, output: written as u64 / 4 + 1 })
}

fn id(call: &Call, at: usize, asked: &Asked<'_>) -> String {
    call.id.clone().unwrap_or_else(|| format!("call_s{}_{at}", asked.number))
}

fn arguments(call: &Call, fault: Option<&Fault>) -> String {
    let whole = if call.args.is_null() { "{}".to_owned() } else { call.args.to_string() };
    if matches!(fault, Some(Fault::MalformedArgs | Fault::Length)) { halves(&whole).0.trim_end_matches('}').to_owned() } else { whole }
}

fn halves(text: &str) -> (&str, &str) {
    let mut at = text.len() / 2;
    while !text.is_char_boundary(at) {
        at += 1;
    }
    text.split_at(at)
}

fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(24).map(|piece| piece.iter().collect()).collect()
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(value: &Value) -> String {
    format!("event: {}\n{}", value.get("type").and_then(Value::as_str).unwrap_or_default(), data(value))
}

fn makes_calls(turn: &Turn, fault: Option<&Fault>) -> bool {
    !turn.calls.is_empty() && fault != Some(&Fault::NoCalls)
}

fn chat(turn: &Turn, fault: Option<&Fault>, asked: &Asked<'_>) -> Vec<String> {
    let frame = |delta: Value, finish: Value| {
        data(
            &json!({"id": format!("chat-{}", asked.number), "object": "chat.completion.chunk", "model": model(turn, asked), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}),
        )
    };
    let mut frames = vec![frame(json!({"role": "assistant", "content": ""}), Value::Null)];
    frames.extend(pieces(&turn.reasoning).into_iter().map(|piece| frame(json!({"reasoning_content": piece}), Value::Null)));
    frames.extend(pieces(&turn.text).into_iter().map(|piece| frame(json!({"content": piece}), Value::Null)));
    if makes_calls(turn, fault) {
        for (at, call) in turn.calls.iter().enumerate() {
            let args = arguments(call, fault);
            let (one, two) = halves(&args);
            let entry = |name: Option<&str>, args: &str| {
                let mut function = Map::from_iter([("arguments".to_owned(), json!(args))]);
                let mut entry = Map::new();
                if fault != Some(&Fault::NoIndex) {
                    entry.insert("index".to_owned(), json!(at));
                }
                if let Some(name) = name {
                    entry.insert("id".to_owned(), json!(id(call, at, asked)));
                    entry.insert("type".to_owned(), json!("function"));
                    function.insert("name".to_owned(), json!(name));
                }
                entry.insert("function".to_owned(), Value::Object(function));
                json!({"tool_calls": [entry]})
            };
            frames.push(frame(entry(Some(&call.tool), one), Value::Null));
            frames.push(frame(entry(None, two), Value::Null));
        }
    }
    let finish = if fault == Some(&Fault::Length) {
        "length"
    } else if turn.calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    frames.push(frame(json!({}), json!(finish)));
    if !turn.hides_usage {
        let used = tokens(turn, asked);
        let usage = json!({"prompt_tokens": used.input, "completion_tokens": used.output, "total_tokens": used.input + used.output, "prompt_tokens_details": {"cached_tokens": used.cached}});
        frames.push(data(&json!({"id": format!("chat-{}", asked.number), "model": model(turn, asked), "choices": [], "usage": usage})));
    }
    if fault != Some(&Fault::NoDone) {
        frames.push("data: [DONE]\n\n".to_owned());
    }
    frames
}

fn responses(turn: &Turn, fault: Option<&Fault>, asked: &Asked<'_>) -> Vec<String> {
    let envelope = |status: &str, details: Value, usage: Value| {
        json!({
            "id": format!("resp-{}", asked.number), "object": "response", "created_at": 0, "model": model(turn, asked),
            "status": status, "incomplete_details": details, "usage": usage, "output": [],
        })
    };
    let mut frames = vec![named(&json!({"type": "response.created", "response": envelope("in_progress", Value::Null, Value::Null)}))];
    if !turn.reasoning.is_empty() {
        let item = json!({"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": format!("sealed:{}", turn.reasoning)});
        frames.push(named(&json!({"type": "response.output_item.done", "output_index": 0, "item": item})));
    }
    frames.extend(
        pieces(&turn.text)
            .into_iter()
            .map(|piece| named(&json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": piece}))),
    );
    if makes_calls(turn, fault) {
        for (at, call) in turn.calls.iter().enumerate() {
            let args = arguments(call, fault);
            let item = |args: &str| json!({"type": "function_call", "id": format!("fc{at}"), "call_id": id(call, at, asked), "name": call.tool, "arguments": args});
            frames.push(named(&json!({"type": "response.output_item.added", "output_index": at + 2, "item": item("")})));
            frames.push(named(&json!({"type": "response.function_call_arguments.delta", "output_index": at + 2, "delta": args})));
            frames.push(named(&json!({"type": "response.output_item.done", "output_index": at + 2, "item": item(&args)})));
        }
    }
    let (kind, status, details) = if fault == Some(&Fault::Length) {
        ("response.incomplete", "incomplete", json!({"reason": "max_output_tokens"}))
    } else {
        ("response.completed", "completed", Value::Null)
    };
    let used = tokens(turn, asked);
    let usage = json!({
        "input_tokens": used.input, "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": used.output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used.input + used.output,
    });
    let last = envelope(status, details, if turn.hides_usage { Value::Null } else { usage });
    frames.push(named(&json!({"type": kind, "response": last})));
    frames
}

fn messages(turn: &Turn, fault: Option<&Fault>, asked: &Asked<'_>) -> Vec<String> {
    let used = if turn.hides_usage { Tokens::default() } else { tokens(turn, asked) };
    let begin = json!({"input_tokens": used.input.saturating_sub(used.cached), "cache_read_input_tokens": used.cached, "cache_creation_input_tokens": 0, "output_tokens": 0});
    let mut frames = vec![named(
        &json!({"type": "message_start", "message": {"id": format!("msg-{}", asked.number), "type": "message", "role": "assistant", "model": model(turn, asked), "content": [], "usage": begin}}),
    )];
    let mut block = |start: Value, deltas: Vec<Value>, ends: bool| {
        let index = frames.len();
        frames.push(named(&json!({"type": "content_block_start", "index": index, "content_block": start})));
        frames.extend(deltas.into_iter().map(|delta| named(&json!({"type": "content_block_delta", "index": index, "delta": delta}))));
        if ends {
            frames.push(named(&json!({"type": "content_block_stop", "index": index})));
        }
    };
    if !turn.reasoning.is_empty() {
        let deltas = vec![
            json!({"type": "thinking_delta", "thinking": turn.reasoning}),
            json!({"type": "signature_delta", "signature": format!("sealed:{}", turn.reasoning)}),
        ];
        block(json!({"type": "thinking", "thinking": "", "signature": ""}), deltas, true);
    }
    if !turn.text.is_empty() {
        block(
            json!({"type": "text", "text": ""}),
            pieces(&turn.text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect(),
            true,
        );
    }
    if makes_calls(turn, fault) {
        for (at, call) in turn.calls.iter().enumerate() {
            let args = arguments(call, fault);
            let (one, two) = halves(&args);
            let deltas = [one, two].iter().map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).collect();
            block(
                json!({"type": "tool_use", "id": id(call, at, asked), "name": call.tool, "input": {}}),
                deltas,
                fault != Some(&Fault::Length),
            );
        }
    }
    let reason = if fault == Some(&Fault::Length) {
        "max_tokens"
    } else if turn.calls.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    };
    frames.push(named(
        &json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": used.output}}),
    ));
    frames.push(named(&json!({"type": "message_stop"})));
    frames
}

fn gemini(turn: &Turn, fault: Option<&Fault>, asked: &Asked<'_>) -> Vec<String> {
    let used = tokens(turn, asked);
    let usage = if turn.hides_usage {
        json!({})
    } else {
        json!({"promptTokenCount": used.input, "cachedContentTokenCount": used.cached, "candidatesTokenCount": used.output, "totalTokenCount": used.input + used.output})
    };
    let frame = |parts: Value, finish: Option<&str>| {
        let candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0, "finishReason": finish});
        data(
            &json!({"responseId": format!("gem-{}", asked.number), "modelVersion": model(turn, asked), "candidates": [candidate], "usageMetadata": usage}),
        )
    };
    let mut frames: Vec<String> = pieces(&turn.text).into_iter().map(|piece| frame(json!([{"text": piece}]), None)).collect();
    if makes_calls(turn, fault) {
        for (at, call) in turn.calls.iter().enumerate() {
            let seal = (at == 0 && !turn.reasoning.is_empty()).then(|| format!("sealed:{}", turn.reasoning));
            frames.push(frame(json!([{"functionCall": {"name": call.tool, "args": call.args}, "thoughtSignature": seal}]), None));
        }
    }
    frames.push(frame(json!([]), Some(if fault == Some(&Fault::Length) { "MAX_TOKENS" } else { "STOP" })));
    frames
}
