//! The packs of a directory and what is known of them: opening, appending, becoming durable.
//!
//! Appends go into one pack under a short lock. Whoever wants durability and finds no sync under way
//! does it for all that was written so far, so one `fdatasync` serves many. Invariants: nothing is
//! reported before the sync that covers it returned; a failed sync is never repeated and believed:
//! what it should have covered is cut off and failed, and the next entry opens another pack.

use crate::error::Error;
use crate::format::{ENTRY_HEADER, Entry, Kind, PACK_HEADER};
use crate::index::Index;
use crate::pack::{Pack, Step, numbers, path};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::words::Owner;

/// A pack takes no further entry beyond this size.
pub(crate) const PACK_BYTES: u64 = 64 << 20;

/// An entry that is written and perhaps not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pack: u32,
    end: u64,
}

/// Where an entry was appended.
pub(crate) struct Appended {
    pub(crate) entry: Entry,
    pub(crate) pack: u32,
    pub(crate) offset: u64,
    pub(crate) ticket: Ticket,
}

/// All packs of a directory.
pub(crate) struct Shelf {
    pub(crate) dir: PathBuf,
    pack_bytes: u64,
    state: Mutex<State>,
    synced: Condvar,
}

/// What is known of them.
pub(crate) struct State {
    pub(crate) packs: BTreeMap<u32, Pack>,
    pub(crate) index: Index,
    pub(crate) compacting: bool,
    /// The pack that takes new entries.
    active: Option<u32>,
    /// The number of the next pack; numbers are not used again.
    next_pack: u32,
    next_seq: u64,
    /// Bytes of the active pack that are durable; all of the packs before it is.
    durable: u64,
    syncing: bool,
    /// Packs whose sync failed, with what of them was durable before.
    failed: BTreeMap<u32, (u64, String)>,
}

impl State {
    pub(crate) const fn active(&self) -> Option<u32> {
        self.active
    }

    fn is_durable(&self, ticket: Ticket) -> Option<Result<(), String>> {
        if let Some((durable, why)) = self.failed.get(&ticket.pack) {
            return Some(if ticket.end <= *durable { Ok(()) } else { Err(why.clone()) });
        }
        (self.active != Some(ticket.pack) || ticket.end <= self.durable).then_some(Ok(()))
    }

    /// Cuts off what a failed sync should have covered.
    fn fail(&mut self, number: u32, why: &io::Error) {
        let durable = self.durable;
        self.failed.insert(number, (durable, why.to_string()));
        self.index.cut(number, durable);
        self.active = None;
        let Some(pack) = self.packs.get_mut(&number) else { return };
        pack.size = durable;
        // Left in the file, these entries would only be entries that nobody was told of.
        if let Err(error) = pack.file.set_len(durable) {
            tracing::warn!(%error, pack = %pack.path.display(), "the unsynced end of a blob pack could not be cut off");
        }
    }
}

impl Shelf {
    /// Reads all packs; cuts what was torn from the last one, and makes the rest of it durable.
    pub(crate) fn open(dir: &Path, pack_bytes: u64) -> Result<Self, Error> {
        make_dir(dir).map_err(|e| Error::io("create the directory", dir, e))?;
        let numbers = numbers(dir).map_err(|e| Error::io("read the directory", dir, e))?;
        let mut opening = Opening { index: Index::default(), marks: HashMap::new(), next_seq: 1 };
        let mut packs = BTreeMap::new();
        let last = numbers.last().copied();
        for number in numbers {
            let mut pack = Pack::open(dir, number)?;
            opening.read(number, &mut pack, last == Some(number)).map_err(|e| Error::io("read", path(dir, number), e))?;
            packs.insert(number, pack);
        }
        opening.index.forget(&opening.marks);
        let active = last.filter(|last| packs.get(last).is_some_and(|pack| !pack.damaged && pack.size < pack_bytes));
        let state = State {
            durable: active.and_then(|active| packs.get(&active)).map_or(0, |pack| pack.size),
            packs,
            index: opening.index,
            compacting: false,
            active,
            next_pack: last.map_or(1, |last| last.saturating_add(1)),
            next_seq: opening.next_seq,
            syncing: false,
            failed: BTreeMap::new(),
        };
        Ok(Self { dir: dir.to_owned(), pack_bytes, state: Mutex::new(state), synced: Condvar::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with room for an entry of such a body in the active pack. A full pack is made
    /// durable before the next one begins. Blocks on the disk.
    pub(crate) fn room(&self, body: u64) -> Result<MutexGuard<'_, State>, Error> {
        let needed = body.saturating_add(ENTRY_HEADER as u64);
        let mut state = self.lock();
        while let Some((number, pack)) = state.active.and_then(|number| Some((number, state.packs.get(&number)?))) {
            if pack.size.saturating_add(needed) <= self.pack_bytes || pack.size <= PACK_HEADER as u64 {
                return Ok(state);
            }
            if state.durable < pack.size {
                state = self.sync(state);
            } else {
                tracing::debug!(number, "a blob pack is full");
                state.active = None;
            }
        }
        let number = state.next_pack;
        let pack = Pack::create(&self.dir, number).map_err(|e| Error::io("create", path(&self.dir, number), e))?;
        state.durable = pack.size;
        state.packs.insert(number, pack);
        state.next_pack = number.saturating_add(1);
        state.active = Some(number);
        Ok(state)
    }

    /// Appends an entry to the active pack of [`Shelf::room`]; its seq is given here unless it has
    /// one. The index is the caller's business.
    pub(crate) fn append(&self, state: &mut State, mut entry: Entry, body: &[u8]) -> Result<Appended, Error> {
        if entry.seq == 0 {
            entry.seq = state.next_seq;
        }
        let bytes = entry.encode(body);
        let gone = || Error::io("find a pack in", &self.dir, io::ErrorKind::NotFound.into());
        let number = state.active.ok_or_else(gone)?;
        let pack = state.packs.get_mut(&number).ok_or_else(gone)?;
        // What a failed write leaves is written over by the next entry.
        pack.file.write_all_at(&bytes, pack.size).map_err(|e| Error::io("write", &pack.path, e))?;
        let offset = pack.size;
        pack.size = pack.size.saturating_add(bytes.len() as u64);
        let ticket = Ticket { pack: number, end: pack.size };
        state.next_seq = state.next_seq.max(entry.seq.saturating_add(1));
        if entry.kind == Kind::Forgotten {
            // A mark is room that compaction may win back.
            state.index.bury_bytes(number, entry.size());
        }
        Ok(Appended { entry, pack: number, offset, ticket })
    }

    /// The ticket of an entry that is there already.
    pub(crate) const fn ticket(pack: u32, end: u64) -> Ticket {
        Ticket { pack, end }
    }

    /// Returns once the entry is durable; syncs when nobody else does. Blocks on the disk.
    pub(crate) fn commit(&self, ticket: Ticket) -> Result<(), Error> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.is_durable(ticket) {
                return result.map_err(|why| Error::io("sync", path(&self.dir, ticket.pack), io::Error::other(why)));
            }
            state = self.sync(state);
        }
    }

