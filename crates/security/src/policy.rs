//! The policy until policy files exist: one compiled-in table.
//!
//! Reads, commands in a complete sandbox and edits of the worktree are allowed; protected paths,
//! mass deletion and commands without a sandbox are asked for; no sandbox level is refused.
//! Invariant: a deed that no row of the table names is asked for.

use crate::digest::deed_digest;
use crate::redact::Redactor;
use std::sync::{PoisonError, RwLock};
use tinkerbell_core::port::{Deed, Guard, Judgement, Level};
use tinkerbell_core::protected::is_protected;

/// Deletions of tracked files by one call beyond which a person is asked.
const MANY_DELETES: u32 = 50;
/// Tools that change nothing outside the task.
const HARMLESS: [&str; 5] = ["read", "search", "plan", "ask", "exec_wait"];
/// Tools that write files of the worktree.
const WRITERS: [&str; 3] = ["apply_patch", "edit", "write"];
/// Tools that run or feed commands.
const RUNNERS: [&str; 2] = ["exec", "exec_send"];

/// The guard of the compiled-in table.
#[derive(Default)]
pub struct PolicyGuard {
    secrets: RwLock<Redactor>,
}

impl PolicyGuard {
    /// A guard that knows no secrets yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the secrets that are redacted, as names with values; values under eight bytes are
    /// not looked for.
    pub fn set_secrets(&self, secrets: Vec<(String, String)>) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = Redactor::new(secrets);
    }
}

impl Guard for PolicyGuard {
    fn judge(&self, deed: &Deed) -> Judgement {
        match verdict(deed) {
            Verdict::Allow => Judgement::Allow,
            Verdict::Ask(why) => Judgement::Ask { why, digest: deed_digest(deed) },
            Verdict::Refuse(why) => Judgement::Refuse { why },
        }
    }

    fn redact(&self, text: &str) -> String {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).redact(text)
    }
}

/// A row's word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allow,
    Ask(String),
    Refuse(String),
}

/// The strictest word of all rows that a deed touches.
fn verdict(deed: &Deed) -> Verdict {
    let name = deed.call.name.as_str();
    if let Some(path) = deed.plan.writes.iter().find(|path| leaves(path)) {
        return Verdict::Refuse(format!("`{path}` lies outside the worktree; use a path below its root"));
    }
    let runs = deed.plan.command.is_some() || RUNNERS.contains(&name);
    if runs && deed.level.is_none() {
        return Verdict::Refuse("no complete sandbox level works on this host, so no command may run".to_owned());
    }
    let mut why = Vec::new();
    if runs && deed.level == Some(Level::None) {
        why.push("it would run without a sandbox".to_owned());
    }
    let protected: Vec<&str> = deed.plan.writes.iter().map(String::as_str).filter(|path| is_protected(path)).collect();
    if !protected.is_empty() {
        why.push(format!("it changes protected files: {}", protected.join(", ")));
    }
    if deed.plan.deletes > MANY_DELETES {
        why.push(format!("it deletes {} tracked files", deed.plan.deletes));
    }
    let known = runs || HARMLESS.contains(&name) || WRITERS.contains(&name);
    if !known {
        why.push(format!("no policy names the tool `{name}`"));
    }
    if HARMLESS.contains(&name) && !deed.plan.writes.is_empty() {
        why.push("it writes files, which this tool should not".to_owned());
    }
    if why.is_empty() { Verdict::Allow } else { Verdict::Ask(why.join("; ")) }
}

