//! One daemon: the real engine on the real journal, wired to the simulated world.
//!
//! Invariant: right after its start the engine knows exactly what the ledger adds up to.

use crate::acts::Acts;
use crate::blobs::LifeBlobs;
use crate::client;
use crate::dice::Topic;
use crate::files::LifeDisk;
use crate::journal::{SimJournal, flush, read};
use crate::life::{Death, Life};
use crate::plant::Plant;
use crate::runner::SimRunner;
use crate::sandbox::SimSandbox;
use crate::stats::Count;
use crate::time::SimClock;
use crate::world::World;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{
    Canvas, Checkpoint, Difference, Journal as _, Kept, Keyring, MicroCommit, OpenSpec, Opened, Runtime as _, Sandbox, SealKey,
};
use tinkerbell_core::words::{GitId, Lsn, Subject, Workspace};
use tinkerbell_scheduler::{Deps, Engine, Options};
use tinkerbell_testkit::fake::SeedEntropy;
use tinkerbell_wal::Wal;
use tokio::sync::Notify;

/// Records read at once.
const CHUNK: usize = 512;

/// A daemon that serves.
#[derive(Clone)]
pub struct House {
    /// The engine.
    pub engine: Engine,
    /// Whose it is.
    pub life: Arc<Life>,
}

/// Starts a daemon as the roof does it.
pub async fn start(world: &Arc<World>, life: &Arc<Life>) -> Result<House, Fault> {
    let clock = Arc::new(SimClock { time: world.time.clone(), life: life.clone() });
    life.pass().await;
    if world.plant == Some(Plant::DroppedTail) {
        drop_tail(world);
    }
    let journal = open_journal(world, life, &clock)?;
    tokio::spawn(flush(journal.clone(), clock.clone()));
    check_journal(world, &journal).await?;
    let sandbox: Arc<dyn Sandbox> = Arc::new(SimSandbox {
        host: world.host.clone(),
        life: life.clone(),
        clock: clock.clone(),
        dice: world.dice,
        plant: world.plant,
        is_new_boot: AtomicBool::new(world.host.is_new_boot()),
    });
    let tools = tinkerbell_executor::tools::all(sandbox.clone());
    let acts = Arc::new(Acts { world: world.clone(), life: life.clone(), clock: clock.clone(), sandbox: sandbox.clone(), tools });
    let deps = Deps {
        journal,
        blobs: Arc::new(LifeBlobs { world: world.clone(), life: life.clone(), clock: clock.clone() }),
        runner: Arc::new(SimRunner { world: world.clone(), acts, sandbox }),
        canvas: Arc::new(NoCanvas),
        clock,
        entropy: entropy(world, life, 1),
        admission: Arc::new(|submission| async { Ok(submission) }.boxed()),
        halt: Arc::new(|| None),
    };
    let engine = Engine::open(deps, options(world)).await?;
    let house = House { engine, life: life.clone() };
    if life.is_alive() {
        check_tasks(world, &house);
    }
    world.count(Count::Start);
    tokio::spawn(leave_when_broken(world.clone(), house.clone()));
    Ok(house)
}

fn options(world: &World) -> Options {
    let upkeep = world.plan.upkeep;
    Options {
        running: world.plan.running,
        watch_slots: 16,
        boot: u128::from(world.host.boot()) + 1,
        rest_after: Duration::from_millis(upkeep.rest_ms),
        resting: upkeep.resting,
        checkpoint_records: upkeep.records,
        compact_bytes: upkeep.compact_bytes,
        history: upkeep.history,
        ..Options::default()
    }
}

fn entropy(world: &World, life: &Life, what: u64) -> Arc<SeedEntropy> {
    Arc::new(SeedEntropy::new(world.dice.roll(Topic::Ids, &[u64::from(life.number), what])))
}

fn open_journal(world: &Arc<World>, life: &Arc<Life>, clock: &Arc<SimClock>) -> Result<Arc<SimJournal>, Fault> {
    let (disk, preallocate) = (world.disk.clone(), world.plan.preallocate);
    let disk = LifeDisk { disk, life: life.clone(), preallocate, plant: world.plant };
    let options = tinkerbell_wal::Options {
        segment_bytes: world.plan.segment_bytes,
        reserve_bytes: world.plan.reserve_bytes,
        compact_dead_percent: world.plan.upkeep.dead_percent,
        boot_id: (u128::from(world.host.boot()) + 1).to_be_bytes(),
        ..tinkerbell_wal::Options::new("/simulated")
    };
    let keyring = world.plan.sealed.then(|| Arc::new(Keys) as Arc<dyn Keyring>);
    let wal = Wal::open_stepped(Arc::new(disk), &options, clock.clone(), entropy(world, life, 0), keyring)?;
    Ok(Arc::new(SimJournal { wal, world: world.clone(), life: life.clone(), work: Arc::new(Notify::new()) }))
}

/// A keyring that never loses a key, so that only the sealing itself is tried.
struct Keys;

