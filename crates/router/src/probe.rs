//! What was found out about a model's tool calls, kept by (base URL, model).
//!
//! A cache and the one question behind it. Invariant: a probe that failed for another reason than
//! the answer is not kept, so a server that was down is asked again.

use crate::options::Wire;
use crate::provider::Target;
use crate::render::Mode;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{Completion, Message, ModelCall};
use tinkerbell_core::tool::ToolSpec;

/// The one tool of the question.
const PING: ToolSpec = ToolSpec {
    name: "ping",
    description: "Answers with pong. Call it when the user asks for a ping.",
    schema: r#"{"type":"object","properties":{"host":{"type":"string"}},"required":["host"],"additionalProperties":false}"#,
};

/// What is known.
#[derive(Debug, Default)]
pub struct Probes {
    known: Mutex<Map<String, Value>>,
    file: Option<PathBuf>,
}

impl Probes {
    /// Reads what earlier runs found out. A damaged cache is an empty one.
    pub fn open(dir: Option<&PathBuf>) -> Self {
        let file = dir.map(|dir| dir.join("probes.json"));
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let known = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { known: Mutex::new(known), file }
    }

    /// The mode found for this target.
    pub fn get(&self, target: &Target) -> Option<Mode> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&name(target)).and_then(Value::as_str) {
            Some("native") => Some(Mode::Native),
            Some("json-schema") => Some(Mode::Union),
            _ => None,
        }
    }

    /// Keeps the mode; a cache that can not be written lives on in memory.
    pub async fn put(&self, target: &Target, mode: Mode) {
        let word = if mode == Mode::Native { "native" } else { "json-schema" };
        let text = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(name(target), json!(word));
            Value::Object(known.clone()).to_string()
        };
        let Some(file) = self.file.clone() else { return };
        let written = tokio::task::spawn_blocking(move || write(&file, &text)).await;
        if let Err(error) = written.unwrap_or_else(|gone| Err(std::io::Error::other(gone))) {
            tracing::debug!(%error, "probe cache not written");
        }
    }
}

fn write(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, file)
}

fn name(target: &Target) -> String {
    format!("{} {}", target.base_url, target.model)
}

/// The question: does it call a tool that it is plainly asked to call?
pub fn question(call: &ModelCall) -> ModelCall {
    ModelCall {
        task: call.task,
        seq: call.seq,
        attempt: call.attempt,
        model: call.model.clone(),
        system: "You can use tools.".to_owned(),
        tools: vec![PING],
        messages: vec![Message::User("Ping the host example. Use the tool.".to_owned())],
        tail: String::new(),
        max_output_tokens: 512,
        stall: call.stall.max(Duration::from_secs(1)),
    }
}

/// What the answer says about the target.
pub fn verdict(answer: &Completion) -> Mode {
    let calls = |kind: i32| kind == PartKind::Call as i32;
    if answer.parts.iter().any(|part| calls(part.kind) && part.tool == PING.name) { Mode::Native } else { Mode::Union }
}

/// A chat server refuses `tools` when its model's template has none; that, too, is an answer.
pub const fn is_refusal(wire: Wire, status: u16) -> bool {
    matches!(wire, Wire::Openai | Wire::Ollama) && matches!(status, 400 | 422 | 500 | 501)
}
