//! The dormant table: what is left in memory of a task that stands still, 32 bytes.
//!
//! Ids are random, so the table is cut into buckets by their first bits; each bucket is sorted,
//! which makes look-up and prefix search cheap and an insertion a short move. Invariant: an entry's
//! number names a durable snapshot that stands for all records of its task.

use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::words::{Lsn, Priority, TaskId};

/// Bits of an id that choose its bucket: a million tasks make buckets of about 250.
const BUCKET_BITS: u32 = 12;
/// Number of buckets.
pub(crate) const BUCKETS: usize = 1 << BUCKET_BITS;
/// A full bucket grows by this part of itself, not to double size: memory is what the table saves.
const GROWTH: usize = 16;
/// Tombstones that are kept; without one, a removed task's last record just stays.
const TOMBSTONES: usize = 65_536;

/// A task at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: TaskId,
    /// Its snapshot; of a removed task, the record that removed it.
    pub(crate) lsn: Lsn,
    pub(crate) flags: Flags,
}

/// What lists, turns and wake-ups must know without reading the snapshot: bits 0–2 status, 3–6 why it
/// is paused, 7 runs, 8 awake, 9 long, 10 deadline, 11–12 priority, 13–31 the low bits of the deadline's
/// wall time, 32–63 the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u64);

const TENANT: u32 = 32;
const PRIORITY: u32 = 11;
const DUE: u32 = 13;
const DUE_MASK: u64 = (1 << (TENANT - DUE)) - 1;
const FINISHED: u64 = 4;
const REMOVED: u64 = 5;
const WHYS: [&str; 9] = ["", "user", "budget", "person", "key", "disk", "provider", "later", "halt"];

impl Flags {
    /// May have left commands behind.
    pub(crate) const RUNS: u64 = 1 << 7;
    /// Was not at rest: it goes on at the next start.
    pub(crate) const AWAKE: u64 = 1 << 8;
    /// Has more history than is kept.
    pub(crate) const LONG: u64 = 1 << 9;
    /// Waits for a deadline.
    pub(crate) const TIMER: u64 = 1 << 10;

    pub(crate) fn of(task: &Task, more: u64) -> Self {
        let (status, why) = match &task.status {
            Status::Queued => (1, ""),
            Status::Running => (2, ""),
            Status::Paused { why, .. } => (3, why.as_str()),
            Status::Finished => (FINISHED, ""),
            Status::Removed => (REMOVED, ""),
        };
        let why = WHYS.iter().position(|known| *known == why).map_or(15, |at| at as u64);
        let timer = task.timer.as_ref().map_or(0, |timer| Self::TIMER | (timer.due_wall_ms & DUE_MASK) << DUE);
        let priority = u64::from(task.priority.code().saturating_sub(1) & 3) << PRIORITY;
        Self(status | why << 3 | more | timer | priority | u64::from(task.submitted.uid) << TENANT)
    }

    /// Whether it wants to work, and needs nothing but a turn.
    pub(crate) const fn is_ready(self) -> bool {
        matches!(self.status(), 1 | 2) && !self.has(Self::AWAKE)
    }

    /// Whether the deadline that it waits for is this one; a chance of one in 500,000 that it is not.
    pub(crate) const fn waits_for(self, due_wall_ms: u64) -> bool {
        self.has(Self::TIMER) && self.0 >> DUE & DUE_MASK == due_wall_ms & DUE_MASK
    }

    /// Its priority.
    pub(crate) const fn priority(self) -> Priority {
        Priority::from_code((self.0 >> PRIORITY & 3) as u32 + 1)
    }

    pub(crate) const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    const fn status(self) -> u64 {
        self.0 & 7
    }

    /// The word for the task's status.
    pub(crate) fn word(self) -> &'static str {
        match self.status() {
            1 => "queued",
            2 => "running",
            FINISHED => "finished",
            REMOVED => "removed",
            _ if self.is_paused_for("person") => "needs-you",
            _ if self.is_paused_for("budget") => "over-budget",
            _ if self.is_paused_for("key") => "needs-key",
            _ if self.is_paused_for("later") => "scheduled",
            _ if self.is_paused_for("halt") => "halted",
            _ => "paused",
        }
    }

    pub(crate) const fn is_removed(self) -> bool {
        self.status() == REMOVED
    }

    /// Whether it has more history than is kept.
    pub(crate) const fn is_long(self) -> bool {
        self.has(Self::LONG) && !self.is_removed()
    }

    /// Whose it is.
    pub(crate) const fn tenant(self) -> u32 {
        (self.0 >> TENANT) as u32
    }

    pub(crate) const fn is_open(self) -> bool {
        self.status() < FINISHED
    }

    pub(crate) fn is_paused_for(self, why: &str) -> bool {
        let code = usize::try_from(self.0 >> 3 & 15).unwrap_or_default();
        self.status() == 3 && WHYS.get(code).is_some_and(|known| *known == why)
    }
}

