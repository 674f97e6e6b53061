//! The end of a turn, completed with what only the world can tell.
//!
//! Invariant: a label is never made better here, only explained.

use super::House;
use super::leftover;
use super::stage::git;
use super::told;
use std::sync::Arc;
use tinkerbell_core::effect::{Past, Stall};
use tinkerbell_core::event::{FileChange, Finished, Observation, PartKind};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::Effects;
use tinkerbell_core::words::Lsn;

pub async fn complete(
    house: &Arc<House>,
    task: &Task,
    tree: &str,
    mut finished: Finished,
    effects: &Arc<dyn Effects>,
) -> Result<Finished, Stall> {
    if let Err(fault) = house.deps.sandbox.stop(task.id).await {
        tracing::warn!(task = %task.id, %fault, "background commands were not stopped");
    }
    finished.commits = task.commits;
    finished.files = files(house, task, tree).await;
    let past = effects.past(Lsn(0)).await?;
    finished.connections = leftover::connections(house, (task.id, leftover::after(&past)), &past).await.unwrap_or_else(|fault| {
        tracing::warn!(task = %task.id, %fault, "connections of background commands were not told");
        Vec::new()
    });
    if finished.status != "failed" {
        let words = last_words(&past);
        let mut remark = finished.text;
        if finished.status == "verified" && !finished.files.is_empty() && finished.files.iter().all(|file| is_gate(&file.path)) {
            remark = "Note: only tests or build settings were changed, so the passing check proves little.".to_owned();
        }
        finished.text = [words, remark].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    }
    finished.files = told::files(&*house.deps.guard, finished.files);
    Ok(finished)
}

/// Files that differ from the base; none when the workspace is gone, which must not hide the result.
async fn files(house: &House, task: &Task, tree: &str) -> Vec<FileChange> {
    let (Some(workspace), Some(prepared)) = (task.workspace(), &task.prepared) else { return Vec::new() };
    let (Ok(from), Ok(to)) = (git(&prepared.checkpoint), git(tree)) else { return Vec::new() };
    match house.deps.canvas.diff(workspace, from, to, false).await {
        Ok(difference) => difference.files,
        Err(fault) => {
            tracing::warn!(task = %task.id, %fault, "the change could not be listed");
            Vec::new()
        }
    }
}

/// The words of the newest answer.
fn last_words(past: &[Past]) -> String {
    let reply = past.iter().rev().find_map(|entry| match entry {
        Past::Effect { observation: Observation::Reply(reply), .. } => Some(reply),
        _ => None,
    });
    let parts = reply.map(|reply| reply.parts.as_slice()).unwrap_or_default();
    let words: Vec<&str> = parts.iter().filter(|part| part.kind == PartKind::Text as i32).map(|part| part.text.trim()).collect();
    words.join("\n").trim().to_owned()
}

/// Whether a path belongs to what judges a change rather than to the change.
fn is_gate(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or(&lower);
    let dirs = lower.split('/').any(|part| matches!(part, "test" | "tests" | "spec" | "specs" | "__tests__" | ".github" | ".ci"));
    let stem = name.split('.').next().unwrap_or(name);
    dirs || stem.starts_with("test_")
        || stem.ends_with("_test")
        || name.contains(".test.")
        || name.contains(".spec.")
        || name == "conftest.py"
}
