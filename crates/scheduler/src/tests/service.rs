//! The heartbeat, and standing still before a handover.

use super::world::{Script, World};
use super::{submission, until};
use std::time::Duration;
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::port::Runtime as _;
use tinkerbell_testkit::memory::MemDisk;

#[tokio::test]
async fn a_beat_passes_through_the_publisher_and_ends_with_it() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(1)).await;
    engine.beat().await.unwrap();
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    let newest = engine.beat().await.unwrap();
    assert_eq!((newest, engine.lag()), (engine.inner.deps.journal.state().tip, 0));
    engine.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(engine.beat().await.is_err(), "an engine that has stopped has no heartbeat");
}

#[tokio::test]
async fn an_engine_that_stands_still_accepts_and_begins_nothing() {
    let (disk, world) = (MemDisk::default(), World::default());
    let engine = world.engine(&disk, None, Script::effects(2)).await;
    assert_eq!(engine.stand_still(Duration::from_secs(5)).await, 0, "no model call was under way");
    let (id, _) = engine.submit(submission()).await.unwrap();
    engine.beat().await.unwrap();
    assert_eq!(world.counts(id), Vec::<u32>::new());
    assert_eq!(engine.get(&id.to_string()).await.unwrap().task.status, Status::Queued);
    engine.go_on();
    until(&engine, id, "finished", |task| task.status == Status::Finished).await;
    assert_eq!(world.counts(id), [1, 1]);
}