/// All tasks at rest.
#[derive(Debug)]
pub(crate) struct Table {
    buckets: Vec<Vec<Entry>>,
    total: u64,
    removed: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS], total: 0, removed: 0 }
    }
}

/// The bucket of an id.
pub(crate) fn bucket_of(id: TaskId) -> usize {
    usize::try_from(id.0 >> (u128::BITS - BUCKET_BITS)).unwrap_or_default()
}

impl Table {
    /// A table of entries that come by id, without room to spare; one out of order finds its place.
    pub(crate) fn of(entries: impl Iterator<Item = Entry> + Clone) -> Self {
        let mut lens = vec![0_usize; BUCKETS];
        for entry in entries.clone() {
            if let Some(len) = lens.get_mut(bucket_of(entry.id)) {
                *len += 1;
            }
        }
        let mut table = Self { buckets: lens.into_iter().map(Vec::with_capacity).collect(), total: 0, removed: 0 };
        for entry in entries {
            match table.buckets.get_mut(bucket_of(entry.id)) {
                Some(bucket) if bucket.last().is_none_or(|last| last.id < entry.id) => {
                    bucket.push(entry);
                    table.count(entry.flags, 1);
                }
                _ => table.insert(entry),
            }
        }
        table
    }

    fn count(&mut self, flags: Flags, by: i64) {
        if flags.is_removed() {
            self.removed = self.removed.saturating_add_signed(isize::try_from(by).unwrap_or_default());
            return;
        }
        self.total = self.total.saturating_add_signed(by);
    }

