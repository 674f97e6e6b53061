//! The same past gives the same bytes: what was sent before comes first in what is sent next.
//!
//! Exactly: the array of messages of a call, without what its tail put at the end, is a prefix of
//! the array of the next call, byte for byte. Anthropic's cache marks move and are left out.

use crate::house::{answered, ask, call, options, results, router, with_tools};
use serde_json::{Value, json};
use tinkerbell_core::model::Message;
use tinkerbell_router::options::{Tools, Wire};
use tinkerbell_testkit::llm::{Scripted, Turn};

/// The messages as text without the closing bracket and without the tail.
fn stable(body: &Value) -> String {
    let mut messages = ["messages", "input", "contents"].iter().find_map(|name| body.get(name)).cloned().unwrap();
    unmark(&mut messages);
    let text = messages.to_string();
    let at = text.rfind("step ").unwrap();
    // The tail stands alone in a message, or behind a blank line at the end of the last one.
    let head = &text[..at];
    let head = head.strip_suffix("\\n\\n").unwrap_or_else(|| &head[..head.rfind(",{\"role\":\"user\"").unwrap()]);
    head.to_owned()
}

/// Takes marks out, and the array form that a text takes to carry one.
fn unmark(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(unmark),
        Value::Object(fields) => {
            fields.remove("cache_control");
            fields.values_mut().for_each(unmark);
            if let Some(Value::Array(content)) = fields.get("content")
                && let [only] = content.as_slice()
                && only["type"] == "text"
            {
                let text = only["text"].clone();
                fields.insert("content".to_owned(), text);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn what_was_sent_before_comes_first_in_what_is_sent_next() {
    let modes = [
        (Wire::Openai, Tools::Native),
        (Wire::Openai, Tools::JsonSchema),
        (Wire::OpenaiResponses, Tools::Native),
        (Wire::Anthropic, Tools::Native),
        (Wire::Gemini, Tools::Native),
        (Wire::Ollama, Tools::Native),
    ];
    for (wire, tools) in modes {
        let turn =
            |path: &str| Turn { text: format!("next is {path}"), ..Turn::call("read", json!({"path": path, "why": ["ä", 1.50, null]})) };
        let server = Scripted::start(vec![turn("a").thinking("hm"), turn("b"), turn("c"), Turn::text("done")]).await.unwrap();
        let router = router(with_tools(options(&server, wire), tools));
        let mut messages = vec![Message::User("Make it so.".to_owned())];
        for step in 0..4 {
            let asked = tinkerbell_core::model::ModelCall { tail: format!("step {step}"), ..call(messages.clone()) };
            let done = ask(&router, asked).await.end.unwrap();
            let observed = results(&done.parts);
            messages.push(answered(done));
            messages.extend(observed);
        }
        let bodies: Vec<Value> = server.requests().into_iter().map(|request| request.body).collect();
        for pair in bodies.windows(2) {
            let (before, after) = (stable(&pair[0]), stable(&pair[1]));
            assert!(after.starts_with(&before), "{wire:?} {tools:?}\n{before}\n{after}");
            for name in ["tools", "system", "instructions", "systemInstruction", "prompt_cache_key", "response_format"] {
                assert_eq!(pair[0].get(name), pair[1].get(name), "{wire:?} {name}");
            }
        }
    }
}

#[tokio::test]
async fn marks_stand_on_the_prefix_and_before_the_tail() {
    let server = Scripted::start(vec![Turn::text("done")]).await.unwrap();
    ask(&router(options(&server, Wire::Anthropic)), call(vec![Message::User("Make it so.".to_owned())])).await.end.unwrap();
    let body = &server.requests()[0].body;
    assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
    assert_eq!(body["messages"][0]["content"][0]["cache_control"]["type"], "ephemeral");
    assert_eq!(body["messages"][1]["content"], "step 1 of 9");
    assert_eq!(body["max_tokens"], 4_000);
}

#[tokio::test]
async fn the_task_is_the_cache_key_and_a_suffix_stays_in_the_name() {
    let server = Scripted::start(vec![Turn::text("done")]).await.unwrap();
    let asked = tinkerbell_core::model::ModelCall { model: "local/qwen-high".to_owned(), ..crate::house::goal() };
    ask(&router(options(&server, Wire::Openai)), asked).await.end.unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.body["model"], "qwen-high");
    assert_eq!(request.body["prompt_cache_key"], "00000000000000000000000000000007");
    assert!(request.body.get("reasoning_effort").is_none() && !request.headers.contains_key("authorization"));
    assert_eq!((request.body["stream"].clone(), request.body["stream_options"]["include_usage"].clone()), (json!(true), json!(true)));
}

#[tokio::test]
async fn results_that_do_not_pair_are_mended() {
    let server = Scripted::start(vec![Turn::text("unused"), Turn::text("done")]).await.unwrap();
    let part = |id: &str| tinkerbell_core::event::Part { kind: 2, text: "{}".to_owned(), call_id: id.to_owned(), tool: "read".to_owned() };
    let messages = vec![
        Message::User("Make it so.".to_owned()),
        Message::Assistant { parts: vec![part("a"), part("b")], made: None },
        Message::Tool { call_id: "b".to_owned(), tool: "read".to_owned(), text: "fine".to_owned() },
        Message::Tool { call_id: "x".to_owned(), tool: "exec".to_owned(), text: "stray".to_owned() },
        Message::User("Go on.".to_owned()),
    ];
    ask(&router(options(&server, Wire::Openai)), call(messages)).await.end.unwrap();
    let sent = server.requests()[0].body["messages"].as_array().unwrap().clone();
    let seen: Vec<(String, String)> = sent
        .iter()
        .skip(3)
        .map(|message| (message["role"].as_str().unwrap().to_owned(), message["tool_call_id"].as_str().unwrap_or_default().to_owned()))
        .collect();
    let expect = |pairs: &[(&str, &str)]| pairs.iter().map(|(role, id)| ((*role).to_owned(), (*id).to_owned())).collect::<Vec<_>>();
    assert_eq!(seen, expect(&[("tool", "b"), ("tool", "a"), ("user", "")]));
}