    /// Syncs what was written to the active pack so far, or waits for the sync that is under way.
    /// There is never more than one: the kernel tells a failure to one of two only.
    fn sync<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.syncing {
            return self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some((number, pack)) = state.active.and_then(|number| Some((number, state.packs.get(&number)?))) else { return state };
        let (file, target) = (Arc::clone(&pack.file), pack.size);
        state.syncing = true;
        drop(state);
        let result = file.sync_data();
        let mut state = self.lock();
        state.syncing = false;
        match result {
            Ok(()) => state.durable = state.durable.max(target),
            Err(error) => state.fail(number, &error),
        }
        self.synced.notify_all();
        state
    }

    /// Removes a pack none of whose entries counts any more.
    pub(crate) fn remove(&self, number: u32, entries: &[Owner]) -> Result<(), Error> {
        let path = path(&self.dir, number);
        let removed = fs::remove_file(&path).and_then(|()| File::open(&self.dir)?.sync_all());
        removed.map_err(|e| Error::io("remove", path, e))?;
        let mut state = self.lock();
        state.packs.remove(&number);
        state.index.removed(number, entries);
        Ok(())
    }
}

/// What opening gathers.
struct Opening {
    index: Index,
    /// The highest mark of each forgotten owner.
    marks: HashMap<Owner, u64>,
    next_seq: u64,
}

impl Opening {
    fn read(&mut self, number: u32, pack: &mut Pack, is_last: bool) -> io::Result<()> {
        if let Some(cut) = if is_last { settle(pack)? } else { None } {
            pack.file.set_len(cut)?;
            tracing::warn!(pack = %pack.path.display(), bytes = pack.size.saturating_sub(cut), "cut an end of a blob pack that nobody was told of");
            pack.size = cut;
        }
        if is_last {
            pack.file.sync_data()?;
        }
        let mut damaged = false;
        let walked = pack.clone();
        walked.walk(&mut |step| {
            match step {
                Step::Entry(offset, entry) => self.take(number, offset, &entry),
                Step::Gap(offset) | Step::Tail(offset) => {
                    damaged = true;
                    tracing::error!(pack = %walked.path.display(), offset, "a blob pack is damaged here; what was stored there is missing");
                }
            }
            Ok(())
        })?;
        pack.damaged = damaged;
        Ok(())
    }

    fn take(&mut self, number: u32, offset: u64, entry: &Entry) {
        self.next_seq = self.next_seq.max(entry.seq.saturating_add(1));
        match entry.kind {
            Kind::Blob => self.index.add(entry, number, offset),
            Kind::Forgotten => {
                let mark = self.marks.entry(entry.owner).or_default();
                *mark = entry.seq.max(*mark);
                self.index.bury_bytes(number, entry.size());
            }
        }
    }
}

/// Where the last pack is to be cut: behind the last entry whose body is whole. Bodies are read,
/// because after a power cut a header may stand there without its body, and storing that content
/// again must not find it.
fn settle(pack: &Pack) -> io::Result<Option<u64>> {
    let mut good = PACK_HEADER as u64;
    pack.walk(&mut |step| {
        if let Step::Entry(offset, entry) = step
            && entry.fits(&pack.body(offset, entry.len)?)
        {
            good = offset.saturating_add(entry.size());
        }
        Ok(())
    })?;
    Ok((good < pack.size).then_some(good))
}

pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
