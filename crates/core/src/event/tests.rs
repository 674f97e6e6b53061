//! The payload format holds: golden bytes of version 1, and a round trip of each event.

use super::*;
use crate::lifecycle::Task;
use crate::lifecycle::format::{History, Observation, Page, Snapshot, TaskState, pack};
use crate::words::Lsn;

fn samples() -> Vec<Event> {
    vec![
        Event::Submitted(Submitted {
            goal: "fix the parser".into(),
            cwd: b"/home/u/p".to_vec(),
            model: "local/qwen".into(),
            caps: Some(Caps { nano_usd: Some(5), steps: Some(300), tokens: None, wall_ms: Some(9), ..Caps::default() }),
            no_input: true,
            ..Submitted::default()
        }),
        Event::Started(Started { epoch: 2, generation: 1 }),
        Event::Intent(Intent {
            seq: 3,
            class: 7,
            action: Some(Action::Call(Call { call_id: "c1".into(), tool: "exec".into(), args: "{\"cmd\":\"true\"}".into(), step: 1 })),
            yolo: false,
        }),
        Event::Observed(Observed {
            seq: 3,
            observation: Some(super::Observation::Result(ResultSeen {
                text: "ok".into(),
                status: "exited".into(),
                number: -9,
                ..ResultSeen::default()
            })),
        }),
        Event::Reserved(Reserved { seq: 2, nano_usd: 10, tokens: 20, ..Reserved::default() }),
        Event::Settled(Settled { seq: 2, nano_usd: 7, input_tokens: 1, cached_tokens: 0, output_tokens: 2, ..Settled::default() }),
        Event::Released(Released { seq: 2, why: "refused".into() }),
        Event::StateSaved(StateSaved { state: vec![1, 2, 3], seq: 3 }),
        Event::Signal(Signal { kind: "tell".into(), text: "faster".into(), caps: None }),
        Event::ApprovalAsked(ApprovalAsked {
            id: 1,
            seq: 4,
            kind: 1,
            title: "t".into(),
            body: "b".into(),
            digest: "00".into(),
            ..ApprovalAsked::default()
        }),
        Event::ApprovalGiven(ApprovalGiven { id: 1, yes: true, uid: 1000, ..ApprovalGiven::default() }),
        Event::OpDone(OpDone { kind: "tool".into(), seq: 3, before: "a".into(), after: "b".into(), ..OpDone::default() }),
        Event::Paused(Paused { why: "budget".into(), text: "steps".into(), ..Paused::default() }),
        Event::Finished(Finished { status: "verified".into(), exit: 0, commits: 2, ..Finished::default() }),
        Event::OrphanReaped(OrphanReaped { run: "r".into(), text: "killed".into() }),
        Event::Paused(Paused {
            why: "provider".into(),
            text: "busy".into(),
            timer: Some(Timer { id: 2, due_wall_ms: 1_700_030, due_mono_ms: 31, boot: vec![7; 16] }),
            tries: 1,
        }),
        Event::TimerFired(TimerFired { id: 2 }),
        Event::Submitted(Submitted { goal: "later".into(), priority: 3, host: "127.0.0.1:8080".into(), ..Submitted::default() }),
        Event::Snapshot(Snapshot {
            version: 1,
            previous: 5,
            folded: 12,
            first: 1,
            task: Some(TaskState::of(&Task::new(TaskId(1), Lsn(1), 7, Submitted::default()), Lsn(0))),
            runs: vec![3],
            observed: vec![Observation { seq: 3, lsn: 9 }],
            history: Some(History { paged: 256, page: 600, tail: pack(&[Lsn(700), Lsn(702)]), ops: vec![703] }),
        }),
        Event::Submitted(Submitted {
            goal: "alone".into(),
            waiver: Some(Waiver { owner: 1_000, reason: "a throw-away host".into(), source: "command line".into(), until_ms: 9_000 }),
            ..Submitted::default()
        }),
        Event::Intent(Intent { seq: 5, class: 2, action: Some(Action::Prepare(Prepare {})), yolo: true }),
        Event::Page(Page { previous: 300, before: 256, records: pack(&[Lsn(310), Lsn(311), Lsn(400)]), ops: pack(&[Lsn(312)]) }),
        Event::ApprovalAsked(ApprovalAsked {
            id: 2,
            seq: 5,
            kind: 1,
            title: "exec: may I".into(),
            body: "git push".into(),
            digest: "11".into(),
            facts: vec![Fact { name: "argv".into(), value: "git push".into() }],
            expires_ms: 86_400_000,
            nonce: "7f".into(),
            like: "22".into(),
            rules: vec!["push".into()],
            offer: Some(Granted { id: "g-1".into(), argv: vec!["git".into(), "push".into()], ..Granted::default() }),
            ..ApprovalAsked::default()
        }),
        Event::ApprovalGiven(ApprovalGiven { id: 2, lapsed: "expired".into(), ..ApprovalGiven::default() }),
        Event::ApprovalGiven(ApprovalGiven {
            id: 3,
            yes: true,
            uid: 1_000,
            scope: "task".into(),
            digest: "11".into(),
            ..ApprovalGiven::default()
        }),
        Event::Granted(Granted {
            id: "g-1".into(),
            argv: vec!["git".into(), "push".into()],
            options: vec!["--tags".into()],
            example: "git push --tags".into(),
            expires_ms: 5,
            scope: "task".into(),
            approval: 3,
            uid: 1_000,
        }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn version_1_stays_readable_byte_for_byte() {
    let lines: String =
        samples().into_iter().map(|event| format!("{} {} {}\n", event.kind(), event.name(), hex(&encode(event, 1_700)))).collect();
    expect_test::expect_file!["../../tests/golden/v1/events.txt"].assert_eq(&lines);
}

#[test]
fn each_event_survives_its_encoding() {
    for event in samples() {
        let bytes = encode(event.clone(), 42);
        assert_eq!(decode(Lsn(9), &bytes), Ok((42, event)));
    }
}

#[test]
fn damaged_payloads_are_refused_not_guessed() {
    assert!(decode(Lsn(1), &[]).is_err());
    assert!(decode(Lsn(1), &[0xff, 0xff, 0xff]).is_err());
}
