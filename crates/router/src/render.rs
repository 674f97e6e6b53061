//! From a call to the request of a wire.
//!
//! Pure: transcript and target in, genai's request out. Foreign seals are left out and stay in the
//! transcript, so that a switch back restores them. Invariant: the same past gives the same bytes;
//! whatever moves comes after everything that does not.

use crate::options::{Reasoning, Wire};
use crate::provider::Target;
use crate::union;
use genai::adapter::AdapterKind;
use genai::chat::{
    CacheControl, ChatMessage, ChatOptions, ChatRequest, ChatResponseFormat, ContentPart, JsonSpec, MessageContent, ReasoningEffort, Tool,
    ToolCall, ToolResponse,
};
use genai::resolver::{AuthData, Endpoint};
use genai::{Headers, ModelIden, ServiceTarget};
use serde_json::{Value, json};
use tinkerbell_core::event::{Made, Part, PartKind};
use tinkerbell_core::model::{Message, ModelCall};

/// A transcript with results grouped and paired, as every wire wants it.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// The user's words.
    User(String),
    /// An answer, and whether the target itself made it.
    Assistant(Vec<Part>, bool),
    /// Results of the answer before: call id, tool, text.
    Results(Vec<(String, String, String)>),
}

/// Groups neighbouring results, gives every call a result, and turns results without a call into
/// words: strict servers refuse what does not pair.
pub fn rows(messages: &[Message], target: &Target) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(messages.len());
    let mut open = Open::default();
    for message in messages {
        match message {
            Message::Tool { call_id, tool, text } => match open.calls.iter().position(|(id, _)| id == call_id) {
                Some(at) => {
                    open.calls.remove(at);
                    result(&mut rows, (call_id.clone(), tool.clone(), text.clone()));
                }
                None => open.strays.push(format!("[{tool}]\n{text}")),
            },
            Message::User(text) => {
                open.close(&mut rows);
                words(&mut rows, text);
            }
            Message::Assistant { parts, made } => {
                open.close(&mut rows);
                let calls = parts.iter().filter(|part| part.kind == PartKind::Call as i32);
                open.calls.extend(calls.map(|part| (part.call_id.clone(), part.tool.clone())));
                rows.push(Row::Assistant(parts.clone(), made.as_ref().is_some_and(|made| is_maker(made, target))));
            }
        }
    }
    open.close(&mut rows);
    rows
}

/// What an answer left open.
#[derive(Default)]
struct Open {
    /// Calls without a result yet: id, tool.
    calls: Vec<(String, String)>,
    /// Results without a call; they wait, because nothing may stand between a call and its result.
    strays: Vec<String>,
}

impl Open {
    fn close(&mut self, rows: &mut Vec<Row>) {
        for (id, tool) in self.calls.drain(..) {
            result(rows, (id, tool, "(no result was recorded)".to_owned()));
        }
        self.strays.drain(..).for_each(|text| words(rows, &text));
    }
}

fn is_maker(made: &Made, target: &Target) -> bool {
    made.provider == target.provider && made.wire == target.wire.name() && made.asked == target.model
}

fn result(rows: &mut Vec<Row>, one: (String, String, String)) {
    match rows.last_mut() {
        Some(Row::Results(results)) => results.push(one),
        _ => rows.push(Row::Results(vec![one])),
    }
}

fn words(rows: &mut Vec<Row>, text: &str) {
    match rows.last_mut() {
        Some(Row::User(last)) => *last = format!("{last}\n\n{text}"),
        _ => rows.push(Row::User(text.to_owned())),
    }
}

/// How tools are called in this request; never `Auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Through the wire's own calls.
    Native,
    /// Through an answer bound to a schema.
    Union,
}

/// Makes the request.
pub fn request(call: &ModelCall, target: &Target, mode: Mode) -> ChatRequest {
    let rows = rows(&call.messages, target);
    let (system, mut messages, tools) = match mode {
        Mode::Native => (call.system.clone(), rows.into_iter().map(|row| native(row, target)).collect(), tools(call)),
        Mode::Union => (format!("{}\n\n{}", union::instructions(&call.tools), call.system), union::history(rows), None),
    };
    let marked = target.wire == Wire::Anthropic;
    if marked && let Some(last) = messages.pop() {
        messages.push(last.with_options(CacheControl::Ephemeral));
    }
    append_tail(&mut messages, &call.tail, marked);
    let request = if marked {
        // The mark on the system text covers the tools before it; a plain `system` carries none.
        messages.insert(0, ChatMessage::system(system).with_options(CacheControl::Ephemeral));
        ChatRequest::new(messages)
    } else {
        ChatRequest::new(messages).with_system(system)
    };
    match tools {
        Some(tools) => request.with_tools(tools),
        None => request,
    }
}

/// The tail joins the last words of the user, because templates of small models want roles to
/// alternate; where cache marks stand it stays apart, behind the mark.
fn append_tail(messages: &mut Vec<ChatMessage>, tail: &str, apart: bool) {
    if tail.is_empty() {
        return;
    }
    match messages.last_mut() {
        Some(last) if !apart && last.role == genai::chat::ChatRole::User => {
            let text = last.content.joined_texts().unwrap_or_default();
            last.content = MessageContent::from_text(format!("{text}\n\n{tail}"));
        }
        _ => messages.push(ChatMessage::user(tail)),
    }
}

