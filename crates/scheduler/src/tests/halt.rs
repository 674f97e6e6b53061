//! The kill switch: nothing begins while it is on, and everything goes on once it is off.

use super::world::{Script, World};
use super::{submission, until};
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::port::{Command, ListQuery, Runtime as _};
use tinkerbell_testkit::memory::MemDisk;

const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    fn switch(&self, on: bool) {
        *self.halted.lock().unwrap() = on.then(|| Fault::halted("halted by a test"));
    }
}

#[tokio::test]
async fn a_task_at_work_stops_and_goes_on_after_the_lift() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(2), ..Script::effects(3) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 2", |task| task.open.as_ref().is_some_and(|(_, intent)| intent.seq == 2)).await;
    world.switch(true);
    assert_eq!(engine.halt(PATIENCE).await, 0, "nobody works");
    assert_eq!(engine.submit(submission()).await.unwrap_err().code.0, "TB-HALT-001");
    world.release();
    let task = until(&engine, id, "noted", |task| task.resumed_ms.is_none()).await;
    assert!(matches!(&task.status, Status::Paused { why, text } if why == "halt" && text == "halted by a test"));
    assert_eq!((task.status.word(), engine.states().get("halted")), ("halted", Some(&1)));
    world.settle().await;
    assert_eq!(world.counts(id), [1, 0, 0], "nothing acts");
    world.switch(false);
    engine.lift().await;
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1, 1]);
    assert!(engine.submit(submission()).await.is_ok());
}

/// Nobody told the engine: the next effect finds the switch on by itself.
#[tokio::test]
async fn the_switch_alone_stops_the_next_effect() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(1), ..Script::effects(3) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    world.switch(true);
    world.release();
    until(&engine, id, "halted", |task| task.paused_for("halt")).await;
    assert_eq!(world.counts(id), [1, 0, 0]);
    world.switch(false);
    // Nothing was halted as far as it knows, and yet the task goes on.
    engine.halt(PATIENCE).await;
    engine.lift().await;
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1, 1]);
}

#[tokio::test]
async fn a_start_with_the_switch_on_begins_nothing_and_operations_are_refused() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script { hang_at: Some(2), ..Script::effects(3) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 2", |task| task.open.as_ref().is_some_and(|(_, intent)| intent.seq == 2)).await;
    engine.shutdown(PATIENCE).await.unwrap();
    drop(engine);
    world.switch(true);
    world.release();
    let engine = world.engine(&disk, None, Script::effects(3)).await;
    until(&engine, id, "halted", |task| task.paused_for("halt")).await;
    assert_eq!(engine.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap().tasks[0].task.status.word(), "halted");
    let undo = Command::Undo { all: false };
    assert_eq!(engine.command(id, undo.clone()).await.unwrap_err().code.0, "TB-HALT-001");
    world.settle().await;
    assert_eq!(world.counts(id), [1, 0, 0]);
    drop(engine);
    // Lifted while no daemon lived: the next one goes on by itself, because the refused operation has
    // left no pause of its own behind.
    world.switch(false);
    let engine = world.engine(&disk, None, Script::effects(3)).await;
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1, 1]);
}
