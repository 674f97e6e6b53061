//! The match ladder: how far sent lines may differ from the file's and still be found.
//!
//! Four levels, each tried over the whole range before the next, none fuzzier than the last one.
//! Invariant: positions come from one level only, the strictest that matches at all; whoever asks
//! refuses when there is more than one.

use std::ops::Range;

/// More positions than this are not looked for; a hint may still pick one among them.
pub const MAX_POSITIONS: usize = 100_000;

/// How lines matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// Byte for byte, apart from line ends.
    Exact,
    /// But for spaces at line ends.
    TrailingSpace,
    /// But for one uniform shift of the indentation.
    Indentation(Shift),
    /// But for typographic quotes, dashes and spaces.
    Punctuation(Shift),
}

/// How the file's indentation differs from the sent one, the same in every line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Shift {
    /// Not at all.
    #[default]
    None,
    /// The file has this in front.
    Deeper(String),
    /// The sent lines have this in front.
    Shallower(String),
}

impl Shift {
    /// A sent line as it must stand in the file; `None` where it has too little indentation.
    #[must_use]
    pub fn place(&self, line: &str) -> Option<String> {
        match self {
            _ if line.trim().is_empty() => Some(line.to_owned()),
            Self::None => Some(line.to_owned()),
            Self::Deeper(lead) => Some(format!("{lead}{line}")),
            Self::Shallower(lead) => line.strip_prefix(lead.as_str()).map(str::to_owned),
        }
    }
}

impl Level {
    /// The level's shift.
    #[must_use]
    pub fn shift(&self) -> Shift {
        match self {
            Self::Exact | Self::TrailingSpace => Shift::None,
            Self::Indentation(shift) | Self::Punctuation(shift) => shift.clone(),
        }
    }

    /// What to tell the model; `None` for an exact match.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Exact => None,
            Self::TrailingSpace => Some("matched but for spaces at line ends".to_owned()),
            Self::Indentation(Shift::Deeper(lead)) => Some(format!("matched with {} more indentation than sent", blanks(lead))),
            Self::Indentation(Shift::Shallower(lead)) => Some(format!("matched with {} less indentation than sent", blanks(lead))),
            Self::Indentation(Shift::None) => Some("matched but for blank lines' indentation".to_owned()),
            Self::Punctuation(_) => Some("matched but for typographic quotes, dashes or spaces".to_owned()),
        }
    }
}

/// Names white space for people: `4 spaces`, `tab`, `2 tabs and 1 space`.
#[must_use]
pub fn blanks(lead: &str) -> String {
    let name = |count: usize, one: &str| match count {
        0 => None,
        1 if one == "tab" => Some("tab".to_owned()),
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {one}s")),
    };
    let tabs = lead.matches('\t').count();
    let spaces = lead.matches(' ').count();
    let other = lead.chars().count() - tabs - spaces;
    let parts: Vec<String> = [name(tabs, "tab"), name(spaces, "space"), name(other, "other blank")].into_iter().flatten().collect();
    if parts.is_empty() { "no indentation".to_owned() } else { parts.join(" and ") }
}

/// The positions in `range` where `sent` stands, by the strictest level that finds any.
#[must_use]
pub fn find(file: &[&str], sent: &[&str], range: Range<usize>) -> Vec<(usize, Level)> {
    let plain = |s: &str| s.to_owned();
    let end = range.end.min(file.len());
    let Some(last) = end.checked_sub(sent.len()).filter(|_| !sent.is_empty()) else { return Vec::new() };
    let starts = || range.start..=last;
    let lines = |at: usize| file.iter().skip(at).take(sent.len()).copied().zip(sent.iter().copied());
    let by = |same: &dyn Fn(&str, &str) -> bool, level: &Level| -> Vec<(usize, Level)> {
        let hit = |at: &usize| lines(*at).all(|(f, s)| same(f, s));
        starts().filter(hit).take(MAX_POSITIONS).map(|at| (at, level.clone())).collect()
    };
    let shifted = |fold: &dyn Fn(&str) -> String, level: &dyn Fn(Shift) -> Level| -> Vec<(usize, Level)> {
        let hit = |at: usize| uniform_shift(lines(at), fold).map(|shift| (at, level(shift)));
        starts().filter_map(hit).take(MAX_POSITIONS).collect()
    };
    let mut found = by(&|f, s| f == s, &Level::Exact);
    if found.is_empty() {
        found = by(&|f, s| f.trim_end() == s.trim_end(), &Level::TrailingSpace);
    }
    // Blank lines alone have no indentation to shift: they would match any gap in the file.
    if found.is_empty() && sent.iter().any(|s| !s.trim().is_empty()) {
        found = shifted(&plain, &Level::Indentation);
        if found.is_empty() {
            found = shifted(&fold_punctuation, &Level::Punctuation);
        }
    }
    found
}

