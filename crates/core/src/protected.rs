//! The protected set: paths of a workspace that steer agents, editors and build servers.
//!
//! A pure matcher on relative paths; what happens on a match (ask, put back, mount read-only) is
//! decided elsewhere. Invariant: a path below a protected one is protected too, whatever its case,
//! because a case-folding file system would let `.VSCode/tasks.json` become `.vscode/tasks.json`.

/// Names that are protected wherever they stand, and everything below them.
pub const NAMES: &[&str] = &[
    ".git",
    ".tinkerbell",
    ".codex",
    ".claude",
    ".gemini",
    ".cursor",
    ".vscode",
    ".idea",
    ".zed",
    ".windsurf",
    ".aider.conf.yml",
    ".clinerules",
    ".cursorrules",
    ".goosehints",
    ".mcp.json",
    ".envrc",
    ".gitmodules",
    "agents.md",
    "agents.override.md",
    "claude.md",
    "claude.local.md",
    "gemini.md",
];

/// Paths from the workspace's root that are protected, and everything below them.
pub const PATHS: &[&str] = &[
    ".ci",
    ".github/workflows",
    ".github/actions",
    ".github/copilot-instructions.md",
    ".gitea/workflows",
    ".forgejo/workflows",
    ".gitlab-ci.yml",
    ".gitlab/ci",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    ".woodpecker.yml",
    ".drone.yml",
    ".travis.yml",
    "appveyor.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "jenkinsfile",
    ".devcontainer",
    ".husky",
];

/// Whether a relative, `/`-separated path is in the protected set.
///
/// `.` and empty components are skipped and `..` takes one back, so a path that a tool was given
/// needs no cleaning first.
#[must_use]
pub fn is_protected(rel_path: &str) -> bool {
    let mut parts: Vec<String> = Vec::new();
    for part in rel_path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name.to_ascii_lowercase()),
        }
    }
    if parts.iter().any(|part| NAMES.contains(&part.as_str())) {
        return true;
    }
    PATHS.iter().any(|path| {
        let wanted = path.split('/');
        let mut given = parts.iter();
        wanted.into_iter().all(|name| given.next().is_some_and(|part| part == name))
    })
}

#[cfg(test)]
mod tests {
    use super::is_protected;

    #[test]
    fn configuration_of_agents_editors_and_build_servers_is_protected() {
        let cases = [
            (".git", true),
            (".git/hooks/pre-commit", true),
            ("sub/.vscode/tasks.json", true),
            (".VSCode/tasks.json", true),
            ("AGENTS.md", true),
            ("crates/core/claude.md", true),
            ("./AGENTS.md", true),
            ("src/../.envrc", true),
            (".github/workflows/ci.yml", true),
            (".github/workflows", true),
            (".github/ISSUE_TEMPLATE.md", false),
            ("docs/.github/workflows/ci.yml", false),
            (".ci/run", true),
            ("src/.ci/run", false),
            (".gitignore", false),
            (".gitattributes", false),
            ("src/agents.rs", false),
            ("Jenkinsfile", true),
            ("", false),
        ];
        for (path, want) in cases {
            assert_eq!(is_protected(path), want, "{path}");
        }
    }
}
