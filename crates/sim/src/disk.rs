//! A disk in memory that behaves as a bad day does.
//!
//! Files have a page cache and what is on the platter. A power cut keeps an arbitrary set of unsynced
//! sectors of 512 bytes; a failed sync calls its pages clean without having written them, so that the
//! next sync succeeds and writes nothing, as the kernel does it. Invariant: what `sync` answered `Ok`
//! for survives every power cut.

use crate::dice::{Dice, Topic};
use crate::hold;
use crate::stats::{Count, Stats};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;
const PAGE: usize = 4_096;

/// What goes wrong next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Syncs that fail.
    pub syncs: u64,
    /// Writes that fail.
    pub writes: u64,
    /// Reads that fail.
    pub reads: u64,
    /// Bytes that are free.
    pub free: Option<u64>,
    /// What each sync takes, in milliseconds.
    pub slow_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct File {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// Pages of the cache that no sync has taken over.
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Naming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Naming>,
    files: Vec<File>,
    holder: Option<u32>,
    trouble: Trouble,
    /// Whether a fault struck since somebody asked.
    troubled: bool,
    cuts: u64,
}

/// The disk of one machine.
pub struct SimDisk {
    dice: Dice,
    stats: Arc<Mutex<Stats>>,
    state: Mutex<State>,
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn apply(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        Naming::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
    }
}

impl State {
    fn file(&mut self, id: usize) -> io::Result<&mut File> {
        self.files.get_mut(id).ok_or_else(|| errno(9))
    }

    fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        self.pending.push(naming);
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(dice: Dice, stats: Arc<Mutex<Stats>>) -> Self {
        Self { dice, stats, state: Mutex::default() }
    }

    fn count(&self, count: Count) {
        hold(&self.stats).one(count);
    }

    /// A fault strikes.
    fn strike(&self, state: &mut State, count: Count) {
        state.troubled = true;
        self.count(count);
    }

