//! Derives that make a type a format stand only in modules named `format`, `wire` or `options`.
//!
//! A type that crosses a disk or a socket is a promise to every later version; the name of its
//! module says so. Attributes like `#[serde(…)]` follow the derive and need no rule of their own.

use super::source::{Source, inline_modules};
use super::{File, Finding, is_own_rust, is_test_file};

/// Derives of serde, schemars and prost.
const DERIVES: &[&str] = &["Serialize", "Deserialize", "JsonSchema", "Message", "Oneof", "Enumeration"];
const MODULES: &[&str] = &["format", "wire", "options"];

/// Checks every file of ours that is no test.
pub fn check(files: &[File]) -> Vec<Finding> {
    let own = files.iter().filter(|file| is_own_rust(&file.path) && !is_test_file(&file.path));
    own.filter(|file| !is_format_path(&file.path)).flat_map(check_file).collect()
}

fn is_format_path(path: &str) -> bool {
    path.split('/').any(|part| MODULES.contains(&part.strip_suffix(".rs").unwrap_or(part)))
}

fn check_file(file: &File) -> Vec<Finding> {
    let code = Source::scan(&file.text).code();
    let modules = inline_modules(&code);
    let allowed = |line: usize| {
        let inside = modules.iter().filter(|module| module.lines.contains(&line));
        inside.into_iter().any(|module| module.is_test || MODULES.contains(&module.name.as_str()))
    };
    let mut found = Vec::new();
    for (line, name) in derives(&code) {
        if !allowed(line) {
            let message = format!("derive of `{name}`: move the type to a module named format, wire or options");
            found.push(Finding::new("derive-in-format", &file.path, line + 1, message));
        }
    }
    found
}

/// Returns line (from 0) and name of every derive that makes a format.
fn derives(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, opening) in code.match_indices("derive(") {
        let list = code.get(at + opening.len()..).and_then(|rest| rest.split_once(')')).map_or("", |(list, _)| list);
        let line = code.get(..at).map_or(0, |before| before.matches('\n').count());
        let names = list.split(',').map(|item| item.trim().rsplit("::").next().unwrap_or_default());
        found.extend(names.filter(|name| DERIVES.contains(name)).map(|name| (line, name)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::check;

    #[test]
    fn derives_of_formats_stand_in_format_modules() {
        let derive = "#[derive(Debug,\n    serde::Serialize)]\nstruct A;\n";
        let inline = format!("mod wire {{\n{derive}}}\n#[cfg(test)]\nmod tests {{\n{derive}}}\n");
        let found = check(&[
            file("crates/a/src/format.rs", derive),
            file("crates/a/src/wire/task.rs", derive),
            file("crates/a/src/options.rs", derive),
            file("crates/a/src/inline.rs", &inline),
            file("crates/a/tests/it.rs", derive),
            file("crates/a/src/plain.rs", "#[derive(Debug, Clone)]\n// derive(Serialize)\nstruct A;\n"),
            file("crates/a/src/bad.rs", derive),
            file("crates/a/src/also.rs", "\n#[derive(Clone, prost::Message)]\nstruct A;\n"),
        ]);
        assert_eq!(lines(&found), ["crates/a/src/bad.rs:1 derive-in-format", "crates/a/src/also.rs:2 derive-in-format"]);
    }
}
