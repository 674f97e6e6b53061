//! The provider `replay`, detection, and the choice of a default.

use crate::house::{answered, ask, call, calls, code, environment, goal, results, router, words};
use bytes::Bytes;
use tinkerbell_core::model::Message;
use tinkerbell_core::money::Price;
use tinkerbell_core::port::Model as _;
use tinkerbell_router::options::{Options, Provider, Wire};
use tinkerbell_router::{Detection, KeySeen, Router, ServerSeen, ServerState, default_model, detect};
use tinkerbell_testkit::llm::{Scripted, Settings};

const TURNS: &str = r#"
{"text":"look","calls":[{"tool":"read","args":{"path":"a"}}],"usage":{"input":100,"output":10},"priced_as":"anthropic/claude-sonnet-5"}

{"text":"done","delay_ms":50}
"#;

fn options() -> Options {
    let provider = Provider { wire: Some(Wire::Replay), ..Provider::default() };
    Options { providers: [("local".to_owned(), provider)].into(), ..Options::default() }
}

#[tokio::test]
async fn a_recording_is_played_by_the_transcript() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turns.jsonl");
    std::fs::write(&path, TURNS).unwrap();
    let mut filed = options();
    filed.providers.get_mut("local").unwrap().path = Some(path);
    let embedded = router(options());
    embedded.with_replay("local", Bytes::from_static(TURNS.as_bytes()));
    for router in [router(filed), embedded] {
        assert_eq!(router.card("local/m").unwrap().price, Some(Price::default()));
        let mut messages = vec![Message::User("Make it so.".to_owned())];
        let first = ask(&router, call(messages.clone())).await;
        let done = first.end.unwrap();
        assert_eq!((first.text.as_str(), calls(&done)[0].1.as_str(), done.usage.input), ("look", "read", 100));
        assert_eq!((done.made.served.as_str(), Router::list_price(&done.made.served).is_some()), ("anthropic/claude-sonnet-5", true));
        assert_eq!(ask(&router, call(messages.clone())).await.end.unwrap(), done);
        let observed = results(&done.parts);
        messages.push(answered(done));
        messages.extend(observed);
        let last = ask(&router, call(messages.clone())).await.end.unwrap();
        assert_eq!(words(&last), "done");
        messages.push(answered(last));
        assert_eq!(code(&ask(&router, call(messages)).await), "TB-ROUTER-010");
    }
}

#[tokio::test]
async fn damaged_recordings_are_named_by_line() {
    for recording in ["{\"text\":\"a\"", "{\"txt\":\"a\"}", "\u{0}"] {
        let router = router(options());
        router.with_replay("local", Bytes::from(recording.to_owned()));
        let asked = ask(&router, goal()).await;
        assert!(format!("{:?}", asked.end).contains("line 1"), "{:?}", asked.end);
        assert_eq!(code(&asked), "TB-ROUTER-010");
    }
    assert_eq!(code(&ask(&router(options()), goal()).await), "TB-ROUTER-010");
}

#[tokio::test]
async fn a_reload_is_seen_by_the_next_call() {
    let router = router(Options::default());
    assert_eq!(code(&ask(&router, goal()).await), "TB-ROUTER-002");
    router.reload(options());
    assert!(router.card("local/m").is_ok());
}

fn seen(keys: &[(&'static str, bool)], state: ServerState) -> Detection {
    let server = ServerSeen {
        name: "Ollama",
        provider: "ollama",
        address: "127.0.0.1:11434".to_owned(),
        base_url: "http://127.0.0.1:11434/v1/".to_owned(),
        state,
    };
    Detection {
        keys: keys.iter().map(|(provider, is_set)| KeySeen { provider, variable: "KEY", is_set: *is_set }).collect(),
        servers: vec![server],
    }
}

#[test]
fn the_default_is_configured_or_found() {
    let configured = Options { model: Some("local/m".to_owned()), ..Options::default() };
    let nothing = seen(&[("openai", false)], ServerState::Refused);
    assert_eq!(default_model(&configured, &nothing).unwrap().0, "local/m");
    assert!(
        default_model(&Options::default(), &seen(&[("anthropic", false), ("openai", true)], ServerState::Refused))
            .unwrap()
            .0
            .starts_with("openai/")
    );
    assert_eq!(default_model(&Options::default(), &seen(&[], ServerState::Found(vec!["qwen".to_owned()]))).unwrap().0, "ollama/qwen");
    let fault = default_model(&Options::default(), &nothing).unwrap_err();
    assert_eq!((fault.code.0, fault.exit), ("TB-ROUTER-001", 77));
    assert_eq!(fault.hints[0], "looked for: 1 environment keys (none set) · Ollama at 127.0.0.1:11434 (refused)");
}

#[tokio::test]
async fn detection_finds_servers_and_shows_no_key() {
    let server = Scripted::start_with(Vec::new(), Settings { models: vec!["qwen".to_owned()], ..Settings::default() }).await.unwrap();
    let address = server.url().trim_start_matches("http://").to_owned();
    let env: tinkerbell_router::Environment = std::sync::Arc::new(move |name| match name {
        "OLLAMA_HOST" => Some(tinkerbell_secret::Secret::shared(address.clone())),
        "OPENAI_API_KEY" => Some(tinkerbell_secret::Secret::shared("sk-very-secret")),
        _ => None,
    });
    let found = detect(&env).await;
    assert_eq!(found.servers[0].models(), ["qwen"]);
    assert!(found.keys.iter().any(|key| key.variable == "OPENAI_API_KEY" && key.is_set));
    assert!(!format!("{found:?} {}", found.summary()).contains("very-secret"));
    drop(environment(&[]));
}
