//! Puts the engine's changes into the tree: all files or none.
//!
//! New bytes are written beside their targets first; then each is exchanged with its target, so the
//! old bytes stay at hand until the last one is in place. Invariant: a target whose old bytes are not
//! what the engine saw is never replaced, however short the race was.

use super::trace::{Mark, full_hash};
use super::tree::{Tree, read_at};
use crate::edit::Change;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Why the tree was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Someone changed the file between reading and writing.
    #[error("{0} changed while it was being edited")]
    Raced(String),
    /// The file system refused.
    #[error("{path} can not be written: {why}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        why: io::Error,
    },
}

impl Failure {
    fn io(path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |why| Self::Io { path, why }
    }
}

/// A change on its way into the tree.
struct Step<'a> {
    change: &'a Change,
    dir: OwnedFd,
    name: String,
    partial: String,
    /// Taking back failed: the partial file holds the only copy of the old bytes.
    stuck: Cell<bool>,
}

/// Commits the changes. `tag` makes the names of half-written files this call's own.
pub fn commit(tree: &Tree, changes: &[Change], tag: &str) -> Result<(), Failure> {
    let mut made = Vec::new();
    let mut steps = Vec::new();
    let result = stage(tree, changes, tag, &mut steps, &mut made).and_then(|()| exchange_all(&steps));
    for step in steps.iter().filter(|s| !s.stuck.get()) {
        remove(&step.dir, &step.partial);
    }
    if result.is_err() {
        for path in made.iter().rev() {
            remove_empty(tree, path, changes);
        }
    }
    result
}

fn stage<'a>(tree: &Tree, changes: &'a [Change], tag: &str, steps: &mut Vec<Step<'a>>, made: &mut Vec<String>) -> Result<(), Failure> {
    for (number, change) in changes.iter().enumerate() {
        let (dir, name, new) = tree.parent(&change.path, change.after.is_some()).map_err(Failure::io(&change.path))?;
        made.extend(new);
        let step = Step { change, dir, name, partial: partial_name(tag, number), stuck: Cell::new(false) };
        remove(&step.dir, &step.partial);
        steps.push(step);
        let Some(step) = steps.last() else { continue };
        if let Some(bytes) = &change.after {
            let mode = mode_of(tree, change);
            write_partial(&step.dir, &step.partial, bytes, mode).map_err(Failure::io(&change.path))?;
        }
    }
    Ok(())
}

/// Names start as those of the checkpoint's writer do, which its walk leaves out.
fn partial_name(tag: &str, number: usize) -> String {
    format!(".tinkerbell~partial-{tag}-{number}")
}

/// The permission bits of the file that the change replaces or moves.
fn mode_of(tree: &Tree, change: &Change) -> Option<Mode> {
    let from = change.moved_from.as_deref().unwrap_or(&change.path);
    let (dir, name, _) = tree.parent(from, false).ok()?;
    let stat = rustix::fs::statat(&dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn write_partial(dir: &OwnedFd, name: &str, bytes: &[u8], mode: Option<Mode>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o666))?);
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        rustix::fs::fchmod(&file, mode)?;
    }
    file.sync_data()
}

