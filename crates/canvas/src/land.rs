//! Landing: the task's change as one commit on a branch of the user's.
//!
//! It merges, then moves the reference, then brings the user's tree and index after it where that
//! branch is checked out. Invariant: either the whole change lands or nothing is changed, and the
//! same landing asked for again after a crash finds its own commit and finishes.

use crate::beneath::{Obstacle, Root};
use crate::commit::tree_of;
use crate::desk::Desk;
use crate::error::{Error, Result, words};
use crate::lineends::{LineEnds, filtered};
use crate::merge::{Merged, merge};
use crate::stale;
use crate::store::{Pin, object_id};
use crate::sync::{self, Moves, tree_or_empty};
use crate::trees::{self, Leaves, shown};
use crate::user::{self, Move, NewCommit};
use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tinkerbell_core::port::{LandSpec, Landed};
use tinkerbell_core::words::TaskId;

/// What every landing says.
const NOTE: &str = "hooks were not run; the commit is not signed";
/// What a conflict with uncommitted work says.
const ADVICE: &str = "these paths differ in your tree from what the task started from; commit or stash them, then land again";

/// A branch of the user's, and whether the user's own worktree stands on it.
pub struct Target {
    /// The task that lands.
    pub task: TaskId,
    /// The repository, opened at the user's own worktree.
    pub repo: gix::Repository,
    /// The branch's full name.
    pub name: String,
    /// Where it stands; `None` before its first commit.
    pub tip: Option<ObjectId>,
    /// Where it begins when it is made by this landing: HEAD's commit.
    pub start: Option<ObjectId>,
    /// Whether the user's tree and index follow it.
    pub checked_out: bool,
}

/// One move of a branch with all that must follow it.
pub struct Step<'a> {
    /// The branch's new place.
    pub to: Option<ObjectId>,
    /// What the task started from.
    pub from_leaves: &'a Leaves,
    /// What the task made of it.
    pub to_leaves: &'a Leaves,
    /// One line for the reflog.
    pub why: &'a str,
    /// Seconds since the epoch.
    pub time_s: u64,
}

/// Lands a task's change, or names the conflicts and changes nothing.
pub fn land(desk: &mut Desk<'_>, spec: &LandSpec) -> Result<Landed> {
    let target = Target::find(desk, spec.branch.as_deref())?;
    let (from, to) = (tree_of(desk, &spec.from)?, tree_of(desk, &spec.to)?);
    if let Some(done) = target.landed_before(&spec.message, spec.time_s)? {
        return target.finish(desk, spec, &done);
    }
    let onto = target.tip.or(target.start);
    let ours = tree_or_empty(&target.repo, onto)?;
    let merged = match merge(&target.repo, from, ours, to)? {
        Merged::Tree(tree) => tree,
        Merged::Conflicts(paths) => return Ok(target.conflict(paths)),
    };
    if let (Some(tip), true) = (onto, merged == ours) {
        return Ok(target.nothing(tip));
    }
    let new = NewCommit { tree: merged, parents: onto.into_iter().collect(), message: &spec.message, time_s: spec.time_s };
    let commit = user::write_commit(&target.repo, &new)?;
    desk.store.pin(desk.ws.task, Pin::LandedFrom(&commit.to_string()), object_id(&spec.from)?)?;
    desk.store.pin(desk.ws.task, Pin::LandedTo(&commit.to_string()), object_id(&spec.to)?)?;
    let (from_leaves, to_leaves) = (trees::flatten(&target.repo, from)?, trees::flatten(&target.repo, to)?);
    let why = format!("tinkerbell land: {}", spec.message.lines().next().unwrap_or_default());
    let mut landed =
        target.step(&Step { to: Some(commit), from_leaves: &from_leaves, to_leaves: &to_leaves, why: &why, time_s: spec.time_s })?;
    if landed.conflicts.is_empty() {
        let changes = trees::diff(&target.repo, ours, merged)?;
        let written = changes.iter().filter(|change| change.new.is_some()).map(|change| &change.path);
        for (path, filter) in filtered(&target.repo, &trees::flatten(&target.repo, merged)?, written)? {
            landed.notes.push(format!("{} is under the filter `{filter}`, which was not run", shown(path.as_bstr())));
        }
    }
    Ok(landed)
}

