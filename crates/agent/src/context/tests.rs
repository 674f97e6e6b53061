//! What a model reads, and that it reads the same bytes again.

use super::*;
use tinkerbell_core::event::{Made, Part, Prepared, Submitted};
use tinkerbell_core::model::{EditStyle, ToolMode};
use tinkerbell_core::words::TaskId;

fn card(context_tokens: u64) -> ModelCard {
    ModelCard {
        name: "p/m".to_owned(),
        provider: "p".to_owned(),
        wire: "openai".to_owned(),
        host: String::new(),
        context_tokens,
        max_output_tokens: 1_000,
        tools: ToolMode::Native,
        price: None,
        edits: EditStyle::Replace,
    }
}

fn task() -> Task {
    let submitted = Submitted { goal: "make it work".to_owned(), ..Submitted::default() };
    let mut task = Task::new(TaskId(1), Lsn(1), 0, submitted);
    task.prepared = Some(Prepared { environment: "System: linux\n".to_owned(), ..Prepared::default() });
    task
}

fn reply(lsn: u64, ids: &[&str], text: &str, stop: &str) -> Past {
    let call = |id: &&str| Part { kind: PartKind::Call as i32, text: "{}".to_owned(), call_id: (*id).to_owned(), tool: "exec".to_owned() };
    let mut parts: Vec<Part> = ids.iter().map(call).collect();
    if !text.is_empty() {
        parts.insert(0, Part { text: text.to_owned(), ..Part::default() });
    }
    let reply = Reply { parts, made: Some(Made::default()), stop: stop.to_owned(), ..Reply::default() };
    effect(lsn, Action::Ask(Ask::default()), Observation::Reply(reply))
}

fn result(lsn: u64, id: &str, text: &str) -> Past {
    let call = Call { call_id: id.to_owned(), tool: "exec".to_owned(), args: "{}".to_owned(), step: 1 };
    let result = ResultSeen { text: text.to_owned(), summary: format!("exec {id}"), ..ResultSeen::default() };
    effect(lsn, Action::Call(call), Observation::Result(result))
}

fn effect(lsn: u64, action: Action, observation: Observation) -> Past {
    Past::Effect { lsn: Lsn(lsn), intent_lsn: Lsn(lsn - 1), seq: 1, action, observation }
}

fn note(lsn: u64, text: &str, from_user: bool) -> Past {
    Past::Note { lsn: Lsn(lsn), text: text.to_owned(), from_user }
}

fn show(messages: &[Message]) -> String {
    let line = |message: &Message| match message {
        Message::User(text) => format!("user: {text}"),
        Message::Assistant { parts, .. } => {
            format!("model: {}", parts.iter().map(|part| format!("{}{} ", part.call_id, part.text)).collect::<String>().trim())
        }
        Message::Tool { call_id, text, .. } => format!("{call_id}: {text}"),
    };
    messages.iter().map(line).collect::<Vec<_>>().join(" | ")
}

fn rendered(past: &[Past], through: u64, window: u64) -> Result<ModelCall, Fault> {
    let ask = Ask { through, tail: "tail".to_owned(), step: 1, max_output_tokens: 100 };
    let (task, card) = (task(), card(window));
    let tools = [crate::builtin::PLAN, crate::builtin::ASK];
    render(&Sources { task: &task, card: &card, tools: &tools, past, ask: &ask, stall: Duration::from_secs(1) }, window)
}

#[test]
fn words_enter_between_steps_never_between_call_and_result() {
    let past = [
        reply(10, &["a", "b"], "", "calls"),
        note(11, "hurry", true),
        result(12, "a", "one"),
        note(13, "resumed", false),
        result(14, "b", "two"),
        reply(20, &[], "done", "end"),
        note(30, "too late", true),
    ];
    let seen = show(&rendered(&past, 25, 100_000).unwrap().messages);
    assert_eq!(seen, "user: make it work | model: a{} b{} | a: one | b: two | user: hurry | user: [runtime] resumed | model: done");
    let earlier = show(&rendered(&past, 14, 100_000).unwrap().messages);
    assert!(seen.starts_with(&earlier), "{earlier}");
}

#[test]
fn every_call_gets_a_result() {
    let cut = [reply(10, &["a"], "", "length"), note(11, "x", true)];
    let seen = show(&rendered(&cut, 99, 100_000).unwrap().messages);
    assert_eq!(seen, "user: make it work | model: a{} | a: not run: the answer was cut at the output limit | user: x");
    let stopped = [reply(10, &["a", "b"], "", "calls"), result(11, "a", "one"), note(12, "go on", true), reply(13, &[], "ok", "end")];
    let seen = show(&rendered(&stopped, 99, 100_000).unwrap().messages);
    assert!(seen.contains("a: one | b: not run: the task stopped before this call | user: go on | model: ok"), "{seen}");
    let empty = [reply(10, &[], " ", "end")];
    assert_eq!(show(&rendered(&empty, 99, 100_000).unwrap().messages), "user: make it work");
}

