//! What a model reads, for each state of a scripted unit.

use super::report::Report;
use super::*;
use bytes::Bytes;
use tinkerbell_core::port::{Chunk, Ended, Used};
use tinkerbell_core::tool::Traffic;
use tinkerbell_core::words::TaskId;

struct Scripted(Vec<(u64, &'static [u8])>);

impl Unit for Scripted {
    fn run(&self) -> RunId {
        RunId { task: TaskId(1), seq: 7 }
    }
    fn wait(&self, _until: Until) -> BoxFuture<'_, Result<UnitState, Fault>> {
        Box::pin(async { Ok(UnitState::Running) })
    }
    fn output(&self, offset: u64, _max: usize) -> BoxFuture<'_, Result<Chunk, Fault>> {
        let found = self.0.iter().find(|(start, bytes)| offset < start + bytes.len() as u64);
        let chunk = found.map(|(start, bytes)| {
            let skip = offset.saturating_sub(*start);
            Chunk { offset: start + skip, bytes: Bytes::from_static(&bytes[skip as usize..]), next: start + bytes.len() as u64 }
        });
        Box::pin(async move { Ok(chunk.unwrap_or(Chunk { offset, bytes: Bytes::new(), next: offset })) })
    }
    fn stdin(&self, _number: u64, _bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn signal(&self, _signal: i32) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn shown(&self, _seq: u32, _end: Option<u64>) -> BoxFuture<'_, Result<(u64, Traffic), Fault>> {
        Box::pin(async { Ok((0, Traffic::default())) })
    }
    fn release(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

async fn text(output: Vec<(u64, &'static [u8])>, state: UnitState, max_tokens: u32) -> ToolOutcome {
    let report = Report {
        seq: 7,
        subject: "exec x".into(),
        unit: "u7".into(),
        level: Some("landlock".into()),
        max_tokens,
        waited: Duration::from_secs(10),
    };
    report.write(&Scripted(output), state).await.unwrap()
}

fn ended(code: Option<i32>, signal: Option<i32>, cause: &str) -> UnitState {
    UnitState::Ended(Ended { code, signal, wall_ms: 1234, cause: cause.into(), ..Ended::default() })
}

#[tokio::test]
async fn each_state_has_its_line() {
    let cases: Vec<(UnitState, &'static [u8], ToolStatus, &str)> = vec![
        (ended(Some(0), None, ""), b"hi\n", ToolStatus::Exited(0), "exit 0 in 1.2 s\nhi\n"),
        (ended(Some(2), None, ""), b"", ToolStatus::Exited(2), "exit 2 in 1.2 s\n(no output)"),
        (
            ended(None, Some(15), "deadline"),
            b"",
            ToolStatus::Signalled(15),
            "ended by signal 15 after 1.2 s; its deadline was over\n(no output)",
        ),
        (
            UnitState::Running,
            b"\x1b[1m 1%\r 9%",
            ToolStatus::Running,
            "running as u7 after 10.0 s; exec_wait follows it, exec_send feeds or ends it\n 9%",
        ),
        (
            UnitState::Lost,
            b"part",
            ToolStatus::Lost,
            "outcome unknown: the keeper of this command is gone, and so are its processes; what follows is partial\npart",
        ),
    ];
    for (state, output, status, wanted) in cases {
        let outcome = text(vec![(0, output)], state, 1000).await;
        assert_eq!((outcome.status, outcome.text.as_str()), (status, wanted));
        assert!(outcome.full.is_none() && outcome.summary.starts_with("exec x → "));
    }
}

#[tokio::test]
async fn holes_cuts_and_hints_are_said() {
    let outcome = text(vec![(0, b"head\n"), (1005, b"tail\n")], ended(Some(0), None, ""), 1000).await;
    assert_eq!(outcome.text, "exit 0 in 1.2 s\nhead\n\n[… 1000 bytes were not kept …]\ntail\n");
    let long: &'static [u8] = Box::leak("0123456789\n".repeat(500).into_boxed_str()).as_bytes();
    let outcome = text(vec![(0, long)], ended(Some(0), None, ""), 160).await;
    assert!(outcome.text.len() < 160 * 4 && outcome.text.contains("left out"), "{}", outcome.text);
    assert_eq!(outcome.full.unwrap(), long);
    let git = b"fatal: Unable to create '/x/index.lock': Read-only file system\n";
    let outcome = text(vec![(0, git)], ended(Some(128), None, ""), 1000).await;
    assert!(outcome.text.contains("the runtime commits"), "{}", outcome.text);
}

#[test]
fn plans_follow_the_arguments() {
    let sandbox: Arc<dyn Sandbox> = Arc::new(NoSandbox);
    let tools = all(sandbox);
    let class = |tool: usize, args: &str| tools[tool].plan(args).class;
    assert_eq!(tools.iter().map(|tool| tool.spec().name).collect::<Vec<_>>(), ["exec", "exec_send", "exec_wait"]);
    for tool in &tools {
        let schema: serde_json::Value = serde_json::from_str(tool.spec().schema).unwrap();
        assert_eq!(schema["additionalProperties"], false);
    }
    assert_eq!(tools[0].plan(r#"{"cmd":"ls"}"#).command.as_deref(), Some("ls"));
    assert_eq!(class(0, r#"{"cmd":"ls"}"#), EffectClass::Adoptable(Fallback::Unsafe));
    assert_eq!(class(0, "nonsense"), EffectClass::Pure);
    assert_eq!(class(1, r#"{"unit":"u1","stdin":"x"}"#), EffectClass::Idempotent);
    assert_eq!(class(1, r#"{"unit":"u1","signal":"INT"}"#), EffectClass::Unsafe);
    assert_eq!(class(2, r#"{"unit":"u1"}"#), EffectClass::Pure);
}

#[test]
fn unknown_keys_are_named() {
    let error = serde_json::from_str::<wire::Exec>(r#"{"cmd":"ls","timeout":5}"#).unwrap_err();
    assert!(malformed("exec", &error).text.contains("`timeout`"), "{error}");
}

#[test]
fn signals_have_names_and_numbers() {
    let name = |text: &str| signal_number(&wire::Signal::Name(text.into()));
    assert_eq!([name("INT"), name("sigterm"), name("9"), name("nope"), name("99")], [Some(2), Some(15), Some(9), None, None]);
    assert_eq!(signal_number(&wire::Signal::Number(0)), None);
}

struct NoSandbox;

impl tinkerbell_core::port::Meter for NoSandbox {
    fn used(&self, _task: TaskId) -> BoxFuture<'_, Result<Used, Fault>> {
        Box::pin(async { Ok(Used::default()) })
    }
}

impl Sandbox for NoSandbox {
    fn level(&self) -> BoxFuture<'_, Result<tinkerbell_core::port::Level, Fault>> {
        Box::pin(async { Err(Fault::new("TB-SANDBOX-001", 1, "none")) })
    }
    fn start(&self, _spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>> {
        Box::pin(async { Err(Fault::new("TB-SANDBOX-001", 1, "none")) })
    }
    fn attach(&self, _run: RunId) -> BoxFuture<'_, Result<Found, Fault>> {
        Box::pin(async { Ok(Found::NeverRan) })
    }
    fn sweep(&self, _known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn stop(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn remove(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
