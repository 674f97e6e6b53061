//! Finds the places of hunks in a file and splices them in.
//!
//! Order, anchors and line numbers only choose among places that match; they never make one.
//! Invariant: a hunk lands where its lines stand exactly once, or the file is refused.

use super::closest;
use super::ladder::{self, Level, split_indent};
use super::op::{Hunk, Sign};
use super::refusal::Refusal;
use super::text::{Fresh, Text};
use std::ops::Range;

/// Where a hunk goes.
struct Place {
    at: usize,
    count: usize,
    level: Level,
}

enum Miss {
    NotFound(String),
    Ambiguous(Vec<usize>),
}

/// Applies all hunks to a text, with the level and the remarks of each.
///
/// # Errors
/// When a hunk is not found, or found more than once.
pub fn splice(path: &str, text: &Text, hunks: &[Hunk]) -> Result<(Text, Vec<Level>), Refusal> {
    let file = text.line_texts();
    let mut taken: Vec<(Place, &Hunk)> = Vec::new();
    for (index, hunk) in hunks.iter().enumerate() {
        let what = if hunks.len() == 1 { "the hunk".to_owned() } else { format!("hunk {} of {}", index + 1, hunks.len()) };
        let used: Vec<Range<usize>> = taken.iter().map(|(p, _)| p.at..p.at + p.count).collect();
        let place = place(&file, hunk, &used).map_err(|miss| miss.refusal(path, what, HUNK_ADVICE))?;
        taken.push((place, hunk));
    }
    let levels = taken.iter().map(|(p, _)| p.level.clone()).collect();
    // From the bottom up, so that the places above stay where they were found.
    taken.sort_by_key(|(p, _)| p.at);
    let mut result = text.clone();
    for (place, hunk) in taken.iter().rev() {
        let fresh = fresh_lines(hunk, place).ok_or_else(|| too_shallow(path, &place.level))?;
        result = result.with_lines(place.at, place.count, fresh);
    }
    Ok((result, levels))
}

const HUNK_ADVICE: &str = ". Add a neighbouring line of context, or `@@` and the line of the function or class above";

/// Finds one block of lines by the ladder, for a replacement whose text was not found exactly.
///
/// # Errors
/// As [`splice`].
pub fn splice_block(path: &str, text: &Text, hunk: &Hunk, advice: &'static str) -> Result<(Text, Level), Refusal> {
    let file = text.line_texts();
    let place = place(&file, hunk, &[]).map_err(|miss| miss.refusal(path, "the old text".to_owned(), advice))?;
    let fresh = fresh_lines(hunk, &place).ok_or_else(|| too_shallow(path, &place.level))?;
    Ok((text.with_lines(place.at, place.count, fresh), place.level))
}

impl Miss {
    fn refusal(self, path: &str, what: String, advice: &'static str) -> Refusal {
        match self {
            Self::NotFound(closest) => Refusal::NotFound { path: path.to_owned(), what, closest },
            Self::Ambiguous(lines) => Refusal::Ambiguous { path: path.to_owned(), what, count: lines.len(), lines, advice },
        }
    }
}

fn too_shallow(path: &str, level: &Level) -> Refusal {
    let closest = format!(
        "It was {}, but a new line has too little indentation for that; send the file's own indentation",
        level.note().unwrap_or_default()
    );
    Refusal::NotFound { path: path.to_owned(), what: "the text with this indentation".to_owned(), closest }
}

fn fresh_lines(hunk: &Hunk, place: &Place) -> Option<Vec<Fresh>> {
    let shift = place.level.shift();
    let mut at = place.at;
    let mut fresh = Vec::new();
    for line in &hunk.lines {
        match line.sign {
            Sign::Keep => fresh.push(Fresh::Kept(at)),
            Sign::Remove => {}
            Sign::Add => fresh.push(Fresh::New(shift.place(&line.text)?)),
        }
        at += usize::from(line.sign != Sign::Add);
    }
    Some(fresh)
}

