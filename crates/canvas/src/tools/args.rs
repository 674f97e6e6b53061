//! Arguments of a call: a flat JSON object with known keys.
//!
//! Read by hand, not by a derive, because the errors must name the key and the known ones.
//! Invariant: an unknown key is never ignored; the model meant something by it.

use serde_json::{Map, Value};

/// The arguments of one call.
pub struct Args {
    tool: &'static str,
    known: &'static [&'static str],
    map: Map<String, Value>,
}

impl Args {
    /// Reads them.
    pub fn parse(tool: &'static str, known: &'static [&'static str], text: &str) -> Result<Self, String> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let map = match serde_json::from_str(text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Err(format!("{tool}: the arguments must be one JSON object with {}", known.join(", "))),
            Err(e) => return Err(format!("{tool}: the arguments are not JSON ({e}); send one object with {}", known.join(", "))),
        };
        match map.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(format!("{tool}: unknown argument `{key}`; known: {}", known.join(", "))),
            None => Ok(Self { tool, known, map }),
        }
    }

    fn wrong(&self, key: &str, what: &str) -> String {
        format!("{}: argument `{key}` {what}; known: {}", self.tool, self.known.join(", "))
    }

    /// A text that must be there.
    pub fn text(&self, key: &str) -> Result<String, String> {
        self.text_if(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A text that may be left out.
    pub fn text_if(&self, key: &str) -> Result<Option<String>, String> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "must be a string")),
        }
    }

    /// A number from 1 on that may be left out. Small models send it as text: "12".
    pub fn number_if(&self, key: &str) -> Result<Option<usize>, String> {
        let number = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(n)) => n.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let number = number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        number.map(Some).ok_or_else(|| self.wrong(key, "must be a whole number from 1 on"))
    }
}

/// The workspace paths that a path in a call may name, for a guard that sees no workspace.
///
/// The tree's own path is not known here. For an absolute path every tail is given, so that a
/// protected name among them is never missed.
pub fn planned(paths: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for path in paths {
        let clean: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let tails = if path.starts_with('/') { clean.len() } else { 1 };
        all.extend((0..tails).map(|skip| clean.iter().skip(skip).copied().collect::<Vec<_>>().join("/")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["path", "start"];

    #[test]
    fn wrong_arguments_are_named() {
        let check = |text: &str, want: &str| {
            let got = Args::parse("read", KNOWN, text).and_then(|a| Ok((a.text("path")?, a.number_if("start")?)));
            match got {
                Ok(got) => assert_eq!(format!("{got:?}"), want, "{text}"),
                Err(e) => assert!(e.contains(want), "{e}"),
            }
        };
        check(r#"{"path":"a","start":3}"#, r#"("a", Some(3))"#);
        check(r#"{"path":"a","start":"3"}"#, r#"("a", Some(3))"#);
        check(r#"{"path":"a","start":null}"#, r#"("a", None)"#);
        check(r#"{"path":"a","strat":1}"#, "unknown argument `strat`; known: path, start");
        check(r#"{"start":1}"#, "argument `path` is missing");
        check("", "argument `path` is missing");
        check(r#"{"path":1}"#, "argument `path` must be a string");
        check(r#"{"path":"a","start":0}"#, "must be a whole number from 1 on");
        check(r#"{"path":"a","start":-1}"#, "must be a whole number from 1 on");
        check(r#"{"path":"#, "not JSON");
        check("[]", "one JSON object");
    }

    #[test]
    fn a_plan_names_every_path_that_may_be_meant() {
        assert_eq!(planned(&["./src//a"]), ["src/a"]);
        assert_eq!(planned(&["/t/x/.ci/run"]), ["t/x/.ci/run", "x/.ci/run", ".ci/run", "run"]);
    }
}
