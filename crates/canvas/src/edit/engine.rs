//! Applies a list of edits to a view, all or nothing.
//!
//! Knows bytes and paths, never a file system. Invariant: on a refusal nothing of the work is
//! returned, so there is nothing that could be written by half.

use super::hunks;
use super::ladder::Level;
use super::omission;
use super::op::{Edit, Entry, Hunk, HunkLine, Sign, View};
use super::refusal::Refusal;
use super::text::{NotText, Text};
use std::collections::BTreeMap;

/// What happens to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// Bytes before; `None` when there was no file.
    pub before: Option<Vec<u8>>,
    /// Bytes after; `None` when there is no file any more.
    pub after: Option<Vec<u8>>,
    /// The path that it was moved from, whose mode it takes.
    pub moved_from: Option<String>,
    /// How each text was found.
    pub levels: Vec<Level>,
}

#[derive(Default)]
struct Work<'a> {
    view: BTreeMap<&'a str, Entry>,
    origin: BTreeMap<String, String>,
    levels: BTreeMap<String, Vec<Level>>,
}

/// Applies the edits one after the other, each to what the one before left.
///
/// # Errors
/// The first edit's refusal; then nothing counts as changed.
pub fn apply(view: &View, edits: &[Edit]) -> Result<Vec<Change>, Refusal> {
    let mut work = Work { view: BTreeMap::new(), ..Work::default() };
    for edit in edits {
        for path in edit.paths() {
            work.view.entry(path).or_insert_with(|| view.get(path).cloned().unwrap_or(Entry::Missing));
        }
    }
    for edit in edits {
        work.one(edit)?;
    }
    Ok(work.changes(view))
}

