//! Rules of the lifecycle, as stories of events and commands.

use super::format::TaskState;
use super::*;
use crate::event::{
    Action, ApprovalAsked, ApprovalGiven, Ask, Committed, Event, Intent, Observation, Observed, OpDone, Paused, Placed, Prepare, Prepared,
    Reserved, Settled, Signal, Started, StateSaved, Submitted, Timer, TimerFired,
};
use crate::port::{Command, Given, Used};
use crate::words::Priority;

struct Story {
    task: Task,
    lsn: u64,
    now: u64,
}

impl Story {
    fn new(caps: Caps) -> Self {
        let submitted = Submitted { goal: "fix".to_owned(), caps: Some(caps), ..Submitted::default() };
        Self { task: Task::new(TaskId(1), Lsn(1), 1_000, submitted), lsn: 1, now: 1_000 }
    }

    fn happens(&mut self, event: Event) -> &mut Self {
        self.lsn += 1;
        self.now += 1_000;
        self.task.apply(&Placed { lsn: Lsn(self.lsn), at_ms: self.now, task: self.task.id, event });
        self
    }

    fn started(&mut self) -> &mut Self {
        self.happens(Event::Started(Started { epoch: 1, generation: 1 }))
    }

    fn op(&mut self, kind: &str, before: &str, after: &str, ops: &[u32]) -> &mut Self {
        self.happens(Event::OpDone(OpDone {
            kind: kind.into(),
            before: before.into(),
            after: after.into(),
            ops: ops.into(),
            ..OpDone::default()
        }))
    }
}

