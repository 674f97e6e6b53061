//! One path from edits to a changed tree, for all three editing tools.
//!
//! Read, judge, apply in memory, note, commit, report. Invariant: the tree changes only in
//! `commit`, after the note that lets recovery see what was about to happen.

use super::Outcome;
use super::commit::{self, Failure};
use super::memory::{Memory, Standing};
use super::report::{self, diff_of, short_hash};
use super::trace::{self, Mark};
use super::tree::Tree;
use crate::edit::{self, Change, Edit, Entry, Refusal, View};
use rustix::io::Errno;
use std::collections::BTreeSet;
use tinkerbell_core::approval::{Bound, Fact};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Attempt, Stall};
use tinkerbell_core::text::cap_tokens;
use tinkerbell_core::tool::{ToolContext, ToolOutcome};

/// Tokens of a refusal: enough for thirty quoted lines.
const MAX_REFUSAL_TOKENS: u32 = 2_500;
/// Tokens of a diff inside a refusal.
const MAX_QUOTE_TOKENS: u32 = 1_500;

/// A call of an editing tool.
pub struct Call<'a> {
    /// The tool's name.
    pub tool: &'static str,
    /// What it was told.
    pub ctx: &'a ToolContext,
    /// What the task has read.
    pub memory: &'a Memory,
    /// The hash that a whole-file write says it replaces.
    pub replaces: Option<String>,
}

