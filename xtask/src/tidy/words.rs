//! Words that no file of the project may hold: addresses of package registries, and paths of the
//! machine that somebody happened to work on.
//!
//! Packages are named by name; whoever builds behind a mirror must not find another host in our
//! files. The words stand here in halves, so that this file passes its own rule.

use super::{File, Finding};

const HOSTS: [&str; 5] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("files.pythonhosted", ".org"),
];
/// Only as the start of a path: `/home/me/work/x` is nobody's machine.
const PATHS: [&str; 1] = [concat!("/wo", "rk/")];
const NAMES: [&str; 1] = [concat!(".lib", "rary")];

/// Files that can not do without such a word: cargo writes the registry's address into its lock file, and
/// which hosts a preset of the way out stands for has to be said, once in code and once for users.
const EXEMPT: [&str; 4] = ["Cargo.lock", "fuzz/Cargo.lock", "crates/egress/src/rules/presets.rs", "docs/egress.md"];

/// Checks every file.
pub fn check(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| !EXEMPT.contains(&file.path.as_str())).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in words_in(line) {
            let message = format!("`{word}` names a registry host or a machine's path; name the package or a relative path");
            found.push(Finding::new("words", &file.path, index + 1, message));
        }
    }
    found
}

fn words_in(line: &str) -> Vec<&'static str> {
    let plain = HOSTS.iter().filter(|word| line.contains(**word));
    let paths = PATHS.iter().filter(|word| starts_path(line, word));
    let names = NAMES.iter().filter(|word| starts_path(line, word) || line.contains(&format!("/{word}")));
    plain.chain(paths).chain(names).copied().collect()
}

/// Whether the word stands in the line with no part of a longer path before it.
fn starts_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|sign| sign.is_alphanumeric() || matches!(sign, '/' | '.' | '_' | '-' | '}' | ')' | '~'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::{HOSTS, NAMES, PATHS, check};

    #[test]
    fn hosts_and_machine_paths_are_found() {
        let text = format!("see https://{}\ncd {}main\nls x/{}\n", HOSTS[0], PATHS[0], NAMES[0]);
        let found = check(&[file("docs/a.md", &text), file("Cargo.lock", &text)]);
        assert_eq!(lines(&found), ["docs/a.md:1 words", "docs/a.md:2 words", "docs/a.md:3 words"]);
    }

    #[test]
    fn ordinary_paths_and_words_pass() {
        let text = format!("/home/me{}x\nmy{}/x\nframe{0}\n", PATHS[0], NAMES[0]);
        assert!(check(&[file("docs/a.md", &text)]).is_empty(), "{:?}", check(&[file("docs/a.md", &text)]));
    }
}
