//! The project at the current directory: git, the repository's state, rules for agents.
//!
//! Reads only. Invariant: whatever a repository holds, looking at it runs nothing of it.

use super::super::Shop;
use super::super::repository::{self, git};
use super::super::text::size;
use super::report::{Finding, Group};
use std::path::{Path, PathBuf};

/// Most bytes of rules that a task takes with it.
const RULES_BYTES: u64 = 32 * 1024;

/// Git itself, who commits, and how the repository stands.
pub async fn repository(shop: &Shop<'_>) -> Group {
    let mut findings = Vec::new();
    // Not from the current directory: one that can not be entered says nothing about git.
    match git(Path::new("/"), &["--version"]).await {
        Some(version) => findings.push(Finding::good("git", version.trim())),
        None => findings.push(Finding::look(
            "git",
            "not found on PATH; tasks work without it, commands that call it do not",
            "install git with your package manager",
        )),
    }
    let Some(cwd) = shop.cwd else {
        findings.push(Finding::look("repository", "the current directory is gone", "cd into a directory that exists"));
        return Group { name: "Repository", findings };
    };
    findings.push(identity(cwd).await);
    findings.push(match repository::root(cwd) {
        None => Finding::look(
            "repository",
            format!("{} is in no git repository; tasks need one", cwd.display()),
            "git init && git add -A && git commit -m start",
        ),
        Some(root) => state(&root).await,
    });
    Group { name: "Repository", findings }
}

async fn identity(cwd: &Path) -> Finding {
    let (name, email) = tokio::join!(git(cwd, &["config", "user.name"]), git(cwd, &["config", "user.email"]));
    match (name.filter(|name| !name.trim().is_empty()), email.filter(|email| !email.trim().is_empty())) {
        (Some(name), Some(email)) => Finding::good("identity", format!("{} <{}>", name.trim(), email.trim())),
        _ => Finding::look(
            "identity",
            "git has no name for you; commits of tasks are by tinkerbell@localhost",
            "git config --global user.name \"YOU\" && git config --global user.email YOU@EXAMPLE.ORG",
        ),
    }
}

async fn state(root: &Path) -> Finding {
    let shown = root.display();
    let (status, dir) = tokio::join!(repository::status(root), git(root, &["rev-parse", "--absolute-git-dir"]));
    let (Some(status), Some(dir)) = (status, dir) else {
        return Finding::look(
            "repository",
            format!("{shown}: git can not read it"),
            format!("git -C {shown} status (it may belong to another user: safe.directory)"),
        );
    };
    if let Some(busy) = under_way(Path::new(dir.trim_end())) {
        return Finding::look(
            "repository",
            format!("{shown}: {busy} is not finished"),
            format!("finish or abort the {busy} before landing a task"),
        );
    }
    let standing = standing(&status);
    let text = format!("{shown}: {}", standing.text);
    match standing.fix {
        Some(fix) => Finding::look("repository", text, fix),
        None if root.join(".gitmodules").exists() => Finding::look(
            "repository",
            format!("{text}; it has submodules, which are empty in a task's tree"),
            "carry what is needed: [workspace] carry = [\"DIR\"]",
        ),
        None => Finding::good("repository", text),
    }
}

/// How a repository stands, by `git status --porcelain=v2 --branch`.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Branch and changes.
    pub text: String,
    /// What to do, where something is odd.
    pub fix: Option<&'static str>,
}

pub fn standing(status: &str) -> Standing {
    let header = |name: &str| status.lines().find_map(|line| line.strip_prefix("# branch.")?.strip_prefix(name)).map(str::trim);
    let count = |signs: &[char]| status.lines().filter(|line| line.starts_with(signs)).count();
    let (changed, unmerged, untracked) = (count(&['1', '2']), count(&['u']), count(&['?']));
    let branch = header("head").unwrap_or("unknown");
    let changes = if changed + untracked == 0 {
        "clean".to_owned()
    } else {
        format!("{changed} changed and {untracked} untracked files, which a task takes along")
    };
    if unmerged > 0 {
        return Standing { text: format!("{unmerged} files are in conflict"), fix: Some("resolve the conflicts, then git add them") };
    }
    if header("oid") == Some("(initial)") {
        return Standing { text: format!("branch {branch} has no commit yet"), fix: Some("git add -A && git commit -m start") };
    }
    if branch == "(detached)" {
        return Standing {
            text: format!("HEAD is detached, {changes}"),
            fix: Some("git switch BRANCH, or land with: tinkerbell land TASK --branch NAME"),
        };
    }
    Standing { text: format!("branch {branch}, {changes}"), fix: None }
}

