//! Finds lines by which a model says "and so on" instead of writing the text.
//!
//! Looks at comment lines and lines that start with an ellipsis only, so that prose and string
//! literals pass. Invariant: a line that stood in the file before is never called an omission.

/// Comment leaders of the usual languages, longest first.
const LEADERS: [&str; 11] = ["<!--", "///", "//", "/*", "{/*", "--", "#", ";", "%", "*", "'"];

/// Words that, beside an ellipsis, say that something was left out.
const HINTS: [&str; 12] = [
    "rest",
    "existing",
    "unchanged",
    "remaining",
    "omitted",
    "same as",
    "as before",
    "previous",
    "other code",
    "keep",
    "no change",
    "more code",
];

/// Whole comments that say so without an ellipsis.
const PHRASES: [&str; 12] = [
    "rest unchanged",
    "rest is unchanged",
    "rest of the code unchanged",
    "rest of code unchanged",
    "rest of the file unchanged",
    "rest of the code",
    "rest of the file",
    "existing code here",
    "existing code",
    "remaining code unchanged",
    "unchanged code",
    "code omitted",
];

/// The number (from 1) and text of the first line of `sent` that looks like an omission and is not
/// among `known`.
pub fn first<'a>(sent: impl Iterator<Item = &'a str>, known: &[&str]) -> Option<(usize, String)> {
    sent.enumerate().find(|(_, line)| looks_omitted(line) && !known.contains(line)).map(|(at, line)| (at + 1, line.trim().to_owned()))
}

fn looks_omitted(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.chars().count() > 100 {
        return false;
    }
    let (leader, body) = LEADERS.iter().find_map(|l| line.strip_prefix(l).map(|rest| (*l, rest))).unwrap_or(("", line));
    let body = body.trim().trim_end_matches("-->").trim_end_matches("*/}").trim_end_matches("*/").trim();
    let after = body.strip_prefix("...").or_else(|| body.strip_prefix('…'));
    // Without a comment leader, `...rest` is a spread or a variadic, `... (rest` is not.
    if leader.is_empty() && !after.is_some_and(|a| a.starts_with([' ', '(', '['])) {
        return false;
    }
    let elided = body.contains("...") || body.contains('…');
    let words = body.trim_matches(|c: char| c == '.' || c == '…' || c == '(' || c == ')' || c.is_whitespace()).to_ascii_lowercase();
    // An ellipsis alone is an omission in languages where nothing else writes it as a comment.
    let bare = elided && words.is_empty() && matches!(leader, "//" | "/*" | "{/*" | "<!--");
    let hinted = HINTS.iter().any(|h| if after.is_some() { words.contains(h) } else { elided && words.starts_with(h) });
    bare || hinted || (!leader.is_empty() && PHRASES.contains(&words.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omissions_are_told_from_text() {
        let check = |line: &str, want: bool| assert_eq!(looks_omitted(line), want, "{line}");
        check("    // ... rest of the code ...", true);
        check("# ... existing code ...", true);
        check("// rest unchanged", true);
        check("/* ... */", true);
        check("<!-- ... -->", true);
        check("{/* ... existing markup ... */}", true);
        check("... (rest unchanged)", true);
        check("// …", true);
        check("    ...", false);
        check("# ...", false);
        check("// waits for the rest of the code path", false);
        check("let a = [1, ...rest];", false);
        check("...rest,", false);
        check("\"// ... rest of the code ...\"", false);
        check("// loads the existing index...", false);
        check("x = foo(...)", false);
        check("// existing code...", true);
        check("", false);
    }
}