#[test]
fn a_failed_gate_is_told_with_its_output() {
    let verify = |round, passed| {
        let verdict = Verdict { passed, exit: 2, text: "boom".to_owned(), ..Verdict::default() };
        effect(10, Action::Verify(Verify { command: "t".to_owned(), round, ..Verify::default() }), Observation::Verdict(verdict))
    };
    let seen = |past: Past| show(&rendered(&[past], 99, 100_000).unwrap().messages);
    assert!(seen(verify(1, false)).contains("`t` failed with exit 2 (after your answer, round 1 of 3).\nboom\nThe task is not done."));
    assert!(seen(verify(0, true)).ends_with("`t` passed (before your first edit)."));
}

/// Everything but the tail, in the order in which it is sent.
fn prefix(call: &ModelCall) -> String {
    let tools: Vec<_> = call.tools.iter().map(|tool| format!("{tool:?}")).collect();
    format!("{}\n{}\n{}", call.system, tools.join("\n"), show(&call.messages))
}

#[test]
fn an_earlier_request_without_its_tail_is_a_prefix_of_a_later_one() {
    let mut past = Vec::new();
    let mut before = prefix(&rendered(&past, 0, 100_000).unwrap());
    for step in 1..30_u64 {
        let id = format!("c{step}");
        past.push(reply(step * 10, &[&id], "next", "calls"));
        if step % 3 == 0 {
            past.push(note(step * 10 + 1, "word", step % 2 == 0));
        }
        past.push(result(step * 10 + 2, &id, &"output ".repeat(20)));
        let now = prefix(&rendered(&past, step * 10 + 2, 100_000).unwrap());
        assert!(now.starts_with(&before), "step {step}");
        before = now;
    }
}

#[test]
fn a_full_window_loses_the_oldest_first_and_moves_rarely() {
    let (mut past, mut breaks, mut before) = (Vec::new(), 0, String::new());
    for step in 1..60_u64 {
        let id = format!("c{step}");
        past.push(reply(step * 10, &[&id], "next", "calls"));
        past.push(result(step * 10 + 2, &id, &format!("output {step} ").repeat(60)));
        let call = rendered(&past, step * 10 + 2, 8_000).unwrap();
        assert!(tokens(&call) <= 8_000, "step {step}: {} tokens", tokens(&call));
        assert_eq!(rendered(&past, step * 10 + 2, 8_000).unwrap(), call, "the same past gives the same bytes");
        let now = prefix(&call);
        assert!(now.contains(&format!("output {step} ")) && now.contains("make it work"), "step {step}");
        breaks += u32::from(!now.starts_with(&before));
        before = now;
    }
    assert!(breaks <= 20, "the prefix moved {breaks} times in 60 steps");
}

#[test]
fn a_goal_that_can_not_fit_is_a_clear_fault() {
    let fault = rendered(&[note(1, &"x".repeat(9_000), true)], 99, 1_500).unwrap_err();
    assert_eq!(fault.code.0, "TB-AGENT-003");
}

/// Files that the runtime shows have no call in an answer; what is not there is not spoken of.
#[test]
fn the_runtime_shows_files_as_notes() {
    let own = |lsn: u64, path: &str, status: &str| {
        let call = Call { call_id: "runtime-0".to_owned(), tool: "read".to_owned(), args: format!("{{\"path\":\"{path}\"}}"), step: 0 };
        effect(
            lsn,
            Action::Call(call),
            Observation::Result(ResultSeen { text: path.to_owned(), status: status.to_owned(), ..ResultSeen::default() }),
        )
    };
    let verdict = |lsn: u64, passed: bool| {
        effect(
            lsn,
            Action::Verify(Verify { command: "t".to_owned(), ..Verify::default() }),
            Observation::Verdict(Verdict { passed, exit: i32::from(!passed), ..Verdict::default() }),
        )
    };
    let past = [verdict(5, false), own(6, "a.py", "done"), own(7, "b.py", "failed"), verdict(9, true)];
    let seen = show(&rendered(&past, 20, 100_000).unwrap().messages);
    let expected = "user: make it work | user: [runtime] The check `t` failed with exit 1 (before your first edit). | user: [runtime] a.py | \
        user: [runtime] The check `t` passed (after your newest change).\nIf nothing of the task is left, end it.";
    assert_eq!(seen, expected);
}
