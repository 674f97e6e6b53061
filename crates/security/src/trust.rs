//! Trust in what a repository brings: files that steer us count only once a person approved their bytes.
//!
//! Files are read once; what is hashed is what is used. Invariants: bytes that were not approved for
//! this repository are never called trusted, and a store that others could have written holds nothing.

mod format;

use crate::owner;
use format::{Approved, TrustFile, VERSION};
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags, flock};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};

/// Names the form of the bytes that are hashed.
const FORM: &str = "tinkerbell project 1";
/// Approvals kept of one repository: its branches may differ.
const MOST_PER_REPOSITORY: usize = 32;
/// Approvals kept altogether; the oldest go first.
const MOST: usize = 10_000;
/// The most that is read of the store.
const MOST_BYTES: u64 = 16 << 20;

/// A file of a repository, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its path from the repository's root.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What a repository brings that needs a person's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    parts: Vec<Part>,
}

/// How a bundle stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is nothing that needs trust.
    Empty,
    /// These very bytes were approved.
    Trusted,
    /// Others were, at this wall time in milliseconds; not these.
    Changed(u64),
    /// Nothing of this repository was ever approved.
    New,
}

impl Bundle {
    /// Of these files; their order does not count.
    #[must_use]
    pub fn new(mut parts: Vec<Part>) -> Self {
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        Self { parts }
    }

    /// The files, by name.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// SHA-256 over all names and contents, hexadecimal; each is led by its length.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(bytes);
        };
        part(FORM.as_bytes());
        for one in &self.parts {
            part(one.name.as_bytes());
            part(&one.bytes);
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
            // Writing into a string can not fail.
            write!(out, "{byte:02x}").unwrap_or_default();
            out
        })
    }
}

/// Reads a file below a repository's root, at most `most` bytes; `None` when there is none. No link is
/// followed on the way, and nothing but a plain file is read.
///
/// # Errors
/// `TB-TRUST-002` for a link, a pipe, a directory, or a file that is too long or unreadable.
pub fn read_part(root: &Path, name: &str, most: u64) -> Result<Option<Part>, Fault> {
    let odd = |why: &str| {
        Fault::new("TB-TRUST-002", exit::CONFIG, format!("{} can not be read: {why}", root.join(name).display()))
            .hint("a repository's own settings are small plain files, without links on the way to them")
    };
    let Ok(dir) = File::open(root) else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(odd("it is a link, or stands behind one")),
        Err(error) => return Err(odd(&error.to_string())),
    };
    let meta = file.metadata().map_err(|error| odd(&error.to_string()))?;
    if !meta.is_file() || meta.len() > most {
        return Err(odd(&format!("it is not a plain file of at most {} KiB", most / 1024)));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| odd(&error.to_string()))?;
    Ok(Some(Part { name: name.to_owned(), bytes }))
}

/// Where approvals are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustStore {
    path: PathBuf,
    uid: u32,
}

impl TrustStore {
    /// The store in this file, which belongs to this user.
    #[must_use]
    pub const fn new(path: PathBuf, uid: u32) -> Self {
        Self { path, uid }
    }

    /// How a repository's bundle stands.
    ///
    /// # Errors
    /// `TB-TRUST-001` when the store can not be read or others could have written it.
    pub fn standing(&self, repository: &Path, bundle: &Bundle) -> Result<Standing, Fault> {
        if bundle.parts.is_empty() {
            return Ok(Standing::Empty);
        }
        self.look(repository, &bundle.digest())
    }

    /// Whether bytes with this digest are approved for a repository.
    ///
    /// # Errors
    /// As for [`Self::standing`].
    pub fn holds(&self, repository: &Path, digest: &str) -> Result<bool, Fault> {
        Ok(self.look(repository, digest)? == Standing::Trusted)
    }

