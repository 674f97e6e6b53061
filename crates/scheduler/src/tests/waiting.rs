//! Waiting: timers over jumps of the clock, restarts and crashes, and all that stands on them.

use super::rest::{rest, restless, soon, tend};
use super::world::{Script, World};
use super::{submission, until};
use crate::{Engine, Options};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::Caps;
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{
    Appended, Command, Compaction, Journal, JournalState, Needed, NewRecord, Record, Room, Runtime as _, Submission,
};
use tinkerbell_core::words::{Lsn, TaskId};
use tinkerbell_testkit::fake::{FakeClock, START_WALL_MS};
use tinkerbell_testkit::memory::{MemDisk, MemJournal};

const HOUR: Duration = Duration::from_secs(3_600);

struct House {
    disk: MemDisk,
    world: World,
    clock: FakeClock,
    boot: u128,
    options: Options,
}

impl House {
    fn new() -> Self {
        Self { disk: MemDisk::default(), world: World::default(), clock: FakeClock::new(), boot: 7, options: Options::default() }
    }

    /// Where tasks leave memory as soon as they can; without compaction, so that what fired can be counted.
    fn restless() -> Self {
        Self { options: Options { compact_bytes: 0, ..restless() }, ..Self::new() }
    }

    /// The machine booted again: monotonic time begins anew, wall time went on by so much.
    fn reboot(&mut self, passed: Duration) {
        let wall_ms = self.clock.now().wall_ms + u64::try_from(passed.as_millis()).unwrap();
        (self.clock, self.boot) = (FakeClock::new(), self.boot + 1);
        self.clock.set_wall(wall_ms);
    }

    async fn engine(&self, fuse: Option<usize>) -> Engine {
        self.engine_with(self.disk.journal(fuse), Script::effects(2)).await
    }

    async fn engine_with(&self, journal: Arc<dyn Journal>, script: Script) -> Engine {
        let options = Options { boot: self.boot, ..self.options };
        self.world.engine_on(journal, &self.disk, script, (&self.clock, options)).await
    }

    fn down(&self, fault: Option<Fault>) {
        *self.world.down.lock().unwrap() = fault;
    }

    /// A task whose provider is down, and that stands still for it.
    async fn paused(&self, engine: &Engine, fault: Fault) -> TaskId {
        self.down(Some(fault));
        let (id, _) = engine.submit(submission()).await.unwrap();
        until(engine, id, "paused", |task| task.paused_for("provider")).await;
        self.down(None);
        id
    }

    /// Lets time pass in steps of half a second, so that sleepers wake in order.
    async fn pass(&self, time: Duration) {
        let half = Duration::from_millis(500);
        for _ in 0..time.as_millis() / half.as_millis() {
            self.clock.advance(half);
            self.world.settle().await;
        }
    }

    /// A long time at once: what is due in it is due at its end.
    async fn leap(&self, time: Duration) {
        self.clock.advance(time);
        self.world.settle().await;
    }

    fn fired(&self) -> usize {
        self.disk.records().iter().filter(|record| record.kind == 32).count()
    }
}

fn busy() -> Fault {
    Fault::new("TB-ROUTER-009", 69, "overloaded").transient()
}

async fn task(engine: &Engine, id: TaskId) -> Task {
    engine.get(&id.to_string()).await.unwrap().task
}

async fn ended(engine: &Engine, id: TaskId) {
    until(engine, id, "ended", |task| task.status == Status::Finished).await;
}

#[tokio::test]
async fn a_task_without_its_provider_goes_on_by_itself_and_the_wall_clock_has_no_say() {
    let house = House::new();
    let engine = house.engine(None).await;
    let id = house.paused(&engine, busy()).await;
    for wall_ms in [START_WALL_MS + 5 * 3_600_000, START_WALL_MS - 5 * 3_600_000] {
        house.clock.set_wall(wall_ms);
        house.pass(Duration::from_secs(10)).await;
        assert!(task(&engine, id).await.paused_for("provider"), "fired early");
    }
    // Thirty seconds and a quarter, and the second that a look may be late.
    house.pass(Duration::from_millis(18_500)).await;
    ended(&engine, id).await;
    assert_eq!((house.world.counts(id), house.fired()), (vec![1, 1], 1));
}

#[tokio::test]
async fn two_days_that_a_provider_asks_for_pass_over_restarts() {
    for reboots in [false, true] {
        let mut house = House::new();
        let engine = house.engine(None).await;
        let id = house.paused(&engine, busy().after_ms(48 * 3_600_000)).await;
        house.leap(40 * HOUR).await;
        assert!(task(&engine, id).await.paused_for("provider"));
        drop(engine);
        if reboots {
            house.reboot(7 * HOUR)
        } else {
            house.clock.advance(7 * HOUR)
        };
        let engine = house.engine(None).await;
        let left_ms = task(&engine, id).await.timer.unwrap().due_wall_ms - house.clock.now().wall_ms;
        assert!((3_600_000..3_610_000).contains(&left_ms), "{left_ms}");
        house.leap(HOUR - Duration::from_secs(1)).await;
        assert!(task(&engine, id).await.paused_for("provider"), "fired early, reboot {reboots}");
        house.pass(Duration::from_secs(12)).await;
        ended(&engine, id).await;
        assert_eq!((house.world.counts(id), house.fired()), (vec![1, 1], 1));
    }
}

