//! The file tools as a model sees them: read, search, edit, write, apply_patch.
//!
//! They bring bytes from the task's tree to the edit engine and its changes back; commands and git
//! are others' business. Invariant: nothing outside the tree is read or written, and a call that
//! fails has changed nothing.

mod apply_patch;
mod args;
mod change;
mod commit;
mod edit;
mod memory;
mod read;
mod report;
mod search;
mod trace;
mod tree;
mod write;

#[cfg(test)]
mod tests;

use crate::edit::Edit;
use futures_core::future::BoxFuture;
use memory::Memory;
use std::sync::Arc;
use tinkerbell_core::approval::Bound;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::Stall;
use tinkerbell_core::port::{BlobStore, Tool};
use tinkerbell_core::tool::{ToolContext, ToolOutcome};

pub(crate) use trace::full_hash as content_hash;

/// All file tools, in the order in which the model sees them. `blobs` serves `blob:` names.
///
/// They share one memory of what each task has read, so make them once.
#[must_use]
pub fn all(blobs: Arc<dyn BlobStore>) -> Vec<Arc<dyn Tool>> {
    let memory = Arc::new(Memory::default());
    vec![
        Arc::new(read::Read { blobs: Arc::clone(&blobs), memory: Arc::clone(&memory) }),
        Arc::new(search::Search { blobs }),
        Arc::new(edit::EditTool { memory: Arc::clone(&memory) }),
        Arc::new(write::Write { memory: Arc::clone(&memory) }),
        Arc::new(apply_patch::ApplyPatch { memory }),
    ]
}

type Outcome = Result<ToolOutcome, Stall>;

/// Runs blocking work; dropping the future lets the work end by itself.
fn blocking(name: &'static str, work: impl FnOnce() -> Outcome + Send + 'static) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(e) if e.is_cancelled() => Err(Stall::Stopped),
            Err(e) => {
                tracing::error!(tool = name, error = %e, "a file tool broke off");
                Ok(ToolOutcome::failed(
                    format!("{name} broke off"),
                    format!("{name} broke off by a fault of the runtime; read the file again before you go on"),
                ))
            }
        }
    })
}

/// Looks at what edits would do; dropping the future lets the look end by itself.
fn bind(ctx: &ToolContext, memory: &Arc<Memory>, edits: Result<Vec<Edit>, String>) -> BoxFuture<'static, Result<Bound, Fault>> {
    let (ctx, memory) = (ctx.clone(), Arc::clone(memory));
    Box::pin(async move {
        // Malformed arguments change nothing: the call then says what is wrong.
        let Ok(edits) = edits else { return Ok(Bound::default()) };
        let look = move || change::Call { tool: "bind", ctx: &ctx, memory: &memory, replaces: None }.bind(edits);
        let ended = |error| Fault::new("TB-APPROVE-005", exit::INTERNAL, format!("what it would change can not be read: {error}"));
        tokio::task::spawn_blocking(look).await.map_err(ended)?
    })
}

/// A refusal before anything was looked at.
fn refused(name: &str, text: String) -> ToolOutcome {
    ToolOutcome::failed(format!("{name} refused"), text)
}
