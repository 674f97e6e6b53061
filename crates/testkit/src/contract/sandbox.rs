//! What every `Sandbox` keeps.
//!
//! Knows nothing of keepers or levels; commands are plain shell. Invariant checked above all: a
//! run's command has one effect, and its true end is found again by whoever asks.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::port::{Ended, ExecSpec, Found, Sandbox, Unit, UnitState, Until};
use tinkerbell_core::words::RunId;

/// Longest time that any command of the suite may take.
const LONG: Duration = Duration::from_secs(20);

/// What the suite needs of an adapter's test.
pub struct Bench<S, D> {
    /// A specification of this number for a shell command, all in one task and workspace.
    pub spec: S,
    /// A daemon of its own over the same places, each time it is called.
    pub daemon: D,
}

/// Makes specifications.
pub trait Spec: Fn(u32, &str) -> ExecSpec {}
impl<F: Fn(u32, &str) -> ExecSpec> Spec for F {}
/// Makes daemons.
pub trait Daemon: Fn() -> Arc<dyn Sandbox> {}
impl<F: Fn() -> Arc<dyn Sandbox>> Daemon for F {}

/// Runs the whole suite.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn suite<S: Spec, D: Daemon>(bench: Bench<S, D>) {
    let (spec, daemon) = (&bench.spec, &bench.daemon);
    daemon().level().await.expect("a level is proven");
    output_and_end_are_true(spec, daemon).await;
    a_run_has_one_effect(spec, daemon).await;
    another_daemon_finds_it_again(spec, daemon).await;
    standard_input_is_delivered_once(spec, daemon).await;
    waiting_ends_at_a_line_or_in_time(spec, daemon).await;
    stopping_ends_what_lives_and_nothing_else(spec, daemon).await;
    sweeping_spares_what_is_known(spec, daemon).await;
    removing_forgets(spec, daemon).await;
}

async fn end(unit: &Arc<dyn Unit>) -> Ended {
    match unit.wait(Until { timeout: LONG, line: None, from: 0 }).await.expect("waits") {
        UnitState::Ended(ended) => ended,
        other => panic!("expected an end, found {other:?}"),
    }
}