fn under_way(git_dir: &Path) -> Option<&'static str> {
    let marks = [
        ("MERGE_HEAD", "merge"),
        ("rebase-merge", "rebase"),
        ("rebase-apply", "rebase"),
        ("CHERRY_PICK_HEAD", "cherry-pick"),
        ("REVERT_HEAD", "revert"),
        ("BISECT_LOG", "bisect"),
    ];
    marks.into_iter().find(|(mark, _)| git_dir.join(mark).exists()).map(|(_, name)| name)
}

/// The rules that a task given here would carry, with their cost.
pub fn rules(shop: &Shop<'_>) -> Group {
    let found = shop.cwd.map(in_force).unwrap_or_default();
    let sum: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    let finding = if found.is_empty() {
        Finding::good("AGENTS.md", "none in force; `tinkerbell init` can write one")
    } else {
        let files: Vec<String> = found.iter().map(|(path, bytes)| format!("{}, {}", path.display(), size(*bytes))).collect();
        let text = format!("about {} tokens in each request, from {} files", tokens(sum), files.len());
        match sum > RULES_BYTES {
            true => Finding::look(
                "AGENTS.md",
                format!("{text}; only {} are used", size(RULES_BYTES)),
                "shorten them: the nearest to the task is kept",
            ),
            false => Finding::good("AGENTS.md", text),
        }
        .with(files)
    };
    Group { name: "Rules", findings: vec![finding] }
}

/// Tokens by the house's estimate, bytes / 3.6.
const fn tokens(bytes: u64) -> u64 {
    bytes.saturating_mul(10).div_ceil(36)
}

/// Files of rules from the root to here; of each directory the first that stands.
fn in_force(cwd: &Path) -> Vec<(PathBuf, u64)> {
    let root = repository::root(cwd).unwrap_or_else(|| cwd.to_owned());
    let mut dirs: Vec<&Path> = cwd.ancestors().take_while(|dir| dir.starts_with(&root)).collect();
    dirs.reverse();
    let names = ["AGENTS.md", "CLAUDE.md", "GEMINI.md"];
    let first = |dir: &Path| {
        names
            .iter()
            .map(|name| dir.join(name))
            .find_map(|path| path.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| (path, meta.len())))
    };
    dirs.into_iter().filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::bench::Bench;
    use super::*;

    #[test]
    fn the_state_of_a_repository_is_read_from_gits_own_words() {
        for (status, text, has_fix) in [
            ("# branch.oid ab12\n# branch.head main\n", "branch main, clean", false),
            (
                "# branch.oid ab12\n# branch.head main\n1 .M N... a\n? b\n? c\n",
                "branch main, 1 changed and 2 untracked files, which a task takes along",
                false,
            ),
            ("# branch.oid (initial)\n# branch.head main\n", "branch main has no commit yet", true),
            ("# branch.oid ab12\n# branch.head (detached)\n", "HEAD is detached, clean", true),
            ("# branch.oid ab12\n# branch.head main\nu UU N... a\n", "1 files are in conflict", true),
        ] {
            let standing = standing(status);
            assert_eq!((standing.text.as_str(), standing.fix.is_some()), (text, has_fix));
        }
    }

    #[test]
    fn rules_hold_from_the_root_to_the_nearest() {
        let mut bench = Bench::new();
        bench.write("AGENTS.md", "outside of the repository");
        bench.write("work/.git/HEAD", "");
        bench.write("work/AGENTS.md", &"x".repeat(36));
        bench.write("work/CLAUDE.md", "hidden by AGENTS.md");
        bench.write("work/sub/CLAUDE.md", &"x".repeat(36));
        bench.cwd = bench.cwd.join("sub");
        let found: Vec<String> = in_force(&bench.cwd).iter().map(|(path, _)| bench.plain(&path.display().to_string())).collect();
        assert_eq!(found, ["/t/work/AGENTS.md", "/t/work/sub/CLAUDE.md"]);
        assert_eq!(tokens(72), 20);
    }
}
