//! Help for models without tool calls of their own, which are the weak ones.
//!
//! Such a model seldom looks before it acts and seldom runs the check. So the runtime shows it the
//! files that its task names, and what the check says after each change. Invariant: all of it goes
//! the way of ordinary effects: judged, recorded, replayed.

use super::Turn;
use tinkerbell_core::event::{Call, Verdict};

/// What the ids of the runtime's own calls begin with.
const OWN: &str = "runtime-";
/// Most files that are shown.
const FILES: usize = 3;
/// A check that takes longer is not run after each change.
const SLOW_MS: u64 = 20_000;
/// Longest ending of a file's name.
const ENDING: usize = 8;

/// Whether the runtime made the call, and no answer of a model holds it.
pub fn is_own(call: &Call) -> bool {
    call.call_id.starts_with(OWN)
}

impl Turn {
    /// Queues reads of the files that goal and check name, once.
    pub(super) fn show_named(&mut self, printed: &str) {
        if !self.facts.small || self.state.shown {
            return;
        }
        self.state.shown = true;
        let names = named(&[&self.facts.goal, printed], &self.state.verify);
        let read = |(at, path): (usize, String)| Call {
            call_id: format!("{OWN}{at}"),
            tool: "read".to_owned(),
            args: serde_json::json!({ "path": path }).to_string(),
            step: 0,
        };
        let reads: Vec<Call> = names.into_iter().enumerate().map(read).collect();
        self.state.queue.splice(0..0, reads);
    }

    /// Whether the check is due because the tree is another than it last ran on.
    pub(super) fn owes_check(&self) -> bool {
        let ran = self.state.baseline && !self.state.checked.is_empty() && !self.state.verify.is_empty();
        self.facts.small && ran && !self.state.slow_check && self.state.checked != self.state.tree
    }

    pub(super) fn note_pace(&mut self, verdict: &Verdict) {
        self.state.slow_check |= verdict.wall_ms > SLOW_MS;
    }
}

/// Words that look like relative paths of files, in their order. What the check itself consists of
/// is left out: its output says what it wants, and the room is needed.
fn named(texts: &[&str], check: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in texts.iter().flat_map(|text| text.split(|c: char| !is_path_char(c))) {
        let word = word.trim_start_matches("./").trim_end_matches('.');
        if is_file(word) && !check.contains(word) && !names.iter().any(|name| name == word) {
            names.push(word.to_owned());
        }
    }
    names.truncate(FILES);
    names
}

fn is_path_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

fn is_file(word: &str) -> bool {
    let Some((stem, ending)) = word.rsplit_once('.') else { return false };
    let letters = ending.len() <= ENDING
        && ending.starts_with(|c: char| c.is_ascii_alphabetic())
        && ending.bytes().all(|b| b.is_ascii_alphanumeric());
    let plain = !word.starts_with(['/', '-']) && !word.split('/').any(|part| part == "..");
    letters && plain && stem.len() > 1 && stem.contains(|c: char| c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn names_of_files_are_found_in_words() {
        for (text, expected) in [
            ("repair `src/a.py`, then lib/name.sh.", "src/a.py lib/name.sh"),
            ("error: --> leap.rs:9:25 and again leap.rs:10", "leap.rs"),
            ("version 1.5 of e.g. this; /etc/motd.txt ../x.c -o.c", ""),
            ("make tests/run.sh pass with a.c b.c cc.c dd.c ee.c ff.c", "cc.c dd.c ee.c"),
        ] {
            assert_eq!(named(&[text], "sh tests/run.sh").join(" "), expected, "{text}");
        }
    }
}
