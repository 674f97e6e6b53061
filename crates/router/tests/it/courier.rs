//! Calls through a courier: the port's promises, and that an answer is bought once.
//!
//! The courier runs in this process; that it outlives a daemon's process is the roof's test.

use crate::house::{Asked, ask, environment, goal, options, words};
use futures_util::StreamExt as _;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::effect::HALT_MARK;
use tinkerbell_core::model::{Cut, ModelCall, ModelError, ModelEvent};
use tinkerbell_core::port::Model as _;
use tinkerbell_core::words::{RunId, TaskId};
use tinkerbell_router::courier::{CourierHome, CourierOptions, CourierState, courier_state, serve};
use tinkerbell_router::options::{Model, Options, Provider, Wire};
use tinkerbell_router::{Environment, Router};
use tinkerbell_testkit::contract;
use tinkerbell_testkit::fake::FakeClock;
use tinkerbell_testkit::llm::{Fault, Scripted, Turn};

const SECRET: &str = "sk-canary-0123456789";

/// A home; its courier serves until this is dropped.
struct House {
    dir: tempfile::TempDir,
    serving: Option<tokio::task::JoinHandle<std::io::Result<bool>>>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.serving.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl House {
    /// A home without a courier; none can be started.
    fn empty() -> Self {
        // Longer than a socket's address may be.
        let dir = tempfile::Builder::new().prefix(&"d".repeat(110)).tempdir().unwrap();
        Self { dir, serving: None }
    }

    async fn with_courier() -> Self {
        let mut house = Self::empty();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let served = serve(house.home(), tinkerbell_secret::Known::new(), Arc::new(FakeClock::eager()), || tx.send(()).unwrap());
        house.serving = Some(tokio::spawn(served));
        rx.await.unwrap();
        house
    }

    fn home(&self) -> CourierHome {
        CourierHome { data: self.dir.path().to_owned(), cache: None, release: "test".to_owned() }
    }

    /// A daemon's router; another one is another daemon.
    fn router(&self, options: Options) -> Arc<Router> {
        self.router_in(options, environment(&[("LOCAL_KEY", SECRET)]))
    }

    fn router_in(&self, options: Options, env: Environment) -> Arc<Router> {
        let courier = CourierOptions {
            home: self.home(),
            command: vec!["/nonexistent/courier".into()],
            env: Vec::new(),
            log: self.dir.path().join("courier.log"),
            known: tinkerbell_secret::Known::new(),
        };
        Router::with_courier(options, env, Arc::new(FakeClock::eager()), courier)
    }

    fn spools(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("calls")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

fn text_of(asked: &Asked) -> String {
    words(asked.end.as_ref().unwrap())
}

async fn script(turns: Vec<Turn>) -> (Scripted, Options) {
    let server = Scripted::start(turns).await.unwrap();
    let options = options(&server, Wire::Openai);
    (server, options)
}

fn held(text: &str) -> Turn {
    Turn::text(text).fault(Fault::Hold { bytes: 400 })
}

/// Reads a stream until the first text has come.
async fn first_text(router: &Router, call: ModelCall) -> futures_util::stream::BoxStream<'static, Result<ModelEvent, ModelError>> {
    let mut stream = router.complete(call);
    loop {
        match tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap() {
            Some(Ok(ModelEvent::Text(text))) if !text.is_empty() => return stream,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_courier_keeps_the_promises_of_the_port() {
    let good = Scripted::start(vec![Turn { text: "I look.".to_owned(), ..Turn::call("read", json!({"path": "a"})) }, Turn::text("done")])
        .await
        .unwrap();
    let bad = Scripted::start(vec![Turn::text("no").fault(Fault::Garbage).forever()]).await.unwrap();
    let mut both = options(&good, Wire::Openai);
    both.providers.extend(options(&bad, Wire::Openai).providers.into_values().map(|provider| ("bad".to_owned(), provider)));
    both.models.insert("local/m".to_owned(), Model::default());
    let house = House::with_courier().await;
    contract::model::suite(house.router(both), "local/m", "bad/m").await;
}

#[tokio::test]
async fn an_answer_is_bought_once_and_let_go_when_it_is_recorded() {
    let (server, options) = script(vec![Turn::text("paid")]).await;
    let house = House::with_courier().await;
    assert_eq!(text_of(&ask(&house.router(options.clone()), goal()).await), "paid");
    // The next daemon finds it, with no key and with the provider gone.
    let next = house.router_in(options.clone(), environment(&[]));
    let again = ask(&next, goal()).await;
    assert_eq!((text_of(&again).as_str(), again.text.as_str(), server.requests().len()), ("paid", "paid", 1));
    // Recorded effects below the question leave it; those above let it go.
    next.settle(TaskId(7), 1).await;
    assert_eq!(house.spools().len(), 1);
    next.settle(TaskId(7), 2).await;
    assert!(house.spools().is_empty());
    ask(&next, goal()).await.end.unwrap();
    next.sweep(vec![RunId { task: TaskId(7), seq: 1 }]).await;
    assert_eq!((house.spools().len(), server.requests().len()), (1, 2));
    next.sweep(Vec::new()).await;
    assert!(house.spools().is_empty());
}

#[tokio::test]
async fn an_answer_goes_on_without_its_daemon_and_the_next_one_hears_it_from_the_start() {
    let words = "word, ".repeat(200) + "end";
    let (server, options) = script(vec![held(&words)]).await;
    let house = House::with_courier().await;
    let first = house.router(options.clone());
    let stream = first_text(&first, goal()).await;
    first.leave();
    drop(stream);
    // It still runs: the next daemon attaches in its middle.
    let second = house.router_in(options.clone(), environment(&[]));
    let stream = first_text(&second, goal()).await;
    second.leave();
    drop(stream);
    server.release();
    let asked = ask(&house.router(options), goal()).await;
    assert_eq!((text_of(&asked), asked.text.as_str()), (words.clone(), words.as_str()));
    assert_eq!((server.requests().len(), server.gone().len()), (1, 0));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_providers_connection() {
    let (server, options) = script(vec![held(&"word ".repeat(200))]).await;
    let house = House::with_courier().await;
    let router = house.router(options.clone());
    drop(first_text(&router, goal()).await);
    until("the connection is closed", || !server.gone().is_empty()).await;
    // What it cost is told once it is asked for again, and the next attempt is a new call.
    let asked = ask(&router, goal()).await;
    let Err(ModelError::Cut(cut)) = asked.end else { panic!("{:?}", asked.end) };
    let Cut { why, text, usage, estimated, is_new } = *cut;
    assert!(why.contains("stopped") && text.starts_with("word ") && estimated && !is_new, "{why} {text}");
    assert!(usage.input > 20 && usage.output > 0, "{usage:?}");
    server.release();
    assert!(ask(&router, ModelCall { attempt: 1, ..goal() }).await.end.is_ok());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn settling_a_call_that_runs_ends_it() {
    let (server, options) = script(vec![held(&"word ".repeat(200))]).await;
    let house = House::with_courier().await;
    let first = house.router(options.clone());
    let stream = first_text(&first, goal()).await;
    first.leave();
    drop(stream);
    house.router(options).settle(TaskId(7), u32::MAX).await;
    until("the connection is closed", || !server.gone().is_empty()).await;
    assert!(house.spools().is_empty());
}

#[tokio::test]
async fn a_failure_is_told_once_and_then_asked_again() {
    let (server, options) = script(vec![Turn::text("better").fault(Fault::status(401))]).await;
    let house = House::with_courier().await;
    let router = house.router(options);
    assert_eq!(crate::house::code(&ask(&router, goal()).await), "TB-ROUTER-004");
    assert!(house.spools().is_empty());
    assert_eq!((text_of(&ask(&router, goal()).await), server.requests().len()), ("better".to_owned(), 2));
}

#[tokio::test]
async fn without_a_courier_the_daemon_asks_itself_and_says_why() {
    let (server, options) = script(vec![Turn::text("alone")]).await;
    let house = House::empty();
    let router = house.router(options);
    assert_eq!(courier_state(house.dir.path()), CourierState::Rests);
    assert_eq!((text_of(&ask(&router, goal()).await), server.requests().len()), ("alone".to_owned(), 1));
    let CourierState::Refused(why) = courier_state(house.dir.path()) else { panic!("not noted") };
    assert!(why.contains("could not be started"), "{why}");
}

/// A courier that ends because of a halt looks like one that does not start; nobody is asked in its place.
#[tokio::test]
async fn under_a_halt_the_daemon_asks_nobody_itself() {
    let (server, options) = script(vec![Turn::text("alone")]).await;
    let house = House::empty();
    std::fs::write(house.dir.path().join(HALT_MARK), "").unwrap();
    let router = house.router(options);
    let asked = ask(&router, goal()).await;
    assert!(matches!(&asked.end, Err(ModelError::Fault(fault)) if fault.is_halt()), "{:?}", asked.end.map(drop));
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn tries_that_the_provider_counted_are_told() {
    let usage = tinkerbell_testkit::llm::Tokens { input: 100, cached: 0, output: 10 };
    let turn = Turn { usage: Some(usage), ..Turn::call("exec", json!({"cmd": "x"})) };
    let (server, options) = script(vec![turn.fault(Fault::MalformedArgs)]).await;
    let house = House::with_courier().await;
    let done = ask(&house.router(options), goal()).await.end.unwrap();
    assert_eq!((done.retries, done.lost.input, done.lost.output, server.requests().len()), (1, 100, 10, 2));
}

#[tokio::test]
async fn no_key_is_ever_written_down() {
    let echo = format!("your key is {SECRET}, and in pieces {SECRET}");
    let (server, mut options) = script(vec![Turn { text: echo, ..Turn::call("exec", json!({"cmd": format!("echo {SECRET}")})) }]).await;
    let provider = options.providers.get_mut("local").unwrap();
    *provider = Provider { api_key_env: Some("LOCAL_KEY".to_owned()), ..provider.clone() };
    let house = House::with_courier().await;
    let asked = ask(&house.router(options), goal()).await;
    assert!(asked.end.is_ok());
    assert_eq!(server.requests()[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert!(asked.text.contains("[secret LOCAL_KEY]"), "{}", asked.text);
    let spool = std::fs::read(house.spools()[0].join("spool")).unwrap();
    assert!(!String::from_utf8_lossy(&spool).contains(SECRET));
}
