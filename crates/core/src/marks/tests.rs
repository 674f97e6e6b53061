//! A corpus of texts that try to be read as something else.

use super::{marks, visible};

#[test]
fn the_corpus_is_shown_as_it_is() {
    for (text, shown, marked) in [
        // What is honest stays.
        ("plain ü 漢 👩‍💻 ❤️ 1️⃣\n\tok", "plain ü 漢 👩‍💻 ❤️ 1️⃣\n\tok", ""),
        ("naïve café Straße Łódź đường", "naïve café Straße Łódź đường", ""),
        ("e\u{301} o\u{302}\u{301}", "e\u{301} o\u{302}\u{301}", ""),
        ("Привет, мир! Ελληνικά κείμενο", "Привет, мир! Ελληνικά κείμενο", ""),
        ("می\u{200c}خواهم नमस्\u{200d}ते", "می\u{200c}خواهم नमस्\u{200d}ते", ""),
        ("5 µs, π, Δt", "5 µs, π, <U+0394>t", "look-alike letters: U+0394 in `Δt`"),
        // ANSI, titles, links, the clipboard.
        ("a\x1b[31mred\x1b[0m", "a\\x1b[31mred\\x1b[0m", "control characters: U+001B"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07", "control characters: U+0007, U+001B"),
        ("\x1b]8;;http://evil\x1b\\x", "\\x1b]8;;http://evil\\x1b\\x", "control characters"),
        ("\x1b]52;c;cm0=\x07ls", "\\x1b]52;c;cm0=\\x07ls", "control characters"),
        ("\u{9b}2J\u{7f}\0", "\\x9b2J\\x7f\\x00", "control characters: U+0000, U+007F, U+009B"),
        // Overwriting by carriage return and backspace.
        ("rm -rf /\rls      \r\n", "rm -rf /\\x0dls      \n", "control characters: U+000D"),
        ("rm\x08\x08ls", "rm\\x08\\x08ls", "control characters: U+0008"),
        // Direction.
        ("if \u{202e}nimda\u{2066}", "if <U+202E>nimda<U+2066>", "direction of text: U+202E, U+2066"),
        ("a\u{200f}b\u{61c}c\u{200e}", "a<U+200F>b<U+061C>c<U+200E>", "direction of text"),
        // Zero width and fillers.
        ("a\u{200b}b\u{feff}\u{e0041}", "a<U+200B>b<U+FEFF><U+E0041>", "invisible characters: U+200B, U+FEFF, U+E0041"),
        ("gi\u{200d}t pu\u{200c}sh", "gi<U+200D>t pu<U+200C>sh", "invisible characters"),
        ("x\u{fe0f}y\u{e0100}", "x<U+FE0F>y<U+E0100>", "invisible characters"),
        ("so\u{ad}ft \u{3164}= 1\u{2800}", "so<U+00AD>ft <U+3164>= 1<U+2800>", "invisible characters"),
        ("a\u{2028}b\u{2029}c\u{2063}", "a<U+2028>b<U+2029>c<U+2063>", "invisible characters"),
        // Letters that look like others.
        ("curl p\u{430}ypal.com", "curl p<U+0430>ypal.com", "look-alike letters: U+0430 in `p\u{430}ypal`"),
        ("\u{441}\u{443}rl x", "<U+0441><U+0443>rl x", "look-alike letters: U+0441, U+0443"),
        ("\u{440}\u{430}\u{443}\u{440}\u{430} x", "<U+0440><U+0430><U+0443><U+0440><U+0430> x", "look-alike letters"),
        ("g\u{3bf}\u{3bf}gle", "g<U+03BF><U+03BF>gle", "look-alike letters: U+03BF"),
        ("\u{ff47}\u{ff49}\u{ff54} push", "<U+FF47><U+FF49><U+FF54> push", "look-alike letters"),
        ("\u{1d42b}\u{1d426} x", "<U+1D42B><U+1D426> x", "look-alike letters"),
        ("my_\u{456}d", "my_<U+0456>d", "look-alike letters: U+0456"),
        ("\u{212a}ey", "<U+212A>ey", "look-alike letters"),
        // Marks.
        ("e\u{301}\u{301}\u{301}\u{301}\u{301}", "e\u{301}\u{301}\u{301}<U+0301><U+0301>", "stacked or crossing marks: U+0301"),
        ("a\u{338}b", "a<U+0338>b", "stacked or crossing marks: U+0338"),
        ("/\u{338}", "/<U+0338>", "stacked"),
        ("x\u{20dd}", "x<U+20DD>", "stacked"),
        ("tab\tstays\tas it is", "tab\tstays\tas it is", ""),
    ] {
        assert_eq!(visible(text), shown, "{text:?}");
        let found = marks(text).join("; ");
        assert!(if marked.is_empty() { found.is_empty() } else { found.contains(marked) }, "{text:?}: {found:?}");
        assert_eq!(found.is_empty(), visible(text) == text.replace("\r\n", "\n"), "{text:?}: what is replaced is told of");
    }
}

#[test]
fn nothing_is_left_out_of_a_long_line() {
    let long = "x".repeat(1 << 20) + "\u{202e}end";
    let shown = visible(&long);
    assert!(shown.ends_with("x<U+202E>end") && shown.len() == (1 << 20) + "<U+202E>end".len());
    assert_eq!(marks(&long).len(), 1);
    let many: String = ('\u{430}'..='\u{43f}').flat_map(|letter| ['a', letter, ' ']).collect();
    assert_eq!(
        marks(&many),
        ["contains look-alike letters: U+0430, U+0431, U+0432, U+0433, U+0434, U+0435, U+0436, U+0437 and 8 more in `a\u{430}`"]
    );
}

#[test]
fn a_mark_names_no_character_that_acts() {
    for line in marks("a\x1b b\u{202e} p\u{430}y\u{200b}") {
        assert!(line.chars().all(|letter| !letter.is_control() && !('\u{200b}'..='\u{206f}').contains(&letter)), "{line:?}");
    }
}
