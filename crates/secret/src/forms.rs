//! The forms in which a value travels.
//!
//! Plain, Base64 at each of the three places within a group, hexadecimal, URL, JSON, shell. Pure.
//! Invariant: each form is what a usual tool writes when it is given the value, alone or within a
//! longer text.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fmt::Write as _;

/// Shortest form that is looked for: shorter ones occur by chance.
const SHORTEST_FORM: usize = 8;
/// Columns at which tools break Base64: `base64` and mail, `openssl` and PEM.
const COLUMNS: [usize; 2] = [76, 64];
/// How lines end: on Unix, and in mail and on Windows.
const LINE_ENDS: [&str; 2] = ["\n", "\r\n"];
/// Columns at which `xxd -p` breaks hexadecimal.
const HEX_COLUMNS: usize = 60;
/// A line of a value of several lines is looked for by itself from this length on, if it looks like
/// nothing but key.
const SHORTEST_LINE: usize = 32;

/// All forms of a value, some of them alike.
pub fn of(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let mut forms = vec![value.to_owned(), hex(bytes, false), hex(bytes, true)];
    forms.extend(urls(value));
    forms.extend(jsons(value));
    forms.extend(shells(value));
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|shift| inner_base64(engine, bytes, shift)));
        // The signs that the value gives when it is all that a tool is given, or begins it.
        let whole = inner_base64(engine, bytes, 0);
        let ways = COLUMNS.into_iter().flat_map(|column| LINE_ENDS.map(|end| (column, end)));
        forms.extend(ways.filter_map(|(column, end)| broken(&whole, column, end)));
    }
    forms.extend(broken(&hex(bytes, false), HEX_COLUMNS, "\n"));
    forms.extend(key_lines(value));
    forms.retain(|form| form.len() >= SHORTEST_FORM);
    forms
}

/// Bytes of all forms of a value: what it costs to look for it.
pub fn bytes(value: &str) -> usize {
    of(value.trim()).iter().map(String::len).sum()
}

/// The signs that a value gives within a longer Base64 text at this place, without those at its
/// edges, which its neighbours change too.
fn inner_base64(engine: &impl Engine, value: &[u8], shift: usize) -> String {
    let mut padded = vec![0_u8; shift];
    padded.extend_from_slice(value);
    let whole = engine.encode(&padded);
    // Each sign holds six bits: skip those that hold bits before the value, drop one that ends after it.
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    whole.get(first..last.min(whole.len())).unwrap_or_default().to_owned()
}

/// What a tool writes that breaks lines; `None` for what needs no second line.
fn broken(whole: &str, column: usize, end: &str) -> Option<String> {
    (whole.len() > column).then(|| {
        let lines: Vec<&str> = whole.as_bytes().chunks(column).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        lines.join(end)
    })
}

/// Lines of a value of several lines that are nothing but key, as in a PEM file: they are indented,
/// quoted and shown one by one.
fn key_lines(value: &str) -> Vec<String> {
    let is_key = |line: &str| line.len() >= SHORTEST_LINE && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b));
    if !value.contains('\n') {
        return Vec::new();
    }
    value.lines().map(str::trim).filter(|line| is_key(line)).map(str::to_owned).collect()
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let wrote = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
        // Writing into a string can not fail.
        wrote.unwrap_or_default();
        out
    })
}

/// Per cent forms: what is left as it is differs from tool to tool.
fn urls(value: &str) -> Vec<String> {
    // RFC 3986; the browser's component and whole address; Python's `quote`; forms.
    let kept: [(&[u8], bool); 5] =
        [(b"-._~", false), (b"-._~!'()*", false), (b"-._~!'()*;/?:@&=+$,#", false), (b"-._~/", false), (b"-._*", true)];
    let forms = kept.into_iter().flat_map(|(kept, plus)| [false, true].map(|upper| url(value, (kept, plus), upper)));
    forms.collect()
}

fn url(value: &str, (kept, plus): (&[u8], bool), upper: bool) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else if plus && byte == b' ' {
            out.push('+');
        } else {
            let wrote = if upper { write!(out, "%{byte:02X}") } else { write!(out, "%{byte:02x}") };
            // Writing into a string can not fail.
            wrote.unwrap_or_default();
        }
        out
    })
}

/// What a writer of JSON escapes beyond what it must.
#[derive(Clone, Copy, Default)]
struct Escapes {
    /// All signs that are not ASCII: Python, Ruby, PHP.
    ascii: bool,
    /// `/`: PHP.
    slash: bool,
    /// What means something in HTML: Go.
    html: bool,
}

