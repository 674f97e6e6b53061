//! Which entry holds which blob: in memory, about 64 bytes per blob.
//!
//! It knows places, never contents. Addresses are cut to 128 bits here: they are keyed hashes, so
//! nobody can make two of them meet, and what is read is compared whole. Invariant: of several
//! entries for one owner and address the one with the highest seq counts; all others are stale and
//! counted, so that a mark of a forgotten owner is dropped only when nothing is left to forget.

use crate::format::{ENTRY_HEADER, Entry, STEP};
use std::collections::{BTreeMap, HashMap};
use tinkerbell_core::words::Owner;

/// Where a blob's entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) pack: u32,
    /// Length of the body.
    pub(crate) len: u32,
    pub(crate) offset: u64,
    pub(crate) seq: u64,
}

impl Slot {
    /// What the entry takes in its pack.
    pub(crate) fn size(&self) -> u64 {
        (ENTRY_HEADER as u64 + u64::from(self.len)).next_multiple_of(STEP)
    }
}

type Short = [u8; 16];

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: BTreeMap<(Short, u32), Slot>,
    owners: HashMap<Owner, u32>,
    /// Entries on disk of an owner that do not count.
    stale: HashMap<u32, u64>,
    /// Bytes of such entries by pack.
    dead: HashMap<u32, u64>,
}

impl Index {
    fn owner(&mut self, owner: Owner) -> u32 {
        let next = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        *self.owners.entry(owner).or_insert(next)
    }

    /// Adds an entry as it lies in a pack.
    pub(crate) fn add(&mut self, entry: &Entry, pack: u32, offset: u64) {
        let key = (short(&entry.address), self.owner(entry.owner));
        let slot = Slot { pack, len: entry.len, offset, seq: entry.seq };
        match self.slots.get(&key).copied() {
            Some(newer) if newer.seq > slot.seq => self.bury(key.1, slot),
            older => {
                self.slots.insert(key, slot);
                if let Some(older) = older {
                    self.bury(key.1, older);
                }
            }
        }
    }

    fn bury(&mut self, owner: u32, slot: Slot) {
        *self.stale.entry(owner).or_default() += 1;
        self.bury_bytes(slot.pack, slot.size());
    }

    /// Counts bytes of a pack as dead.
    pub(crate) fn bury_bytes(&mut self, pack: u32, bytes: u64) {
        *self.dead.entry(pack).or_default() += bytes;
    }

    /// The owner's entry for an address.
    pub(crate) fn of(&self, owner: Owner, address: &[u8; 32]) -> Option<Slot> {
        self.slots.get(&(short(address), *self.owners.get(&owner)?)).copied()
    }

    /// All entries for an address, whoever owns them.
    pub(crate) fn all(&self, address: &[u8; 32]) -> Vec<Slot> {
        let short = short(address);
        self.slots.range((short, 0)..=(short, u32::MAX)).map(|(_, slot)| *slot).collect()
    }

    /// The owner's entries, oldest first.
    pub(crate) fn list(&self, owner: Owner) -> Vec<Slot> {
        let Some(owner) = self.owners.get(&owner) else { return Vec::new() };
        let mut found: Vec<Slot> = self.slots.iter().filter(|(key, _)| key.1 == *owner).map(|(_, slot)| *slot).collect();
        found.sort_by_key(|slot| slot.seq);
        found
    }

    /// Drops the entries of owners that are older than the owner's mark.
    pub(crate) fn forget(&mut self, marks: &HashMap<Owner, u64>) {
        let marks: HashMap<u32, u64> = marks.iter().filter_map(|(owner, seq)| Some((*self.owners.get(owner)?, *seq))).collect();
        self.drop_where(|owner, slot| marks.get(&owner).is_some_and(|seq| slot.seq < *seq));
    }

    fn drop_where(&mut self, gone: impl Fn(u32, &Slot) -> bool) {
        let mut buried = Vec::new();
        self.slots.retain(|key, slot| {
            let gone = gone(key.1, slot);
            if gone {
                buried.push((key.1, *slot));
            }
            !gone
        });
        buried.into_iter().for_each(|(owner, slot)| self.bury(owner, slot));
    }

    /// Drops entries that never became durable and are cut from their pack.
    pub(crate) fn cut(&mut self, pack: u32, from: u64) {
        self.slots.retain(|_, slot| slot.pack != pack || slot.offset < from);
    }

    /// An entry stands at `to` as well, as it does at `from`. The copy counts if the original did and
    /// `is_durable` holds; one of the two is stale from now on.
    pub(crate) fn copied(&mut self, entry: &Entry, from: (u32, u64), to: (u32, u64), is_durable: bool) {
        let key = (short(&entry.address), self.owner(entry.owner));
        let mut loser = to;
        if let Some(slot) = self.slots.get_mut(&key).filter(|slot| is_durable && (slot.pack, slot.offset) == from) {
            (slot.pack, slot.offset) = to;
            loser = from;
        }
        self.bury(key.1, Slot { pack: loser.0, len: entry.len, offset: loser.1, seq: entry.seq });
    }

    /// Whether the entry at this place counts.
    pub(crate) fn is_live(&self, entry: &Entry, pack: u32, offset: u64) -> bool {
        self.of(entry.owner, &entry.address).is_some_and(|slot| (slot.pack, slot.offset) == (pack, offset))
    }

    /// Entries of the owner on disk that do not count.
    pub(crate) fn stale(&self, owner: Owner) -> u64 {
        self.owners.get(&owner).and_then(|owner| self.stale.get(owner)).copied().unwrap_or(0)
    }

    /// A pack is gone with these entries, none of which counts.
    pub(crate) fn removed(&mut self, pack: u32, entries: &[Owner]) {
        self.dead.remove(&pack);
        for owner in entries {
            let owner = self.owner(*owner);
            if let Some(count) = self.stale.get_mut(&owner) {
                *count = count.saturating_sub(1);
            }
        }
        self.stale.retain(|_, count| *count > 0);
    }

    /// Dead bytes of a pack.
    pub(crate) fn dead(&self, pack: u32) -> u64 {
        self.dead.get(&pack).copied().unwrap_or(0)
    }
}

fn short(address: &[u8; 32]) -> Short {
    address.first_chunk().copied().unwrap_or_default()
}
