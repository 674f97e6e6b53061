//! The few acts on files that the journal needs, behind a trait.
//!
//! Not a general file system: one directory, flat names. The trait is the seam where a simulated
//! disk goes in. Invariant: `sync` returns only after the bytes are on stable storage, and its
//! failure is reported to the caller exactly once and never retried here.

use crate::share::{each, shares};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// New or emptied, for writing.
    Create,
    /// Existing, for reading and writing.
    Edit,
    /// Existing, for reading.
    Read,
}

/// What stands when the lock is asked for.
pub enum Lock {
    /// It is ours until the guard is dropped.
    Held(Box<dyn Send + Sync>),
    /// Somebody else holds it.
    Taken {
        /// The holder, when it left its number.
        pid: Option<u32>,
    },
}

/// What a disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Whether a sync of bytes that lie in space filled before is cheaper than one that makes the
    /// file longer. Not so where writing copies (btrfs, ZFS) or syncing is free (tmpfs).
    pub preallocate: bool,
}

/// One directory of files.
pub trait Disk: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// Names in the directory.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Tries to become the single writer.
    fn lock(&self) -> io::Result<Lock>;
    /// Opens a file.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// What it is like. A disk that does not tell has endless space.
    fn ground(&self) -> io::Result<Ground> {
        Ok(Ground { free_bytes: u64::MAX, preallocate: true })
    }
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes at an offset; may write less than given.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Makes all earlier writes durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The file's length.
    fn size(&self) -> io::Result<u64>;
    /// As `read_at`, from the medium itself where the disk can: after a failed sync what is cached
    /// may never have been written.
    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buf)
    }
    /// Takes space so that the file is at least `len` long and writing in it needs no more; what is
    /// new reads as zeros. Where the disk can not promise that, the error is `Unsupported`.
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads `len` bytes at `offset`, fewer only at the end of the file.
pub(crate) fn read_full(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    let done = fill(file, offset, &mut out)?;
    out.truncate(done);
    Ok(out)
}

/// Goes on reading behind what `out` holds of the file, until it holds `len` bytes or all.
///
/// A large file is read in shares: the first touch of fresh memory costs more than the copy.
pub(crate) fn read_into(file: &dyn DiskFile, out: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let start = out.len();
    if out.capacity() < len {
        // Fresh zeros cost nothing until they are touched; growing would touch them here, in one thread.
        let mut fresh = vec![0; len];
        fresh.get_mut(..start).unwrap_or_default().copy_from_slice(out);
        *out = fresh;
    }
    out.resize(len.max(start), 0);
    let rest = out.get_mut(start..).unwrap_or_default();
    let share = rest.len().div_ceil(shares(rest.len())).max(1);
    let parts = rest.chunks_mut(share).enumerate().map(|(n, part)| (start.saturating_add(n.saturating_mul(share)), part)).collect();
    let mut end = start;
    for (offset, read) in each(parts, &|(offset, part): &mut (usize, &mut [u8])| (*offset, fill(file, *offset as u64, part))) {
        let done = read?;
        // Behind a part that came out short lies the end of the file.
        if offset == end {
            end += done;
        }
    }
    out.truncate(end);
    Ok(())
}

fn fill(file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset.saturating_add(done as u64), rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_full(file: &dyn DiskFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset = offset.saturating_add(n as u64);
                bytes = bytes.get(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// The directory as it stands; nothing is created.
    #[must_use]
    pub const fn existing(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory, made with mode 0700 when it is missing.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn create(dir: PathBuf) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Disk for RealDisk {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.at("lock"))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                return Ok(Lock::Taken { pid: read.ok().and_then(|_| text.trim().parse().ok()) });
            }
            Err(errno) => return Err(errno.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        // The number only makes a message better; a full disk must not keep the journal shut.
        match writeln!(file, "{}", std::process::id()) {
            Err(e) if e.kind() != io::ErrorKind::StorageFull => return Err(e),
            _ => {}
        }
        Ok(Lock::Held(Box::new(file)))
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            Mode::Create => options.write(true).create(true).truncate(true),
            Mode::Edit => options.write(true),
            Mode::Read => &mut options,
        };
        Ok(Box::new(RealFile(options.open(self.at(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn ground(&self) -> io::Result<Ground> {
        let facts = rustix::fs::statfs(&self.dir)?;
        let block = u64::try_from(facts.f_bsize).unwrap_or(4096);
        let preallocate = !APPENDING.contains(&u64::try_from(facts.f_type).unwrap_or(0));
        Ok(Ground { free_bytes: facts.f_bavail.saturating_mul(block), preallocate })
    }
}

/// File systems on which filling ahead gains nothing, by their numbers in `statfs(2)`: tmpfs,
/// ramfs, btrfs, ZFS, bcachefs.
const APPENDING: [u64; 5] = [0x0102_1994, 0x8584_58f6, 0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e];

/// What direct reading is aligned to.
const BLOCK: u64 = 4096;

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let again = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        // Not every file system can (tmpfs); then the cache is the medium.
        let Ok(direct) = OpenOptions::new().read(true).custom_flags(flags).open(again) else { return self.read_at(offset, buf) };
        let start = offset - offset % BLOCK;
        let skip = usize::try_from(offset - start).unwrap_or(0);
        let block = usize::try_from(BLOCK).unwrap_or(4096);
        let len = (skip + buf.len()).next_multiple_of(block);
        let mut room = vec![0; len + block];
        let shift = room.as_ptr().align_offset(block);
        let aligned = room.get_mut(shift..).and_then(|room| room.get_mut(..len)).unwrap_or_default();
        let read = direct.read_at(aligned, start)?.saturating_sub(skip).min(buf.len());
        match (buf.get_mut(..read), aligned.get(skip..).and_then(|bytes| bytes.get(..read))) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return Ok(0),
        }
        Ok(read)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len).map_err(|errno| match errno {
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            errno => errno.into(),
        })
    }
}
