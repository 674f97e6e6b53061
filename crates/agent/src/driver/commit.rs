//! Commit: one micro-commit for one call whose tree differs.
//!
//! All that the object id depends on stands in the intent, its number in the journal included, so
//! doing it again makes the same commit. Invariant: a change that the user took back meanwhile is
//! not committed.

use super::stage::{Stage, broken, git};
use std::sync::Arc;
use tinkerbell_core::effect::{Acted, Intended, Stall};
use tinkerbell_core::event::{Commit, Committed, Observation, Observed, OpDone};
use tinkerbell_core::port::MicroCommit;
use tinkerbell_core::words::{Lsn, Seq, TaskId};

pub async fn perform(stage: Arc<Stage>, intended: Intended, commit: Commit) -> Result<Observed, Stall> {
    let (seq, acting) = (intended.seq, stage.clone());
    stage.once(intended, move |_| act(acting, seq, commit)).await
}

async fn act(stage: Arc<Stage>, seq: Seq, commit: Commit) -> Result<Acted, Stall> {
    // `once` has recorded the intent by now, so the fold knows where it stands.
    let open = stage.effects.task().open;
    let lsn = open.filter(|(_, intent)| intent.seq == seq).map_or(Lsn(0), |(lsn, _)| lsn);
    let (workspace, canvas) = (stage.workspace()?, &stage.house.deps.canvas);
    let (before, tree, parent) = (git(&commit.before)?, git(&commit.tree)?, git(&commit.parent)?);
    let message = message(&commit.subject, &trailers(stage.task.id, lsn, &commit));
    let micro = MicroCommit { tree: tree.clone(), parent: parent.clone(), message, time_s: commit.time_s };
    let made = match canvas.commit(workspace.clone(), micro).await {
        Ok(made) => made,
        Err(fault) => {
            let tip = canvas.tip(workspace).await.map_err(broken)?;
            if tip == parent {
                return Err(broken(fault));
            }
            // The branch moved: an operation of the user came in between, and the tree with it.
            return Ok(Acted::from(Observation::Committed(Committed { commit: tip.to_string() })));
        }
    };
    let op = OpDone {
        kind: "tool".to_owned(),
        seq: commit.cause,
        before: commit.before,
        after: commit.tree,
        commit: made.to_string(),
        summary: commit.subject,
        files: super::told::files(stage.guard(), stage.changes(&before, &tree).await?),
        ..OpDone::default()
    };
    let observation = Observation::Committed(Committed { commit: made.to_string() });
    Ok(Acted { observation, spent: None, op: Some(op), used: None })
}

fn trailers(task: TaskId, lsn: Lsn, commit: &Commit) -> [(&'static str, String); 5] {
    [
        ("Task", task.to_string()),
        ("Step", commit.step.to_string()),
        ("Lsn", lsn.to_string()),
        ("Model", one_line(&commit.model)),
        ("Cost", dollars(commit.cost_micros)),
    ]
}

/// A whole commit message; trailers without a value are left out.
pub fn message(subject: &str, trailers: &[(&str, String)]) -> String {
    let lines = trailers.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{subject}\n\n{}\n", lines.join("\n"))
}

/// Millionths of a dollar as dollars.
pub fn dollars(micros: u64) -> String {
    format!("${}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
