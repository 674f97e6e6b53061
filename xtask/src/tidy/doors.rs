//! One door per outside library, and the other laws about what a crate may reach for: `core` stays
//! pure, only the roof reads the environment, only the scheduler writes records, `unsafe` stands in
//! few places, ports stay small.

use super::source::{Source, without_tests};
use super::{File, Finding, crate_of, is_own_rust, is_test_file, map};

/// Everything that `core` may use besides `std`.
const CORE: &[&str] = &["futures-core", "bytes", "thiserror", "prost", "serde", "schemars"];

/// Libraries without a door: small, stable, or so basic that a wrapper would only hide them. Where
/// derives may stand is another rule's business.
const ANYWHERE: &[&str] = &[
    "base64",
    "blake3",
    "bytes",
    "futures-core",
    "futures-util",
    "jiff",
    "libc",
    "prost",
    "rustix",
    "schemars",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tracing",
    "zeroize",
];

/// Libraries with a door: only these crates may use them.
const DOORS: &[(&str, &[&str])] = &[
    ("aho-corasick", &["secret"]),
    ("annotate-snippets", &["cli", "tinkerbell"]),
    ("anstream", &["cli"]),
    ("anstyle", &["cli"]),
    ("anyhow", &["tinkerbell"]),
    ("axum", &["api"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("crc32c", &["wal", "executor", "router", "blobs", "security"]),
    ("crypto", &["wal", "blobs", "security"]),
    ("dialoguer", &["cli"]),
    ("etcetera", &["tinkerbell"]),
    ("genai", &["router"]),
    ("getrandom", &["tinkerbell"]),
    ("gix", &["canvas"]),
    ("globset", &["canvas"]),
    ("grep-matcher", &["canvas"]),
    ("grep-regex", &["canvas"]),
    ("grep-searcher", &["canvas"]),
    ("http-body-util", &["api", "egress"]),
    ("hyper", &["api", "egress"]),
    ("hyper-util", &["api", "egress"]),
    ("idna", &["egress"]),
    ("ignore", &["canvas"]),
    ("indicatif", &["cli"]),
    ("landlock", &["executor"]),
    ("listenfd", &["tinkerbell"]),
    ("notify", &["tinkerbell"]),
    ("rcgen", &["egress"]),
    ("reqwest", &["router"]),
    ("rustls", &["tinkerbell", "egress"]),
    ("rustls-native-certs", &["egress"]),
    ("seccompiler", &["executor"]),
    ("sd-notify", &["tinkerbell"]),
    ("similar", &["canvas"]),
    ("tempfile", &["testkit"]),
    ("tokio-rustls", &["egress"]),
    ("toml", &["tinkerbell", "security"]),
    ("toml_edit", &["tinkerbell"]),
    ("tower", &["api"]),
    ("tracing-subscriber", &["tinkerbell"]),
];

/// Where `unsafe` may stand; each block says why it is sound.
const UNSAFE: &[&str] = &["crates/executor/", "crates/wal/", "xtask/src/bench/child.rs"];

/// Parts of `std` that `core` may not name.
const IMPURE: &[&str] = &["fs", "net", "process", "env", "thread"];

/// Ways to read the environment of the process.
const ENVIRONMENT: &[&str] = &["env::var", "env::var_os", "env::vars", "env::vars_os"];

/// Who may make records for the journal: the language that defines them, the journal, its one
/// writer, and test equipment.
const WRITERS: &[&str] = &["core", "wal", "scheduler", "testkit", "sim"];

const PORT_METHODS: usize = 7;

/// Checks manifests and sources.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut found: Vec<Finding> = map::manifests(files).flat_map(|(name, file)| libraries(name, file)).collect();
    for file in files.iter().filter(|file| is_own_rust(&file.path) && !is_test_file(&file.path)) {
        let code = Source::scan(&file.text).code();
        found.extend(purity(file, &code));
        found.extend(environment(file, &code));
        found.extend(single_writer(file, &code));
        found.extend(unsafe_places(file, &code));
        found.extend(port_sizes(file, &code));
    }
    found
}

fn libraries(name: &str, file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for dependency in map::dependencies(&file.text) {
        let library = dependency.package.as_str();
        if library == "tinkerbell" || library.starts_with("tinkerbell-") {
            continue;
        }
        let why = match DOORS.iter().find(|(known, _)| *known == library) {
            _ if name == "core" && CORE.contains(&library) => continue,
            _ if name == "core" => "`core` has no I/O and knows only its few libraries".to_owned(),
            Some((_, crates)) if crates.contains(&name) => continue,
            Some((_, crates)) => format!("only {} may use it; go through a port", crates.join(", ")),
            None if ANYWHERE.contains(&library) => continue,
            None => "it is on no list; a new library needs an ADR and a line in xtask/src/tidy/doors.rs".to_owned(),
        };
        found.push(Finding::new("one-door", &file.path, dependency.line, format!("library `{library}`: {why}")));
    }
    found
}

fn purity(file: &File, code: &str) -> Vec<Finding> {
    if crate_of(&file.path) != Some("core") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, text) in without_tests(code) {
        for part in IMPURE.iter().filter(|part| names_std(text, part)) {
            let message = format!("`core` may not touch `std::{part}`: no I/O on the ground floor");
            found.push(Finding::new("core-is-pure", &file.path, line, message));
        }
    }
    found
}

