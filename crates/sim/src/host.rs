//! The machine's processes: keepers and their commands, and the directories of runs.
//!
//! Keepers live outside the daemon: its death does not touch them, theirs leaves the command without
//! a witness, the machine's ends all. They follow the order of the real keeper: lock, latch, gate,
//! command, trailer. Invariant: what `truth` tells of a run is what really happened, whatever anybody
//! recorded.

use crate::dice::{Dice, Topic};
use crate::hold;
use crate::stats::{Count, Stats};
use crate::time::{Job, Time};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tinkerbell_core::port::Ended;
use tinkerbell_core::words::{RunId, Seq};
use tinkerbell_executor::verdict::{Evidence, Verdict};
use tokio::sync::Notify;

/// What a command is told to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// Its task's name in the plan, and its number there: what its luck hangs on.
    pub name: (u64, u64),
    /// How long it works.
    pub ms: u64,
    /// Lines that it writes.
    pub lines: u64,
    /// Its exit code.
    pub code: i32,
}

impl Order {
    /// The text of the command.
    pub fn text(&self) -> String {
        format!("work {} {} {} {} {}", self.name.0, self.name.1, self.ms, self.lines, self.code)
    }

    /// Reads the text of a command.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("work ")?.split(' ');
        let mut next = || words.next()?.parse::<u64>().ok();
        let (task, number, ms, lines) = (next()?, next()?, next()?, next()?);
        Some(Self { name: (task, number), ms, lines, code: words.next()?.parse().ok()? })
    }

    /// One line of its output.
    pub fn line(&self, at: u64) -> String {
        format!("line {at} of {}.{}\n", self.name.0, self.name.1)
    }
}

/// What really happened to a run.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// How often its command began.
    pub begun: u32,
    /// Its end, where it reached one.
    pub ended: Option<Ended>,
    /// Its keeper was killed, or the machine died, before its end was on disk.
    pub witness_lost: bool,
    /// What it was told to do.
    pub order: Order,
    /// Whether its processes live.
    pub lives: bool,
}

/// A run: its directory, its keeper, its command.
#[derive(Debug, Default)]
pub struct Run {
    pub(crate) directory: bool,
    pub(crate) lock_boot: Option<u64>,
    /// The keeper that holds the lock.
    pub(crate) holder: Option<u32>,
    pub(crate) started: bool,
    pub(crate) trailer: Option<Ended>,
    pub(crate) lost: bool,
    /// Keepers that live; a second one is on its way where a start was tried again.
    pub(crate) keepers: Vec<u32>,
    pub(crate) output: Vec<u8>,
    pub(crate) shown: BTreeMap<Seq, u64>,
    pub(crate) began_ms: u64,
    pub(crate) truth: Truth,
}

#[derive(Default)]
struct State {
    boot: u64,
    noted_boot: Option<u64>,
    keepers: u32,
    runs: BTreeMap<RunId, Run>,
}

/// The processes of one machine.
pub struct Host {
    dice: Dice,
    time: Arc<Time>,
    stats: Arc<Mutex<Stats>>,
    state: Mutex<State>,
    /// Told when a run changes.
    pub news: Notify,
}

/// Stages of a keeper's life, in order.
const LOCK: u32 = 0;
const LATCH: u32 = 1;
const FIRST_LINE: u32 = 2;
const END: u32 = 1_000;
const TRAILER: u32 = 1_001;

impl Host {
    /// A machine without processes.
    pub fn new(dice: Dice, time: Arc<Time>, stats: Arc<Mutex<Stats>>) -> Self {
        Self { dice, time, stats, state: Mutex::default(), news: Notify::new() }
    }

    /// Looks at or changes a run.
    pub fn with<T>(&self, run: RunId, act: impl FnOnce(&mut Run) -> T) -> T {
        act(hold(&self.state).runs.entry(run).or_default())
    }

    /// Runs with a directory.
    pub fn runs(&self) -> Vec<RunId> {
        hold(&self.state).runs.iter().filter(|(_, run)| run.directory).map(|(id, _)| *id).collect()
    }

