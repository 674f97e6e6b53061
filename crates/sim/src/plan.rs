//! The plan of a history: who asks for what, and what goes wrong, as plain data.
//!
//! A plan is made from a seed and can be made smaller afterwards; parts keep their names, so that a
//! smaller plan has the same luck. Invariant: the same seed gives the same plan.

use crate::dice::{Dice, Stream, Topic};
use std::fmt;

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where its luck comes from.
    pub seed: u64,
    /// Tasks.
    pub tasks: Vec<TaskPlan>,
    /// What clients do.
    pub acts: Vec<ClientAct>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Watchers that leave and come back.
    pub watchers: usize,
    /// Small values make segments, batches and rolls frequent.
    pub segment_bytes: u64,
    /// Whether segments are filled ahead.
    pub preallocate: bool,
    /// What is kept for a full disk.
    pub reserve_bytes: u64,
    /// Whether payloads are sealed.
    pub sealed: bool,
    /// When tasks leave memory, and when the journal is looked after.
    pub upkeep: Upkeep,
    /// Tasks that may run at once.
    pub running: usize,
}

/// Small thresholds, so that little has to happen until something is done.
#[derive(Debug, Clone, Copy)]
pub struct Upkeep {
    /// A task at rest leaves memory after this long.
    pub rest_ms: u64,
    /// Tasks at rest that may stay.
    pub resting: usize,
    /// Records between checkpoints.
    pub records: u64,
    /// Growth that asks for compaction; 0 for never.
    pub compact_bytes: u64,
    /// Share of a segment, in percent, that must be dead.
    pub dead_percent: u8,
    /// History records of a task that are kept.
    pub history: u64,
}

/// A task.
#[derive(Debug, Clone)]
pub struct TaskPlan {
    /// Its name; stays when others are taken away.
    pub name: u64,
    /// When it is submitted.
    pub at_ms: u64,
    /// What it does, in order.
    pub deeds: Vec<Deed>,
    /// Its first cap.
    pub cap_nano: Option<u64>,
    /// How long after its submission it may begin.
    pub delay_ms: Option<u64>,
}

/// One effect of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Changes nothing; `big` ones have a result that goes to the blob store.
    Pure { big: bool },
    /// A message to a peer that joins repeats by their key.
    Send,
    /// A change that can be looked at.
    Look,
    /// A change that must not be repeated unasked.
    Unsafe,
    /// A command.
    Exec { ms: u64, lines: u64, yield_ms: u64 },
    /// A model call.
    Ask,
    /// A question to a person.
    Question,
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
pub struct ClientAct {
    /// When.
    pub at_ms: u64,
    /// To which task, by its name.
    pub task: u64,
    /// What.
    pub verb: Verb,
}

/// What clients can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Submit,
    Tell,
    Pause,
    Resume,
    Cancel,
    Priority,
    Undo,
    Redo,
    Restore,
    Land,
    Remove { force: bool },
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// When.
    pub at_ms: u64,
    /// What.
    pub kind: FaultKind,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The daemon is killed after so many touches of the world.
    Kill { touches: u64 },
    /// The machine dies after so many touches of the world.
    PowerCut { touches: u64 },
    /// The next start is killed after so many touches.
    KillStart { touches: u64, power: bool },
    /// The daemon is told to stop.
    Stop,
    /// A keeper is killed.
    KeeperKill { pick: u64 },
    /// So many syncs fail, as the kernel lets them fail.
    SyncFails { times: u64 },
    /// So many writes fail.
    WriteFails { times: u64 },
    /// So many reads fail.
    ReadFails { times: u64 },
    /// Only so many bytes are free for a time.
    DiskFull { free: u64, ms: u64 },
    /// Each sync takes this long for a time.
    SlowDisk { each_ms: u64, ms: u64 },
    /// Messages are lost for a time.
    NetDown { ms: u64 },
    /// The provider refuses for a time.
    Throttle { ms: u64 },
    /// The wall clock jumps.
    ClockJump { by_ms: i64 },
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Dice::new(seed).stream();
        let horizon_ms = chance.scaled(20_000, 4 * 3_600_000);
        let tasks: Vec<TaskPlan> = (0..chance.between(1, 4)).map(|name| task(&mut chance, name, horizon_ms)).collect();
        let mut acts: Vec<ClientAct> =
            tasks.iter().map(|task| ClientAct { at_ms: task.at_ms, task: task.name, verb: Verb::Submit }).collect();
        for task in &tasks {
            for _ in 0..chance.between(0, 3) {
                let at_ms = task.at_ms + chance.scaled(1, horizon_ms);
                acts.push(ClientAct { at_ms, task: task.name, verb: verb(&mut chance) });
            }
        }
        let faults = faults(&mut chance, horizon_ms);
        Self {
            seed,
            tasks,
            acts,
            faults,
            watchers: usize::try_from(chance.between(0, 3)).unwrap_or(0),
            segment_bytes: chance.scaled(3_000, 200_000),
            preallocate: chance.hits(500),
            reserve_bytes: if chance.hits(700) { chance.scaled(4_096, 60_000) } else { 0 },
            upkeep: upkeep(&mut chance),
            sealed: Dice::new(seed).hits(500, Topic::Plan, &[0]),
            running: usize::try_from(chance.between(1, 4)).unwrap_or(1),
        }
    }

    /// The task of this name.
    pub fn task(&self, name: u64) -> Option<&TaskPlan> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// When the last planned thing happens.
    pub fn last_ms(&self) -> u64 {
        let faults = self.faults.iter().map(|fault| fault.at_ms + fault.kind.lasts_ms());
        self.acts.iter().map(|act| act.at_ms).chain(faults).max().unwrap_or(0)
    }
}