/// Why a call ends without a change.
enum Stop {
    Refused(Refusal),
    Failed(String),
    Disk(String),
    Done(Vec<Mark>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Call<'_> {
    /// Makes the edits, all or none. `edits` have the paths as they were sent.
    pub fn run(&self, edits: Vec<Edit>) -> Outcome {
        match self.attempt(edits) {
            Ok(changes) => Ok(report::made(self.tool, &changes, self.ctx.max_output_tokens)),
            Err(Stop::Refused(Refusal::Missing { path, advice })) => {
                let near = self.near(&path).map_or(String::new(), |near| format!("\nThere is {near}: did you mean that?"));
                Ok(self.failed(&format!("{}{near}", Refusal::Missing { path, advice })))
            }
            Err(Stop::Refused(refusal)) => Ok(self.failed(&refusal.to_string())),
            Err(Stop::Failed(text)) => Ok(self.failed(&text)),
            Err(Stop::Disk(text)) => Err(Stall::Disk(text)),
            Err(Stop::Done(marks)) => Ok(self.was_done(&marks)),
        }
    }

    /// What the edits would do to the files as they are now, for a person to approve. Edits that fail
    /// are bound to the files alone: they change nothing when they are made, either.
    pub fn bind(&self, edits: Vec<Edit>) -> Result<Bound, Fault> {
        let unreadable = |why: String| Fault::new("TB-APPROVE-005", exit::FAILED, format!("what it would change can not be read: {why}"));
        let tree = Tree::open(&self.ctx.workspace.tree).map_err(|error| unreadable(error.to_string()))?;
        let named: Result<Vec<Edit>, Refusal> =
            edits.into_iter().map(|edit| edit.try_map_paths(|path| edit::relative(tree.path(), path))).collect();
        let edits = named.map_err(|refusal| unreadable(refusal.to_string()))?;
        let view = load(&tree, &edits).map_err(|_| unreadable("a file can not be read".to_owned()))?;
        let changes = edit::apply(&view, &edits).ok();
        let (facts, diff) = facts(&view, changes.as_deref());
        Ok(Bound { facts, shown: diff.filter(|diff| !diff.is_empty()) })
    }

    /// That what is about to be made of these very bytes is what a person approved: between the runtime's look and
    /// this one a background command may have changed a file.
    fn approved(&self, view: &View, changes: &[Change]) -> Result<(), Stop> {
        let Some(approved) = &self.ctx.approved else { return Ok(()) };
        let (now, _) = facts(view, Some(changes));
        if approved.facts.ends_with(&now) {
            return Ok(());
        }
        let names: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        let names = report::few(&names);
        Err(Stop::Failed(format!("nothing changed: {names} changed after this edit was approved; read it again, then ask anew")))
    }

    fn failed(&self, text: &str) -> ToolOutcome {
        let cap = self.ctx.max_output_tokens.min(MAX_REFUSAL_TOKENS);
        let first = text.lines().next().unwrap_or_default();
        let short: String = first.chars().take(160).collect();
        ToolOutcome::failed(format!("{}: {short}", self.tool), cap_tokens(text, cap).text)
    }

    /// The file that a path with too many directories in front meant.
    fn near(&self, path: &str) -> Option<String> {
        let tree = Tree::open(&self.ctx.workspace.tree).ok()?;
        let mut ends = path.match_indices('/').filter_map(|(at, _)| path.get(at + 1..));
        ends.find(|end| matches!(tree.entry(end), Ok(Entry::File(_)))).map(str::to_owned)
    }

    fn was_done(&self, marks: &[Mark]) -> ToolOutcome {
        let line = |m: &Mark| match &m.after {
            Some(hash) => format!("{} is as asked, hash {}", m.path, hash.get(..12).unwrap_or(hash)),
            None => format!("{} is gone as asked", m.path),
        };
        let names: Vec<&str> = marks.iter().map(|m| m.path.as_str()).collect();
        let text = format!("done before the runtime was restarted:\n{}", marks.iter().map(line).collect::<Vec<_>>().join("\n"));
        let summary = format!("{} {} (done before the restart)", self.tool, report::few(&names));
        let wrote = marks.iter().map(report::wrote).collect();
        ToolOutcome { wrote, ..report::finish(summary, text, self.ctx.max_output_tokens) }
    }

    fn attempt(&self, edits: Vec<Edit>) -> Result<Vec<Change>, Stop> {
        let workspace = &self.ctx.workspace;
        let tree =
            Tree::open(&workspace.tree).map_err(|e| Stop::Failed(format!("nothing changed: the workspace can not be opened: {e}")))?;
        let edits = edits.into_iter().map(|e| e.try_map_paths(|p| edit::relative(tree.path(), p))).collect::<Result<Vec<_>, _>>()?;
        if self.ctx.attempt == Attempt::Recover {
            self.recover(&tree)?;
        }
        let view = load(&tree, &edits)?;
        self.judge(&view, &edits)?;
        let changes = edit::apply(&view, &edits).inspect_err(|_| self.saw_all(&view))?;
        if changes.is_empty() {
            let path = edits.first().and_then(|e| e.paths().first().map(|p| (*p).to_owned())).unwrap_or_default();
            return Err(Refusal::Identical { path, what: "the result".to_owned() }.into());
        }
        self.approved(&view, &changes)?;
        let marks: Vec<Mark> = changes.iter().map(Mark::of).collect();
        trace::begin(self.ctx, &marks).map_err(|e| io_stop("the note of this edit", &e))?;
        commit::commit(&tree, &changes, &self.tag()).map_err(|failure| self.commit_stop(&tree, failure))?;
        for change in &changes {
            match &change.after {
                Some(bytes) => self.memory.saw(self.ctx, &change.path, bytes),
                None => self.memory.lost(self.ctx, &change.path),
            }
        }
        Ok(changes)
    }

    /// Names half-written files: the same for each try of one effect, so that recovery finds them.
    fn tag(&self) -> String {
        format!("{}-{}", self.ctx.task.short(8), self.ctx.seq)
    }

    /// Looks at the world first: without a note the tree was never touched.
    fn recover(&self, tree: &Tree) -> Result<(), Stop> {
        let Some(marks) = trace::read(self.ctx) else { return Ok(()) };
        let complete = commit::settle(tree, &marks, &self.tag()).map_err(|e| io_stop("an interrupted edit", &e))?;
        if !complete {
            return Ok(());
        }
        for mark in &marks {
            if let Ok(Entry::File(bytes)) = tree.entry(&mark.path) {
                self.memory.saw(self.ctx, &mark.path, &bytes);
            }
        }
        Err(Stop::Done(marks))
    }

    /// Reads before edits: what is changed must be known as it stands now.
    fn judge(&self, view: &View, edits: &[Edit]) -> Result<(), Stop> {
        let mut fresh: BTreeSet<&str> = BTreeSet::new();
        for edit in edits {
            let paths = edit.paths();
            if let (Edit::Write { path, .. }, Some(_)) = (edit, &self.replaces)
                && view.get(path) == Some(&Entry::Missing)
            {
                return Err(Refusal::Missing { path: path.clone(), advice: "leave `replaces` out to create it" }.into());
            }
            let (Some(path), Some(Entry::File(bytes))) = (paths.first().copied(), paths.first().and_then(|p| view.get(*p))) else {
                continue;
            };
            if let (Edit::Write { .. }, Some(given)) = (edit, &self.replaces) {
                check_hash(path, given, bytes)?;
                continue;
            }
            // A file that an earlier section of the same patch made or deleted is the model's own.
            if matches!(edit, Edit::Add { .. } | Edit::Write { .. }) || !fresh.insert(path) {
                continue;
            }
            match self.memory.standing(self.ctx, path, bytes) {
                Standing::Fresh | Standing::Unknown => {}
                Standing::Stale(read) => {
                    self.memory.saw(self.ctx, path, bytes);
                    return Err(stale(path, read.as_deref(), bytes).into());
                }
                // An interrupted edit was judged before; the memory of what was read may be gone since.
                Standing::Unread if edit.needs_reading() && self.ctx.attempt == Attempt::First => {
                    self.memory.saw(self.ctx, path, bytes);
                    return Err(unread(path, bytes, view, edits).into());
                }
                Standing::Unread => {}
            }
        }
        Ok(())
    }

    /// A refusal of the engine quotes the current text, so that counts as read.
    fn saw_all(&self, view: &View) {
        for (path, entry) in view {
            if let Entry::File(bytes) = entry {
                self.memory.saw(self.ctx, path, bytes);
            }
        }
    }

    fn commit_stop(&self, tree: &Tree, failure: Failure) -> Stop {
        match failure {
            Failure::Raced(path) => {
                let now = tree.entry(&path).ok();
                let text = match now {
                    Some(Entry::File(bytes)) => {
                        let lossy = String::from_utf8_lossy(&bytes).into_owned();
                        let lines: Vec<&str> = lossy.lines().collect();
                        format!(" Current text:{}", crate::edit::quote(&lines, 0, lines.len()))
                    }
                    _ => String::new(),
                };
                Stop::Failed(format!("nothing changed: {path} changed while it was being edited; read it again.{text}"))
            }
            Failure::Io { path, why } => io_stop(&path, &why),
        }
    }
}

/// A full or read-only disk is no failure of the model: the task waits.
fn io_stop(what: &str, why: &std::io::Error) -> Stop {
    let text = format!("{what} can not be written: {why}");
    match Errno::from_io_error(why) {
        Some(Errno::NOSPC | Errno::DQUOT) => Stop::Disk(format!("{text}; free space and resume")),
        _ => Stop::Failed(format!("nothing changed: {text}")),
    }
}

/// What an approval of an edit is bound to: each file that it names as it stands, and the diff. Edits that can not
/// be made have no diff.
fn facts(view: &View, changes: Option<&[Change]>) -> (Vec<Fact>, Option<String>) {
    let file = |(path, entry): (&String, &Entry)| {
        let stands = match entry {
            Entry::Missing => "missing".to_owned(),
            Entry::File(bytes) => format!("blake3:{}", trace::full_hash(bytes)),
            Entry::Directory => "a directory".to_owned(),
            Entry::Other(what) => what.clone(),
        };
        ("file".to_owned(), format!("{path} {stands}"))
    };
    let mut facts: Vec<Fact> = view.iter().map(file).collect();
    let diff: Option<String> = changes.map(|changes| changes.iter().map(|change| report::diff(change).0).collect());
    facts.extend(diff.iter().map(|diff| ("diff".to_owned(), format!("blake3:{}", trace::full_hash(diff.as_bytes())))));
    (facts, diff)
}

fn load(tree: &Tree, edits: &[Edit]) -> Result<View, Stop> {
    let mut view = View::new();
    for path in edits.iter().flat_map(Edit::paths) {
        if !view.contains_key(path) {
            let entry = tree.entry(path).map_err(|e| Stop::Failed(format!("nothing changed: {path} can not be read: {e}")))?;
            view.insert(path.to_owned(), entry);
        }
    }
    Ok(view)
}

fn check_hash(path: &str, given: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let now = trace::full_hash(bytes);
    let wanted = given.trim().to_ascii_lowercase();
    if wanted.len() >= 8 && now.starts_with(&wanted) {
        return Ok(());
    }
    Err(Refusal::Hash { path: path.to_owned(), given: given.to_owned(), now: short_hash(bytes) })
}

fn stale(path: &str, read: Option<&[u8]>, now: &[u8]) -> Refusal {
    let diff = match read {
        Some(read) => diff_of(path, read, now, MAX_QUOTE_TOKENS),
        None => "(too large to show; read it again)".to_owned(),
    };
    Refusal::Stale { path: path.to_owned(), diff }
}

/// Shows what the edit would do, or the file's beginning, so that one more call is enough.
fn unread(path: &str, bytes: &[u8], view: &View, edits: &[Edit]) -> Refusal {
    let now = match edit::apply(view, edits) {
        Ok(changes) => {
            let of_path = changes.iter().filter(|c| c.path == path).map(|c| report::diff(c).0).collect::<String>();
            format!("Your edit would do this; send it again if that is right:\n{}", cap_tokens(&of_path, MAX_QUOTE_TOKENS).text)
        }
        Err(refusal) if matches!(refusal, Refusal::NotFound { .. } | Refusal::Ambiguous { .. }) => format!("Besides: {refusal}"),
        Err(_) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            format!("Current text:{}", crate::edit::quote(&lines, 0, lines.len()))
        }
    };
    Refusal::Unread { path: path.to_owned(), now }
}
