//! Links between our own pages: a relative link in Markdown leads to something that is there.
//!
//! Addresses on the web are not followed: tests never leave the machine.

use std::collections::BTreeSet;

use super::source::outside_fences;
use super::{File, Finding};

/// Checks every Markdown page.
pub fn check(files: &[File]) -> Vec<Finding> {
    let known = places(files);
    files.iter().filter(|file| file.path.ends_with(".md")).flat_map(|file| check_page(file, &known)).collect()
}

/// All files, and all folders that hold one.
fn places(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files {
        known.insert(file.path.as_str());
        known.extend(file.path.match_indices('/').filter_map(|(at, _)| file.path.get(..at)));
    }
    known
}

fn check_page(file: &File, known: &BTreeSet<&str>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, text) in outside_fences(&file.text) {
        for target in targets(text).filter(|target| is_local(target)) {
            let path = target.split('#').next().unwrap_or_default();
            let resolved = resolve(&file.path, path);
            if !path.is_empty() && !known.contains(resolved.as_str()) {
                let message = format!("the link to `{path}` leads nowhere");
                found.push(Finding::new("link", &file.path, line, message));
            }
        }
    }
    found
}

/// Returns what stands in the round brackets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

fn is_local(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("mailto:") && !target.contains(' ')
}

/// Joins a link to the folder of its page.
fn resolve(page: &str, link: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::check;

    #[test]
    fn links_lead_somewhere() {
        let page = "[a](b.md) [folder](../docs) [part](b.md#x) [web](https://example.org/x) [here](#top)\n\
                    ```\n[sample](none.md)\n```\n[bad](none.md)\n[worse](../b.md)\n";
        let found = check(&[file("docs/a.md", page), file("docs/b.md", "")]);
        assert_eq!(lines(&found), ["docs/a.md:5 link", "docs/a.md:6 link"]);
    }
}
