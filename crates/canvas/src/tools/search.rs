//! `search`: lines that match a pattern, by ripgrep's own crates.
//!
//! Respects `.gitignore`, skips binary files, opens each file and directory safely beneath the root, the
//! ignore files included. Shows, never changes. Invariant: bounded per line, per file and in total, and it says what was left out.

use super::args::Args;
use super::report::finish;
use super::tree::{Found, Links, Tree, names};
use super::{Outcome, refused};
use crate::edit;
use crate::ignored::Ignored;
use futures_core::future::BoxFuture;
use gix::bstr::BStr;
use grep_matcher::{LineTerminator, Matcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::overrides::{Override, OverrideBuilder};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tinkerbell_core::effect::{EffectClass, Stall};
use tinkerbell_core::port::{BlobStore, Tool};
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec};

const KEYS: &[&str] = &["pattern", "path", "glob"];
/// Lines shown per file; more say that the pattern is too wide, not what the file is about.
const PER_FILE: usize = 20;
/// Lines shown in all.
const IN_ALL: usize = 200;
/// Matches after which counting stops.
const COUNT_LIMIT: usize = 20_000;
/// Characters of a matching line that are shown, before and from the match on.
const BEFORE_CHARS: usize = 80;
const FROM_CHARS: usize = 220;
/// A line longer than this is not held in memory.
const HEAP_BYTES: usize = 8 << 20;
/// Deepest nesting that is searched; each level holds a descriptor.
const DEPTH: usize = 200;

/// The tool.
pub struct Search {
    /// Serves `blob:` names.
    pub blobs: Arc<dyn BlobStore>,
}

struct Wanted {
    pattern: String,
    path: String,
    glob: Option<String>,
}

fn read_args(args: &str) -> Result<Wanted, String> {
    let args = Args::parse("search", KEYS, args)?;
    let wanted = Wanted { pattern: args.text("pattern")?, path: args.text_if("path")?.unwrap_or_default(), glob: args.text_if("glob")? };
    if wanted.pattern.is_empty() {
        return Err("search: argument `pattern` is empty; give a regular expression or some text".to_owned());
    }
    Ok(wanted)
}

/// Tells the blocking search to end when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tool for Search {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "search",
            description: "Find lines by a regular expression (Rust syntax; `(?i)` ignores case), grouped by file. `path` limits it to a directory or file (or a `blob:…` output), `glob` to names like `*.rs` or `src/**/*.py` (`!x` excludes). Files ignored by git are skipped unless `path` names them.",
            schema: r#"{"type":"object","properties":{"pattern":{"type":"string"},"path":{"type":"string"},"glob":{"type":"string"}},"required":["pattern"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, _args: &str) -> ToolPlan {
        ToolPlan { class: EffectClass::Pure, writes: Vec::new(), deletes: 0, command: None, mcp: None }
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let blobs = Arc::clone(&self.blobs);
        Box::pin(async move {
            let wanted = match read_args(&args) {
                Ok(wanted) => wanted,
                Err(text) => return Ok(refused("search", text)),
            };
            let stored = if wanted.path.starts_with("blob:") {
                match super::read::stored(&blobs, &wanted.path).await {
                    Ok(bytes) => Some(bytes),
                    Err(text) => return Ok(refused("search", text)),
                }
            } else {
                None
            };
            let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
            let flag = Arc::clone(&stop.0);
            super::blocking("search", move || run(&ctx, &wanted, stored.as_deref(), &flag)).await
        })
    }
}

fn run(ctx: &ToolContext, wanted: &Wanted, stored: Option<&[u8]>, stop: &AtomicBool) -> Outcome {
    let (matcher, note) = match matcher(&wanted.pattern) {
        Ok(made) => made,
        Err(text) => return Ok(refused("search", text)),
    };
    let mut hunt = Hunt { matcher: &matcher, searcher: searcher(), found: Findings::default(), stop };
    let result = match stored {
        Some(bytes) => hunt.slice(&wanted.path, bytes),
        None => hunt.tree(ctx, wanted),
    };
    Ok(match result {
        Ok(()) => hunt.found.outcome(wanted, &note, ctx.max_output_tokens),
        Err(text) => refused("search", text),
    })
}

/// The matcher, and what to say about it: a pattern that is no regular expression is taken as text.
fn matcher(pattern: &str) -> Result<(RegexMatcher, String), String> {
    let build = |literal: bool| RegexMatcherBuilder::new().crlf(true).fixed_strings(literal).build(pattern);
    if pattern.contains('\n') {
        return Err("search looks at single lines: leave the line break out of the pattern".to_owned());
    }
    match build(false) {
        Ok(matcher) => Ok((matcher, String::new())),
        Err(e) => {
            let why = explain(pattern, &e.to_string());
            let matcher = build(true).map_err(|_| format!("the pattern can not be searched for: {why}"))?;
            Ok((matcher, format!("`{pattern}` is no regular expression ({why}); searched for it as plain text.\n")))
        }
    }
}