    /// The verdict on a run, as the real table gives it.
    pub fn verdict(&self, id: RunId) -> Verdict {
        let mut state = hold(&self.state);
        let boot = state.boot;
        let run = state.runs.entry(id).or_default();
        Verdict::of(Evidence {
            directory: run.directory,
            trailer: run.trailer.is_some(),
            held: run.holder.is_some(),
            begun: run.started || run.lost,
            other_boot: run.lock_boot.is_some_and(|of| of != boot),
        })
    }

    /// The verdict, after what a lost keeper left running was ended.
    pub fn settle(&self, id: RunId) -> Verdict {
        let verdict = self.verdict(id);
        if verdict == Verdict::Lost {
            self.with(id, |run| {
                if !run.lost {
                    run.truth.lives = false;
                    run.lost = true;
                }
            });
        }
        verdict
    }

    /// Which boot this is, from 0.
    pub fn boot(&self) -> u64 {
        hold(&self.state).boot
    }

    /// Whether the boot that is noted is another one.
    pub fn is_new_boot(&self) -> bool {
        let state = hold(&self.state);
        state.noted_boot.is_some_and(|noted| noted != state.boot)
    }

    /// Notes the boot: where none is noted, or anyway.
    pub fn note_boot(&self, anyway: bool) {
        let mut state = hold(&self.state);
        if anyway || state.noted_boot.is_none() {
            state.noted_boot = Some(state.boot);
        }
    }

    /// Starts a keeper; gives its number.
    pub fn spawn(&self, id: RunId, order: Order) -> u32 {
        let mut state = hold(&self.state);
        state.keepers += 1;
        let keeper = state.keepers;
        let run = state.runs.entry(id).or_default();
        run.keepers.push(keeper);
        run.truth.order = order;
        drop(state);
        self.go(id, keeper, LOCK, self.short(order, keeper, LOCK));
        keeper
    }

    fn short(&self, order: Order, keeper: u32, stage: u32) -> u64 {
        self.dice.between(0, 30, Topic::Keeper, &[order.name.0, order.name.1, u64::from(keeper), u64::from(stage)])
    }

    fn go(&self, id: RunId, keeper: u32, stage: u32, in_ms: u64) {
        self.time.plan(in_ms, Job::Keeper(id, keeper, stage));
    }

    /// One stage of a keeper's life.
    pub fn stage(&self, id: RunId, keeper: u32, stage: u32) {
        let now = self.time.now_ms();
        let mut state = hold(&self.state);
        let boot = state.boot;
        let Some(run) = state.runs.get_mut(&id).filter(|run| run.keepers.contains(&keeper)) else { return };
        let order = run.truth.order;
        let next = match stage {
            LOCK if !run.directory || run.holder.is_some() => None,
            LOCK => {
                (run.holder, run.lock_boot) = (Some(keeper), Some(boot));
                Some((LATCH, self.short(order, keeper, LATCH)))
            }
            // The latch: whoever comes second leaves, and so does who finds its directory gone.
            LATCH if run.started || run.lost || !run.directory => None,
            LATCH => {
                run.started = true;
                run.began_ms = now;
                run.truth.begun += 1;
                run.truth.lives = true;
                hold(&self.stats).one(Count::Exec);
                Some(if order.lines > 0 { (FIRST_LINE, order.ms / (order.lines + 1)) } else { (END, order.ms) })
            }
            END => {
                run.truth.lives = false;
                let ended = Ended { code: Some(order.code), wall_ms: now - run.began_ms, ..Ended::default() };
                run.truth.ended = Some(Ended { output_bytes: run.output.len() as u64, ..ended });
                Some((TRAILER, self.short(order, keeper, TRAILER)))
            }
            TRAILER => {
                run.trailer.clone_from(&run.truth.ended);
                None
            }
            line => {
                let at = u64::from(line - FIRST_LINE) + 1;
                run.output.extend_from_slice(order.line(at).as_bytes());
                let step = order.ms / (order.lines + 1);
                Some(if at < order.lines { (line + 1, step) } else { (END, step) })
            }
        };
        match next {
            Some((stage, in_ms)) => {
                drop(state);
                self.go(id, keeper, stage, in_ms);
            }
            None => run.leave(keeper),
        }
        self.news.notify_waiters();
    }