impl Target {
    /// Finds the branch to land on.
    ///
    /// # Errors
    /// When HEAD is detached and no branch is named, the branch does not exist and HEAD has no
    /// commit to begin it at, or it is checked out in another worktree than the user's own.
    pub fn find(desk: &Desk<'_>, branch: Option<&str>) -> Result<Self> {
        let gone = |why: String| Error::Gone(desk.ws.repo.clone(), why);
        let repo = user::discover(&desk.ws.repo, desk.options.home_config).map_err(|e| match e {
            Error::Astray { .. } => e,
            other => gone(other.to_string()),
        })?;
        if user::workdir(&repo)? != desk.ws.repo || user::common_dir(&repo)? != desk.ws.common_dir {
            return Err(gone("another repository stands there now".to_owned()));
        }
        let head = repo.head_name().map_err(|e| gone(words(&e)))?.map(|name| name.as_bstr().to_str_lossy().into_owned());
        let name = match branch {
            Some(short) => format!("refs/heads/{}", short.strip_prefix("refs/heads/").unwrap_or(short)),
            None => head.clone().ok_or_else(|| Error::Detached(desk.ws.repo.clone()))?,
        };
        let tip = user::tip(&repo, &name)?;
        let checked_out = head.as_deref() == Some(name.as_str());
        let start = if tip.is_none() && !checked_out {
            let head = repo.head_id().map_err(|_| Error::NoSuchRevision(name.clone()))?;
            Some(head.detach())
        } else {
            None
        };
        let target = Self { task: desk.ws.task, repo, name, tip, start, checked_out };
        target.elsewhere()?;
        Ok(target)
    }

    /// Refuses when another worktree stands on the branch: its tree would fall behind.
    fn elsewhere(&self) -> Result<()> {
        let common = user::common_dir(&self.repo)?;
        let own = self.repo.git_dir().canonicalize().map_err(Error::io("open", self.repo.git_dir()))?;
        let mut dirs: Vec<PathBuf> = vec![common.clone()];
        if let Ok(entries) = std::fs::read_dir(common.join("worktrees")) {
            dirs.extend(entries.flatten().map(|entry| entry.path()));
        }
        let line = format!("ref: {}", self.name);
        let bare = self.repo.config_snapshot().boolean("core.bare").unwrap_or(false);
        for dir in dirs.into_iter().filter(|dir| *dir != own && !(bare && *dir == common)) {
            if std::fs::read_to_string(dir.join("HEAD")).is_ok_and(|head| head.trim_end() == line) {
                let place = std::fs::read_to_string(dir.join("gitdir")).unwrap_or_default();
                let place = place.trim_end().strip_suffix("/.git").map_or_else(|| dir.clone(), PathBuf::from);
                return Err(Error::CheckedOutElsewhere(self.name.clone(), place));
            }
        }
        Ok(())
    }

    fn base(&self) -> Landed {
        let text = |id: Option<ObjectId>| id.map(|id| id.to_string()).unwrap_or_default();
        Landed { reference: self.name.clone(), previous: text(self.tip), notes: vec![NOTE.to_owned()], ..Landed::default() }
    }

    /// An answer that names conflicts.
    pub fn conflict(&self, paths: Vec<BString>) -> Landed {
        let mut conflicts: Vec<String> = paths.iter().map(|path| shown(path.as_bstr())).collect();
        conflicts.sort();
        conflicts.dedup();
        Landed { conflicts, notes: vec![ADVICE.to_owned()], ..self.base() }
    }

    /// An answer that says there is nothing to do.
    pub fn nothing(&self, tip: ObjectId) -> Landed {
        let tip = tip.to_string();
        let notes = vec!["there was nothing to land: the branch already has the change".to_owned()];
        Landed { commit: tip.clone(), previous: tip, notes, ..self.base() }
    }

    /// The tip's own parent, when the tip is the very commit that this request makes.
    pub fn landed_before(&self, message: &str, time_s: u64) -> Result<Option<Done>> {
        let Some(tip) = self.tip else { return Ok(None) };
        let commit = self.repo.find_commit(tip).map_err(Error::git("read commit"))?;
        let said = commit.message_raw().map_err(Error::git("read commit"))?;
        let when = commit.time().map_err(Error::git("read commit"))?.seconds;
        let parents: Vec<ObjectId> = commit.parent_ids().map(gix::Id::detach).collect();
        let same = said.trim_end() == message.trim_end().as_bytes() && u64::try_from(when) == Ok(time_s) && parents.len() < 2;
        Ok(same.then(|| Done { commit: tip, parent: parents.first().copied() }))
    }

    /// Finishes a landing whose commit already stands: what a crash left undone in tree and index.
    fn finish(&self, desk: &mut Desk<'_>, spec: &LandSpec, done: &Done) -> Result<Landed> {
        let before = Self {
            task: self.task,
            repo: self.repo.clone(),
            name: self.name.clone(),
            tip: done.parent,
            start: None,
            checked_out: self.checked_out,
        };
        let mut landed = Landed { commit: done.commit.to_string(), ..before.base() };
        if self.checked_out {
            let (from, to) = (tree_of(desk, &spec.from)?, tree_of(desk, &spec.to)?);
            let (from_leaves, to_leaves) = (trees::flatten(&self.repo, from)?, trees::flatten(&self.repo, to)?);
            let step = Step { to: Some(done.commit), from_leaves: &from_leaves, to_leaves: &to_leaves, why: "", time_s: spec.time_s };
            landed.notes.extend(before.follow(&step, |_| Ok(()))?.1);
        }
        Ok(landed)
    }