/// The one shift that makes all pairs (file, sent) equal after `fold`.
fn uniform_shift<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, fold: &dyn Fn(&str) -> String) -> Option<Shift> {
    let mut shift: Option<Shift> = None;
    for (file, sent) in pairs {
        // The cheap comparison first: most positions end here.
        if file.trim().is_empty() || sent.trim().is_empty() {
            if file.trim().is_empty() && sent.trim().is_empty() {
                continue;
            }
            return None;
        }
        let (file, sent) = (fold(file.trim_end()), fold(sent.trim_end()));
        let one = shift_of(&file, &sent)?;
        match &shift {
            Some(all) if *all != one => return None,
            _ => shift = Some(one),
        }
    }
    shift
}

fn shift_of(file: &str, sent: &str) -> Option<Shift> {
    let (file_lead, file_body) = split_indent(file);
    let (sent_lead, sent_body) = split_indent(sent);
    if file_body != sent_body {
        return None;
    }
    if file_lead == sent_lead {
        Some(Shift::None)
    } else if let Some(lead) = file_lead.strip_suffix(sent_lead) {
        Some(Shift::Deeper(lead.to_owned()))
    } else {
        sent_lead.strip_suffix(file_lead).filter(|lead| sent.starts_with(lead)).map(|lead| Shift::Shallower(lead.to_owned()))
    }
}

/// A line's leading white space, and the rest.
#[must_use]
pub fn split_indent(line: &str) -> (&str, &str) {
    let body = line.trim_start();
    line.split_at_checked(line.len() - body.len()).unwrap_or(("", line))
}

/// The line with typographic quotes, dashes and spaces as their ASCII kin.
#[must_use]
pub fn fold_punctuation(line: &str) -> String {
    if line.is_ascii() {
        return line.to_owned();
    }
    line.chars().map(fold_char).collect()
}

/// The ASCII kin of a typographic character; any other character as it is.
#[must_use]
pub const fn fold_char(c: char) -> char {
    match c {
        '\u{2018}'..='\u{201b}' | '\u{2032}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_matches_what_the_one_before_does_not() {
        let check = |file: &[&str], sent: &[&str], want: &[(usize, Level)]| {
            assert_eq!(find(file, sent, 0..file.len()), want, "{file:?} {sent:?}");
        };
        let deeper = |s: &str| Shift::Deeper(s.to_owned());
        check(&["a", "b"], &["b"], &[(1, Level::Exact)]);
        check(&["a", "a"], &["a"], &[(0, Level::Exact), (1, Level::Exact)]);
        check(&["a ", "a"], &["a"], &[(1, Level::Exact)]);
        check(&["a  "], &["a"], &[(0, Level::TrailingSpace)]);
        check(&["    a", "      b"], &["a", "  b"], &[(0, Level::Indentation(deeper("    ")))]);
        check(&["\ta", "", "\t\tb"], &["a", "", "\tb"], &[(0, Level::Indentation(deeper("\t")))]);
        check(&["a", "  b"], &["  a", "    b"], &[(0, Level::Indentation(Shift::Shallower("  ".to_owned())))]);
        check(&["    a", "    b"], &["a", "  b"], &[]);
        check(&["\ta"], &["    a"], &[]);
        check(&["“a” – b"], &["\"a\" - b"], &[(0, Level::Punctuation(Shift::None))]);
        check(&["x", " "], &[""], &[(1, Level::TrailingSpace)]);
        check(&["a"], &["a", "b"], &[]);
        check(&["a"], &[], &[]);
    }
}
