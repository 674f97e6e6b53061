//! Tasks at rest: crash at every record while tasks leave memory, checkpoints are taken and the
//! journal is compacted all the time.

use super::world::{Script, World};
use super::{listed, submission, until};
use crate::Options;
use crate::engine::Engine;
use crate::rules::Rules;
use bytes::Bytes;
use std::time::Duration;
use tinkerbell_core::effect::Past;
use tinkerbell_core::event::{self, Event, Paused, Submitted};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{Command, Effects as _, Given, Journal as _, ListQuery, NewRecord, Runtime as _, Submission};
use tinkerbell_core::words::{Lsn, Priority, Subject, TaskId};
use tinkerbell_testkit::memory::MemDisk;

/// Everything as early and as often as it can be.
pub(super) fn restless() -> Options {
    Options {
        watch_slots: 8,
        rest_after: Duration::ZERO,
        resting: 0,
        checkpoint_records: 3,
        checkpoint_bytes: 1,
        compact_bytes: 1,
        ..Options::default()
    }
}

/// Upkeep without pause, until it is dropped.
pub(super) struct Tending(tokio::task::JoinHandle<()>);

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn tend(engine: &Engine) -> Tending {
    let inner = engine.inner.clone();
    Tending(tokio::spawn(async move {
        while inner.lock().broken.is_none() {
            inner.look_after().await.unwrap();
            tokio::task::yield_now().await;
        }
    }))
}

pub(super) async fn soon<T>(patience: Duration, what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(patience, what).await.ok()
}

