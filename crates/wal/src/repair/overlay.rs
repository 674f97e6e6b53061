//! A directory as it would be with some files replaced.
//!
//! For reading only: whatever would write is refused. Invariant: the directory under it is never
//! changed through it.

use crate::disk::{Disk, DiskFile, Lock, Mode};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Files by name that take the place of others.
pub(super) type Fresh = BTreeMap<String, Arc<Vec<u8>>>;

pub(super) struct Overlay<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) fresh: &'a Fresh,
}

struct Held(Arc<Vec<u8>>);

impl Disk for Overlay<'_> {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list()?;
        names.retain(|name| !self.fresh.contains_key(name));
        names.extend(self.fresh.keys().cloned());
        Ok(names)
    }

    fn lock(&self) -> io::Result<Lock> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        match (self.fresh.get(name), mode) {
            (Some(bytes), Mode::Read) => Ok(Box::new(Held(Arc::clone(bytes)))),
            (None, Mode::Read) => self.disk.open(name, mode),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl DiskFile for Held {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let Some((to, from)) = buf.get_mut(..n).zip(rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
