//! Pages that must exist: one per error code, one per decision, and the opening comment of a file.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, without_tests};
use super::{File, Finding, is_own_rust, is_test_file};

const ERRORS: &str = "docs/errors/";
const DECISIONS: &str = "docs/adr/";
const HEADINGS: [&str; 6] = ["Context", "Decision", "Rationale", "Consequences", "Alternatives considered", "Additional notes"];

/// Checks that each code in the crates has its page and that each page has its code.
pub fn error_pages(files: &[File]) -> Vec<Finding> {
    let used = codes_in_use(files);
    let mut pages = BTreeSet::new();
    let mut found = Vec::new();
    for file in files {
        let Some(name) = page_name(&file.path, ERRORS) else { continue };
        pages.insert(name.to_owned());
        found.extend(page_faults(name, &file.text).map(|fault| Finding::new("error-page", &file.path, 1, fault)));
        if !used.contains_key(name) {
            let message = format!("no crate uses `{name}`; remove the page or the misspelling");
            found.push(Finding::new("error-page", &file.path, 0, message));
        }
    }
    for (code, (path, line)) in used.into_iter().filter(|(code, _)| !pages.contains(code)) {
        let message = format!("`{code}` has no page; write {ERRORS}{code}.md");
        found.push(Finding::new("error-page", path, line, message));
    }
    found
}

/// Returns `NAME` of `<folder>NAME.md`, leaving out the folder's README.
fn page_name<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let name = path.strip_prefix(folder)?.strip_suffix(".md")?;
    (name != "README" && !name.contains('/')).then_some(name)
}

fn page_faults(code: &str, text: &str) -> impl Iterator<Item = String> {
    let title = text.lines().next().unwrap_or_default();
    let named = title.strip_prefix(&format!("# {code}: ")).is_some_and(|rest| !rest.trim().is_empty());
    let body = text.lines().skip(1).any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let advice = text.lines().any(|line| line.contains("What to do"));
    let faults = [
        (!named).then(|| format!("the first line must be `# {code}: ` and a short title")),
        (!body).then(|| "the page says nothing".to_owned()),
        (!advice).then(|| "the page lacks the part `What to do`".to_owned()),
    ];
    faults.into_iter().flatten()
}

/// Returns each code with the first place that uses it.
fn codes_in_use(files: &[File]) -> BTreeMap<String, (&str, usize)> {
    let mut used = BTreeMap::new();
    let rust = files.iter().filter(|file| file.path.starts_with("crates/") && is_own_rust(&file.path));
    for file in rust.filter(|file| !is_test_file(&file.path)) {
        let source = Source::scan(&file.text);
        let literals = source.literals();
        let code = source.code();
        let kept: BTreeSet<usize> = without_tests(&code).into_iter().map(|(line, _)| line).collect();
        for (index, line) in literals.lines().enumerate().filter(|(index, _)| kept.contains(&(index + 1))) {
            for code in codes(line) {
                used.entry(code.to_owned()).or_insert((file.path.as_str(), index + 1));
            }
        }
    }
    used
}

/// Finds `TB-AREA-NNN` in a line.
fn codes(line: &str) -> Vec<&str> {
    let word = |sign: char| sign.is_ascii_alphanumeric() || sign == '-' || sign == '_';
    line.split(|sign| !word(sign)).filter(|candidate| is_code(candidate)).collect()
}

fn is_code(word: &str) -> bool {
    let mut parts = word.split('-');
    let (start, area, number) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    start == Some("TB")
        && parts.next().is_none()
        && !area.is_empty()
        && area.chars().all(|sign| sign.is_ascii_uppercase())
        && number.len() == 3
        && number.chars().all(|sign| sign.is_ascii_digit())
}

/// Checks number, title, status line and headings of every decision.
pub fn decisions(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut expected = 1;
    for file in files {
        let Some(name) = page_name(&file.path, DECISIONS) else { continue };
        let number = format!("{expected:04}");
        expected += 1;
        let mut fault = |message: String| found.push(Finding::new("adr", &file.path, 1, message));
        if !name.starts_with(&format!("{number}-")) {
            fault(format!("decisions are numbered without gaps; this one should be {number}-…"));
        }
        let mut lines = file.text.lines().filter(|line| !line.trim().is_empty());
        if !lines.next().is_some_and(|title| title.starts_with(&format!("# {}. ", name.get(..4).unwrap_or("")))) {
            fault("the first line must be `# NNNN. The decision as a sentence`".to_owned());
        }
        if !lines.next().is_some_and(is_status) {
            fault("the second line must be `Status: … Date: YYYY-MM-DD`".to_owned());
        }
        let headings: Vec<&str> = lines.filter_map(|line| line.strip_prefix("## ")).map(str::trim).collect();
        if headings != HEADINGS {
            fault(format!("the headings must be {}; found {}", HEADINGS.join(", "), headings.join(", ")));
        }
    }
    found
}

