//! Why an edit was refused, in words that tell the model its next move.
//!
//! The texts quote the file as it stands, capped, so that a retry needs no further read.
//! Invariant: every text starts with `nothing changed`, because nothing was.

/// Most lines of current text that a refusal quotes.
pub const MAX_QUOTED_LINES: usize = 30;
/// Most characters of one quoted line.
pub const MAX_QUOTED_CHARS: usize = 240;
/// Most line numbers that an ambiguity lists.
const MAX_LISTED: usize = 12;

/// A refusal; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The path can not be used.
    #[error("nothing changed: path `{path}` refused: {why}")]
    Path {
        /// As it was sent.
        path: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The patch is not in the V4A format.
    #[error("nothing changed: patch line {line}: {what}")]
    Patch {
        /// Line of the patch, from 1.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
    /// There is no such file.
    #[error("nothing changed: {path} does not exist; {advice}")]
    Missing {
        /// The file.
        path: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is such a file already.
    #[error("nothing changed: {path} exists; {advice}")]
    Exists {
        /// The file.
        path: String,
        /// What to do.
        advice: &'static str,
    },
    /// It is no regular file.
    #[error("nothing changed: {path} is {what}; file tools edit regular files only")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is.
        what: String,
    },
    /// It is not text.
    #[error("nothing changed: {path} is {what}; edit it with a command, or replace it whole")]
    NotText {
        /// The file.
        path: String,
        /// `binary`, or where UTF-8 ends.
        what: String,
    },
    /// The edit changes nothing.
    #[error("nothing changed: {what} in {path} is the same as the text that stands there; send the text that you want instead")]
    Identical {
        /// The file.
        path: String,
        /// `the new text`, `hunk 2`.
        what: String,
    },
    /// `old` is empty.
    #[error("nothing changed: the old text is empty; send the lines that stand in {path}, or use write for a new file")]
    NoOld {
        /// The file.
        path: String,
    },
    /// The sent text says "and so on".
    #[error("nothing changed: {path}: line {line} of the new text looks like an omission ({text:?}); send the full lines")]
    Omission {
        /// The file.
        path: String,
        /// Line of the new text, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The text was not found.
    #[error("nothing changed: {what} not found in {path}. {closest}")]
    NotFound {
        /// The file.
        path: String,
        /// `old text`, `hunk 2 of 3`.
        what: String,
        /// The closest lines, the first difference, and the current text.
        closest: String,
    },
    /// The text stands in several places.
    #[error("nothing changed: {what} matches {} in {path}: lines {}{advice}", times(*count), listed(lines))]
    Ambiguous {
        /// The file.
        path: String,
        /// `old text`, `hunk 2 of 3`.
        what: String,
        /// In how many places.
        count: usize,
        /// Their first lines, from 1; the first ones are enough.
        lines: Vec<usize>,
        /// What to add.
        advice: &'static str,
    },
    /// The file changed after it was read.
    #[error("nothing changed: {path} changed after you read it. What changed (- read, + now):\n{diff}")]
    Stale {
        /// The file.
        path: String,
        /// Unified diff from what was read to what stands, capped.
        diff: String,
    },
    /// The file was never read.
    #[error("nothing changed: {path} was not read in this task. {now}")]
    Unread {
        /// The file.
        path: String,
        /// The current text, capped.
        now: String,
    },
    /// The hash given for a whole-file write is not the file's.
    #[error("nothing changed: {path} has hash {now}, not {given}: it changed after you read it; read it again")]
    Hash {
        /// The file.
        path: String,
        /// As it was sent.
        given: String,
        /// The file's.
        now: String,
    },
}

fn times(count: usize) -> String {
    if count >= super::ladder::MAX_POSITIONS { format!("{count} times or more") } else { format!("{count} times") }
}

fn listed(lines: &[usize]) -> String {
    let mut distinct = lines.to_vec();
    distinct.dedup();
    let shown: Vec<String> = distinct.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = if distinct.len() > MAX_LISTED { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Lines `from..from + count` of a file, numbered and capped.
#[must_use]
pub fn quote(file: &[&str], from: usize, count: usize) -> String {
    let shown = count.min(MAX_QUOTED_LINES);
    let mut out = String::new();
    for (at, line) in file.iter().enumerate().skip(from).take(shown) {
        out.push_str(&format!("\n{}\t{}", at + 1, clip(line)));
    }
    let left = file.len().saturating_sub(from).min(count).saturating_sub(shown);
    if left > 0 {
        out.push_str(&format!("\n… {left} more lines"));
    }
    out
}

/// A line, cut where it is too long to quote.
#[must_use]
pub fn clip(line: &str) -> String {
    match line.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}