async fn output(unit: &Arc<dyn Unit>) -> String {
    let (mut offset, mut bytes) = (0, Vec::new());
    loop {
        // A small and odd size, so that chunks are joined across frames.
        let chunk = unit.output(offset, 7).await.expect("reads");
        if chunk.bytes.is_empty() {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        assert!(chunk.bytes.len() <= 7 && chunk.offset == offset, "chunks are bounded and contiguous");
        bytes.extend_from_slice(&chunk.bytes);
        offset = chunk.next;
    }
}

async fn found(daemon: &impl Daemon, run: RunId) -> Arc<dyn Unit> {
    match daemon().attach(run).await.expect("attaches") {
        Found::Unit(unit) => unit,
        Found::NeverRan => panic!("{run} is said never to have run"),
        Found::Lost(_) => panic!("{run} is said to be lost"),
    }
}

async fn line(unit: &Arc<dyn Unit>, text: &str) {
    let until = Until { timeout: LONG, line: Some(text.to_owned()), from: 0 };
    unit.wait(until).await.expect("waits");
    assert!(output(unit).await.contains(text), "the line `{text}` has come");
}

async fn output_and_end_are_true(spec: &impl Spec, daemon: &impl Daemon) {
    let unit = daemon().start(spec(1, "echo one; echo two >&2; exit 7")).await.expect("starts");
    let ended = end(&unit).await;
    assert_eq!((ended.code, ended.signal, ended.output_bytes), (Some(7), None, 8), "exit code and count");
    let text = output(&unit).await;
    assert!(text.contains("one\n") && text.contains("two\n"), "both streams: {text:?}");
    let unit = daemon().start(spec(2, "kill -TERM $$")).await.expect("starts");
    assert_eq!(end(&unit).await.signal, Some(15), "a signal is no exit code");
}

async fn a_run_has_one_effect(spec: &impl Spec, daemon: &impl Daemon) {
    let command = "echo x >> contract-count; cat contract-count";
    let (first, second) = (daemon(), daemon());
    let (a, b) = tokio::join!(first.start(spec(3, command)), second.start(spec(3, command)));
    for unit in [a.expect("starts"), b.expect("starts"), daemon().start(spec(3, command)).await.expect("starts")] {
        assert_eq!(end(&unit).await.code, Some(0));
        assert_eq!(output(&unit).await, "x\n", "the command ran once");
    }
}

async fn another_daemon_finds_it_again(spec: &impl Spec, daemon: &impl Daemon) {
    let run = spec(4, "").run;
    assert!(matches!(daemon().attach(run).await.expect("attaches"), Found::NeverRan), "nothing ran yet");
    drop(daemon().start(spec(4, "echo begin; read word; echo $word; exit 9")).await.expect("starts"));
    let unit = found(daemon, run).await;
    line(&unit, "begin").await;
    unit.stdin(1, Bytes::from_static(b"word\n")).await.expect("writes");
    let ended = end(&unit).await;
    assert_eq!(ended.code, Some(9));
    let again = found(daemon, run).await;
    assert_eq!(end(&again).await, ended, "the end is the same whoever asks");
    assert_eq!(output(&again).await, "begin\nword\n");
    again.release().await.expect("releases");
}

async fn standard_input_is_delivered_once(spec: &impl Spec, daemon: &impl Daemon) {
    let unit = daemon().start(spec(5, "cat")).await.expect("starts");
    for (number, text) in [(1, "a"), (1, "a"), (2, "b"), (1, "a"), (2, "b")] {
        unit.stdin(number, Bytes::from(text)).await.expect("writes");
    }
    unit.stdin(3, Bytes::new()).await.expect("closes");
    assert_eq!(end(&unit).await.code, Some(0));
    assert_eq!(output(&unit).await, "ab", "each number once");
    assert!(unit.stdin(4, Bytes::from_static(b"late")).await.is_err(), "what has ended hears nothing");
}

async fn waiting_ends_at_a_line_or_in_time(spec: &impl Spec, daemon: &impl Daemon) {
    let unit = daemon().start(spec(6, "echo first; read x; echo second; read x")).await.expect("starts");
    line(&unit, "first").await;
    let state = unit.wait(Until { timeout: Duration::from_millis(50), line: Some("first".into()), from: 6 }).await;
    assert_eq!(state.expect("waits"), UnitState::Running, "lines before the offset do not count");
    unit.stdin(1, Bytes::from_static(b"\n")).await.expect("writes");
    line(&unit, "second").await;
    unit.signal(9).await.expect("signals");
    assert_eq!(end(&unit).await.signal, Some(9));
}

async fn stopping_ends_what_lives_and_nothing_else(spec: &impl Spec, daemon: &impl Daemon) {
    let done = found(daemon, spec(1, "").run).await;
    let before = end(&done).await;
    let unit = daemon().start(spec(7, "trap '' TERM; echo begin; while :; do sleep 1; done")).await.expect("starts");
    line(&unit, "begin").await;
    daemon().stop(unit.run().task).await.expect("stops");
    let ended = end(&unit).await;
    assert_eq!((ended.signal, ended.cause.as_str()), (Some(9), "cancelled"));
    assert_eq!(end(&done).await, before, "what had ended stays as it was");
}

async fn sweeping_spares_what_is_known(spec: &impl Spec, daemon: &impl Daemon) {
    let known = daemon().start(spec(8, "echo begin; read x; exit 4")).await.expect("starts");
    let orphan = daemon().start(spec(9, "echo begin; sleep 300")).await.expect("starts");
    line(&known, "begin").await;
    line(&orphan, "begin").await;
    let swept: Vec<RunId> = daemon().sweep(vec![known.run()]).await.expect("sweeps").into_iter().map(|(run, _)| run).collect();
    assert_eq!(swept, [orphan.run()], "the orphan alone, and told");
    assert!(end(&orphan).await.signal.is_some(), "the orphan is ended");
    known.stdin(1, Bytes::new()).await.expect("closes");
    assert_eq!(end(&known).await.code, Some(4), "the known one lives on");
}

async fn removing_forgets(spec: &impl Spec, daemon: &impl Daemon) {
    let run = spec(1, "").run;
    daemon().remove(run.task).await.expect("removes");
    assert!(matches!(daemon().attach(run).await.expect("attaches"), Found::NeverRan), "nothing stands any more");
}