/// Whether a path, taken literally, points out of the worktree.
fn leaves(path: &str) -> bool {
    let mut depth = 0_i64;
    let climbs = path.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    });
    path.starts_with('/') || climbs
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinkerbell_core::effect::EffectClass;
    use tinkerbell_core::tool::{ToolCall, ToolPlan};
    use tinkerbell_core::words::{TaskId, Workspace};

    fn deed(tool: &str, command: Option<&str>, writes: &[&str], deletes: u32, level: Option<Level>) -> Deed {
        Deed {
            task: TaskId(7),
            call: ToolCall { id: "c1".to_owned(), name: tool.to_owned(), args: "{}".to_owned() },
            plan: ToolPlan {
                class: EffectClass::Unsafe,
                writes: writes.iter().map(|path| (*path).to_owned()).collect(),
                deletes,
                command: command.map(str::to_owned),
            },
            level,
            workspace: Workspace {
                task: TaskId(7),
                repo: "/r".into(),
                tree: "/t".into(),
                git_dir: "/g".into(),
                common_dir: "/c".into(),
                branch: "refs/heads/tinkerbell/x".to_owned(),
                base: "a".repeat(40).parse().unwrap(),
            },
        }
    }

    fn word(deed: &Deed) -> String {
        match PolicyGuard::new().judge(deed) {
            Judgement::Allow => "allow".to_owned(),
            Judgement::Ask { why, .. } => format!("ask: {why}"),
            Judgement::Refuse { why } => format!("refuse: {why}"),
        }
    }

    #[test]
    fn the_table_decides() {
        let (full, landlock, none) = (Some(Level::Full), Some(Level::Landlock), Some(Level::None));
        for (tool, command, writes, deletes, level, expected) in [
            ("exec", Some("ls"), vec![], 0, full, "allow"),
            ("exec", Some("rm -rf ."), vec![], 0, landlock, "allow"),
            ("exec", Some("ls"), vec![], 0, none, "ask: it would run without a sandbox"),
            ("exec", Some("ls"), vec![], 0, None, "refuse: no complete sandbox"),
            ("exec_send", None, vec![], 0, full, "allow"),
            ("exec_send", None, vec![], 0, none, "ask: it would run without a sandbox"),
            ("exec_wait", None, vec![], 0, full, "allow"),
            ("read", None, vec![], 0, full, "allow"),
            ("search", None, vec![], 0, full, "allow"),
            ("plan", None, vec![], 0, full, "allow"),
            ("edit", None, vec!["src/a.rs"], 0, full, "allow"),
            ("write", None, vec!["AGENTS.md"], 0, full, "ask: it changes protected files: AGENTS.md"),
            ("apply_patch", None, vec!["a", ".github/workflows/ci.yml"], 0, full, "ask: it changes protected files: .github"),
            ("edit", None, vec!["sub/.VSCode/tasks.json"], 0, full, "ask: it changes protected"),
            ("apply_patch", None, vec!["a"], 50, full, "allow"),
            ("apply_patch", None, vec!["a"], 51, full, "ask: it deletes 51 tracked files"),
            ("write", None, vec!["../x"], 0, full, "refuse: `../x` lies outside"),
            ("write", None, vec!["a/../../x"], 0, full, "refuse: `a/../../x` lies outside"),
            ("write", None, vec!["/etc/passwd"], 0, full, "refuse: `/etc/passwd` lies outside"),
            ("write", None, vec!["a/../x"], 0, full, "allow"),
            ("deploy", None, vec![], 0, full, "ask: no policy names the tool `deploy`"),
            ("read", None, vec!["a"], 0, full, "ask: it writes files"),
        ] {
            let got = word(&deed(tool, command, &writes, deletes, level));
            assert!(got.starts_with(expected), "{tool} {command:?} {writes:?}: {got}");
        }
    }

    #[test]
    fn an_approval_is_bound_to_the_exact_bytes() {
        let digest = |change: &dyn Fn(&mut Deed)| {
            let mut deed = deed("write", None, &["AGENTS.md"], 0, Some(Level::Full));
            change(&mut deed);
            deed_digest(&deed)
        };
        let plain = digest(&|_| {});
        assert_eq!(plain, digest(&|deed| deed.call.id = "other".to_owned()));
        let changes: [&dyn Fn(&mut Deed); 6] = [
            &|deed| deed.call.args = "{ }".to_owned(),
            &|deed| deed.plan.command = Some("x".to_owned()),
            &|deed| deed.plan.writes = vec!["AGENTS".to_owned(), ".md".to_owned()],
            &|deed| deed.level = Some(Level::None),
            &|deed| deed.task = TaskId(8),
            &|deed| deed.plan.deletes = 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_ne!(plain, digest(change), "change {index}");
        }
        assert_eq!(plain.len(), 64);
    }

    #[test]
    fn secrets_can_be_replaced_while_in_use() {
        let guard = PolicyGuard::new();
        assert_eq!(guard.redact("key verysecret"), "key verysecret");
        guard.set_secrets(vec![("K".to_owned(), "verysecret".to_owned())]);
        assert_eq!(guard.redact("key verysecret"), "key [secret K]");
        guard.set_secrets(Vec::new());
        assert_eq!(guard.redact("key verysecret"), "key verysecret");
    }
}