#[tokio::test]
async fn after_another_boot_the_wall_clock_decides_also_when_it_is_set_late() {
    let mut house = House::new();
    let engine = house.engine(None).await;
    let id = house.paused(&engine, busy().after_ms(10 * 3_600_000)).await;
    drop(engine);
    house.reboot(Duration::ZERO);
    let engine = house.engine(None).await;
    house.leap(HOUR).await;
    assert!(task(&engine, id).await.paused_for("provider"));
    // The time service has found the right time.
    house.clock.set_wall(START_WALL_MS + 11 * 3_600_000);
    house.pass(Duration::from_secs(2)).await;
    ended(&engine, id).await;
}

#[tokio::test]
async fn a_crash_between_due_and_record_fires_once_on_record() {
    for fuse in 0..6 {
        let house = House::new();
        let engine = house.engine(None).await;
        let id = house.paused(&engine, busy()).await;
        drop(engine);
        house.clock.advance(HOUR);
        let engine = house.engine(Some(fuse)).await;
        house.world.settle().await;
        drop(engine);
        let engine = house.engine(None).await;
        ended(&engine, id).await;
        assert_eq!((house.world.counts(id), house.fired()), (vec![1, 1], 1), "fuse {fuse}");
    }
}

#[tokio::test]
async fn a_deadline_at_rest_comes_back_with_the_checkpoint_and_brings_its_task() {
    for reboots in [false, true] {
        let mut house = House::restless();
        let engine = house.engine(None).await;
        let id = house.paused(&engine, busy().after_ms(48 * 3_600_000)).await;
        rest(&engine, id).await;
        assert!(task(&engine, id).await.timer.is_some());
        engine.shutdown(Duration::from_secs(1)).await.unwrap();
        drop(engine);
        if reboots {
            house.reboot(47 * HOUR)
        } else {
            house.clock.advance(47 * HOUR)
        };
        let engine = house.engine(None).await;
        house.leap(HOUR - Duration::from_secs(2)).await;
        assert!(engine.inner.lock().slots.is_empty(), "neither a start nor a look loads it");
        house.pass(Duration::from_secs(13)).await;
        ended(&engine, id).await;
        assert_eq!((house.world.counts(id), house.fired()), (vec![1, 1], 1));
    }
}

#[tokio::test]
async fn a_deadline_that_a_checkpoint_lacks_is_found_in_its_task() {
    let house = House::restless();
    let engine = house.engine(None).await;
    let id = house.paused(&engine, busy().after_ms(3_600_000)).await;
    rest(&engine, id).await;
    // As it is while a timer that came due is looked at.
    *engine.inner.timers() = crate::timers::Timers::default();
    engine.inner.checkpoint_now().await.unwrap();
    drop(engine);
    let engine = house.engine(None).await;
    house.leap(2 * HOUR).await;
    ended(&engine, id).await;
    assert_eq!(house.fired(), 1);
}

#[tokio::test]
async fn a_crash_anywhere_while_a_deadline_leaves_memory_fires_it_once_on_record() {
    for fuse in 0..28 {
        let house = House::restless();
        house.down(Some(busy()));
        let engine = house.engine(Some(fuse)).await;
        let tending = tend(&engine);
        let keyed = || Submission { idempotency_key: Some("k".into()), ..submission() };
        let patience = Duration::from_millis(20);
        // Without power nothing comes.
        let _accepted = soon(patience, engine.submit(keyed())).await;
        house.world.settle().await;
        house.down(None);
        house.leap(HOUR).await;
        drop((tending, engine));
        house.world.settle().await;
        let engine = house.engine(None).await;
        let tending = tend(&engine);
        let (id, _) = engine.submit(keyed()).await.unwrap();
        house.leap(HOUR).await;
        ended(&engine, id).await;
        assert_eq!(house.world.counts(id), [1, 1], "fuse {fuse}");
        assert!(house.fired() <= 1, "fuse {fuse}");
        drop(tending);
    }
}

#[tokio::test]
async fn tries_in_a_row_are_bounded_and_getting_further_begins_anew() {
    let house = House::new();
    let engine = house.engine(None).await;
    let id = house.paused(&engine, busy()).await;
    house.down(Some(busy()));
    for tried in 1..=20 {
        let now = task(&engine, id).await;
        assert_eq!((now.tries, now.timer.map(|timer| timer.id)), (tried, Some(u64::from(tried))));
        house.leap(HOUR).await;
        until(&engine, id, "paused again", |task| task.tries == tried + 1 && task.paused_for("provider")).await;
    }
    assert_eq!(task(&engine, id).await.timer, None);
    house.leap(10 * HOUR).await;
    assert_eq!(house.fired(), 20);
    engine.command(id, Command::Resume(None)).await.unwrap();
    until(&engine, id, "paused", |task| task.paused_for("provider") && task.tries == 1).await;
    house.down(None);
    house.leap(HOUR).await;
    ended(&engine, id).await;
    assert_eq!(task(&engine, id).await.tries, 0);
}

