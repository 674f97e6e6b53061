//! The kill switch: a mark on disk that halts all effects, and those who obey it.
//!
//! Setting it needs no daemon. Whoever is about to act looks for it first: the scheduler before an
//! effect, a keeper before the gate and while its command runs, the courier before and during a call.
//! Killing what runs only makes that quicker, and reaches who can not look. Invariant: while the mark
//! stands no effect begins, whoever lives, starts or dies.

mod end;
pub mod format;
mod guard;

pub use end::{Ended, Met, end};
pub use guard::{guard, obey};

use crate::chores::text::{brief, moment};
use crate::clock::SystemClock;
use crate::environment::Environment;
use format::{Mark, VERSION};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::HALT_MARK;
use tinkerbell_executor::halt::stands;

/// How often the mark is looked for where nobody else would notice it.
pub const LOOK: Duration = Duration::from_millis(200);
/// How often a lift looks whether a halt is still being obeyed, and how many times.
const LIFT_WAIT: Duration = Duration::from_millis(20);
const LIFT_TRIES: usize = 400;
/// Longest reason that is kept, in characters.
const REASON: usize = 500;

/// The mark of a data directory.
#[must_use]
pub fn mark(data: &Path) -> PathBuf {
    data.join(HALT_MARK)
}

/// Who halted this data directory, if somebody did; a mark without words is one, too.
#[must_use]
pub fn read(data: &Path) -> Option<Mark> {
    let path = mark(data);
    if !stands(&path) {
        return None;
    }
    Some(std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

/// One line about a halt: by whom, since when, why.
#[must_use]
pub fn line(mark: &Mark) -> String {
    if mark.version == 0 {
        return "all effects are halted by a mark without words in the data directory".to_owned();
    }
    let name = if mark.name.is_empty() { String::new() } else { format!(" ({})", brief(&mark.name, 40)) };
    let why = if mark.reason.is_empty() { String::new() } else { format!(": {}", brief(&mark.reason, 200)) };
    format!("all effects are halted by user {}{name} since {}{why}", mark.uid, moment(mark.at_ms))
}

/// What everything is refused with while a mark stands.
#[must_use]
pub fn fault(data: &Path) -> Option<Fault> {
    read(data).map(|mark| Fault::halted(line(&mark)))
}

/// Sets the mark, durably. One that stands is left as it is: the first word counts.
///
/// # Errors
/// `TB-HALT-003` when nothing could be written, not even an empty file.
pub fn set(data: &Path, env: &Environment, reason: &str) -> Result<Mark, Fault> {
    if let Some(mark) = read(data) {
        return Ok(mark);
    }
    let mark = Mark {
        version: VERSION,
        at_ms: SystemClock.now().wall_ms,
        uid: rustix::process::getuid().as_raw(),
        name: env.get("USER").unwrap_or_default().chars().take(40).collect(),
        reason: reason.chars().take(REASON).collect(),
    };
    write(data, &mark).or_else(|_| empty(data)).map_err(|error| {
        Fault::new("TB-HALT-003", exit::FAILED, format!("the mark of the halt can not be written in {}: {error}", data.display()))
            .hint("what ran was ended, and the daemon with it; the next daemon that is started goes on")
            .hint(format!("make the directory writable, or set the mark yourself: touch {}", self::mark(data).display()))
    })?;
    Ok(mark)
}

fn write(data: &Path, mark: &Mark) -> io::Result<()> {
    let beside = data.join(format!("{HALT_MARK}.{}", std::process::id()));
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    let text = serde_json::to_string(mark)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, self::mark(data)));
    if written.is_err() {
        // What can not be written may still be removed; a rest of it is only untidy.
        let _tidy = std::fs::remove_file(&beside).is_ok();
    }
    written?;
    File::open(data)?.sync_all()
}

/// A full disk has room for a name where it has none for words.
fn empty(data: &Path) -> io::Result<()> {
    File::options().create(true).append(true).mode(0o600).open(mark(data))?.sync_all()?;
    File::open(data)?.sync_all()
}

