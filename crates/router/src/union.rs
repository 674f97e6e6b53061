//! Tool calls for models that have none: each answer is one JSON object, bound to a schema.
//!
//! The object is `{thought, tool, args}`; `thought` stands first because generation follows the
//! order of properties, and thinking after acting is of no use. Pure. Invariant: an object that is
//! not whole is never a call.

use crate::render::{Row, schema as parse_schema};
use genai::chat::ChatMessage;
use serde_json::{Map, Value, json};
use tinkerbell_core::event::{Part, PartKind};
use tinkerbell_core::tool::ToolSpec;

/// The choice that ends the turn with words instead of a call.
const FINAL: &str = "final_answer";

/// Longest thought, in characters: a cause in a sentence. Each further token is half a second on a slow
/// machine.
const THOUGHT: u32 = 120;

/// The schema of one answer: one alternative per tool, and one for words.
pub fn schema(tools: &[ToolSpec]) -> Value {
    let mut choices: Vec<Value> = tools.iter().map(|tool| choice(tool.name, parse_schema(tool.schema))).collect();
    choices.push(choice(
        FINAL,
        json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": false}),
    ));
    json!({"anyOf": choices})
}

fn choice(name: &str, args: Value) -> Value {
    json!({
        "type": "object",
        "properties": {"thought": {"type": "string", "maxLength": THOUGHT}, "tool": {"const": name}, "args": args},
        "required": ["thought", "tool", "args"],
        "additionalProperties": false,
    })
}

/// What the system text says about the tools; fixed for a set of tools.
pub fn instructions(tools: &[ToolSpec]) -> String {
    let mut text = String::from(
        "Answer with exactly one JSON object and nothing else:\n\
         {\"thought\": \"why this step\", \"tool\": …, \"args\": …}\n\
         Each answer is one step; its result comes back in the next message. Choose one of these:\n",
    );
    // Each tool stands in the form of the answer: in a mere list, small models take a tool's name
    // for a command to run.
    for tool in tools {
        text.push_str(&entry(tool.name, &arguments(tool.schema), &first_lines(tool.description)));
    }
    text.push_str(&entry(FINAL, "{answer: string}", "Ends the task and says what was done. Only when nothing is left to do."));
    text.trim_end().to_owned()
}

fn entry(name: &str, args: &str, description: &str) -> String {
    format!("- \"tool\": \"{name}\", \"args\": {args}\n  {description}\n")
}

/// The arguments, short: `{path: string, start?: integer}`.
fn arguments(schema: &str) -> String {
    let schema = parse_schema(schema);
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let one = |(name, field): (&String, &Value)| {
        let mark = if required.contains(&name.as_str()) { "" } else { "?" };
        format!("{name}{mark}: {}", kind(field))
    };
    format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn kind(field: &Value) -> String {
    if let Some(words) = field.get("enum").and_then(Value::as_array) {
        return words.iter().map(Value::to_string).collect::<Vec<_>>().join("|");
    }
    match field.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|"),
        _ => "any".to_owned(),
    }
}

fn first_lines(text: &str) -> String {
    const MOST: usize = 400;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain(['…']).collect() }
}

/// The past, as this form of answer would have written it.
pub fn history(rows: Vec<Row>) -> Vec<ChatMessage> {
    rows.into_iter()
        .map(|row| match row {
            Row::User(text) => ChatMessage::user(text),
            Row::Results(results) => {
                ChatMessage::user(results.into_iter().map(|(_, tool, text)| format!("[{tool}]\n{text}")).collect::<Vec<_>>().join("\n\n"))
            }
            Row::Assistant(parts, _) => ChatMessage::assistant(canonical(&parts)),
        })
        .collect()
}

fn canonical(parts: &[Part]) -> String {
    let words: String = parts.iter().filter(|part| part.kind == PartKind::Text as i32).map(|part| part.text.as_str()).collect();
    let calls: Vec<String> = parts
        .iter()
        .filter(|part| part.kind == PartKind::Call as i32)
        .enumerate()
        .map(|(at, part)| {
            object(if at == 0 { &words } else { "" }, &part.tool, &serde_json::from_str(&part.text).unwrap_or_else(|_| json!({})))
        })
        .collect();
    if calls.is_empty() { object("", FINAL, &json!({"answer": words})) } else { calls.join("\n") }
}

