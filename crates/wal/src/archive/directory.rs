//! An archive's store in a plain directory: one file for each blob, in the order of storing.
//!
//! It seals nothing, because what it is given is sealed already where it has to be; so it can be read
//! on another machine without any key of this one. Invariant: a name stands for whole bytes that are
//! on stable storage, and `get` gives only bytes that match their hash.
//!
//! ```text
//! DIR/<subject>-<task>/<number>-<reference>     what is stored for one owner, counted from 1
//! DIR/new/                                      files that are being written
//! ```

use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::{BlobRef, Owner, Subject};

const NEW: &str = "new";

/// Blobs in a directory.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Mutex<PathBuf>>);

impl Directory {
    /// The store in `dir`, which is made with mode 0700 when it is missing. One process at a time may
    /// write to it.
    ///
    /// # Errors
    /// When the directory can not be used.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Arc<Self>, Fault> {
        let dir = dir.into();
        let made = make_dir(&dir).and_then(|()| make_dir(&dir.join(NEW))).and_then(|()| sweep(&dir.join(NEW)));
        made.map_err(|e| crate::Error::io("create the archive", &dir, e))?;
        Ok(Arc::new(Self(Arc::new(Mutex::new(dir)))))
    }

    /// The store in `dir` as it stands, for reading; nothing is created.
    #[must_use]
    pub fn existing(dir: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self(Arc::new(Mutex::new(dir.into()))))
    }

    /// Dropping the future does not stop the work, which then ends by itself.
    fn run<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static) -> BoxFuture<'static, Result<T, Fault>> {
        let place = Arc::clone(&self.0);
        Box::pin(async move {
            let work = move || {
                // One at a time, so that numbers are given in order.
                let dir = place.lock().unwrap_or_else(PoisonError::into_inner);
                work(&dir).map_err(|e| crate::Error::io("use the archive", &*dir, e))
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => Ok(result?),
                Err(e) => Err(crate::Error::io("use", "the archive", io::Error::other(e)).into()),
            }
        })
    }
}

impl BlobStore for Directory {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        self.run(move |dir| put(dir, owner, &content))
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found =
            self.run(move |dir| find(dir, blob).map(|found| found.map(|(subject, path)| fs::read(path).map(|bytes| (subject, bytes)))));
        Box::pin(async move {
            let content = match found.await? {
                Some(Ok((subject, content))) if reference(subject, &content) == blob => content,
                Some(Ok(_)) => {
                    let why = "its bytes do not match their hash".to_owned();
                    return Err(super::Error::Damaged { what: format!("blob {blob}"), why }.into());
                }
                Some(Err(e)) => return Err(crate::Error::io("read the archive's blob", blob.to_string(), e).into()),
                None => return Err(super::Error::Incomplete { missing: format!("blob {blob}") }.into()),
            };
            Ok(Bytes::from(content))
        })
    }

    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        self.run(move |dir| Ok(listed(&home(dir, owner))?.into_iter().map(|(_, blob, _)| blob).collect()))
    }

    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        self.run(move |dir| match fs::remove_dir_all(home(dir, owner)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => sync_dir(dir),
        })
    }
}

/// Key 0 is no key. The subject is hashed first, so equal bytes of two subjects have two references.
fn reference(subject: Subject, content: &[u8]) -> BlobRef {
    let mut hash = blake3::Hasher::new();
    hash.update(&subject.0.to_le_bytes());
    hash.update(content);
    BlobRef { key_id: 0, hash: *hash.finalize().as_bytes(), size_bytes: content.len() as u64 }
}

fn home(dir: &Path, owner: Owner) -> PathBuf {
    dir.join(format!("{:08x}-{}", owner.subject.0, owner.task))
}

/// What an owner's directory holds, in order; nothing where it is missing.
fn listed(home: &Path) -> io::Result<Vec<(u64, BlobRef, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(home) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse);
        found.extend(name.map(|(number, blob)| (number, blob, path)));
    }
    found.sort();
    Ok(found)
}

fn name(number: u64, blob: &BlobRef) -> String {
    let hex: String = blob.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{number:016x}-{hex}")
}

fn parse(text: &str) -> Option<(u64, BlobRef)> {
    let (number, hex) = text.split_once('-')?;
    let number = u64::from_str_radix(number, 16).ok()?;
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect();
    let blob = BlobRef::from_bytes(&bytes?)?;
    (name(number, &blob) == text).then_some((number, blob))
}

fn find(dir: &Path, blob: BlobRef) -> io::Result<Option<(Subject, PathBuf)>> {
    for owner in fs::read_dir(dir)? {
        let owner = owner?.path();
        let name = owner.file_name().and_then(|name| name.to_str());
        let subject = name.and_then(|name| u32::from_str_radix(name.split('-').next()?, 16).ok());
        if let Some(subject) = subject
            && let Some((_, _, path)) = listed(&owner)?.into_iter().find(|(_, known, _)| *known == blob)
        {
            return Ok(Some((Subject(subject), path)));
        }
    }
    Ok(None)
}

fn put(dir: &Path, owner: Owner, content: &[u8]) -> io::Result<BlobRef> {
    let (blob, home) = (reference(owner.subject, content), home(dir, owner));
    make_dir(&home)?;
    let there = listed(&home)?;
    let whole = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() == blob.size_bytes);
    if let Some((_, _, path)) = there.iter().find(|(_, known, _)| *known == blob)
        && whole(path)
    {
        // Whoever stored it may have ended before the directory was synced.
        sync_dir(&home)?;
        return Ok(blob);
    }
    let number = there.last().map_or(1, |(number, ..)| number.saturating_add(1));
    let (new, path) = (dir.join(NEW).join(name(number, &blob)), home.join(name(number, &blob)));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_data()).and_then(|()| fs::rename(&new, &path));
    if let Err(e) = written {
        // The reason for the failure matters more than a left-over that the next opening removes.
        drop(fs::remove_file(&new));
        return Err(e);
    }
    sync_dir(&home)?;
    Ok(blob)
}

pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sweep(new: &Path) -> io::Result<()> {
    for entry in fs::read_dir(new)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
