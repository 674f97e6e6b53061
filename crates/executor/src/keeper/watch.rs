//! The keeper's own watch of what its command uses, with everything that it started.
//!
//! Where the kernel counts and walls (control groups) it only reads; elsewhere it looks at `/proc` and
//! at the directories, seldom enough to stay below a fiftieth of one processor. Invariant: what is
//! over a limit is told once, with the number and the limit, and the figures outlive the keeper.

use crate::disk::{self, Taken};
use crate::format::{Spent, VERSION};
use crate::groups::Groups;
use crate::ledger::Ledger;
use crate::memory::{self, Held};
use crate::process::{self, Stat, mono_ms, wall_ms};
use crate::wire::{CellLevel, Order};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use tinkerbell_core::amount::{bytes, span};
use tinkerbell_core::port::Limits;

/// Between two looks, in milliseconds: usually, near a limit that only the watch keeps, at most.
const PERIOD_MS: (u64, u64, u64) = (200, 25, 1_000);
/// A look may take this part of the time between two.
const SHARE: u64 = 50;
/// Figures are noted for others at least after so much more CPU time, or after this time.
const NOTE_MS: (u64, u64) = (50, 1_000);
/// Growth of the file system below which nobody looks closer.
const GROWTH: u64 = 1 << 20;
/// Between two walks at most, where something may hide its growth behind others' removals.
const WALK_MS: u64 = 10_000;

/// A limit that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// `memory`, `processes`, `cpu` or `disk`.
    pub cause: &'static str,
    /// The numbers, in words.
    pub why: String,
}

/// The watch over one command.
pub struct Watch {
    limits: Limits,
    /// The kernel's groups.
    pub groups: Groups,
    ledger: Ledger,
    name: String,
    /// Whether its `/dev/shm` is its own.
    is_apart: bool,
    next_ms: u64,
    spent: Spent,
    noted: Spent,
    noted_ms: u64,
    ticks: Ratchet,
    /// Memory as it was weighed last, while it is too much.
    weighed: u64,
    disk: Disk,
}

/// CPU time that only processes themselves tell: those that nobody waited for take theirs away.
#[derive(Debug, Default)]
struct Ratchet {
    before: u64,
    lost: u64,
}

impl Ratchet {
    fn total(&mut self, now: u64) -> u64 {
        self.lost = self.lost.saturating_add(self.before.saturating_sub(now));
        self.before = now;
        self.lost.saturating_add(now)
    }
}

/// What is known of the directories.
struct Disk {
    roots: Vec<PathBuf>,
    base: u64,
    /// Level and use of the file system at the start.
    started: (u64, u64),
    /// Use of the file system at the last walk.
    in_use: u64,
    level: u64,
    /// Lowest level that was seen: whoever removes files is not ended for what stood there.
    least: u64,
    walked_ms: u64,
    cost_ms: u64,
    walk: Option<Receiver<(Taken, u64)>>,
}

impl Disk {
    fn growth(&self) -> u64 {
        self.roots.first().map_or(0, |root| disk::in_use(root).saturating_sub(self.in_use))
    }

    /// Whether it is time to look at every file.
    fn is_due(&self, now: u64, limit: u64) -> bool {
        let growth = self.growth();
        let room = limit.saturating_sub(self.level);
        let since = now.saturating_sub(self.walked_ms);
        let is_near = growth >= GROWTH.max(room / 4).min(room.max(1)) && since >= self.cost_ms.saturating_mul(20);
        is_near || since >= WALK_MS.max(self.cost_ms.saturating_mul(SHARE))
    }

    fn start(&mut self, now: u64) {
        let (tell, hear) = channel();
        let roots = self.roots.clone();
        self.walked_ms = now;
        self.in_use = self.roots.first().map_or(0, |root| disk::in_use(root));
        // Walking may take long, and meanwhile output must be read.
        let walk = move || {
            // Of this thread's own time: on a busy machine waiting costs nobody anything.
            let begun = cpu_us();
            let taken = disk::walk(&roots);
            // Nobody listens any more: the command has ended.
            tell.send((taken, cpu_us().saturating_sub(begun).div_ceil(1_000))).ok();
        };
        self.walk = std::thread::Builder::new().spawn(walk).is_ok().then_some(hear);
    }

    /// The level after a walk. What hides from it is taken from open files, and where even these can
    /// not be read, from the growth of the file system.
    fn take(&mut self, taken: Taken, limit: Option<u64>, pids: &[i32]) {
        self.level = taken.bytes.saturating_sub(self.base);
        let (level, in_use) = self.started;
        let Some(root) = self.roots.first() else { return };
        let possible = level.saturating_add(disk::in_use(root).saturating_sub(in_use));
        if limit.is_some_and(|limit| possible > limit && self.level <= limit) {
            let hidden = disk::unnamed(pids, root);
            self.level = self.level.saturating_add(hidden.bytes);
            if taken.is_partial || hidden.is_partial {
                self.level = self.level.max(possible);
            }
        }
        self.least = self.least.min(self.level);
    }
}

