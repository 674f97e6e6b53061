//! What any bytes must not do to texts of commands and to paths; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks.

use super::{BYTES_PER_TOKEN, cap_tokens, fold_output};
use crate::approval::canonical;
use crate::protected::is_protected;

/// Folds output, cuts it, reads it as a path, and as the facts of an approval.
pub fn text(data: &[u8]) {
    let folded = fold_output(data);
    assert!(!folded.contains(|sign: char| sign.is_control() && sign != '\n' && sign != '\t'), "{folded:?}");
    assert_eq!(fold_output(folded.as_bytes()), folded, "what is folded stays as it is");
    for most in [0, 1, 7, 100] {
        let capped = cap_tokens(&folded, most);
        let (head, tail) = match capped.text.split_once("[… ") {
            Some(parts) if capped.cut => parts,
            _ => (capped.text.as_str(), ""),
        };
        assert!(capped.cut || capped.text == folded);
        let room = f64::from(most) * BYTES_PER_TOKEN + 100.0;
        #[allow(clippy::cast_precision_loss)]
        let len = (head.len() + tail.len()) as f64;
        assert!(len <= room, "{most}: {:?}", capped.text);
    }
    let path = String::from_utf8_lossy(data);
    if is_protected(&path) {
        assert!(is_protected(&format!("{path}/x")) && is_protected(&format!("./{path}")), "{path:?}");
        assert!(!path.is_ascii() || is_protected(&path.to_ascii_uppercase()), "{path:?}");
    }
    told_apart(&path);
}

/// Two lists of facts never have the same bytes: each line is a fact, in two lists around an empty line.
fn told_apart(text: &str) {
    let facts = |text: &str| {
        text.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).map(|(a, b)| (a.to_owned(), b.to_owned())).collect::<Vec<_>>()
    };
    let (one, two) = text.split_once("\n\n").unwrap_or((text, ""));
    let (one, two) = (facts(one), facts(two));
    assert_eq!(canonical(&one, 5, "n") == canonical(&two, 5, "n"), one == two);
    let len = one.iter().map(|(name, value)| 16 + name.len() + value.len()).sum::<usize>();
    assert!(canonical(&one, 5, "n").len() >= len);
}