    /// Changes what goes wrong.
    pub fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut hold(&self.state).trouble);
    }

    /// What each sync takes now.
    pub fn slow_ms(&self) -> Option<u64> {
        hold(&self.state).trouble.slow_ms
    }

    /// Whether a fault struck since this was asked last: then a start may be refused.
    pub fn excuse(&self) -> bool {
        std::mem::take(&mut hold(&self.state).troubled)
    }

    /// The daemon is gone, and its lock with it.
    pub fn unlock(&self, life: u32) {
        let mut state = hold(&self.state);
        if state.holder == Some(life) {
            state.holder = None;
        }
    }

    /// Asks for the lock; gives the holder where there is one.
    pub fn lock(&self, life: u32) -> Option<u32> {
        let mut state = hold(&self.state);
        if state.holder.is_none() {
            state.holder = Some(life);
            return None;
        }
        state.holder
    }

    /// The machine dies: the cache is gone, and any part of what was not synced.
    pub fn cut(&self) {
        let mut state = hold(&self.state);
        state.cuts += 1;
        let cut = state.cuts;
        for (id, file) in state.files.iter_mut().enumerate() {
            if self.tear(file, &[cut, id as u64]) {
                self.count(Count::TornFile);
            }
        }
        let pending = std::mem::take(&mut state.pending);
        // A journaled file system keeps a beginning of what was done to names; another keeps any part.
        let ordered = self.dice.hits(500, Topic::Names, &[cut]);
        let kept = self.dice.between(0, pending.len() as u64, Topic::Names, &[cut, 1]);
        for (at, naming) in pending.iter().enumerate() {
            let stays = if ordered { (at as u64) < kept } else { self.dice.hits(500, Topic::Names, &[cut, 2, at as u64]) };
            if stays {
                apply(&mut state.durable_names, naming);
            } else {
                self.count(Count::LostName);
            }
        }
        state.names = state.durable_names.clone();
        state.holder = None;
    }

    /// Leaves of a file what a power cut leaves; says whether something was lost.
    fn tear(&self, file: &mut File, about: &[u64; 2]) -> bool {
        let [cut, id] = *about;
        if file.dirty.is_empty() && file.cache.len() == file.platter.len() {
            file.cache.clone_from(&file.platter);
            return false;
        }
        let keeps_size = self.dice.hits(500, Topic::Tear, &[cut, id]);
        if keeps_size {
            file.platter.resize(file.cache.len(), 0);
        }
        let mut lost = false;
        for page in std::mem::take(&mut file.dirty) {
            for sector in (page * PAGE..(page + 1) * PAGE).step_by(SECTOR) {
                if self.dice.hits(500, Topic::Tear, &[cut, id, sector as u64]) {
                    write_back(file, sector, SECTOR);
                } else {
                    lost = true;
                }
            }
        }
        file.cache.clone_from(&file.platter);
        lost || !keeps_size
    }

    /// Names in the directory.
    pub fn list(&self) -> Vec<String> {
        hold(&self.state).names.keys().cloned().collect()
    }

    /// Finds a file.
    pub fn find(&self, name: &str) -> io::Result<usize> {
        hold(&self.state).names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes a file, or empties it.
    pub fn create(&self, name: &str) -> io::Result<usize> {
        let mut state = hold(&self.state);
        if state.trouble.free == Some(0) {
            self.strike(&mut state, Count::DiskFull);
            return Err(errno(28));
        }
        if let Some(id) = state.names.get(name).copied() {
            let file = state.file(id)?;
            file.cache.clear();
            file.dirty.clear();
            return Ok(id);
        }
        let id = state.files.len();
        state.files.push(File::default());
        state.name(Naming::Create(name.to_owned(), id));
        Ok(id)
    }

    /// Renames a file.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = hold(&self.state);
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = hold(&self.state);
        let id = state.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        let freed = state.file(id)?.cache.len() as u64;
        if let Some(free) = &mut state.trouble.free {
            *free += freed;
        }
        state.name(Naming::Remove(name.to_owned()));
        Ok(())
    }

    /// Bytes that may still be written.
    pub fn free_bytes(&self) -> u64 {
        hold(&self.state).trouble.free.unwrap_or(1 << 40)
    }

    /// Takes space for a file; what is new reads as zeros.
    pub fn allocate(&self, id: usize, len: u64) -> io::Result<()> {
        let mut state = hold(&self.state);
        let len = usize::try_from(len).map_err(|_| errno(27))?;
        let grows = len.saturating_sub(state.file(id)?.cache.len()) as u64;
        match &mut state.trouble.free {
            Some(free) if *free < grows => {
                self.strike(&mut state, Count::DiskFull);
                return Err(errno(28));
            }
            Some(free) => *free -= grows,
            None => {}
        }
        let file = state.file(id)?;
        if file.cache.len() < len {
            file.cache.resize(len, 0);
        }
        Ok(())
    }

    /// Makes names durable.
    pub fn sync_dir(&self) -> io::Result<()> {
        let mut state = hold(&self.state);
        if take(&mut state.trouble.syncs) {
            // The kernel keeps a directory's blocks dirty, so nothing is lost by the failure itself.
            self.strike(&mut state, Count::SyncFailed);
            return Err(errno(5));
        }
        state.pending.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    /// Reads from the cache, or past it.
    pub fn read(&self, id: usize, offset: u64, buf: &mut [u8], direct: bool) -> io::Result<usize> {
        let mut state = hold(&self.state);
        if take(&mut state.trouble.reads) {
            self.strike(&mut state, Count::ReadFailed);
            return Err(errno(5));
        }
        let file = state.file(id)?;
        let all = if direct { &file.platter } else { &file.cache };
        let from = all.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    /// Writes into the cache.
    pub fn write(&self, id: usize, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = hold(&self.state);
        if take(&mut state.trouble.writes) {
            self.strike(&mut state, Count::WriteFailed);
            return Err(errno(5));
        }
        let offset = usize::try_from(offset).map_err(|_| errno(27))?;
        let old_len = state.file(id)?.cache.len();
        let grows = (offset + bytes.len()).saturating_sub(old_len) as u64;
        let mut count = bytes.len();
        if let Some(free) = &mut state.trouble.free {
            // What lies within the file has its space already.
            let fits = grows.min(*free);
            *free -= fits;
            count -= usize::try_from(grows - fits).unwrap_or(0);
            if count == 0 && !bytes.is_empty() {
                self.strike(&mut state, Count::DiskFull);
                return Err(errno(28));
            }
        }
        let file = state.file(id)?;
        let end = offset + count;
        if file.cache.len() < end {
            file.cache.resize(end, 0);
        }
        if let (Some(to), Some(from)) = (file.cache.get_mut(offset..end), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        file.dirty.extend(offset / PAGE..end.div_ceil(PAGE));
        Ok(count)
    }

    /// Whether the planted lie is told now: for one sync in eight.
    pub fn lies(&self, id: usize) -> bool {
        let size = self.size(id).unwrap_or(0);
        self.dice.hits(125, Topic::Disk, &[id as u64, size])
    }

    /// Makes a file durable, or fails once and lies afterwards.
    pub fn sync(&self, id: usize) -> io::Result<()> {
        let mut state = hold(&self.state);
        if state.trouble.slow_ms.is_some() {
            self.count(Count::SlowSync);
        }
        let fails = take(&mut state.trouble.syncs);
        if fails {
            state.file(id)?.dirty.clear();
            self.strike(&mut state, Count::SyncFailed);
            return Err(errno(5));
        }
        let file = state.file(id)?;
        file.platter.resize(file.cache.len(), 0);
        for page in std::mem::take(&mut file.dirty) {
            write_back(file, page * PAGE, PAGE);
        }
        Ok(())
    }

    /// Cuts or extends a file.
    pub fn truncate(&self, id: usize, len: u64) -> io::Result<()> {
        let mut state = hold(&self.state);
        let len = usize::try_from(len).map_err(|_| errno(27))?;
        let file = state.file(id)?;
        let old = file.cache.len();
        let freed = old.saturating_sub(len) as u64;
        file.cache.resize(len, 0);
        let pages = len.div_ceil(PAGE);
        file.dirty.retain(|page| *page < pages);
        if len < old && len % PAGE != 0 {
            file.dirty.insert(len / PAGE);
        }
        if let Some(free) = &mut state.trouble.free {
            *free += freed;
        }
        Ok(())
    }

    /// A file's length.
    pub fn size(&self, id: usize) -> io::Result<u64> {
        Ok(hold(&self.state).file(id)?.cache.len() as u64)
    }
}

/// Counts one of what is to fail.
const fn take(left: &mut u64) -> bool {
    let some = *left > 0;
    if some {
        *left -= 1;
    }
    some
}

/// Copies bytes of the cache to the platter.
fn write_back(file: &mut File, from: usize, len: usize) {
    let to = (from + len).min(file.cache.len());
    let Some(bytes) = file.cache.get(from..to) else { return };
    if file.platter.len() < to {
        file.platter.resize(to, 0);
    }
    if let Some(place) = file.platter.get_mut(from..to) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &SimDisk, id: usize) -> Vec<u8> {
        let mut buf = vec![0; 64];
        let count = disk.read(id, 0, &mut buf, false).unwrap();
        buf.truncate(count);
        buf
    }

    fn written(seed: u64) -> (SimDisk, usize) {
        let disk = SimDisk::new(Dice::new(seed), Arc::default());
        let id = disk.create("f").unwrap();
        disk.write(id, 0, b"old").unwrap();
        disk.sync(id).unwrap();
        disk.sync_dir().unwrap();
        disk.write(id, 0, b"new").unwrap();
        (disk, id)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let outcomes: BTreeSet<Vec<u8>> = (0..40)
            .map(|seed| {
                let (disk, id) = written(seed);
                disk.cut();
                read(&disk, id)
            })
            .collect();
        assert_eq!(outcomes, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
        let (disk, id) = written(1);
        disk.sync(id).unwrap();
        disk.cut();
        assert_eq!(read(&disk, id), b"new");
    }

    #[test]
    fn after_a_failed_sync_the_cache_lies_and_the_next_sync_writes_nothing() {
        for seed in 0..40 {
            let (disk, id) = written(seed);
            disk.trouble(|trouble| trouble.syncs = 1);
            assert!(disk.sync(id).is_err());
            disk.sync(id).unwrap();
            assert_eq!(read(&disk, id), b"new");
            disk.cut();
            assert_eq!(read(&disk, id), b"old");
        }
    }

    #[test]
    fn a_full_disk_takes_a_part_and_then_nothing() {
        let (disk, id) = written(1);
        disk.trouble(|trouble| trouble.free = Some(2));
        assert_eq!(disk.write(id, 3, b"more").unwrap(), 2);
        assert_eq!(disk.write(id, 5, b"re").unwrap_err().raw_os_error(), Some(28));
        assert_eq!(disk.write(id, 0, b"in").unwrap(), 2, "what lies within has its space");
    }
}