impl Watch {
    /// A watch over the command of an order, in these groups.
    #[must_use]
    pub fn new(order: &Order, groups: Groups) -> Self {
        let mut ledger = Ledger::at(&order.ledger);
        // The daemon has just read it. If it can not be read now, a limit of CPU time ends the command at the first look.
        let level = ledger.total().map_or(0, |used| used.disk_bytes);
        let in_use = order.roots.first().map_or(0, |root| disk::in_use(root));
        let now = mono_ms();
        let spent = Spent { version: VERSION, disk_bytes: level, at_ms: wall_ms(), ..Spent::default() };
        Self {
            limits: order.limits.into(),
            groups,
            ledger,
            name: order.run.clone(),
            is_apart: order.cell.level == CellLevel::Full,
            next_ms: now + PERIOD_MS.1,
            spent,
            noted: spent,
            noted_ms: 0,
            ticks: Ratchet::default(),
            weighed: 0,
            disk: Disk {
                roots: order.roots.clone(),
                base: order.base,
                started: (level, in_use),
                in_use,
                level,
                least: level,
                walked_ms: now,
                cost_ms: 0,
                walk: None,
            },
        }
    }

    /// When to look next, on the clock that counts suspend.
    #[must_use]
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Looks, when it is time; tells the limit that is passed. `stages` are our own processes.
    pub fn look(&mut self, now: u64, stages: [i32; 3]) -> Option<Breach> {
        if now < self.next_ms {
            return None;
        }
        let begun = cpu_us();
        let [.., proxy] = stages;
        // What the proxy uses is ours, and has bounds of its own.
        let stats: Vec<Stat> = self.stats().into_iter().filter(|stat| stat.pid != proxy).collect();
        let breach = self.count(&stats, stages).or_else(|| self.cpu(&stats)).or_else(|| self.look_at_disk(now, &stats));
        self.note(now);
        let cost_ms = cpu_us().saturating_sub(begun).saturating_mul(SHARE) / 1_000;
        let usual = if self.is_near() { PERIOD_MS.1 } else { PERIOD_MS.0 };
        self.next_ms = now + usual.max(cost_ms).min(PERIOD_MS.2);
        breach
    }

    /// Everything that belongs to the command, our stages included.
    fn stats(&self) -> Vec<Stat> {
        match self.groups.processes() {
            Some(pids) => pids.into_iter().filter_map(process::stat).collect(),
            None => process::tree(rustix::process::getpid().as_raw_pid()),
        }
    }

    /// Whether a limit is near that the kernel does not keep.
    fn is_near(&self) -> bool {
        let half = |limit: Option<u64>, now: u64| limit.is_some_and(|limit| now > limit / 2);
        (!self.groups.has_memory() && half(self.limits.memory_bytes, self.spent.memory_bytes))
            || (!self.groups.has_pids() && half(self.limits.processes, self.spent.processes))
    }

    /// Memory and processes.
    fn count(&mut self, stats: &[Stat], stages: [i32; 3]) -> Option<Breach> {
        let own: Vec<&Stat> = stats.iter().filter(|stat| !stages.contains(&stat.pid) && !stat.zombie).collect();
        let page = rustix::param::page_size() as u64;
        let resident = own.iter().map(|stat| stat.pages).sum::<u64>().saturating_mul(page);
        let tasks = self.groups.tasks().unwrap_or(0).max(own.iter().map(|stat| stat.threads).sum());
        self.spent.processes = self.spent.processes.max(tasks);
        let mut breach = self.over_tasks(tasks);
        // Shared pages are counted once for each process first; only what then is too much is weighed.
        let limit = self.limits.memory_bytes.unwrap_or(u64::MAX);
        let held = if self.groups.has_memory() || self.limits.memory_bytes.is_none() {
            Held::default()
        } else {
            memory::held(&own.iter().map(|stat| stat.pid).collect::<Vec<_>>(), self.is_apart)
        };
        let at_most = resident.saturating_add(held.bytes);
        let memory = if at_most > limit {
            let beside = own.iter().map(|stat| held.beside(stat.pid).unwrap_or(stat.pages.saturating_mul(page)));
            beside.fold(held.bytes, u64::saturating_add)
        } else {
            at_most
        };
        self.spent.memory_bytes = self.spent.memory_bytes.max(memory);
        // Twice: while it forks, one page can be weighed in several processes.
        let before = std::mem::replace(&mut self.weighed, memory);
        if breach.is_none() && memory.min(before) > limit {
            breach = Some(over_memory(memory, limit));
        }
        breach.or_else(|| self.killed())
    }

    fn over_tasks(&self, tasks: u64) -> Option<Breach> {
        let limit = self.limits.processes?;
        let is_over = tasks > limit || self.groups.refusals() > 0;
        is_over.then(|| Breach {
            cause: "processes",
            why: format!("it wanted more than {limit} processes and threads at once, which is the limit"),
        })
    }

