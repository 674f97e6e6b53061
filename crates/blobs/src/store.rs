//! The store: content in, references out, by way of keys, packs and index.
//!
//! Blocking work runs off the runtime. Invariant: a reference is given out only once its entry is
//! durable, and content only if it opens under its own address.

use crate::compact::compact;
use crate::error::Error;
use crate::format::{Entry, Kind};
use crate::index::Slot;
use crate::legacy::{KEY_ID, Legacy};
use crate::pack::Pack;
use crate::seal::{self, TAG_BYTES};
use crate::shelf::{PACK_BYTES, Shelf, make_dir};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{BlobStore, Keyring};
use tinkerbell_core::words::{BlobRef, Owner};

/// Directory of the packs.
const PACKS: &str = "packs";
/// Packs that one call of `forget` rewrites at most; more wait for the next one.
const PACKS_PER_CALL: usize = 4;
/// Most bytes of one blob.
pub const MOST_BYTES: usize = 64 << 20;

/// Content-addressed bytes in a directory, sealed with the keys of their subjects.
pub struct DiskBlobs {
    parts: Arc<Parts>,
}

struct Parts {
    dir: PathBuf,
    shelf: Shelf,
    legacy: Legacy,
    keyring: Arc<dyn Keyring>,
}

impl std::fmt::Debug for DiskBlobs {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskBlobs").field("dir", &self.parts.dir).finish_non_exhaustive()
    }
}

impl DiskBlobs {
    /// Opens the store in `dir`, making it when it is missing. Blocks on the disk: the headers of all
    /// entries are read, and the last pack whole. An end that was never acknowledged is cut; so one
    /// process at a time may have it open. Blobs of the first layout stay readable.
    ///
    /// # Errors
    /// When the directory can not be used or a newer release wrote it. A damaged entry is no error
    /// before it is asked for.
    pub fn open(dir: impl Into<PathBuf>, keyring: Arc<dyn Keyring>) -> Result<Arc<Self>, Fault> {
        Self::open_sized(&dir.into(), keyring, PACK_BYTES)
    }

    pub(crate) fn open_sized(dir: &Path, keyring: Arc<dyn Keyring>, pack_bytes: u64) -> Result<Arc<Self>, Fault> {
        make_dir(dir).map_err(|e| Error::io("create the directory", dir, e))?;
        let legacy = Legacy::open(dir)?;
        let shelf = Shelf::open(&dir.join(PACKS), pack_bytes)?;
        Ok(Arc::new(Self { parts: Arc::new(Parts { dir: dir.to_owned(), shelf, legacy, keyring }) }))
    }

    /// Runs blocking work off the runtime. Dropping the future does not stop the work, which then
    /// ends by itself and leaves the store whole.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parts) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Fault>> {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let dir = parts.dir.clone();
            match tokio::task::spawn_blocking(move || work(&parts)).await {
                Ok(result) => Ok(result?),
                Err(e) => Err(Error::io("work in", dir, io::Error::other(e)).into()),
            }
        })
    }
}

impl BlobStore for DiskBlobs {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        self.run(move |parts| parts.put(owner, &content))
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        self.run(move |parts| parts.get(blob))
    }

    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        self.run(move |parts| parts.list(owner))
    }

    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        self.run(move |parts| parts.forget(owner))
    }
}

