//! One task's desk: the user's repository, the store and the tree, opened for one operation.
//!
//! Everything here blocks; the ports' futures run it on threads made for that. Invariant: one
//! operation at a time works on a task, so a checkpoint never sees a half-made restore of ours.

use crate::base::{self, Base};
use crate::beneath::{Obstacle, Root};
use crate::error::{Error, Result};
use crate::ignored::Ignored;
use crate::layer::{self, Absorbed, Around, Told};
use crate::options::{IgnoredFiles, Options};
use crate::snapshot::{self, Care, Large, Memory, Moment, Source, Taken};
use crate::store::{Content, Pin, Store, git_id, object_id};
use crate::trees::{self, Leaves, shown};
use crate::user::{self, Move};
use crate::walk::Tracked;
use crate::{found, restore, worktree};
use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use gix::objs::tree::EntryKind;
use std::collections::HashSet;
use std::path::Path;
use tinkerbell_core::port::{Checkpoint, Kept, OpenSpec, Opened};
use tinkerbell_core::tool::Wrote;
use tinkerbell_core::words::{GitId, Workspace};

/// Most paths that are named for their permissions.
const NAMED: usize = 20;
/// More than this no file tool makes of a file.
const WROTE_BYTES: u64 = 64 << 20;

/// What is remembered of a task between two operations; it can always be made again.
#[derive(Debug, Default)]
pub struct Past {
    memory: Memory,
    base: Option<Anchor>,
    told: Told,
    bulky: Option<Vec<u8>>,
    /// What the last two thorough looks gave permissions to, or found too large; the newest last.
    opened: [Vec<String>; 2],
}

/// The task's base, flattened.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// The commit.
    pub commit: ObjectId,
    /// Its leaves.
    pub leaves: std::sync::Arc<Leaves>,
    tracked: std::sync::Arc<Tracked>,
    pinned: std::sync::Arc<HashSet<ObjectId>>,
}

/// The opened desk.
pub struct Desk<'a> {
    /// The canvas' options.
    pub options: &'a Options,
    /// Where the task works.
    pub ws: Workspace,
    /// The user's repository.
    pub user: gix::Repository,
    /// The checkpoints.
    pub store: Store,
    past: &'a mut Past,
}

/// Makes the task's worktree, or finds it again, or makes it again from its newest checkpoint.
pub fn open(options: &Options, spec: &OpenSpec, past: &mut Past) -> Result<Opened> {
    let user = user::discover(&spec.cwd, options.home_config)?;
    let repo = user::workdir(&user)?;
    let common_dir = user::common_dir(&user)?;
    let subdir = subdir(&repo, &spec.cwd)?;
    let store = Store::open(&options.data_dir, &common_dir)?;
    worktree::make_private(&worktree::home(&options.data_dir, spec.task))?;
    let Base { commit, mut notes } = match store.pinned(spec.task, Pin::Base)? {
        Some(commit) => Base { commit, notes: Vec::new() },
        None => {
            // A task that can not begin leaves nothing: nobody would come to remove it.
            let base = begin(options, spec, &user).inspect_err(|_| worktree::forget(&worktree::home(&options.data_dir, spec.task)))?;
            store.pin(spec.task, Pin::Base, base.commit)?;
            base
        }
    };
    let ws = Workspace {
        task: spec.task,
        repo,
        tree: worktree::tree_dir(&options.data_dir, spec.task),
        git_dir: worktree::git_dir(&common_dir, spec.task),
        common_dir,
        branch: format!("refs/heads/tinkerbell/{}", spec.task),
        base: git_id(commit)?,
    };
    let mut desk = Desk { options, ws, user, store, past };
    // Before the library reads the whole of it, which it does whatever its size is.
    desk.anchor()?;
    desk.branch(commit)?;
    let (checkpoint, more) = desk.stand(commit)?;
    notes.extend(more);
    Ok(Opened { workspace: desk.ws, subdir, checkpoint, notes })
}

