//! From what a stream gave to a whole answer, or to the reason why it is none.
//!
//! Pure. Invariant: calls come out only with a reason to stop other than the output limit, and
//! only with arguments that are a JSON object.

use crate::classify::Failure;
use crate::frames::Heard;
use crate::options::Wire;
use crate::provider::Target;
use crate::render::Mode;
use crate::union::{self, Choice};
use genai::chat::{ContentPart, StreamEnd};
use serde_json::{Map, Value, json};
use tinkerbell_core::event::{Made, Part, PartKind};
use tinkerbell_core::model::{Completion, Message, ModelCall, StopReason};
use tinkerbell_core::money::Usage;
use tinkerbell_core::tool::ToolSpec;

/// Bytes per token where the provider counts nothing.
const BYTES_PER_TOKEN: f64 = 3.6;

/// A stream that ended without an error.
#[derive(Debug, Default)]
pub struct Raw {
    /// Its text.
    pub text: String,
    /// Its reasoning, as far as it is shown.
    pub reasoning: String,
    /// genai's end event, when there was one.
    pub end: Option<StreamEnd>,
    /// What was heard on the wire.
    pub heard: Heard,
}

/// A call on its way through the checks.
struct Call {
    id: String,
    name: String,
    args: String,
    seals: Vec<String>,
}

/// Makes the answer. A `lenient` reading lets an empty answer and broken arguments pass: the model
/// is then told what was wrong, which helps more than the same question once more.
///
/// # Errors
/// `Broken` when it is not whole, `Malformed` when it is whole and useless.
pub fn assemble(raw: Raw, call: &ModelCall, target: &Target, mode: Mode, lenient: bool) -> Result<Completion, Failure> {
    let stop = stop_reason(&raw, target)?;
    let usage = usage(&raw);
    let (thought, text) = split_thought(&raw.text);
    let reasoning = if raw.reasoning.is_empty() { thought } else { raw.reasoning.clone() };
    let (words, calls) = match mode {
        _ if stop == StopReason::Length || stop == StopReason::Filter => (text, Vec::new()),
        Mode::Native => native(&raw, text, stop, (&call.tools, lenient))?,
        Mode::Union => bound(&text, &call.tools)?,
    };
    if words.trim().is_empty() && calls.is_empty() && stop == StopReason::End && !lenient {
        return Err(Failure::Malformed("the answer was empty".to_owned()));
    }
    let stop = if calls.is_empty() { stop } else { StopReason::Calls };
    let calls = with_ids(calls, call, target.wire);
    let parts = parts(&raw, &reasoning, &words, &calls);
    // A request has input and an answer output: who counts none did not count.
    let told = usage.unwrap_or_default();
    let (estimated, mut usage) = (told.input == 0 || told.output == 0, told);
    if told.input == 0 {
        usage.input = estimate_input(call).saturating_add(told.cached);
    }
    if told.output == 0 {
        usage.output = tokens(raw.text.len() + raw.reasoning.len() + calls.iter().map(|call| call.args.len()).sum::<usize>());
    }
    Ok(Completion { parts, made: made(&raw.heard, target), usage, estimated, stop, retries: 0, lost: Usage::default() })
}

fn stop_reason(raw: &Raw, target: &Target) -> Result<StopReason, Failure> {
    let broken = |why: &str| Failure::Broken(why.to_owned());
    let said = raw.end.as_ref().and_then(|end| end.captured_stop_reason.as_ref()).map(|reason| crate::frames::stop(reason.raw()));
    let stop = raw.heard.stop.or(said).ok_or_else(|| broken("the answer broke off"))?;
    // On these wires calls and seals come with the end event only.
    if raw.end.is_none() && stop != StopReason::Filter && !matches!(target.wire, Wire::Openai | Wire::Ollama) {
        return Err(broken("the answer broke off before its end"));
    }
    Ok(stop)
}

fn made(heard: &Heard, target: &Target) -> Made {
    Made {
        provider: target.provider.clone(),
        wire: target.wire.name().to_owned(),
        host: target.host.clone(),
        asked: target.model.clone(),
        served: if heard.served.is_empty() { target.model.clone() } else { heard.served.clone() },
        reply_id: heard.reply_id.clone(),
    }
}

