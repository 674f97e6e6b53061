//! The canvas' two ports: a task's tree in time, and the way into the user's branch.
//!
//! Invariant: what a checkpoint recorded can be brought back byte for byte.

use crate::code::Fault;
use crate::event::{FileChange, OpDone};
use crate::tool::Wrote;
use crate::words::{GitId, Seq, TaskId, Workspace};
use futures_core::future::BoxFuture;
use std::path::PathBuf;

/// Where a task shall work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSpec {
    /// The task.
    pub task: TaskId,
    /// A directory inside the user's repository.
    pub cwd: PathBuf,
    /// Revision to start from; `None` for the user's tree as it is.
    pub base: Option<String>,
}

/// A workspace that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where.
    pub workspace: Workspace,
    /// `cwd` relative to the repository's root; empty for the root.
    pub subdir: String,
    /// The first checkpoint.
    pub checkpoint: GitId,
    /// Things the user should know (submodules left empty, files carried in).
    pub notes: Vec<String>,
}

/// A checkpoint of a workspace's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The checkpoint's id.
    pub id: GitId,
    /// Paths that a command had changed and that were put back: protected ones, and, with the reason behind the name,
    /// files that are too large to be recorded. After a check also what had to be opened to it.
    pub restored: Vec<String>,
    /// Commands of an overlay workspace whose layers were applied, or stand applied, before it.
    pub layers: Vec<Applied>,
}

/// What of a checkpoint's protected paths stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The checkpoint that has them right.
    pub at: GitId,
    /// What a file tool made of some of them since, by leave of a person or a rule.
    pub wrote: Vec<Wrote>,
    /// Whether every file that may have changed since the task began is read, whatever its times say. A file that
    /// is mapped into memory can change without a new time for as long as the system has not written it out.
    pub thorough: bool,
}

impl Kept {
    /// All protected paths of a checkpoint, and a thorough look at the rest.
    #[must_use]
    pub const fn thorough(at: GitId) -> Self {
        Self { at, wrote: Vec::new(), thorough: true }
    }
}

impl From<GitId> for Kept {
    fn from(at: GitId) -> Self {
        Self { at, wrote: Vec::new(), thorough: false }
    }
}

/// What became of one command's layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The effect that started the command.
    pub run: Seq,
    /// Changes that were not taken over, one line each; told again until the layer is let go.
    pub refused: Vec<String>,
    /// Whether one of these lines was not told before.
    pub is_news: bool,
    /// Files that stood in the tree and that a check had changed; nothing of it was taken over.
    pub dropped: Vec<String>,
}

/// Edits of a file tool, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroCommit {
    /// The checkpoint whose content is committed.
    pub tree: GitId,
    /// The branch's tip before.
    pub parent: GitId,
    /// Whole message, trailers included.
    pub message: String,
    /// Seconds since the epoch, for author and committer.
    pub time_s: u64,
}

/// The difference between two checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Changed files.
    pub files: Vec<FileChange>,
    /// Unified diff; empty when only the files were asked for.
    pub text: String,
}

/// The versioned tree of a task.
pub trait Canvas: Send + Sync {
    /// Makes the task's worktree, or finds it again; calling it twice is harmless.
    fn open(&self, spec: OpenSpec) -> BoxFuture<'_, Result<Opened, Fault>>;
    /// Records the tree as it is now, shell effects and untracked files included. Paths of the
    /// protected set that differ from `kept`, and are not exactly what a file tool wrote, are put back first
    /// and named. What commands in layers
    /// wrote is brought into the tree before that, checked path by path.
    fn checkpoint(&self, workspace: Workspace, kept: Option<Kept>) -> BoxFuture<'_, Result<Checkpoint, Fault>>;
    /// Brings the tree to a checkpoint, byte for byte; gives the checkpoint of what it replaced.
    fn restore(&self, workspace: Workspace, to: GitId) -> BoxFuture<'_, Result<GitId, Fault>>;
    /// Commits a checkpoint on the task's branch; if the very commit already stands, returns it.
    fn commit(&self, workspace: Workspace, commit: MicroCommit) -> BoxFuture<'_, Result<GitId, Fault>>;
    /// What changed between two checkpoints.
    fn diff(&self, workspace: Workspace, from: GitId, to: GitId, text: bool) -> BoxFuture<'_, Result<Difference, Fault>>;
    /// The tip of the task's branch, and the newest checkpoint.
    fn tip(&self, workspace: Workspace) -> BoxFuture<'_, Result<GitId, Fault>>;
    /// Removes worktree, branch and checkpoints.
    fn remove(&self, workspace: Workspace) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What is to be landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandSpec {
    /// The task's workspace.
    pub workspace: Workspace,
    /// The checkpoint the task started from.
    pub from: GitId,
    /// The checkpoint to land.
    pub to: GitId,
    /// Short name of the branch; `None` for the one that is checked out.
    pub branch: Option<String>,
    /// Whole message.
    pub message: String,
    /// Seconds since the epoch.
    pub time_s: u64,
}

/// How landing or taking it back went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Landed {
    /// The commit on the user's branch; empty when `conflicts` is not.
    pub commit: String,
    /// Full name of the reference that moved.
    pub reference: String,
    /// Where it stood before.
    pub previous: String,
    /// Paths where the user edited the same lines; then nothing was changed.
    pub conflicts: Vec<String>,
    /// What the user should know: `hooks were not run`, …
    pub notes: Vec<String>,
}

/// Bringing a task's change to the user, and back.
pub trait Landing: Send + Sync {
    /// Merges three ways as one commit, or names the conflicts and changes nothing.
    fn land(&self, spec: LandSpec) -> BoxFuture<'_, Result<Landed, Fault>>;
    /// Takes a landing back: moves the reference back when nothing came after, else reverts.
    fn unland(&self, workspace: Workspace, landed: OpDone, time_s: u64) -> BoxFuture<'_, Result<Landed, Fault>>;
}