/// The commit that a new task starts from.
fn begin(options: &Options, spec: &OpenSpec, user: &gix::Repository) -> Result<Base> {
    match &spec.base {
        Some(name) => base::revision(user, name),
        None => {
            let outside = base::Outside { excludes: options.excludes.as_deref(), data_dir: &options.data_dir };
            base::snapshot(user, spec.task, now(options, spec.task)?, &outside)
        }
    }
}

/// The working directory relative to the repository's root.
fn subdir(repo: &Path, cwd: &Path) -> Result<String> {
    let cwd = cwd.canonicalize().map_err(Error::io("open", cwd))?;
    let inner = cwd.strip_prefix(repo).map(|path| path.to_string_lossy().into_owned());
    inner
        .map_err(|_| found::astray(repo, format!("{} is not in its working tree", cwd.display()), "name a directory of the tree: --cd DIR"))
}

/// The file system's own time where the tree stands: the time that stats are compared with.
fn now(options: &Options, task: tinkerbell_core::words::TaskId) -> Result<Moment> {
    let path = worktree::home(&options.data_dir, task).join("now");
    std::fs::write(&path, b"").map_err(Error::io("write", &path))?;
    // Writing nothing into an empty file need not move its time; setting its times does.
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
    };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).map_err(|e| Error::io("touch", &path)(e.into()))?;
    let stat = rustix::fs::stat(&path).map_err(|e| Error::io("stat", &path)(e.into()))?;
    Ok(snapshot::changed(&stat))
}

/// Removes what is left of a task whose repository is gone: its tree, and the store that shared the
/// repository's objects and is of no use without them.
pub fn remove_orphan(options: &Options, ws: &Workspace) -> Result<()> {
    worktree::remove(ws, &options.data_dir)?;
    Store::destroy(&crate::store::location(&options.data_dir, &ws.common_dir)?)
}

/// The first of many lines, and how many more there are.
fn few(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = lines.len().saturating_sub(NAMED);
    lines.take(NAMED).chain((more > 0).then(|| format!("{more} more of this kind"))).collect()
}

/// Fails when something was too large to be recorded.
fn all_recorded(root: &Root, large: Vec<Large>) -> Result<()> {
    match large.into_iter().next() {
        Some(Large { path, why }) => Err(Error::TooMuch(root.full(path.as_bstr()), why)),
        None => Ok(()),
    }
}

impl<'a> Desk<'a> {
    /// Opens the desk of a workspace by its recorded directories.
    pub fn of(options: &'a Options, ws: Workspace, past: &'a mut Past) -> Result<Self> {
        let user = user::open_git_dir(&ws.common_dir, options.home_config)?;
        let store = Store::open(&options.data_dir, &ws.common_dir)?;
        Ok(Self { options, ws, user, store, past })
    }

    /// Makes the task's branch where it is missing.
    fn branch(&self, base: ObjectId) -> Result<()> {
        if user::tip(&self.user, &self.ws.branch)?.is_some() {
            return Ok(());
        }
        let time_s = u64::try_from(now(self.options, self.ws.task)?.0).unwrap_or(0);
        user::move_ref(&self.user, &Move { name: &self.ws.branch, from: None, to: Some(base), why: "tinkerbell: task begins", time_s })
    }

    /// Makes the tree stand: filled from the base the first time, from the newest checkpoint when
    /// somebody deleted it. Gives the first checkpoint.
    fn stand(&mut self, base: ObjectId) -> Result<(GitId, Vec<String>)> {
        let mut notes = Vec::new();
        let first = self.store.pinned(self.ws.task, Pin::First)?;
        let missing = !self.ws.tree.is_dir();
        if missing || first.is_none() {
            std::fs::create_dir_all(&self.ws.tree).map_err(Error::io("make directory", &self.ws.tree))?;
            self.root()?.empty()?;
        }
        worktree::register(&self.ws)?;
        let tree = user::tree_of(&self.user, base)?;
        if missing || first.is_none() {
            notes.extend(worktree::fill(&self.user, &self.ws, tree)?);
        } else if !self.ws.git_dir.join("index").is_file() {
            worktree::refresh_index(&self.user, &self.ws, self.tip_tree()?)?;
        }
        let Some(first) = first else {
            notes.extend(crate::carry::carry(&self.options.carry, &self.ws.repo, &self.ws.tree)?);
            let first = self.record(None, Care::Settled)?.id;
            self.store.pin(self.ws.task, Pin::First, object_id(&first)?)?;
            return Ok((first, notes));
        };
        if let (true, Some(newest)) = (missing, self.store.pinned(self.ws.task, Pin::Newest)?) {
            self.restore(&git_id(newest)?)?;
            worktree::refresh_index(&self.user, &self.ws, self.tip_tree()?)?;
            notes.push("the task's worktree was missing and was made again from its newest checkpoint".to_owned());
        }
        Ok((git_id(first)?, notes))
    }