fn exchange_all(steps: &[Step<'_>]) -> Result<(), Failure> {
    for (done, step) in steps.iter().enumerate() {
        if let Err(failure) = step.put() {
            for step in steps.iter().take(done).rev() {
                step.take_back();
            }
            return Err(failure);
        }
    }
    Ok(())
}

impl Step<'_> {
    /// Puts one change in place; on failure this file is as it was.
    fn put(&self) -> Result<(), Failure> {
        let raced = || Failure::Raced(self.change.path.clone());
        let moved = match (&self.change.before, &self.change.after) {
            (Some(_), Some(_)) => swap(&self.dir, &self.partial, &self.name),
            (None, Some(_)) => rename_new(&self.dir, &self.partial, &self.name),
            (Some(_), None) => rename_new(&self.dir, &self.name, &self.partial),
            (None, None) => Ok(()),
        };
        match moved {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::EXIST) => return Err(raced()),
            Err(errno) => return Err(Failure::io(&self.change.path)(errno.into())),
        }
        // What was swapped out must be what the engine saw.
        if self.change.before.is_some() && read_at(&self.dir, &self.partial) != self.change.before {
            self.take_back();
            return Err(raced());
        }
        Ok(())
    }

    fn take_back(&self) {
        let back = match (&self.change.before, &self.change.after) {
            (Some(_), Some(_)) => swap(&self.dir, &self.partial, &self.name),
            (None, Some(_)) => rename_new(&self.dir, &self.name, &self.partial),
            (Some(_), None) => rename_new(&self.dir, &self.partial, &self.name),
            (None, None) => Ok(()),
        };
        if let Err(errno) = back {
            self.stuck.set(true);
            tracing::error!(path = self.change.path, %errno, "an edit could not be taken back");
        }
    }
}

/// Exchanges two names; on file systems that can not, by three renames.
fn swap(dir: &OwnedFd, a: &str, b: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(dir, a, dir, b, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let aside = format!("{a}-aside");
            rustix::fs::renameat(dir, b, dir, aside.as_str())?;
            if let Err(errno) = rustix::fs::renameat(dir, a, dir, b) {
                rustix::fs::renameat(dir, aside.as_str(), dir, b)?;
                return Err(errno);
            }
            rustix::fs::renameat(dir, aside.as_str(), dir, a)
        }
        other => other,
    }
}

/// Renames to a name that must be free.
fn rename_new(dir: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match rustix::fs::statat(dir, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(dir, from, dir, to),
            Err(errno) => Err(errno),
        },
        other => other,
    }
}

fn remove(dir: &OwnedFd, name: &str) {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => tracing::warn!(name, %errno, "a half-written file stays behind"),
    }
}

/// Removes a directory that this call made, and the ones below it on the way to its files.
fn remove_empty(tree: &Tree, top: &str, changes: &[Change]) {
    for change in changes.iter().filter(|c| c.path.starts_with(&format!("{top}/"))) {
        let mut at = change.path.as_str();
        while let Some((above, _)) = at.rsplit_once('/').filter(|(above, _)| above.len() >= top.len()) {
            let Ok((dir, name, _)) = tree.parent(above, false) else { break };
            // Not empty, or gone already: both are fine, and both end the way up.
            if rustix::fs::unlinkat(&dir, name.as_str(), AtFlags::REMOVEDIR).is_err() {
                break;
            }
            at = above;
        }
    }
}

/// Takes an interrupted commit of this tag back to where it began, as far as the tree shows it.
///
/// Returns whether the commit had been complete; then nothing is taken back.
pub fn settle(tree: &Tree, marks: &[Mark], tag: &str) -> io::Result<bool> {
    let mut places = Vec::new();
    for (number, mark) in marks.iter().enumerate() {
        match tree.parent(&mark.path, false) {
            Ok((dir, name, _)) => places.push((mark, dir, name, partial_name(tag, number))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let hash = |dir: &OwnedFd, name: &str| read_at(dir, name).as_deref().map(full_hash);
    let put = |(mark, dir, name, _): &(&Mark, OwnedFd, String, String)| hash(dir, name) == mark.after;
    // A path without a parent directory is missing, which is right for a deletion only.
    let complete = marks.iter().filter(|m| m.after.is_some()).all(|m| places.iter().any(|p| p.0 == m)) && places.iter().all(put);
    for place in &places {
        let (mark, dir, name, partial) = place;
        if !complete && put(place) {
            let old = hash(dir, partial);
            match (&mark.before, &mark.after) {
                (Some(_), Some(_)) if old == mark.before => swap(dir, partial, name)?,
                (Some(_), None) if old == mark.before => rename_new(dir, partial, name)?,
                (None, Some(_)) => rename_new(dir, name, partial)?,
                _ => {}
            }
        }
    }
    for (_, dir, _, partial) in &places {
        remove(dir, partial);
    }
    Ok(complete)
}
