//! The survey of a fresh workspace: rules, environment, verification command.
//!
//! Reads small files of the task's tree once, when the workspace is made; what it finds is recorded
//! and never read again. Invariant: nothing outside the tree is read, whatever links a repository
//! holds, because all of it goes to a model.

use crate::options::Project;
use std::fs;
use std::path::{Path, PathBuf};

/// Most bytes of rules.
const RULES_BYTES: usize = 32 * 1024;
/// Most bytes read of a manifest.
const MANIFEST_BYTES: usize = 256 * 1024;
/// Most entries of the root that are listed.
const LISTED: usize = 60;

/// Where a check comes from that the project's own, trusted file names.
pub const PROJECT: &str = "project";

/// Whether somebody chose the check, other than one that was found in a manifest.
pub fn is_agreed(origin: &str) -> bool {
    matches!(origin, "given" | "config" | PROJECT)
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Texts of AGENTS.md and kin, outermost first.
    pub rules: String,
    /// Facts about system and repository.
    pub environment: String,
    /// The verification command; empty when none was found.
    pub verify: String,
    /// Where it came from.
    pub origin: String,
}

/// Surveys a tree. Blocking; `given` is the user's own command, `configured` the configuration's.
pub fn survey(tree: &Path, subdir: &str, given: Option<&str>, configured: (&Project, Option<&str>)) -> Survey {
    let (project, user) = configured;
    let picked = given.map(|command| (command.to_owned(), "given".to_owned()));
    let picked = picked.or_else(|| project.verify.clone().map(|command| (command, PROJECT.to_owned())));
    let picked = picked.or_else(|| user.map(|command| (command.to_owned(), "config".to_owned())));
    let (verify, origin) = picked.or_else(|| detect(tree, subdir)).unwrap_or_default();
    Survey { rules: rules(tree, subdir), environment: environment(tree, subdir), verify, origin }
}

/// The rules that hold in `subdir`: from the root to the nearest; the nearest is kept when all is too long.
fn rules(tree: &Path, subdir: &str) -> String {
    let mut room = RULES_BYTES;
    let mut texts = Vec::new();
    let mut places = vec![String::new()];
    for part in subdir.split('/').filter(|part| !part.is_empty()) {
        let last = places.last().cloned().unwrap_or_default();
        places.push(if last.is_empty() { part.to_owned() } else { format!("{last}/{part}") });
    }
    for place in places.iter().rev() {
        let names = ["AGENTS.md", "CLAUDE.md", "GEMINI.md"];
        let found = names.iter().find_map(|name| text(tree, &join(place, name), RULES_BYTES).map(|text| (join(place, name), text)));
        let Some((name, text)) = found else { continue };
        let title = format!("## {name}\n");
        if room <= title.len() {
            break;
        }
        let kept = text.get(..text.floor_char_boundary(room - title.len())).unwrap_or_default();
        room -= title.len() + kept.len();
        texts.push(format!("{title}{}\n", kept.trim_end()));
    }
    texts.reverse();
    texts.concat()
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") }
}

fn environment(tree: &Path, subdir: &str) -> String {
    let mut names: Vec<String> = entries(tree).into_iter().map(|(name, is_dir)| if is_dir { name + "/" } else { name }).collect();
    names.sort();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let place = if subdir.is_empty() { String::new() } else { format!("The task was given in the directory `{subdir}`.\n") };
    format!(
        "System: {} {}, shell: /bin/sh. Paths are relative to the repository's root, where commands start.\n{place}Files at the root: {}{rest}\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
        names.join(", ")
    )
}

/// Names in a directory, with whether each is a directory; `.git` is left out.
fn entries(dir: &Path) -> Vec<(String, bool)> {
    let Ok(read) = fs::read_dir(dir) else { return Vec::new() };
    let named = read.filter_map(Result::ok).map(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        (entry.file_name().to_string_lossy().into_owned(), is_dir)
    });
    named.filter(|(name, _)| name != ".git").collect()
}

/// A command that a manifest suggests: in the task's directory first, then at the root.
fn detect(tree: &Path, subdir: &str) -> Option<(String, String)> {
    if !subdir.is_empty()
        && let Some((command, origin)) = detect_in(tree, subdir)
    {
        return Some((format!("cd '{}' && {command}", subdir.replace('\'', r"'\''")), format!("{subdir}/{origin}")));
    }
    detect_in(tree, "")
}

fn detect_in(tree: &Path, place: &str) -> Option<(String, String)> {
    let read = |name: &str| text(tree, &join(place, name), MANIFEST_BYTES);
    let found = |command: &str, origin: &str| Some((command.to_owned(), origin.to_owned()));
    if read("Cargo.toml").is_some() {
        return found("cargo test", "Cargo.toml");
    }
    if read("package.json").is_some_and(|text| has_test_script(&text)) {
        return found("npm test", "package.json");
    }
    if read("go.mod").is_some() {
        return found("go test ./...", "go.mod");
    }
    if let Some(origin) = pytest(&read) {
        return found("python3 -m pytest -q", origin);
    }
    if let Some((command, origin)) = unittest(tree, place) {
        return found(command, &origin);
    }
    for name in ["Makefile", "makefile", "GNUmakefile"] {
        if read(name).is_some_and(|text| text.lines().any(|line| line.starts_with("test:"))) {
            return found("make test", name);
        }
    }
    let scripts = ["tests/run.sh", "test.sh", "run-tests.sh", "run_tests.sh"];
    scripts.iter().find(|name| read(name).is_some()).map(|name| (format!("sh {name}"), (*name).to_owned()))
}

fn has_test_script(manifest: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(manifest).unwrap_or_default();
    let script = value.get("scripts").and_then(|scripts| scripts.get("test")).and_then(|script| script.as_str());
    script.is_some_and(|script| !script.trim().is_empty() && !script.contains("no test specified"))
}