/// Whether a line names `std::part`, alone or in a braced `use std::{…}`.
fn names_std(line: &str, part: &str) -> bool {
    if has_word(line, &format!("std::{part}")) {
        return true;
    }
    line.split_once("std::{").is_some_and(|(_, list)| has_word(list, part))
}

fn environment(file: &File, code: &str) -> Vec<Finding> {
    // Cargo speaks to build scripts through the environment and in no other way.
    let is_build_script = file.path.ends_with("/build.rs");
    if is_build_script || !crate_of(&file.path).is_some_and(|name| name != "tinkerbell" && name != "testkit") {
        return Vec::new();
    }
    let reads = |text: &str| ENVIRONMENT.iter().any(|call| has_word(text, call));
    let lines = without_tests(code).into_iter().filter(|(_, text)| reads(text));
    let message = "only the roof reads the environment; take the value as a parameter or option";
    lines.map(|(line, _)| Finding::new("environment", &file.path, line, message)).collect()
}

fn single_writer(file: &File, code: &str) -> Vec<Finding> {
    if crate_of(&file.path).is_none_or(|name| WRITERS.contains(&name)) {
        return Vec::new();
    }
    let lines = without_tests(code).into_iter().filter(|(_, text)| has_word(text, "NewRecord"));
    let message = "only the scheduler appends to the journal; return facts instead";
    lines.map(|(line, _)| Finding::new("single-writer", &file.path, line, message)).collect()
}

fn unsafe_places(file: &File, code: &str) -> Vec<Finding> {
    if UNSAFE.iter().any(|place| file.path.starts_with(place)) {
        return Vec::new();
    }
    let lines = code.lines().enumerate().filter(|(_, text)| has_word(text, "unsafe"));
    let message = "`unsafe` stands only in executor and wal; use a safe wrapper";
    lines.map(|(index, _)| Finding::new("unsafe", &file.path, index + 1, message)).collect()
}

/// Ports are the public traits under `core/src/port`.
fn port_sizes(file: &File, code: &str) -> Vec<Finding> {
    if !(file.path.starts_with("crates/core/src/port/") || file.path == "crates/core/src/port.rs") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut port: Option<(usize, &str, usize)> = None;
    let close = |port: Option<(usize, &str, usize)>, found: &mut Vec<Finding>| {
        if let Some((line, name, methods)) = port.filter(|(_, _, methods)| *methods > PORT_METHODS) {
            let message = format!("port `{name}` has {methods} methods; {PORT_METHODS} is the most, split it");
            found.push(Finding::new("port-size", &file.path, line, message));
        }
    };
    for (line, text) in without_tests(code) {
        if let Some(rest) = text.strip_prefix("pub trait ") {
            close(port.take(), &mut found);
            let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len());
            port = Some((line, rest.get(..end).unwrap_or(rest), 0));
        } else if text.starts_with('}') {
            close(port.take(), &mut found);
        } else if let Some((_, _, methods)) = port.as_mut().filter(|_| text.starts_with("    fn ")) {
            *methods += 1;
        }
    }
    close(port, &mut found);
    found
}