fn place(file: &[&str], hunk: &Hunk, used: &[Range<usize>]) -> Result<Place, Miss> {
    let sent: Vec<&str> = hunk.before().collect();
    let anchors = anchor_lines(file, &hunk.anchors);
    if sent.is_empty() {
        return insertion(file, hunk, &anchors);
    }
    let free = |found: Vec<(usize, Level)>| -> Vec<(usize, Level)> {
        found.into_iter().filter(|(at, _)| used.iter().all(|u| at + sent.len() <= u.start || *at >= u.end)).collect()
    };
    // Hunks stand in order, so what comes after the last one counts before the whole file does.
    let cursor = used.last().map_or(0, |u| u.end);
    let mut found = free(ladder::find(file, &sent, cursor..file.len()));
    if found.is_empty() && cursor > 0 {
        found = free(ladder::find(file, &sent, 0..file.len()));
    }
    if hunk.at_end {
        prefer(&mut found, |at| at + sent.len() == file.len());
    }
    if found.len() > 1 && !anchors.is_empty() {
        let scopes: Vec<Range<usize>> = anchors.iter().map(|a| scope(file, *a)).collect();
        let first = anchors.first().copied().unwrap_or(0);
        prefer(&mut found, |at| at >= first);
        prefer(&mut found, |at| scopes.iter().any(|s| s.contains(&at)));
    }
    keep_nearest(&mut found, hunk.near_line, |at| *at);
    match found.as_slice() {
        [] => Err(Miss::NotFound(closest::describe(file, &sent))),
        [(at, level)] => Ok(Place { at: *at, count: sent.len(), level: level.clone() }),
        many => Err(Miss::Ambiguous(many.iter().map(|(at, _)| at + 1).collect())),
    }
}

/// Keeps what satisfies `wanted`, if anything does.
fn prefer(found: &mut Vec<(usize, Level)>, wanted: impl Fn(usize) -> bool) {
    if found.iter().any(|(at, _)| wanted(*at)) {
        found.retain(|(at, _)| wanted(*at));
    }
}

/// Keeps the nearest to a 1-based line, if one is nearer than all others.
pub fn keep_nearest<L>(found: &mut Vec<(usize, L)>, near_line: Option<usize>, line_of: impl Fn(&usize) -> usize) {
    let Some(near) = near_line else { return };
    let distance = |at: &usize| line_of(at).abs_diff(near.saturating_sub(1));
    let Some(least) = found.iter().map(|(at, _)| distance(at)).min() else { return };
    if found.iter().filter(|(at, _)| distance(at) == least).count() == 1 {
        found.retain(|(at, _)| distance(at) == least);
    }
}

/// A hunk without old lines goes after its anchor, or to the end of the file.
fn insertion(file: &[&str], hunk: &Hunk, anchors: &[usize]) -> Result<Place, Miss> {
    let here = |at: usize| Ok(Place { at, count: 0, level: Level::Exact });
    let Some(wanted) = hunk.anchors.last() else {
        return match hunk.near_line {
            Some(_) if !hunk.at_end => Err(Miss::NotFound("It has only new lines and a line number; add a line of context".to_owned())),
            _ => here(file.len()),
        };
    };
    let mut found: Vec<(usize, ())> = anchors.iter().map(|a| (*a, ())).collect();
    keep_nearest(&mut found, hunk.near_line, |at| *at);
    match found.as_slice() {
        [] => Err(Miss::NotFound(format!("Its anchor is not there. {}", closest::describe(file, &[wanted.as_str()])))),
        [(at, ())] => here(at + 1),
        many => Err(Miss::Ambiguous(many.iter().map(|(at, ())| at + 1).collect())),
    }
}

/// The lines on which the innermost anchor stands, each below the anchors before it.
fn anchor_lines(file: &[&str], anchors: &[String]) -> Vec<usize> {
    let mut ranges: Vec<Range<usize>> = std::iter::once(0..file.len()).collect();
    let mut lines = Vec::new();
    for anchor in anchors {
        lines = ranges.iter().flat_map(|r| anchor_in(file, anchor, r.clone())).collect();
        lines.sort_unstable();
        lines.dedup();
        ranges = lines.iter().map(|at| scope(file, *at)).collect();
    }
    lines
}

/// Whole lines first; models also send an anchor's beginning, or a name in it.
fn anchor_in(file: &[&str], anchor: &str, range: Range<usize>) -> Vec<usize> {
    let wanted = ladder::fold_punctuation(anchor.trim());
    let lines = |same: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let numbered = file.iter().enumerate().take(range.end).skip(range.start);
        numbered.filter(|(_, l)| same(&ladder::fold_punctuation(l.trim()))).map(|(at, _)| at).collect()
    };
    let mut found = lines(&|l| l == wanted);
    if found.is_empty() {
        found = lines(&|l| l.starts_with(wanted.as_str()));
    }
    if found.is_empty() {
        found = lines(&|l| l.contains(wanted.as_str()));
    }
    found
}

/// The lines that belong to an anchor: all that are indented deeper, and closing brackets.
fn scope(file: &[&str], anchor: usize) -> Range<usize> {
    let width = |line: &str| split_indent(line).0.chars().count();
    let own = file.get(anchor).map_or(0, |l| width(l));
    let belongs = |line: &&&str| {
        let body = line.trim_start();
        body.is_empty() || width(line) > own || body.starts_with(['}', ')', ']', '{'])
    };
    let inner = file.iter().skip(anchor + 1).take_while(belongs).count();
    anchor..anchor + 1 + inner
}
