//! What all tests need: a router on a script, and one question.

use futures_util::StreamExt as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::event::{Part, PartKind};
use tinkerbell_core::model::{Completion, Message, ModelCall, ModelError, ModelEvent};
use tinkerbell_core::port::Model as _;
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_core::words::TaskId;
use tinkerbell_router::options::{Model, Options, Pacing, Provider, Tools, Wire};
use tinkerbell_router::{Environment, Router};
use tinkerbell_testkit::fake::FakeClock;
use tinkerbell_testkit::llm::{Scripted, Turn};

pub const TOOLS: &[ToolSpec] = &[
    ToolSpec {
        name: "exec",
        description: "Runs a command.",
        schema: r#"{"type":"object","properties":{"cmd":{"type":"string"}},"required":["cmd"],"additionalProperties":false}"#,
    },
    ToolSpec {
        name: "read",
        description: "Reads a file.",
        schema: r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"],"additionalProperties":false}"#,
    },
];

pub const WIRES: &[Wire] = &[Wire::Openai, Wire::OpenaiResponses, Wire::Anthropic, Wire::Gemini, Wire::Ollama];

/// No waits between tries: the clock of these tests jumps.
pub fn pacing() -> Pacing {
    Pacing { base: Duration::from_millis(1), cap: Duration::from_millis(4), local_first_token: 1, ..Pacing::default() }
}

pub fn options(server: &Scripted, wire: Wire) -> Options {
    let provider = Provider { wire: Some(wire), base_url: Some(server.url()), ..Provider::default() };
    Options { providers: BTreeMap::from([("local".to_owned(), provider)]), pacing: pacing(), ..Options::default() }
}

pub fn with_tools(mut options: Options, tools: Tools) -> Options {
    options.models.insert("local/m".to_owned(), Model { tools: Some(tools), context_tokens: Some(100_000), ..Model::default() });
    options
}

pub fn environment(pairs: &'static [(&'static str, &'static str)]) -> Environment {
    Arc::new(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| tinkerbell_secret::Secret::shared(*value)))
}

pub fn router(options: Options) -> Arc<Router> {
    Router::new(options, environment(&[]), Arc::new(FakeClock::eager()))
}

pub fn call(messages: Vec<Message>) -> ModelCall {
    ModelCall {
        task: TaskId(7),
        seq: 1,
        attempt: 0,
        model: "local/m".to_owned(),
        system: "You are a builder.".to_owned(),
        tools: TOOLS.to_vec(),
        messages,
        tail: "step 1 of 9".to_owned(),
        max_output_tokens: 4_000,
        stall: Duration::from_millis(300),
    }
}

pub fn goal() -> ModelCall {
    call(vec![Message::User("Make it so.".to_owned())])
}

/// What came of a question.
pub struct Asked {
    pub end: Result<Completion, ModelError>,
    pub text: String,
    pub retries: Vec<String>,
}

pub async fn ask(router: &Router, call: ModelCall) -> Asked {
    let mut stream = router.complete(call);
    let mut asked = Asked { end: Err(ModelError::NeedsKey("nothing came".to_owned())), text: String::new(), retries: Vec::new() };
    let all = async {
        while let Some(event) = stream.next().await {
            match event {
                Ok(ModelEvent::Text(piece)) => asked.text.push_str(&piece),
                Ok(ModelEvent::Reasoning(_)) => {}
                Ok(ModelEvent::Retrying { why, .. }) => {
                    asked.text.clear();
                    asked.retries.push(why);
                }
                Ok(ModelEvent::Done(done)) => asked.end = Ok(*done),
                Err(error) => asked.end = Err(error),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the stream ends");
    asked
}

pub async fn play(turns: Vec<Turn>, wire: Wire) -> (Asked, Scripted) {
    let server = Scripted::start(turns).await.unwrap();
    let asked = ask(&router(options(&server, wire)), goal()).await;
    (asked, server)
}

/// Calls of an answer: id, tool, arguments.
pub fn calls(done: &Completion) -> Vec<(String, String, Value)> {
    let calls = done.parts.iter().filter(|part| part.kind == PartKind::Call as i32);
    calls.map(|part| (part.call_id.clone(), part.tool.clone(), serde_json::from_str(&part.text).unwrap())).collect()
}

pub fn words(done: &Completion) -> String {
    done.parts.iter().filter(|part| part.kind == PartKind::Text as i32).map(|part| part.text.as_str()).collect()
}

pub fn answered(done: Completion) -> Message {
    Message::Assistant { parts: done.parts, made: Some(done.made) }
}

/// A result for every call of an answer.
pub fn results(parts: &[Part]) -> Vec<Message> {
    let calls = parts.iter().filter(|part| part.kind == PartKind::Call as i32);
    calls.map(|part| Message::Tool { call_id: part.call_id.clone(), tool: part.tool.clone(), text: "fine".to_owned() }).collect()
}

pub fn code(asked: &Asked) -> String {
    match &asked.end {
        Ok(_) => "done".to_owned(),
        Err(ModelError::Fault(fault)) => fault.code.0.to_owned(),
        Err(other) => other.to_string(),
    }
}
