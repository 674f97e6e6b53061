//! Rescue of calls that a model meant but wrote slightly wrong.
//!
//! Only forms without any doubt: a name with a known prefix, arguments wrapped in a string once more,
//! a whole answer that is one call as JSON. Invariant: what is unclear stays as it was written, so the
//! model gets the error and not a guess.

use crate::TOOL_ORDER;
use serde_json::Value;
use tinkerbell_core::event::{Part, PartKind};

/// Prefixes that models put before a tool's name.
const PREFIXES: [&str; 4] = ["functions.", "functions:", "default_api.", "tools."];

/// Sets calls right; gives whether a text turned out to be a call.
pub fn rescue(parts: &mut [Part]) -> bool {
    let calls = |part: &Part| part.kind == PartKind::Call as i32;
    for part in parts.iter_mut().filter(|part| calls(part)) {
        part.tool = name(&part.tool).to_owned();
        if let Some(args) = arguments(&part.text) {
            part.text = args;
        }
    }
    if parts.iter().any(calls) {
        return false;
    }
    let mut texts = parts.iter_mut().filter(|part| part.kind == PartKind::Text as i32 && !part.text.trim().is_empty());
    let (Some(only), None) = (texts.next(), texts.next()) else { return false };
    let Some((tool, args)) = call(&only.text) else { return false };
    *only = Part { kind: PartKind::Call as i32, text: args, call_id: String::new(), tool };
    true
}

fn name(written: &str) -> &str {
    let plain = written.trim();
    let bare = PREFIXES.iter().find_map(|prefix| plain.strip_prefix(prefix)).unwrap_or(plain);
    if TOOL_ORDER.contains(&bare) { bare } else { written }
}

/// Arguments that were left empty, or written as a string that holds the object.
fn arguments(written: &str) -> Option<String> {
    if written.trim().is_empty() {
        return Some("{}".to_owned());
    }
    let inner: String = serde_json::from_str(written).ok()?;
    serde_json::from_str::<Value>(&inner).is_ok_and(|value| value.is_object()).then_some(inner)
}

/// A text that is one call and nothing else: `{"name": …, "arguments": {…}}`, bare, fenced, or in tags.
fn call(text: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(inside(text)).ok()?;
    let map = value.as_object()?;
    let tool = name(map.get("name").or_else(|| map.get("tool"))?.as_str()?);
    let args = ["arguments", "args", "parameters"].iter().find_map(|key| map.get(*key))?;
    let known = map.keys().all(|key| matches!(key.as_str(), "name" | "tool" | "arguments" | "args" | "parameters" | "type" | "id"));
    (known && args.is_object() && TOOL_ORDER.contains(&tool)).then(|| (tool.to_owned(), args.to_string()))
}

/// The text without one code fence or one pair of tags around the whole of it.
fn inside(text: &str) -> &str {
    let plain = text.trim();
    let tagged = plain.strip_prefix("<tool_call>").map(|rest| rest.strip_suffix("</tool_call>").unwrap_or(rest));
    if let Some(inner) = tagged {
        return inner.trim();
    }
    let fenced = plain.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    fenced.and_then(|rest| rest.split_once('\n')).map_or(plain, |(_, body)| body.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: PartKind, tool: &str, text: &str) -> Part {
        Part { kind: kind as i32, text: text.to_owned(), call_id: String::new(), tool: tool.to_owned() }
    }

    #[test]
    fn clear_slips_in_calls_are_set_right() {
        for (tool, args, expected) in [
            ("functions.exec", "{}", "exec {}"),
            (" read ", "", "read {}"),
            ("exec", r#""{\"cmd\":\"ls\"}""#, r#"exec {"cmd":"ls"}"#),
            ("exec", r#"{"cmd":"ls"}"#, r#"exec {"cmd":"ls"}"#),
            ("fly", "{", "fly {"),
            ("exec", r#""ls""#, r#"exec "ls""#),
        ] {
            let mut parts = [part(PartKind::Call, tool, args)];
            assert!(!rescue(&mut parts));
            assert_eq!(format!("{} {}", parts[0].tool, parts[0].text), expected);
        }
    }

    #[test]
    fn an_answer_that_is_one_call_becomes_that_call() {
        let json = r#"{"name": "exec", "arguments": {"cmd": "ls"}}"#;
        for text in
            [json.to_owned(), format!("```json\n{json}\n```"), format!("<tool_call>\n{json}\n</tool_call>"), format!("<tool_call>{json}")]
        {
            let mut parts = [part(PartKind::Reasoning, "", "hm"), part(PartKind::Text, "", &text)];
            assert!(rescue(&mut parts), "{text}");
            assert_eq!((parts[1].tool.as_str(), parts[1].text.as_str()), ("exec", r#"{"cmd":"ls"}"#));
        }
        for text in [
            "I will call exec.".to_owned(),
            format!("Now:\n```json\n{json}\n```"),
            r#"{"name": "fly", "arguments": {}}"#.to_owned(),
            r#"{"name": "exec", "arguments": "ls"}"#.to_owned(),
            r#"{"name": "exec", "arguments": {}, "result": 1}"#.to_owned(),
        ] {
            let mut parts = [part(PartKind::Text, "", &text)];
            assert!(!rescue(&mut parts), "{text}");
            assert_eq!(parts[0].text, text);
        }
    }
}