    /// A keeper ends its command because it was told to; `false` when none lives.
    pub fn cancel(&self, id: RunId) -> bool {
        let now = self.time.now_ms();
        let mut state = hold(&self.state);
        let Some(run) = state.runs.get_mut(&id) else { return false };
        let Some(keeper) = run.holder else { return false };
        if run.truth.ended.is_none() && run.started {
            run.truth.lives = false;
            let signal = Some(15);
            let (wall_ms, output_bytes) = (now - run.began_ms, run.output.len() as u64);
            run.truth.ended = Some(Ended { signal, wall_ms, output_bytes, cause: "cancelled".into(), ..Ended::default() });
            // A keeper's later stages of this command do not come any more.
            run.keepers.retain(|other| *other != keeper);
            let next = u32::MAX - keeper;
            run.keepers.push(next);
            run.holder = Some(next);
            drop(state);
            self.go(id, next, TRAILER, 20);
        }
        true
    }

    /// Takes a start back that has not begun; `false` when a keeper is there already.
    pub fn withdraw(&self, id: RunId) -> bool {
        self.with(id, |run| {
            if run.holder.is_some() || run.started {
                return false;
            }
            *run = Run { keepers: std::mem::take(&mut run.keepers), truth: std::mem::take(&mut run.truth), ..Run::default() };
            true
        })
    }

    /// A keeper dies; says whether there was one.
    pub fn kill_keeper(&self, pick: u64) -> bool {
        let mut state = hold(&self.state);
        let mut busy: Vec<&mut Run> = state.runs.values_mut().filter(|run| !run.keepers.is_empty()).collect();
        let count = busy.len().max(1) as u64;
        let Some(run) = busy.get_mut(usize::try_from(pick % count).unwrap_or(0)) else { return false };
        run.keepers.clear();
        run.holder = None;
        if run.trailer.is_none() && run.started {
            run.truth.witness_lost = true;
        }
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// The machine dies: all processes, and what of the directories did not reach the disk.
    pub fn cut(&self) {
        let mut state = hold(&self.state);
        state.boot += 1;
        let boot = state.boot;
        let mut at = 0;
        for run in state.runs.values_mut() {
            at += 1;
            run.keepers.clear();
            run.holder = None;
            run.truth.lives = false;
            // The trailer was synced, and everything before it in the directory with it.
            if run.trailer.is_some() || !run.directory {
                // The note of what was shown is not synced by anybody.
                run.shown.clear();
                continue;
            }
            if run.started {
                run.truth.witness_lost = true;
            }
            let lost = |what: u64| self.dice.hits(300, Topic::Runs, &[boot, at, what]);
            if lost(0) {
                let truth = std::mem::take(&mut run.truth);
                *run = Run { truth, ..Run::default() };
                hold(&self.stats).one(Count::LostRunFile);
                continue;
            }
            for (what, file) in (1..).zip([&mut run.started, &mut run.lost]) {
                if *file && lost(what) {
                    *file = false;
                    hold(&self.stats).one(Count::LostRunFile);
                }
            }
            if lost(3) {
                run.lock_boot = None;
            }
            let kept = self.dice.between(0, run.output.len() as u64, Topic::Runs, &[boot, at, 4]);
            run.output.truncate(usize::try_from(kept).unwrap_or(0));
            run.shown.clear();
        }
    }

    /// What really happened to one run.
    pub fn truth_of(&self, id: RunId) -> Truth {
        self.with(id, |run| run.truth.clone())
    }

    /// Runs whose processes live.
    pub fn living(&self) -> Vec<RunId> {
        hold(&self.state).runs.iter().filter(|(_, run)| run.truth.lives).map(|(id, _)| *id).collect()
    }

    /// Removes a run's directory.
    pub fn remove(&self, id: RunId) {
        self.with(id, |run| {
            let truth = std::mem::take(&mut run.truth);
            *run = Run { truth, ..Run::default() };
        });
    }
}

impl Run {
    fn leave(&mut self, keeper: u32) {
        self.keepers.retain(|other| *other != keeper);
        if self.holder == Some(keeper) {
            self.holder = None;
        }
    }
}