    fn tip_tree(&self) -> Result<ObjectId> {
        let gone = || Error::Moved { branch: self.ws.branch.clone(), expected: "a commit".to_owned(), found: "nothing".to_owned() };
        let tip = user::tip(&self.user, &self.ws.branch)?.ok_or_else(gone)?;
        user::tree_of(&self.user, tip)
    }

    /// The task's tree.
    pub fn root(&self) -> Result<Root> {
        if !self.ws.tree.is_dir() {
            return Err(Error::WorktreeGone(self.ws.tree.clone()));
        }
        Root::open(&self.ws.tree, Obstacle::Clear)
    }

    /// The task's base, flattened once.
    pub fn anchor(&mut self) -> Result<Anchor> {
        let commit = object_id(&self.ws.base)?;
        if let Some(anchor) = self.past.base.as_ref().filter(|anchor| anchor.commit == commit) {
            return Ok(anchor.clone());
        }
        let leaves = trees::flatten(&self.user, user::tree_of(&self.user, commit)?)?;
        let mut tracked = Tracked::default();
        leaves.keys().for_each(|path| tracked.add(path.as_bstr()));
        let pinned = leaves.values().map(|leaf| leaf.id).collect();
        let anchor = Anchor { commit, leaves: leaves.into(), tracked: std::sync::Arc::new(tracked), pinned: std::sync::Arc::new(pinned) };
        self.past.base = Some(anchor.clone());
        Ok(anchor)
    }

    /// Records the tree; protected paths that differ from what is kept are put back first.
    pub fn take(&mut self, kept: Option<&Kept>) -> Result<Checkpoint> {
        self.record(kept, if kept.is_some_and(|kept| kept.thorough) { Care::Thorough } else { Care::Usual })
    }

    fn record(&mut self, kept: Option<&Kept>, care: Care) -> Result<Checkpoint> {
        let root = self.root()?;
        let absorbed = self.absorb(&root)?;
        let also = Tracked::default();
        let (mut id, large) = self.walk(&root, (&also, care))?;
        let mut restored = Vec::new();
        match kept {
            Some(kept) => {
                let refused = self.refuse(&root, kept, &large)?;
                restored = self.put_back(&root, kept, id)?;
                if !restored.is_empty() || !refused.is_empty() {
                    let again = self.walk_all(&root, (&also, Care::Usual))?;
                    id = self.held(kept, again)?;
                }
                restored.extend(self.told(refused, care));
            }
            None => all_recorded(&root, large)?,
        }
        self.keep(id)?;
        layer::retire(&absorbed)?;
        Ok(Checkpoint { id: git_id(id)?, restored, layers: absorbed.layers })
    }

