//! People: clients that ask, watchers that look, and one person who answers.
//!
//! What a client was told is held against the ledger at once. A client whose daemon dies never hears;
//! a submission is then made again under its key. Invariant: what a dead daemon says reaches nobody.

use crate::daemon::House;
use crate::dice::Topic;
use crate::hold;
use crate::plan::{Plan, Verb};
use crate::stats::Count;
use crate::time::Job;
use crate::world::World;
use futures_util::StreamExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::{Caps, Event, Observation};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{Command, Given, ListQuery, Runtime as _, Seen, Submission};
use tinkerbell_core::words::{Lsn, Priority, TaskId};
use tokio::task::JoinHandle;

/// Longest pause of a client before it asks again.
const AGAIN_MS: u64 = 8_000;

/// A person does not wait longer than this for a task that is to go on by itself.
const LONG_MS: u64 = 4 * 3_600_000;

/// A watcher's memory.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Whose events; `None` for all.
    pub task: Option<TaskId>,
    /// Where it began.
    pub since: Lsn,
    /// What it saw last.
    pub last: Lsn,
    /// All that it saw.
    pub seen: Vec<u64>,
}

/// What people remember.
#[derive(Default)]
pub struct People {
    tasks: Mutex<BTreeMap<u64, TaskId>>,
    /// Requests on their way, by their act; they die with the daemon.
    open: Mutex<BTreeMap<usize, Verb>>,
    /// Acts that are to be tried again.
    waiting: Mutex<BTreeSet<usize>>,
    answering: Mutex<BTreeSet<TaskId>>,
    watched: Mutex<Vec<Watched>>,
    watching: Mutex<Vec<Option<JoinHandle<()>>>>,
}

impl People {
    /// People of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self { watched: Mutex::new(vec![Watched::default(); plan.watchers]), ..Self::default() }
    }

    /// The task that a client was told about.
    pub fn task(&self, name: u64) -> Option<TaskId> {
        hold(&self.tasks).get(&name).copied()
    }

    /// Whether every task of the plan was accepted and no request is on its way.
    pub fn are_quiet(&self, plan: &Plan) -> bool {
        let accepted = plan.acts.iter().filter(|act| act.verb == Verb::Submit).all(|act| self.task(act.task).is_some());
        accepted && hold(&self.open).is_empty() && hold(&self.waiting).is_empty()
    }

    /// Memories of all watchers.
    pub fn watched(&self) -> Vec<Watched> {
        hold(&self.watched).clone()
    }

    /// Lets an act be tried again.
    fn again(&self, world: &World, in_ms: u64, at: usize, verb: Verb) {
        hold(&self.waiting).insert(at);
        world.time.plan(in_ms, Job::Again(at, verb));
    }

    /// The daemon is gone; what was on its way is asked again where that is safe.
    pub fn hang_up(&self, world: &World) {
        for (at, verb) in std::mem::take(&mut *hold(&self.open)) {
            if verb == Verb::Submit {
                self.again(world, world.dice.between(1, AGAIN_MS, Topic::Person, &[at as u64]), at, verb);
            }
        }
        hold(&self.answering).clear();
        hold(&self.watching).clear();
    }
}

/// Does a client's act, or has it done later.
pub fn act(world: &Arc<World>, house: Option<&House>, at: usize, verb: Verb) {
    let Some(act) = world.plan.acts.get(at) else { return };
    hold(&world.people.waiting).remove(&at);
    let known = world.people.task(act.task);
    let (Some(house), true) = (house, verb == Verb::Submit || known.is_some()) else {
        // No daemon, or nothing to speak about yet.
        if verb == Verb::Submit || world.time.now_ms() < world.plan.last_ms() {
            let in_ms = world.dice.between(500, AGAIN_MS, Topic::Person, &[at as u64, world.time.now_ms()]);
            world.people.again(world, in_ms, at, verb);
        }
        return;
    };
    hold(&world.people.open).insert(at, verb);
    let (world, house, name) = (world.clone(), house.clone(), act.task);
    tokio::spawn(async move {
        let again = match (verb, known) {
            (Verb::Submit, _) => submit(&world, &house, name).await,
            (_, Some(id)) => {
                command(&world, &house, id, (at, verb)).await;
                false
            }
            _ => false,
        };
        if house.life.is_alive() {
            hold(&world.people.open).remove(&at);
            if again {
                world.people.again(&world, AGAIN_MS, at, verb);
            }
        }
    });
}

