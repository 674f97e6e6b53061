//! Walls of size: 600 lines a file, 10,000 a crate, 5,000 for `core`; tests do not count.
//!
//! What is too large to read in one sitting is too large to judge; a crate past its ceiling usually
//! has two reasons to change.

use std::collections::BTreeMap;

use super::source::{Source, without_tests};
use super::{File, Finding, crate_of, is_own_rust, is_test_file};

const FILE_LINES: usize = 600;
const CRATE_LINES: usize = 10_000;
const CORE_LINES: usize = 5_000;

/// Checks the size of files and crates.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut crates: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| is_own_rust(&file.path) && !is_test_file(&file.path)) {
        let count = without_tests(&Source::scan(&file.text).code()).len();
        *crates.entry(crate_of(&file.path).unwrap_or("xtask")).or_default() += count;
        if count > FILE_LINES {
            let message = format!("{count} lines without tests; {FILE_LINES} is the wall: split by reason to change");
            found.push(Finding::new("file-length", &file.path, 0, message));
        }
    }
    for (name, count) in crates {
        let wall = if name == "core" { CORE_LINES } else { CRATE_LINES };
        if count > wall {
            let message = format!("{count} lines without tests; {wall} is the wall");
            let path = if name == "xtask" { "xtask".to_owned() } else { format!("crates/{name}") };
            found.push(Finding::new("crate-length", &path, 0, message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::check;

    #[test]
    fn long_files_are_found_and_tests_do_not_count() {
        let long = "a();\n".repeat(601);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "a();\n".repeat(600));
        let found = check(&[
            file("crates/wal/src/a.rs", &long),
            file("crates/wal/src/b.rs", &tested),
            file("crates/wal/src/b/tests.rs", &long),
            file("crates/wal/tests/it.rs", &long),
            file("docs/long.md", &long),
        ]);
        assert_eq!(lines(&found), ["crates/wal/src/a.rs:0 file-length"]);
    }

    #[test]
    fn large_crates_are_found() {
        let tree = |name: &str, count: usize| -> Vec<_> {
            (0..count).map(|index| file(&format!("crates/{name}/src/{index}.rs"), &"a();\n".repeat(500))).collect()
        };
        assert!(check(&tree("wal", 20)).is_empty());
        assert_eq!(lines(&check(&tree("wal", 21))), ["crates/wal:0 crate-length"]);
        assert_eq!(lines(&check(&tree("core", 11))), ["crates/core:0 crate-length"]);
    }
}
