//! One golden line per public event and resource: what programs stand on.

use expect_test::expect_file;
use tinkerbell_api::wire::{self, Facts};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{EffectClass, Live, LiveDelta};
use tinkerbell_core::event::{self, Action, Event, Observation, Placed};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::words::{BlobRef, Lsn};

use crate::fake::TASK;

fn changes() -> Vec<event::FileChange> {
    vec![event::FileChange { path: "src/parse.rs".into(), kind: "changed".into(), plus: 3, minus: 1 }]
}

fn intent(seq: u32, action: Action) -> Event {
    Event::Intent(event::Intent { seq, class: EffectClass::Unsafe.code(), action: Some(action), yolo: false })
}

fn observed(seq: u32, observation: Observation) -> Event {
    Event::Observed(event::Observed { seq, observation: Some(observation) })
}

fn call(tool: &str, args: &str) -> Action {
    Action::Call(event::Call { call_id: "c1".into(), tool: tool.into(), args: args.into(), step: 1 })
}

fn part(kind: event::PartKind, text: &str, tool: &str) -> event::Part {
    event::Part {
        kind: kind as i32,
        text: text.into(),
        call_id: if tool.is_empty() { String::new() } else { "c1".into() },
        tool: tool.into(),
    }
}

fn reply() -> Observation {
    use event::PartKind::{Call, Opaque, Reasoning, Text};
    Observation::Reply(event::Reply {
        parts: vec![
            part(Reasoning, "CRLF…", ""),
            part(Opaque, "sig", ""),
            part(Text, "I run the tests.", ""),
            part(Call, r#"{"cmd":"make"}"#, "exec"),
        ],
        made: Some(event::Made { served: "qwen-7b".into(), ..event::Made::default() }),
        input_tokens: 1200,
        cached_tokens: 1000,
        output_tokens: 40,
        nano_usd: Some(1_500),
        wall_ms: 900,
        stop: "calls".into(),
        ..event::Reply::default()
    })
}

fn exited() -> Observation {
    Observation::Result(event::ResultSeen {
        text: "2 failed".into(),
        status: "exited".into(),
        number: 2,
        full: BlobRef { key_id: 1, hash: [0xab; 32], size_bytes: 9 }.to_bytes(),
        summary: "exec make → exit 2 in 0.4 s".into(),
        wall_ms: 400,
        level: "landlock".into(),
        ..event::ResultSeen::default()
    })
}

fn planned() -> Observation {
    let plan = vec![event::PlanStep { text: "accept CRLF".into(), status: "active".into() }];
    Observation::Result(event::ResultSeen { status: "done".into(), plan, ..event::ResultSeen::default() })
}

fn prepared() -> Observation {
    Observation::Prepared(event::Prepared {
        repo: b"/home/u/r".to_vec(),
        tree: b"/home/u/.local/share/tinkerbell/w".to_vec(),
        branch: "refs/heads/tinkerbell/7f3a2c".into(),
        base: "1".repeat(40),
        level: "landlock".into(),
        verify: "make test".into(),
        verify_origin: "Makefile".into(),
        notes: vec!["submodule `x` left empty".into()],
        ..event::Prepared::default()
    })
}

fn op(kind: &str) -> Event {
    let commit = "2".repeat(40);
    Event::OpDone(event::OpDone {
        kind: kind.into(),
        seq: 6,
        commit,
        summary: "edit src/parse.rs".into(),
        files: changes(),
        ..event::OpDone::default()
    })
}

fn story() -> Vec<Event> {
    let caps = Some(event::Caps {
        nano_usd: Some(5_000_000_000),
        steps: Some(300),
        tokens: None,
        wall_ms: Some(14_400_000),
        ..event::Caps::default()
    });
    let goal = "accept CRLF".to_owned();
    let asked = event::ApprovalAsked {
        id: 1,
        seq: 6,
        kind: 1,
        title: "edit AGENTS.md".into(),
        body: "+x".into(),
        digest: "d1".into(),
        ..event::ApprovalAsked::default()
    };
    vec![
        Event::Submitted(event::Submitted {
            goal,
            cwd: b"/home/u/r".to_vec(),
            model: "local/qwen".into(),
            caps,
            ..event::Submitted::default()
        }),
        Event::Started(event::Started { epoch: 1, generation: 1 }),
        intent(1, Action::Prepare(event::Prepare {})),
        observed(1, prepared()),
        intent(2, Action::Ask(event::Ask { step: 1, ..event::Ask::default() })),
        Event::Reserved(event::Reserved { seq: 2, nano_usd: 9_000, tokens: 5_000, ..event::Reserved::default() }),
        observed(2, reply()),
        Event::Settled(event::Settled {
            seq: 2,
            nano_usd: 1_500,
            input_tokens: 1200,
            cached_tokens: 1000,
            output_tokens: 40,
            ..event::Settled::default()
        }),
        intent(3, call("plan", "{}")),
        observed(3, planned()),
        intent(4, call("exec", r#"{"cmd":"make test"}"#)),
        observed(4, exited()),
        intent(6, call("edit", r#"{"path":"src/parse.rs"}"#)),
        Event::ApprovalAsked(asked),
        Event::Paused(event::Paused { why: "person".into(), text: "edit AGENTS.md".into(), ..Default::default() }),
        Event::ApprovalGiven(event::ApprovalGiven { id: 1, yes: true, uid: 1000, ..Default::default() }),
        observed(
            6,
            Observation::Result(event::ResultSeen {
                status: "done".into(),
                summary: "edit src/parse.rs".into(),
                files: changes(),
                ..Default::default()
            }),
        ),
        op("tool"),
        Event::Signal(event::Signal { kind: "tell".into(), text: "keep LF too".into(), caps: None }),
        intent(7, Action::Commit(event::Commit { subject: "accept CRLF".into(), ..event::Commit::default() })),
        observed(7, Observation::Committed(event::Committed { commit: "2".repeat(40) })),
        Event::Paused(event::Paused { why: "budget".into(), text: "300 of 300 steps used".into(), ..Default::default() }),
        intent(8, Action::Verify(event::Verify { command: "make test".into(), round: 1, ..event::Verify::default() })),
        observed(8, Observation::Verdict(event::Verdict { passed: true, wall_ms: 300, ..event::Verdict::default() })),
        observed(
            9,
            Observation::Failed(event::Failed {
                code: "TB-ROUTER-004".into(),
                message: "the provider is down".into(),
                ..Default::default()
            }),
        ),
        observed(
            1_000_000_001,
            Observation::Operated(event::Operated { text: "conflict".into(), conflicts: vec!["a".into()], ..Default::default() }),
        ),
        Event::OrphanReaped(event::OrphanReaped { run: "x".into(), text: "killed".into() }),
        finished("verified", 0, ""),
    ]
}

fn finished(status: &str, exit: u32, code: &str) -> Event {
    let text = if code.is_empty() { "CRLF is accepted." } else { "the same call failed four times" };
    Event::Finished(event::Finished {
        status: status.into(),
        exit,
        text: text.into(),
        code: code.into(),
        hints: vec![],
        files: changes(),
        commits: 1,
        connections: Vec::new(),
    })
}

fn place(events: Vec<Event>) -> Vec<Placed> {
    let numbered = events.into_iter().enumerate();
    numbered.map(|(n, event)| Placed { lsn: Lsn(n as u64 + 1), at_ms: 1_795_166_043_120 + n as u64, task: TASK, event }).collect()
}

#[test]
fn events_keep_their_public_form() {
    let mut facts = Facts::default();
    let mut lines = String::new();
    for placed in place(story()) {
        if let Some(envelope) = wire::envelope(&placed, &facts) {
            let line = serde_json::to_string(&envelope).unwrap();
            assert_eq!(serde_json::from_str::<wire::Envelope>(&line).unwrap(), envelope, "reads back");
            lines.push_str(&line);
            lines.push('\n');
        }
        facts.absorb(&placed.event);
    }
    for delta in [
        LiveDelta::Text("I ".into()),
        LiveDelta::Reasoning("hm".into()),
        LiveDelta::Output("ok 1\n".into()),
        LiveDelta::Retrying { why: "429".into(), wait_ms: 2000 },
    ] {
        lines.push_str(&serde_json::to_string(&wire::live(&Live { task: TASK, seq: 2, delta }, 1_795_166_043_120)).unwrap());
        lines.push('\n');
    }
    expect_file!["../golden/v1/events.jsonl"].assert_eq(&lines);
}

#[test]
fn a_task_keeps_its_public_form() {
    let placed = place(story());
    let Event::Submitted(submitted) = placed[0].event.clone() else { panic!("the story begins with a submission") };
    let mut task = Task::new(TASK, Lsn(1), placed[0].at_ms, submitted);
    let mut shown = String::new();
    for placed in &placed[1..] {
        task.apply(placed);
        if matches!(&placed.event, Event::Paused(paused) if paused.why == "person") {
            shown = serde_json::to_string_pretty(&wire::task_view(&task, "7f3a2c".into())).unwrap();
        }
    }
    expect_file!["../golden/v1/task-waiting.json"].assert_eq(&shown);
    let view = wire::task_view(&task, "7f3a2c".into());
    let text = serde_json::to_string_pretty(&view).unwrap();
    assert_eq!(serde_json::from_str::<wire::TaskView>(&text).unwrap(), view, "reads back");
    expect_file!["../golden/v1/task-finished.json"].assert_eq(&text);
}

#[test]
fn a_problem_keeps_its_public_form() {
    let fault = Fault::new("TB-ROUTER-001", exit::NO_AUTH, "no model provider is configured").hint("tinkerbell demo");
    expect_file!["../golden/v1/problem.json"].assert_eq(&serde_json::to_string_pretty(&wire::Problem::new(&fault)).unwrap());
}

#[test]
fn the_schemas_are_published() {
    let mut schemas = serde_json::to_value(wire::schemas()).unwrap();
    // Whether objects keep their order depends on what else is built along; the golden file is sorted.
    schemas.sort_all_objects();
    let text = serde_json::to_string_pretty(&schemas).unwrap();
    // Compared before it is drawn: the difference of two long texts takes minutes to compute.
    let golden = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/schemas.json")).unwrap_or_default();
    if text != golden {
        expect_file!["../golden/v1/schemas.json"].assert_eq(&text);
    }
}

#[test]
fn a_result_and_its_error_never_disagree() {
    for (status, exit, code, shown) in [
        ("verified", 0, "", ("verified", 0)),
        ("unverified", 0, "", ("unverified", 0)),
        ("gate-failed", 3, "", ("gate-failed", 3)),
        ("gate-failed", 0, "", ("gate-failed", 3)),
        ("failed", 0, "TB-AGENT-002", ("failed", 1)),
        ("verified", 1, "", ("failed", 1)),
        ("verified", 0, "TB-AGENT-002", ("failed", 1)),
        ("cancelled", 6, "", ("cancelled", 6)),
        ("cancelled", 0, "", ("cancelled", 6)),
    ] {
        let placed = place(vec![finished(status, exit, code)]).remove(0);
        let wire::Body::Result(result) = wire::envelope(&placed, &Facts::default()).unwrap().body else { panic!("a result") };
        assert_eq!((result.status.as_str(), result.exit_code), shown, "{status} {exit} {code}");
        assert_eq!(result.error.is_some(), result.exit_code != 0, "{status} {exit} {code}");
        assert_eq!(result.error.is_none(), matches!(result.status.as_str(), "verified" | "unverified"));
    }
}
