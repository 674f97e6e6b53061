//! What any bytes must not do to the readers of providers' answers; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; nobody is called.

use crate::classify::{Context, Failure, in_stream, of_status};
use crate::frames::{Heard, absorb};
use crate::options::Wire;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;

/// A key that no failure may tell.
const KEY: &str = "sk-fuzz";

/// Reads lines as the frames of an answer on each wire, and the whole as the body of a refusal whose
/// header is the first line: it ends, no more is kept than came, and the key is told to nobody.
pub fn answers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let frames: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for wire in [Wire::Openai, Wire::OpenaiResponses, Wire::Anthropic, Wire::Gemini] {
        let mut heard = Heard::default();
        frames.iter().for_each(|frame| absorb(wire, frame, &mut heard));
        let kept: usize = heard.calls.iter().map(|call| call.id.len() + call.name.len() + call.args.len()).sum();
        // Numbers are written out: `1e9` has more digits then.
        assert!(kept <= 8 * text.len() && heard.calls.len() <= text.len(), "{heard:?}");
        if let Some(usage) = heard.usage {
            assert!(usage.total() > 0);
        }
        if let Some(error) = &heard.error {
            checked(&in_stream(error, CONTEXT));
        }
    }
    let mut headers = HeaderMap::new();
    let (head, body) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(value) = HeaderValue::from_str(head) {
        headers.insert("retry-after", value);
    }
    for status in [400, 402, 404, 429, 529] {
        checked(&of_status(status, Some(&headers), body, CONTEXT));
    }
}

const CONTEXT: Context<'static> = Context { key: Some(KEY), wall_ms: 1_790_000_000_000 };

fn checked(failure: &Failure) {
    let line = failure.line();
    assert!(!line.contains(KEY) && line.chars().count() < 400, "{line}");
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let all = include_str!("../tests/seeds/answers.jsonl");
    let mut seeds: Vec<&[u8]> = all.lines().map(str::as_bytes).collect();
    seeds.push(all.as_bytes());
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, answers);
}
