//! The engine against a world that counts: crash at every record, and what the user can do.

mod broken;
mod halt;
mod rest;
mod service;
mod turns;
mod waiting;
mod world;

use std::time::Duration;
use tinkerbell_core::event::Caps;
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{BlobStore as _, Command, Given, Runtime as _, Seen, Submission};
use tinkerbell_core::words::{Lsn, TaskId};
use tinkerbell_testkit::memory::MemDisk;
use world::{Script, World};

fn submission() -> Submission {
    Submission { goal: "do it".into(), cwd: "/".into(), model: "fake/model".into(), ..Submission::default() }
}

async fn listed(engine: &crate::Engine) -> Vec<Task> {
    let page = engine.list(tinkerbell_core::port::ListQuery::default()).await.unwrap();
    page.tasks.into_iter().map(|found| found.task).collect()
}

/// Waits until the task is as wanted; bounded, so that a hang fails.
async fn until(engine: &crate::Engine, id: TaskId, what: &str, wanted: impl Fn(&Task) -> bool) -> Task {
    let look = async {
        loop {
            let task = engine.get(&id.to_string()).await.unwrap().task;
            if wanted(&task) {
                return task;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), look).await {
        Ok(task) => task,
        Err(_) => panic!("never {what}: {:?}", engine.get(&id.to_string()).await.unwrap().task.status),
    }
}

#[tokio::test]
async fn a_task_runs_to_its_end_and_watchers_see_it_in_order() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(3)).await;
    let (id, lsn) = engine.submit(submission()).await.unwrap();
    assert_eq!(lsn, Lsn(1));
    let task = until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1, 1]);
    assert_eq!(task.finished.unwrap().text, "done");
    let seen = world.names(&engine, id, Lsn(0)).await;
    assert_eq!(
        seen.join(" "),
        "submitted started state-saved intent observed op-done state-saved intent observed op-done \
         state-saved intent observed op-done state-saved finished"
    );
    assert_eq!(world.names(&engine, id, Lsn(14)).await, ["state-saved", "finished"]);
}

#[tokio::test]
async fn a_crash_at_any_record_loses_nothing_and_repeats_nothing() {
    for fuse in 0..16 {
        let (disk, world) = (MemDisk::default(), World::default());
        let engine = world.engine(&disk, Some(fuse), Script::effects(3)).await;
        let accepted = tokio::time::timeout(Duration::from_millis(50), engine.submit(submission())).await;
        world.settle().await;
        drop(engine);
        let engine = world.engine(&disk, None, Script::effects(3)).await;
        let Ok(Ok((id, _))) = accepted else {
            // Never acknowledged: it may be there or not, but must not be half there.
            assert!(listed(&engine).await.len() <= 1, "fuse {fuse}");
            continue;
        };
        let task = until(&engine, id, "finished", |task| task.status == Status::Finished).await;
        assert_eq!(world.counts(id), [1, 1, 1], "fuse {fuse}");
        assert_eq!(task.finished.unwrap().exit, 0);
    }
}

#[tokio::test]
async fn a_question_waits_through_a_restart_and_is_answered_once() {
    let (disk, world) = (MemDisk::default(), World::default());
    let script = Script { ask_at: Some(2), ..Script::effects(2) };
    let engine = world.engine(&disk, None, script.clone()).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "asking", |task| task.paused_for("person")).await;
    drop(engine);
    let engine = world.engine(&disk, None, script).await;
    let task = engine.get(&id.to_string()).await.unwrap().task;
    assert!(task.paused_for("person"));
    let answer = Command::Answer(Given { id: 1, yes: true, ..Given::default() });
    assert_eq!(engine.command(id, answer.clone()).await.unwrap(), "approved");
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1]);
    assert!(engine.command(id, answer).await.is_err());
}

