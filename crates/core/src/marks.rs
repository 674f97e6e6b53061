//! Texts that are to be read before a decision: what in them misleads the reader.
//!
//! A table of ours for the scripts whose letters are confused in practice; not the whole of Unicode.
//! Invariant: what a terminal or an eye would take for something else is replaced by its number, and
//! nothing is left out: the shown text of different texts is different where the marks say so.

use std::collections::BTreeSet;

/// What was found, one line each, for whoever decides.
#[must_use]
pub fn marks(text: &str) -> Vec<String> {
    let (_, found) = look(text);
    let mut lines = Vec::new();
    let kinds = [
        (Kind::Control, "control characters"),
        (Kind::Direction, "characters that change the direction of text"),
        (Kind::Invisible, "invisible characters"),
        (Kind::Stacked, "stacked or crossing marks"),
        (Kind::Foreign, "letters of other alphabets that look like others"),
    ];
    for (kind, what) in kinds {
        let of_kind: Vec<&Found> = found.iter().filter(|found| found.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let numbers: BTreeSet<u32> = of_kind.iter().map(|found| u32::from(found.letter)).collect();
        let more = if numbers.len() > MOST_TOLD { format!(" and {} more", numbers.len() - MOST_TOLD) } else { String::new() };
        let told: Vec<String> = numbers.iter().take(MOST_TOLD).map(|number| format!("U+{number:04X}")).collect();
        let place = of_kind.iter().find_map(|found| found.word.as_deref()).map_or(String::new(), |word| format!(" in `{word}`"));
        let what = if kind == Kind::Foreign { "look-alike letters" } else { what };
        lines.push(format!("contains {what}: {}{more}{place}", told.join(", ")));
    }
    lines
}

/// The text with everything visible that would act on a terminal or is not what it looks like.
///
/// Line feeds and tabs stay; a carriage return before a line feed goes, as other systems end lines so;
/// control characters become `\x1b`, everything else of [`marks`] becomes `<U+202E>`.
#[must_use]
pub fn visible(text: &str) -> String {
    look(text).0
}

/// Numbers that one line tells.
const MOST_TOLD: usize = 8;
/// Marks on one letter that people write: Vietnamese has two, Hebrew may have three.
const MOST_MARKS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control,
    Direction,
    Invisible,
    Stacked,
    Foreign,
}

struct Found {
    kind: Kind,
    letter: char,
    /// The word in which it stands, for letters that look like others.
    word: Option<String>,
}

fn look(text: &str) -> (String, Vec<Found>) {
    let (mut out, mut found) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) { rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (piece, after) = rest.split_at(length);
        if is_word(first) {
            word(piece, &mut out, &mut found);
        } else {
            sign(first, (text, after), &mut out, &mut found);
        }
        rest = after;
    }
    (out, found)
}

/// A run of letters and digits.
fn word(piece: &str, out: &mut String, found: &mut Vec<Found>) {
    if piece.is_ascii() {
        out.push_str(piece);
        return;
    }
    let scripts: BTreeSet<Script> = piece.chars().filter_map(script).collect();
    let letters = || piece.chars().filter(|letter| script(*letter).is_some());
    let is_mixed = scripts.len() > 1;
    // A word that is wholly of look-alikes reads as another one of Latin letters.
    let is_disguise = !is_mixed && !scripts.contains(&Script::Latin) && letters().all(looks_latin) && letters().count() > 1;
    let mut marks = 0;
    for letter in piece.chars() {
        marks = if is_mark(letter) { marks + 1 } else { 0 };
        let foreign = script(letter).is_some_and(|of| of != Script::Latin) && (is_mixed || is_disguise);
        if foreign || is_styled(letter) {
            out.push_str(&number(letter));
            found.push(Found { kind: Kind::Foreign, letter, word: Some(shortened(piece)) });
        } else if marks > MOST_MARKS || crosses(letter) {
            out.push_str(&number(letter));
            found.push(Found { kind: Kind::Stacked, letter, word: None });
        } else {
            out.push(letter);
        }
    }
}

/// The word with its strangers as numbers, cut to a line's worth.
fn shortened(word: &str) -> String {
    let cut: String = word.chars().take(40).collect();
    if cut.len() < word.len() { format!("{cut}…") } else { cut }
}