    /// Tasks that are not removed.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let Some(bucket) = self.buckets.get_mut(bucket_of(entry.id)) else { return };
        let replaced = match bucket.binary_search_by_key(&entry.id, |known| known.id) {
            Ok(at) => bucket.get_mut(at).map(|known| std::mem::replace(known, entry).flags),
            Err(at) => {
                if bucket.len() == bucket.capacity() {
                    bucket.reserve_exact(bucket.len() / GROWTH + 1);
                }
                bucket.insert(at, entry);
                None
            }
        };
        if let Some(flags) = replaced {
            self.count(flags, -1);
        }
        self.count(entry.flags, 1);
        if self.removed > TOMBSTONES + TOMBSTONES / 8 {
            self.drop_old_tombstones();
        }
    }

    fn drop_old_tombstones(&mut self) {
        let mut lsns: Vec<Lsn> = self.all().filter(|entry| entry.flags.is_removed()).map(|entry| entry.lsn).collect();
        lsns.sort_unstable();
        let Some(oldest_kept) = lsns.len().checked_sub(TOMBSTONES).and_then(|at| lsns.get(at)).copied() else { return };
        for bucket in &mut self.buckets {
            bucket.retain(|entry| !entry.flags.is_removed() || entry.lsn >= oldest_kept);
        }
        self.removed = self.all().filter(|entry| entry.flags.is_removed()).count();
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<Entry> {
        let bucket = self.buckets.get(bucket_of(id))?;
        let at = bucket.binary_search_by_key(&id, |known| known.id).ok()?;
        bucket.get(at).copied()
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let bucket = self.buckets.get_mut(bucket_of(id))?;
        let at = bucket.binary_search_by_key(&id, |known| known.id).ok()?;
        let entry = bucket.remove(at);
        self.count(entry.flags, -1);
        Some(entry)
    }

    /// Entries of the buckets in `range`, by id.
    pub(crate) fn buckets(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &Entry> {
        self.buckets.get(range).unwrap_or_default().iter().flatten()
    }

    /// All entries, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.buckets.iter().flatten()
    }

    /// Entries with ids from `low` to `high`, both included.
    pub(crate) fn range(&self, low: TaskId, high: TaskId) -> impl Iterator<Item = &Entry> {
        let buckets = self.buckets.get(bucket_of(low)..=bucket_of(high)).unwrap_or_default();
        buckets.iter().flat_map(move |bucket| {
            let from = bucket.partition_point(|entry| entry.id < low);
            let to = bucket.partition_point(|entry| entry.id <= high);
            bucket.get(from..to).unwrap_or_default()
        })
    }

    /// The nearest ids on both sides of `id` that are not it.
    pub(crate) fn neighbours(&self, id: TaskId) -> (Option<TaskId>, Option<TaskId>) {
        let at = bucket_of(id);
        let before = self.buckets.get(..=at).unwrap_or_default().iter().rev();
        let before = before.filter_map(|bucket| bucket.partition_point(|entry| entry.id < id).checked_sub(1).and_then(|at| bucket.get(at)));
        let after = self.buckets.get(at..).unwrap_or_default().iter();
        let after = after.filter_map(|bucket| bucket.get(bucket.partition_point(|entry| entry.id <= id)));
        (before.map(|entry| entry.id).next(), after.map(|entry| entry.id).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tinkerbell_core::clock::Entropy as _;
    use tinkerbell_testkit::fake::SeedEntropy;

    fn entry(id: u128, lsn: u64, status: u64) -> Entry {
        Entry { id: TaskId(id), lsn: Lsn(lsn), flags: Flags(status) }
    }

    #[test]
    fn an_entry_is_32_bytes() {
        assert_eq!(std::mem::size_of::<Entry>(), 32);
    }

    #[test]
    fn flags_give_the_word_that_the_task_gives() {
        let mut task = Task::new(TaskId(1), Lsn(1), 0, tinkerbell_core::event::Submitted { uid: 7, ..Default::default() });
        let pauses = WHYS.iter().chain(&["quarantine"]).map(|why| Status::Paused { why: (*why).to_owned(), text: String::new() });
        for status in pauses.chain([Status::Queued, Status::Running, Status::Finished, Status::Removed]) {
            task.status = status;
            let flags = Flags::of(&task, Flags::LONG | Flags::AWAKE);
            assert_eq!((flags.word(), flags.is_open(), flags.tenant()), (task.status.word(), task.is_open(), 7));
            assert!(flags.has(Flags::AWAKE) && !flags.has(Flags::RUNS) && !flags.has(Flags::TIMER));
            assert!(!flags.is_ready() && Flags::of(&task, 0).is_ready() == matches!(task.status, Status::Queued | Status::Running));
        }
        let due_wall_ms = 1_800_000_000_123;
        task.timer = Some(tinkerbell_core::event::Timer { due_wall_ms, ..Default::default() });
        for priority in Priority::ALL {
            task.priority = priority;
            let flags = Flags::of(&task, 0);
            assert_eq!((flags.priority(), flags.tenant(), flags.word()), (priority, 7, task.status.word()));
            assert!(flags.waits_for(due_wall_ms) && !flags.waits_for(due_wall_ms + 1));
        }
    }

    #[test]
    fn the_table_is_a_sorted_map() {
        let (mut table, mut model) = (Table::default(), BTreeMap::new());
        let chance = SeedEntropy::new(3);
        let ids: Vec<u128> = (0..5_000).map(|_| chance.id()).collect();
        for (n, id) in ids.iter().enumerate() {
            table.insert(entry(*id, n as u64, 1 + n as u64 % 4));
            model.insert(*id, n as u64);
            if n % 3 == 0 {
                let gone = ids[n / 2];
                assert_eq!(table.remove(TaskId(gone)).is_some(), model.remove(&gone).is_some());
            }
        }
        assert_eq!(table.total(), model.len() as u64);
        let again = Table::of(table.all().copied());
        assert!(again.all().eq(table.all()) && again.total() == table.total());
        assert!(table.all().map(|entry| (entry.id.0, entry.lsn.0)).eq(model.iter().map(|(id, lsn)| (*id, *lsn))));
        for id in ids.iter().take(200) {
            let (low, high) = (id >> 112 << 112, (id >> 112 << 112) | ((1 << 112) - 1));
            let found: Vec<u128> = table.range(TaskId(low), TaskId(high)).map(|entry| entry.id.0).collect();
            assert_eq!(found, model.range(low..=high).map(|(id, _)| *id).collect::<Vec<_>>());
            let before = model.range(..id).next_back().map(|(id, _)| TaskId(*id));
            let after = model.range(id + 1..).next().map(|(id, _)| TaskId(*id));
            assert_eq!(table.neighbours(TaskId(*id)), (before, after));
        }
    }

    #[test]
    fn only_the_newest_tombstones_stay() {
        let (mut table, chance) = (Table::default(), SeedEntropy::new(4));
        for lsn in 0..TOMBSTONES as u64 * 2 {
            table.insert(entry(chance.id(), lsn, REMOVED));
        }
        let kept: Vec<u64> = table.all().map(|entry| entry.lsn.0).collect();
        assert!(kept.len() <= TOMBSTONES + TOMBSTONES / 8 && kept.len() >= TOMBSTONES);
        assert!(kept.iter().all(|lsn| *lsn >= TOMBSTONES as u64 / 2));
        assert_eq!(table.total(), 0);
    }
}
