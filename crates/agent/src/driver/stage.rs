//! What one step works with, and small acts that several effects share.
//!
//! Invariant: texts pass the guard's redaction before they are recorded.

use super::House;
use crate::options::Options;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{Act, Acted, Attempt, Fence, Intended, Live, LiveDelta, Past, Stall};
use tinkerbell_core::event::{FileChange, Observed};
use tinkerbell_core::lifecycle::{OP_SEQ, Task};
use tinkerbell_core::model::ModelCard;
use tinkerbell_core::port::{Effects, Found, Guard, Used};
use tinkerbell_core::text::cap_tokens;
use tinkerbell_core::tool::{Sink, ToolContext, output_name};
use tinkerbell_core::words::{GitId, Lsn, RunId, Seq, Workspace};
use tinkerbell_secret::Stream;

/// Most bytes of a whole output that are kept as a blob.
pub const FULL_BYTES: usize = 8 * 1024 * 1024;

/// One step.
pub struct Stage {
    /// What all steps share.
    pub house: Arc<House>,
    /// The task as folded when the step began.
    pub task: Task,
    /// The way to act.
    pub effects: Arc<dyn Effects>,
    /// The lease.
    pub fence: Fence,
    /// The newest checkpoint that the turn knows of.
    pub tree: String,
    /// The options in force.
    pub options: Options,
    /// The model, or why there is none.
    pub card: Result<ModelCard, Fault>,
    /// Whether the effect may have been intended before.
    pub resumed: bool,
}

/// A fault of our own house.
pub fn broken(fault: Fault) -> Stall {
    Stall::Broken(fault)
}

impl Stage {
    /// Journals, acts, journals.
    pub async fn once<F, R>(&self, intended: Intended, act: F) -> Result<Observed, Stall>
    where
        F: FnOnce(Attempt) -> R + Send + 'static,
        R: Future<Output = Result<Acted, Stall>> + Send + 'static,
    {
        let (model, task, seq) = (self.house.deps.model.clone(), self.task.id, intended.seq);
        let act: Act = Box::new(move |attempt| {
            Box::pin(async move {
                // The intent is durable, and with it every observation before it.
                if seq < OP_SEQ {
                    model.settle(task, seq).await;
                }
                act(attempt).await
            })
        });
        self.effects.once(intended, act).await
    }

    /// Whether nobody is to be asked, as of now.
    pub fn is_unasked(&self) -> bool {
        self.task.is_unasked(self.house.deps.clock.now().wall_ms)
    }

    /// The workspace.
    pub fn workspace(&self) -> Result<Workspace, Stall> {
        self.task.workspace().ok_or_else(|| broken(super::defect("an effect needs a workspace before there is one")))
    }

    /// What a tool is told for one effect.
    pub fn context(&self, seq: Seq, attempt: Attempt) -> Result<ToolContext, Stall> {
        Ok(ToolContext {
            task: self.task.id,
            seq,
            workspace: self.workspace()?,
            fence: self.fence,
            attempt,
            max_output_tokens: self.result_tokens(),
            env: (self.house.deps.env)(self.task.id),
            live: Sink::default(),
            limits: self.effects.task().limits(seq),
            approved: None,
        })
    }

    /// The newest checkpoint.
    pub fn before(&self) -> Result<GitId, Stall> {
        git(&self.tree)
    }

    /// The text without known secrets.
    pub fn clean(&self, text: &str) -> String {
        self.guard().redact(text)
    }

    /// A text that a person decides on: without the user's own secrets, and with what a repository calls one.
    /// Whoever writes its git configuration chooses that, and with it what would not be seen.
    pub fn clean_own(&self, text: &str) -> String {
        self.house.deps.known.redact_own(text).into_owned()
    }

    /// Who knows the secrets.
    pub fn guard(&self) -> &dyn Guard {
        &*self.house.deps.guard
    }

    /// Most tokens of a result: an eighth of the window, so that small models see several.
    pub fn result_tokens(&self) -> u32 {
        let window = self.card.as_ref().map_or(u64::MAX, |card| card.context_tokens / 8);
        self.options.result_tokens.min(u32::try_from(window).unwrap_or(u32::MAX)).max(256)
    }

    /// Whether the effect's observation is recorded already.
    pub async fn is_observed(&self, seq: Seq) -> Result<bool, Stall> {
        if !self.resumed {
            return Ok(false);
        }
        let past = self.effects.past(Lsn(0)).await?;
        Ok(past.iter().any(|entry| matches!(entry, Past::Effect { seq: seen, .. } if *seen == seq)))
    }