fn object(thought: &str, tool: &str, args: &Value) -> String {
    json!({"thought": thought, "tool": tool, "args": args}).to_string()
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A call, with the thought before it.
    Call {
        /// Why, in the model's words.
        thought: String,
        /// The tool.
        tool: String,
        /// Arguments as JSON text.
        args: String,
    },
    /// The last words.
    Words(String),
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str, tools: &[ToolSpec]) -> Result<Choice, String> {
    let body: Value = serde_json::from_str(unfence(text)).map_err(|error| format!("the answer is no JSON object ({error})"))?;
    let Some(object) = body.as_object() else { return Err("the answer is no JSON object".to_owned()) };
    let word = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let tool = word("tool");
    let empty = Map::new();
    let args = match object.get("args") {
        Some(Value::Object(args)) => args,
        None => &empty,
        Some(_) => return Err(format!("`args` for `{tool}` is no object")),
    };
    if tool == FINAL {
        let answer = args.get("answer").and_then(Value::as_str).unwrap_or_default();
        return Ok(Choice::Words(if answer.is_empty() { word("thought") } else { answer.to_owned() }));
    }
    let Some(spec) = tools.iter().find(|spec| spec.name == tool) else { return Err(format!("`{tool}` is no tool")) };
    let required = parse_schema(spec.schema);
    let missing = required
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|name| !args.contains_key(*name));
    match missing {
        Some(name) => Err(format!("`{tool}` lacks `{name}`")),
        None => Ok(Choice::Call { thought: word("thought"), tool, args: Value::Object(args.clone()).to_string() }),
    }
}

/// What stands in a code fence, when the whole text is one.
pub fn unfence(text: &str) -> &str {
    let text = text.trim();
    let Some(rest) = text.strip_prefix("```") else { return text };
    let Some(body) = rest.strip_suffix("```") else { return text };
    body.split_once('\n').map_or(body, |(tag, body)| if tag.trim().bytes().all(|b| b.is_ascii_alphanumeric()) { body } else { rest }).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &[ToolSpec] = &[
        ToolSpec {
            name: "read",
            description: "Reads a file.",
            schema: r#"{"type":"object","properties":{"path":{"type":"string"},"start":{"type":"integer"}},"required":["path"],"additionalProperties":false}"#,
        },
        ToolSpec {
            name: "plan",
            description: "Plans.",
            schema: r#"{"type":"object","properties":{"steps":{"type":"array"}},"required":["steps"]}"#,
        },
    ];

    #[test]
    fn thought_comes_first_in_every_choice() {
        let schema = schema(TOOLS);
        let choices = schema["anyOf"].as_array().unwrap();
        assert_eq!(choices.len(), 3);
        for choice in choices {
            let names: Vec<&String> = choice["properties"].as_object().unwrap().keys().collect();
            assert_eq!(names, ["thought", "tool", "args"]);
        }
        assert!(instructions(TOOLS).contains("- \"tool\": \"read\", \"args\": {path: string, start?: integer}\n  Reads a file."));
    }

    #[test]
    fn answers_are_checked_before_they_are_calls() {
        let call = |text: &str| parse(text, TOOLS);
        let read = Choice::Call { thought: "look".to_owned(), tool: "read".to_owned(), args: r#"{"path":"a","start":1}"#.to_owned() };
        assert_eq!(call(r#"{"thought":"look","tool":"read","args":{"path":"a","start":1}}"#), Ok(read.clone()));
        assert_eq!(call("```json\n{\"thought\":\"look\",\"tool\":\"read\",\"args\":{\"path\":\"a\",\"start\":1}}\n```"), Ok(read));
        assert_eq!(call(r#"{"thought":"","tool":"final_answer","args":{"answer":"done"}}"#), Ok(Choice::Words("done".to_owned())));
        for (text, why) in [
            (r#"{"thought":"look","tool":"read","args":{"pa"#, "no JSON object"),
            (r#"["read"]"#, "no JSON object"),
            (r#"{"tool":"rm","args":{}}"#, "`rm` is no tool"),
            (r#"{"tool":"read","args":{}}"#, "`read` lacks `path`"),
            (r#"{"tool":"read","args":"a"}"#, "`args` for `read` is no object"),
        ] {
            let error = call(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_past_is_written_as_it_would_be_answered() {
        let part = |kind: PartKind, text: &str, tool: &str| Part {
            kind: kind as i32,
            text: text.to_owned(),
            call_id: "c".to_owned(),
            tool: tool.to_owned(),
        };
        let call = canonical(&[part(PartKind::Text, "look", ""), part(PartKind::Call, r#"{"path":"a"}"#, "read")]);
        assert_eq!(call, r#"{"thought":"look","tool":"read","args":{"path":"a"}}"#);
        assert_eq!(
            parse(&call, TOOLS),
            Ok(Choice::Call { thought: "look".to_owned(), tool: "read".to_owned(), args: r#"{"path":"a"}"#.to_owned() })
        );
        assert_eq!(canonical(&[part(PartKind::Text, "done", "")]), r#"{"thought":"","tool":"final_answer","args":{"answer":"done"}}"#);
    }
}
