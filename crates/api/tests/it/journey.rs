//! Round trips: client, socket, server, engine and back.

use crate::fake::{Fake, TASK};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tinkerbell_api::client::{Arrival, EventStream};
use tinkerbell_api::wire::{Body, CommandRequest, SubmitRequest, UpgradeRequest};
use tinkerbell_api::{Client, ServerState, serve, socket};
use tinkerbell_core::effect::{Live, LiveDelta};
use tinkerbell_core::event::{self, Action, Event, Observation};
use tinkerbell_core::port::{Command, Given};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

struct House {
    engine: Arc<Fake>,
    client: Client,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    dir: tempfile::TempDir,
}

async fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/tinkerbelld.sock");
    let engine = Fake::new();
    let (server, stop) = start(&engine, &path).await;
    let client = Client::connect(path).await.unwrap();
    House { engine, client, stop, server, dir }
}

async fn start(engine: &Arc<Fake>, path: &std::path::Path) -> (tokio::task::JoinHandle<std::io::Result<()>>, CancellationToken) {
    let listener = socket::bind(path).await.unwrap();
    let stop = CancellationToken::new();
    let state = ServerState::new(engine.clone(), engine.clone(), engine.clone(), stop.clone());
    (tokio::spawn(serve(listener, state)), stop)
}

