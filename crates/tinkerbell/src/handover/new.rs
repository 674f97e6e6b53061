//! The new process: it takes what is handed over, looks, waits for its turn, and tells that it serves.
//!
//! Invariant: before its turn it changes nothing. Its turn comes by word, or by the old one's death,
//! which leaves the descriptors in its hands.

use super::look::look;
use super::wire::{Go, Parcel, Word};
use super::{parcel, step};
use crate::environment::Environment;
use crate::places::Places;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use tinkerbell_core::code::{Fault, exit};

/// The daemon's place: what passes from process to process.
#[derive(Debug)]
pub struct Place {
    /// The socket that clients connect to.
    pub listener: UnixListener,
    /// The lock on the data directory.
    pub lock: File,
}

/// Takes what standard input holds, and clears standard input.
///
/// # Errors
/// When nothing was handed over.
pub fn receive() -> Result<(Parcel, Vec<OwnedFd>, UnixStream), Fault> {
    let broken = |error: std::io::Error| {
        Fault::new("TB-DAEMON-001", exit::USAGE, format!("nothing was handed over to this process: {error}"))
            .hint("tinkerbell daemon upgrade BINARY   hands over")
    };
    let link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(broken)?);
    let (parcel, fds) = parcel::receive(&link).map_err(broken)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| broken(error.into()))?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| broken(error.into()))?;
    Ok((parcel, fds, link))
}

/// Looks at what is kept, and waits for the turn. `None` when it never comes.
pub fn settle(parcel: &Parcel, link: &UnixStream, places: &Places, env: &Environment) -> Option<Go> {
    if let Some(go) = &parcel.go {
        return Some(go.clone());
    }
    step(env, "new:look");
    let elsewhere = (parcel.data_dir != places.data.display().to_string())
        .then(|| format!("it would work on {} and not on {}; start it with the same environment", places.data.display(), parcel.data_dir));
    let seen = elsewhere.map_or_else(|| look(&places.journal(), parcel), Err);
    let word = match &seen {
        Ok(records) => Word::Looked { version: env!("CARGO_PKG_VERSION").to_owned(), records: *records },
        Err(why) => Word::Refused { why: why.clone() },
    };
    // Whoever does not hear it has died; then it is our turn.
    let _old_gone = tell(link, &word);
    if seen.is_err() || parcel.dry_run {
        return None;
    }
    step(env, "new:looked");
    let mut line = String::new();
    let heard = BufReader::new(link).read_line(&mut line);
    step(env, "new:turn");
    match (heard, serde_json::from_str(&line)) {
        (Ok(_), Ok(Word::Go(go))) => Some(go),
        // The old one is gone without a word, as at a crash: what it left is ours.
        (Ok(0) | Err(_), _) => Some(Go::default()),
        _ => None,
    }
}

/// Says a word to the other side.
///
/// # Errors
/// When nobody hears it.
pub fn tell(link: &UnixStream, word: &Word) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut link = link;
    link.write_all(&line)
}

impl Place {
    /// The place out of received descriptors; what is left of them comes with it.
    ///
    /// # Errors
    /// When they are not what is handed over.
    pub fn of(fds: Vec<OwnedFd>) -> Result<(Self, Vec<OwnedFd>), Fault> {
        let mut fds = fds.into_iter();
        let (Some(listener), Some(lock)) = (fds.next(), fds.next()) else {
            return Err(Fault::new("TB-DAEMON-001", exit::INTERNAL, "the handover lacks its descriptors"));
        };
        Ok((Self { listener: UnixListener::from(listener), lock: File::from(lock) }, fds.collect()))
    }
}