#[tokio::test]
async fn a_cap_pauses_before_the_spend_and_a_raise_goes_on() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hold: 40, ..Script::effects(3) }).await;
    let caps = Caps { nano_usd: Some(100), ..Caps::default() };
    let (id, _) = engine.submit(Submission { caps, ..submission() }).await.unwrap();
    let task = until(&engine, id, "over budget", |task| task.paused_for("budget")).await;
    assert_eq!((world.counts(id), task.spent.0, task.held.len()), (vec![1, 1, 0], 80, 0));
    assert_eq!(world.quiets(), 1, "what it left in the background is ended");
    assert_eq!(engine.command(id, Command::Resume(None)).await.unwrap_err().exit, 5);
    let raise = Caps { nano_usd: Some(200), ..Caps::default() };
    engine.command(id, Command::Resume(Some(raise))).await.unwrap();
    let task = until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!((world.counts(id), task.spent.0), (vec![1, 1, 1], 120));
}

#[tokio::test]
async fn cpu_time_is_reserved_before_a_command_and_settled_once_whatever_dies() {
    let script = Script { cpu_ms: 40, ..Script::effects(4) };
    let caps = Caps { cpu_ms: Some(100), ..Caps::default() };
    for fuse in (0..24).map(Some).chain([None]) {
        let (disk, world) = (MemDisk::default(), World::default());
        let engine = world.engine(&disk, fuse, script.clone()).await;
        let asked = engine.submit(Submission { caps: caps.clone(), ..submission() });
        let accepted = tokio::time::timeout(Duration::from_millis(50), asked).await;
        world.settle().await;
        drop(engine);
        let engine = world.engine(&disk, None, script.clone()).await;
        let Ok(Ok((id, _))) = accepted else { continue };
        // The third had 20 left and used 40; the fourth is not begun.
        let task = until(&engine, id, "over budget", |task| task.paused_for("budget")).await;
        assert_eq!((world.counts(id), task.cpu_ms, task.allowed.len()), (vec![1, 1, 1, 0], 120, 0), "fuse {fuse:?}");
        assert!(matches!(&task.status, Status::Paused { text, .. } if text.contains("--max-cpu")), "{:?}", task.status);
        let raise = Caps { cpu_ms: Some(200), ..Caps::default() };
        engine.command(id, Command::Resume(Some(raise))).await.unwrap();
        let task = until(&engine, id, "finished", |task| task.status == Status::Finished).await;
        assert_eq!((world.counts(id), task.cpu_ms), (vec![1, 1, 1, 1], 160), "fuse {fuse:?}");
    }
}

#[tokio::test]
async fn what_is_left_is_on_record_before_a_command_acts() {
    let (disk, world) = (MemDisk::default(), World::default());
    let script = Script { cpu_ms: 40, hang_at: Some(2), ..Script::effects(2) };
    let engine = world.engine(&disk, None, script.clone()).await;
    let caps = Caps { cpu_ms: Some(100), disk_bytes: Some(7), ..Caps::default() };
    let (id, _) = engine.submit(Submission { caps, ..submission() }).await.unwrap();
    let left = |task: &Task| task.allowed.get(&2).map(|left| (left.cpu_ms, left.disk_bytes));
    until(&engine, id, "at effect 2", |task| left(task) == Some((Some(60), Some(7)))).await;
    // The plug is pulled in the middle of the command; whoever finds it again knows what it may use.
    drop(engine);
    let engine = world.engine(&disk, None, script).await;
    until(&engine, id, "at effect 2 again", |task| left(task) == Some((Some(60), Some(7)))).await;
    world.release();
    let task = until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!((task.cpu_ms, task.allowed.len(), task.held.len()), (80, 0, 0));
}

#[tokio::test]
async fn pause_leaves_the_effect_and_resume_takes_it_up_again() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(2), ..Script::effects(3) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 2", |task| task.open.as_ref().is_some_and(|(_, intent)| intent.seq == 2)).await;
    assert_eq!(engine.command(id, Command::Pause).await.unwrap(), "paused");
    assert!(engine.get(&id.to_string()).await.unwrap().task.paused_for("user"));
    world.release();
    assert_eq!(engine.command(id, Command::Resume(None)).await.unwrap(), "resumed");
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1, 1]);
}

