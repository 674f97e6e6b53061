//! The lock on the data directory.
//!
//! The kernel releases it when the last process that holds the descriptor dies. Invariant: one daemon
//! per data directory.

use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};

fn path(data: &Path) -> PathBuf {
    data.join("daemon.lock")
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be used: {error}", path.display()))
        .hint("make it writable and yours, or choose another place: export TINKERBELL_HOME=/path")
}

/// The lock on the data directory; `None` when another daemon holds it.
///
/// # Errors
/// When the file can not be made or locked.
pub fn lock(data: &Path) -> Result<Option<File>, Fault> {
    let path = path(data);
    let mut options = OpenOptions::new();
    let opened = options.create(true).read(true).write(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(|error| unusable(&path, &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(unusable(&path, &error)),
    }
    claim(data, &mut file)?;
    Ok(Some(file))
}

/// Writes our pid into the lock that we hold, for people who look who does; the lock itself counts.
///
/// # Errors
/// When it can not be written.
pub fn claim(data: &Path, file: &mut File) -> Result<(), Fault> {
    let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| unusable(&path(data), &error))
}

/// The pid that holds the data directory, if any daemon does.
#[must_use]
pub fn holder(data: &Path) -> Option<u32> {
    let mut file = OpenOptions::new().read(true).write(true).open(path(data)).ok()?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