impl Parts {
    fn put(&self, owner: Owner, content: &[u8]) -> Result<BlobRef, Error> {
        if content.len() > MOST_BYTES {
            return Err(Error::TooLarge { size: content.len(), most: MOST_BYTES });
        }
        let key = self.keyring.of(owner.subject).map_err(Error::Key)?;
        let blob = seal::name(&key, content);
        let there = self.shelf.lock().index.of(owner, &blob.hash);
        // Trusting a damaged entry would lose the content; a whole one may wait for its sync yet.
        let damaged = match there {
            Some(slot) if self.is_whole(&slot)? => {
                self.shelf.commit(Shelf::ticket(slot.pack, slot.offset.saturating_add(slot.size())))?;
                return Ok(blob);
            }
            other => other,
        };
        let body = seal::seal(&key, blob, content)?;
        let len = u32::try_from(body.len()).map_err(|_| Error::TooLarge { size: content.len(), most: MOST_BYTES })?;
        let entry = Entry { kind: Kind::Blob, seq: 0, len, key_id: key.id, owner, address: blob.hash, body_crc: crc32c::crc32c(&body) };
        let mut state = self.shelf.room(u64::from(len))?;
        let ticket = match state.index.of(owner, &blob.hash) {
            // Somebody else was faster.
            Some(slot) if Some(slot) != damaged => Shelf::ticket(slot.pack, slot.offset.saturating_add(slot.size())),
            _ => {
                let done = self.shelf.append(&mut state, entry, &body)?;
                state.index.add(&done.entry, done.pack, done.offset);
                done.ticket
            }
        };
        drop(state);
        self.shelf.commit(ticket)?;
        Ok(blob)
    }

    fn is_whole(&self, slot: &Slot) -> Result<bool, Error> {
        let Some(pack) = self.shelf.lock().packs.get(&slot.pack).cloned() else { return Ok(false) };
        let entry = pack.entry(slot.offset, slot.len).map_err(|e| Error::io("read", &pack.path, e))?;
        Ok(entry.is_some())
    }

    /// Where the blob lies. An open pack can be read even after compaction has removed it.
    fn places(&self, blob: BlobRef) -> Vec<(Slot, Pack)> {
        let state = self.shelf.lock();
        state.index.all(&blob.hash).into_iter().filter_map(|slot| Some((slot, state.packs.get(&slot.pack)?.clone()))).collect()
    }

    fn get(&self, blob: BlobRef) -> Result<Bytes, Error> {
        if blob.key_id == KEY_ID {
            return self.legacy.get(blob);
        }
        let mut damage = None;
        for (slot, pack) in self.places(blob) {
            let damaged = || Error::Damaged { blob, path: pack.path.clone(), offset: slot.offset };
            let found = pack.entry(slot.offset, slot.len).map_err(|e| Error::io("read", &pack.path, e))?;
            let Some((entry, body)) = found.filter(|(entry, _)| entry.address == blob.hash && entry.key_id == blob.key_id) else {
                damage = Some(damaged());
                continue;
            };
            let key = self.keyring.find(entry.key_id).map_err(Error::Key)?;
            match seal::open(&key, blob, body)? {
                Some(content) => return Ok(Bytes::from(content)),
                None => damage = Some(Error::Misfit { blob, path: pack.path.clone(), offset: slot.offset }),
            }
        }
        Err(damage.unwrap_or(Error::Missing(blob)))
    }

    fn list(&self, owner: Owner) -> Result<Vec<BlobRef>, Error> {
        let (slots, packs) = {
            let state = self.shelf.lock();
            (state.index.list(owner), state.packs.clone())
        };
        let mut found = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(pack) = packs.get(&slot.pack) else { continue };
            let header = pack.header(slot.offset).map_err(|e| Error::io("read", &pack.path, e))?;
            // One whose header is damaged can not be named; asking for it by its reference tells.
            found.extend(header.map(|entry| BlobRef {
                key_id: entry.key_id,
                hash: entry.address,
                size_bytes: u64::from(entry.len).saturating_sub(TAG_BYTES as u64),
            }));
        }
        Ok(found)
    }

    fn forget(&self, owner: Owner) -> Result<(), Error> {
        if self.shelf.lock().index.list(owner).is_empty() {
            return Ok(());
        }
        let mut state = self.shelf.room(0)?;
        let mark = Entry { kind: Kind::Forgotten, seq: 0, len: 0, key_id: 0, owner, address: [0; 32], body_crc: 0 };
        let mark = self.shelf.append(&mut state, mark, &[])?;
        state.index.forget(&[(owner, mark.entry.seq)].into());
        drop(state);
        self.shelf.commit(mark.ticket)?;
        for _ in 0..PACKS_PER_CALL {
            match compact(&self.shelf) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "the room of forgotten blobs could not be won back yet");
                    break;
                }
            }
        }
        Ok(())
    }
}