/// Submits a task; says whether to try again.
async fn submit(world: &Arc<World>, house: &House, name: u64) -> bool {
    let Some(task) = world.plan.task(name) else { return false };
    let submission = Submission {
        goal: format!("task {name}"),
        cwd: "/".into(),
        model: "sim/model".into(),
        caps: Caps { nano_usd: task.cap_nano, ..Caps::default() },
        idempotency_key: Some(format!("key {name}")),
        uid: u32::try_from(name % 2).unwrap_or(0) + 1_000,
        delay_ms: task.delay_ms,
        ..Submission::default()
    };
    let result = house.engine.submit(submission).await;
    if !house.life.is_alive() {
        return false;
    }
    match result {
        Ok((id, lsn)) => {
            world.note(|| format!("task {name} is {} at {lsn}", id.short(6)));
            world.oracle.acknowledged(id, "the submission", |event| matches!(event, Event::Submitted(_)));
            if hold(&world.people.tasks).insert(name, id).is_some_and(|other| other != id) {
                world.oracle.fail("one key, two tasks", format!("task {name} is told to be another one"));
            }
            world.count(Count::Submitted);
            false
        }
        Err(fault) => {
            refused(world, "submit", &fault);
            true
        }
    }
}

/// Refusals are fine; defects are not.
fn refused(world: &World, what: &str, fault: &Fault) {
    world.note(|| format!("{what} is refused: {fault}"));
    if matches!(fault.code.0, "TB-BUG-001" | "TB-SCHED-001" | "TB-SCHED-003") {
        world.oracle.fail("a defect was told", format!("{what}: {fault}"));
    }
}

async fn command(world: &Arc<World>, house: &House, id: TaskId, (at, verb): (usize, Verb)) {
    let text = format!("word {at}");
    let command = match verb {
        Verb::Tell => Command::Tell(text.clone()),
        Verb::Pause => Command::Pause,
        Verb::Resume => Command::Resume(None),
        Verb::Cancel => Command::Cancel,
        Verb::Priority => Command::Priority(if at % 2 == 0 { Priority::Interactive } else { Priority::Batch }),
        Verb::Undo => Command::Undo { all: at % 3 == 0 },
        Verb::Redo => Command::Redo,
        Verb::Restore => Command::Restore { op: u32::try_from(at % 3).unwrap_or(0) },
        Verb::Land => Command::Land { branch: None, message: String::new() },
        Verb::Remove { force } => Command::Remove { force },
        Verb::Submit => return,
    };
    let told = house.engine.command(id, command).await;
    if !house.life.is_alive() {
        return;
    }
    world.count(Count::Command);
    match told {
        Ok(line) => {
            world.note(|| format!("{verb:?} of {}: {line}", id.short(6)));
            acknowledged(world, id, verb, (&text, &line));
        }
        Err(fault) => refused(world, &format!("{verb:?}"), &fault),
    }
}

fn acknowledged(world: &World, id: TaskId, verb: Verb, (text, line): (&str, &str)) {
    match verb {
        Verb::Tell => {
            world.oracle.acknowledged(id, "a word", |event| matches!(event, Event::Signal(s) if s.kind == "tell" && s.text == text))
        }
        Verb::Pause if line == "paused" => world.oracle.halted(id, false),
        Verb::Cancel if line == "stopped" => world.oracle.halted(id, true),
        Verb::Undo | Verb::Redo | Verb::Restore | Verb::Land | Verb::Remove { .. } => {
            for line in line.lines() {
                let is = |event: &Event| matches!(event, Event::Observed(o) if matches!(&o.observation, Some(Observation::Operated(done)) if done.text == line));
                world.oracle.acknowledged(id, "an operation", is);
            }
        }
        _ => {}
    }
}

/// A person looks at what waits: answers questions, lets tasks go on, raises limits.
pub fn person(world: &Arc<World>, house: Option<&House>) {
    let over = world.time.now_ms() > world.plan.last_ms();
    let now = world.time.now_ms();
    let next = if over { 5_000 } else { world.dice.between(2_000, 300_000, Topic::Person, &[now]) };
    world.time.plan(next, Job::Person);
    if let Some(house) = house.cloned() {
        let world = world.clone();
        tokio::spawn(async move { look(&world, &house, over).await });
    }
}

