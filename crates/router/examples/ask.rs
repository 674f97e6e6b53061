//! One question to one model: `ask WIRE BASE_URL MODEL TOOLS WORDS…`, with TOOLS one of native,
//! json-schema, auto.
//!
//! Shows that a provider with a known wire is configuration only, and serves to look at what a
//! server really does. It offers the tools `read` and `exec` and runs neither.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::model::{Message, ModelCall, ModelEvent};
use tinkerbell_core::port::Model as _;
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_core::words::TaskId;
use tinkerbell_router::options::{Model, Options, Provider};
use tinkerbell_router::{Environment, Router};

const TOOLS: &[ToolSpec] = &[
    ToolSpec {
        name: "read",
        description: "Reads a file of the project.",
        schema: r#"{"type":"object","properties":{"path":{"type":"string"},"start":{"type":"integer"}},"required":["path"],"additionalProperties":false}"#,
    },
    ToolSpec {
        name: "exec",
        description: "Runs a shell command in the project.",
        schema: r#"{"type":"object","properties":{"cmd":{"type":"string"}},"required":["cmd"],"additionalProperties":false}"#,
    },
];

/// Really waits, and does not know the date: it is needed for dates in `retry-after` only.
struct Patient;

impl Clock for Patient {
    fn now(&self) -> Stamp {
        Stamp::default()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [wire, base_url, model, tools, question @ ..] = words.as_slice() else {
        return Err("usage: ask WIRE BASE_URL MODEL TOOLS WORDS…".into());
    };
    let word = |text: &str| serde_json::Value::String(text.to_owned());
    let provider = Provider { wire: Some(serde_json::from_value(word(wire))?), base_url: Some(base_url.clone()), ..Provider::default() };
    let name = format!("it/{model}");
    let known = Model { tools: Some(serde_json::from_value(word(tools))?), ..Model::default() };
    let options = Options { providers: [("it".to_owned(), provider)].into(), models: [(name.clone(), known)].into(), ..Options::default() };
    let env: Environment = Arc::new(|_| None);
    let router = Router::new(options, env, Arc::new(Patient));
    let call = ModelCall {
        task: TaskId(1),
        seq: 1,
        attempt: 0,
        model: name,
        system: "You are a careful programmer.".to_owned(),
        tools: TOOLS.to_vec(),
        messages: vec![Message::User(question.join(" "))],
        tail: "Step 1.".to_owned(),
        max_output_tokens: 256,
        stall: Duration::from_secs(60),
    };
    let mut out = std::io::stdout();
    let mut stream = router.complete(call);
    while let Some(event) = stream.next().await {
        match event {
            Ok(ModelEvent::Done(done)) => writeln!(out, "\n{done:#?}")?,
            Ok(other) => writeln!(out, "{other:?}")?,
            Err(error) => writeln!(out, "failed: {error:?}")?,
        }
    }
    Ok(())
}