/// Holds a lift up until dropped, so that what goes on after it is not taken for what the halt is to end; `None`
/// where no mark stands any more, and nothing is to be ended. Blocks for as long as a lift takes.
#[must_use]
pub fn obeying(data: &Path) -> Option<File> {
    let held = File::open(data).ok()?;
    // Without the lock it is ended all the same: that something is ended too late is the lesser evil.
    let _locked = rustix::fs::flock(&held, FlockOperation::LockShared).is_ok();
    stands(&mark(data)).then_some(held)
}

/// Removes the mark, durably; says what it was, if one stood. Waits until those who obey it have ended what
/// there was, up to 8 s.
///
/// # Errors
/// `TB-HALT-004` when it can not be removed: everything stays halted.
pub fn lift(data: &Path) -> Result<Option<Mark>, Fault> {
    let Some(mark) = read(data) else { return Ok(None) };
    let _held = unobeyed(data);
    let removed = std::fs::remove_file(self::mark(data)).and_then(|()| File::open(data)?.sync_all());
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::new(
            "TB-HALT-004",
            exit::FAILED,
            format!("the mark of the halt can not be removed: {error}; everything stays halted"),
        )
        .hint(format!("remove it yourself: rm {}", self::mark(data).display()))),
        _ => Ok(Some(mark)),
    }
}

/// The data directory, when nobody ends anything in it any more, or is too slow at it.
fn unobeyed(data: &Path) -> Option<File> {
    let dir = File::open(data).ok()?;
    for _ in 0..LIFT_TRIES {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LIFT_WAIT),
            _ => break,
        }
    }
    Some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lift_waits_for_those_who_obey_and_leaves_them_nothing_to_end() {
        let dir = tempfile::tempdir().unwrap();
        assert!(obeying(dir.path()).is_none(), "no mark stands");
        set(dir.path(), &Environment::default(), "").unwrap();
        let held = obeying(dir.path()).unwrap();
        let data = dir.path().to_owned();
        let lifting = std::thread::spawn(move || lift(&data).unwrap());
        // Others may obey at the same time; the mark stands for as long as anybody does.
        drop(obeying(dir.path()).unwrap());
        assert!(stands(&mark(dir.path())));
        drop(held);
        assert!(lifting.join().unwrap().is_some());
        assert!(obeying(dir.path()).is_none());
    }

    #[test]
    fn a_mark_is_set_once_read_in_any_shape_and_lifted() {
        let root = tempfile::tempdir().unwrap();
        let env = Environment::of(&[("USER", "ada")]);
        assert!(read(root.path()).is_none() && fault(root.path()).is_none() && lift(root.path()).unwrap().is_none());
        let first = set(root.path(), &env, "it\nruns wild").unwrap();
        assert_eq!(set(root.path(), &env, "another word").unwrap(), first, "the first word counts");
        let said = fault(root.path()).unwrap();
        assert!(said.is_halt() && said.message.contains("(ada)") && said.message.contains(": it"), "{}", said.message);
        assert!(!said.message.contains('\n') && said.hints[0].contains("--lift"));
        assert_eq!(lift(root.path()).unwrap(), Some(first));
        for content in ["", "x", "{}"] {
            std::fs::write(mark(root.path()), content).unwrap();
            assert!(fault(root.path()).unwrap().message.contains("without words"), "{content:?}");
        }
        assert!(lift(root.path()).unwrap().is_some() && read(root.path()).is_none());
    }

    #[test]
    fn where_no_words_can_be_written_the_name_alone_counts() {
        let root = tempfile::tempdir().unwrap();
        // In the way of the words, as a full disk would be.
        std::fs::create_dir(root.path().join(format!("{HALT_MARK}.{}", std::process::id()))).unwrap();
        set(root.path(), &Environment::of(&[]), "why").unwrap();
        assert!(fault(root.path()).unwrap().message.contains("without words"));
        let missing = set(&root.path().join("none"), &Environment::of(&[]), "why").unwrap_err();
        assert_eq!(missing.code.0, "TB-HALT-003");
    }
}