/// Waits for the state; `None` when the power is off.
async fn reached(engine: &Engine, patience: Duration, id: TaskId, wanted: impl Fn(&Task) -> bool) -> Option<Task> {
    soon(patience, async {
        loop {
            match engine.get(&id.to_string()).await {
                Ok(found) if wanted(&found.task) => return found.task,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// Takes the story one life further: submit, answer, undo, redo. Says whether it is told.
async fn live(engine: &Engine, patience: Duration, id: &mut Option<TaskId>) -> bool {
    let keyed = Submission { idempotency_key: Some("story".into()), ..submission() };
    let Some(Ok((task, _))) = soon(patience, engine.submit(keyed)).await else { return false };
    assert!(id.is_none_or(|known| known == task), "an acknowledged task was forgotten");
    *id = Some(task);
    let rests = |task: &Task| task.paused_for("person") || task.status == Status::Finished;
    let Some(now) = reached(engine, patience, task, rests).await else { return false };
    if now.paused_for("person") {
        let answer = Command::Answer(Given { id: 1, yes: true, ..Given::default() });
        if !matches!(soon(patience, engine.command(task, answer)).await, Some(Ok(_))) {
            return false;
        }
    }
    let Some(now) = reached(engine, patience, task, |task| task.status == Status::Finished).await else { return false };
    if now.ops.count() < 4 && !matches!(soon(patience, engine.command(task, Command::Undo { all: true })).await, Some(Ok(_))) {
        return false;
    }
    if now.ops.count() < 5 && !matches!(soon(patience, engine.command(task, Command::Redo)).await, Some(Ok(_))) {
        return false;
    }
    matches!(soon(patience, engine.get(&task.to_string())).await, Some(Ok(found)) if found.task.ops.count() >= 5)
}

async fn told(world: &World, disk: &MemDisk, fuses: impl Iterator<Item = Option<usize>>, name: &str) {
    let script = Script { ask_at: Some(2), hold: 3, ..Script::effects(3) };
    let mut id = None;
    for fuse in fuses {
        let engine = world.engine_with(disk, fuse, script.clone(), restless()).await;
        let tending = tend(&engine);
        // Without power nothing comes; with it everything does.
        let patience = Duration::from_millis(if fuse.is_some() { 40 } else { 10_000 });
        let done = live(&engine, patience, &mut id).await;
        drop((tending, engine));
        world.settle().await;
        if done {
            break;
        }
    }
    let id = id.expect("the task was accepted");
    let engine = world.engine_with(disk, None, script, Options { watch_slots: 8, ..Options::default() }).await;
    let task = engine.get(&id.to_string()).await.unwrap().task;
    assert_eq!(world.counts(id), [1, 1, 1], "{name}");
    assert_eq!((task.status.clone(), task.spent.0, task.approvals.len()), (Status::Finished, 9, 1), "{name}");
    let kinds: Vec<&str> = task.ops.entries().iter().map(|entry| entry.done.kind.as_str()).collect();
    // A redo that a crash cut off is finished at the start; the user, who does not know, redoes the next.
    assert!(
        matches!(kinds.as_slice(), ["tool", "tool", "tool", "undo", redone @ ..] if redone.iter().all(|kind| *kind == "redo")),
        "{name} {kinds:?}"
    );
    assert_eq!(listed(&engine).await.len(), 1, "{name}");
}

#[tokio::test]
async fn a_crash_anywhere_between_snapshot_eviction_checkpoint_and_compaction_loses_nothing() {
    for fuse in 0..70 {
        let (disk, world) = (MemDisk::default(), World::default());
        told(&world, &disk, [Some(fuse), None].into_iter(), &format!("fuse {fuse}")).await;
    }
}

#[tokio::test]
async fn lives_of_a_few_records_each_come_to_the_same_end() {
    for fuse in 9..24 {
        let (disk, world) = (MemDisk::default(), World::default());
        told(&world, &disk, std::iter::repeat_n(Some(fuse), 40).chain([None]), &format!("lives of {fuse}")).await;
    }
}

/// A finished task that has left memory.
async fn at_rest(world: &World, disk: &MemDisk) -> (Engine, TaskId) {
    let engine = world.engine_with(disk, None, Script::effects(3), restless()).await;
    let (id, _) = engine.submit(Submission { idempotency_key: Some("k".into()), ..submission() }).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    rest(&engine, id).await;
    (engine, id)
}

pub(super) async fn rest(engine: &Engine, id: TaskId) {
    for _ in 0..100 {
        engine.inner.look_after().await.unwrap();
        if engine.inner.lock().slots.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let world = engine.inner.lock();
    assert!(world.slots.is_empty() && world.table.get(id).is_some());
}

#[tokio::test]
async fn a_task_at_rest_is_seen_listed_and_woken_as_if_it_had_never_slept() {
    let (disk, world) = (MemDisk::default(), World::default());
    let (engine, id) = at_rest(&world, &disk).await;
    let shown = engine.get(&id.to_string()[..8]).await.unwrap();
    assert_eq!((shown.task.status.clone(), shown.digits, shown.task.ops.count()), (Status::Finished, 1, 3));
    let page = engine.list(ListQuery::default()).await.unwrap();
    assert_eq!((page.total, page.open, page.tasks.len(), page.before), (1, 0, 1, None));
    assert!(engine.inner.lock().slots.is_empty(), "looking wakes nobody");
    assert_eq!(engine.submit(Submission { idempotency_key: Some("k".into()), ..submission() }).await.unwrap().0, id);
    let names = world.names(&engine, id, Lsn(0)).await;
    assert!(names.first() == Some(&"submitted") && names.last() == Some(&"finished"));
    assert!(!names.iter().any(|name| matches!(*name, "snapshot" | "page")));
    engine.command(id, Command::Tell("more".into())).await.unwrap();
    until(&engine, id, "finished again", |task| task.status == Status::Finished && !task.has_unheard()).await;
    assert_eq!(world.counts(id), [1, 1, 1, 1]);
    rest(&engine, id).await;
    engine.command(id, Command::Remove { force: false }).await.unwrap();
    rest(&engine, id).await;
    assert!(listed(&engine).await.is_empty());
    assert_eq!(engine.command(id, Command::Redo).await.unwrap_err().code.0, "TB-TASK-001");
    assert_ne!(engine.submit(Submission { idempotency_key: Some("k".into()), ..submission() }).await.unwrap().0, id);
}

#[tokio::test]
async fn a_removed_task_leaves_one_record_and_never_comes_back() {
    let (disk, world) = (MemDisk::default(), World::default());
    let (engine, id) = at_rest(&world, &disk).await;
    engine.command(id, Command::Remove { force: true }).await.unwrap();
    rest(&engine, id).await;
    engine.inner.checkpoint_now().await.unwrap();
    let rules = Rules::of(&*engine.inner.deps.journal).await.unwrap().expect("a checkpoint");
    engine.inner.deps.journal.compact(rules.needed()).await.unwrap();
    assert_eq!(disk.records().iter().filter(|record| record.task == Some(id)).map(|record| record.kind).collect::<Vec<_>>(), [25]);
    drop(engine);
    for checkpoint in [true, false] {
        if !checkpoint {
            disk.journal(None).checkpoint(Lsn(1), Bytes::from_static(b"damaged")).await.unwrap();
        }
        let engine = world.engine_with(&disk, None, Script::effects(3), restless()).await;
        assert_eq!(engine.get(&id.to_string()).await.unwrap_err().code.0, "TB-TASK-001");
        assert!(listed(&engine).await.is_empty());
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over_and_a_good_one_is_used() {
    for damaged in [false, true] {
        let (disk, world) = (MemDisk::default(), World::default());
        let (engine, id) = at_rest(&world, &disk).await;
        let before = engine.get(&id.to_string()).await.unwrap().task;
        engine.shutdown(Duration::from_secs(1)).await.unwrap();
        if damaged {
            disk.journal(None).checkpoint(Lsn(9), Bytes::from_static(b"TBSCHED1 cut")).await.unwrap();
        }
        let engine = world.engine_with(&disk, None, Script::effects(3), restless()).await;
        assert!(engine.inner.lock().slots.is_empty());
        assert_eq!(engine.get(&id.to_string()).await.unwrap().task, before, "damaged: {damaged}");
        let keyed = Submission { idempotency_key: Some("k".into()), ..submission() };
        assert_eq!(engine.submit(keyed).await.unwrap().0, id, "damaged: {damaged}");
    }
}

#[tokio::test]
async fn a_task_that_does_not_add_up_stands_still_and_says_why() {
    let (disk, world) = (MemDisk::default(), World::default());
    let id = TaskId(7 << 100);
    let mut task = Task::new(id, Lsn(1), 5, Submitted { goal: "g".into(), ..Submitted::default() });
    let submitted = Event::Submitted(task.submitted.clone());
    let paused = Event::Paused(Paused { why: "user".into(), ..Paused::default() });
    task.apply(&event::Placed { lsn: Lsn(2), at_ms: 5, task: id, event: paused.clone() });
    // What no record says.
    task.commits = 9;
    let mut slot = crate::slot::Slot::new(task, Lsn(1));
    slot.folded = 2;
    let forged = Event::Snapshot(slot.at_rest());
    let record = |event: Event| {
        let (kind, payload) = (event.kind(), Bytes::from(event::encode(event, 5)));
        NewRecord { kind, schema: event::SCHEMA, task: Some(id), subject: Subject(0), blob: false, payload }
    };
    disk.journal(None).append(vec![record(submitted), record(paused), record(forged)]).unwrap().durable.await.unwrap();
    let engine = world.engine_with(&disk, None, Script::effects(1), restless()).await;
    rest(&engine, id).await;
    let _said = engine.command(id, Command::Tell("go on".into())).await;
    let task = engine.get(&id.to_string()).await.unwrap().task;
    let Status::Paused { why, text } = &task.status else { panic!("{:?}", task.status) };
    assert!(why == "quarantine" && text.starts_with("TB-SCHED-005"), "{why} {text}");
}

#[tokio::test]
async fn a_long_history_is_paged_bounded_and_cut_with_a_note() {
    let (disk, world) = (MemDisk::default(), World::default());
    let script = Script { ask_at: Some(1), ..Script::effects(1) };
    let options = Options { history: 512, ..restless() };
    let engine = world.engine_with(&disk, None, script.clone(), options).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "asking", |task| task.paused_for("person")).await;
    for n in 0..2_000 {
        engine.command(id, Command::Tell(format!("word {n}"))).await.unwrap();
        if n % 100 == 0 {
            engine.inner.look_after().await.unwrap();
        }
    }
    rest(&engine, id).await;
    let snapshots = disk.records().into_iter().filter(|record| record.kind == 33).map(|record| record.payload.len());
    assert!(snapshots.max().unwrap() < 4_096);
    let _held = engine.inner.hold(id).await.unwrap().unwrap();
    let effects = crate::effects::TaskEffects::new(engine.inner.clone(), id, 1);
    let words: Vec<String> = effects.past(Lsn(0)).await.unwrap().into_iter().map(text).collect();
    assert_eq!(words.last().map(String::as_str), Some("word 1999"));
    assert!(words[0].starts_with("Older steps"), "{}", words[0]);
    assert!(
        (512..1_100).contains(&words.len()),
        "{} are kept; {:?}",
        words.len(),
        engine.inner.lock().slots.get(&id).map(|slot| (slot.history.paged, slot.history.tail.len()))
    );
    let first: usize = words[1].strip_prefix("word ").unwrap().parse().unwrap();
    assert!(words[1..].iter().enumerate().all(|(at, word)| *word == format!("word {}", first + at)), "no gap");
    drop((effects, engine));
    let engine = world.engine_with(&disk, None, script, options).await;
    engine.command(id, Command::Answer(Given { id: 1, yes: true, ..Given::default() })).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
}

/// Upkeep until only so many tasks are in memory.
async fn dozing(engine: &Engine, awake: usize) {
    for _ in 0..100 {
        engine.inner.look_after().await.unwrap();
        if engine.inner.lock().slots.len() == awake {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} are in memory", engine.inner.lock().slots.len());
}

#[tokio::test]
async fn tasks_that_wait_for_their_first_turn_wait_at_rest() {
    for (restarts, per_workspace) in [(false, 0), (true, 0), (true, 1)] {
        let (disk, world) = (MemDisk::default(), World::default());
        let script = Script { hang_at: Some(1), ..Script::effects(2) };
        let options = Options { running: 1, per_workspace, ..restless() };
        let mut engine = world.engine_with(&disk, None, script.clone(), options).await;
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(engine.submit(submission()).await.unwrap().0);
        }
        until(&engine, ids[0], "at effect 1", |task| task.open.is_some()).await;
        dozing(&engine, 1).await;
        assert_eq!(engine.command(ids[4], Command::Pause).await.unwrap(), "paused");
        engine.command(ids[5], Command::Cancel).await.unwrap();
        engine.command(ids[3], Command::Priority(Priority::Interactive)).await.unwrap();
        dozing(&engine, 1).await;
        assert_eq!(engine.states().get("queued"), Some(&3));
        if restarts {
            engine.shutdown(Duration::from_secs(1)).await.unwrap();
            engine = world.engine_with(&disk, None, script, options).await;
            assert!(engine.inner.lock().slots.len() <= 1, "a start loads only whose turn it is");
        }
        world.release();
        for id in &ids[..4] {
            until(&engine, *id, "finished", |task| task.status == Status::Finished).await;
            assert_eq!(world.counts(*id), [1, 1]);
        }
        assert_eq!((world.counts(ids[4]), world.counts(ids[5])), (vec![], vec![]));
        let order = world.order();
        let place = |id: TaskId| order.iter().position(|acted| *acted == id).unwrap();
        assert!(place(ids[3]) < place(ids[1]) && place(ids[3]) < place(ids[2]), "the priority went along");
        engine.command(ids[4], Command::Resume(None)).await.unwrap();
        until(&engine, ids[4], "finished", |task| task.status == Status::Finished).await;
    }
}

fn text(past: Past) -> String {
    match past {
        Past::Note { text, .. } => text,
        Past::Effect { seq, .. } => format!("effect {seq}"),
    }
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine_with(&disk, None, Script::effects(1), restless()).await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        let (id, _) = engine.submit(submission()).await.unwrap();
        until(&engine, id, "finished", |task| task.status == Status::Finished).await;
        ids.push(id);
    }
    rest(&engine, ids[0]).await;
    // One is awake again.
    engine.command(ids[3], Command::Undo { all: false }).await.unwrap();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = engine.list(ListQuery { limit: 10, before, ..ListQuery::default() }).await.unwrap();
        assert_eq!((page.total, page.open), (25, 0));
        seen.extend(page.tasks.iter().map(|found| found.task.id));
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen[0], ids[3]);
    assert_eq!(seen.len(), 25);
    seen.sort_unstable();
    ids.sort_unstable();
    assert_eq!(seen, ids);
}
