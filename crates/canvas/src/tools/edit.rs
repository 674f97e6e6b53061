//! `edit`: exact search and replace in one file.
//!
//! A thin door to [`super::change`]. Invariant: the schema and the keys read here are the same.

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

const KEYS: &[&str] = &["path", "old", "new", "near_line"];

/// The tool.
pub struct EditTool {
    /// What tasks have read.
    pub memory: Arc<Memory>,
}

fn read_args(args: &str) -> Result<Edit, String> {
    let args = Args::parse("edit", KEYS, args)?;
    Ok(Edit::Replace { path: args.text("path")?, old: args.text("old")?, new: args.text("new")?, near_line: args.number_if("near_line")? })
}

impl Tool for EditTool {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "edit",
            description: "Replace the one place in a file where `old` stands by `new`. Read the file first. `old` is the text without line numbers, with enough lines to be unique; `near_line` picks among equal places. Line ends are kept. Returns a diff.",
            schema: r#"{"type":"object","properties":{"path":{"type":"string"},"old":{"type":"string"},"new":{"type":"string"},"near_line":{"type":"integer","minimum":1}},"required":["path","old","new"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        let writes = read_args(args).map(|e| planned(&e.paths())).unwrap_or_default();
        ToolPlan { class: EffectClass::Verifiable, writes, deletes: 0, command: None, mcp: None }
    }

    fn bind<'a>(&'a self, ctx: &'a ToolContext, args: &'a str) -> BoxFuture<'a, Result<Bound, Fault>> {
        super::bind(ctx, &self.memory, read_args(args).map(|edit| vec![edit]))
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let memory = Arc::clone(&self.memory);
        super::blocking("edit", move || match read_args(&args) {
            Ok(edit) => Call { tool: "edit", ctx: &ctx, memory: &memory, replaces: None }.run(vec![edit]),
            Err(text) => Ok(super::refused("edit", text)),
        })
    }
}
