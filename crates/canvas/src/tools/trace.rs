//! What an edit is about to do, written down before it touches the tree, for recovery.
//!
//! One small file per call in the worktree's private git directory, which commands can not write:
//! `<hash before> <hash after> <path>` per line, `-` where there is no file. No journal: it only
//! answers "is this very edit done". Invariant: it is on disk before the first rename.

use crate::edit::Change;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use tinkerbell_core::tool::ToolContext;
use tinkerbell_core::words::Seq;

/// Notes of calls older than this are removed; their outcome is long recorded.
const KEEP: Seq = 32;
const FOLDER: &str = "tinkerbell-edits";
const FIRST_LINE: &str = "tinkerbell edit 1";

/// One path of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The path.
    pub path: String,
    /// Hash before; `None` when there was no file.
    pub before: Option<String>,
    /// Hash after; `None` when there will be none.
    pub after: Option<String>,
}

impl Mark {
    /// The mark of a change.
    pub fn of(change: &Change) -> Self {
        let hash = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(full_hash);
        Self { path: change.path.clone(), before: hash(&change.before), after: hash(&change.after) }
    }
}

/// The hash by which contents are compared.
pub fn full_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn folder(ctx: &ToolContext) -> Option<PathBuf> {
    ctx.workspace.git_dir.is_dir().then(|| ctx.workspace.git_dir.join(FOLDER))
}

/// Writes the note of a call. Without a git directory there is nowhere to write, and none is needed:
/// such a tree is never recovered.
pub fn begin(ctx: &ToolContext, marks: &[Mark]) -> io::Result<()> {
    let Some(folder) = folder(ctx) else { return Ok(()) };
    fs::create_dir_all(&folder)?;
    prune(&folder, ctx.seq)?;
    let mut text = format!("{FIRST_LINE}\n");
    for mark in marks {
        let (before, after) = (mark.before.as_deref().unwrap_or("-"), mark.after.as_deref().unwrap_or("-"));
        text.push_str(&format!("{before} {after} {}\n", mark.path));
    }
    let partial = folder.join(format!("{}.partial", ctx.seq));
    let mut file = fs::File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&partial, folder.join(ctx.seq.to_string()))?;
    fs::File::open(&folder)?.sync_all()
}

/// The note of this very call, if it had come as far as touching the tree.
pub fn read(ctx: &ToolContext) -> Option<Vec<Mark>> {
    let text = fs::read_to_string(folder(ctx)?.join(ctx.seq.to_string())).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let hash = |s: &str| (s != "-").then(|| s.to_owned());
    lines
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (before, after) = (hash(parts.next()?), hash(parts.next()?));
            Some(Mark { path: parts.next()?.to_owned(), before, after })
        })
        .collect()
}

fn prune(folder: &std::path::Path, now: Seq) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let seq = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<Seq>().ok());
        if seq.is_some_and(|seq| seq < now.saturating_sub(KEEP)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