/// What the provider said that a stream used.
pub fn usage(raw: &Raw) -> Option<Usage> {
    raw.heard.usage.or_else(|| {
        let told = raw.end.as_ref()?.captured_usage.as_ref()?;
        let number = |value: Option<i32>| value.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0);
        let details = told.prompt_tokens_details.as_ref();
        let usage = Usage {
            input: number(told.prompt_tokens),
            cached: number(details.and_then(|details| details.cached_tokens)),
            cache_write: number(details.and_then(|details| details.cache_creation_tokens)),
            output: number(told.completion_tokens),
        };
        (usage.total() > 0).then_some(usage)
    })
}

/// Tokens in so many bytes, rounded up.
pub fn tokens(bytes: usize) -> u64 {
    (bytes as f64 / BYTES_PER_TOKEN).ceil() as u64
}

/// Our own count of a request's input.
pub fn estimate_input(call: &ModelCall) -> u64 {
    let messages: usize = call
        .messages
        .iter()
        .map(|message| match message {
            Message::User(text) | Message::Tool { text, .. } => text.len(),
            Message::Assistant { parts, .. } => {
                parts.iter().filter(|part| part.kind != PartKind::Opaque as i32).map(|part| part.text.len() + part.tool.len()).sum()
            }
        })
        .sum();
    let tools: usize = call.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.schema.len()).sum();
    tokens(call.system.len() + messages + tools + call.tail.len()) + 4 * call.messages.len() as u64
}

fn native(raw: &Raw, text: String, stop: StopReason, (tools, lenient): (&[ToolSpec], bool)) -> Result<(String, Vec<Call>), Failure> {
    let mut calls = if raw.heard.calls.is_empty() { ended_calls(raw) } else { heard_calls(raw) };
    for call in &mut calls {
        check(call, lenient)?;
    }
    if !calls.is_empty() {
        return Ok((text, calls));
    }
    if let Some((words, call)) = written_call(&text, tools) {
        return Ok((words, vec![call]));
    }
    if stop == StopReason::Calls {
        return Err(Failure::Malformed("the model stopped for a tool call and made none".to_owned()));
    }
    Ok((text, calls))
}

fn heard_calls(raw: &Raw) -> Vec<Call> {
    raw.heard
        .calls
        .iter()
        .map(|call| Call { id: call.id.clone(), name: call.name.clone(), args: call.args.clone(), seals: Vec::new() })
        .collect()
}

fn ended_calls(raw: &Raw) -> Vec<Call> {
    let calls = raw.end.as_ref().and_then(StreamEnd::captured_tool_calls).unwrap_or_default();
    let one = |call: &genai::chat::ToolCall| Call {
        id: call.call_id.clone(),
        name: call.fn_name.clone(),
        args: match &call.fn_arguments {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            whole => whole.to_string(),
        },
        seals: call.thought_signatures.clone().unwrap_or_default(),
    };
    calls.into_iter().map(one).collect()
}

fn check(call: &mut Call, lenient: bool) -> Result<(), Failure> {
    if call.args.trim().is_empty() {
        call.args = "{}".to_owned();
    }
    if call.name.is_empty() {
        return Err(Failure::Malformed("a tool call came without a name".to_owned()));
    }
    match serde_json::from_str::<Map<String, Value>>(&call.args) {
        Err(error) if !lenient => Err(Failure::Malformed(format!("the arguments of `{}` are no JSON object ({error})", call.name))),
        _ => Ok(()),
    }
}

fn bound(text: &str, tools: &[ToolSpec]) -> Result<(String, Vec<Call>), Failure> {
    match union::parse(text, tools).map_err(Failure::Malformed)? {
        Choice::Words(words) => Ok((words, Vec::new())),
        Choice::Call { thought, tool, args } => Ok((thought, vec![Call { id: String::new(), name: tool, args, seals: Vec::new() }])),
    }
}

