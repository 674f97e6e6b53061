//! The ways of calling tools, and the probe that chooses.

use crate::house::{answered, ask, call, calls, goal, options, play, results, router, with_tools, words};
use serde_json::json;
use tinkerbell_core::model::{Message, StopReason};
use tinkerbell_router::options::{Tools, Wire};
use tinkerbell_testkit::llm::{Fault, Scripted, Settings, Turn};

#[tokio::test]
async fn a_model_without_calls_works_through_a_schema() {
    let turns = vec![Turn { text: "look first".to_owned(), ..Turn::call("read", json!({"path": "a.txt"})) }, Turn::text("all done")];
    let server = Scripted::start(turns).await.unwrap();
    let router = router(with_tools(options(&server, Wire::Openai), Tools::JsonSchema));
    let first = ask(&router, goal()).await;
    let done = first.end.unwrap();
    assert_eq!(calls(&done), [("call_0_0".to_owned(), "read".to_owned(), json!({"path": "a.txt"}))]);
    assert_eq!((words(&done).as_str(), first.text.as_str(), done.stop), ("look first", "", StopReason::Calls));

    let mut messages = goal().messages;
    let observed = results(&done.parts);
    messages.push(answered(done));
    messages.extend(observed);
    let last = ask(&router, call(messages)).await.end.unwrap();
    assert_eq!((words(&last).as_str(), last.stop), ("all done", StopReason::End));

    let body = &server.requests()[1].body;
    assert!(body.get("tools").is_none());
    assert_eq!(body["response_format"]["json_schema"]["schema"]["anyOf"].as_array().unwrap().len(), 3);
    let roles: Vec<&str> = body["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!(body["messages"][2]["content"], r#"{"thought":"look first","tool":"read","args":{"path":"a.txt"}}"#);
    assert_eq!(body["messages"][3]["content"], "[read]\nfine\n\nstep 1 of 9");
}

#[tokio::test]
async fn a_bound_answer_cut_by_the_limit_is_no_call() {
    let server = Scripted::start(vec![Turn::call("exec", json!({"cmd": "x"})).fault(Fault::Length)]).await.unwrap();
    let done = ask(&router(with_tools(options(&server, Wire::Openai), Tools::JsonSchema)), goal()).await.end.unwrap();
    assert_eq!((done.stop, calls(&done).len()), (StopReason::Length, 0));
}

#[tokio::test]
async fn a_call_written_as_text_is_a_call() {
    let (asked, _server) =
        play(vec![Turn { text: "I look.".to_owned(), ..Turn::call("read", json!({"path": "a"})) }.fault(Fault::AsText)], Wire::Openai)
            .await;
    let done = asked.end.unwrap();
    assert_eq!((calls(&done)[0].1.as_str(), words(&done).as_str(), done.stop), ("read", "I look.", StopReason::Calls));
    for text in [
        "```json\n{\"name\":\"rm\",\"arguments\":{}}\n```",
        "{\"name\":\"read\"}",
        "```\n{}\n``` and\n```json\n{\"name\":\"read\",\"arguments\":{}}\n```",
    ] {
        let (asked, _server) = play(vec![Turn::text(text)], Wire::Openai).await;
        assert_eq!(calls(&asked.end.unwrap()).len(), 0, "{text}");
    }
}

#[tokio::test]
async fn auto_asks_once_and_remembers() {
    let ping = || Turn::call("ping", json!({"host": "example"}));
    let dir = tempfile::tempdir().unwrap();
    for (probe, bound) in
        [(ping(), false), (ping().fault(Fault::AsText), false), (Turn::text("I can not."), true), (ping().fault(Fault::status(400)), true)]
    {
        let sequential = Settings { sequential: true, ..Settings::default() };
        let server =
            Scripted::start_with(vec![probe.clone(), Turn::text("one"), Turn::text("two"), Turn::text("three")], sequential).await.unwrap();
        let mut options = with_tools(options(&server, Wire::Openai), Tools::Auto);
        options.cache_dir = Some(dir.path().join("cache"));
        let first = router(options.clone());
        assert_eq!(words(&ask(&first, goal()).await.end.unwrap()), "one");
        assert_eq!(words(&ask(&first, goal()).await.end.unwrap()), "two");
        // Another process finds the answer on disk.
        assert_eq!(words(&ask(&router(options), goal()).await.end.unwrap()), "three");
        let requests = server.requests();
        assert_eq!(requests.len(), 4, "{probe:?}");
        assert_eq!(requests[3].body.get("response_format").is_some(), bound, "{probe:?}");
    }
}

#[tokio::test]
async fn sealed_reasoning_goes_back_to_its_maker_only() {
    for (wire, seal) in [
        (Wire::Anthropic, "\"signature\":\"sealed:deep\""),
        (Wire::OpenaiResponses, "\"encrypted_content\":\"sealed:deep\""),
        (Wire::Gemini, "\"thoughtSignature\":\"sealed:deep\""),
    ] {
        let server =
            Scripted::start(vec![Turn::call("read", json!({"path": "a"})).thinking("deep"), Turn::text("done"), Turn::text("done")])
                .await
                .unwrap();
        let mut options = options(&server, wire);
        let other = options.providers["local"].clone();
        options.providers.insert("other".to_owned(), other);
        let router = router(options);
        let done = ask(&router, goal()).await.end.unwrap();
        let mut messages = vec![Message::User("Make it so.".to_owned())];
        let observed = results(&done.parts);
        messages.push(answered(done));
        messages.extend(observed);
        ask(&router, call(messages.clone())).await.end.unwrap();
        ask(&router, tinkerbell_core::model::ModelCall { model: "other/m".to_owned(), ..call(messages) }).await.end.unwrap();
        let sent: Vec<String> = server.requests().iter().map(|request| String::from_utf8_lossy(&request.bytes).into_owned()).collect();
        assert!(sent[1].contains(seal), "{wire:?}: {}", sent[1]);
        assert!(!sent[2].contains("sealed:deep"), "{wire:?}: {}", sent[2]);
    }
}