impl FaultKind {
    /// How long it lasts; 0 for those that strike once.
    pub const fn lasts_ms(self) -> u64 {
        match self {
            Self::DiskFull { ms, .. } | Self::SlowDisk { ms, .. } | Self::NetDown { ms } | Self::Throttle { ms } => ms,
            _ => 0,
        }
    }
}

fn upkeep(chance: &mut Stream) -> Upkeep {
    Upkeep {
        rest_ms: chance.scaled(100, 120_000),
        resting: usize::try_from(chance.between(0, 3)).unwrap_or(0),
        records: chance.scaled(5, 400),
        compact_bytes: if chance.hits(800) { chance.scaled(500, 60_000) } else { 0 },
        dead_percent: u8::try_from(chance.between(0, 60)).unwrap_or(0),
        history: chance.scaled(4, 2_000),
    }
}

fn task(chance: &mut Stream, name: u64, horizon_ms: u64) -> TaskPlan {
    let deeds = (0..chance.between(1, 6)).map(|_| deed(chance)).collect();
    let cap_nano = chance.hits(300).then(|| chance.between(50, 400));
    let delay_ms = chance.hits(150).then(|| chance.scaled(10, horizon_ms));
    TaskPlan { name, at_ms: chance.between(0, horizon_ms / 2), deeds, cap_nano, delay_ms }
}

fn deed(chance: &mut Stream) -> Deed {
    match chance.between(0, 99) {
        0..=11 => Deed::Pure { big: chance.hits(250) },
        12..=25 => Deed::Send,
        26..=41 => Deed::Look,
        42..=54 => Deed::Unsafe,
        55..=77 => Deed::Exec { ms: chance.scaled(5, 300_000), lines: chance.between(0, 3), yield_ms: chance.scaled(250, 30_000) },
        78..=92 => Deed::Ask,
        _ => Deed::Question,
    }
}

fn verb(chance: &mut Stream) -> Verb {
    match chance.between(0, 99) {
        0..=24 => Verb::Tell,
        25..=39 => Verb::Pause,
        40..=49 => Verb::Resume,
        50..=61 => Verb::Cancel,
        62..=64 => Verb::Priority,
        65..=74 => Verb::Undo,
        75..=79 => Verb::Redo,
        80..=84 => Verb::Restore,
        85..=91 => Verb::Land,
        _ => Verb::Remove { force: chance.hits(500) },
    }
}

fn faults(chance: &mut Stream, horizon_ms: u64) -> Vec<Fault> {
    // Not every history has every kind: where everything fails at once, little is ever done.
    let crashy = chance.between(200, 1_000);
    let kinds: Vec<u64> = (0..chance.between(1, 4)).map(|_| chance.between(0, 9)).collect();
    let mut found = Vec::new();
    for _ in 0..chance.between(1, 7) {
        let pick = chance.between(0, 63);
        let kind = if chance.hits(crashy) { crash(chance) } else { trouble(chance, kinds.get(pick as usize % kinds.len()).copied()) };
        found.push(Fault { at_ms: chance.between(0, horizon_ms), kind });
    }
    found
}

fn crash(chance: &mut Stream) -> FaultKind {
    let touches = chance.scaled(1, 400);
    match chance.between(0, 99) {
        0..=44 => FaultKind::Kill { touches },
        45..=69 => FaultKind::PowerCut { touches },
        70..=84 => FaultKind::KillStart { touches: chance.scaled(1, 60), power: chance.hits(400) },
        85..=92 => FaultKind::KeeperKill { pick: chance.between(0, 9) },
        _ => FaultKind::Stop,
    }
}

fn trouble(chance: &mut Stream, kind: Option<u64>) -> FaultKind {
    match kind.unwrap_or(0) {
        0 => FaultKind::KeeperKill { pick: chance.between(0, 9) },
        1 => FaultKind::SyncFails { times: chance.scaled(1, 4) },
        2 => FaultKind::WriteFails { times: chance.scaled(1, 3) },
        3 => FaultKind::ReadFails { times: chance.scaled(1, 3) },
        4 => FaultKind::DiskFull { free: chance.scaled(1, 6_000), ms: chance.scaled(100, 600_000) },
        5 => FaultKind::SlowDisk { each_ms: chance.scaled(50, 20_000), ms: chance.scaled(1_000, 300_000) },
        6 => FaultKind::NetDown { ms: chance.scaled(1_000, 300_000) },
        7 => FaultKind::Throttle { ms: chance.scaled(1_000, 3_600_000) },
        8 => FaultKind::Stop,
        _ => {
            let by_ms = i64::try_from(chance.scaled(1_000, 400 * 86_400_000)).unwrap_or(0);
            FaultKind::ClockJump { by_ms: if chance.hits(500) { by_ms } else { -(by_ms / 4) } }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for task in &self.tasks {
            writeln!(f, "  task {} does {:?}, cap {:?}, delay {:?}", task.name, task.deeds, task.cap_nano, task.delay_ms)?;
        }
        for act in &self.acts {
            writeln!(f, "  {:>9} ms  {:?} task {}", act.at_ms, act.verb, act.task)?;
        }
        for fault in &self.faults {
            writeln!(f, "  {:>9} ms  {:?}", fault.at_ms, fault.kind)?;
        }
        write!(
            f,
            "  {:?}\n  segments of {} bytes, filled ahead: {}, sealed: {}, {} in reserve, {} tasks at once, {} watchers",
            self.upkeep, self.segment_bytes, self.preallocate, self.sealed, self.reserve_bytes, self.running, self.watchers
        )
    }
}
