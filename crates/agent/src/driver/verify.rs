//! Verify: the runtime's own run of the gate.
//!
//! Background units are stopped first; what the command changes in the tree is put back after, or,
//! where it ran in a layer, never gets there.
//! Invariant: only exit code 0 of the gate itself passes.

use super::gate;
use super::leftover;
use super::prepare::failed;
use super::stage::{FULL_BYTES, Stage, broken, git};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Acted, Attempt, HALT_MARK, Intended, LiveDelta, Stall};
use tinkerbell_core::event::{Action, Intent, Observation, Observed, Verdict, Verify};
use tinkerbell_core::port::{CHECK, Ended, ExecSpec, Found, Kept, Unit, UnitState, Until};
use tinkerbell_core::text::fold_output;
use tinkerbell_core::words::{GitId, Lsn, Seq};

/// How long one wait is; between two, new output is shown.
const SLICE: Duration = Duration::from_secs(2);
/// Slices beyond the deadline that the keeper gets for ending the command itself.
const GRACE: u32 = 30;
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// Most tokens of a verdict.
const VERDICT_TOKENS: u32 = 2_500;
/// The canvas' word for a tree that somebody wrote to while it was restored.
const UNSETTLED: &str = "TB-CANVAS-015";

pub async fn perform(stage: Arc<Stage>, mut intended: Intended, verify: Verify) -> Result<Observed, Stall> {
    let (seq, acting) = (intended.seq, stage.clone());
    let (verify, shut) = if stage.is_observed(seq).await? {
        (verify, None)
    } else {
        let shut = gate::shut(&stage, seq, &verify).await?;
        (settled(&stage, seq, verify).await?, shut)
    };
    intended.action = Action::Verify(verify.clone());
    intended.used = Some(stage.used().await?);
    let act = move |attempt| async move {
        match shut.filter(|_| attempt == Attempt::First) {
            Some(fault) => Ok(Acted::from(Observation::Failed(failed(fault)))),
            None => act(acting, seq, verify, attempt).await,
        }
    };
    let observed = stage.once(intended, act).await?;
    stage.release(stage.run(seq)).await;
    Ok(observed)
}

/// The check with the tree that it starts from: as recorded, or as it stands once nobody writes to
/// it any more. That is before the intent, because the intent must name the tree; ending commands
/// twice ends them once.
async fn settled(stage: &Stage, seq: Seq, mut verify: Verify) -> Result<Verify, Stall> {
    if let Some((_, Intent { seq: open, action: Some(Action::Verify(recorded)), .. })) = stage.effects.task().open
        && open == seq
    {
        return Ok(recorded);
    }
    // Before the first edit a server may be running that the model still needs.
    if verify.round > 0 {
        stage.house.deps.sandbox.stop(stage.task.id).await.map_err(broken)?;
    }
    // What a background unit wrote since the last checkpoint must survive the putting back.
    // Protected files are not its to write.
    // Thorough, because what the check sees must be what is recorded, and lands.
    let kept = Kept::thorough(stage.before()?);
    verify.before = stage.house.deps.canvas.checkpoint(stage.workspace()?, Some(kept)).await.map_err(broken)?.id.to_string();
    Ok(verify)
}

/// What a check starts from.
struct Start {
    tree: GitId,
    /// Whether commands in the background were ended before it; those of a check before the first edit live.
    is_alone: bool,
}

async fn act(stage: Arc<Stage>, seq: Seq, verify: Verify, attempt: Attempt) -> Result<Acted, Stall> {
    let sandbox = &stage.house.deps.sandbox;
    // A journal of an earlier release names no tree.
    let before = if verify.before.is_empty() { stage.before()? } else { git(&verify.before)? };
    let from = Start { tree: before, is_alone: verify.round > 0 };
    let found = match attempt {
        Attempt::First => Found::NeverRan,
        Attempt::Recover => sandbox.attach(stage.run(seq)).await.map_err(broken)?,
    };
    let unit = match found {
        Found::Unit(unit) => unit,
        Found::Lost(_) => return lost(&stage, seq, &from).await,
        Found::NeverRan => start(&stage, seq, &verify).await?,
    };
    let acted = match watch(&stage, seq, unit.as_ref()).await? {
        Some(ended) => verdict(&stage, seq, (unit.as_ref(), &ended), &from).await?,
        None => lost(&stage, seq, &from).await?,
    };
    Ok(Acted { used: Some(stage.used().await?), ..acted })
}

async fn start(stage: &Stage, seq: Seq, verify: &Verify) -> Result<Arc<dyn Unit>, Stall> {
    let given = stage.task.prepared.as_ref().filter(|prepared| prepared.verify_origin == "given");
    let spec = ExecSpec {
        run: stage.run(seq),
        fence: stage.fence,
        command: verify.command.clone(),
        // The user's own command means the directory in which it was given.
        workdir: given.map(|prepared| prepared.subdir.clone()).unwrap_or_default(),
        workspace: stage.workspace()?,
        env: (stage.house.deps.env)(stage.task.id).into_iter().chain([(CHECK.to_owned(), "1".to_owned())]).collect(),
        deadline: stage.options.verify_deadline,
        service: None,
        limits: stage.effects.task().limits(seq),
        approved: None,
    };
    stage.house.deps.sandbox.start(spec).await.map_err(broken)
}

