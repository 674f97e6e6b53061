//! Turns in the engine: who works first, who gives way, and who is refused.

use super::world::{Script, World};
use super::{submission, until};
use crate::{Engine, Options};
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::port::{Command, Runtime as _, Submission};
use tinkerbell_core::words::{Priority, TaskId};
use tinkerbell_testkit::fake::FakeClock;
use tinkerbell_testkit::memory::MemDisk;

struct House {
    disk: MemDisk,
    world: World,
    clock: FakeClock,
}

impl House {
    fn new() -> Self {
        Self { disk: MemDisk::default(), world: World::default(), clock: FakeClock::new() }
    }

    async fn engine(&self, script: Script, options: Options) -> Engine {
        self.world.engine_on(self.disk.journal(None), &self.disk, script, (&self.clock, options)).await
    }
}

async fn submit(engine: &Engine, priority: Priority) -> TaskId {
    engine.submit(Submission { priority, ..submission() }).await.unwrap().0
}

async fn ended(engine: &Engine, id: TaskId) {
    until(engine, id, "ended", |task| task.status == Status::Finished).await;
}

#[tokio::test]
async fn with_one_slot_the_most_urgent_comes_first_and_others_give_way_after_a_step() {
    let house = House::new();
    let engine = house.engine(Script { hang_at: Some(1), ..Script::effects(2) }, Options { running: 1, ..Options::default() }).await;
    let first = submit(&engine, Priority::Batch).await;
    until(&engine, first, "at effect 1", |task| task.open.is_some()).await;
    let mut ids = Vec::new();
    for priority in [Priority::Maintenance, Priority::Normal, Priority::Interactive, Priority::Batch] {
        ids.push(submit(&engine, priority).await);
    }
    let raised = submit(&engine, Priority::Maintenance).await;
    assert_eq!(engine.command(raised, Command::Priority(Priority::Interactive)).await.unwrap(), "its priority is interactive now");
    house.world.release();
    for id in ids.iter().chain([&first, &raised]) {
        ended(&engine, *id).await;
    }
    let [maintenance, normal, interactive, batch] = ids[..] else { panic!() };
    let order = house.world.order();
    // Its first effect was under way; its second comes after all that is more urgent.
    assert_eq!(order[..7], [first, interactive, interactive, raised, raised, normal, normal]);
    assert!(order[7..10].contains(&first) && order[7..10].contains(&batch), "{order:?}");
    assert_eq!(order[10..], [maintenance, maintenance]);
}

#[tokio::test]
async fn a_task_in_the_queue_is_stopped_and_paused_at_once_and_never_worked() {
    let house = House::new();
    let engine = house.engine(Script { hang_at: Some(1), ..Script::effects(1) }, Options { running: 1, ..Options::default() }).await;
    let holder = submit(&engine, Priority::Normal).await;
    until(&engine, holder, "at effect 1", |task| task.open.is_some()).await;
    let (stopped, paused) = (submit(&engine, Priority::Normal).await, submit(&engine, Priority::Normal).await);
    assert_eq!(engine.command(stopped, Command::Cancel).await.unwrap(), "stopped");
    assert_eq!(engine.command(paused, Command::Pause).await.unwrap(), "paused");
    house.world.release();
    ended(&engine, holder).await;
    house.world.settle().await;
    assert_eq!(house.world.order(), [holder]);
    engine.command(paused, Command::Resume(None)).await.unwrap();
    ended(&engine, paused).await;
    assert_eq!((house.world.counts(stopped), house.world.counts(paused)), (vec![], vec![1]));
    assert_eq!(engine.turns().running(), 0);
}

#[tokio::test]
async fn a_task_that_gave_way_is_stopped_where_it_waits() {
    let house = House::new();
    let engine = house.engine(Script { hang_at: Some(1), ..Script::effects(3) }, Options { running: 1, ..Options::default() }).await;
    let batch = submit(&engine, Priority::Batch).await;
    until(&engine, batch, "at effect 1", |task| task.open.is_some()).await;
    let urgent = submit(&engine, Priority::Interactive).await;
    house.world.release();
    house.world.hold();
    until(&engine, urgent, "at effect 1", |task| task.open.is_some()).await;
    assert_eq!(house.world.counts(batch), [1, 0, 0]);
    assert_eq!(engine.command(batch, Command::Cancel).await.unwrap(), "stopped");
    house.world.release();
    ended(&engine, urgent).await;
    assert_eq!(house.world.counts(urgent), [1, 1, 1]);
    assert_eq!(engine.turns().running(), 0);
}

#[tokio::test]
async fn tasks_of_one_host_take_turns_and_leave_slots_to_others() {
    let house = House::new();
    let options = Options { running: 3, per_host: 1, ..Options::default() };
    let engine = house.engine(Script { hang_at: Some(1), ..Script::effects(1) }, options).await;
    let on = |host: &str| Submission { host: host.into(), ..submission() };
    let (a, b) = (engine.submit(on("one")).await.unwrap().0, engine.submit(on("one")).await.unwrap().0);
    let c = engine.submit(on("two")).await.unwrap().0;
    for id in [a, c] {
        until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    }
    house.world.settle().await;
    assert!(engine.get(&b.to_string()).await.unwrap().task.open.is_none());
    assert_eq!(engine.turns().running(), 2);
    house.world.release();
    for id in [a, b, c] {
        ended(&engine, id).await;
    }
}

#[tokio::test]
async fn one_task_too_many_hears_when_to_come_back() {
    let house = House::new();
    let options = Options { open: 3, per_tenant: 2, ..Options::default() };
    let engine = house.engine(Script { hang_at: Some(1), ..Script::effects(1) }, options).await;
    let of = |uid| engine.submit(Submission { uid, ..submission() });
    let first = of(1).await.unwrap().0;
    of(1).await.unwrap();
    let fault = of(1).await.unwrap_err();
    assert_eq!((fault.code.0, fault.exit, fault.retry_after_ms), ("TB-TASK-011", 69, Some(30_000)));
    of(2).await.unwrap();
    assert_eq!(of(3).await.unwrap_err().code.0, "TB-TASK-010");
    engine.command(first, Command::Cancel).await.unwrap();
    of(3).await.unwrap();
    assert_eq!(engine.open_tasks(), 3);
}
