//! One history: daemons come and go over one world until all is done and judged.
//!
//! Each daemon has a runtime of its own on this thread; dropping it is the kill. Time moves when that
//! runtime has nothing left to do. Invariant: the same plan gives the same history, to the last byte.

use crate::client;
use crate::daemon::{self, House};
use crate::dice::Topic;
use crate::disk::Trouble;
use crate::hold;
use crate::judge;
use crate::life::{Death, Life};
use crate::oracle::Violation;
use crate::plan::{FaultKind, Plan};
use crate::plant::Plant;
use crate::stats::{Count, Stats};
use crate::time::{Due, Job};
use crate::world::World;
use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::lifecycle::Task;

/// After the last planned thing everything must be done within this time.
const PATIENCE_MS: u64 = 12 * 3_600_000;
/// How long a daemon that stops in order waits for its drivers.
const STOP: Duration = Duration::from_secs(5);
/// More daemons than this in one history mean that none gets anywhere.
const LIVES: u32 = 400;
/// Things that may happen in one history.
const STEPS: u64 = 400_000;
/// How often somebody looks whether all is done.
const LOOK_MS: u64 = 5_000;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics of this thread be found instead of printed.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with(|slot| {
            slot.borrow_mut().get_or_insert(text);
        });
    }));
}

/// How a history went.
pub struct Outcome {
    /// What was found wrong.
    pub violation: Option<Violation>,
    /// What happened.
    pub stats: Stats,
    /// The last lines, where they were kept.
    pub lines: Vec<String>,
    /// The last records.
    pub events: String,
    /// A sum over all that happened; equal for equal histories.
    pub sum: u64,
}

/// How one daemon's time ended for the loop.
enum End {
    Died,
    Done,
    Failed,
}

/// What a history knows beside its world.
struct Course {
    world: Arc<World>,
    /// The death that waits in the next start.
    next_start: Mutex<Option<(u64, Death)>>,
    steps: Mutex<u64>,
    sum: Mutex<u64>,
}

/// Runs a history to its end.
pub fn run(plan: Plan, plant: Option<Plant>, verbose: bool) -> Outcome {
    let world = World::new(plan, plant, verbose);
    for (at, act) in world.plan.acts.iter().enumerate() {
        world.time.plan(act.at_ms, Job::Act(at));
    }
    for (at, fault) in world.plan.faults.iter().enumerate() {
        world.time.plan(fault.at_ms, Job::Fault(at));
    }
    for at in 0..world.plan.watchers {
        world.time.plan(10, Job::Watcher(at));
    }
    world.time.plan(1_000, Job::Person);
    world.time.plan(LOOK_MS, Job::Look);
    let course = Course { world: world.clone(), next_start: Mutex::default(), steps: Mutex::default(), sum: Mutex::default() };
    course.lives();
    if world.oracle.found().is_none() {
        judge::judge(&world);
    }
    let mut stats = hold(&world.stats).clone();
    stats.histories = 1;
    stats.crashed = u64::from(stats.deaths() > 0);
    stats.virtual_ms = world.time.now_ms();
    let sum = *hold(&course.sum) ^ world.oracle.count() as u64;
    Outcome { violation: world.oracle.found(), stats, lines: world.oracle.lines(), events: world.oracle.last_events(40), sum }
}

impl Course {
    fn lives(&self) {
        for number in 1..=LIVES {
            let life = Arc::new(Life::new(number));
            if let Some((touches, death)) = hold(&self.next_start).take() {
                life.arm(touches, death);
                self.world.count(Count::DeathInRecovery);
            }
            match self.one_life(&life) {
                End::Failed => return,
                End::Done => return self.last_start(),
                End::Died => {}
            }
            if !self.pause(number) {
                return;
            }
        }
        self.world.oracle.fail("no daemon stays", format!("{LIVES} daemons were started"));
    }

    /// Runs one daemon and clears up after its death.
    fn one_life(&self, life: &Arc<Life>) -> End {
        let idle = Arc::new(Idle::default());
        let Ok(runtime) = runtime(&self.world, life, idle.clone()) else {
            self.world.oracle.fail("no runtime", "tokio gave none");
            return End::Failed;
        };
        let end = runtime.block_on(self.live(life.clone(), idle));
        drop(runtime);
        if let Some(text) = PANIC.with(|slot| slot.borrow_mut().take()) {
            self.world.oracle.fail("panic", text);
            return End::Failed;
        }
        self.world.people.hang_up(&self.world);
        self.world.disk.unlock(life.number);
        match life.death() {
            Some(Death::Killed) => self.world.count(Count::Kill),
            Some(Death::PowerCut) => {
                self.world.count(Count::PowerCut);
                self.world.disk.cut();
                self.world.host.cut();
                self.world.time.boot();
            }
            Some(Death::Left) | None => {}
        }
        self.world.note(|| format!("daemon {} is gone: {:?}", life.number, life.death()));
        end
    }

