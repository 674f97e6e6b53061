//! Operations of the user: undo, redo, restore, land, unland, remove.
//!
//! They run while the task stands still, each as one recorded effect. Invariant: the branch follows
//! the tree, so undo and redo are commits like any other change.

use super::House;
use super::commit::{dollars, message};
use super::prepare::failed;
use super::stage::{broken, git};
use super::told;
use std::sync::Arc;
use tinkerbell_core::effect::{Act, Acted, Attempt, Intended, Stall};
use tinkerbell_core::event::{Observation, Observed, Op, OpDone, Operated};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{Effects, LandSpec, Landed, MicroCommit};
use tinkerbell_core::words::{GitId, Lsn, Seq, Workspace};

pub async fn perform(house: Arc<House>, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> Result<Observed, Stall> {
    let work = Work { house, task, op, seq: intended.seq, effects: effects.clone() };
    let act: Act = Box::new(move |attempt| Box::pin(work.act(attempt)));
    effects.once(intended, act).await
}

/// Files that the line for people names.
const NAMED: usize = 5;

struct Work {
    house: Arc<House>,
    task: Task,
    op: Op,
    seq: Seq,
    effects: Arc<dyn Effects>,
}

impl Work {
    async fn act(self, attempt: Attempt) -> Result<Acted, Stall> {
        match self.op.kind.as_str() {
            "undo" | "undo-all" | "redo" | "restore" => self.go(attempt).await,
            "land" => told(self.land().await),
            "unland" => told(self.unland().await),
            "remove" => told(self.remove().await),
            other => told(Err(broken(super::defect(&format!("`{other}` is no operation"))))),
        }
    }

    fn workspace(&self) -> Result<Workspace, Stall> {
        self.task.workspace().ok_or_else(|| broken(super::defect("an operation needs a workspace")))
    }

    /// The newest checkpoint that stands on record.
    fn tree(&self) -> Result<GitId, Stall> {
        git(self.task.checkpoint().unwrap_or_default())
    }

    /// Brings the tree to a checkpoint, and the branch with it.
    async fn go(self, attempt: Attempt) -> Result<Acted, Stall> {
        let (workspace, canvas) = (self.workspace()?, &self.house.deps.canvas);
        let target = git(&self.op.target)?;
        let replaced = match canvas.restore(workspace.clone(), target.clone()).await {
            Ok(replaced) => replaced,
            Err(fault) => return told(Err(broken(fault))),
        };
        // On recovery the tree may be there already; what it replaced is then what the record says.
        let before = if attempt == Attempt::First { replaced } else { self.tree()? };
        let subject = match self.op.kind.as_str() {
            "restore" => format!("restore to operation {}", numbers(&self.op.ops)),
            "undo-all" => "undo all operations".to_owned(),
            kind => format!("{kind} operation {}", numbers(&self.op.ops)),
        };
        let micro =
            MicroCommit { tree: target.clone(), parent: self.tip()?, message: message(&subject, &self.trailers()), time_s: self.op.time_s };
        let commit = canvas.commit(workspace.clone(), micro).await.map_err(broken)?;
        let files = canvas.diff(workspace, before.clone(), target.clone(), false).await.map_err(broken)?.files;
        let count = files.len();
        let files = told::files(&*self.house.deps.guard, files);
        let names: Vec<&str> = files.iter().take(NAMED).map(|file| file.path.as_str()).collect();
        let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
        let what = if names.is_empty() { "no file differs".to_owned() } else { format!("changed {}{more}", names.join(", ")) };
        let text = format!("{subject}: {what}");
        let done = OpDone {
            kind: if self.op.kind == "undo-all" { "undo".to_owned() } else { self.op.kind.clone() },
            before: before.to_string(),
            after: target.to_string(),
            commit: commit.to_string(),
            summary: subject,
            files,
            ..self.done()
        };
        Ok(acted(Operated { text, commit: commit.to_string(), after: target.to_string(), ..Operated::default() }, Some(done)))
    }

    /// The branch's tip as the journal knows it, so that doing this again makes the same commit.
    fn tip(&self) -> Result<GitId, Stall> {
        let base = self.task.prepared.as_ref().map_or("", |prepared| prepared.base.as_str());
        git(if self.task.tip.is_empty() { base } else { &self.task.tip })
    }

    async fn land(self) -> Result<Acted, Stall> {
        let from = git(self.task.prepared.as_ref().map_or("", |prepared| prepared.checkpoint.as_str()))?;
        let branch = Some(self.op.branch.clone()).filter(|branch| !branch.is_empty());
        let to = self.tree()?;
        let spec = LandSpec {
            workspace: self.workspace()?,
            from: from.clone(),
            to: to.clone(),
            branch,
            message: message(&self.subject(), &self.trailers()),
            time_s: self.op.time_s,
        };
        let landed = self.house.deps.landing.land(spec).await.map_err(broken)?;
        let files = self.house.deps.canvas.diff(self.workspace()?, from, to.clone(), false).await.map_err(broken)?.files;
        let tree = to.to_string();
        Ok(self.landed(
            landed,
            OpDone { before: tree.clone(), after: tree, files: told::files(&*self.house.deps.guard, files), ..self.done() },
        ))
    }

    async fn unland(self) -> Result<Acted, Stall> {
        let entries = self.task.ops.entries();
        let entry = entries.iter().rev().find(|entry| entry.done.kind == "land" && entry.done.commit == self.op.landed);
        let Some(done) = entry.map(|entry| entry.done.clone()) else {
            return Err(broken(super::defect("the landing to take back is not on record")));
        };
        let landed = self.house.deps.landing.unland(self.workspace()?, done, self.op.time_s).await.map_err(broken)?;
        let tree = self.tree()?.to_string();
        Ok(self.landed(landed, OpDone { before: tree.clone(), after: tree, ..self.done() }))
    }

    fn landed(&self, landed: Landed, done: OpDone) -> Acted {
        let Landed { commit, reference, previous, conflicts, notes } = landed;
        if !conflicts.is_empty() {
            let text = format!("nothing changed: edited on both sides: {}", conflicts.join(", "));
            return acted(Operated { text, conflicts, ..Operated::default() }, None);
        }
        if self.op.kind == "land" && commit == previous {
            // No operation: undoing it would take back what an earlier landing did, or nothing.
            let text = format!("nothing to land: {} already has the change", reference.trim_start_matches("refs/heads/"));
            return acted(Operated { text, commit, ..Operated::default() }, None);
        }
        let short = commit.get(..10).unwrap_or(&commit);
        let verb = if self.op.kind == "land" { "landed on" } else { "taken back from" };
        let mut text = format!("{verb} {}: {short}", reference.trim_start_matches("refs/heads/"));
        for note in notes {
            text.push_str("; ");
            text.push_str(&note);
        }
        let done = OpDone { kind: self.op.kind.clone(), commit: commit.clone(), summary: text.clone(), reference, previous, ..done };
        acted(Operated { text, commit, ..Operated::default() }, Some(done))
    }

    async fn remove(self) -> Result<Acted, Stall> {
        self.house.deps.sandbox.remove(self.task.id).await.map_err(broken)?;
        if let Some(workspace) = self.task.workspace() {
            self.house.deps.canvas.remove(workspace).await.map_err(broken)?;
        }
        Ok(acted(Operated { text: "removed".to_owned(), ..Operated::default() }, None))
    }

    fn done(&self) -> OpDone {
        OpDone { kind: self.op.kind.clone(), seq: self.seq, ops: self.op.ops.clone(), ..OpDone::default() }
    }

    /// The landing's first line: what the user said, else the goal's first line.
    fn subject(&self) -> String {
        let given = self.op.subject.trim();
        if !given.is_empty() {
            return given.to_owned();
        }
        let goal = self.task.submitted.goal.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("tinkerbell");
        goal.chars().take(72).collect()
    }

    fn trailers(&self) -> [(&'static str, String); 4] {
        let open = self.effects.task().open_op;
        let lsn = open.filter(|(_, intent)| intent.seq == self.seq).map_or(Lsn(0), |(lsn, _)| lsn);
        [
            ("Task", self.task.id.to_string()),
            ("Lsn", lsn.to_string()),
            ("Model", self.task.served.clone()),
            ("Cost", dollars(self.op.cost_micros)),
        ]
    }
}

/// A fault that will not pass is recorded as the operation's outcome, so that it does not stay open
/// and is not tried again at each start.
fn told(acted: Result<Acted, Stall>) -> Result<Acted, Stall> {
    match acted {
        Err(Stall::Broken(fault)) if !fault.retryable => Ok(Acted::from(Observation::Failed(failed(fault)))),
        other => other,
    }
}

fn acted(operated: Operated, op: Option<OpDone>) -> Acted {
    Acted { observation: Observation::Operated(operated), spent: None, op, used: None }
}

fn numbers(ops: &[u32]) -> String {
    ops.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