#[tokio::test]
async fn cancel_quiets_the_commands_and_ends_the_task_once() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(1), ..Script::effects(1) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    assert_eq!(engine.command(id, Command::Cancel).await.unwrap(), "stopped");
    let task = engine.get(&id.to_string()).await.unwrap().task;
    assert_eq!(task.finished.as_ref().map(|f| (f.status.as_str(), f.exit)), Some(("cancelled", 6)));
    assert_eq!(world.quiets(), 1);
    assert_eq!(engine.command(id, Command::Cancel).await.unwrap(), "it had ended already");
}

#[tokio::test]
async fn words_to_a_finished_task_make_it_go_on() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(1)).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    engine.command(id, Command::Tell("more".into())).await.unwrap();
    until(&engine, id, "finished again", |task| task.status == Status::Finished && !task.has_unheard()).await;
    assert_eq!(world.counts(id), [1, 1]);
}

#[tokio::test]
async fn undo_is_an_effect_that_survives_a_crash() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(2)).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(engine.command(id, Command::Undo { all: false }).await.unwrap(), "undo done");
    let task = engine.get(&id.to_string()).await.unwrap().task;
    assert_eq!((task.ops.entries().len(), task.ops.in_force(2)), (3, false));
    drop(engine);
    let engine = world.engine(&disk, None, Script::effects(2)).await;
    assert_eq!(engine.command(id, Command::Redo).await.unwrap(), "redo done");
    assert_eq!(engine.command(id, Command::Redo).await.unwrap_err().code.0, "TB-TASK-006");
    assert_eq!(engine.command(id, Command::Remove { force: false }).await.unwrap(), "remove done");
    assert!(listed(&engine).await.is_empty());
    assert_eq!(engine.get(&id.to_string()).await.unwrap_err().code.0, "TB-TASK-001");
}

#[tokio::test]
async fn the_same_key_is_the_same_task() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(1)).await;
    let keyed = Submission { idempotency_key: Some("k".into()), ..submission() };
    let (first, _) = engine.submit(keyed.clone()).await.unwrap();
    assert_eq!(engine.submit(keyed.clone()).await.unwrap().0, first);
    let other = Submission { goal: "else".into(), ..keyed };
    assert_eq!(engine.submit(other).await.unwrap_err().code.0, "TB-TASK-009");
    assert_eq!(engine.submit(Submission::default()).await.unwrap_err().exit, 2);
}

#[tokio::test]
async fn prefixes_name_one_task_or_say_why_not() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(1)).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    assert_eq!(engine.get(&id.to_string()[..6]).await.unwrap().task.id, id);
    for prefix in ["", "ab", "zzzzzz"] {
        assert_eq!(engine.get(prefix).await.unwrap_err().code.0, "TB-TASK-001");
    }
}

#[tokio::test]
async fn a_slow_watcher_misses_nothing() {
    use futures_util::StreamExt as _;
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(40)).await;
    let mut slow = engine.watch(None, Lsn(0));
    // Begins to listen before anything happened, and reads only when far more than its slots are.
    assert!(matches!(slow.next().await, Some(Ok(Seen::CaughtUp(Lsn(0))))));
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    let total = engine.get(&id.to_string()).await.unwrap().task.last_lsn.0;
    let mut lsns = Vec::new();
    while lsns.last() != Some(&total) {
        if let Some(Ok(Seen::Event(event))) = slow.next().await {
            lsns.push(event.lsn.0);
        }
    }
    assert_eq!(lsns, (1..=total).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_client_left_behind_is_still_done_whole() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(1), ..Script::effects(1) }).await;
    // The client goes away as soon as it has asked.
    assert!(futures_util::FutureExt::now_or_never(engine.submit(submission())).is_none());
    world.settle().await;
    let id = listed(&engine).await.first().expect("the task was accepted").id;
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    world.set_quieting(1);
    assert!(futures_util::FutureExt::now_or_never(engine.command(id, Command::Cancel)).is_none());
    world.settle().await;
    assert!(engine.get(&id.to_string()).await.unwrap().task.is_open());
    world.release();
    until(&engine, id, "ended", |task| task.status == Status::Finished).await;
    assert_eq!(world.quiets(), 1);
}