fn targets(step: &OpMove) -> String {
    match step {
        OpMove::Nothing(why) => why.split(':').next().unwrap_or_default().to_owned(),
        OpMove::Do(ops) => ops.iter().map(|op| format!("{}→{}{:?}", op.kind, op.target, op.ops)).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn undo_and_redo_walk_the_stack() {
    let mut story = Story::new(Caps::default());
    story.started().op("tool", "a", "b", &[]).op("tool", "b", "c", &[]);
    assert_eq!(targets(&story.task.ops.undo(false, "a")), "undo→b[2]");
    assert_eq!(targets(&story.task.ops.undo(true, "a")), "undo→a[2, 1]");
    assert_eq!(targets(&story.task.ops.redo()), "nothing to redo");
    story.op("undo", "c", "a", &[2, 1]);
    assert_eq!(targets(&story.task.ops.undo(false, "a")), "nothing to undo");
    assert_eq!(targets(&story.task.ops.redo()), "redo→b[1]");
    story.op("redo", "a", "b", &[1]);
    assert_eq!(targets(&story.task.ops.redo()), "redo→c[2]");
    story.op("tool", "b", "d", &[]);
    assert_eq!(targets(&story.task.ops.redo()), "nothing to redo");
    assert_eq!(story.task.ops.checkpoint(), Some("d"));
    assert_eq!(targets(&story.task.ops.restore(0, "a")), "restore→a[0]");
    assert_eq!(targets(&story.task.ops.restore(9, "a")), "there is no operation 9; `tinkerbell op log` lists them");
}

#[test]
fn undo_takes_a_landing_back_first() {
    let mut story = Story::new(Caps::default());
    story.started().op("tool", "a", "b", &[]).op("land", "b", "b", &[]);
    assert_eq!(targets(&story.task.ops.undo(false, "a")), "unland→b[2]");
    assert_eq!(targets(&story.task.ops.undo(true, "a")), "unland→b[2] undo→a[1]");
}

#[test]
fn reservations_count_against_every_cap_until_settled() {
    let caps = Caps { nano_usd: Some(100), steps: Some(3), tokens: Some(1_000), wall_ms: Some(60_000), ..Caps::default() };
    let mut story = Story::new(caps);
    story.started();
    let now = story.now;
    assert_eq!(check_caps(&story.task, now, (NanoUsd(100), 1_000), true), Ok(()));
    assert!(check_caps(&story.task, now, (NanoUsd(101), 0), true).unwrap_err().contains("spent"));
    story.happens(Event::Reserved(Reserved { seq: 1, nano_usd: 60, tokens: 600, ..Reserved::default() }));
    assert!(check_caps(&story.task, now, (NanoUsd(41), 0), true).is_err());
    assert!(check_caps(&story.task, now, (NanoUsd(0), 401), true).unwrap_err().contains("tokens"));
    story.happens(Event::Settled(Settled { seq: 1, nano_usd: 10, input_tokens: 50, ..Settled::default() }));
    assert_eq!(check_caps(&story.task, now, (NanoUsd(90), 950), true), Ok(()));
    assert!(check_caps(&story.task, now + 60_000, (NanoUsd(0), 0), false).unwrap_err().contains("working time"));
    story.task.steps = 3;
    assert!(check_caps(&story.task, now, (NanoUsd(0), 0), true).unwrap_err().contains("steps"));
    assert_eq!(check_caps(&story.task, now, (NanoUsd(0), 0), false), Ok(()));
}

#[test]
fn commands_get_what_is_left_and_totals_are_counted_once() {
    let caps = Caps { cpu_ms: Some(1_000), disk_bytes: Some(500), processes: Some(9), ..Caps::default() };
    let mut story = Story::new(caps);
    story.started();
    let used = |cpu_ms, disk_bytes| Used { cpu_ms, disk_bytes, ..Used::default() };
    let left = |cpu_ms, disk_bytes| Ok(Allowance { cpu_ms: Some(cpu_ms), disk_bytes: Some(disk_bytes) });
    assert_eq!(allowance(&story.task, used(100, 20)), left(900, 480));
    story.happens(Event::Reserved(Reserved { seq: 4, cpu_ms: Some(900), disk_bytes: Some(480), ..Reserved::default() }));
    assert_eq!((story.task.limits(4).cpu_ms, story.task.limits(4).processes), (Some(900), Some(9)));
    // A total that is told twice, or late, counts once.
    let settled =
        |cpu_ms, disk_bytes| Event::Settled(Settled { seq: 4, cpu_ms: Some(cpu_ms), disk_bytes: Some(disk_bytes), ..Settled::default() });
    story.happens(settled(700, 90)).happens(settled(700, 90)).happens(settled(600, 40));
    assert_eq!((story.task.cpu_ms, story.task.disk_bytes, story.task.allowed.len(), story.task.held.len()), (700, 40, 0, 0));
    // What was measured just now counts where it is more: commands in the background go on.
    assert_eq!(allowance(&story.task, used(650, 40)), left(300, 460));
    assert!(allowance(&story.task, used(1_000, 0)).unwrap_err().contains("--max-cpu"));
    assert!(allowance(&story.task, used(0, 500)).unwrap_err().contains("--max-disk"));
    // At the cap not even the model is asked.
    let now = story.now;
    assert_eq!(check_caps(&story.task, now, (NanoUsd(0), 0), true), Ok(()));
    story.happens(settled(1_200, 40));
    assert!(check_caps(&story.task, now, (NanoUsd(0), 0), true).unwrap_err().contains("1.2 s of 1.0 s of CPU time"));
    let raise = Signal { kind: "caps".into(), caps: Some(Caps { cpu_ms: Some(5_000), ..Caps::default() }), ..Signal::default() };
    story.happens(Event::Signal(raise));
    assert_eq!(allowance(&story.task, used(1_200, 40)), left(3_800, 460));
    let again = TaskState::of(&story.task, Lsn(0)).into_task(story.task.id);
    assert_eq!(again, story.task);
}

#[test]
fn an_answer_is_used_once_and_wakes_the_task() {
    let mut story = Story::new(Caps::default());
    story.started().happens(Event::ApprovalAsked(ApprovalAsked { id: 1, seq: 4, ..ApprovalAsked::default() }));
    story.happens(Event::Paused(Paused { why: "person".into(), ..Paused::default() }));
    assert_eq!(story.task.status.word(), "needs-you");
    assert_eq!(decide(&story.task, &Command::Resume(None)).unwrap_err().exit, 4);
    let yes = Command::Answer(Given { id: 1, yes: true, ..Given::default() });
    assert!(decide(&story.task, &yes).is_ok());
    story.happens(Event::ApprovalGiven(ApprovalGiven { id: 1, yes: true, ..ApprovalGiven::default() }));
    assert_eq!(story.task.status, Status::Running);
    assert!(decide(&story.task, &yes).unwrap_err().message.contains("answered already"));
}

#[test]
fn an_answer_fits_the_question_that_was_shown_and_reaches_as_far_as_it_was_offered() {
    let mut story = Story::new(Caps::default());
    let offer = Granted { id: "g".into(), argv: vec!["git".into(), "push".into()], expires_ms: 900, ..Granted::default() };
    let asked = |id, digest: &str| ApprovalAsked { id, seq: 4, kind: 1, digest: digest.into(), ..ApprovalAsked::default() };
    story.started().happens(Event::ApprovalAsked(ApprovalAsked { offer: Some(offer), ..asked(1, "d1") }));
    story.happens(Event::ApprovalAsked(asked(2, "d2")));
    let given = |id, digest: &str, scope: &str| {
        Command::Answer(Given { id, yes: true, digest: digest.into(), scope: scope.into(), uid: 7, ..Given::default() })
    };
    for (command, code) in [
        (given(1, "d2", ""), "TB-APPROVE-001"),
        (given(2, "d1", "task"), "TB-APPROVE-001"),
        (given(2, "d2", "task"), "TB-APPROVE-002"),
        (given(1, "d1", "world"), "TB-APPROVE-002"),
        (given(3, "d1", ""), "TB-TASK-002"),
    ] {
        assert_eq!(decide(&story.task, &command).unwrap_err().code.0, code, "{command:?}");
    }
    assert_eq!(decide(&story.task, &given(2, "d2", "once")).unwrap().events.len(), 1);
    for (scope, expires_ms, kept) in [("user", 900, 0), ("task", 0, 1)] {
        let decided = decide(&story.task, &given(1, "d1", scope)).unwrap();
        let [Event::ApprovalGiven(answer), Event::Granted(granted)] = decided.events.as_slice() else { panic!("{decided:?}") };
        assert_eq!((answer.scope.as_str(), granted.scope.as_str(), granted.approval, granted.expires_ms), (scope, scope, 1, expires_ms));
        story.happens(decided.events[1].clone());
        assert_eq!(story.task.grants().len(), kept);
    }
    let denied = Command::Answer(Given { id: 1, digest: "d1".into(), scope: "task".into(), ..Given::default() });
    assert_eq!(decide(&story.task, &denied).unwrap().events.len(), 1, "a denial grants nothing");
}

#[test]
fn a_questions_deadline_lets_nothing_go_on_but_by_itself() {
    let mut story = Story::new(Caps::default());
    story.started().happens(Event::ApprovalAsked(ApprovalAsked { id: 1, seq: 4, kind: 1, like: "l".into(), ..ApprovalAsked::default() }));
    let timer = Timer { id: 1, due_wall_ms: 9_000, ..Timer::default() };
    story.happens(Event::Paused(Paused { why: "person".into(), timer: Some(timer), ..Paused::default() }));
    assert_eq!(decide(&story.task, &Command::Pause).unwrap().events, [], "it waits for a person as before");
    story.happens(Event::TimerFired(TimerFired { id: 1 }));
    assert_eq!(story.task.status, Status::Running);
    story.happens(Event::ApprovalGiven(ApprovalGiven { id: 1, lapsed: "expired".into(), ..ApprovalGiven::default() }));
    let late = decide(&story.task, &Command::Answer(Given { id: 1, yes: true, ..Given::default() }));
    assert!(late.unwrap_err().message.contains("it has expired"));
    assert_eq!((story.task.denials("l"), story.task.denials("other")), (1, 0));
}

#[test]
fn a_budget_pause_wants_a_raise() {
    let mut story = Story::new(Caps { steps: Some(1), ..Caps::default() });
    story.started().happens(Event::Paused(Paused { why: "budget".into(), text: "1 steps are used up".into(), ..Paused::default() }));
    assert_eq!(decide(&story.task, &Command::Resume(None)).unwrap_err().exit, 5);
    let raise = Caps { steps: Some(9), ..Caps::default() };
    let decided = decide(&story.task, &Command::Resume(Some(raise))).unwrap();
    decided.events.into_iter().for_each(|event| {
        story.happens(event);
    });
    assert_eq!((story.task.status.clone(), story.task.caps.steps), (Status::Running, Some(9)));
}

#[test]
fn time_without_a_daemon_is_not_working_time() {
    let mut story = Story::new(Caps::default());
    story.started().happens(Event::Signal(Signal { kind: "note".into(), ..Signal::default() }));
    let worked = story.task.active_at(story.now);
    story.now += 1_000_000;
    story.started();
    assert_eq!(story.task.active_at(story.now), worked);
}

#[test]
fn a_finished_task_goes_on_when_it_is_told_more() {
    let mut story = Story::new(Caps::default());
    story.started().happens(Event::Finished(Finished { status: "unverified".into(), ..Finished::default() }));
    assert!(decide(&story.task, &Command::Pause).is_err());
    let decided = decide(&story.task, &Command::Tell("and the docs".into())).unwrap();
    decided.events.into_iter().for_each(|event| {
        story.happens(event);
    });
    assert_eq!((story.task.status.clone(), story.task.has_unheard()), (Status::Running, true));
}

fn paused_until(id: u64) -> Event {
    let timer = Some(Timer { id, due_wall_ms: 9_000, due_mono_ms: 9, boot: vec![1; 16] });
    Event::Paused(Paused { why: "provider".into(), text: "busy".into(), timer, tries: 1 })
}

#[test]
fn a_timer_is_used_up_by_its_record_and_by_nothing_else() {
    let mut story = Story::new(Caps::default());
    story.started().happens(paused_until(1));
    assert_eq!((story.task.timer.as_ref().map(|timer| timer.id), story.task.tries), (Some(1), 1));
    story.happens(Event::TimerFired(TimerFired { id: 7 }));
    assert!(story.task.paused_for("provider"));
    story.happens(Event::TimerFired(TimerFired { id: 1 }));
    assert_eq!((&story.task.status, &story.task.timer, story.task.timers), (&Status::Running, &None, 1));
    story.happens(paused_until(2)).happens(Event::Signal(Signal { kind: "unpause".into(), ..Signal::default() }));
    assert_eq!((&story.task.status, story.task.tries), (&Status::Running, 0));
    // Late: the deadline was ended by the user.
    story.happens(Event::Paused(Paused { why: "user".into(), ..Paused::default() })).happens(Event::TimerFired(TimerFired { id: 2 }));
    assert!(story.task.paused_for("user"));
}

#[test]
fn pausing_what_would_go_on_by_itself_takes_its_timer() {
    let mut story = Story::new(Caps::default());
    story.started().happens(paused_until(1));
    for command in [Command::Pause, Command::Priority(Priority::Batch)] {
        decide(&story.task, &command).unwrap().events.into_iter().for_each(|event| {
            story.happens(event);
        });
    }
    assert!(story.task.paused_for("user"));
    assert_eq!((&story.task.timer, story.task.priority), (&None, Priority::Batch));
    let again = decide(&story.task, &Command::Priority(Priority::Batch)).unwrap();
    assert_eq!((again.events.len(), again.text.as_str()), (0, "its priority is batch already"));
}

/// A task in which every field says something.
fn full_task() -> Task {
    let mut story = Story::new(Caps { nano_usd: Some(9), ..Caps::default() });
    story.started();
    let prepared = Prepared { checkpoint: "c0".into(), base: "b0".into(), environment: "linux".into(), ..Prepared::default() };
    story.happens(Event::Intent(Intent { seq: 1, class: 2, action: Some(Action::Prepare(Prepare {})), yolo: false }));
    story.happens(Event::Observed(Observed { seq: 1, observation: Some(Observation::Prepared(prepared)) }));
    story.happens(Event::Observed(Observed { seq: 9, observation: Some(Observation::Committed(Committed { commit: "t1".into() })) }));
    story.happens(Event::Reserved(Reserved { seq: 2, nano_usd: 60, tokens: 600, ..Reserved::default() }));
    story.happens(Event::StateSaved(StateSaved { state: vec![1, 2, 3], seq: 2 }));
    story.happens(Event::Intent(Intent {
        seq: 2,
        class: 1,
        action: Some(Action::Ask(Ask { through: 3, step: 4, ..Ask::default() })),
        yolo: false,
    }));
    story.op("tool", "c0", "c1", &[]).op("tool", "c1", "c2", &[]).op("undo", "c2", "c1", &[2]);
    story.happens(Event::ApprovalAsked(ApprovalAsked {
        id: 1,
        seq: 2,
        title: "may I".into(),
        body: "rm".into(),
        ..ApprovalAsked::default()
    }));
    story.happens(Event::Signal(Signal { kind: "tell".into(), text: "faster".into(), caps: None }));
    story.happens(Event::Settled(Settled { seq: 7, nano_usd: 5, input_tokens: 3, ..Settled::default() }));
    story.happens(Event::Paused(Paused {
        why: "person".into(),
        text: "may I".into(),
        timer: Some(Timer { id: 3, due_wall_ms: 9_000, due_mono_ms: 9, boot: vec![1; 16] }),
        tries: 2,
    }));
    story.task.clone()
}

fn rested(task: &Task) -> Task {
    let bytes = prost::Message::encode_to_vec(&TaskState::of(task, Lsn(4)));
    let state: TaskState = prost::Message::decode(bytes.as_slice()).unwrap();
    state.into_task(task.id)
}

#[test]
fn a_task_at_rest_is_the_same_task() {
    let task = full_task();
    assert_eq!(rested(&task), task);
    let bytes = prost::Message::encode_to_vec(&TaskState::of(&task, Lsn(4)));
    assert!(bytes.len() < 512, "{} bytes", bytes.len());
    let hex: String = bytes.chunks(32).flat_map(|line| line.iter().map(|b| format!("{b:02x}")).chain(["\n".to_owned()])).collect();
    expect_test::expect_file!["../../tests/golden/v1/snapshot.txt"].assert_eq(&hex);
}

#[test]
fn long_histories_leave_old_operations_and_rules_to_their_records() {
    let mut story = Story::new(Caps::default());
    story.started();
    let prepared = Prepared { rules: "r".repeat(9_000), checkpoint: "c".into(), ..Prepared::default() };
    story.happens(Event::Observed(Observed { seq: 1, observation: Some(Observation::Prepared(prepared)) }));
    for _ in 0..40 {
        story.op("tool", "a", "b", &[]);
    }
    story.op("undo", "b", "a", &[40, 39, 38]);
    let (whole, mut again) = (story.task.clone(), rested(&story.task));
    assert_eq!((again.ops.below(), again.ops.entries().len(), again.ops.count()), (33, 8, 41));
    assert_eq!(again.ops.stacks(), whole.ops.stacks());
    assert_eq!(again.ops.entry(41), whole.ops.entry(41));
    assert_eq!(again.ops.entry(3), None);
    assert!(again.prepared.as_ref().unwrap().rules.is_empty());
    again.ops.complete(whole.ops.entries().iter().take(33).cloned().collect());
    assert_eq!(again.ops, whole.ops);
}