/// Anything but a letter or a digit.
fn sign(letter: char, (text, after): (&str, &str), out: &mut String, found: &mut Vec<Found>) {
    let before = text.get(..text.len() - after.len() - letter.len_utf8()).and_then(|text| text.chars().next_back());
    match letter {
        '\n' | '\t' => out.push(letter),
        '\r' if after.starts_with('\n') => {}
        _ if letter.is_control() => {
            out.push_str(&format!("\\x{:02x}", u32::from(letter)));
            found.push(Found { kind: Kind::Control, letter, word: None });
        }
        _ if turns(letter) => {
            out.push_str(&number(letter));
            found.push(Found { kind: Kind::Direction, letter, word: None });
        }
        _ if hides(letter, before) => {
            out.push_str(&number(letter));
            found.push(Found { kind: Kind::Invisible, letter, word: None });
        }
        // A mark without a letter before it sits on whatever stands there.
        _ if is_mark(letter) || crosses(letter) => {
            out.push_str(&number(letter));
            found.push(Found { kind: Kind::Stacked, letter, word: None });
        }
        _ => out.push(letter),
    }
}

fn number(letter: char) -> String {
    format!("<U+{:04X}>", u32::from(letter))
}

fn is_word(letter: char) -> bool {
    letter == '_' || (letter.is_alphanumeric() && !blank(letter)) || is_mark(letter) || is_styled(letter)
}

/// Letters by their class that show nothing: fillers.
const fn blank(letter: char) -> bool {
    matches!(letter, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}')
}

/// Marks, embeddings, overrides and isolates of direction.
const fn turns(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Letters that show nothing; joiners and selectors where they shape nothing that is there.
fn hides(letter: char, before: Option<char>) -> bool {
    let is_plain = before.is_none_or(|before| before.is_ascii() || before.is_whitespace());
    match letter {
        // Within scripts that need it, and between the parts of one picture.
        '\u{200c}' | '\u{200d}' => is_plain || before.is_some_and(|before| script(before).is_some()),
        '\u{fe00}'..='\u{fe0f}' => is_plain && !before.is_some_and(|before| before.is_ascii_digit() || matches!(before, '#' | '*')),
        _ => {
            blank(letter)
                || matches!(letter,
                    '\u{ad}' | '\u{34f}' | '\u{180b}'..='\u{180e}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}'
                    | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' | '\u{13430}'..='\u{1345f}'
                    | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        }
    }
}

/// Marks that sit on the letter before them.
const fn is_mark(letter: char) -> bool {
    matches!(letter,
        '\u{300}'..='\u{34e}' | '\u{350}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Marks that cross a letter out or enclose it, which makes another one of it.
const fn crosses(letter: char) -> bool {
    matches!(letter, '\u{334}'..='\u{338}' | '\u{20d2}'..='\u{20e2}' | '\u{20e4}'..='\u{20f0}' | '\u{488}' | '\u{489}')
}

/// Letters and digits of Latin in another dress: full width, mathematical, enclosed.
const fn is_styled(letter: char) -> bool {
    matches!(letter,
        '\u{ff10}'..='\u{ff19}' | '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}' | '\u{24b6}'..='\u{24e9}'
        | '\u{1f130}'..='\u{1f189}' | '\u{212a}' | '\u{212b}' | '\u{2160}'..='\u{217f}')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Cherokee,
}

/// The alphabet of a letter, for those that are taken for one another.
const fn script(letter: char) -> Option<Script> {
    Some(match letter {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2af}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        '\u{2c60}'..='\u{2c7f}' | '\u{a722}'..='\u{a7ff}' | '\u{ab30}'..='\u{ab6f}' => Script::Latin,
        // The micro sign is written in units beside Latin letters; the letter mu is not.
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Script::Greek,
        '\u{400}'..='\u{482}' | '\u{48a}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}' => {
            Script::Cyrillic
        }
        '\u{531}'..='\u{587}' => Script::Armenian,
        '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Script::Cherokee,
        _ => return None,
    })
}

/// Letters that are drawn like a Latin one.
fn looks_latin(letter: char) -> bool {
    const ALIKE: &str = "аеіјорсухѕһԁԛԝӏьАВЕЗІЈКМНОРСТУХЅԚԜӀαγικνορυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսոհցԱՕՍᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᏀᏂᏃᏎᏒᏔᏙᏚᏞᏟᏢᏦᏴ";
    ALIKE.contains(letter)
}

#[cfg(test)]
mod tests;
