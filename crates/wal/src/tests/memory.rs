//! A disk in memory that notes every act, fails on request, and can be cut at any moment.

use crate::disk::{Disk, DiskFile, Ground, Lock, Mode};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

/// One act that a crash can undo.
#[derive(Debug, Clone)]
pub enum Op {
    Create {
        id: usize,
        name: String,
    },
    Write {
        id: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        id: usize,
        len: usize,
    },
    Sync {
        id: usize,
    },
    /// `id` is the file that had the name `from`: a directory's entry points to a file and not to
    /// another name, so on a disk that lost the file's creation `to` is still this very file.
    Rename {
        id: usize,
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncDir,
}

#[derive(Default)]
pub struct Faults {
    /// Syncs of files fail from now on.
    pub sync: bool,
    /// So many of the next syncs fail; what they were to make durable stays in the cache.
    pub failing_syncs: usize,
    /// Whether the next syncs succeed, one by one; those behind the last do.
    pub syncs: std::collections::VecDeque<bool>,
    /// What reading from the medium gives is not what was written.
    pub lost: bool,
    /// Writes fail with this errno.
    pub write: Option<i32>,
    /// Bytes that still fit; then `ENOSPC`.
    pub space: Option<usize>,
    /// Bytes that all files may take together; then `ENOSPC`.
    pub capacity: Option<usize>,
    /// Most bytes that one write takes.
    pub short: Option<usize>,
    /// Syncs wait.
    pub hold: bool,
}

#[derive(Default)]
struct Mem {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    ops: Vec<Op>,
    /// Which file was read, and up to where.
    reads: Vec<(usize, usize)>,
    locked: bool,
    faults: Faults,
}

#[derive(Clone, Default)]
pub struct MemDisk(Arc<(Mutex<Mem>, Condvar)>);

impl MemDisk {
    fn with<T>(&self, act: impl FnOnce(&mut Mem) -> T) -> T {
        act(&mut self.0.0.lock().unwrap())
    }

    pub fn fault(&self, set: impl FnOnce(&mut Faults)) {
        self.with(|mem| set(&mut mem.faults));
        self.0.1.notify_all();
    }

    pub fn ops(&self) -> Vec<Op> {
        self.with(|mem| mem.ops.clone())
    }

    /// Every read of a file that still has a name: the name, and where the read ended.
    pub fn reads(&self) -> Vec<(String, usize)> {
        self.with(|mem| {
            let names: BTreeMap<usize, &String> = mem.names.iter().map(|(name, id)| (*id, name)).collect();
            mem.reads.iter().filter_map(|(id, end)| Some(((*names.get(id)?).clone(), *end))).collect()
        })
    }

    pub fn syncs(&self) -> usize {
        self.with(|mem| mem.ops.iter().filter(|op| matches!(op, Op::Sync { .. })).count())
    }

    /// Names and bytes of all files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.with(|mem| mem.names.iter().map(|(name, id)| (name.clone(), mem.files[*id].clone())).collect())
    }

    /// Puts a file beside the others, as if it had always been there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.with(|mem| {
            mem.names.insert(name.to_owned(), mem.files.len());
            mem.files.push(bytes);
        });
    }

    pub fn from_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        disk.with(|mem| {
            for (name, bytes) in files {
                mem.names.insert(name.clone(), mem.files.len());
                mem.files.push(bytes.clone());
            }
        });
        disk
    }

    /// Lets acts take effect that were noted on a disk with the same files.
    pub fn redo<'a>(&self, ops: impl IntoIterator<Item = &'a Op>) {
        self.with(|mem| ops.into_iter().for_each(|op| mem.apply(op)));
    }

    /// The disk on which exactly these acts took effect.
    pub fn replay<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Self {
        let disk = Self::default();
        disk.with(|mem| ops.into_iter().for_each(|op| mem.apply(op)));
        disk
    }
}

impl Mem {
    /// How far the file may grow.
    fn end(&self, id: usize) -> usize {
        let Some(capacity) = self.faults.capacity else { return usize::MAX };
        let others: usize = self.names.values().filter(|other| **other != id).map(|other| self.files[*other].len()).sum();
        capacity.saturating_sub(others).max(self.files[id].len())
    }

    fn file(&mut self, id: usize) -> &mut Vec<u8> {
        if self.files.len() <= id {
            self.files.resize(id + 1, Vec::new());
        }
        &mut self.files[id]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { id, name } => {
                self.file(*id);
                self.names.insert(name.clone(), *id);
            }
            Op::Write { id, offset, bytes } => {
                let file = self.file(*id);
                if file.len() < offset + bytes.len() {
                    file.resize(offset + bytes.len(), 0);
                }
                file[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Op::Truncate { id, len } => self.file(*id).resize(*len, 0),
            Op::Rename { id, from, to } => {
                self.file(*id);
                // Another file may have the name when acts in between were lost.
                if self.names.get(from) == Some(id) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *id);
            }
            Op::Remove { name } => {
                self.names.remove(name);
            }
            Op::Sync { .. } | Op::SyncDir => {}
        }
    }