impl Keyring for Keys {
    fn of(&self, subject: Subject) -> Result<SealKey, Fault> {
        self.find(subject.0 + 1)
    }

    fn find(&self, id: u32) -> Result<SealKey, Fault> {
        let mut secret = [7; 32];
        secret.iter_mut().zip(id.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        Ok(SealKey { id, secret })
    }
}

/// Reads the whole journal and gives it to the oracle.
async fn check_journal(world: &Arc<World>, journal: &SimJournal) -> Result<(), Fault> {
    let mut all = Vec::new();
    let mut from = Lsn(1);
    loop {
        let records = journal.read(from, CHUNK).await?;
        let Some(last) = records.last() else { break };
        from = last.lsn.next();
        for record in records {
            let placed = read(world, &record);
            all.push((record, placed));
        }
    }
    world.oracle.reopened(all);
    Ok(())
}

/// The engine's tasks against those of the ledger. Its drivers have not run yet.
fn check_tasks(world: &Arc<World>, house: &House) {
    let mut wanted: Vec<Task> = world.oracle.tasks().into_iter().filter(|task| task.status != Status::Removed).collect();
    let Some(Ok(mut found)) = whole(house).now_or_never() else {
        // It may have died over it.
        if house.life.is_alive() && !world.disk.excuse() {
            world.oracle.fail("no list", "the engine does not tell its tasks right after its start");
        }
        return;
    };
    // A deadline is shown in the wall time of now, which may have jumped since it was set.
    // The text of a question that was answered stands in its record alone once the task has rested.
    for task in wanted.iter_mut().chain(&mut found) {
        task.timer.iter_mut().for_each(|timer| timer.due_wall_ms = 0);
        let answered = task.approvals.values_mut().filter(|approval| approval.answer.is_some());
        answered.for_each(|approval| (approval.asked.body, approval.asked.options) = (String::new(), Vec::new()));
    }
    wanted.sort_by_key(|task| task.id);
    found.sort_by_key(|task| task.id);
    let differs = wanted.iter().zip(&found).find(|(wanted, found)| wanted != found);
    if let Some((wanted, found)) = differs {
        world.oracle.fail("recovered task differs", difference(wanted, found));
    } else if wanted.len() != found.len() {
        world.oracle.fail("recovered tasks differ", format!("the ledger has {} tasks, the engine {}", wanted.len(), found.len()));
    }
}

/// The lines in which two tasks differ.
fn difference(wanted: &Task, found: &Task) -> String {
    let (wanted, found) = (format!("{wanted:#?}"), format!("{found:#?}"));
    let lines = wanted.lines().filter(|line| !found.contains(line)).map(|line| format!("- {}", line.trim()));
    let others = found.lines().filter(|line| !wanted.contains(line)).map(|line| format!("+ {}", line.trim()));
    let all: Vec<String> = lines.chain(others).collect();
    format!("the ledger has -, the engine +\n{}", all.join("\n"))
}

/// All tasks, each with all of its operations.
async fn whole(house: &House) -> Result<Vec<Task>, Fault> {
    let mut found = Vec::new();
    for task in client::tasks(house).await? {
        found.push(house.engine.get(&task.id.to_string()).await?.task);
    }
    Ok(found)
}

/// A journal that takes no more records ends the daemon; the next one replays it.
async fn leave_when_broken(world: Arc<World>, house: House) {
    let fault = house.engine.broken().await;
    if house.life.is_alive() {
        world.note(|| format!("the daemon leaves: {fault}"));
        house.life.end(Death::Left);
    }
}

/// The planted bug: the journal loses its end before it is opened.
fn drop_tail(world: &World) {
    let mut names: Vec<String> = world.disk.list().into_iter().filter(|name| name.ends_with(".wal")).collect();
    names.sort();
    for name in names.iter().rev() {
        let Ok(id) = world.disk.find(name) else { continue };
        match world.disk.size(id) {
            Ok(size) if size > 4_096 + 200 => {
                drop(world.disk.truncate(id, size - 120));
                return;
            }
            _ => {}
        }
    }
}

/// The engine asks the canvas for diffs alone, which no client of this world wants.
struct NoCanvas;

fn none<T>() -> BoxFuture<'static, Result<T, Fault>> {
    async { Err(Fault::new("TB-CANVAS-001", exit::FAILED, "no canvas here")) }.boxed()
}

impl Canvas for NoCanvas {
    fn open(&self, _: OpenSpec) -> BoxFuture<'_, Result<Opened, Fault>> {
        none()
    }
    fn checkpoint(&self, _: Workspace, _: Option<Kept>) -> BoxFuture<'_, Result<Checkpoint, Fault>> {
        none()
    }
    fn restore(&self, _: Workspace, _: GitId) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn commit(&self, _: Workspace, _: MicroCommit) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn diff(&self, _: Workspace, _: GitId, _: GitId, _: bool) -> BoxFuture<'_, Result<Difference, Fault>> {
        none()
    }
    fn tip(&self, _: Workspace) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn remove(&self, _: Workspace) -> BoxFuture<'_, Result<(), Fault>> {
        none()
    }
}
