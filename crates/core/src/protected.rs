//! The protected set: paths of a workspace that steer agents, editors and build servers.
//!
//! A pure matcher on relative paths; what happens on a match (ask, put back, mount read-only) is
//! decided elsewhere. A name stands here when a tool reads it by itself from a directory that a person works in,
//! and runs, or hands to a model, what it says. Start-up files of shells do not: they are read from the home.
//! Invariant: a path below a protected one is protected too, also under every other
//! spelling that some file system takes for the same name: `.VSCode/tasks.json`, `AGENTS.md.`, `git~1`.

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
    ".windsurfrules",
    ".rules",
    ".helix",
    ".amazonq",
    "crush.md",
    "crush.json",
    ".crush.json",
    ".aider.conf.yml",
    ".clinerules",
    ".cursorrules",
    ".goosehints",
    ".opencode",
    "opencode.json",
    "opencode.jsonc",
    ".roo",
    ".roorules",
    ".roomodes",
    ".continue",
    ".kiro",
    ".junie",
    ".qwen",
    "qwen.md",
    ".mcp.json",
    ".envrc",
    "mise.toml",
    ".mise.toml",
    "mise.local.toml",
    ".mise.local.toml",
    ".mise",
    ".exrc",
    ".vimrc",
    ".nvimrc",
    ".nvim.lua",
    ".dir-locals.el",
    ".gitmodules",
    ".hg",
    ".jj",
    "agent.md",
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
    ".github/instructions",
    ".github/prompts",
    ".github/agents",
    ".github/chatmodes",
    ".github/hooks",
    ".gitea/workflows",
    ".forgejo/workflows",
    ".gitlab-ci.yml",
    ".gitlab/ci",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    ".woodpecker.yml",
    ".woodpecker.yaml",
    ".drone.yml",
    ".travis.yml",
    "appveyor.yml",
    ".appveyor.yml",
    "azure-pipelines.yml",
    "azure-pipelines.yaml",
    ".azure-pipelines",
    ".cirrus.yml",
    ".cirrus.star",
    "bitbucket-pipelines.yml",
    "jenkinsfile",
    ".devcontainer",
    ".devcontainer.json",
    ".config/mise",
    ".config/mise.toml",
    ".husky",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    "lefthook.yaml",
    "lefthook.toml",
    "lefthook.json",
    "lefthook-local.yml",
    ".lefthook.yml",
    ".lefthook.yaml",
    ".lefthook-local.yml",
    ".lefthook",
    ".lefthook-local",
];

/// Whether a relative, `/`-separated path is in the protected set.
///
/// `.` and empty components are skipped and `..` takes one back, so a path that a tool was given
/// needs no cleaning first.
#[must_use]
pub fn is_protected(rel_path: &str) -> bool {
    let parts = parts(rel_path);
    if parts.iter().any(|part| NAMES.contains(&part.as_str())) {
        return true;
    }
    PATHS.iter().any(|path| {
        let wanted = path.split('/');
        let mut given = parts.iter();
        wanted.into_iter().all(|name| given.next().is_some_and(|part| part == name))
    })
}

/// Whether a path is one of the directories that protected paths stand in: `.github` itself, not what is in it.
///
/// As a directory it is free. Anything else there stands for the protected paths: behind a link `.github` every
/// file of another directory is a workflow or a hook.
#[must_use]
pub fn is_above(rel_path: &str) -> bool {
    let parts = parts(rel_path);
    let is_beginning = |path: &str| {
        let mut wanted = path.split('/');
        parts.iter().all(|part| wanted.next() == Some(part)) && wanted.next().is_some()
    };
    !parts.is_empty() && PATHS.iter().any(|path| is_beginning(path))
}

/// Whether a file or a link is protected at this path: as [`is_protected`], and where it would take the place
/// of a directory that protected paths stand in.
#[must_use]
pub fn is_protected_file(rel_path: &str) -> bool {
    is_protected(rel_path) || is_above(rel_path)
}

/// The names of a path, folded.
fn parts(rel_path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in rel_path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(folded(name)),
        }
    }
    parts
}

/// Signs that HFS+ leaves out when it compares names, and others of no width.
const INVISIBLE: &[char] = &[
    '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}',
    '\u{206a}', '\u{206b}', '\u{206c}', '\u{206d}', '\u{206e}', '\u{206f}', '\u{feff}',
];

/// A name as the most forgiving file system reads it: case, invisible signs, what NTFS cuts off at the
/// end (dots, spaces, a stream's name), and the short names that it gives to git's own.
fn folded(name: &str) -> String {
    let visible: String = name.chars().filter(|sign| !INVISIBLE.contains(sign)).collect();
    let stem = visible.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    // By way of the upper case, because `ſ` and `K` have no other road to `s` and `k`.
    let folded = stem.to_uppercase().to_lowercase();
    let is_short = |of: &str| folded.strip_prefix(of).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    match () {
        () if is_short("git~") => ".git".to_owned(),
        () if is_short("gitmod~") || is_short("gi7eba~") => ".gitmodules".to_owned(),
        () => folded,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_above, is_protected, is_protected_file};

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
            (".github/prompts/x.prompt.md", true),
            (".github/dependabot.yml", false),
            (".opencode/plugins/x.ts", true),
            ("web/mise.toml", true),
            ("web/mise.local.toml", true),
            (".mise/config.toml", true),
            (".config/mise/config.toml", true),
            (".config/mise.toml", true),
            (".config/nextest.toml", false),
            (".devcontainer.json", true),
            (".windsurfrules", true),
            (".rules", true),
            (".roorules", true),
            ("AGENT.md", true),
            ("CRUSH.md", true),
            (".amazonq/rules/a.md", true),
            (".helix/languages.toml", true),
            (".hg/hgrc", true),
            (".jj/repo/config.toml", true),
            ("QWEN.md", true),
            (".pre-commit-config.yaml", true),
            ("docs/.pre-commit-config.yaml", false),
            ("lefthook.yml", true),
            (".bashrc", false),
            (".ci/run", true),
            ("src/.ci/run", false),
            (".gitignore", false),
            (".gitattributes", false),
            ("src/agents.rs", false),
            ("Jenkinsfile", true),
            ("AGENTS.md.", true),
            ("AGENTS.md . .", true),
            (".git /config", true),
            ("x/git~1/config", true),
            ("gitmod~2", true),
            ("git~one", false),
            (".git::$INDEX_ALLOCATION/config", true),
            (".g\u{200c}it", true),
            ("AGENT\u{17f}.md", true),
            (".\u{212a}x", false),
            ("...", false),
            ("", false),
        ];
        for (path, want) in cases {
            assert_eq!(is_protected(path), want, "{path}");
        }
    }

    #[test]
    fn what_is_no_directory_takes_no_place_of_one_that_holds_protected_paths() {
        for (path, want) in [
            (".github", true),
            ("./.GitHub.", true),
            ("x/../.gitlab", true),
            (".config", true),
            (".github/workflows", false),
            (".github/dependabot.yml", false),
            ("docs/.github", false),
            (".ci", false),
            ("docs", false),
            ("", false),
            (".", false),
        ] {
            assert_eq!(is_above(path), want, "{path}");
            assert_eq!(is_protected_file(path), want || is_protected(path), "{path}");
        }
    }
}