fn is_status(line: &str) -> bool {
    let Some((status, date)) = line.strip_prefix("Status: ").and_then(|rest| rest.split_once("Date: ")) else {
        return false;
    };
    let status = status.trim();
    let successor = status.strip_prefix("superseded by ").unwrap_or("0000");
    let known = matches!(status, "proposed" | "accepted") || status.starts_with("superseded by ");
    let numbered = successor.len() == 4 && successor.chars().all(|sign| sign.is_ascii_digit());
    known && numbered && crate::date::Date::parse(date.trim()).is_some()
}

/// Checks that every source file of ours opens with `//!`.
pub fn openings(files: &[File]) -> Vec<Finding> {
    let own = files.iter().filter(|file| is_own_rust(&file.path));
    let silent = own.filter(|file| !file.text.lines().next().is_some_and(|line| line.starts_with("//! ")));
    let message = "the file must open with `//! ` and say what it is, what it is not, and its invariant";
    silent.map(|file| Finding::new("opening-comment", &file.path, 1, message)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::{decisions, error_pages, is_status, openings};

    const PAGE: &str = "# TB-WAL-001: the journal is corrupt\n\nWhat happened.\n\n## What to do\n\nRestore it.\n";

    #[test]
    fn codes_and_pages_belong_together() {
        let code = "fn a() { fault(\"TB-WAL-001\") } // TB-WAL-009\n#[cfg(test)]\nmod tests {\n const X: &str = \"TB-NO-404\";\n}\n";
        let whole = [file("crates/wal/src/a.rs", code), file("docs/errors/TB-WAL-001.md", PAGE), file("docs/errors/README.md", "")];
        assert!(error_pages(&whole).is_empty(), "{:?}", error_pages(&whole));
        let [source, page, _] = whole;
        assert_eq!(lines(&error_pages(&[source])), ["crates/wal/src/a.rs:1 error-page"]);
        assert_eq!(lines(&error_pages(&[page])), ["docs/errors/TB-WAL-001.md:0 error-page"]);
    }

    #[test]
    fn pages_have_title_body_and_advice() {
        let code = file("crates/wal/src/a.rs", "fault(\"TB-WAL-001\")\n");
        for bad in ["", "# Corrupt\n\nText. What to do: run.\n", "# TB-WAL-001: a title\n", "# TB-WAL-001: a title\n\nText.\n"] {
            let found = error_pages(&[code.clone(), file("docs/errors/TB-WAL-001.md", bad)]);
            assert!(!found.is_empty(), "{bad}");
        }
    }

    fn decision(number: &str, rest: &str) -> String {
        format!("# {number}. We do it\nStatus: accepted     Date: 2026-11-21\n{rest}")
    }

    const PARTS: &str = "## Context\na\n## Decision\nb\n## Rationale\nc\n## Consequences\nd\n\
                         ## Alternatives considered\ne\n## Additional notes\nf\n";

    #[test]
    fn decisions_have_number_status_and_headings() {
        let good = [
            file("docs/adr/0001-one.md", &decision("0001", PARTS)),
            file("docs/adr/0002-two.md", &decision("0002", PARTS)),
            file("docs/adr/README.md", "list"),
        ];
        assert!(decisions(&good).is_empty(), "{:?}", decisions(&good));
        let check = |path: &str, text: &str| assert_eq!(lines(&decisions(&[file(path, text)])), [format!("{path}:1 adr")]);
        check("docs/adr/0003-gap.md", &decision("0003", PARTS));
        check("docs/adr/0001-title.md", &decision("0002", PARTS));
        check("docs/adr/0001-status.md", &format!("# 0001. We do it\nStatus: maybe\n{PARTS}"));
        check("docs/adr/0001-headings.md", &decision("0001", "## Context\n## Rationale\n"));
    }

    #[test]
    fn a_status_is_one_of_three_with_a_date() {
        assert!(is_status("Status: superseded by 0007     Date: 2026-11-21"));
        for bad in ["Status: superseded by soon Date: 2026-11-21", "Status: accepted", "Status: accepted Date: today"] {
            assert!(!is_status(bad), "{bad}");
        }
    }

    #[test]
    fn files_open_with_what_they_are() {
        let found = openings(&[
            file("crates/wal/src/a.rs", "//! A.\n"),
            file("crates/wal/src/b.rs", "use std::fmt;\n//! B.\n"),
            file("crates/wal/src/c.rs", ""),
            file("crates/wal/tests/golden/x.rs", ""),
        ]);
        assert_eq!(lines(&found), ["crates/wal/src/b.rs:1 opening-comment", "crates/wal/src/c.rs:1 opening-comment"]);
    }
}
