//! Rendering: from the public JSON to lines for people.
//!
//! `lines` is pure, `screen` holds the one moving row of a terminal. Invariant: every text that a
//! model, a command or a repository wrote passes through [`visible`] first.

pub mod diff;
pub mod fault;
pub mod lines;
pub mod question;
pub mod screen;
pub mod table;

/// The text with everything visible that could act on a terminal or mislead a reader.
///
/// Line feeds and tabs stay. Other control characters, escape sequences among them, are shown as
/// `\x1b`; characters that change the direction of text, and invisible ones, as `<U+202E>`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' | '\t' => out.push(letter),
            // The end of a line as other systems write it is no trick.
            '\r' if letters.peek() == Some(&'\n') => {}
            _ if letter.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(letter))),
            _ if misleads(letter) => out.push_str(&format!("<U+{:04X}>", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out
}

/// Marks, embeddings, overrides and isolates of direction; line separators; invisible letters;
/// tags, which can hide whole texts.
const fn misleads(letter: char) -> bool {
    matches!(letter,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One visible line, cut to `limit` characters.
#[must_use]
pub fn one_line(text: &str, limit: usize) -> String {
    let shown = visible(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()).replace('\t', " ");
    if shown.chars().count() <= limit {
        return shown;
    }
    let mut cut: String = shown.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        for (text, shown) in [
            ("plain ü 漢 👩‍💻\n\tok", "plain ü 漢 👩‍💻\n\tok"),
            ("a\x1b[31mred\x1b[0m", "a\\x1b[31mred\\x1b[0m"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("\x1b]8;;http://evil\x1b\\x", "\\x1b]8;;http://evil\\x1b\\x"),
            ("50%\r100%\r\n", "50%\\x0d100%\n"),
            ("\u{9b}2J\u{7f}\0", "\\x9b2J\\x7f\\x00"),
            ("if \u{202e}admin\u{2066}", "if <U+202E>admin<U+2066>"),
            ("a\u{200b}b\u{feff}\u{e0041}", "a<U+200B>b<U+FEFF><U+E0041>"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn a_line_is_the_first_with_words_cut_to_its_limit() {
        assert_eq!(one_line("\n\n  hello\tworld \nmore", 20), "hello world");
        assert_eq!(one_line("abcdefgh", 5), "abcd…");
        assert_eq!(one_line("", 5), "");
    }
}