/// Turns the library's drawing (`    (?:a[)\n        ^\nerror: unclosed …`) into one line with a position.
fn explain(pattern: &str, drawing: &str) -> String {
    let what = drawing.lines().find_map(|l| l.strip_prefix("error: ")).map_or_else(|| drawing.replace('\n', " "), str::to_owned);
    let caret = drawing.lines().find(|l| l.contains('^') && l.trim_matches(|c| c == ' ' || c == '^').is_empty());
    let column = caret.and_then(|l| l.find('^')).and_then(|at| at.checked_sub(DRAWING_INDENT));
    // The library wraps the pattern in a group, which then looks like the one left open.
    match column.and_then(|at| at.checked_sub(GROUP_CHARS)).or_else(|| open_group(pattern)) {
        Some(at) if at < pattern.chars().count() => format!("{what} at character {}", at + 1),
        _ => what,
    }
}

const DRAWING_INDENT: usize = 4;
const GROUP_CHARS: usize = 3;

/// Where the last group begins that is never closed.
fn open_group(pattern: &str) -> Option<usize> {
    let (mut open, mut escaped, mut class) = (Vec::new(), false, false);
    for (at, c) in pattern.chars().enumerate() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            '(' if !class => open.push(at),
            ')' if !class => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

fn searcher() -> Searcher {
    SearcherBuilder::new()
        .line_terminator(LineTerminator::crlf())
        .line_number(true)
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(HEAP_BYTES))
        .build()
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    text: String,
    shown: usize,
    files: usize,
    matches: usize,
    hidden_files: usize,
    looked_at: usize,
    failed: usize,
}

/// Where a walk goes.
struct Way<'a> {
    below: &'a str,
    globs: &'a Override,
    ignored: Option<Ignored>,
    depth: usize,
}

impl Way<'_> {
    /// Whether a path is below what was asked for, or on the way there.
    fn leads(&self, rel: &str) -> bool {
        let holds = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.below.is_empty() || holds(self.below, rel) || holds(rel, self.below)
    }
}

struct Hunt<'a> {
    matcher: &'a RegexMatcher,
    searcher: Searcher,
    found: Findings,
    stop: &'a AtomicBool,
}

impl Hunt<'_> {
    fn slice(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let mut lines = Lines { matcher: self.matcher, shown: Vec::new(), count: 0, stop: self.stop };
        // Outputs are shown whatever bytes are in them.
        self.searcher.set_binary_detection(BinaryDetection::none());
        self.searcher.search_slice(self.matcher, bytes, &mut lines).map_err(|e| format!("{name} can not be searched: {e}"))?;
        self.found.add(name, &lines);
        Ok(())
    }

    fn tree(&mut self, ctx: &ToolContext, wanted: &Wanted) -> Result<(), String> {
        let root = &ctx.workspace.tree;
        let tree = Tree::open(root).map_err(|e| format!("the workspace can not be opened: {e}"))?;
        let below = match wanted.path.as_str() {
            "" => String::new(),
            path => edit::relative(root, path).map_err(|e| e.to_string().replace("nothing changed: ", ""))?,
        };
        let globs = globs(root, wanted.glob.as_deref())?;
        match tree.find(&below, Links::Never).map_err(|e| format!("{below} can not be searched: {e}"))? {
            Found::Missing => return Err(format!("{} does not exist; leave `path` out to search everything", wanted.path)),
            Found::Other(what) => return Err(format!("{} is {what}", wanted.path)),
            Found::File(..) => {
                self.file(&tree, &below);
                return Ok(());
            }
            Found::Directory(_) => {}
        }
        self.below(&tree, "", &mut Way { below: &below, globs: &globs, ignored: Some(Ignored::of_tree()), depth: 0 })?;
        // A directory that git ignores was named on purpose.
        if self.found.looked_at == 0 && !below.is_empty() {
            self.below(&tree, &below, &mut Way { below: &below, globs: &globs, ignored: None, depth: 0 })?;
        }
        Ok(())
    }

    /// Walks from the root, so that every `.gitignore` on the way counts, into what was asked for only.
    fn below(&mut self, tree: &Tree, dir: &str, way: &mut Way<'_>) -> Result<(), String> {
        // What vanishes or can not be opened meanwhile is passed over.
        let Ok(Found::Directory(fd)) = tree.find(dir, Links::Never) else { return Ok(()) };
        let Ok(names) = names(&fd) else { return Ok(()) };
        let has_patterns = names.iter().any(|name| name == ".gitignore");
        let entered = match way.ignored.as_mut().filter(|_| has_patterns) {
            Some(ignored) => ignored.enter(fd.as_fd(), BStr::new(dir)).map_err(|e| e.to_string())?,
            None => false,
        };
        for name in &names {
            if self.stop.load(Ordering::Relaxed) || self.found.matches >= COUNT_LIMIT {
                break;
            }
            self.entry(tree, (dir, name), way)?;
        }
        if let Some(ignored) = way.ignored.as_mut().filter(|_| entered) {
            ignored.leave();
        }
        Ok(())
    }

    fn entry(&mut self, tree: &Tree, (dir, name): (&str, &str), way: &mut Way<'_>) -> Result<(), String> {
        let (bare, is_dir) = name.strip_suffix('/').map_or((name, false), |bare| (bare, true));
        let rel = if dir.is_empty() { bare.to_owned() } else { format!("{dir}/{bare}") };
        if bare.eq_ignore_ascii_case(".git") || !way.leads(&rel) {
            return Ok(());
        }
        if let Some(ignored) = &mut way.ignored
            && ignored.matches(BStr::new(&rel), is_dir).map_err(|e| e.to_string())?
        {
            return Ok(());
        }
        if !is_dir {
            if !way.globs.matched(&rel, false).is_ignore() {
                self.file(tree, &rel);
            }
            return Ok(());
        }
        if way.depth >= DEPTH {
            self.found.failed += 1;
            return Ok(());
        }
        way.depth += 1;
        let done = self.below(tree, &rel, way);
        way.depth -= 1;
        done
    }

    /// Files that vanish or can not be opened meanwhile are passed over.
    fn file(&mut self, tree: &Tree, rel: &str) {
        let Ok(Found::File(file, _)) = tree.find(rel, Links::Never) else { return };
        self.found.looked_at += 1;
        let mut lines = Lines { matcher: self.matcher, shown: Vec::new(), count: 0, stop: self.stop };
        match self.searcher.search_file(self.matcher, &file, &mut lines) {
            Ok(()) => self.found.add(rel, &lines),
            Err(e) => {
                self.found.failed += 1;
                tracing::debug!(path = rel, error = %e, "a file was not searched");
            }
        }
    }
}