/// As JSON writes it within quotes, and as JSON within JSON: arguments of a call are that.
fn jsons(value: &str) -> impl Iterator<Item = String> {
    let (must, python) = (Escapes::default(), Escapes { ascii: true, ..Escapes::default() });
    let others = [
        Escapes { slash: true, ..must },
        Escapes { slash: true, ..python },
        Escapes { html: true, ..must },
        Escapes { html: true, ..python },
    ];
    let twice = [must, python].map(|how| json(&json(value, how), how));
    [must, python].into_iter().chain(others).map(|how| json(value, how)).collect::<Vec<_>>().into_iter().chain(twice)
}

fn json(value: &str, Escapes { ascii, slash, html }: Escapes) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut out, sign| {
        match sign {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '/' if slash => out.push_str("\\/"),
            other if (other as u32) < 0x20 || (ascii && !other.is_ascii()) || (html && "<>&".contains(other)) => {
                let mut units = [0_u16; 2];
                for unit in other.encode_utf16(&mut units) {
                    // Writing into a string can not fail.
                    write!(out, "\\u{unit:04x}").unwrap_or_default();
                }
            }
            other => out.push(other),
        }
        out
    })
}

/// As a shell writes it: within single quotes, within double quotes, each special sign escaped.
fn shells(value: &str) -> [String; 3] {
    let escape = |special: &dyn Fn(char) -> bool| {
        value.chars().fold(String::with_capacity(value.len()), |mut out, sign| {
            if special(sign) {
                out.push('\\');
            }
            out.push(sign);
            out
        })
    };
    let is_plain = |sign: char| sign.is_alphanumeric() || "-._/:=@%+,".contains(sign);
    [value.replace('\'', "'\\''"), escape(&|sign| "\"\\$`".contains(sign)), escape(&|sign| !is_plain(sign))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    fn has(value: &str, form: &str) {
        assert!(of(value).iter().any(|known| known == form), "{form} of {value}: {:?}", of(value));
    }

    #[test]
    fn tools_are_known_by_what_they_write() {
        has("k$y 'a\"b`c/\\", "k\\$y\\ \\'a\\\"b\\`c/\\\\"); // printf %q
        has("k$y 'a\"b`c", "k$y '\\''a\"b`c"); // set -x
        has("k$y 'a\"b`c", "k\\$y 'a\\\"b\\`c"); // declare -p
        has("key with/é+", "key+with%2F%C3%A9%2B"); // urlencode
        has("key with/é+", "key%20with/%c3%a9%2b"); // quote, lower case
        has("key \"é/\n", "key \\\"\\u00e9\\/\\n"); // PHP
        has("key \"é/\n", "key \\\"\\u00e9/\\n"); // Python
        has("key \"é/\n", "key \\\\\\\"\\\\u00e9/\\\\n"); // Python, twice
        has("key&é<", "key\\u0026é\\u003c"); // Go
        has("key \"quoted\"", "key \\\\\\\"quoted\\\\\\\""); // JSON in JSON
        has("key\u{1}control", "key\\u0001control");
        has("k😀-smiling", "k\\ud83d\\ude00-smiling");
    }

    #[test]
    fn base64_is_known_where_its_lines_are_broken() {
        let value = "k".repeat(100);
        let whole = STANDARD.encode(&value);
        has(&value, &format!("{}\n{}", &whole[..76], &whole[76..133]));
        has(&value, &format!("{}\n{}\n{}", &whole[..64], &whole[64..128], &whole[128..133]));
        has(&value, &format!("{}\r\n{}", &whole[..76], &whole[76..133]));
        has(&value, &format!("{}\r\n{}\r\n{}", &whole[..64], &whole[64..128], &whole[128..133]));
        let odd = "~?".repeat(40);
        let whole = URL_SAFE_NO_PAD.encode(&odd);
        assert!(whole.contains(['-', '_']));
        has(&odd, &format!("{}\n{}", &whole[..76], &whole[76..106]));
        has(&odd, &format!("{}\r\n{}", &whole[..64], &whole[64..106]));
    }

    #[test]
    fn hexadecimal_is_known_where_xxd_breaks_it() {
        let value = "k".repeat(40);
        has(&value, &format!("{}\n{}", "6b".repeat(30), "6b".repeat(10)));
        assert!(!of("a-short-value").iter().any(|form| form.contains('\n')), "short values have no lines");
    }

    #[test]
    fn lines_of_a_key_are_known_one_by_one_and_its_words_are_not() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        let value = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----");
        has(&value, line);
        assert!(!of(&value).iter().any(|form| form.starts_with("-----BEGIN") && form.len() < 40));
    }
}
