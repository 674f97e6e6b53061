//! The canvas as its ports see it: futures over blocking work.
//!
//! It decides nothing about git; it takes the task's turn, finds a thread, and hands the work on.
//! Invariant: one operation per task at a time, and none while a task's checkpoints are swept.

use crate::desk::{self, Desk, Past};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::store::git_id;
use crate::{commit, diff, land, unland, user};
use futures_core::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::OpDone;
use tinkerbell_core::port::{Canvas, Checkpoint, Difference, Kept, LandSpec, Landed, Landing, MicroCommit, OpenSpec, Opened};
use tinkerbell_core::words::{GitId, TaskId, Workspace};

/// Most tasks whose trees are remembered; the others are read whole at their next checkpoint.
const REMEMBERED: usize = 16;

/// The canvas over git.
pub struct GitCanvas {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    pasts: Mutex<HashMap<TaskId, Arc<Mutex<Past>>>>,
    /// Held for reading by every operation, for writing by the sweep that removal ends with.
    sweep: RwLock<()>,
}

impl GitCanvas {
    /// A canvas with these options. Touches nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(Inner { options, pasts: Mutex::new(HashMap::new()), sweep: RwLock::new(()) }) })
    }

    /// Runs blocking work in the task's turn. Dropping the future lets the work end by itself.
    fn run<T: Send + 'static>(
        &self,
        task: TaskId,
        alone: bool,
        work: impl FnOnce(&Options, &mut Past) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, Fault>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let job = tokio::task::spawn_blocking(move || inner.turn(task, alone, work));
            match job.await {
                Ok(done) => done.map_err(Fault::from),
                Err(error) => Err(Fault::new("TB-CANVAS-017", exit::INTERNAL, format!("work on the task's tree broke off: {error}"))),
            }
        })
    }
}

impl Inner {
    fn turn<T>(&self, task: TaskId, alone: bool, work: impl FnOnce(&Options, &mut Past) -> Result<T>) -> Result<T> {
        // A poisoned lock guards only what can be made again.
        let past = self.past(task);
        let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
        if alone {
            let _gate = self.sweep.write().unwrap_or_else(PoisonError::into_inner);
            let done = work(&self.options, &mut past);
            self.pasts.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
            return done;
        }
        let _gate = self.sweep.read().unwrap_or_else(PoisonError::into_inner);
        work(&self.options, &mut past)
    }

    fn past(&self, task: TaskId) -> Arc<Mutex<Past>> {
        let mut pasts = self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        if pasts.len() >= REMEMBERED && !pasts.contains_key(&task) {
            pasts.retain(|_, past| Arc::strong_count(past) > 1);
        }
        pasts.entry(task).or_default().clone()
    }
}

impl Canvas for GitCanvas {
    fn open(&self, spec: OpenSpec) -> BoxFuture<'_, Result<Opened, Fault>> {
        self.run(spec.task, false, move |options, past| desk::open(options, &spec, past))
    }

    fn checkpoint(&self, workspace: Workspace, kept: Option<Kept>) -> BoxFuture<'_, Result<Checkpoint, Fault>> {
        self.run(workspace.task, false, move |options, past| Desk::of(options, workspace, past)?.take(kept.as_ref()))
    }

    fn restore(&self, workspace: Workspace, to: GitId) -> BoxFuture<'_, Result<GitId, Fault>> {
        self.run(workspace.task, false, move |options, past| Desk::of(options, workspace, past)?.restore(&to))
    }

    fn commit(&self, workspace: Workspace, new: MicroCommit) -> BoxFuture<'_, Result<GitId, Fault>> {
        self.run(workspace.task, false, move |options, past| commit::commit(&mut Desk::of(options, workspace, past)?, &new))
    }

    fn diff(&self, workspace: Workspace, from: GitId, to: GitId, text: bool) -> BoxFuture<'_, Result<Difference, Fault>> {
        self.run(workspace.task, false, move |options, past| diff::difference(&Desk::of(options, workspace, past)?.store, &from, &to, text))
    }

    fn tip(&self, workspace: Workspace) -> BoxFuture<'_, Result<GitId, Fault>> {
        self.run(workspace.task, false, move |options, _| {
            let repo = user::open_git_dir(&workspace.common_dir, options.home_config)?;
            let gone = || Error::Moved { branch: workspace.branch.clone(), expected: "a commit".to_owned(), found: "nothing".to_owned() };
            git_id(user::tip(&repo, &workspace.branch)?.ok_or_else(gone)?)
        })
    }

    fn remove(&self, workspace: Workspace) -> BoxFuture<'_, Result<(), Fault>> {
        self.run(workspace.task, true, move |options, past| {
            if workspace.common_dir.is_dir() {
                Desk::of(options, workspace, past)?.remove()
            } else {
                desk::remove_orphan(options, &workspace)
            }
        })
    }
}

impl Landing for GitCanvas {
    fn land(&self, spec: LandSpec) -> BoxFuture<'_, Result<Landed, Fault>> {
        self.run(spec.workspace.task, false, move |options, past| land::land(&mut Desk::of(options, spec.workspace.clone(), past)?, &spec))
    }

    fn unland(&self, workspace: Workspace, landed: OpDone, time_s: u64) -> BoxFuture<'_, Result<Landed, Fault>> {
        self.run(workspace.task, false, move |options, past| unland::unland(&mut Desk::of(options, workspace, past)?, &landed, time_s))
    }
}