#[tokio::test]
async fn the_user_ends_a_wait_and_the_old_deadline_means_nothing() {
    let house = House::new();
    let engine = house.engine(None).await;
    let id = house.paused(&engine, busy().after_ms(3_600_000)).await;
    assert_eq!(engine.command(id, Command::Resume(None)).await.unwrap(), "resumed");
    ended(&engine, id).await;
    let other = house.paused(&engine, busy().after_ms(3_600_000)).await;
    assert_eq!(engine.command(other, Command::Pause).await.unwrap(), "paused");
    let third = house.paused(&engine, busy().after_ms(3_600_000)).await;
    assert_eq!(engine.command(third, Command::Cancel).await.unwrap(), "stopped");
    house.leap(2 * HOUR).await;
    assert!(task(&engine, other).await.paused_for("user"));
    assert_eq!((house.fired(), house.world.counts(third)), (0, vec![]));
}

#[tokio::test]
async fn a_task_for_later_begins_later() {
    let mut house = House::new();
    let engine = house.engine(None).await;
    let not_before_ms = Some(START_WALL_MS + 2 * 3_600_000);
    let later = Submission { not_before_ms, delay_ms: Some(60_000), ..submission() };
    let (id, lsn) = engine.submit(later.clone()).await.unwrap();
    assert_eq!((lsn, task(&engine, id).await.status.word()), (Lsn(1), "scheduled"));
    let (soon, _) = engine.submit(later).await.unwrap();
    engine.command(soon, Command::Resume(None)).await.unwrap();
    ended(&engine, soon).await;
    drop(engine);
    house.reboot(HOUR);
    let engine = house.engine(None).await;
    house.pass(Duration::from_secs(5)).await;
    assert_eq!((task(&engine, id).await.status.word(), house.world.counts(id)), ("scheduled", vec![]));
    house.leap(HOUR).await;
    ended(&engine, id).await;
    assert_eq!(task(&engine, id).await.active_ms, 0);
}

#[tokio::test]
async fn working_time_ends_in_the_middle_of_a_step() {
    let house = House::new();
    let engine = house.engine_with(house.disk.journal(None), Script { hang_at: Some(2), ..Script::effects(3) }).await;
    let caps = Caps { wall_ms: Some(60_000), ..Caps::default() };
    let (id, _) = engine.submit(Submission { caps, ..submission() }).await.unwrap();
    until(&engine, id, "at effect 2", |task| task.open.as_ref().is_some_and(|(_, intent)| intent.seq == 2)).await;
    house.pass(Duration::from_secs(59)).await;
    assert_eq!(task(&engine, id).await.status, Status::Running);
    house.pass(Duration::from_secs(2)).await;
    until(&engine, id, "over its time", |task| task.paused_for("budget")).await;
    house.world.release();
    let raise = Caps { wall_ms: Some(90_000), ..Caps::default() };
    engine.command(id, Command::Resume(Some(raise))).await.unwrap();
    ended(&engine, id).await;
    assert_eq!(house.world.counts(id), [1, 1, 1]);
}

/// A journal whose disk is as full as the test says.
struct Roomy {
    inner: Arc<MemJournal>,
    room: Mutex<Room>,
}

impl Journal for Roomy {
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        self.inner.append(records)
    }
    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        self.inner.read(from, limit)
    }
    fn state(&self) -> JournalState {
        JournalState { room: self.room.lock().unwrap().clone(), ..self.inner.state() }
    }
    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.checkpoint(through, image)
    }
    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        self.inner.restore()
    }
    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        self.inner.compact(needed)
    }
    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_full_disk_takes_what_is_under_way_and_begins_nothing() {
    let house = House::new();
    let journal = Arc::new(Roomy { inner: house.disk.journal(None), room: Mutex::new(Room::Ample) });
    let engine = house.engine_with(journal.clone(), Script { hang_at: Some(1), ..Script::effects(2) }).await;
    let (id, _) = engine.submit(submission()).await.unwrap();
    until(&engine, id, "at effect 1", |task| task.open.is_some()).await;
    *journal.room.lock().unwrap() = Room::Reserve;
    house.world.release();
    let paused = until(&engine, id, "paused", |task| task.paused_for("disk")).await;
    assert_eq!((house.world.counts(id), paused.open.is_none()), (vec![1, 0], true));
    let records = house.disk.records().len();
    house.pass(Duration::from_secs(60)).await;
    assert_eq!(house.disk.records().len(), records, "a full disk was written to");
    *journal.room.lock().unwrap() = Room::Ample;
    house.pass(Duration::from_secs(6)).await;
    ended(&engine, id).await;
    assert_eq!((house.world.counts(id), house.fired()), (vec![1, 1], 1));
}