/// All tasks of an engine, page by page.
pub async fn tasks(house: &House) -> Result<Vec<Task>, Fault> {
    let mut found = Vec::new();
    let mut query = ListQuery { limit: 2, ..ListQuery::default() };
    loop {
        let page = house.engine.list(query).await?;
        found.extend(page.tasks.into_iter().map(|listed| listed.task));
        match page.before {
            Some(before) if found.len() < 1_000 => query.before = Some(before),
            _ => return Ok(found),
        }
    }
}

async fn look(world: &Arc<World>, house: &House, over: bool) {
    let tasks = match tasks(house).await {
        Ok(tasks) => tasks,
        Err(fault) => return refused(world, "a list", &fault),
    };
    for task in tasks {
        let Some(word) = word_for(world, &task, over) else { continue };
        if !hold(&world.people.answering).insert(task.id) {
            continue;
        }
        let (world, house) = (world.clone(), house.clone());
        tokio::spawn(async move {
            let answers = if let Command::Answer(given) = &word { Some(given.id) } else { None };
            let told = house.engine.command(task.id, word).await;
            if !house.life.is_alive() {
                return;
            }
            hold(&world.people.answering).remove(&task.id);
            world.count(Count::Answer);
            match (told, answers) {
                (Ok(_), Some(id)) => {
                    world.oracle.acknowledged(task.id, "an answer", |event| matches!(event, Event::ApprovalGiven(given) if given.id == id));
                }
                (Ok(_), None) => {}
                (Err(fault), _) => refused(&world, "a person's word", &fault),
            }
        });
    }
}

fn word_for(world: &World, task: &Task, over: bool) -> Option<Command> {
    let luck = |what: u64| world.dice.roll(Topic::Person, &[world.name_of(task), what, world.time.now_ms()]) % 100;
    if let Some(waiting) = task.waiting_for() {
        let id = waiting.asked.id;
        return Some(Command::Answer(Given { id, yes: luck(1) < 60, text: "so be it".into(), uid: 1_000, ..Given::default() }));
    }
    if task.cancelling && over && task.is_open() {
        return Some(Command::Cancel);
    }
    let Status::Paused { why, .. } = &task.status else { return None };
    if !over && luck(2) < 60 {
        return None;
    }
    // What has a time goes on by itself then; a clock that was set back between two boots may have
    // made that a time that nobody waits for.
    let left_ms = task.timer.as_ref().map(|timer| timer.due_wall_ms.saturating_sub(world.time.stamp().wall_ms));
    if left_ms.is_some_and(|left_ms| left_ms < LONG_MS && (over || luck(3) < 80)) {
        return None;
    }
    if why == "budget" {
        let more = task.caps.nano_usd.unwrap_or(0) + 500;
        return Some(Command::Resume(Some(Caps { nano_usd: Some(more), ..Caps::default() })));
    }
    Some(Command::Resume(None))
}

/// A watcher comes, or leaves and comes back where it was.
pub fn watch(world: &Arc<World>, house: Option<&House>, at: usize) {
    let now = world.time.now_ms();
    if now <= world.plan.last_ms() {
        world.time.plan(world.dice.between(1_000, 600_000, Topic::Person, &[at as u64, now, 7]), Job::Watcher(at));
    }
    let Some(house) = house else { return };
    let mut watching = hold(&world.people.watching);
    if watching.len() <= at {
        watching.resize_with(at + 1, || None);
    }
    let Some(slot) = watching.get_mut(at) else { return };
    if let Some(before) = slot.take() {
        before.abort();
    }
    *slot = Some(tokio::spawn(follow(world.clone(), house.clone(), at)));
}

async fn follow(world: Arc<World>, house: House, at: usize) {
    let (task, after) = {
        let mut watched = hold(&world.people.watched);
        let Some(memory) = watched.get_mut(at) else { return };
        if at > 0 && memory.task.is_none() && memory.seen.is_empty() {
            memory.task = hold(&world.people.tasks).values().nth(at - 1).copied();
        }
        (memory.task, memory.last)
    };
    let mut stream = house.engine.watch(task, after);
    while let Some(seen) = stream.next().await {
        house.life.pass().await;
        match seen {
            Ok(Seen::Event(event)) => {
                world.count(Count::Watched);
                let mut watched = hold(&world.people.watched);
                let Some(memory) = watched.get_mut(at) else { return };
                if event.lsn <= memory.last {
                    world.oracle.fail("watcher sees twice", format!("record {} after {}", event.lsn, memory.last));
                }
                memory.last = event.lsn;
                memory.seen.push(event.lsn.0);
            }
            Ok(_) => {}
            Err(fault) => return refused(&world, "watching", &fault),
        }
    }
}
