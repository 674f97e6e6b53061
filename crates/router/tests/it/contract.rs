//! The promises of the port, on every wire, in both ways of calling tools, and on recordings.

use crate::house::{WIRES, options, router};
use bytes::Bytes;
use serde_json::json;
use tinkerbell_core::model::{ModelCall, ModelError};
use tinkerbell_router::options::{Model, Options, Provider, Tools, Wire};
use tinkerbell_testkit::contract;
use tinkerbell_testkit::llm::{Fault, Scripted, Turn};

#[tokio::test]
async fn every_wire_keeps_the_promises_of_the_port() {
    for (tools, wires) in [(Tools::Native, WIRES), (Tools::JsonSchema, &[Wire::Openai, Wire::Ollama][..])] {
        for &wire in wires {
            let good =
                Scripted::start(vec![Turn { text: "I look.".to_owned(), ..Turn::call("read", json!({"path": "a"})) }, Turn::text("done")])
                    .await
                    .unwrap();
            let bad = Scripted::start(vec![Turn::text("no").fault(Fault::Garbage).forever()]).await.unwrap();
            let mut both = options(&good, wire);
            both.providers.extend(options(&bad, wire).providers.into_values().map(|provider| ("bad".to_owned(), provider)));
            both.models.insert("local/m".to_owned(), Model { tools: Some(tools), ..Model::default() });
            contract::model::suite(router(both), "local/m", "bad/m").await;
        }
    }
}

#[tokio::test]
async fn recordings_keep_the_promises_of_the_port() {
    let replay = || Provider { wire: Some(Wire::Replay), ..Provider::default() };
    let options = Options { providers: [("good".to_owned(), replay()), ("bad".to_owned(), replay())].into(), ..Options::default() };
    let router = router(options);
    router.with_replay(
        "good",
        Bytes::from_static(b"{\"text\":\"look\",\"calls\":[{\"tool\":\"read\",\"args\":{\"path\":\"a\"}}]}\n{\"text\":\"done\"}\n"),
    );
    contract::model::suite(router, "good/m", "bad/m").await;
}

#[tokio::test]
async fn a_prompt_that_ollama_would_cut_is_refused() {
    let server = Scripted::start(vec![Turn::text("done")]).await.unwrap();
    let mut options = options(&server, Wire::Ollama);
    options.models.insert("local/m".to_owned(), Model { context_tokens: Some(500), ..Model::default() });
    let router = router(options);
    let long = ModelCall { system: "x".repeat(4_000), ..crate::house::goal() };
    assert_eq!(crate::house::ask(&router, long).await.end, Err(ModelError::TooLong { limit: Some(500) }));
    assert!(server.requests().is_empty());
}