fn tools(call: &ModelCall) -> Option<Vec<Tool>> {
    let tools: Vec<Tool> =
        call.tools.iter().map(|spec| Tool::new(spec.name).with_description(spec.description).with_schema(schema(spec.schema))).collect();
    (!tools.is_empty()).then_some(tools)
}

/// A tool's schema as JSON; one that does not parse becomes "any object".
pub fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({"type": "object"}))
}

fn native(row: Row, target: &Target) -> ChatMessage {
    match row {
        Row::User(text) => ChatMessage::user(text),
        Row::Results(results) => {
            let parts: Vec<ContentPart> = results
                .into_iter()
                .map(|(id, tool, text)| ContentPart::ToolResponse(ToolResponse::new(wire_id(&id, target), text).with_fn_name(tool)))
                .collect();
            ChatMessage::tool(MessageContent::from_parts(parts))
        }
        Row::Assistant(parts, is_own) => ChatMessage::assistant(MessageContent::from_parts(assistant(&parts, is_own, target))),
    }
}

fn assistant(parts: &[Part], is_own: bool, target: &Target) -> Vec<ContentPart> {
    let opaque = parts.iter().find(|part| part.kind == PartKind::Opaque as i32).filter(|_| is_own);
    let sealed: Value = opaque.and_then(|part| serde_json::from_str(&part.text).ok()).unwrap_or(Value::Null);
    let mut out: Vec<ContentPart> = Vec::new();
    for entry in sealed.get("lead").and_then(Value::as_array).into_iter().flatten() {
        lead(entry, &mut out);
    }
    for part in parts {
        if part.kind == PartKind::Text as i32 && !part.text.is_empty() {
            out.push(ContentPart::Text(part.text.clone()));
        } else if part.kind == PartKind::Reasoning as i32 && is_own && wants_reasoning(target) {
            out.push(ContentPart::ReasoningContent(part.text.clone()));
        } else if part.kind == PartKind::Call as i32 {
            let seals = sealed.get("calls").and_then(|calls| calls.get(&part.call_id)).and_then(Value::as_array);
            let seals = seals.map(|seals| seals.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            out.push(ContentPart::ToolCall(ToolCall {
                call_id: wire_id(&part.call_id, target),
                fn_name: part.tool.clone(),
                fn_arguments: schema_free(&part.text),
                thought_signatures: seals,
            }));
        }
    }
    if out.is_empty() {
        // Strict servers refuse an empty answer, and leaving it out would break the alternation.
        out.push(ContentPart::Text("(no answer)".to_owned()));
    }
    out
}

/// Sealed blocks go back as their maker gave them.
fn lead(entry: &Value, out: &mut Vec<ContentPart>) {
    if let Some(custom) = entry.get("custom") {
        out.push(ContentPart::from_custom(custom.clone(), None));
    } else if let Some(seal) = entry.get("seal").and_then(Value::as_str) {
        out.push(ContentPart::ThoughtSignature(seal.to_owned()));
        if let Some(text) = entry.get("text").and_then(Value::as_str) {
            out.push(ContentPart::ReasoningContent(text.to_owned()));
        }
    }
}

/// An id that the target accepts; the same one for a call and its result. Ids travel with the
/// transcript from one provider to another, and each has its own idea of what an id looks like.
fn wire_id(id: &str, target: &Target) -> String {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
    let fits = match target.wire {
        Wire::Gemini => true,
        _ if target.host.ends_with("mistral.ai") => plain && id.len() == 9,
        _ => !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
    };
    if fits { id.to_owned() } else { format!("t{:08x}", fnv(id)) }
}

/// FNV-1a (Fowler, Noll, Vo), 32 bits: ids of one transcript are few.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn schema_free(args: &str) -> Value {
    serde_json::from_str::<Value>(args).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// These vendors refuse a tool result when the plain reasoning before its call is missing.
fn wants_reasoning(target: &Target) -> bool {
    ["deepseek", "moonshot"].iter().any(|vendor| target.host.contains(vendor))
}

/// Makes the options that go with [`request`].
pub fn options(call: &ModelCall, target: &Target, mode: Mode) -> ChatOptions {
    let limit = call.max_output_tokens.min(target.card.max_output_tokens).max(1);
    let mut options = ChatOptions::default()
        .with_max_tokens(u32::try_from(limit).unwrap_or(u32::MAX))
        .with_capture_usage(true)
        .with_capture_content(true)
        .with_capture_tool_calls(true)
        .with_capture_reasoning_content(captures(target));
    if takes_cache_key(target) {
        options = options.with_prompt_cache_key(call.task.to_string());
    }
    if let Some(effort) = effort(target) {
        options = options.with_reasoning_effort(effort);
    }
    if !target.headers.is_empty() {
        options = options.with_extra_headers(target.headers.clone());
    }
    if mode == Mode::Union {
        let schema = union::schema(&call.tools);
        options = match target.wire {
            // genai rewrites schemas for one vendor's dialect; local servers want this one as it is.
            Wire::Openai | Wire::Ollama => options.with_extra_body(
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "step", "strict": true, "schema": schema}}}),
            ),
            _ => options.with_response_format(ChatResponseFormat::JsonSpec(JsonSpec::new("step", schema))),
        };
    } else if target.wire == Wire::OpenaiResponses && is_openai_reasoner(&target.model) {
        options = options.with_extra_body(json!({"include": ["reasoning.encrypted_content"]}));
    }
    options
}

