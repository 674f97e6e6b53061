//! Fingerprints of calls and outcomes, for the loop guard.
//!
//! Two outcomes are the same when they differ only in what changes by itself: durations, clock
//! times, process ids, temporary paths, unit and blob names. Plain numbers count, because a
//! counter that moves is progress. Invariant: a fingerprint never depends on machine or release.

use serde_json::Value;
use std::fmt::Write as _;

/// FNV-1a, 64 bits: stable for ever, unlike the standard library's hasher.
pub fn fnv(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The fingerprint of a request: the tool and its arguments, whatever their order or spacing.
pub fn request(tool: &str, args: &str) -> u64 {
    let canonical = match serde_json::from_str::<Value>(args) {
        Ok(mut value) => {
            // The reason a model gives for a call does not make it another call.
            if let Some(map) = value.as_object_mut() {
                map.remove("why");
            }
            let mut out = String::new();
            canon(&value, &mut out);
            out
        }
        Err(_) => args.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    fnv(&[tool, &canonical])
}

/// The fingerprint of an outcome in a tree.
pub fn outcome(status: &str, number: i32, text: &str, tree: &str) -> u64 {
    fnv(&[status, &number.to_string(), &normalised(text), tree])
}

/// JSON text with sorted keys and no spaces.
fn canon(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canon(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                // Writing into a string can not fail, here and below.
                write!(out, "{}:", Value::String(key.clone())).unwrap_or_default();
                if let Some(inner) = map.get(key) {
                    canon(inner, out);
                }
                out.push(',');
            }
            out.push('}');
        }
        other => write!(out, "{other}").unwrap_or_default(),
    }
}

/// A text without what changes by itself.
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut previous = String::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let next = words.peek().map_or("", |next| trimmed(next));
        out.push_str(if moves(&previous, word, next) { "~" } else { word });
        out.push(' ');
        previous = trimmed(word).to_ascii_lowercase();
    }
    out
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// Whether a word changes by itself between two runs of the same thing.
fn moves(previous: &str, word: &str, next: &str) -> bool {
    let core = trimmed(word);
    let named = matches!(previous, "pid" | "process" | "unit" | "job") && core.chars().any(|c| c.is_ascii_digit());
    let timed = is_number(core) && matches!(next, "s" | "ms" | "sec" | "secs" | "seconds" | "us" | "ns" | "min" | "minutes");
    let started = previous == "as" && core.strip_prefix('u').is_some_and(is_digits);
    // Rust names the thread's id: `thread 'main' (4711) panicked`.
    let thread = next == "panicked" && is_digits(core);
    named
        || timed
        || started
        || thread
        || is_address(core)
        || is_duration(core)
        || is_clock(core)
        || is_temporary(word)
        || core.starts_with("blob:")
        || is_pid_tag(core)
}

fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

fn is_address(word: &str) -> bool {
    word.strip_prefix("0x").is_some_and(|hex| hex.len() >= 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',')
}

fn is_duration(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    digits.len() < word.len() && matches!(digits, "s" | "ms" | "µs" | "us" | "ns" | "sec" | "secs" | "m")
}

fn is_clock(word: &str) -> bool {
    let time = word.bytes().filter(|b| *b == b':').count() >= 1 && word.starts_with(|c: char| c.is_ascii_digit());
    let date = word.len() >= 10 && word.bytes().filter(|b| *b == b'-').count() >= 2 && word.starts_with("20");
    (time || date) && word.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | ',' | '-' | '+' | 'T' | 'Z'))
}

fn is_temporary(word: &str) -> bool {
    ["/tmp/", "/var/tmp/", "/private/var/folders/", "/dev/shm/"].iter().any(|root| word.contains(root))
}

fn is_pid_tag(word: &str) -> bool {
    word.strip_prefix("pid=").or_else(|| word.strip_prefix("pid:")).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_equal_whatever_order_spacing_and_reason() {
        let one = request("exec", r#"{"cmd":"ls","yield_ms":5}"#);
        for same in [r#"{ "yield_ms": 5, "cmd": "ls" }"#, r#"{"cmd":"ls","why":"look","yield_ms":5}"#] {
            assert_eq!(one, request("exec", same), "{same}");
        }
        for other in [r#"{"cmd":"ls -a","yield_ms":5}"#, r#"{"cmd":"ls"}"#, "not json"] {
            assert_ne!(one, request("exec", other), "{other}");
        }
    }

    #[test]
    fn outcomes_are_equal_but_for_what_moves_by_itself() {
        for (a, b, same) in [
            ("exit 1 after 0.2s", "exit 1 after 3.4s", true),
            ("finished in 12 ms.", "finished in 9 ms.", true),
            ("at 12:00:01 failed", "at 12:00:09 failed", true),
            ("2026-01-02T03:04:05Z boom", "2026-02-03T04:05:06Z boom", true),
            ("pid 123 died", "pid 456 died", true),
            ("see /tmp/a1/x", "see /tmp/b2/x", true),
            ("exit 1 in 0.3 s; see below", "exit 1 in 12.0 s; see below", true),
            ("running as u12 after 10.0 s; wait", "running as u15 after 10.1 s; wait", true),
            ("thread 'a::b' (4711) panicked at x.rs:3:5:", "thread 'a::b' (99) panicked at x.rs:3:5:", true),
            ("thread 'a::b' (4711) panicked at x.rs:3:5:", "thread 'a::b' (99) panicked at x.rs:4:5:", false),
            ("<X object at 0x7f12ab34>", "<X object at 0x7f99cd00>", true),
            ("[whole output: blob:1-ab-7]", "[whole output: blob:1-cd-7]", true),
            ("3 failed", "2 failed", false),
            ("progress 10%", "progress 20%", false),
            ("a b", "a  b", true),
        ] {
            assert_eq!(outcome("exited", 1, a, "t") == outcome("exited", 1, b, "t"), same, "{a} / {b}");
        }
        assert_ne!(outcome("exited", 1, "x", "t"), outcome("exited", 1, "x", "u"));
        assert_ne!(outcome("exited", 1, "x", "t"), outcome("exited", 2, "x", "t"));
    }
}
