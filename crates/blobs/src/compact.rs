//! Winning back the room of entries that do not count any more.
//!
//! One pack per call: what counts is copied to the end of the newest pack, made durable, and only
//! then the old pack goes. Invariants: a crash at any point leaves every blob, at worst twice; the
//! mark of a forgotten owner stays as long as any pack holds an entry that it forgets.

use crate::error::Error;
use crate::format::{Entry, Kind, PACK_HEADER};
use crate::pack::{Pack, Step};
use crate::shelf::{Shelf, State, Ticket};
use std::collections::HashMap;
use tinkerbell_core::words::Owner;

/// Rewrites the pack with most dead bytes, when at least half of it is dead. Blocks on the disk.
///
/// # Errors
/// When the disk refuses; then nothing is lost and the next call tries again.
pub(crate) fn compact(shelf: &Shelf) -> Result<bool, Error> {
    let Some((number, pack)) = begin(&mut shelf.lock()) else { return Ok(false) };
    let result = rewrite(shelf, number, &pack);
    shelf.lock().compacting = false;
    result
}

fn begin(state: &mut State) -> Option<(u32, Pack)> {
    if state.compacting {
        return None;
    }
    let sealed = state.packs.iter().filter(|(number, pack)| state.active() != Some(**number) && !pack.damaged);
    let half = |pack: &Pack| pack.size.saturating_sub(PACK_HEADER as u64) / 2;
    let dead = sealed.filter(|(number, pack)| state.index.dead(**number) >= half(pack));
    let worst = dead.max_by_key(|(number, _)| state.index.dead(**number));
    let (number, pack) = worst.map(|(number, pack)| (*number, pack.clone()))?;
    state.compacting = true;
    Some((number, pack))
}

fn rewrite(shelf: &Shelf, number: u32, pack: &Pack) -> Result<bool, Error> {
    let (mut entries, mut sound) = (Vec::new(), true);
    let walked = pack.walk(&mut |step| {
        match step {
            Step::Entry(offset, entry) => entries.push((offset, entry)),
            Step::Gap(_) | Step::Tail(_) => sound = false,
        }
        Ok(())
    });
    walked.map_err(|e| Error::io("read", &pack.path, e))?;
    let mut copies = Vec::new();
    let copied = if sound { copy_all(shelf, (number, pack), &entries, &mut copies) } else { Ok(false) };
    let durable = copied.and_then(|whole| copies.last().map_or(Ok(()), |last: &Copy| shelf.commit(last.ticket)).map(|()| whole));
    let mut state = shelf.lock();
    for copy in &copies {
        state.index.copied(&copy.entry, (number, copy.from), copy.to, durable.is_ok());
    }
    if matches!(durable, Ok(false)) {
        // What a damaged pack holds is left for whoever repairs the disk.
        if let Some(pack) = state.packs.get_mut(&number) {
            pack.damaged = true;
        }
        return Ok(false);
    }
    drop(state);
    durable?;
    if let Some(ticket) = marks(shelf, &entries)? {
        shelf.commit(ticket)?;
    }
    let owners: Vec<Owner> = blobs(&entries).map(|(_, entry)| entry.owner).collect();
    shelf.remove(number, &owners)?;
    tracing::info!(pack = %pack.path.display(), bytes = pack.size, "a blob pack that was mostly dead is gone");
    Ok(true)
}

/// An entry that stands in two packs now.
struct Copy {
    entry: Entry,
    from: u64,
    to: (u32, u64),
    ticket: Ticket,
}

fn blobs(entries: &[(u64, Entry)]) -> impl Iterator<Item = &(u64, Entry)> {
    entries.iter().filter(|(_, entry)| entry.kind == Kind::Blob)
}

/// Copies what counts; `false` when something of it is damaged.
fn copy_all(shelf: &Shelf, from: (u32, &Pack), entries: &[(u64, Entry)], copies: &mut Vec<Copy>) -> Result<bool, Error> {
    let (number, pack) = from;
    for (offset, entry) in blobs(entries) {
        if !shelf.lock().index.is_live(entry, number, *offset) {
            continue;
        }
        let Some((entry, body)) = pack.entry(*offset, entry.len).map_err(|e| Error::io("read", &pack.path, e))? else {
            return Ok(false);
        };
        let mut state = shelf.room(u64::from(entry.len))?;
        let done = shelf.append(&mut state, entry, &body)?;
        drop(state);
        copies.push(Copy { entry, from: *offset, to: (done.pack, done.offset), ticket: done.ticket });
    }
    Ok(true)
}

/// Copies the marks of owners that still have entries to forget in other packs.
fn marks(shelf: &Shelf, entries: &[(u64, Entry)]) -> Result<Option<Ticket>, Error> {
    let mut here: HashMap<Owner, u64> = HashMap::new();
    for (_, entry) in blobs(entries) {
        *here.entry(entry.owner).or_default() += 1;
    }
    let mut newest = None;
    for (_, mark) in entries.iter().filter(|(_, entry)| entry.kind == Kind::Forgotten) {
        let mut state = shelf.room(0)?;
        if state.index.stale(mark.owner) > here.get(&mark.owner).copied().unwrap_or(0) {
            newest = Some(shelf.append(&mut state, *mark, &[])?.ticket);
        }
    }
    Ok(newest)
}