/// Anthropic's capture costs nothing and keeps the seals; elsewhere it asks for summaries.
fn captures(target: &Target) -> bool {
    let wanted = matches!(target.reasoning, Some(reasoning) if reasoning != Reasoning::Off);
    wanted || target.wire == Wire::Anthropic
}

/// Some vendors refuse fields that they do not know.
fn takes_cache_key(target: &Target) -> bool {
    matches!(target.wire, Wire::Openai | Wire::OpenaiResponses)
        && !["mistral.ai", "groq.com", "x.ai"].iter().any(|host| target.host.ends_with(host))
}

fn is_openai_reasoner(model: &str) -> bool {
    let generation = model.strip_prefix("gpt-").and_then(|rest| rest.bytes().next()).is_some_and(|digit| (b'5'..=b'9').contains(&digit));
    let series = ["o1", "o3", "o4"].iter().any(|name| model.starts_with(name));
    (generation && !model.contains("chat")) || series
}

fn effort(target: &Target) -> Option<ReasoningEffort> {
    let chat = matches!(target.wire, Wire::Openai | Wire::OpenaiResponses | Wire::Ollama);
    match target.reasoning {
        // A budget is never sent on these wires, but it keeps `-high` in a model's name a name.
        None | Some(Reasoning::On) if chat => Some(ReasoningEffort::Budget(0)),
        Some(Reasoning::On) if target.wire == Wire::Anthropic => Some(ReasoningEffort::Medium),
        None | Some(Reasoning::On) => None,
        Some(Reasoning::Off) => (target.wire != Wire::Anthropic).then_some(ReasoningEffort::Zero),
        Some(Reasoning::Low) => Some(ReasoningEffort::Low),
        Some(Reasoning::Medium) => Some(ReasoningEffort::Medium),
        Some(Reasoning::High) => Some(ReasoningEffort::High),
        Some(Reasoning::Max) => Some(ReasoningEffort::Max),
    }
}

/// Where the request goes, and with which key.
pub fn service(target: &Target, key: Option<&str>) -> ServiceTarget {
    let kind = match target.wire {
        Wire::OpenaiResponses => AdapterKind::OpenAIResp,
        Wire::Anthropic => AdapterKind::Anthropic,
        Wire::Gemini => AdapterKind::Gemini,
        // Ollama's own wire drops schemas, extra fields and keys; its chat wire does not.
        Wire::Openai | Wire::Ollama | Wire::Replay => AdapterKind::OpenAI,
    };
    let auth = key.map_or_else(|| keyless(target), |key| AuthData::Key(key.to_owned()));
    ServiceTarget { endpoint: Endpoint::from_owned(target.base_url.as_str()), auth, model: ModelIden::new(kind, target.model.as_str()) }
}

/// Without a key the adapters would fail, so address and headers are given whole.
fn keyless(target: &Target) -> AuthData {
    let path = match target.wire {
        Wire::OpenaiResponses => "responses".to_owned(),
        Wire::Anthropic => "messages".to_owned(),
        Wire::Gemini => format!("models/{}:streamGenerateContent?alt=sse", target.model),
        Wire::Openai | Wire::Ollama | Wire::Replay => "chat/completions".to_owned(),
    };
    let mut headers = Headers::from(target.headers.clone());
    if target.wire == Wire::Anthropic {
        headers.merge(("anthropic-version", "2023-06-01"));
    }
    AuthData::RequestOverride { url: format!("{}{path}", target.base_url), headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::provider::{Environment, resolve};
    use std::sync::Arc;

    #[test]
    fn ids_fit_every_provider_and_pair() {
        let env: Environment = Arc::new(|_| None);
        let at = |model: &str| resolve(model, &Options::default(), &env).unwrap();
        for (model, id, kept) in [
            ("openai/gpt-5", "call_0_0", true),
            ("openai/gpt-5", "call#read#0", false),
            ("anthropic/claude-sonnet-5", "toolu_01-x", true),
            ("anthropic/claude-sonnet-5", "", false),
            ("mistral/devstral-latest", "aB3dE6gH9", true),
            ("mistral/devstral-latest", "call_0_0", false),
            ("gemini/gemini-2.5-pro", "call#read#0", true),
        ] {
            let wire = wire_id(id, &at(model));
            assert_eq!(wire == id, kept, "{model} {id}");
            assert!(kept || (wire.len() == 9 && wire.bytes().all(|b| b.is_ascii_alphanumeric())), "{wire}");
            assert_eq!(wire, wire_id(id, &at(model)));
        }
    }
}
