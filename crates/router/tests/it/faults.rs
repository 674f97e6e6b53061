//! Faults, one table: what goes wrong, how often it is tried, how it ends.

use crate::house::{Asked, WIRES, ask, calls, code, goal, options, play, router};
use serde_json::json;
use std::time::Duration;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{ModelError, StopReason};
use tinkerbell_core::money::{NanoUsd, Price};
use tinkerbell_core::port::Model as _;
use tinkerbell_router::options::{Model, Options, Provider, Wire};
use tinkerbell_testkit::llm::{Fault, Scripted, Turn};

fn exec() -> Turn {
    Turn::call("exec", json!({"cmd": "cargo test --workspace"}))
}

fn says(asked: &Asked, server: &Scripted) -> String {
    format!("{} after {} requests", code(asked), server.requests().len())
}

#[tokio::test]
async fn every_wire_brings_a_call_home() {
    for &wire in WIRES {
        let turn = Turn { text: "I run the tests now, all of them.".to_owned(), served: Some("other-model".to_owned()), ..exec() };
        let (asked, server) = play(vec![turn.thinking("hm")], wire).await;
        let done = asked.end.unwrap_or_else(|error| panic!("{wire:?}: {error}"));
        let made = calls(&done);
        assert_eq!((made.len(), made[0].1.as_str(), &made[0].2), (1, "exec", &json!({"cmd": "cargo test --workspace"})), "{wire:?}");
        assert_eq!((done.stop, done.estimated, done.retries), (StopReason::Calls, false, 0), "{wire:?}");
        assert_eq!(
            (done.made.served.as_str(), done.made.asked.as_str(), done.made.wire.as_str()),
            ("other-model", "m", wire.name()),
            "{wire:?}"
        );
        assert!(!done.made.reply_id.is_empty() && done.usage.input > 0 && done.usage.output > 0, "{wire:?}: {done:?}");
        assert_eq!(asked.text, "I run the tests now, all of them.", "{wire:?}");
        assert_eq!(server.requests().len(), 1, "{wire:?}");
    }
}

