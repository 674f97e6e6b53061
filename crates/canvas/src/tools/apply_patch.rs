//! `apply_patch`: several files in one V4A patch, all or nothing.
//!
//! A thin door to [`super::change`]. Invariant: the plan names every path that the patch would
//! touch, deleted and moved ones too.

use super::args::{Args, planned};
use super::change::Call;
use super::memory::Memory;
use crate::edit::{self, Edit};
use futures_core::future::BoxFuture;
use std::sync::Arc;
use tinkerbell_core::approval::Bound;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{EffectClass, Stall};
use tinkerbell_core::port::Tool;
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec};

const KEYS: &[&str] = &["patch"];

/// The tool.
pub struct ApplyPatch {
    /// What tasks have read.
    pub memory: Arc<Memory>,
}

fn read_args(args: &str) -> Result<Vec<Edit>, String> {
    let patch = Args::parse("apply_patch", KEYS, args)?.text("patch")?;
    edit::parse(&patch).map_err(|e| e.to_string())
}

impl Tool for ApplyPatch {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "apply_patch",
            description: "Change, add, move or delete files in one patch, all or nothing. Read the files first. Format:\n*** Begin Patch\n*** Update File: src/a.py\n*** Move to: src/b.py\n@@ def run(self):\n     x = 1\n-    return x\n+    return x + 1\n*** Add File: notes.md\n+whole text\n*** Delete File: old.py\n*** End Patch\nLines of a hunk begin with a space (stays), - (goes) or + (comes). Give about 3 unchanged lines around a change: the hunk must match exactly one place; name the function above it after @@ if it would match several. `Move to` is optional. No line numbers.",
            schema: r#"{"type":"object","properties":{"patch":{"type":"string"}},"required":["patch"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        let edits = read_args(args).unwrap_or_default();
        let paths: Vec<&str> = edits.iter().flat_map(Edit::paths).collect();
        let mut writes = planned(&paths);
        writes.sort();
        writes.dedup();
        let deletes = edits.iter().filter(|e| matches!(e, Edit::Delete { .. })).count();
        ToolPlan { class: EffectClass::Verifiable, writes, deletes: u32::try_from(deletes).unwrap_or(u32::MAX), command: None, mcp: None }
    }

    fn bind<'a>(&'a self, ctx: &'a ToolContext, args: &'a str) -> BoxFuture<'a, Result<Bound, Fault>> {
        super::bind(ctx, &self.memory, read_args(args))
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let memory = Arc::clone(&self.memory);
        super::blocking("apply_patch", move || match read_args(&args) {
            Ok(edits) => Call { tool: "apply_patch", ctx: &ctx, memory: &memory, replaces: None }.run(edits),
            Err(text) => Ok(super::refused("apply_patch", text)),
        })
    }
}