/// Whether a word stands in a line with no letter, digit or `_` on either side.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |sign: char| sign.is_alphanumeric() || sign == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::{check, has_word};

    fn rules(path: &str, text: &str) -> Vec<String> {
        lines(&check(&[file(path, text)])).into_iter().map(|line| line.replace(path, "")).collect()
    }

    #[test]
    fn each_outside_library_has_its_door() {
        let check = |name: &str, library: &str, expected: &[&str]| {
            let text = format!("[dependencies]\n{library}.workspace = true\n");
            assert_eq!(rules(&format!("crates/{name}/Cargo.toml"), &text), expected, "{name} {library}");
        };
        check("router", "genai", &[]);
        check("agent", "genai", &[":2 one-door"]);
        check("canvas", "gix", &[]);
        check("executor", "gix", &[":2 one-door"]);
        check("wal", "tokio", &[]);
        check("core", "tokio", &[":2 one-door"]);
        check("core", "prost", &[]);
        check("wal", "left-pad", &[":2 one-door"]);
    }

    #[test]
    fn core_touches_nothing() {
        let path = "crates/core/src/a.rs";
        assert_eq!(rules(path, "use std::fs;\nuse std::{fmt, process};\n"), [":1 core-is-pure", ":2 core-is-pure"]);
        assert!(rules(path, "use std::fmt; // not std::fs\nlet a = \"std::env\";\n").is_empty());
        assert!(rules("crates/wal/src/a.rs", "use std::fs;\n").is_empty());
    }

    #[test]
    fn only_the_roof_reads_the_environment() {
        let text = "fn a() { std::env::var_os(\"HOME\"); }\n#[cfg(test)]\nmod tests {\n    fn b() { env::var(\"X\"); }\n}\n";
        assert_eq!(rules("crates/canvas/src/a.rs", text), [":1 environment"]);
        assert!(rules("crates/tinkerbell/src/a.rs", text).is_empty());
        assert!(rules("crates/canvas/tests/it.rs", text).is_empty());
    }

    #[test]
    fn only_the_scheduler_writes_records() {
        let text = "use tinkerbell_core::port::NewRecord;\n";
        assert_eq!(rules("crates/agent/src/a.rs", text), [":1 single-writer"]);
        assert!(rules("crates/scheduler/src/a.rs", text).is_empty());
    }

    #[test]
    fn unsafe_stands_in_few_places() {
        let text = "let a = unsafe { b() };\n#![allow(unsafe_code)]\n";
        assert_eq!(rules("crates/canvas/src/a.rs", text), [":1 unsafe"]);
        assert!(rules("crates/wal/src/a.rs", text).is_empty());
    }

    #[test]
    fn ports_have_at_most_seven_methods() {
        let port = |count: usize| {
            let methods: String = (0..count).map(|index| format!("    fn m{index}(&self);\n")).collect();
            format!("pub trait Small {{\n    fn a(&self);\n}}\npub trait Port: Send {{\n{methods}}}\n")
        };
        assert!(rules("crates/core/src/port/x.rs", &port(7)).is_empty());
        assert_eq!(rules("crates/core/src/port/x.rs", &port(8)), [":4 port-size"]);
    }

    #[test]
    fn words_end_at_signs() {
        assert!(has_word("a unsafe{", "unsafe") && !has_word("unsafe_code", "unsafe"));
        assert!(!has_word("env::vary", "env::var"));
    }
}