#[tokio::test]
async fn passing_faults_are_tried_again_on_every_wire() {
    let faults = [
        Fault::status(503),
        Fault::status(529),
        Fault::Status { status: 429, retry_after: Some("1".to_owned()), body: None },
        Fault::Reset,
        Fault::Garbage,
        Fault::BadFrames,
        Fault::Cut { bytes: 150, quiet: false },
        Fault::Cut { bytes: 150, quiet: true },
        Fault::Stall { bytes: 0 },
        Fault::Stall { bytes: 150 },
        Fault::ErrorEvent { kind: "overloaded_error".to_owned() },
    ];
    for &wire in WIRES {
        for fault in &faults {
            let (asked, server) = play(vec![exec().fault(fault.clone())], wire).await;
            assert_eq!(says(&asked, &server), "done after 2 requests", "{wire:?} {fault:?}: {:?} {:?}", asked.end, asked.retries);
            let done = asked.end.unwrap();
            assert_eq!((calls(&done).len(), done.retries, asked.retries.len()), (1, 1, 1), "{wire:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_half_answer_is_never_a_call() {
    // Every cut position, quiet ones above all: genai ends such streams as if they were whole.
    for &wire in &[Wire::Openai, Wire::OpenaiResponses, Wire::Anthropic, Wire::Gemini] {
        let whole = tinkerbell_testkit::llm::dialect::frames(
            match wire {
                Wire::Openai => tinkerbell_testkit::llm::Dialect::Chat,
                Wire::OpenaiResponses => tinkerbell_testkit::llm::Dialect::Responses,
                Wire::Anthropic => tinkerbell_testkit::llm::Dialect::Messages,
                _ => tinkerbell_testkit::llm::Dialect::Gemini,
            },
            &exec(),
            None,
            &tinkerbell_testkit::llm::dialect::Asked { body: &json!({"model": "m"}), bytes: 100, number: 0 },
        );
        let total: usize = whole.iter().map(String::len).sum();
        let server = Scripted::start(
            (0..1)
                .map(|_| Turn { faults: (0..total).step_by(97).map(|bytes| Fault::Cut { bytes, quiet: true }).collect(), ..exec() })
                .collect(),
        )
        .await
        .unwrap();
        let one_try =
            Options { pacing: tinkerbell_router::options::Pacing { tries: 1, ..crate::house::pacing() }, ..options(&server, wire) };
        let router = router(one_try);
        for at in (0..total).step_by(97) {
            if let Ok(done) = ask(&router, goal()).await.end {
                assert_eq!(calls(&done)[0].2, json!({"cmd": "cargo test --workspace"}), "{wire:?} cut at {at}");
            }
        }
    }
}

#[tokio::test]
async fn useless_answers_are_tried_again_and_then_handed_on_where_the_model_can_mend_them() {
    let (asked, server) = play(vec![exec().fault(Fault::NoCalls).forever()], Wire::Openai).await;
    assert_eq!(says(&asked, &server), "TB-ROUTER-008 after 3 requests");
    for &wire in &WIRES[..3] {
        let (asked, server) = play(vec![exec().fault(Fault::MalformedArgs).forever()], wire).await;
        let call = asked.end.unwrap().parts.into_iter().find(|part| part.kind == PartKind::Call as i32).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&call.text).is_err(), "{wire:?}: {}", call.text);
        assert_eq!(server.requests().len(), 2, "{wire:?}");
    }
    let (asked, server) = play(vec![Turn::text("")], Wire::Openai).await;
    assert!(asked.end.unwrap().parts.iter().all(|part| part.text.is_empty()));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn lasting_faults_end_with_their_code() {
    let status = |status, body: &str| Fault::Status { status, retry_after: None, body: Some(body.to_owned()) };
    for (fault, what) in [
        (Fault::status(401), "TB-ROUTER-004 after 1 requests"),
        (Fault::status(403), "TB-ROUTER-004 after 1 requests"),
        (Fault::status(404), "TB-ROUTER-003 after 1 requests"),
        (Fault::status(400), "TB-ROUTER-005 after 1 requests"),
        (Fault::status(402), "TB-ROUTER-006 after 1 requests"),
        (Fault::Status { status: 429, retry_after: Some("259200".to_owned()), body: None }, "TB-ROUTER-006 after 1 requests"),
        (Fault::status(429), "TB-ROUTER-009 after 5 requests"),
        (Fault::status(500), "TB-ROUTER-009 after 5 requests"),
        (Fault::Garbage, "TB-ROUTER-008 after 5 requests"),
        (Fault::Reset, "TB-ROUTER-007 after 5 requests"),
        (
            status(400, r#"{"error":{"code":"context_length_exceeded","message":"maximum context length is 8192 tokens"}}"#),
            "the prompt does not fit into the model's context after 1 requests",
        ),
    ] {
        let (asked, server) = play(vec![exec().fault(fault.clone()).forever()], Wire::Openai).await;
        assert_eq!(says(&asked, &server), what, "{fault:?}");
    }
}

#[tokio::test]
async fn a_dead_server_is_named() {
    let server = Scripted::start(Vec::new()).await.unwrap();
    let mut options = options(&server, Wire::Openai);
    // Nobody listens at port 1; a port that was just given back may be another test's by now.
    options.providers.get_mut("local").unwrap().base_url = Some("http://127.0.0.1:1".to_owned());
    let asked = ask(&router(options), goal()).await;
    let Err(ModelError::Fault(fault)) = &asked.end else { panic!("{:?}", asked.end) };
    assert_eq!(fault.code.0, "TB-ROUTER-007");
    assert!(fault.retryable && fault.message.contains("127.0.0.1:1 "), "{}", fault.message);
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let server = Scripted::start(vec![exec().fault(Fault::Stall { bytes: 0 })]).await.unwrap();
    let patient = tinkerbell_core::model::ModelCall { stall: Duration::from_secs(60), ..goal() };
    let mut stream = router(options(&server, Wire::Openai)).complete(patient);
    let nothing = tokio::time::timeout(Duration::from_millis(200), futures_util::StreamExt::next(&mut stream)).await;
    assert!(nothing.is_err() && server.requests().len() == 1);
    drop(stream);
    let gone = async {
        while server.gone().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn retry_after_is_what_is_waited() {
    let server =
        Scripted::start(vec![exec().fault(Fault::Status { status: 429, retry_after: Some("42".to_owned()), body: None })]).await.unwrap();
    let router = router(options(&server, Wire::Openai));
    let mut stream = router.complete(goal());
    let mut waits = Vec::new();
    while let Some(Ok(event)) = futures_util::StreamExt::next(&mut stream).await {
        if let tinkerbell_core::model::ModelEvent::Retrying { wait, why, .. } = event {
            waits.push((wait, why));
        }
    }
    assert_eq!(waits, [(Duration::from_secs(42), "rate limit (429)".to_owned())]);
}

#[tokio::test]
async fn streams_without_done_or_index_are_whole() {
    for fault in [Fault::NoDone, Fault::NoIndex] {
        let (asked, server) = play(vec![exec().fault(fault.clone())], Wire::Openai).await;
        assert_eq!(says(&asked, &server), "done after 1 requests", "{fault:?}");
        assert_eq!(calls(&asked.end.unwrap())[0].2, json!({"cmd": "cargo test --workspace"}), "{fault:?}");
    }
}

#[tokio::test]
async fn an_answer_cut_by_the_limit_makes_no_call() {
    for &wire in &WIRES[..3] {
        let turn = Turn { text: "I begin".to_owned(), ..exec() };
        let (asked, _server) = play(vec![turn.fault(Fault::Length)], wire).await;
        let done = asked.end.unwrap();
        assert_eq!((done.stop, calls(&done).len()), (StopReason::Length, 0), "{wire:?}");
    }
}

#[tokio::test]
async fn a_missing_key_is_asked_for_and_never_shown() {
    let server = Scripted::start(vec![Turn::text("hello").fault(Fault::Status {
        status: 400,
        retry_after: None,
        body: Some("the key sk-very-secret is odd".to_owned()),
    })])
    .await
    .unwrap();
    let provider = Provider {
        wire: Some(Wire::Openai),
        base_url: Some(server.base_url()),
        api_key_env: Some("LOCAL_KEY".to_owned()),
        ..Provider::default()
    };
    let options = Options { providers: [("local".to_owned(), provider)].into(), pacing: crate::house::pacing(), ..Options::default() };
    let without = ask(&router(options.clone()), goal()).await;
    assert_eq!(without.end, Err(ModelError::NeedsKey("LOCAL_KEY".to_owned())));
    assert!(server.requests().is_empty());
    let clock = std::sync::Arc::new(tinkerbell_testkit::fake::FakeClock::eager());
    let with = tinkerbell_router::Router::new(options, crate::house::environment(&[("LOCAL_KEY", "sk-very-secret")]), clock);
    let refused = ask(&with, goal()).await;
    assert!(!format!("{:?}", refused.end).contains("very-secret"), "{:?}", refused.end);
    assert_eq!(server.requests()[0].headers["authorization"], "Bearer sk-very-secret");
    assert_eq!(ask(&with, goal()).await.text, "hello");
}

#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_provider_says_stays_out_of_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::warn!("the log is heard");
    for fault in [
        Fault::Status { status: 401, retry_after: None, body: Some("sk-very-secret is wrong".to_owned()) },
        Fault::ErrorEvent { kind: "api_error".to_owned() },
    ] {
        play(vec![exec().fault(fault)], Wire::Anthropic).await;
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("the log is heard") && text.lines().count() == 1, "{text}");
}

#[tokio::test]
async fn usage_becomes_money_by_the_configured_price() {
    let usage = tinkerbell_testkit::llm::Tokens { input: 1_000, cached: 400, output: 100 };
    for &wire in &WIRES[..3] {
        let server = Scripted::start(vec![Turn { usage: Some(usage), ..Turn::text("hello") }]).await.unwrap();
        let mut options = options(&server, wire);
        options.models.insert(
            "local/m".to_owned(),
            Model { input_usd_per_mtok: Some(2.0), cached_usd_per_mtok: Some(0.2), output_usd_per_mtok: Some(10.0), ..Model::default() },
        );
        let router = router(options);
        let done = ask(&router, goal()).await.end.unwrap();
        assert_eq!((done.usage.input, done.usage.cached, done.usage.output, done.estimated), (1_000, 400, 100, false), "{wire:?}");
        assert_eq!(router.card("local/m").unwrap().price.unwrap().cost(done.usage), NanoUsd(600 * 2_000 + 400 * 200 + 100 * 10_000));
    }
    let (asked, _server) = play(vec![Turn { hides_usage: true, ..Turn::text("hello") }], Wire::Openai).await;
    let done = asked.end.unwrap();
    assert!(done.estimated && done.usage.input > 20 && done.usage.output > 0);
    assert_eq!(done.parts.iter().filter(|part| part.kind == PartKind::Text as i32).count(), 1);
    assert_eq!(Price::default().cost(done.usage), NanoUsd(0));
}