fn pytest(read: &dyn Fn(&str) -> Option<String>) -> Option<&'static str> {
    let plain = ["pytest.ini", "conftest.py", "tests/conftest.py"];
    let mentions = ["pyproject.toml", "tox.ini", "setup.cfg", "requirements-dev.txt", "requirements.txt"];
    let by_name = plain.into_iter().find(|name| read(name).is_some());
    by_name.or_else(|| mentions.into_iter().find(|name| read(name).is_some_and(|text| text.contains("pytest"))))
}

/// Python tests that need the standard library alone.
fn unittest(tree: &Path, place: &str) -> Option<(&'static str, String)> {
    for (dir, command) in [("", "python3 -m unittest -q"), ("tests", "python3 -m unittest discover -q -s tests -t .")] {
        let at = if dir.is_empty() { place.to_owned() } else { join(place, dir) };
        let mut names: Vec<String> = entries(&tree.join(&at)).into_iter().map(|(name, _)| name).collect();
        names.sort();
        let is_test = |name: &&String| name.starts_with("test") && Path::new(name.as_str()).extension().is_some_and(|ext| ext == "py");
        let path = names.iter().filter(is_test).take(LISTED).map(|name| join(&at, name));
        let mut with = path.filter_map(|path| text(tree, &path, MANIFEST_BYTES).map(|text| (path, text)));
        if let Some((path, _)) = with.find(|(_, text)| text.contains("unittest")) {
            // `discover -t .` needs the directory to be a package; plain `-s` works without.
            let packaged = dir.is_empty() || text(tree, &join(&at, "__init__.py"), MANIFEST_BYTES).is_some();
            return Some((if packaged { command } else { "python3 -m unittest discover -q -s tests" }, path));
        }
    }
    None
}

/// A regular file's text below the tree, cut to `max` bytes; `None` for links that lead outside.
fn text(tree: &Path, path: &str, max: usize) -> Option<String> {
    let root: PathBuf = tree.canonicalize().ok()?;
    let real = root.join(path).canonicalize().ok()?;
    if !real.starts_with(&root) || !fs::metadata(&real).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    std::io::Read::read_to_end(&mut std::io::Read::take(fs::File::open(real).ok()?, limit), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_verification_command_is_found_by_manifest() {
        for (files, subdir, expected) in [
            (vec![("Cargo.toml", "")], "", "cargo test"),
            (vec![("package.json", r#"{"scripts":{"test":"node t.js"}}"#)], "", "npm test"),
            (vec![("package.json", r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#)], "", ""),
            (vec![("go.mod", "module x")], "", "go test ./..."),
            (vec![("pyproject.toml", "[tool.pytest.ini_options]")], "", "python3 -m pytest -q"),
            (vec![("test_a.py", "import unittest")], "", "python3 -m unittest -q"),
            (vec![("tests/test_a.py", "import unittest")], "", "python3 -m unittest discover -q -s tests"),
            (vec![("Makefile", "all:\n\ntest: all\n")], "", "make test"),
            (vec![("Makefile", "all:\n")], "", ""),
            (vec![("tests/run.sh", "")], "", "sh tests/run.sh"),
            (vec![("a b/Cargo.toml", ""), ("go.mod", "")], "a b", "cd 'a b' && cargo test"),
            (vec![("a/x", ""), ("go.mod", "")], "a", "go test ./..."),
        ] {
            let dir = tree(&files);
            let found = survey(dir.path(), subdir, None, (&Project::default(), None));
            assert_eq!(found.verify, expected, "{files:?}");
        }
    }

    #[test]
    fn a_given_command_wins_over_configuration_and_manifest() {
        let dir = tree(&[("Cargo.toml", "")]);
        let project = Project { verify: Some("p".to_owned()), ..Project::default() };
        let origin = |given, project: &Project, user| {
            let found = survey(dir.path(), "", given, (project, user));
            format!("{} {}", found.verify, found.origin)
        };
        assert_eq!(origin(Some("g"), &project, Some("u")), "g given");
        assert_eq!(origin(None, &project, Some("u")), "p project");
        assert_eq!(origin(None, &Project::default(), Some("u")), "u config");
        assert_eq!(origin(None, &Project::default(), None), "cargo test Cargo.toml");
    }

    #[test]
    fn rules_go_from_the_root_to_the_nearest_and_are_capped() {
        let dir = tree(&[("AGENTS.md", "root rule"), ("CLAUDE.md", "not read"), ("a/GEMINI.md", "near rule")]);
        assert_eq!(rules(dir.path(), "a/b"), "## AGENTS.md\nroot rule\n## a/GEMINI.md\nnear rule\n");
        let long = tree(&[("AGENTS.md", &"x".repeat(40_000)), ("a/AGENTS.md", &"y".repeat(20_000))]);
        let text = rules(long.path(), "a");
        assert!(text.len() <= RULES_BYTES + 8 && text.matches('y').count() == 20_000, "{}", text.len());
    }

    #[test]
    fn links_out_of_the_tree_are_not_read() {
        let outside = tree(&[("secret", "s3cret")]);
        let dir = tree(&[("x", "")]);
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("AGENTS.md")).unwrap();
        assert_eq!(rules(dir.path(), ""), "");
    }

    #[test]
    fn the_environment_is_the_same_for_the_same_tree() {
        let (one, two) = (tree(&[("b", ""), ("a/x", ""), (".git", "gitdir: /one")]), tree(&[("a/x", ""), ("b", "")]));
        assert_eq!(environment(one.path(), ""), environment(two.path(), ""));
        assert!(environment(one.path(), "").contains("a/, b"));
    }
}
