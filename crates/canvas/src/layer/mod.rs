//! Layers of commands, brought into the task's tree path by path.
//!
//! A command in an overlay workspace writes to a layer beside the tree; here what it wrote is judged
//! and taken over: copied while the command runs, moved once it has ended. Refused are protected
//! paths, devices, pipes, sockets, links that lead out, and what somebody else changed meanwhile.
//! Invariant: a layer is let go only after a checkpoint holds what was taken from it, so a crash at any
//! step is made good by doing it all again.

mod apply;
pub(crate) mod format;
mod judge;
mod notes;

use crate::beneath::{self, Obstacle, Root};
use crate::error::{Error, Result};
use crate::ignored::Ignored;
use crate::snapshot::{Moment, changed};
use crate::walk::Tracked;
use apply::{Apply, Task};
pub use judge::printed;
use notes::Notes;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tinkerbell_core::layer::{CHECK, ENDED, START, UPPER, WORK, bulky_list, home};
use tinkerbell_core::port::Applied;
use tinkerbell_core::words::{Seq, Workspace};

/// Build folders that are too dear to go through a layer: where one exists and git ignores it,
/// commands write it directly. Nothing of them is ever in a checkpoint or landed.
const BULKY: &[&str] = &["target", "node_modules", ".venv", "venv", ".tox", ".nox", ".gradle", ".build", "pods"];
/// Beginning of the name of a copy that is kept beside a file which somebody else had changed
/// meanwhile. Checkpoints leave such names out.
pub const KEPT: &str = ".tinkerbell~kept-";
/// What is left of a layer's files once they were applied, until they are removed.
const SPENT: &str = "spent";
/// The file that tells what was brought into the tree while the command still ran.
const APPLIED: &str = "applied";

/// Lines that were told already, so that news can be told apart; losing it tells them once more.
#[derive(Debug, Default)]
pub struct Told(HashSet<(Seq, String)>);

/// What is needed beside the layers.
pub struct Around<'a> {
    /// The task's tree.
    pub root: &'a Root,
    /// Patterns outside the tree.
    pub ignored: Ignored,
    /// What counts although ignored.
    pub tracked: &'a Tracked,
}

/// Whether a folder of this name is bulky, whatever its case.
pub fn is_bulky(name: &str) -> bool {
    BULKY.contains(&name.to_ascii_lowercase().as_str())
}

/// What [`absorb`] did.
#[derive(Debug, Default)]
pub struct Absorbed {
    /// Each layer that stands.
    pub layers: Vec<Applied>,
    /// Directories of those whose command had ended before they were read.
    done: Vec<PathBuf>,
}

/// Brings all layers of the task into its tree, oldest first.
///
/// # Errors
/// When the tree or a layer can not be read or written; doing it again goes on where it stopped.
pub fn absorb(ws: &Workspace, around: &Around<'_>, told: &mut Told) -> Result<Absorbed> {
    let mut all = Absorbed::default();
    for (run, dir) in list(ws)? {
        let mut notes = Notes::open(&dir)?;
        if dir.join(UPPER).is_dir() && one((run, &dir), around, &mut notes)? {
            all.done.push(dir);
        }
        let refused = notes.refused();
        let news: Vec<(Seq, String)> = refused.iter().map(|line| (run, line.clone())).filter(|line| !told.0.contains(line)).collect();
        let is_news = !news.is_empty();
        told.0.extend(news);
        all.layers.push(Applied { run, refused, is_news, dropped: notes.dropped() });
    }
    Ok(all)
}

/// Brings one layer into the tree; tells whether its command had ended before.
fn one((run, dir): (Seq, &Path), around: &Around<'_>, notes: &mut Notes) -> Result<bool> {
    let Some(start) = moment(&dir.join(START))? else { return Ok(false) };
    // Looked at before the first path: what is written later belongs to a command that still runs.
    let ended = dir.join(ENDED).exists();
    let is_check = dir.join(CHECK).exists();
    if is_check && !ended {
        return Ok(false);
    }
    let upper = Root::open(&dir.join(UPPER), Obstacle::Clear)?;
    if ended {
        notes.keep(dir)?;
    }
    let task = Task { run, ended, is_check, start };
    Apply::new(task, around, (&upper, dir), notes)?.run()?;
    Ok(ended)
}

/// Lets go of the layers whose command had ended. Called when a checkpoint holds what was taken from
/// them.
///
/// # Errors
/// When a layer can not be marked as applied; that its bytes can not be removed yet is only untidy.
pub fn retire(absorbed: &Absorbed) -> Result<()> {
    for dir in &absorbed.done {
        clear(dir, SPENT);
        std::fs::rename(dir.join(UPPER), dir.join(SPENT)).map_err(Error::io("let go of a layer", dir))?;
        for part in [SPENT, WORK, APPLIED] {
            clear(dir, part);
        }
    }
    Ok(())
}

/// Removes a part of a layer. What is left is removed with the task.
fn clear(dir: &Path, part: &str) {
    let Ok(root) = Root::open(dir, Obstacle::Clear) else { return };
    if let Err(errno) = beneath::clear(root.fd(), part.as_bytes()) {
        tracing::warn!(dir = %dir.display(), part, %errno, "a part of a layer stays behind");
    }
}

/// The task's layers by the effect that started their command, oldest first.
fn list(ws: &Workspace) -> Result<Vec<(Seq, PathBuf)>> {
    let Some(home) = home(ws) else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(&home) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("list", &home))?,
    };
    let mut found: Vec<(Seq, PathBuf)> =
        entries.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
    found.sort();
    Ok(found)
}

/// Whether the task has layers.
pub fn any(ws: &Workspace) -> bool {
    home(ws).is_some_and(|home| home.is_dir())
}

/// Leaves the list of bulky folders for whoever starts the next command.
///
/// # Errors
/// When it can not be written.
pub fn list_bulky(ws: &Workspace, list: &[u8]) -> Result<()> {
    let Some(path) = bulky_list(ws) else { return Ok(()) };
    if list.is_empty() && !path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    std::fs::write(&new, list).and_then(|()| std::fs::rename(&new, &path)).map_err(Error::io("write", &path))
}

/// When a file was made; `None` when it is not there.
fn moment(path: &Path) -> Result<Option<Moment>> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(changed(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("stat", path)(errno.into())),
    }
}

#[cfg(test)]
mod tests;