    /// What all commands of the task have used until now.
    pub async fn used(&self) -> Result<Used, Stall> {
        self.house.deps.sandbox.used(self.task.id).await.map_err(broken)
    }

    /// Shows progress.
    pub fn live(&self, seq: Seq, delta: LiveDelta) {
        self.effects.live(Live { task: self.task.id, seq, delta });
    }

    /// Shows pieces of one text as progress: a secret that is cut by their borders is not shown either.
    pub fn pieces(self: &Arc<Self>, seq: Seq, delta: fn(String) -> LiveDelta) -> Pieces {
        Pieces { stage: self.clone(), seq, delta, stream: Arc::new(Mutex::new(self.house.deps.known.stream())) }
    }

    /// The run that an effect of this task names.
    pub const fn run(&self, seq: Seq) -> RunId {
        RunId { task: self.task.id, seq }
    }

    /// Stores a whole output and gives its reference in binary; what is empty is not stored.
    pub async fn keep(&self, full: Bytes) -> Result<Vec<u8>, Stall> {
        if full.is_empty() {
            return Ok(Vec::new());
        }
        let blob = self.house.deps.blobs.put(self.task.owner(), self.clean_bytes(full)).await.map_err(disk)?;
        Ok(blob.to_bytes())
    }

    /// A text cut to `tokens`, with the blob that holds the whole of it where something is missing.
    pub async fn cut(&self, text: &str, full: Option<Bytes>, tokens: u32) -> Result<(String, Vec<u8>), Stall> {
        let capped = cap_tokens(&self.clean(text), tokens);
        let full = if full.is_none() && capped.cut { Some(Bytes::copy_from_slice(text.as_bytes())) } else { full };
        let kept = self.keep(full.unwrap_or_default()).await?;
        let mut shown = capped.text;
        if let Some(blob) = tinkerbell_core::words::BlobRef::from_bytes(&kept) {
            shown = format!("{}\n[whole output: {}]", shown.trim_end(), output_name(&blob));
        }
        Ok((shown, kept))
    }

    /// Bytes without known secrets; bytes that are no text stay as they are unless they hold one.
    fn clean_bytes(&self, full: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&full);
        let clean = self.clean(&text);
        if clean == text { full.clone() } else { Bytes::from(clean) }
    }

    /// Files that differ between two checkpoints.
    pub async fn changes(&self, from: &GitId, to: &GitId) -> Result<Vec<FileChange>, Stall> {
        if from == to {
            return Ok(Vec::new());
        }
        let diff = self.house.deps.canvas.diff(self.workspace()?, from.clone(), to.clone(), false).await.map_err(broken)?;
        Ok(diff.files)
    }

    /// Lets a keeper go whose end is recorded. Losing this costs an idle process until the sweep.
    pub async fn release(&self, run: RunId) {
        let found = self.house.deps.sandbox.attach(run).await;
        if let Ok(Found::Unit(unit) | Found::Lost(unit)) = found
            && let Err(fault) = unit.release().await
        {
            tracing::debug!(%run, %fault, "the keeper was not released");
        }
    }
}

/// A text on its way to whoever watches, piece by piece. Cloning it shares the text.
#[derive(Clone)]
pub struct Pieces {
    stage: Arc<Stage>,
    seq: Seq,
    delta: fn(String) -> LiveDelta,
    stream: Arc<Mutex<Stream>>,
}

impl Pieces {
    /// Shows a piece, but for an end that may still become a secret.
    pub fn show(&self, piece: &str) {
        let text = {
            let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
            stream.renew(&self.stage.house.deps.known.redactor());
            stream.push_text(piece)
        };
        self.tell(text);
    }

    /// Shows what was held back: the text has ended.
    pub fn finish(&self) {
        let text = self.stream.lock().unwrap_or_else(PoisonError::into_inner).finish_text();
        self.tell(text);
    }

    fn tell(&self, text: String) {
        if !text.is_empty() {
            self.stage.live(self.seq, (self.delta)(text));
        }
    }
}

/// A recorded object id.
pub fn git(text: &str) -> Result<GitId, Stall> {
    text.parse().map_err(|_| broken(super::defect("a recorded checkpoint is no object id")))
}

fn disk(fault: Fault) -> Stall {
    if fault.retryable { Stall::Disk(fault.message) } else { broken(fault) }
}