#[tokio::test]
async fn a_stopped_task_goes_on_when_it_is_told_more() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(1), ..Script::effects(1) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    engine.command(id, Command::Cancel).await.unwrap();
    world.release();
    engine.command(id, Command::Tell("do it after all".into())).await.unwrap();
    until(&engine, id, "finished", |task| task.finished.as_ref().is_some_and(|finished| finished.status == "unverified")).await;
}

#[tokio::test]
async fn two_requests_with_one_key_at_the_same_time_are_one_task() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(1)).await;
    let keyed = Submission { idempotency_key: Some("k".into()), ..submission() };
    let (a, b) = tokio::join!(engine.submit(keyed.clone()), engine.submit(keyed));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(listed(&engine).await.len(), 1);
}

#[tokio::test]
async fn a_task_that_can_not_be_quieted_does_not_keep_the_daemon_from_starting() {
    let (disk, world) = (MemDisk::default(), World::default());
    let script = Script { hang_at: Some(1), ..Script::effects(1) };
    let engine = world.engine(&disk, None, script.clone()).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    world.set_quieting(1);
    assert!(tokio::time::timeout(Duration::from_millis(20), engine.command(id, Command::Cancel)).await.is_err());
    drop(engine);
    world.set_quieting(2);
    let engine = world.engine(&disk, None, script).await;
    world.settle().await;
    assert!(engine.get(&id.to_string()).await.unwrap().task.is_open());
    assert_eq!(engine.command(id, Command::Cancel).await.unwrap_err().message, "something survives");
    world.set_quieting(0);
    engine.command(id, Command::Cancel).await.unwrap();
    until(&engine, id, "ended", |task| task.status == Status::Finished).await;
}

#[tokio::test]
async fn nothing_ends_a_task_that_somebody_paused_or_told_meanwhile() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(1), ..Script::effects(1) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    let event = || vec![tinkerbell_core::event::Event::Finished(tinkerbell_core::event::Finished::default())];
    let still = |task: &Task| task.status == Status::Running && !task.has_unheard();
    engine.command(id, Command::Tell("wait".into())).await.unwrap();
    assert!(engine.inner.record_if(id, event(), still).await.unwrap().is_none());
    engine.command(id, Command::Pause).await.unwrap();
    assert!(engine.inner.record_if(id, event(), still).await.unwrap().is_none());
    assert!(engine.get(&id.to_string()).await.unwrap().task.is_open());
}

#[tokio::test]
async fn removing_a_task_drops_its_blobs_and_the_next_start_does_not_miss_them() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { talks: 4_000, ..Script::effects(2) }).await;
    let mut owners = Vec::new();
    for _ in 0..2 {
        let (id, _) = engine.submit(submission()).await.unwrap();
        until(&engine, id, "finished", |task| task.status == Status::Finished).await;
        owners.push(engine.get(&id.to_string()).await.unwrap().task.owner());
    }
    for owner in &owners {
        assert!(!disk.list(*owner).await.unwrap().is_empty(), "a long result is a blob");
    }
    engine.command(owners[0].task, Command::Remove { force: false }).await.unwrap();
    assert!(disk.list(owners[0]).await.unwrap().is_empty());
    assert!(!disk.list(owners[1]).await.unwrap().is_empty());
    for _ in 0..2 {
        let engine = world.engine(&disk, None, Script { talks: 4_000, ..Script::effects(2) }).await;
        assert_eq!(listed(&engine).await.iter().map(|task| task.id).collect::<Vec<_>>(), [owners[1].task]);
    }
}