fn request() -> SubmitRequest {
    let env = BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-secret".to_owned())]);
    SubmitRequest { goal: "accept CRLF".into(), cwd: "/r".into(), env, ..SubmitRequest::default() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

async fn lines(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(match soon(stream.next()).await {
            Ok(Arrival::Event { envelope: Some(envelope), .. }) => match (&envelope.body, envelope.lsn) {
                (Body::ItemUpdated(item), None) => format!("live {}", item.text),
                (Body::ItemCompleted(item), Some(lsn)) => format!("{lsn} {:?} {:?}", item.kind, item.tool),
                (Body::Result(result), Some(lsn)) => format!("{lsn} result {:?} {}", result.cost_micros, result.usage.input_tokens),
                (_, lsn) => format!("{}", lsn.unwrap_or_default()),
            },
            Ok(Arrival::Event { raw, .. }) => raw,
            Ok(Arrival::CaughtUp(lsn)) => format!("caught up {lsn}"),
            Err(fault) => format!("fault {}", fault.code),
        });
    }
    seen
}

fn play(engine: &Fake) {
    let call = event::Call { tool: "exec".into(), args: r#"{"cmd":"make"}"#.into(), ..event::Call::default() };
    engine.happen(Event::Intent(event::Intent { seq: 2, class: 1, action: Some(Action::Call(call)), yolo: false }));
    let result = event::ResultSeen { status: "exited".into(), ..event::ResultSeen::default() };
    engine.happen(Event::Observed(event::Observed { seq: 2, observation: Some(Observation::Result(result)) }));
    engine.happen(Event::Settled(event::Settled {
        seq: 2,
        nano_usd: 5_000,
        input_tokens: 70,
        cached_tokens: 0,
        output_tokens: 1,
        ..event::Settled::default()
    }));
    engine.happen(Event::Finished(event::Finished { status: "unverified".into(), ..event::Finished::default() }));
}

#[tokio::test]
async fn a_submission_arrives_whole_and_its_environment_apart_from_it() {
    let house = house().await;
    let submitted = house.client.submit(&request(), Some("key-1")).await.unwrap();
    assert_eq!((submitted.task, submitted.short.as_str(), submitted.lsn), (TASK.to_string(), "7f3a2c", 1));
    let given = house.engine.submissions.lock().unwrap()[0].clone();
    assert_eq!((given.goal.as_str(), given.idempotency_key.as_deref()), ("accept CRLF", Some("key-1")));
    assert_eq!(given.uid, rustix::process::geteuid().as_raw());
    assert_eq!(house.engine.env.lock().unwrap()[0].0, "OPENAI_API_KEY");
    assert!(!format!("{:?}", request()).contains("sk-secret"));
    assert_eq!(house.client.task("7f3a").await.unwrap().goal, "accept CRLF");
    assert_eq!(house.client.tasks(false, 100, None).await.unwrap().tasks.len(), 1);
}

#[tokio::test]
async fn every_command_reaches_the_engine() {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    let uid = rustix::process::geteuid().as_raw();
    for (request, command) in [
        (CommandRequest::Tell { text: "x".into() }, Command::Tell("x".into())),
        (CommandRequest::Pause {}, Command::Pause),
        (CommandRequest::Resume { caps: None }, Command::Resume(None)),
        (CommandRequest::Cancel {}, Command::Cancel),
        (
            CommandRequest::Answer { id: 1, approve: true, text: "y".into(), digest: "d".into(), scope: "task".into() },
            Command::Answer(Given { id: 1, yes: true, text: "y".into(), uid, digest: "d".into(), scope: "task".into() }),
        ),
        (CommandRequest::Undo { all: true }, Command::Undo { all: true }),
        (CommandRequest::Redo {}, Command::Redo),
        (CommandRequest::Restore { op: 3 }, Command::Restore { op: 3 }),
        (
            CommandRequest::Land { branch: Some("b".into()), message: "m".into() },
            Command::Land { branch: Some("b".into()), message: "m".into() },
        ),
        (CommandRequest::Remove { force: false }, Command::Remove { force: false }),
    ] {
        let text = house.client.command("7f3a2c", &request).await.unwrap();
        assert_eq!(text, format!("{command:?}"));
        assert_eq!(house.engine.commands.lock().unwrap().last(), Some(&command));
    }
}

#[tokio::test]
async fn a_stream_resumes_with_the_same_events_wherever_it_starts() {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    play(&house.engine);
    let whole = lines(&mut house.client.events(Some("7f3a2c"), 0, false).await.unwrap(), 5).await;
    assert_eq!(whole, ["1", "2", "3 Command Some(\"exec\")", "5 result Some(5) 70", "caught up 5"]);
    for after in 0..5_u64 {
        let expected: Vec<String> =
            whole.iter().filter(|line| line.starts_with('c') || line[..1].parse::<u64>().unwrap() > after).cloned().collect();
        let mut stream = house.client.events(Some("7f3a2c"), after, false).await.unwrap();
        assert_eq!(lines(&mut stream, expected.len()).await, expected, "after {after}");
        assert_eq!(stream.last(), 5);
    }
}

#[tokio::test]
async fn live_progress_is_shown_only_to_those_who_want_it() {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    house.engine.live.lock().unwrap().push(Live { task: TASK, seq: 1, delta: LiveDelta::Text("hello".into()) });
    let mut stream = house.client.events(None, 0, true).await.unwrap();
    assert_eq!(lines(&mut stream, 3).await, ["1", "caught up 1", "live hello"]);
    house.engine.live.lock().unwrap().push(Live { task: TASK, seq: 1, delta: LiveDelta::Text("hidden".into()) });
    let mut stream = house.client.events(None, 0, false).await.unwrap();
    assert_eq!(lines(&mut stream, 2).await, ["1", "caught up 1"]);
    play(&house.engine);
    assert_eq!(lines(&mut stream, 1).await, ["2"]);
}

/// A stream whose connection was closed after two events.
async fn dropped() -> (House, EventStream) {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    play(&house.engine);
    house.engine.break_after.store(2, Ordering::SeqCst);
    let mut stream = house.client.events(None, 0, false).await.unwrap();
    assert_eq!(lines(&mut stream, 2).await, ["1", "2"]);
    house.engine.break_after.store(usize::MAX, Ordering::SeqCst);
    (house, stream)
}

#[tokio::test]
async fn a_dropped_reader_comes_back_by_itself() {
    let (_house, mut stream) = dropped().await;
    assert_eq!(lines(&mut stream, 2).await, ["3 Command Some(\"exec\")", "5 result Some(5) 70"]);
}

/// Who looks again and again with little patience, as a screen does, loses nothing by that.
#[tokio::test]
async fn an_impatient_reader_comes_back_as_well() {
    let (_house, mut stream) = dropped().await;
    let looks = async {
        loop {
            if let Ok(arrival) = tokio::time::timeout(Duration::from_millis(5), stream.next()).await {
                return arrival;
            }
        }
    };
    assert!(matches!(soon(looks).await, Ok(Arrival::Event { .. })));
    assert_eq!(stream.last(), 3);
}

#[tokio::test]
async fn a_lost_daemon_is_told_and_the_stream_goes_on_from_its_number() {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    let mut stream = house.client.events(None, 0, false).await.unwrap();
    assert_eq!(lines(&mut stream, 2).await, ["1", "caught up 1"]);
    house.stop.cancel();
    soon(house.server).await.unwrap().unwrap();
    let fault = soon(stream.next()).await.unwrap_err();
    assert_eq!((fault.code.0, fault.exit), ("TB-API-001", 69));
    play(&house.engine);
    let _second = start(&house.engine, house.client.path()).await;
    let mut stream = house.client.events(None, stream.last(), false).await.unwrap();
    assert_eq!(lines(&mut stream, 1).await, ["2"]);
    drop(house.dir);
}

#[tokio::test]
async fn faults_arrive_with_code_exit_and_hints() {
    let house = house().await;
    let fault = house.client.task("zz").await.unwrap_err();
    assert_eq!((fault.code.0, fault.exit, fault.hints.len()), ("TB-TASK-001", 2, 1));
    let empty = SubmitRequest { goal: "  ".into(), cwd: "/r".into(), ..SubmitRequest::default() };
    let relative = SubmitRequest { goal: "x".into(), cwd: "r".into(), ..SubmitRequest::default() };
    for bad in [empty, relative] {
        assert_eq!(house.client.submit(&bad, None).await.unwrap_err().code.0, "TB-API-012");
    }
    let huge = SubmitRequest { goal: "x".repeat(2 << 20), cwd: "/r".into(), ..SubmitRequest::default() };
    assert_eq!(house.client.submit(&huge, None).await.unwrap_err().code.0, "TB-API-009");
    assert_eq!(Client::connect(house.dir.path().join("none/s")).await.unwrap_err().code.0, "TB-API-001");
}

#[tokio::test]
async fn plain_http_is_answered_plainly() {
    let house = house().await;
    house.client.submit(&request(), None).await.unwrap();
    for (ask, want) in [
        ("GET /healthz", "200 OK"),
        ("GET /readyz", "ready"),
        ("GET /version", r#"{"version":"0.1.0","wire":1}"#),
        ("GET /v1/daemon", r#""pid":4711"#),
        ("GET /v1/tasks/7f3a/diff?from=1", "Some(1)..None"),
        ("GET /v1/tasks/7f3a/diff?form=1", "unknown query field `form`"),
        ("GET /v1/tasks/7f3a/events?follow=0", "event: caught-up"),
        ("GET /v1/events?after=x", "TB-API-012"),
        ("GET /v1/approvals", r#"{"approvals":[]}"#),
        ("GET /v1/blobs/zz", "not a valid blob id"),
        ("GET /nope", "TB-API-005"),
        ("DELETE /v1/tasks", "TB-API-010"),
        ("POST /v1/env", "TB-API-012"),
        ("POST /v1/daemon/upgrade", "TB-API-012"),
        ("POST /v1/daemon/reload", "nothing has changed"),
        ("POST /v1/daemon/stop", "202"),
    ] {
        let mut stream = socket::connect(house.client.path()).await.unwrap();
        stream
            .write_all(format!("{ask} HTTP/1.1\r\nHost: tinkerbell\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains(want), "{ask}: {answer}");
    }
    assert_eq!(house.engine.stops.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn stored_bytes_and_environment_pass() {
    let house = house().await;
    let blob = tinkerbell_core::words::BlobRef { key_id: 1, hash: [1; 32], size_bytes: 3 };
    assert_eq!(house.client.blob(&blob.to_string()).await.unwrap(), "xxx");
    house.client.environment(BTreeMap::from([("PATH".into(), "/bin".into())])).await.unwrap();
    assert_eq!(*house.engine.env.lock().unwrap(), [("PATH".to_owned(), "/bin".to_owned())]);
    house.client.ready().await.unwrap();
    let request = UpgradeRequest { binary: "/bin/new".to_owned(), ..UpgradeRequest::default() };
    assert_eq!(house.client.upgrade(&request).await.unwrap().binary, "/bin/new");
    house.client.stop().await.unwrap();
    assert_eq!(house.client.daemon().await.unwrap().pid, 4711);
}

/// One process hands the socket to the next: who was let in is answered by the first, even when it
/// spoke late; who came after the stop is answered by the second. Nobody is refused.
#[tokio::test]
async fn nobody_is_refused_while_the_socket_changes_hands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/tinkerbelld.sock");
    let engine = Fake::new();
    let first = socket::bind(&path).await.unwrap().into_std().unwrap();
    let held = first.try_clone().unwrap();
    let stop = CancellationToken::new();
    let state = ServerState::new(engine.clone(), engine.clone(), engine.clone(), stop.clone());
    let clients = state.clients.clone();
    let server = tokio::spawn(serve(socket::adopt(first, &path).unwrap(), state));
    let mut early = socket::connect(&path).await.unwrap();
    while clients.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut late = socket::connect(&path).await.unwrap();
    for stream in [&mut late, &mut early] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: tinkerbell\r\nConnection: close\r\n\r\n").await.unwrap();
    }
    let mut answer = String::new();
    soon(early.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    soon(server).await.unwrap().unwrap();
    let state = ServerState::new(engine.clone(), engine.clone(), engine.clone(), CancellationToken::new());
    let next = tokio::spawn(serve(socket::adopt(held, &path).unwrap(), state));
    answer.clear();
    soon(late.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    next.abort();
}