    /// All is done: one more start must find the same.
    fn last_start(&self) {
        self.world.disk.trouble(|trouble| *trouble = Trouble::default());
        let life = Arc::new(Life::new(LIVES + 1));
        let idle = Arc::new(Idle::default());
        let Ok(runtime) = runtime(&self.world, &life, idle.clone()) else { return };
        let world = self.world.clone();
        let started = runtime.block_on(async {
            let start = tokio::spawn({
                let (world, life) = (world.clone(), life.clone());
                async move { daemon::start(&world, &life).await.map(drop) }
            });
            for _ in 0..STEPS {
                if start.is_finished() {
                    return start.await.ok();
                }
                idle.wait().await;
                match world.time.pop() {
                    Some(Due::Wake(sleeper)) => sleeper.wake(),
                    Some(Due::Do(_)) => {}
                    None if start.is_finished() => {}
                    None => return None,
                }
            }
            None
        });
        life.end(Death::Left);
        drop(runtime);
        if !matches!(started, Some(Ok(()))) {
            self.world.oracle.fail("last start fails", format!("{:?}", started.map(|started| started.err())));
        }
    }

    async fn live(&self, life: Arc<Life>, idle: Arc<Idle>) -> End {
        let world = &self.world;
        let house: Arc<Mutex<Option<House>>> = Arc::default();
        let done: Arc<AtomicBool> = Arc::default();
        tokio::spawn(boot(world.clone(), life.clone(), house.clone()));
        loop {
            idle.wait().await;
            if world.oracle.found().is_some() {
                return End::Failed;
            }
            if !life.is_alive() {
                return End::Died;
            }
            let Some(due) = self.pop() else { return End::Failed };
            let up = hold(&house).clone();
            match due {
                Due::Wake(sleeper) => sleeper.wake(),
                Due::Do(Job::Look) => {
                    if done.load(Ordering::Relaxed) {
                        life.end(Death::Left);
                        return End::Done;
                    }
                    up.into_iter().for_each(|up| drop(tokio::spawn(look(world.clone(), up, done.clone()))));
                    world.time.plan(LOOK_MS, Job::Look);
                }
                Due::Do(job) => self.happen(&job, Some(&life), up.as_ref()),
            }
        }
    }

    /// The world goes on without a daemon until somebody starts the next one.
    fn pause(&self, number: u32) -> bool {
        let world = &self.world;
        world.time.plan(world.dice.between(50, 5_000, Topic::Start, &[number.into()]), Job::Start);
        loop {
            let Some(due) = self.pop() else { return false };
            match due {
                Due::Wake(_) => {}
                Due::Do(Job::Start) => return true,
                Due::Do(Job::Look) => world.time.plan(LOOK_MS, Job::Look),
                Due::Do(job) => self.happen(&job, None, None),
            }
        }
    }

