//! The simulated disk as the journal of one daemon sees it.
//!
//! Each act passes the daemon's life first, so a daemon that was killed in the middle of writing
//! writes no more. Invariant: a dead daemon changes no file.

use crate::disk::SimDisk;
use crate::life::Life;
use crate::plant::Plant;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tinkerbell_wal::disk::{Disk, DiskFile, Ground, Lock, Mode};

/// A directory on the simulated disk.
#[derive(Clone)]
pub struct LifeDisk {
    /// The disk.
    pub disk: Arc<SimDisk>,
    /// Who writes.
    pub life: Arc<Life>,
    /// Whether segments shall be filled ahead.
    pub preallocate: bool,
    /// The bug that is planted, if any.
    pub plant: Option<Plant>,
}

struct LifeFile {
    on: LifeDisk,
    id: usize,
}

impl LifeDisk {
    fn touch(&self) -> io::Result<()> {
        if self.life.touch() { Ok(()) } else { Err(io::Error::other("the process is dead")) }
    }
}

impl Disk for LifeDisk {
    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.touch()?;
        Ok(self.disk.list())
    }

    fn lock(&self) -> io::Result<Lock> {
        self.touch()?;
        Ok(match self.disk.lock(self.life.number) {
            None => Lock::Held(Box::new(Held(self.clone()))),
            Some(life) => Lock::Taken { pid: Some(life) },
        })
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        self.touch()?;
        let id = match mode {
            Mode::Create => self.disk.create(name)?,
            Mode::Edit | Mode::Read => self.disk.find(name)?,
        };
        Ok(Box::new(LifeFile { on: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.touch()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.touch()?;
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.touch()?;
        self.disk.sync_dir()
    }

    fn ground(&self) -> io::Result<Ground> {
        self.touch()?;
        Ok(Ground { free_bytes: self.disk.free_bytes(), preallocate: self.preallocate })
    }
}

struct Held(LifeDisk);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.disk.unlock(self.0.life.number);
    }
}

impl DiskFile for LifeFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.on.touch()?;
        self.on.disk.read(self.id, offset, buf, false)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.on.touch()?;
        self.on.disk.write(self.id, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.on.touch()?;
        if self.on.plant == Some(Plant::EarlyAck) && self.on.disk.lies(self.id) {
            return Ok(());
        }
        self.on.disk.sync(self.id)?;
        // A death here is one after the sync and before its caller hears of it.
        self.on.touch()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.on.touch()?;
        self.on.disk.truncate(self.id, len)
    }

    fn size(&self) -> io::Result<u64> {
        self.on.touch()?;
        self.on.disk.size(self.id)
    }

    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.on.touch()?;
        self.on.disk.read(self.id, offset, buf, true)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.on.touch()?;
        self.on.disk.allocate(self.id, len)
    }
}
