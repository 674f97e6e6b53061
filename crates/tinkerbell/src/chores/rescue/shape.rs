//! How four other agents write down a session.
//!
//! Only what is needed to read on where they stopped: who spoke, which tools ran, what came back.
//! Facts about formats come from their public documentation and from files that they wrote.
//! Invariant: a record of an unknown kind is kept in repairs and left out of transcripts.

use super::scan::{self, Scan};
use serde_json::Value;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// `~/.codex/sessions/**/rollout-*.jsonl`.
    Codex,
    /// `~/.claude/projects/**/*.jsonl`.
    Claude,
    /// `~/.copilot/session-state/*/events.jsonl`.
    Copilot,
    /// `~/.gemini/tmp/*/chats/session-*.json`, in newer releases `.jsonl`.
    Gemini,
}

/// A piece of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The user's words.
    User(String),
    /// The model's words.
    Assistant(String),
    /// A tool call: name and arguments.
    Call(String, String),
    /// What the tool gave back.
    Result(String),
}

impl Agent {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Claude => "claude",
            Self::Copilot => "copilot",
            Self::Gemini => "gemini",
        }
    }

    /// Whose records these are; by the first one that tells.
    pub fn of(records: &[scan::Record]) -> Option<Self> {
        [Self::Codex, Self::Claude, Self::Copilot, Self::Gemini].into_iter().find(|agent| records.iter().any(|r| agent.owns(&r.value)))
    }

    /// Whether this is a record of its own and not an object inside another one.
    pub fn owns(self, value: &Value) -> bool {
        let has = |name: &str| value.get(name).is_some();
        match self {
            Self::Codex => has("timestamp") && has("type") && value.get("payload").is_some_and(Value::is_object),
            Self::Claude => has("type") && (has("sessionId") || has("leafUuid") || (has("messageId") && has("snapshot"))),
            Self::Copilot => has("id") && value.get("data").is_some_and(Value::is_object) && text(value, "type").contains('.'),
            Self::Gemini => has("id") && has("timestamp") && matches!(text(value, "type"), "user" | "gemini" | "info" | "error"),
        }
    }

    /// Session id and directory, where the record names them.
    pub fn session(self, value: &Value) -> (Option<&str>, Option<&str>) {
        let at = |path: &str| value.pointer(path).and_then(Value::as_str);
        match self {
            Self::Codex if text(value, "type") == "session_meta" => (at("/payload/id"), at("/payload/cwd")),
            Self::Codex => (None, at("/payload/cwd")),
            Self::Claude => (at("/sessionId"), at("/cwd")),
            Self::Copilot => (at("/data/sessionId"), at("/data/context/cwd")),
            Self::Gemini => (at("/sessionId"), None),
        }
    }

    /// What the record adds to the transcript.
    pub fn turns(self, value: &Value) -> Vec<Turn> {
        match self {
            Self::Codex => codex(value.get("payload").unwrap_or(&Value::Null)).into_iter().collect(),
            Self::Claude => claude(value),
            Self::Copilot => copilot(value).into_iter().collect(),
            Self::Gemini => gemini(value),
        }
    }
}

/// Scans a file of any of them: lines of JSON, or one object with a list of messages.
pub fn read(bytes: &[u8]) -> Scan {
    let known = |value: &Value| [Agent::Codex, Agent::Claude, Agent::Copilot, Agent::Gemini].iter().any(|agent| agent.owns(value));
    match messages(bytes) {
        Some(at) => scan::elements(bytes, at),
        None => scan::lines(bytes, &known),
    }
}

/// Where the list of messages begins, in a file that is one object. What stands before it is what
/// identifies such a file, and it is short.
pub fn messages(bytes: &[u8]) -> Option<usize> {
    const HEAD: usize = 4_096;
    let head = String::from_utf8_lossy(bytes.get(..bytes.len().min(HEAD))?).into_owned();
    let session = head.find("\"sessionId\"")?;
    let name = head.find("\"messages\"").filter(|at| session < *at)?;
    let open = name + head.get(name..)?.find('[')?;
    // Between the name and its list stand only a colon and blanks.
    let between = head.get(name + "\"messages\"".len()..open)?;
    between.trim_matches(|c: char| c == ':' || c.is_whitespace()).is_empty().then_some(open + 1)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A value as text: strings as they are, lists of parts joined, all else as JSON.
fn flat(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| flat(Some(part))).filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n"),
        Some(part) => match ["text", "content", "output", "response"].iter().find_map(|name| part.get(*name)) {
            Some(inner) => flat(Some(inner)),
            None => part.to_string(),
        },
    }
}

fn codex(payload: &Value) -> Option<Turn> {
    let name = || text(payload, "name").to_owned();
    Some(match text(payload, "type") {
        "message" => match text(payload, "role") {
            "assistant" => Turn::Assistant(flat(payload.get("content"))),
            "user" => Turn::User(flat(payload.get("content"))),
            _ => return None,
        },
        "function_call" => Turn::Call(name(), flat(payload.get("arguments"))),
        "custom_tool_call" => Turn::Call(name(), flat(payload.get("input"))),
        "local_shell_call" => Turn::Call("shell".to_owned(), flat(payload.get("action"))),
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => Turn::Result(flat(payload.get("output"))),
        _ => return None,
    })
}

fn claude(value: &Value) -> Vec<Turn> {
    let said = |text: String| if text_is_user(value) { Turn::User(text) } else { Turn::Assistant(text) };
    if !matches!(text(value, "type"), "user" | "assistant") {
        return Vec::new();
    }
    let part = |part: &Value| match text(part, "type") {
        "text" => Some(said(text(part, "text").to_owned())),
        "tool_use" => Some(Turn::Call(text(part, "name").to_owned(), part.get("input").map(Value::to_string).unwrap_or_default())),
        "tool_result" => Some(Turn::Result(flat(part.get("content")))),
        _ => None,
    };
    match value.pointer("/message/content") {
        Some(Value::String(text)) => vec![said(text.clone())],
        Some(Value::Array(parts)) => parts.iter().filter_map(part).collect(),
        _ => Vec::new(),
    }
}

fn text_is_user(value: &Value) -> bool {
    text(value, "type") == "user"
}

fn copilot(value: &Value) -> Option<Turn> {
    let data = value.get("data")?;
    Some(match text(value, "type") {
        "user.message" => Turn::User(flat(data.get("content"))),
        "assistant.message" => Turn::Assistant(flat(data.get("content"))),
        "tool.execution_start" => Turn::Call(text(data, "toolName").to_owned(), flat(data.get("arguments"))),
        "tool.execution_complete" => Turn::Result(flat(data.get("result"))),
        _ => return None,
    })
}

fn gemini(value: &Value) -> Vec<Turn> {
    let said = flat(value.get("content"));
    let mut turns = match text(value, "type") {
        "user" => vec![Turn::User(said)],
        "gemini" => vec![Turn::Assistant(said)],
        _ => Vec::new(),
    };
    for call in value.get("toolCalls").and_then(Value::as_array).into_iter().flatten() {
        turns.push(Turn::Call(text(call, "name").to_owned(), call.get("args").map(Value::to_string).unwrap_or_default()));
        turns.push(Turn::Result(flat(call.get("result"))));
    }
    turns
}