    /// Whether the kernel killed for want of memory in the group.
    fn killed(&mut self) -> Option<Breach> {
        if self.groups.kills() == 0 {
            return None;
        }
        let limit = self.limits.memory_bytes?;
        self.spent.memory_bytes = self.spent.memory_bytes.max(self.groups.memory_peak().unwrap_or(limit));
        Some(over_memory(self.spent.memory_bytes, limit))
    }

    fn cpu(&mut self, stats: &[Stat]) -> Option<Breach> {
        let ticks = stats.iter().map(|stat| stat.ticks).fold(0, u64::saturating_add);
        let told = self.ticks.total(ticks).saturating_mul(1_000) / rustix::param::clock_ticks_per_second().max(1);
        self.spent.cpu_ms = self.spent.cpu_ms.max(self.groups.cpu_ms().unwrap_or(told));
        self.over_cpu()
    }

    fn over_cpu(&mut self) -> Option<Breach> {
        let limit = self.limits.cpu_ms?;
        let Ok(all) = self.ledger.all() else {
            let why = "what the task has used before can not be read any more, so nobody knows what is left".to_owned();
            return Some(Breach { cause: "cpu", why });
        };
        let others = all.into_iter().filter(|(name, _)| *name != self.name);
        let total = others.map(|(_, spent)| spent.cpu_ms).fold(self.spent.cpu_ms, u64::saturating_add);
        (total >= limit).then(|| Breach {
            cause: "cpu",
            why: format!(
                "it used {} of CPU time; commands of the task have used {} of the {} that they may",
                span(self.spent.cpu_ms),
                span(total),
                span(limit)
            ),
        })
    }

    fn look_at_disk(&mut self, now: u64, stats: &[Stat]) -> Option<Breach> {
        let limit = self.limits.disk_bytes?;
        match self.disk.walk.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Ok((taken, cost_ms))) => {
                let pids: Vec<i32> = stats.iter().map(|stat| stat.pid).collect();
                self.disk.cost_ms = cost_ms;
                self.disk.take(taken, Some(limit), &pids);
                self.disk.walk = None;
                self.spent.disk_bytes = self.disk.level;
            }
            Some(Err(TryRecvError::Disconnected)) => self.disk.walk = None,
            None if self.disk.is_due(now, limit) => self.disk.start(now),
            None => {}
        }
        (self.disk.level > limit && self.disk.level > self.disk.least).then(|| Breach {
            cause: "disk",
            why: format!(
                "files of the task take {} more than before its first command; the limit is {}",
                bytes(self.disk.level),
                bytes(limit)
            ),
        })
    }

    /// Notes the figures for the task's other commands and for the daemon.
    fn note(&mut self, now: u64) {
        let is_old = now >= self.noted_ms + NOTE_MS.1 && self.spent != self.noted;
        if is_old || self.spent.cpu_ms >= self.noted.cpu_ms + NOTE_MS.0 {
            self.spent.at_ms = wall_ms();
            // A disk that is full must not end the command; the next look tries again.
            if self.ledger.note(&self.name, &self.spent).is_ok() {
                (self.noted, self.noted_ms) = (self.spent, now);
            }
        }
    }

    /// The last figures, once nothing of the command lives and before its groups go; and the limit
    /// that the kernel enforced unseen. `waited` is what all that was waited for used.
    pub fn close(&mut self, waited: crate::format::Usage) -> (Spent, Option<Breach>) {
        let waited_ms = waited.user_us.saturating_add(waited.system_us) / 1_000;
        self.spent.cpu_ms = self.spent.cpu_ms.max(self.groups.cpu_ms().unwrap_or(waited_ms));
        self.spent.memory_bytes = self.spent.memory_bytes.max(waited.max_rss_kib << 10);
        self.spent.processes = self.spent.processes.max(1);
        if self.disk.growth() >= GROWTH || self.disk.walk.is_some() {
            self.disk.take(disk::walk(&self.disk.roots), self.limits.disk_bytes, &[]);
            self.spent.disk_bytes = self.disk.level;
        }
        self.spent.ended = true;
        self.spent.at_ms = wall_ms();
        // Without the note the last one before it counts.
        let is_noted = self.ledger.note(&self.name, &self.spent).is_ok();
        let breach = self.killed().or_else(|| self.over_cpu());
        if is_noted {
            // Last, because our own figures then have no name any more. Where it fails, the next command's keeper tries again.
            self.ledger.fold().ok();
        }
        (self.spent, breach)
    }
}

fn over_memory(used: u64, limit: u64) -> Breach {
    let why = format!("its processes held {} of memory at once; the limit is {}", bytes(used), bytes(limit));
    Breach { cause: "memory", why }
}

/// CPU time of this thread in microseconds.
fn cpu_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
#[test]
fn cpu_time_that_is_taken_away_stays_counted() {
    let mut ratchet = Ratchet::default();
    let seen: Vec<u64> = [5, 9, 3, 4, 0, 2].into_iter().map(|now| ratchet.total(now)).collect();
    assert_eq!(seen, [5, 9, 9, 10, 10, 12]);
}