/// Some models write their call as text: a fenced or tagged object `{name, arguments}` at the end.
fn written_call(text: &str, tools: &[ToolSpec]) -> Option<(String, Call)> {
    let trimmed = text.trim_end();
    let (words, body) = if let Some(head) = trimmed.strip_suffix("</tool_call>") {
        head.rsplit_once("<tool_call>")?
    } else if let Some(head) = trimmed.strip_suffix("```") {
        let (words, fenced) = head.rsplit_once("```")?;
        (words, fenced.split_once('\n').map_or(fenced, |(_, body)| body))
    } else {
        ("", trimmed)
    };
    if words.contains("```") || words.contains("<tool_call>") {
        return None;
    }
    let body = body.trim();
    // Qwen doubles the outer braces where a template showed them escaped.
    let single = || body.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).filter(|rest| rest.starts_with('{'));
    let object: Map<String, Value> = serde_json::from_str(body).ok().or_else(|| serde_json::from_str(single()?).ok())?;
    let name = object.get("name")?.as_str()?;
    let args = object.get("arguments").or_else(|| object.get("parameters"))?.as_object()?;
    let known = object.len() == 2 && tools.iter().any(|tool| tool.name == name);
    known.then(|| {
        (
            words.trim().to_owned(),
            Call { id: String::new(), name: name.to_owned(), args: Value::Object(args.clone()).to_string(), seals: Vec::new() },
        )
    })
}

/// A leading `<think>` block is reasoning that a server left in the text.
fn split_thought(text: &str) -> (String, String) {
    let inner = text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    inner.map_or_else(|| (String::new(), text.to_owned()), |(thought, rest)| (thought.trim().to_owned(), rest.trim_start().to_owned()))
}

/// Missing and repeated ids get one of ours; it depends on the past only, so a re-ask gives it again.
fn with_ids(mut calls: Vec<Call>, asked: &ModelCall, wire: Wire) -> Vec<Call> {
    let answers = asked.messages.iter().filter(|message| matches!(message, Message::Assistant { .. })).count();
    let mut taken: Vec<String> = asked
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::Assistant { parts, .. } => Some(parts),
            _ => None,
        })
        .flatten()
        .filter(|part| part.kind == PartKind::Call as i32)
        .map(|part| part.call_id.clone())
        .collect();
    for (at, call) in calls.iter_mut().enumerate() {
        if call.id.is_empty() || taken.contains(&call.id) {
            // genai leaves ids of this form out for Gemini, which gave none.
            let is_made = wire == Wire::Gemini && call.id.starts_with("call#");
            call.id = if is_made { format!("call#{}#{}", call.name, answers * 1_000 + at) } else { format!("call_{answers}_{at}") };
        }
        taken.push(call.id.clone());
    }
    calls
}

fn parts(raw: &Raw, reasoning: &str, words: &str, calls: &[Call]) -> Vec<Part> {
    let part = |kind: PartKind, text: String| Part { kind: kind as i32, text, ..Part::default() };
    let mut parts = Vec::new();
    parts.extend(opaque(raw, calls).map(|sealed| part(PartKind::Opaque, sealed)));
    if !reasoning.is_empty() {
        parts.push(part(PartKind::Reasoning, reasoning.to_owned()));
    }
    if !words.is_empty() {
        parts.push(part(PartKind::Text, words.to_owned()));
    }
    parts.extend(calls.iter().map(|call| Part {
        kind: PartKind::Call as i32,
        text: call.args.clone(),
        call_id: call.id.clone(),
        tool: call.name.clone(),
    }));
    parts
}

/// What only the maker can read, in its order; `render` gives it back to that maker only.
fn opaque(raw: &Raw, calls: &[Call]) -> Option<String> {
    let mut lead: Vec<Value> = raw.heard.details.iter().map(|detail| json!({"custom": detail})).collect();
    let content = raw.end.as_ref().and_then(|end| end.captured_content.as_ref());
    let mut seals: Vec<Value> = Vec::new();
    for part in content.into_iter().flat_map(|content| content.parts()) {
        match part {
            ContentPart::ThoughtSignature(seal) => seals.push(json!({"seal": seal})),
            ContentPart::ReasoningContent(text) => {
                if let Some(last) = seals.last_mut().and_then(Value::as_object_mut) {
                    last.insert("text".to_owned(), json!(text));
                }
            }
            ContentPart::Custom(custom) => seals.push(json!({"custom": custom.data})),
            _ => {}
        }
    }
    if seals.is_empty() {
        seals = raw.heard.seals.iter().map(|seal| json!({"seal": seal})).collect();
    }
    lead.extend(seals);
    let of_calls: Map<String, Value> =
        calls.iter().filter(|call| !call.seals.is_empty()).map(|call| (call.id.clone(), json!(call.seals))).collect();
    (!lead.is_empty() || !of_calls.is_empty()).then(|| json!({"lead": lead, "calls": of_calls}).to_string())
}
