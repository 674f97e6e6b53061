//! The house laws on the real tree, and the helpers with which rules test themselves.

use super::{File, Finding, crate_of, examine, is_own_rust, is_test_file};

/// A file for a rule's test.
pub fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

/// Findings as lines, for comparison.
pub fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}:{} {}", finding.path, finding.line, finding.rule)).collect()
}

#[test]
fn the_house_stands() {
    let findings = examine().unwrap();
    let list: Vec<String> =
        findings.iter().map(|finding| format!("{}:{}: [{}] {}", finding.path, finding.line, finding.rule, finding.message)).collect();
    assert!(list.is_empty(), "{} house laws are broken:\n{}", list.len(), list.join("\n"));
}

#[test]
fn paths_are_sorted_into_crates_tests_and_samples() {
    assert_eq!(crate_of("crates/wal/src/lib.rs"), Some("wal"));
    assert_eq!(crate_of("xtask/src/main.rs"), None);
    for path in ["crates/a/tests/it.rs", "crates/a/src/b/tests.rs", "crates/a/src/tests/x.rs"] {
        assert!(is_test_file(path), "{path}");
    }
    assert!(!is_test_file("crates/a/src/contests.rs"));
    assert!(is_own_rust("crates/a/src/lib.rs") && is_own_rust("xtask/src/main.rs"));
    for path in ["crates/a/tests/golden/v1/x.rs", "docs/x.rs", "crates/a/Cargo.toml"] {
        assert!(!is_own_rust(path), "{path}");
    }
}
