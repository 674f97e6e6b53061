//! Text of a server made visible: what is not seen is written out.
//!
//! Pure. Person and model are shown the same text, so that nothing hides from one of them. Invariant:
//! what comes out holds no control sign but line end and tab, and no sign without width or with a
//! direction of its own.

use std::fmt::Write as _;

/// The text with each invisible sign as `\u{…}`.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, sign| {
        if is_hidden(sign) {
            // Writing into a string can not fail.
            write!(out, "\\u{{{:x}}}", u32::from(sign)).unwrap_or_default();
        } else {
            out.push(sign);
        }
        out
    })
}

/// How many signs of a text nobody would see.
#[must_use]
pub fn hidden(text: &str) -> usize {
    text.chars().filter(|sign| is_hidden(*sign)).count()
}

/// The first `most` signs, and how many were left out.
#[must_use]
pub fn first(text: &str, most: usize) -> (String, usize) {
    let count = text.chars().count();
    (text.chars().take(most).collect(), count.saturating_sub(most))
}

fn is_hidden(sign: char) -> bool {
    match sign {
        '\n' | '\t' => false,
        sign if sign.is_control() => true,
        // Soft hyphen, joiners, fillers that look like nothing.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}' => true,
        // Mongolian selectors, zero widths, directions, separators, invisible operators.
        '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Variation selectors, byte order marks, annotations, tags; private use can look like anything.
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' => true,
        '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_written_out() {
        for (text, expected, count) in [
            ("plain\ttext\n", "plain\ttext\n", 0),
            ("a\u{202e}b", "a\\u{202e}b", 1),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}", 2),
            ("\u{1b}[31mred\r", "\\u{1b}[31mred\\u{d}", 2),
            ("\u{e0041}\u{e007f}", "\\u{e0041}\\u{e007f}", 2),
            ("größer 漢字 é", "größer 漢字 é", 0),
        ] {
            assert_eq!((plain(text).as_str(), hidden(text)), (expected, count), "{text:?}");
        }
        assert_eq!(first("äbc", 2), ("äb".to_owned(), 1));
    }
}