fn globs(root: &Path, glob: Option<&str>) -> Result<Override, String> {
    let mut builder = OverrideBuilder::new(root);
    if let Some(one) = glob.filter(|g| !g.trim().is_empty()) {
        builder.add(one).map_err(|e| format!("`{one}` is no glob: {e}; use names like *.rs or src/**/*.py"))?;
    }
    builder.build().map_err(|e| format!("the glob can not be used: {e}"))
}

/// The matching lines of one file.
struct Lines<'a> {
    matcher: &'a RegexMatcher,
    shown: Vec<(u64, String)>,
    count: usize,
    stop: &'a AtomicBool,
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        self.count += 1;
        if self.shown.len() < PER_FILE {
            let bytes = found.bytes();
            let at = self.matcher.find(bytes).ok().flatten().map_or(0, |m| m.start());
            self.shown.push((found.line_number().unwrap_or(0), window(bytes, at)));
        }
        Ok(self.count < COUNT_LIMIT && !self.stop.load(Ordering::Relaxed))
    }
}

/// The part of a long line around its match.
fn window(line: &[u8], at: usize) -> String {
    let (head, tail) = line.split_at_checked(at).unwrap_or((line, b""));
    let head = String::from_utf8_lossy(head);
    let tail = String::from_utf8_lossy(tail);
    let tail = tail.trim_end_matches(['\n', '\r']);
    let skipped = head.chars().count().saturating_sub(BEFORE_CHARS);
    let before: String = head.chars().skip(skipped).collect();
    let from: String = tail.chars().take(FROM_CHARS).collect();
    format!("{}{before}{from}{}", if skipped > 0 { "…" } else { "" }, if from.len() < tail.len() { "…" } else { "" })
}

impl Findings {
    fn add(&mut self, name: &str, lines: &Lines<'_>) {
        if lines.count == 0 {
            return;
        }
        self.files += 1;
        self.matches += lines.count;
        let room = IN_ALL.saturating_sub(self.shown).min(PER_FILE);
        if room == 0 {
            self.hidden_files += 1;
            return;
        }
        self.text.push_str(name);
        self.text.push('\n');
        for (number, line) in lines.shown.iter().take(room) {
            self.text.push_str(&format!("{number}\t{line}\n"));
        }
        let shown = lines.shown.len().min(room);
        self.shown += shown;
        if lines.count > shown {
            self.text.push_str(&format!("… {} more in this file\n", lines.count - shown));
        }
    }

    fn outcome(self, wanted: &Wanted, note: &str, max_tokens: u32) -> ToolOutcome {
        let pattern: String = wanted.pattern.chars().take(80).collect();
        let failed = if self.failed > 0 { format!("({} files could not be searched)\n", self.failed) } else { String::new() };
        if self.matches == 0 {
            return ToolOutcome::done(
                format!("search {pattern} → nothing"),
                format!("{note}no match in {} files\n{failed}", self.looked_at),
            );
        }
        let least = if self.matches >= COUNT_LIMIT { "at least " } else { "" };
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let head = format!("{least}{} in {}", count(self.matches, "match", "matches"), count(self.files, "file", "files"));
        let tail = match self.hidden_files {
            0 => String::new(),
            n => format!("… {} left out; narrow it by `path` or `glob`\n", count(n, "more file", "more files")),
        };
        finish(format!("search {pattern} → {head}"), format!("{note}{head}\n{}{tail}{failed}", self.text), max_tokens)
    }
}
