//! `write`: a whole file, new or over one whose hash is named.
//!
//! A thin door to [`super::change`]. Invariant: a file is never overwritten by a model that does
//! not know its present content.

use super::args::{Args, planned};
use super::change::Call;
use super::memory::Memory;
use crate::edit::Edit;
use futures_core::future::BoxFuture;
use std::sync::Arc;
use tinkerbell_core::approval::Bound;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{EffectClass, Stall};
use tinkerbell_core::port::Tool;
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec};

const KEYS: &[&str] = &["path", "content", "replaces"];

/// The tool.
pub struct Write {
    /// What tasks have read.
    pub memory: Arc<Memory>,
}

fn read_args(args: &str) -> Result<(Edit, Option<String>), String> {
    let args = Args::parse("write", KEYS, args)?;
    let replaces = args.text_if("replaces")?.filter(|hash| !hash.is_empty());
    Ok((Edit::Write { path: args.text("path")?, content: args.text("content")?, over: replaces.is_some() }, replaces))
}

impl Tool for Write {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "write",
            description: "Create a file with this content; directories are made. To replace a whole existing file give `replaces`: the hash that read shows in its first line. For smaller changes use edit or apply_patch. Send full text, never \"rest unchanged\".",
            schema: r#"{"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"},"replaces":{"type":"string"}},"required":["path","content"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        let writes = read_args(args).map(|(e, _)| planned(&e.paths())).unwrap_or_default();
        ToolPlan { class: EffectClass::Verifiable, writes, deletes: 0, command: None, mcp: None }
    }

    fn bind<'a>(&'a self, ctx: &'a ToolContext, args: &'a str) -> BoxFuture<'a, Result<Bound, Fault>> {
        super::bind(ctx, &self.memory, read_args(args).map(|(edit, _)| vec![edit]))
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let memory = Arc::clone(&self.memory);
        super::blocking("write", move || match read_args(&args) {
            Ok((edit, replaces)) => Call { tool: "write", ctx: &ctx, memory: &memory, replaces }.run(vec![edit]),
            Err(text) => Ok(super::refused("write", text)),
        })
    }
}