    fn look(&self, repository: &Path, digest: &str) -> Result<Standing, Fault> {
        let name = self.name(repository)?;
        let file = self.read()?;
        let mut own = file.approved.iter().filter(|approved| approved.repository == name).peekable();
        if own.peek().is_none() {
            return Ok(Standing::New);
        }
        let mut newest = 0;
        for approved in own {
            if approved.digest == digest {
                return Ok(Standing::Trusted);
            }
            newest = newest.max(approved.at_ms);
        }
        Ok(Standing::Changed(newest))
    }

    /// Approves these very bytes for a repository; durable when it returns.
    ///
    /// # Errors
    /// `TB-TRUST-001` when the store can not be read or written.
    pub fn approve(&self, repository: &Path, bundle: &Bundle, at_ms: u64) -> Result<(), Fault> {
        let (repository, digest) = (self.name(repository)?, bundle.digest());
        let files = bundle.parts.iter().map(|part| part.name.clone()).collect();
        self.change(|approved| {
            approved.retain(|one| one.repository != repository || one.digest != digest);
            approved.push(Approved { repository: repository.clone(), digest, files, at_ms });
            let own = approved.iter().filter(|one| one.repository == repository).count();
            let mut excess = own.saturating_sub(MOST_PER_REPOSITORY);
            approved.retain(|one| {
                let goes = excess > 0 && one.repository == repository;
                excess -= usize::from(goes);
                !goes
            });
            let excess = approved.len().saturating_sub(MOST);
            approved.drain(..excess);
        })
    }

    /// Takes all approvals of a repository back; how many there were.
    ///
    /// # Errors
    /// As for [`Self::approve`].
    pub fn revoke(&self, repository: &Path) -> Result<usize, Fault> {
        let repository = self.name(repository)?;
        let mut gone = 0;
        self.change(|approved| {
            let before = approved.len();
            approved.retain(|one| one.repository != repository);
            gone = before - approved.len();
        })?;
        Ok(gone)
    }

    /// One name per repository, whatever links lead to it.
    fn name(&self, repository: &Path) -> Result<String, Fault> {
        let real = repository.canonicalize().unwrap_or_else(|_| repository.to_owned());
        let text = real.to_str().map(str::to_owned);
        text.ok_or_else(|| self.fault(&format!("the repository's path {} is no UTF-8", real.display())))
    }

    fn fault(&self, why: &str) -> Fault {
        Fault::new("TB-TRUST-001", exit::CONFIG, format!("{}: {why}", self.path.display()))
            .hint("until that is mended, what repositories bring does not count")
    }

    fn read(&self) -> Result<TrustFile, Fault> {
        let empty = TrustFile { version: VERSION, approved: Vec::new() };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(empty),
            Err(error) => return Err(self.fault(&error.to_string())),
        };
        let meta = file.metadata().map_err(|error| self.fault(&error.to_string()))?;
        let owners = [0, self.uid];
        let above = self.path.parent().and_then(|dir| owner::shared_above(dir, &owners));
        let dir = self.path.parent().and_then(|dir| owner::shared(&dir.metadata().ok()?, &owners));
        if let Some(why) = owner::shared(&meta, &owners).or(dir).or(above) {
            return Err(self.fault(&why).hint(format!("chmod go-w {}", self.path.display())));
        }
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| self.fault(&error.to_string()))?;
        let known: TrustFile = toml::from_str(&text).map_err(|error| self.fault(error.message()))?;
        if known.version > VERSION {
            return Err(self.fault(&format!("version {} is newer than this release", known.version)));
        }
        Ok(known)
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Approved>)) -> Result<(), Fault> {
        let io = |error: std::io::Error| self.fault(&error.to_string());
        let dir = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let beside = |ending: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside(".lock")).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        let mut file = self.read()?;
        edit(&mut file.approved);
        file.version = VERSION;
        let text = toml::to_string(&file).map_err(|error| self.fault(&error.to_string()))?;
        let new = beside(".new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(io)?;
        std::fs::rename(&new, &self.path).map_err(io)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
    }
}

#[cfg(test)]
mod tests;