/// Waits for the end and shows output meanwhile; `None` when the keeper is lost, or all effects were halted.
async fn watch(stage: &Arc<Stage>, seq: Seq, unit: &dyn Unit) -> Result<Option<Ended>, Stall> {
    let slices = u32::try_from(stage.options.verify_deadline.as_secs() / SLICE.as_secs()).unwrap_or(u32::MAX);
    let mut shown = 0;
    let pieces = stage.pieces(seq, LiveDelta::Output);
    for _ in 0..slices.saturating_add(GRACE) {
        let state = unit.wait(Until { timeout: SLICE, line: None, from: 0 }).await.map_err(broken)?;
        let chunk = unit.output(shown, CHUNK).await.map_err(broken)?;
        shown = chunk.next;
        if !chunk.bytes.is_empty() {
            pieces.show(&fold_output(&chunk.bytes));
        }
        match state {
            UnitState::Running => {}
            // It was killed with everything else: that says nothing about the tree, and it is run again.
            UnitState::Ended(ended) if ended.cause == HALT_MARK => return Ok(None),
            UnitState::Ended(ended) => {
                pieces.finish();
                return Ok(Some(ended));
            }
            UnitState::Lost => return Ok(None),
        }
    }
    stage.house.deps.sandbox.stop(stage.task.id).await.map_err(broken)?;
    Ok(None)
}

async fn verdict(stage: &Stage, seq: Seq, (unit, ended): (&dyn Unit, &Ended), from: &Start) -> Result<Acted, Stall> {
    let raw = whole(unit).await?;
    let tokens = stage.result_tokens().min(VERDICT_TOKENS);
    let (text, full) = stage.cut(&fold_output(&raw), None, tokens).await?;
    let cause = match (ended.cause.as_str(), ended.why.as_str()) {
        ("", _) => String::new(),
        (cause, "") => format!("[ended by: {cause}]\n"),
        (cause, why) => format!("[ended by limit `{cause}`: {why}]\n"),
    };
    let (_, traffic) = unit.shown(unit.run().seq, None).await.map_err(broken)?;
    let past = stage.effects.past(Lsn(0)).await?;
    let left = leftover::connections(&stage.house, (stage.task.id, seq), &past).await.map_err(broken)?;
    let verdict = Verdict {
        passed: ended.code == Some(0),
        text: format!("{cause}{text}"),
        exit: ended.code.unwrap_or_else(|| ended.signal.map_or(-1, |signal| -signal)),
        wall_ms: ended.wall_ms,
        restored: super::told::names(stage.guard(), put_back(stage, seq, from).await?),
        full,
        connections: traffic.connections.iter().map(|one| super::told::connection(stage.guard(), one)).chain(left).collect(),
        network: traffic.network,
    };
    Ok(Acted::from(Observation::Verdict(verdict)))
}

/// All output, up to what is kept of one command.
async fn whole(unit: &dyn Unit) -> Result<Bytes, Stall> {
    let mut all = BytesMut::new();
    let mut from = 0;
    while all.len() < FULL_BYTES {
        let chunk = unit.output(from, CHUNK).await.map_err(broken)?;
        if chunk.bytes.is_empty() {
            break;
        }
        all.extend_from_slice(&chunk.bytes);
        from = chunk.next;
    }
    Ok(all.freeze())
}

/// Puts the tree back to `before`; names the files that had existed and differed, in the tree or in
/// the check's layer.
async fn put_back(stage: &Stage, seq: Seq, from: &Start) -> Result<Vec<String>, Stall> {
    let (workspace, canvas, before) = (stage.workspace()?, &stage.house.deps.canvas, &from.tree);
    let mut after = canvas.checkpoint(workspace.clone(), Some(Kept::thorough(before.clone()))).await.map_err(broken)?;
    after.restored.extend(after.layers.into_iter().filter(|layer| layer.run == seq).flat_map(|layer| layer.dropped));
    let changed = stage.changes(before, &after.id).await?;
    if changed.is_empty() {
        return Ok(after.restored);
    }
    match canvas.restore(workspace, before.clone()).await {
        // Who else runs writes on. The next call records what that is.
        Err(fault) if !from.is_alone && fault.code.0 == UNSETTLED => {}
        other => drop(other.map_err(broken)?),
    }
    let others = changed.into_iter().filter(|change| change.kind != "added").map(|change| change.path);
    Ok(after.restored.into_iter().chain(others).collect())
}

async fn lost(stage: &Stage, seq: Seq, from: &Start) -> Result<Acted, Stall> {
    put_back(stage, seq, from).await?;
    let fault = Fault::new("TB-AGENT-007", exit::FAILED, "the outcome of the verification command was lost").transient();
    Ok(Acted::from(Observation::Failed(failed(fault))))
}
