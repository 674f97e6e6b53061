//! `read`: numbered lines of a file, of a kept output, or the names in a directory.
//!
//! Shows, never changes. Invariant: what it shows fits the call's token cap, and it says how to get
//! the rest.

use super::args::Args;
use super::memory::Memory;
use super::report::short_hash;
use super::tree::{Found, Links, MAX_FILE_BYTES, Tree, names, read_capped};
use super::{Outcome, refused};
use crate::edit::{self, NotText, Text};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::sync::Arc;
use tinkerbell_core::effect::{EffectClass, Stall};
use tinkerbell_core::port::{BlobStore, Tool};
use tinkerbell_core::text::{BYTES_PER_TOKEN, cap_tokens};
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec};

const KEYS: &[&str] = &["path", "start", "lines"];
const MAX_LINES: usize = 2_000;
const MAX_LINE_CHARS: usize = 2_000;
const MAX_NAMES: usize = 500;

/// The tool.
pub struct Read {
    /// Serves `blob:` names.
    pub blobs: Arc<dyn BlobStore>,
    /// What tasks have read.
    pub memory: Arc<Memory>,
}

struct Wanted {
    path: String,
    start: usize,
    lines: usize,
}

fn read_args(args: &str) -> Result<Wanted, String> {
    let args = Args::parse("read", KEYS, args)?;
    let lines = args.number_if("lines")?.unwrap_or(MAX_LINES).min(MAX_LINES);
    Ok(Wanted { path: args.text("path")?, start: args.number_if("start")?.unwrap_or(1), lines })
}

impl Tool for Read {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "read",
            description: "Read a file as numbered lines (`number<TAB>text`), from line `start`, at most `lines` (2000). The first line of the answer gives the file's hash for write. A directory gives its names. A `blob:…` name from an earlier result gives that whole output. Read a file before you edit it.",
            schema: r#"{"type":"object","properties":{"path":{"type":"string"},"start":{"type":"integer","minimum":1},"lines":{"type":"integer","minimum":1}},"required":["path"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, _args: &str) -> ToolPlan {
        ToolPlan { class: EffectClass::Pure, writes: Vec::new(), deletes: 0, command: None, mcp: None }
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let (blobs, memory) = (Arc::clone(&self.blobs), Arc::clone(&self.memory));
        Box::pin(async move {
            let wanted = match read_args(&args) {
                Ok(wanted) => wanted,
                Err(text) => return Ok(refused("read", text)),
            };
            if wanted.path.starts_with("blob:") {
                return Ok(match stored(&blobs, &wanted.path).await {
                    Ok(bytes) => page(&wanted, &bytes, wanted.path.clone(), ctx.max_output_tokens),
                    Err(text) => refused("read", text),
                });
            }
            super::blocking("read", move || read_path(&ctx, &memory, &wanted)).await
        })
    }
}

/// The bytes behind a `blob:` name.
pub async fn stored(blobs: &Arc<dyn BlobStore>, name: &str) -> Result<Bytes, String> {
    let id = name.strip_prefix("blob:").unwrap_or(name);
    let blob = id.trim().parse().map_err(|_| format!("`{name}` is no output name; copy it whole from the result that gave it"))?;
    blobs.get(blob).await.map_err(|e| format!("`{name}` can not be read: {e}"))
}

fn read_path(ctx: &ToolContext, memory: &Memory, wanted: &Wanted) -> Outcome {
    let shown = &wanted.path;
    let rel = match edit::relative(&ctx.workspace.tree, shown) {
        Ok(rel) => rel,
        Err(e) => return Ok(refused("read", e.to_string().replace("nothing changed: ", ""))),
    };
    let found = Tree::open(&ctx.workspace.tree).and_then(|tree| tree.find(&rel, Links::Inside));
    Ok(match found {
        Err(e) => refused("read", format!("{shown} can not be read: {e}")),
        Ok(Found::Missing) => refused("read", format!("{shown} does not exist; find it with search, or read the directory above")),
        Ok(Found::Other(what)) => refused("read", format!("{shown} is {what}; only files and directories are read")),
        Ok(Found::Directory(dir)) => match names(&dir) {
            Ok(all) => listing(&rel, &all, ctx.max_output_tokens),
            Err(e) => refused("read", format!("{shown} can not be listed: {e}")),
        },
        Ok(Found::File(file, stat)) => match read_capped(file, &stat) {
            Err(e) => refused("read", format!("{shown} can not be read: {e}")),
            Ok(None) => refused("read", format!("{shown} is larger than {} MiB; show a part of it with a command", MAX_FILE_BYTES >> 20)),
            Ok(Some(bytes)) => {
                let outcome = file_page(wanted, &rel, &bytes, ctx.max_output_tokens);
                if outcome.status.is_ok() {
                    memory.saw(ctx, &rel, &bytes);
                }
                outcome
            }
        },
    })
}