    /// The next thing that is due; none when the history goes on for too long.
    fn pop(&self) -> Option<Due> {
        let world = &self.world;
        let mut steps = hold(&self.steps);
        *steps += 1;
        let now = world.time.now_ms();
        if *steps > STEPS || now > world.plan.last_ms() + PATIENCE_MS {
            let open: Vec<String> = world.oracle.tasks().iter().filter(|task| task.is_open()).map(|t| format!("{:?}", t.status)).collect();
            world.oracle.fail("not done in time", format!("open tasks: {open:?}"));
            return None;
        }
        let due = world.time.pop();
        let mut sum = hold(&self.sum);
        *sum = sum.rotate_left(5).wrapping_add(world.time.now_ms()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        due
    }

    fn happen(&self, job: &Job, life: Option<&Arc<Life>>, house: Option<&House>) {
        let world = &self.world;
        match job {
            Job::Act(at) => {
                let verb = world.plan.acts.get(*at).map(|act| act.verb);
                verb.into_iter().for_each(|verb| client::act(world, house, *at, verb));
            }
            Job::Again(at, verb) => client::act(world, house, *at, *verb),
            Job::Fault(at) => {
                if let Some(fault) = world.plan.faults.get(*at) {
                    world.note(|| format!("fault: {:?}", fault.kind));
                    self.strike(fault.kind, life, house);
                    if fault.kind.lasts_ms() > 0 {
                        world.time.plan(fault.kind.lasts_ms(), Job::Heal(*at));
                    }
                }
            }
            Job::Heal(at) => self.heal(*at),
            Job::Keeper(run, keeper, stage) => world.host.stage(*run, *keeper, *stage),
            Job::Person => client::person(world, house),
            Job::Watcher(at) => client::watch(world, house, *at),
            Job::Look | Job::Start => {}
        }
    }

    fn strike(&self, kind: FaultKind, life: Option<&Arc<Life>>, house: Option<&House>) {
        let world = &self.world;
        let now = world.time.now_ms();
        match kind {
            FaultKind::Kill { touches } => life.into_iter().for_each(|life| life.arm(touches, Death::Killed)),
            FaultKind::PowerCut { touches } => life.into_iter().for_each(|life| life.arm(touches, Death::PowerCut)),
            FaultKind::KillStart { touches, power } => {
                let death = if power { Death::PowerCut } else { Death::Killed };
                *hold(&self.next_start) = Some((touches, death));
                // A start is needed for it.
                life.into_iter().for_each(|life| life.end(Death::Killed));
            }
            FaultKind::Stop => {
                if let Some(house) = house.cloned() {
                    world.count(Count::StoppedInOrder);
                    tokio::spawn(async move {
                        // What could not be written is found at the next start.
                        let _ended = house.engine.shutdown(STOP).await;
                        house.life.end(Death::Left);
                    });
                }
            }
            FaultKind::KeeperKill { pick } => {
                if world.host.kill_keeper(pick) {
                    world.count(Count::KeeperKill);
                }
            }
            FaultKind::SyncFails { times } => world.disk.trouble(|trouble| trouble.syncs = times),
            FaultKind::WriteFails { times } => world.disk.trouble(|trouble| trouble.writes = times),
            FaultKind::ReadFails { times } => world.disk.trouble(|trouble| trouble.reads = times),
            FaultKind::DiskFull { free, .. } => world.disk.trouble(|trouble| trouble.free = Some(free)),
            FaultKind::SlowDisk { each_ms, .. } => world.disk.trouble(|trouble| trouble.slow_ms = Some(each_ms)),
            FaultKind::NetDown { ms } => world.peer.net_down(now + ms),
            FaultKind::Throttle { ms } => world.peer.throttle(now + ms),
            FaultKind::ClockJump { by_ms } => {
                world.count(Count::ClockJump);
                world.time.jump(by_ms);
            }
        }
    }

    fn heal(&self, at: usize) {
        match self.world.plan.faults.get(at).map(|fault| fault.kind) {
            Some(FaultKind::DiskFull { .. }) => self.world.disk.trouble(|trouble| trouble.free = None),
            Some(FaultKind::SlowDisk { .. }) => self.world.disk.trouble(|trouble| trouble.slow_ms = None),
            _ => {}
        }
    }
}

/// Whether all is done: nothing planned is left, and no task is open or half operated.
async fn look(world: Arc<World>, house: House, done: Arc<AtomicBool>) {
    let quiet = world.time.now_ms() > world.plan.last_ms() && world.people.are_quiet(&world.plan);
    if quiet && let Ok(tasks) = client::tasks(&house).await {
        let rests = |task: &Task| !task.is_open() && task.open_op.is_none();
        // The engine's lists run ahead of the disk, so the ledger has to agree.
        let is_done = tasks.iter().chain(&world.oracle.tasks()).all(rests);
        done.store(house.life.is_alive() && is_done, Ordering::Relaxed);
    }
}

/// Starts the engine; a start that fails without an excuse is a finding.
async fn boot(world: Arc<World>, life: Arc<Life>, house: Arc<Mutex<Option<House>>>) {
    let started: Result<House, Fault> = daemon::start(&world, &life).await;
    if !life.is_alive() {
        return;
    }
    match started {
        Ok(up) => {
            world.disk.excuse();
            world.note(|| format!("daemon {} is up", life.number));
            *hold(&house) = Some(up.clone());
            for at in 0..world.plan.watchers {
                client::watch(&world, Some(&up), at);
            }
        }
        Err(fault) => {
            world.count(Count::StartRefused);
            world.note(|| format!("the start is refused: {fault}"));
            // No fault here damages what was synced, so nothing excuses a journal that is called corrupt.
            if !world.disk.excuse() || fault.code.0 == "TB-WAL-002" {
                world.oracle.fail("start refused", fault.to_string());
            }
            life.end(Death::Left);
        }
    }
}

/// Wakes the main loop when nothing else can run.
#[derive(Default)]
struct Idle {
    is_idle: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Idle {
    fn tell(&self) {
        self.is_idle.store(true, Ordering::Relaxed);
        if let Some(waker) = hold(&self.waker).take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.is_idle.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *hold(&self.waker) = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn runtime(world: &World, life: &Life, idle: Arc<Idle>) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.on_thread_park(move || idle.tell());
    seed(&mut builder, world.dice.roll(Topic::Runtime, &[u64::from(life.number)]));
    builder.build()
}

/// Without this flag of tokio some of its choices (branches of `select!`, the order in which `watch`
/// wakes) are its own, and a history can not be repeated exactly. `cargo xtask sim` sets it.
#[cfg(tokio_unstable)]
fn seed(builder: &mut tokio::runtime::Builder, seed: u64) {
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
}

#[cfg(not(tokio_unstable))]
const fn seed(_builder: &mut tokio::runtime::Builder, _seed: u64) {}
