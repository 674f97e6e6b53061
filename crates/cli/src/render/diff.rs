//! Diffs and lists of changed files.
//!
//! Pure. Invariant: colours repeat what the signs + and − say; they never say it alone.

use super::visible;
use crate::output::Tone;
use tinkerbell_api::wire::FileChange;

/// A unified diff for a terminal or a file. Off a terminal it is left as it is, so that it applies.
#[must_use]
pub fn unified(text: &str, is_terminal: bool, has_color: bool) -> String {
    if !is_terminal {
        return text.to_owned();
    }
    let paint = |line: &str| {
        let tone = match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', b' ', ..] => Tone::Strong,
            [b'+', ..] => Tone::Good,
            [b'-', ..] => Tone::Bad,
            [b'@', b'@', ..] => Tone::Look,
            _ => Tone::Plain,
        };
        tone.paint(&visible(line), has_color) + "\n"
    };
    text.lines().map(paint).collect()
}

/// One line per file, with counts, and a sum.
#[must_use]
pub fn stat(files: &[FileChange]) -> Vec<String> {
    let mut lines: Vec<String> = files.iter().map(file).collect();
    lines.push(sum(files));
    lines
}

/// One changed file.
#[must_use]
pub fn file(file: &FileChange) -> String {
    let sign = match file.kind.as_str() {
        "added" => 'A',
        "deleted" => 'D',
        _ => 'M',
    };
    // A line end in a name would make a line of its own.
    format!("{sign} {}  +{} -{}", visible(&file.path).replace('\n', "\\n"), file.plus, file.minus)
}

/// How much changed.
#[must_use]
pub fn sum(files: &[FileChange]) -> String {
    let (plus, minus) = files.iter().fold((0_u64, 0_u64), |(p, m), file| (p + u64::from(file.plus), m + u64::from(file.minus)));
    match files.len() {
        0 => "no files changed".to_owned(),
        1 => format!("1 file changed, +{plus} -{minus}"),
        many => format!("{many} files changed, +{plus} -{minus}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_in_a_pipe_is_untouched_and_on_a_terminal_harmless() {
        let text = "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\x1b[2Jy\r\n";
        assert_eq!(unified(text, false, false), text);
        assert_eq!(unified(text, true, false), "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\\x1b[2Jy\n");
        assert!(unified(text, true, true).contains("\x1b[32m+"));
    }

    #[test]
    fn files_are_summed() {
        let files = [FileChange { path: "a\nb".into(), kind: "added".into(), plus: 2, minus: 0 }];
        assert_eq!(stat(&files), ["A a\\nb  +2 -0", "1 file changed, +2 -0"]);
        assert_eq!(stat(&[]), ["no files changed"]);
    }
}
