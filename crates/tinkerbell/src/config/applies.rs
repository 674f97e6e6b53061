//! When a changed key counts: at once, for the next task, or after a restart.
//!
//! One table for the reload, the status and the page. Invariant: every key of the file stands in it;
//! a test holds the two tables together.

/// When a changed key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At once, also for tasks that run.
    Live,
    /// For tasks that are given from now on.
    NextTask,
    /// Only when the daemon starts again.
    Restart,
}

/// Each key or section, by the beginning of its dotted path.
const TABLE: [(&str, Applies); 17] = [
    ("model", Applies::NextTask),
    ("providers", Applies::Live),
    ("models", Applies::Live),
    ("sandbox", Applies::Restart),
    ("egress", Applies::Restart),
    ("mcp_servers", Applies::Live),
    ("workspace", Applies::Restart),
    ("limits", Applies::NextTask),
    ("scheduler", Applies::Restart),
    ("secrets", Applies::Live),
    ("security", Applies::Restart),
    ("security.patterns", Applies::Live),
    ("verify", Applies::NextTask),
    ("journal", Applies::Restart),
    ("approvals", Applies::Live),
    ("ui", Applies::Live),
    ("version", Applies::Live),
];

/// When a change of this key counts. What nobody has declared waits for a restart.
#[must_use]
pub fn applies(key: &str) -> Applies {
    declared(key).unwrap_or(Applies::Restart)
}

fn declared(key: &str) -> Option<Applies> {
    let within = |path: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    TABLE.iter().filter(|(path, _)| within(path)).max_by_key(|(path, _)| path.len()).map(|(_, applies)| *applies)
}

#[cfg(test)]
mod tests {
    use super::super::options::KEYS;
    use super::*;

    #[test]
    fn every_key_says_when_it_counts() {
        for key in &KEYS {
            assert!(declared(key.path).is_some(), "{} is in no table of when it counts", key.path);
        }
        for (path, _) in TABLE {
            assert!(KEYS.iter().any(|key| key.path == path || key.path.starts_with(&format!("{path}."))), "{path} is no key");
        }
        assert_eq!((applies("models.a/b.tools"), applies("modelsx")), (Applies::Live, Applies::Restart));
    }
}
