//! What a model and a person read about an edit that was made.
//!
//! Short: the model has just written the change, so the diff is there to show where it landed.
//! Invariant: the text never passes the call's token cap, and the uncut one is kept beside it.

use super::trace::Mark;
use crate::edit::{Change, Level};
use bytes::Bytes;
use similar::{ChangeTag, TextDiff};
use std::time::Duration;
use tinkerbell_core::text::cap_tokens;
use tinkerbell_core::tool::{ToolOutcome, Wrote};

/// Most tokens of diff; the change itself stands in the call already.
const MAX_DIFF_TOKENS: u32 = 1_500;

/// The first digits of a content's hash, by which `write` names what it replaces.
pub fn short_hash(bytes: &[u8]) -> String {
    let mut hex = blake3::hash(bytes).to_hex().to_string();
    hex.truncate(12);
    hex
}

/// The unified diff of one change, and its added and removed lines.
pub fn diff(change: &Change) -> (String, usize, usize) {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let (old, new) = (text(&change.before), text(&change.after));
    // The limit only makes the diff coarser; it never makes it wrong.
    let made = TextDiff::configure().timeout(Duration::from_millis(500)).diff_lines(&old, &new);
    let count = |tag| made.iter_all_changes().filter(|c| c.tag() == tag).count();
    let name = |side: &str, there: bool| if there { format!("{side}/{}", change.path) } else { "/dev/null".to_owned() };
    let (a, b) = (name("a", change.before.is_some()), name("b", change.after.is_some()));
    let text = made.unified_diff().context_radius(2).header(&a, &b).to_string();
    (text, count(ChangeTag::Insert), count(ChangeTag::Delete))
}

/// The unified diff between two states of a file, capped, for a refusal.
pub fn diff_of(path: &str, old: &[u8], new: &[u8], max_tokens: u32) -> String {
    let change =
        Change { path: path.to_owned(), before: Some(old.to_vec()), after: Some(new.to_vec()), moved_from: None, levels: Vec::new() };
    cap_tokens(&diff(&change).0, max_tokens).text
}

/// The outcome of an edit that was made.
pub fn made(tool: &str, changes: &[Change], max_tokens: u32) -> ToolOutcome {
    let (mut heads, mut diffs, mut names) = (Vec::new(), String::new(), Vec::new());
    let (mut added, mut removed) = (0, 0);
    for change in changes {
        heads.push(headline(change, changes));
        // A new file was sent whole and a deleted one is gone: showing them again helps nobody.
        let (text, plus, minus) = diff(change);
        if change.before.is_some() && change.after.is_some() {
            diffs.push_str(&text);
        }
        added += plus;
        removed += minus;
        names.push(change.path.as_str());
    }
    let summary = format!("{tool} {} +{added} −{removed}", few(&names));
    let full = if diffs.is_empty() { heads.join("\n") } else { format!("{}\n{diffs}", heads.join("\n")) };
    let wrote = changes.iter().map(|change| wrote(&Mark::of(change))).collect();
    ToolOutcome { wrote, ..finish(summary, full, max_tokens.min(MAX_DIFF_TOKENS)) }
}

/// What a mark says that the tool made of a file.
pub fn wrote(mark: &Mark) -> Wrote {
    Wrote { path: mark.path.clone(), before: mark.before.clone(), content: mark.after.clone() }
}

/// An outcome whose text is cut to the cap, with the uncut one beside it.
pub fn finish(summary: String, full: String, max_tokens: u32) -> ToolOutcome {
    let capped = cap_tokens(&full, max_tokens);
    let mut outcome = ToolOutcome::done(summary, capped.text);
    outcome.full = capped.cut.then(|| Bytes::from(full));
    outcome
}

/// The first names, and how many more there are.
pub fn few(names: &[&str]) -> String {
    match names {
        [first, second, third, rest @ ..] if !rest.is_empty() => format!("{first}, {second}, {third} and {} more", rest.len()),
        all => all.join(", "),
    }
}

fn headline(change: &Change, all: &[Change]) -> String {
    let path = &change.path;
    let hash = change.after.as_deref().map(short_hash).unwrap_or_default();
    let mut line = match (&change.before, &change.after, &change.moved_from) {
        (_, Some(_), Some(from)) => format!("moved {from} to {path}, hash {hash}"),
        (None, Some(bytes), None) => format!("created {path}, {} lines, hash {hash}", String::from_utf8_lossy(bytes).lines().count()),
        (Some(_), Some(_), None) => format!("edited {path}, hash {hash}"),
        (_, None, _) if all.iter().any(|c| c.moved_from.as_ref() == Some(path)) => format!("{path} is gone by the move"),
        (_, None, _) => format!("deleted {path}"),
    };
    let mut notes: Vec<String> = change.levels.iter().filter_map(Level::note).collect();
    notes.dedup();
    for note in notes {
        line.push_str("; ");
        line.push_str(&note);
    }
    line
}
