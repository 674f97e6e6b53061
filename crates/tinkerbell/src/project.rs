//! What a repository brings that steers us, and whether a person trusts it.
//!
//! Everything is read once; what was hashed is what is used. Invariant: of bytes that nobody approved
//! nothing takes effect but what tightens.

use crate::config::{self, ProjectFile};
use crate::places::Places;
use std::path::Path;
use tinkerbell_agent::Project;
use tinkerbell_core::code::Fault;
use tinkerbell_security::trust::{Bundle, Standing, TrustStore, read_part};

/// Tool servers of a repository, as other agents write them, too.
pub const SERVERS: &str = ".mcp.json";
/// The most that is read of that file.
const MOST_BYTES: u64 = 256 * 1024;

/// What a repository brings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Brought {
    /// Its configuration file, parsed from the bytes in the bundle.
    pub file: ProjectFile,
    /// What of it needs a person's word.
    pub bundle: Bundle,
}

/// Reads what stands below a root.
///
/// # Errors
/// As `config::read_project`, and `TB-TRUST-002` for tool servers that are no plain file.
pub fn read(root: &Path) -> Result<Brought, Fault> {
    let file = config::read_project(root)?;
    // Lower limits only tighten; a file with nothing else needs nobody's word.
    let config = file.part.clone().filter(|_| file.config.verify.command.is_some());
    let servers = read_part(root, SERVERS, MOST_BYTES)?;
    Ok(Brought { bundle: Bundle::new(config.into_iter().chain(servers).collect()), file })
}

/// Where approvals of repositories' files are kept.
#[must_use]
pub fn store(places: &Places) -> TrustStore {
    TrustStore::new(places.data.join("trust.toml"), rustix::process::getuid().as_raw())
}

/// What counts for a task: `tree` holds the files as the task got them, `repository` is the user's.
///
/// # Errors
/// As [`read`].
pub fn of_task(store: &TrustStore, tree: &Path, repository: &Path) -> Result<Project, Fault> {
    let Brought { file, bundle } = read(tree)?;
    let names: Vec<&str> = bundle.parts().iter().map(|part| part.name.as_str()).collect();
    let names = names.join(", ");
    let note = match store.standing(repository, &bundle) {
        Ok(Standing::Empty) => return Ok(Project::default()),
        Ok(Standing::Trusted) => return Ok(Project { verify: file.config.verify.command, trust: bundle.digest(), notes: Vec::new() }),
        Ok(Standing::New) => format!("{names}: not trusted, so it does not count (tinkerbell trust)"),
        Ok(Standing::Changed(_)) => format!("{names}: changed since it was trusted, so it does not count (tinkerbell trust)"),
        Err(fault) => format!("{names}: does not count, because {}", fault.message),
    };
    let check = file.config.verify.command.map(|command| format!("the project's check `{command}` is not run"));
    Ok(Project { verify: None, trust: String::new(), notes: std::iter::once(note).chain(check).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_bytes_count_and_lower_limits_need_no_trust() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, repo) = (dir.path().join("tree"), dir.path().join("repo"));
        std::fs::create_dir_all(tree.join(".tinkerbell")).unwrap();
        std::fs::create_dir_all(&repo).unwrap();
        let store = TrustStore::new(dir.path().join("trust.toml"), rustix::process::getuid().as_raw());
        let write = |text: &str| std::fs::write(tree.join(config::PROJECT_FILE), text).unwrap();
        let found = || of_task(&store, &tree, &repo).unwrap();
        assert_eq!(found(), Project::default());
        write("[limits]\nmax_steps = 3\n");
        assert_eq!(found(), Project::default());
        write("[verify]\ncommand = \"make test\"\n");
        let project = found();
        assert_eq!((project.verify, project.trust.as_str()), (None, ""));
        assert_eq!(
            project.notes,
            [".tinkerbell/config.toml: not trusted, so it does not count (tinkerbell trust)", "the project's check `make test` is not run"]
        );
        store.approve(&repo, &read(&tree).unwrap().bundle, 1).unwrap();
        assert_eq!((found().verify.as_deref(), found().notes), (Some("make test"), Vec::new()));
        write("[verify]\ncommand = \"make  test\"\n");
        assert!(found().verify.is_none() && found().notes[0].contains("changed since it was trusted"), "{:?}", found());
        write("[verify]\ncommand = \"make test\"\n");
        std::fs::write(tree.join(SERVERS), "{}").unwrap();
        assert!(found().verify.is_none() && found().notes[0].starts_with(".mcp.json, .tinkerbell/config.toml: changed"), "{:?}", found());
    }
}
