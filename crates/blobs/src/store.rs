//! The store on disk: `ab/cdef…` under its directory, one file per blob.
//!
//! Blocking work runs off the runtime. Invariant: a file has its final name only after its bytes are
//! durable, so a name always stands for whole bytes, and putting the same bytes again needs no write.

use crate::error::Error;
use crate::key::{KEY_ID, load};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::clock::Entropy;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::{BlobRef, Owner};

/// Directory of files that are being written.
const NEW: &str = "new";

/// Content-addressed bytes in a directory.
#[derive(Debug)]
pub struct DiskBlobs {
    shelf: Arc<Shelf>,
}

struct Shelf {
    dir: PathBuf,
    key: [u8; 32],
    /// Distinguishes the temporary files of this opening.
    opening: u128,
    counter: AtomicU64,
    names: Mutex<BTreeMap<PathBuf, Names>>,
}

/// Whether the names in one of the at most 256 directories are known to be durable.
#[derive(Debug, Default)]
struct Names {
    /// Renames whose sync has not returned.
    open: u32,
    /// Whether a sync returned since this opening; an earlier process may have died before its own.
    synced: bool,
}

impl std::fmt::Debug for Shelf {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DiskBlobs {
    /// Opens the store in `dir`, making directory and key when they are missing. Blocks on the disk.
    /// What an earlier process left half written is removed; so one process at a time may have it open.
    ///
    /// # Errors
    /// When the directory can not be used or the key file is damaged.
    pub fn open(dir: impl Into<PathBuf>, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, Fault> {
        Ok(Self::open_dir(dir.into(), &*entropy)?)
    }

    fn open_dir(dir: PathBuf, entropy: &dyn Entropy) -> Result<Arc<Self>, Error> {
        let made = make_dir(&dir).and_then(|()| make_dir(&dir.join(NEW)));
        made.map_err(|e| Error::io("create the directory", &dir, e))?;
        let key = load(&dir, entropy)?;
        sweep(&dir.join(NEW)).map_err(|e| Error::io("tidy", dir.join(NEW), e))?;
        let shelf = Shelf { dir, key, opening: entropy.id(), counter: AtomicU64::new(0), names: Mutex::default() };
        Ok(Arc::new(Self { shelf: Arc::new(shelf) }))
    }

    /// Runs blocking work off the runtime. Dropping the future does not stop the work, which then
    /// ends by itself and leaves the store whole.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Fault>> {
        let shelf = Arc::clone(&self.shelf);
        Box::pin(async move {
            let dir = shelf.dir.clone();
            match tokio::task::spawn_blocking(move || work(&shelf)).await {
                Ok(result) => Ok(result?),
                Err(e) => Err(Error::io("work in", dir, io::Error::other(e)).into()),
            }
        })
    }
}

impl BlobStore for DiskBlobs {
    fn put(&self, _owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        self.run(move |shelf| shelf.put(&content))
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        self.run(move |shelf| shelf.get(blob))
    }

    fn list(&self, _owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn forget(&self, _owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

impl Shelf {
    fn name(&self, content: &[u8]) -> BlobRef {
        let hash = blake3::keyed_hash(&self.key, content);
        BlobRef { key_id: KEY_ID, hash: *hash.as_bytes(), size_bytes: content.len() as u64 }
    }

    /// The blob's directory and file.
    fn place(&self, blob: BlobRef) -> Result<(PathBuf, PathBuf), Error> {
        if blob.key_id != KEY_ID {
            return Err(Error::OtherKey { blob, have: KEY_ID });
        }
        let hex = blake3::Hash::from_bytes(blob.hash).to_hex();
        let (front, back) = hex.as_str().split_at_checked(2).unwrap_or_default();
        let dir = self.dir.join(front);
        let file = dir.join(back);
        Ok((dir, file))
    }

    fn put(&self, content: &[u8]) -> Result<BlobRef, Error> {
        let blob = self.name(content);
        let (dir, path) = self.place(blob)?;
        // A name stands for whole bytes, so length is all there is to check; another length means
        // damage, which writing anew repairs.
        let found = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == blob.size_bytes);
        if !found {
            self.write(&dir, &path, content).map_err(|e| Error::io("store", &path, e))?;
        } else if !self.names(&dir, |names| names.synced && names.open == 0) {
            // The name is there, but perhaps not for long: whoever gave it may be before the sync.
            sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;
            self.names(&dir, |names| names.synced = true);
        }
        Ok(blob)
    }

    fn names<T>(&self, dir: &Path, look: impl FnOnce(&mut Names) -> T) -> T {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        look(names.entry(dir.to_owned()).or_default())
    }

    fn write(&self, dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
        make_dir(dir)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let new = self.dir.join(NEW).join(format!("{:032x}-{number}", self.opening));
        self.names(dir, |names| names.open += 1);
        let written = fill(&new, content).and_then(|()| fs::rename(&new, path)).and_then(|()| sync_dir(dir));
        self.names(dir, |names| {
            names.open -= 1;
            // After a failed sync nobody knows which names are durable.
            names.synced = written.is_ok();
        });
        if written.is_err() {
            // The reason for the failure matters more than a left-over that the next opening removes.
            drop(fs::remove_file(&new));
        }
        written
    }

    fn get(&self, blob: BlobRef) -> Result<Bytes, Error> {
        let (_, path) = self.place(blob)?;
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(blob)),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        if self.name(&content) != blob {
            return Err(Error::Damaged { blob, path });
        }
        Ok(Bytes::from(content))
    }
}

fn fill(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_data()
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
