//! The tools that need no world: `plan` and `ask`.
//!
//! The driver runs them: a plan is recorded with the result, a question goes to a person. Invariant:
//! unknown arguments are errors that name the field, as with every other tool.

use serde_json::Value;
use tinkerbell_core::event::PlanStep;
use tinkerbell_core::tool::ToolSpec;

/// Most steps of a plan.
const STEPS: usize = 50;
/// Longest text of a step, question or option, in characters.
const CHARS: usize = 2_000;
/// Longest option in characters: as much as a terminal shows of one, because choosing it says all of it.
const OPTION_CHARS: usize = 160;

/// The plan tool as the model sees it.
pub const PLAN: ToolSpec = ToolSpec {
    name: "plan",
    description: "Records the whole plan, replacing the one before. Keep exactly one step active while you work.",
    schema: r#"{"type":"object","properties":{"steps":{"type":"array","items":{"type":"object","properties":{"text":{"type":"string"},"status":{"type":"string","enum":["pending","active","done"]}},"required":["text","status"],"additionalProperties":false}}},"required":["steps"],"additionalProperties":false}"#,
};

/// The ask tool as the model sees it.
pub const ASK: ToolSpec = ToolSpec {
    name: "ask",
    description: "Asks the user one concrete question and waits for the answer. Only for choices that are the user's and that the repository cannot answer.",
    schema: r#"{"type":"object","properties":{"question":{"type":"string"},"options":{"type":"array","items":{"type":"string"}}},"required":["question"],"additionalProperties":false}"#,
};

/// Reads the arguments of `plan`.
pub fn plan(args: &str) -> Result<Vec<PlanStep>, String> {
    let value = object(args, &["steps"])?;
    let steps = value.get("steps").and_then(Value::as_array).ok_or("`steps` must be a list of {text, status}")?;
    if steps.is_empty() || steps.len() > STEPS {
        return Err(format!("a plan has 1 to {STEPS} steps, not {}", steps.len()));
    }
    let steps: Vec<PlanStep> = steps.iter().map(step).collect::<Result<_, _>>()?;
    match steps.iter().filter(|step| step.status == "active").count() {
        0 | 1 => Ok(steps),
        more => Err(format!("{more} steps are active; keep one active")),
    }
}

fn step(value: &Value) -> Result<PlanStep, String> {
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let text = field("text").ok_or("each step needs a `text`")?;
    let status = field("status").ok_or("each step needs a `status`: pending, active or done")?;
    if !matches!(status, "pending" | "active" | "done") {
        return Err(format!("`{status}` is no status; use pending, active or done"));
    }
    Ok(PlanStep { text: text.chars().take(CHARS).collect(), status: status.to_owned() })
}

/// Reads the arguments of `ask`: the question and its options.
pub fn ask(args: &str) -> Result<(String, Vec<String>), String> {
    let value = object(args, &["question", "options"])?;
    let short = |text: &str| text.trim().chars().take(CHARS).collect::<String>();
    let question = value.get("question").and_then(Value::as_str).map(short).filter(|text| !text.is_empty());
    let question = question.ok_or("`question` must be a text")?;
    let options = match value.get("options") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => {
            let options: Vec<String> = items.iter().filter_map(Value::as_str).map(short).collect();
            if options.iter().any(|option| option.chars().count() > OPTION_CHARS) {
                return Err(format!("an option has at most {OPTION_CHARS} characters; put the explanation into the question"));
            }
            options
        }
        Some(_) => return Err("`options` must be a list of texts".to_owned()),
    };
    Ok((question, options))
}

/// The arguments as an object that has no keys but `known`.
pub fn object(args: &str, known: &[&str]) -> Result<Value, String> {
    let value: Value = serde_json::from_str(args).map_err(|error| format!("the arguments are no valid JSON: {error}"))?;
    let map = value.as_object().ok_or("the arguments must be a JSON object")?;
    if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("unknown argument `{key}`; known: {}", known.join(", ")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        for (args, expected) in [
            (r#"{"steps":[{"text":"a","status":"active"}]}"#, ""),
            (r#"{"steps":[]}"#, "1 to 50"),
            (r#"{"steps":[{"text":"a","status":"doing"}]}"#, "`doing` is no status"),
            (r#"{"steps":[{"text":"a","status":"active"},{"text":"b","status":"active"}]}"#, "2 steps are active"),
            (r#"{"stops":[]}"#, "unknown argument `stops`"),
            ("[]", "must be a JSON object"),
            ("{", "no valid JSON"),
        ] {
            let error = plan(args).err().unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{args}: {error}");
        }
        assert_eq!(ask(r#"{"question":" Which? ","options":["a","b"]}"#), Ok(("Which?".to_owned(), vec!["a".to_owned(), "b".to_owned()])));
        assert!(ask(r#"{"question":""}"#).is_err());
    }

    #[test]
    fn schemas_are_valid_json() {
        for spec in [PLAN, ASK] {
            assert!(serde_json::from_str::<Value>(spec.schema).is_ok(), "{}", spec.name);
        }
    }
}
