//! Prepare: makes the workspace and surveys it.
//!
//! A fault here is recorded and ends the task: a repository that is none will not become one by
//! waiting. Invariant: preparing twice gives the same workspace.

use super::stage::{Stage, broken};
use crate::options::Project;
use crate::survey::{Survey, survey};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{Acted, Intended, Stall};
use tinkerbell_core::event::{Failed, Observation, Observed, Prepared};
use tinkerbell_core::port::{Level, OpenSpec, Opened};

pub async fn perform(stage: Arc<Stage>, intended: Intended) -> Result<Observed, Stall> {
    let acting = stage.clone();
    stage
        .once(intended, move |_| async move {
            match prepare(&acting).await {
                Ok(prepared) => Ok(Acted::from(Observation::Prepared(prepared))),
                Err(fault) if fault.retryable || fault.is_disk_full() => Err(broken(fault)),
                Err(fault) => Ok(Acted::from(Observation::Failed(failed(fault)))),
            }
        })
        .await
}

async fn prepare(stage: &Stage) -> Result<Prepared, Fault> {
    // A model that is not configured is told before a worktree is made.
    stage.card.clone()?;
    let submitted = &stage.task.submitted;
    let cwd = PathBuf::from(std::ffi::OsString::from_vec(submitted.cwd.clone()));
    let deps = &stage.house.deps;
    let level = deps.sandbox.level().await?;
    let opened = deps.canvas.open(OpenSpec { task: stage.task.id, cwd, base: submitted.base.clone() }).await?;
    let found = look(stage, &opened).await?;
    let prepared = prepared(opened, level, found);
    // A repository's texts and names, as they go to the model.
    Ok(Prepared {
        servers: stage.options.servers,
        rules: stage.clean(&prepared.rules),
        environment: stage.clean(&prepared.environment),
        notes: prepared.notes.iter().map(|note| stage.clean(note)).collect(),
        ..prepared
    })
}

async fn look(stage: &Stage, opened: &Opened) -> Result<(Survey, Project), Fault> {
    let (tree, subdir, repo) = (opened.workspace.tree.clone(), opened.subdir.clone(), opened.workspace.repo.clone());
    let given = stage.task.submitted.verify.clone().filter(|command| !command.trim().is_empty());
    let options = stage.options.clone();
    let work = move || {
        let project = (options.project)(&tree, &repo)?;
        Ok((survey(&tree, &subdir, given.as_deref(), (&project, options.verify.as_deref())), project))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| super::defect(&error.to_string()))?
}

fn prepared(opened: Opened, level: Level, (found, project): (Survey, Project)) -> Prepared {
    let bytes = |path: &std::path::Path| path.as_os_str().as_bytes().to_vec();
    let workspace = opened.workspace;
    Prepared {
        repo: bytes(&workspace.repo),
        tree: bytes(&workspace.tree),
        git_dir: bytes(&workspace.git_dir),
        common_dir: bytes(&workspace.common_dir),
        branch: workspace.branch,
        base: workspace.base.to_string(),
        checkpoint: opened.checkpoint.to_string(),
        rules: found.rules,
        environment: found.environment,
        verify: found.verify,
        verify_origin: found.origin,
        level: level.name().to_owned(),
        subdir: opened.subdir,
        notes: opened.notes.into_iter().chain(project.notes).collect(),
        trust: project.trust,
        servers: false,
    }
}

/// A fault as the journal keeps it.
pub fn failed(fault: Fault) -> Failed {
    Failed {
        code: fault.code.0.to_owned(),
        message: fault.message,
        hints: fault.hints,
        exit: u32::from(fault.exit),
        retryable: fault.retryable,
    }
}