    /// What is told of a look beside protected paths. Of a thorough one also what the one before it had to do: that
    /// was before the check, whose verdict comes with this one.
    fn told(&mut self, refused: Vec<String>, care: Care) -> Vec<String> {
        if care != Care::Thorough {
            return refused;
        }
        let [before, now] = &mut self.past.opened;
        now.extend(refused);
        let mut all: Vec<String> = before.iter().chain(now.iter()).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Brings what commands wrote to their layers into the tree.
    fn absorb(&mut self, root: &Root) -> Result<Absorbed> {
        if !layer::any(&self.ws) {
            return Ok(Absorbed::default());
        }
        let Anchor { tracked, .. } = self.anchor()?;
        let ignored = Ignored::of(&self.user, self.options.excludes.as_deref())?;
        layer::absorb(&self.ws, &Around { root, ignored, tracked: &tracked }, &mut self.past.told)
    }

    fn keep(&self, id: ObjectId) -> Result<()> {
        self.store.pin(self.ws.task, Pin::At(&id.to_string()), id)?;
        self.store.pin(self.ws.task, Pin::Newest, id)
    }

    /// Records what stands, which must be all of it.
    fn walk_all(&mut self, root: &Root, how: (&Tracked, Care)) -> Result<ObjectId> {
        let (id, large) = self.walk(root, how)?;
        all_recorded(root, large)?;
        Ok(id)
    }

    /// Records what stands but for files that are too large.
    fn walk(&mut self, root: &Root, (also, care): (&Tracked, Care)) -> Result<(ObjectId, Vec<Large>)> {
        let Anchor { pinned, tracked, .. } = self.anchor()?;
        let source = Source {
            store: &self.store,
            pinned: &pinned,
            ignored: Ignored::of(&self.user, self.options.excludes.as_deref())?,
            tracked: &tracked,
            also,
            keep_ignored: self.options.ignored == IgnoredFiles::Keep,
            now: now(self.options, self.ws.task)?,
            care,
        };
        let Taken { id, bulky, opened, large } = snapshot::take(root, &source, &mut self.past.memory)?;
        if care == Care::Thorough {
            let [_, newest] = std::mem::take(&mut self.past.opened);
            self.past.opened = [newest, few(opened.iter().map(|path| format!("{} (its permissions)", shown(path.as_bstr()))))];
        }
        if self.past.bulky.as_ref() != Some(&bulky) {
            layer::list_bulky(&self.ws, &bulky)?;
            self.past.bulky = Some(bulky);
        }
        Ok((id, large))
    }

    /// What differs in the protected set, and is not what a file tool made of it.
    fn steering(&self, kept: &Kept, is: &Content) -> Result<Vec<trees::Change>> {
        let was = self.store.get(&kept.at)?;
        let mut changes = trees::diff(&self.store.repo, was.files, is.files)?;
        // A nested repository's own directory is the command's business; ours is checked apart.
        let is_nested = |path: &BString| path.split(|b| *b == b'/').any(|part| part == b".git");
        changes.retain(|change| snapshot::is_protected_file(change.path.as_bstr()) && !is_nested(&change.path));
        let mut others = Vec::with_capacity(changes.len());
        for change in changes {
            if !self.is_written(&kept.wrote, &change)? {
                others.push(change);
            }
        }
        Ok(others)
    }

    /// Whether a path stands exactly as a file tool left it, and the tool replaced what is kept. By content, not by
    /// name: a command that still runs may have written to it since, or just before.
    fn is_written(&self, wrote: &[Wrote], change: &trees::Change) -> Result<bool> {
        let Some(wrote) = wrote.iter().find(|wrote| wrote.path.as_bytes() == change.path.as_slice()) else { return Ok(false) };
        let stands = |leaf: Option<trees::Leaf>, hash: &Option<String>| {
            Ok(match (leaf, hash) {
                (None, None) => true,
                (Some(leaf), Some(hash)) => {
                    matches!(leaf.kind, EntryKind::Blob | EntryKind::BlobExecutable)
                        && self.store.size(leaf.id)? <= WROTE_BYTES
                        && *hash == crate::tools::content_hash(&self.store.read(leaf.id)?)
                }
                _ => false,
            })
        };
        Ok(stands(change.old, &wrote.before)? && stands(change.new, &wrote.content)?)
    }

    /// The checkpoint with the protected files that are kept, whatever a command that still runs has made
    /// of them since they were put back.
    fn held(&self, kept: &Kept, now: ObjectId) -> Result<ObjectId> {
        let is = self.store.get(&git_id(now)?)?;
        let changes = self.steering(kept, &is)?;
        if changes.is_empty() {
            return Ok(now);
        }
        let mut files = trees::flatten(&self.store.repo, is.files)?;
        for change in changes {
            if let Some(leaf) = change.old {
                // Nothing stands below a file or a link.
                let below = BString::from([change.path.as_slice(), b"/"].concat());
                let inner = files.range(below.clone()..).map(|(path, _)| path).take_while(|path| path.starts_with(&below));
                for path in inner.cloned().collect::<Vec<_>>() {
                    files.remove(&path);
                }
                files.insert(change.path, leaf);
            } else {
                files.remove(&change.path);
            }
        }
        self.store.put(&files, &is)
    }

    /// Puts files that are too large back as they are kept; names them.
    fn refuse(&self, root: &Root, kept: &Kept, large: &[Large]) -> Result<Vec<String>> {
        if large.is_empty() {
            return Ok(Vec::new());
        }
        let was = self.store.get(&kept.at)?;
        let leaves = trees::flatten(&self.store.repo, was.files)?;
        for path in large.iter().map(|large| large.path.as_bstr()) {
            match leaves.get(path) {
                Some(leaf) => {
                    restore::put(root, &self.store, path, *leaf, crate::beneath::FileMode::Exactly(was.modes.of(path, leaf.kind)))?
                }
                None => {
                    root.remove(path)?;
                    root.prune_above(path)?;
                }
            }
        }
        Ok(few(large.iter().map(|large| format!("{} ({})", shown(large.path.as_bstr()), large.why))))
    }

    /// Puts protected paths back as they are kept; names them.
    fn put_back(&self, root: &Root, kept: &Kept, now: ObjectId) -> Result<Vec<String>> {
        let (was, is) = (self.store.get(&kept.at)?, self.store.get(&git_id(now)?)?);
        let mut names = Vec::new();
        for change in self.steering(kept, &is)? {
            let path = change.path.as_bstr();
            match change.old {
                Some(leaf) => {
                    restore::put(root, &self.store, path, leaf, crate::beneath::FileMode::Exactly(was.modes.of(path, leaf.kind)))?
                }
                None => {
                    root.remove(path)?;
                    root.prune_above(path)?;
                }
            }
            names.push(shown(path));
        }
        let link = b".git".as_bstr();
        let wanted = worktree::dot_git(&self.ws);
        if !root.says(link, &wanted)? {
            root.write(link, &mut wanted.as_slice(), crate::beneath::FileMode::Plain)?;
            names.push(".git".to_owned());
        }
        Ok(names)
    }

    /// Brings the tree to a checkpoint; gives the checkpoint of what it replaced.
    pub fn restore(&mut self, to: &GitId) -> Result<GitId> {
        let target = self.store.get(to)?;
        let root = self.root()?;
        let absorbed = self.absorb(&root)?;
        // What the target records counts even if an ignore file of today names it, so that it is
        // recorded before it is overwritten.
        let mut also = Tracked::default();
        trees::flatten(&self.store.repo, target.files)?.keys().for_each(|path| also.add(path.as_bstr()));
        let (before, large) = self.walk(&root, (&also, Care::Usual))?;
        self.keep(before)?;
        // No checkpoint has them, and none will: to stay they would have to be in the next.
        for Large { path, .. } in &large {
            root.remove(path.as_bstr())?;
            root.prune_above(path.as_bstr())?;
        }
        layer::retire(&absorbed)?;
        let from = self.store.get(&git_id(before)?)?;
        if from != target {
            let ignored = match self.options.ignored {
                IgnoredFiles::Skip => Some(Ignored::of(&self.user, self.options.excludes.as_deref())?),
                IgnoredFiles::Keep => None,
            };
            restore::bring(&root, &self.store, &from, &target, ignored.as_ref())?;
        }
        let after = self.walk_all(&root, (&also, Care::Usual))?;
        self.keep(after)?;
        restore::settled(&self.store, &from, &target, &self.store.get(&git_id(after)?)?)?;
        git_id(before)
    }

    /// Removes worktree, branch and checkpoints.
    pub fn remove(self) -> Result<()> {
        worktree::remove(&self.ws, &self.options.data_dir)?;
        if let Some(tip) = user::tip(&self.user, &self.ws.branch)? {
            user::move_ref(&self.user, &Move { name: &self.ws.branch, from: Some(tip), to: None, why: "", time_s: 0 })?;
        }
        self.store.forget(self.ws.task)
    }
}