fn listing(rel: &str, all: &[String], max_tokens: u32) -> ToolOutcome {
    let name = if rel.is_empty() { "." } else { rel };
    let more = all.len().saturating_sub(MAX_NAMES);
    let shown: Vec<&str> = all.iter().take(MAX_NAMES).map(String::as_str).collect();
    let tail = if more > 0 { format!("\n… {more} more names") } else { String::new() };
    let text = format!("{name} is a directory with {} names:\n{}{tail}", all.len(), shown.join("\n"));
    ToolOutcome::done(format!("read {name}/"), cap_tokens(&text, max_tokens).text)
}

fn file_page(wanted: &Wanted, rel: &str, bytes: &[u8], max_tokens: u32) -> ToolOutcome {
    let traits = match Text::parse(bytes) {
        Err(NotText::Binary) => {
            return refused("read", format!("{rel} is a binary file of {} bytes; look at it with a command", bytes.len()));
        }
        Err(NotText::NotUtf8(at)) => format!(", not UTF-8 from byte {at} on (\u{fffd} stands for other bytes; it can not be edited)"),
        Ok(text) => {
            let crlf = if text.is_crlf() { ", CRLF line ends" } else { "" };
            let bom = if text.has_bom() { ", byte order mark" } else { "" };
            let open = if text.ends_with_newline() { "" } else { ", no newline at the end" };
            format!("{crlf}{bom}{open}")
        }
    };
    page(wanted, bytes, format!("{rel}, hash {}{traits}", short_hash(bytes)), max_tokens)
}

/// Lines from `start` on, as many as the caps allow.
fn page(wanted: &Wanted, bytes: &[u8], title: String, max_tokens: u32) -> ToolOutcome {
    let text = String::from_utf8_lossy(bytes);
    let body = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let total = body.lines().count();
    if total == 0 {
        return ToolOutcome::done(format!("read {}", wanted.path), format!("{title}: empty"));
    }
    if wanted.start > total {
        return refused("read", format!("{} has only {total} lines; start is {}", wanted.path, wanted.start));
    }
    let mut room = room_bytes(max_tokens).saturating_sub(title.len() + 160);
    let mut shown = String::new();
    let mut last = wanted.start - 1;
    for line in body.lines().skip(wanted.start - 1).take(wanted.lines) {
        let row = format!("{}\t{}\n", last + 1, cut_line(line));
        // At least one line, else a small cap would never let the model go on.
        if row.len() > room && last >= wanted.start {
            break;
        }
        room = room.saturating_sub(row.len());
        shown.push_str(&row);
        last += 1;
    }
    let tail = if last < total { format!("… {} more lines; go on with start={}\n", total - last, last + 1) } else { String::new() };
    let text = format!("{title}, lines {}–{last} of {total}\n{shown}{tail}", wanted.start);
    let summary = format!("read {} lines {}–{last} of {total}", wanted.path, wanted.start);
    ToolOutcome::done(summary, cap_tokens(&text, max_tokens).text)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn room_bytes(max_tokens: u32) -> usize {
    (f64::from(max_tokens) * BYTES_PER_TOKEN) as usize
}

fn cut_line(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE_CHARS) {
        Some((at, _)) => {
            let (head, rest) = line.split_at(at);
            format!("{head}… [{} more characters]", rest.chars().count())
        }
        None => line.to_owned(),
    }
}
