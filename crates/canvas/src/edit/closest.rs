//! Where sent lines nearly stand, and the first difference by name.
//!
//! Only explains a refusal; it never decides where an edit goes. Invariant: the work is bounded
//! whatever the sizes of file and text.

use super::ladder::{blanks, fold_char, split_indent};
use super::refusal::{clip, quote};

/// Sent lines that are compared at each position; more would not find a better place.
const SAMPLE_LINES: usize = 24;
/// Most comparisons word by word, which cost more.
const MAX_WORD_COMPARISONS: usize = 20_000;
/// Words of a line that are compared.
const SAMPLE_WORDS: usize = 16;
/// Most comparisons in all.
const MAX_COMPARISONS: usize = 1_000_000;
/// Most characters of a differing piece that is shown.
const PIECE_CHARS: usize = 40;

/// Tells the closest lines of `file` to `sent`, the first difference, and the current text there.
#[must_use]
pub fn describe(file: &[&str], sent: &[&str]) -> String {
    if file.is_empty() {
        return "The file is empty".to_owned();
    }
    let (at, score) = best_position(file, sent);
    if score == 0 {
        let first = clip(sent.first().copied().unwrap_or_default());
        let told = format!("No line of it is there: you sent {first:?}. Copy the text from the file");
        return format!("{told}; it has {} lines and starts:{}", file.len(), quote(file, 0, 12));
    }
    let end = (at + sent.len()).min(file.len());
    let place = if end == at + 1 { format!("line {end}") } else { format!("lines {}–{end}", at + 1) };
    let difference = first_difference(file, sent, at);
    format!("Closest: {place}; {difference}. Current text:{}", quote(file, at, sent.len()))
}

fn best_position(file: &[&str], sent: &[&str]) -> (usize, u32) {
    let sample: Vec<&str> = sent.iter().take(SAMPLE_LINES).map(|l| l.trim()).collect();
    let trimmed: Vec<&str> = file.iter().map(|l| l.trim()).collect();
    let positions = (MAX_COMPARISONS / sample.len().max(1)).min(trimmed.len());
    let by_words = sample.len() * positions <= MAX_WORD_COMPARISONS;
    let score = |at: usize| -> u32 {
        let pairs = sample.iter().zip(trimmed.iter().skip(at));
        pairs.map(|(s, f)| likeness(f, s, by_words)).sum()
    };
    // The first of equals: ties go to the top of the file.
    (0..positions).map(|at| (at, score(at))).fold((0, 0), |best, one| if one.1 > best.1 { one } else { best })
}

/// 8 for equal lines, up to 5 for lines that share head and tail or most words; blank lines say nothing.
fn likeness(file: &str, sent: &str, by_words: bool) -> u32 {
    if file.is_empty() || sent.is_empty() {
        return 0;
    }
    if file == sent {
        return 8;
    }
    let head = file.bytes().zip(sent.bytes()).take_while(|(a, b)| a == b).count();
    let room = file.len().min(sent.len()) - head;
    let tail = file.bytes().rev().zip(sent.bytes().rev()).take(room).take_while(|(a, b)| a == b).count();
    let share = (head + tail) * 10 / file.len().max(sent.len());
    match if by_words { share.max(shared_words(file, sent)) } else { share } {
        9.. => 5,
        7..=8 => 4,
        5..=6 => 2,
        _ => 0,
    }
}

/// How many of ten words two lines share, whatever stands between the words.
fn shared_words(file: &str, sent: &str) -> usize {
    let words = |line: &str| -> Vec<String> {
        let parts = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        parts.take(SAMPLE_WORDS).map(str::to_owned).collect()
    };
    let (mut left, sent) = (words(file), words(sent));
    let most = left.len().max(sent.len());
    let mut shared = 0;
    for word in &sent {
        if let Some(at) = left.iter().position(|have| have == word) {
            left.swap_remove(at);
            shared += 1;
        }
    }
    // One word in common is chance, such as a closing keyword.
    if shared < 2 { 0 } else { shared * 10 / most.max(1) }
}

fn first_difference(file: &[&str], sent: &[&str], at: usize) -> String {
    for (offset, want) in sent.iter().enumerate() {
        let number = at + offset + 1;
        let Some(have) = file.get(at + offset) else {
            return format!("the file ends at line {} where you sent {:?}", file.len(), clip(want));
        };
        if have != want {
            return format!("differs at line {number}: {}", name_difference(have, want));
        }
    }
    "the lines are there, but not at the end of the file or not after the lines before".to_owned()
}

/// Says how a file's line differs from the sent one: `tab where you sent 4 spaces`.
#[must_use]
pub fn name_difference(have: &str, want: &str) -> String {
    let (have_lead, have_body) = split_indent(have);
    let (want_lead, want_body) = split_indent(want);
    if have_body == want_body {
        return format!("{} where you sent {}", blanks(have_lead), blanks(want_lead));
    }
    if have_body.trim_end() == want_body.trim_end() {
        return "spaces at the line end differ".to_owned();
    }
    let head: usize = have_body.chars().zip(want_body.chars()).take_while(|(a, b)| a == b).count();
    let piece = |s: &str| -> String { s.chars().skip(head).take(PIECE_CHARS).collect() };
    let (have_piece, want_piece) = (piece(have_body), piece(want_body));
    match (have_piece.chars().next(), want_piece.chars().next()) {
        (Some(h), Some(w)) if fold_char(h) == fold_char(w) => {
            format!("{h:?} (U+{:04X}) where you sent {w:?} (U+{:04X})", h as u32, w as u32)
        }
        (None, _) => format!("the line ends where you sent {want_piece:?}"),
        (_, None) => format!("it goes on with {have_piece:?} where your line ends"),
        _ => format!("{have_piece:?} where you sent {want_piece:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_names() {
        let check = |have: &str, want: &str, text: &str| assert_eq!(name_difference(have, want), text);
        check("\tx", "    x", "tab where you sent 4 spaces");
        check("x", "  x", "no indentation where you sent 2 spaces");
        check("x ", "x", "spaces at the line end differ");
        check("let a = 1;", "let a = 2;", "\"1;\" where you sent \"2;\"");
        check("say “x”", "say \"x\"", "'“' (U+201C) where you sent '\"' (U+0022)");
        check("ab", "abc", "the line ends where you sent \"c\"");
        check("abc", "ab", "it goes on with \"c\" where your line ends");
    }
}