impl<'a> Work<'a> {
    fn changes(mut self, view: &View) -> Vec<Change> {
        let bytes = |entry: Option<&Entry>| match entry {
            Some(Entry::File(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        let mut changes = Vec::new();
        for (path, entry) in &self.view {
            let (before, after) = (bytes(view.get(*path)), bytes(Some(entry)));
            if before != after {
                let moved_from = self.origin.remove(*path);
                let levels = self.levels.remove(*path).unwrap_or_default();
                changes.push(Change { path: (*path).to_owned(), before, after, moved_from, levels });
            }
        }
        changes
    }

    fn one(&mut self, edit: &'a Edit) -> Result<(), Refusal> {
        match edit {
            Edit::Replace { path, old, new, near_line } => {
                let text = self.text(path)?;
                let (text, level) = replace(path, &text, old, new, *near_line)?;
                self.levels.entry(path.clone()).or_default().push(level);
                self.put(path, text.to_bytes());
            }
            Edit::Write { path, content, over } => self.write(path, content, *over)?,
            Edit::Add { path, content } => {
                self.expect_missing(path, "use `*** Update File:` to change it")?;
                refuse_omission(path, content.lines(), &[])?;
                self.put(path, content.clone().into_bytes());
            }
            Edit::Delete { path } => {
                self.file(path, "it can not be deleted")?;
                self.view.insert(path, Entry::Missing);
                self.origin.remove(path);
            }
            Edit::Update { path, move_to, hunks } => self.update(path, move_to.as_deref(), hunks)?,
        }
        Ok(())
    }

    fn write(&mut self, path: &'a str, content: &str, over: bool) -> Result<(), Refusal> {
        let mut known = Vec::new();
        let mut bytes = content.as_bytes().to_vec();
        let standing = if over { self.view.get(path).cloned() } else { None };
        match &standing {
            Some(Entry::File(old)) => {
                if let Ok(text) = Text::parse(old) {
                    bytes = in_the_style_of(&text, content);
                    known = std::str::from_utf8(old).unwrap_or_default().lines().collect();
                }
                if *old == bytes {
                    return Err(Refusal::Identical { path: path.to_owned(), what: "the content".to_owned() });
                }
            }
            _ => self.expect_missing(path, "use edit to change it, or give `replaces`: the hash that read shows")?,
        }
        refuse_omission(path, content.lines(), &known)?;
        self.put(path, bytes);
        Ok(())
    }

    fn update(&mut self, path: &'a str, move_to: Option<&'a str>, hunks: &[Hunk]) -> Result<(), Refusal> {
        let to = move_to.filter(|to| *to != path);
        let before = self.file(path, "use `*** Add File:` for a new file")?.to_vec();
        let mut after = before.clone();
        if !hunks.is_empty() {
            let text = self.text(path)?;
            let known = text.line_texts();
            for hunk in hunks {
                let added = hunk.lines.iter().filter(|l| l.sign == Sign::Add).map(|l| l.text.as_str());
                refuse_omission(path, added, &known)?;
            }
            let (text, levels) = hunks::splice(path, &text, hunks)?;
            after = text.to_bytes();
            self.levels.entry(to.unwrap_or(path).to_owned()).or_default().extend(levels);
        }
        if after == before && to.is_none() {
            return Err(Refusal::Identical { path: path.to_owned(), what: "the result".to_owned() });
        }
        if let Some(to) = to {
            self.expect_missing(to, "move to a path that is free")?;
            let origin = self.origin.remove(path).unwrap_or_else(|| path.to_owned());
            self.origin.insert(to.to_owned(), origin);
            self.view.insert(path, Entry::Missing);
        }
        self.put(to.unwrap_or(path), after);
        Ok(())
    }

    fn put(&mut self, path: &'a str, bytes: Vec<u8>) {
        self.view.insert(path, Entry::File(bytes));
    }

    fn expect_missing(&self, path: &str, advice: &'static str) -> Result<(), Refusal> {
        match self.view.get(path) {
            None | Some(Entry::Missing) => Ok(()),
            Some(Entry::File(_)) => Err(Refusal::Exists { path: path.to_owned(), advice }),
            Some(Entry::Directory) => Err(Refusal::NotAFile { path: path.to_owned(), what: "a directory".to_owned() }),
            Some(Entry::Other(what)) => Err(Refusal::NotAFile { path: path.to_owned(), what: what.clone() }),
        }
    }

    fn file(&self, path: &str, advice: &'static str) -> Result<&[u8], Refusal> {
        match self.view.get(path) {
            Some(Entry::File(bytes)) => Ok(bytes),
            None | Some(Entry::Missing) => Err(Refusal::Missing { path: path.to_owned(), advice }),
            Some(Entry::Directory) => Err(Refusal::NotAFile { path: path.to_owned(), what: "a directory".to_owned() }),
            Some(Entry::Other(what)) => Err(Refusal::NotAFile { path: path.to_owned(), what: what.clone() }),
        }
    }

    fn text(&self, path: &str) -> Result<Text, Refusal> {
        let bytes = self.file(path, "check the path with search, or use write for a new file")?;
        Text::parse(bytes).map_err(|e| {
            let what = match e {
                NotText::Binary => "binary".to_owned(),
                NotText::NotUtf8(at) => format!("not UTF-8 (from byte {at} on)"),
            };
            Refusal::NotText { path: path.to_owned(), what }
        })
    }
}

fn refuse_omission<'t>(path: &str, sent: impl Iterator<Item = &'t str>, known: &[&str]) -> Result<(), Refusal> {
    match omission::first(sent, known) {
        Some((line, text)) => Err(Refusal::Omission { path: path.to_owned(), line, text }),
        None => Ok(()),
    }
}

/// New content with the byte order mark and the line ends of what it replaces.
fn in_the_style_of(text: &Text, content: &str) -> Vec<u8> {
    let mut body = content.strip_prefix('\u{feff}').unwrap_or(content).to_owned();
    if text.is_crlf() {
        body = body.replace("\r\n", "\n").replace('\n', "\r\n");
    }
    let mark = if text.has_bom() { "\u{feff}" } else { "" };
    format!("{mark}{body}").into_bytes()
}

const REPLACE_ADVICE: &str = ". Add a neighbouring line, or give near_line";

fn replace(path: &str, text: &Text, old: &str, new: &str, near_line: Option<usize>) -> Result<(Text, Level), Refusal> {
    let (old, new) = (old.replace("\r\n", "\n"), new.replace("\r\n", "\n"));
    if old.is_empty() {
        return Err(Refusal::NoOld { path: path.to_owned() });
    }
    if old == new {
        return Err(Refusal::Identical { path: path.to_owned(), what: "the new text".to_owned() });
    }
    let joined = text.joined();
    let known: Vec<&str> = joined.lines().chain(old.lines()).collect();
    refuse_omission(path, new.lines(), &known)?;
    let line_of = |at: &usize| joined.get(..*at).unwrap_or_default().matches('\n').count();
    let mut found: Vec<(usize, ())> = occurrences(&joined, &old).map(|at| (at, ())).collect();
    if found.len() > 1 {
        hunks::keep_nearest(&mut found, near_line, line_of);
    }
    match found.as_slice() {
        [] => {
            let (text, level) = hunks::splice_block(path, text, &as_hunk(&old, &new, near_line), REPLACE_ADVICE)?;
            if text.joined() == joined {
                return Err(Refusal::Identical { path: path.to_owned(), what: "the new text".to_owned() });
            }
            Ok((text, level))
        }
        [(at, ())] => Ok((text.with_span(*at, old.len(), &new), Level::Exact)),
        many => {
            let lines = many.iter().take(100).map(|(at, ())| line_of(at) + 1).collect();
            Err(Refusal::Ambiguous {
                path: path.to_owned(),
                what: "the old text".to_owned(),
                count: many.len(),
                lines,
                advice: REPLACE_ADVICE,
            })
        }
    }
}

/// Where `old` stands, overlapping places too: "aa" stands twice in "aaa".
fn occurrences<'t>(text: &'t str, old: &'t str) -> impl Iterator<Item = usize> + 't {
    let step = old.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text.get(from..)?.find(old)?;
        from = at + step;
        Some(at)
    })
    .take(super::ladder::MAX_POSITIONS)
}

/// The replacement as a hunk: equal lines stay as the file has them.
fn as_hunk(old: &str, new: &str, near_line: Option<usize>) -> Hunk {
    let (old, new) = match old.strip_suffix('\n') {
        Some(body) => (body, new.strip_suffix('\n').map_or_else(|| (!new.is_empty()).then_some(new), Some)),
        None => (old, Some(new)),
    };
    let old: Vec<&str> = old.split('\n').collect();
    let new: Vec<&str> = new.map(|n| n.split('\n').collect()).unwrap_or_default();
    let mut lines = Vec::new();
    let mut push = |sign, from: &[&str], range: std::ops::Range<usize>| {
        let part = from.iter().skip(range.start).take(range.len());
        lines.extend(part.map(|t| HunkLine { sign, text: (*t).to_owned() }));
    };
    for op in similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new) {
        match op.tag() {
            similar::DiffTag::Equal => push(Sign::Keep, &old, op.old_range()),
            similar::DiffTag::Delete | similar::DiffTag::Insert | similar::DiffTag::Replace => {
                push(Sign::Remove, &old, op.old_range());
                push(Sign::Add, &new, op.new_range());
            }
        }
    }
    Hunk { near_line, lines, ..Hunk::default() }
}