    /// Brings tree and index after a branch that was moved back before a crash.
    pub fn finish_back(&self, step: &Step<'_>) -> Result<Landed> {
        let mut landed = Landed { commit: step.to.map(|id| id.to_string()).unwrap_or_default(), ..self.base() };
        if self.checked_out {
            landed.notes.extend(self.follow(step, |_| Ok(()))?.1);
        }
        Ok(landed)
    }

    /// Moves the branch and brings tree and index after it; conflicts change nothing.
    pub fn step(&self, step: &Step<'_>) -> Result<Landed> {
        let text = step.to.map(|id| id.to_string()).unwrap_or_default();
        let swap = |target: &Self| {
            let step = Move { name: &target.name, from: target.tip, to: step.to, why: step.why, time_s: step.time_s };
            user::move_ref(&target.repo, &step)?;
            if target.checked_out { user::log_head(&target.repo, &step) } else { Ok(()) }
        };
        if !self.checked_out {
            swap(self)?;
            return Ok(Landed { commit: text, ..self.base() });
        }
        let (conflicts, notes) = self.follow(step, swap)?;
        if !conflicts.is_empty() {
            return Ok(self.conflict(conflicts));
        }
        let mut landed = Landed { commit: text, ..self.base() };
        landed.notes.extend(notes);
        Ok(landed)
    }

    /// Under the index' lock: plans, swaps, carries out, writes the index. Git takes the same lock
    /// before it commits, so nobody moves in between.
    fn follow(&self, step: &Step<'_>, swap: impl FnOnce(&Self) -> Result<()>) -> Result<(Vec<BString>, Vec<String>)> {
        let workdir = user::workdir(&self.repo)?;
        let busy = |why: String| Error::Busy(workdir.clone(), why);
        if let Some(state) = self.repo.state() {
            return Err(busy(format!("{state:?} is not finished").to_lowercase()));
        }
        let path = self.repo.index_path();
        // It goes with this value, whatever happens below.
        let _lock = self.hold(&path)?.ok_or_else(|| busy(format!("{} is locked", path.display())))?;
        let index = crate::index::read(&self.repo)?;
        if index.is_sparse() {
            return Err(Error::Index(workdir, "is a sparse one, which is not written here"));
        }
        let (old, new) = (tree_or_empty(&self.repo, self.tip)?, tree_or_empty(&self.repo, step.to)?);
        let changes = trees::diff(&self.repo, old, new)?;
        let files = trees::flatten(&self.repo, new)?;
        let mut desk = sync::Desk {
            repo: &self.repo,
            root: Root::open(&workdir, Obstacle::Refuse)?,
            index,
            ends: LineEnds::new(&self.repo, &self.repo, &files)?,
            modes: self.repo.config_snapshot().boolean("core.fileMode").unwrap_or(true),
        };
        let plan = desk.plan(&Moves { changes: &changes, from: step.from_leaves, to: step.to_leaves })?;
        if !plan.conflicts.is_empty() {
            return Ok((plan.conflicts, Vec::new()));
        }
        swap(self)?;
        let notes = desk.carry_out(&plan)?;
        // Beside the lock, which keeps our mark until the new index is in place.
        let fresh = path.with_file_name(format!("index.{}", self.task));
        let mut out = std::io::BufWriter::new(std::fs::File::create(&fresh).map_err(Error::io("write", &fresh))?);
        desk.index.write_to(&mut out, gix::index::write::Options::default()).map_err(Error::git("write index"))?;
        out.flush().map_err(Error::io("write", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(Error::io("write", &path))?;
        Ok((Vec::new(), notes))
    }

    /// Takes the index' lock and marks it as this task's; `None` when somebody else holds it. One
    /// with our mark was left by a daemon killed in the middle of this very landing, since it is the
    /// task's turn: it is taken over, and with it the lock of the branch that it may have held.
    fn hold(&self, index: &Path) -> Result<Option<gix::lock::File>> {
        let acquire = || gix::lock::File::acquire_to_update_resource(index, gix::lock::acquire::Fail::Immediately, None, 0);
        let mark = format!("tinkerbell {}\n", self.task);
        let mut lock = acquire();
        if lock.is_err() && std::fs::read(index.with_extension("lock")).is_ok_and(|found| found == mark.as_bytes()) {
            stale::outlive(&self.repo.common_dir().join(&self.name))?;
            stale::clear(index)?;
            lock = acquire();
        }
        let Ok(mut lock) = lock else { return Ok(None) };
        lock.write_all(mark.as_bytes()).and_then(|()| lock.flush()).map_err(Error::io("write", index))?;
        Ok(Some(lock))
    }
}

/// A landing that already stands.
pub struct Done {
    /// Its commit.
    pub commit: ObjectId,
    /// What it stands on.
    pub parent: Option<ObjectId>,
}
