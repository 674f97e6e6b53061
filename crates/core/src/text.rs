//! Text for a model: folding raw terminal output, and cutting to a token cap.
//!
//! Pure functions; nothing here knows a tool or a provider. Invariant: [`cap_tokens`] never returns
//! more than its cap plus one marker line, and the marker says how much was left out.

#[doc(hidden)]
pub mod fuzz;

/// Bytes per token on which all caps stand; there is no tokenizer library in the house.
pub const BYTES_PER_TOKEN: f64 = 3.6;

/// A text after cutting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capped {
    /// What may be shown.
    pub text: String,
    /// Whether something was left out.
    pub cut: bool,
}

/// Estimates the tokens of a text of this many bytes, rounded up.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub fn estimate_tokens(bytes: usize) -> u64 {
    (bytes as f64 / BYTES_PER_TOKEN).ceil() as u64
}

/// Makes raw terminal output readable: UTF-8 with replacement signs, without escape sequences,
/// with progress bars reduced to their last state, without other control signs.
#[must_use]
pub fn fold_output(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let plain = strip_escapes(&text);
    let mut out = String::with_capacity(plain.len());
    for line in plain.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        out.push_str(&last_state(body));
        out.push_str(end);
    }
    out
}

/// What a terminal would show of a line with carriage returns and backspaces.
fn last_state(line: &str) -> String {
    // A trailing carriage return is half of CRLF, or a bar that is about to be redrawn: what
    // stands before it is what the reader saw.
    let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or("");
    let mut out = String::with_capacity(shown.len());
    for sign in shown.chars() {
        match sign {
            '\u{8}' => drop(out.pop()),
            '\t' => out.push('\t'),
            sign if sign.is_control() => {}
            sign => out.push(sign),
        }
    }
    out
}

/// Removes CSI, OSC and two-character escape sequences.
fn strip_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '\u{1b}' => match signs.next() {
                Some('[') => while signs.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut signs),
                Some('(' | ')' | '#' | '%') => drop(signs.next()),
                _ => {}
            },
            '\u{9b}' => while signs.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
            sign => out.push(sign),
        }
    }
    out
}

/// Skips to the end of an OSC-like string: BEL, or ESC and a backslash. A line end also stops it,
/// so that an unterminated title can not swallow the rest of the output.
fn skip_string(signs: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(&sign) = signs.peek() {
        if sign == '\n' {
            return;
        }
        signs.next();
        if sign == '\u{7}' {
            return;
        }
        if sign == '\u{1b}' {
            if signs.peek() == Some(&'\\') {
                signs.next();
            }
            return;
        }
    }
}

/// Cuts a text to about `max_tokens`: the first and the last lines stay, a marker between them says
/// how much is missing. Cuts at line ends; a single longer line is cut within.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn cap_tokens(text: &str, max_tokens: u32) -> Capped {
    let room = (f64::from(max_tokens) * BYTES_PER_TOKEN) as usize;
    if text.len() <= room {
        return Capped { text: text.to_owned(), cut: false };
    }
    // Two thirds for the tail: errors and summaries stand at the end.
    let head = head_end(text, room / 3);
    let tail = tail_start(text, room - room / 3).max(head);
    let (first, rest) = text.split_at(head);
    let (left_out, last) = rest.split_at(tail - head);
    let lines = left_out.matches('\n').count();
    let break_before = if first.is_empty() || first.ends_with('\n') { "" } else { "\n" };
    let marker = format!("{break_before}[… {lines} lines, {} bytes left out …]\n", left_out.len());
    Capped { text: format!("{first}{marker}{last}"), cut: true }
}

/// The end of the last whole line within `room` bytes, or of the last whole sign when the line is
/// longer than half the room.
fn head_end(text: &str, room: usize) -> usize {
    let end = text.floor_char_boundary(room);
    let line = text.get(..end).and_then(|head| head.rfind('\n')).map_or(0, |at| at + 1);
    if line >= end / 2 { line } else { end }
}

/// The start of the first whole line within the last `room` bytes; as [`head_end`].
fn tail_start(text: &str, room: usize) -> usize {
    let start = text.ceil_char_boundary(text.len().saturating_sub(room));
    let line = text.get(start..).and_then(|tail| tail.find('\n')).map_or(text.len(), |at| start + at + 1);
    if line - start <= (text.len() - start) / 2 { line } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_folded_as_a_terminal_shows_it() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain\n", "plain\n"),
            (b"\x1b[1;31merror\x1b[0m: x\n", "error: x\n"),
            (b" 1%\r 50%\r100%\ndone", "100%\ndone"),
            (b"crlf\r\nnext\r\n", "crlf\nnext\n"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\x1b]0;title without end\ntext", "\ntext"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"ab\x08c\0d\te", "acd\te"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\x1b", ""),
            (b"\x1b[", ""),
        ];
        for (raw, folded) in cases {
            assert_eq!(fold_output(raw), *folded, "{raw:?}");
        }
    }

    #[test]
    fn short_text_is_not_cut() {
        assert_eq!(cap_tokens("a\nb\n", 10), Capped { text: "a\nb\n".into(), cut: false });
        assert_eq!(cap_tokens("", 0), Capped { text: String::new(), cut: false });
    }

    #[test]
    fn long_text_keeps_first_and_last_lines_and_says_what_is_missing() {
        let text: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        let capped = cap_tokens(&text, 50);
        assert!(capped.cut);
        assert!(capped.text.starts_with("line 1\n"));
        assert!(capped.text.ends_with("line 1000\n"));
        assert!(capped.text.contains("bytes left out …]\nline "), "{}", capped.text);
        assert!(capped.text.len() < 180 + 60);
    }

    #[test]
    fn one_endless_line_is_cut_between_signs() {
        let text = "ä".repeat(10_000);
        let capped = cap_tokens(&text, 10);
        assert!(capped.cut && capped.text.len() < 36 + 60, "{}", capped.text);
        assert!(cap_tokens(&text, 0).text.starts_with("[… 0 lines, 20000 bytes"));
    }
}