    fn act(&mut self, op: Op) {
        self.apply(&op);
        self.ops.push(op);
    }
}

impl Disk for MemDisk {
    fn path(&self) -> &Path {
        Path::new("/memory")
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|mem| mem.names.keys().cloned().collect()))
    }
    fn lock(&self) -> io::Result<Lock> {
        if self.with(|mem| std::mem::replace(&mut mem.locked, true)) {
            return Ok(Lock::Taken { pid: Some(42) });
        }
        Ok(Lock::Held(Box::new(Unlock(self.clone()))))
    }
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        self.with(|mem| {
            let id = match (mem.names.get(name), mode) {
                (Some(id), Mode::Edit | Mode::Read) => *id,
                (None, Mode::Edit | Mode::Read) => return Err(io::ErrorKind::NotFound.into()),
                // As with `O_TRUNC`: the same file, emptied.
                (Some(id), Mode::Create) => {
                    let id = *id;
                    mem.act(Op::Truncate { id, len: 0 });
                    id
                }
                (None, Mode::Create) => {
                    let id = mem.files.len();
                    mem.act(Op::Create { id, name: name.to_owned() });
                    id
                }
            };
            Ok(Box::new(MemFile { disk: self.clone(), id }) as Box<dyn DiskFile>)
        })
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|mem| {
            let id = *mem.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            mem.act(Op::Rename { id, from: from.to_owned(), to: to.to_owned() });
            Ok(())
        })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|mem| mem.act(Op::Remove { name: name.to_owned() }));
        Ok(())
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.with(|mem| mem.act(Op::SyncDir));
        Ok(())
    }
    fn ground(&self) -> io::Result<Ground> {
        Ok(self.with(|mem| {
            let used: usize = mem.names.values().map(|id| mem.files[*id].len()).sum();
            let free = mem.faults.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
            Ground { free_bytes: free as u64, preallocate: true }
        }))
    }
}

struct Unlock(MemDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.with(|mem| mem.locked = false);
    }
}

struct MemFile {
    disk: MemDisk,
    id: usize,
}

impl DiskFile for MemFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.with(|mem| {
            let bytes = mem.files[self.id].get(offset as usize..).unwrap_or_default();
            let n = bytes.len().min(buf.len());
            buf[..n].copy_from_slice(&bytes[..n]);
            mem.reads.push((self.id, offset as usize + n));
            Ok(n)
        })
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.disk.with(|mem| {
            if let Some(errno) = mem.faults.write {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let mut n = bytes.len().min(mem.faults.short.unwrap_or(usize::MAX));
            n = n.min(mem.end(self.id).saturating_sub(offset as usize));
            if n == 0 && !bytes.is_empty() {
                return Err(io::Error::from_raw_os_error(28));
            }
            if let Some(space) = &mut mem.faults.space {
                n = n.min(*space);
                *space -= n;
                if n == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            mem.act(Op::Write { id: self.id, offset: offset as usize, bytes: bytes[..n].to_vec() });
            Ok(n)
        })
    }
    fn sync(&self) -> io::Result<()> {
        let (mutex, wake) = &*self.disk.0;
        let mut mem = wake.wait_while(mutex.lock().unwrap(), |mem| mem.faults.hold).unwrap();
        let failing = mem.faults.failing_syncs > 0;
        mem.faults.failing_syncs = mem.faults.failing_syncs.saturating_sub(1);
        let failing = failing || mem.faults.syncs.pop_front() == Some(false);
        if mem.faults.sync || failing {
            return Err(io::Error::from_raw_os_error(5));
        }
        mem.act(Op::Sync { id: self.id });
        Ok(())
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.with(|mem| mem.act(Op::Truncate { id: self.id, len: len as usize }));
        Ok(())
    }
    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.disk.with(|mem| mem.faults.lost) {
            buf.fill(0);
            return Ok(buf.len());
        }
        self.read_at(offset, buf)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.with(|mem| {
            if mem.end(self.id) < len as usize {
                return Err(io::Error::from_raw_os_error(28));
            }
            if mem.files[self.id].len() < len as usize {
                mem.act(Op::Truncate { id: self.id, len: len as usize });
            }
            Ok(())
        })
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.with(|mem| mem.files[self.id].len() as u64))
    }
}
