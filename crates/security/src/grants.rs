//! The file of grants: what the user allowed for a project or for everything, until when.
//!
//! It lies beside the user's policy and is written by `approve --for` alone. It is judged behind all
//! rules; see `policy::grant`. Invariants: a file that others could have written, or that holds what would
//! allow anything, is refused as a whole; it is replaced at once or not at all.

mod format;

use crate::policy::{Held, lint_grant, read_owned};
use format::{GrantsFile, One, VERSION};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_core::approval::Grant;
use tinkerbell_core::code::{Fault, exit};

/// Most grants that the file holds; an older release of the file is never near it.
const MOST: usize = 1_000;

/// A grant of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// What is allowed.
    pub grant: Grant,
    /// The repository that it is for; `None` for all of the user's.
    pub project: Option<PathBuf>,
    /// The question that was answered with it, as `TASK/NUMBER`.
    pub asked: String,
}

impl Filed {
    /// It, and the word for whose it is, where it is about this repository.
    #[must_use]
    pub fn held(&self, repository: &Path) -> Option<Held> {
        match &self.project {
            None => Some(("user", self.grant.clone())),
            Some(project) => (project == repository).then(|| ("project", self.grant.clone())),
        }
    }
}

/// Reads the file; without one there are none.
///
/// # Errors
/// `TB-POLICY-002` for a file that can not be trusted or read, `TB-APPROVE-006` for one with a mistake.
pub fn read(path: &Path, uid: u32) -> Result<Vec<Filed>, Fault> {
    let Some(text) = read_owned(path, &[0, uid])? else { return Ok(Vec::new()) };
    parse(&text).map_err(|why| fault(path, &why))
}

/// Reads the text of the file; else what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<Filed>, String> {
    let file: GrantsFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.version > VERSION {
        return Err(format!("version {} is newer than this program", file.version));
    }
    file.grant
        .into_iter()
        .map(|one| {
            let (id, filed) = (one.id.clone(), Filed::from(one));
            lint_grant(&filed.grant).map_err(|why| format!("grant `{id}`: {why}")).map(|()| filed)
        })
        .collect()
}

/// Adds a grant; one of the same name for the same repository is replaced, expired ones go.
///
/// # Errors
/// As [`read`]; `TB-APPROVE-006` for a grant that would allow anything or a full file.
pub fn add(path: &Path, (uid, now_ms): (u32, u64), filed: Filed) -> Result<(), Fault> {
    lint_grant(&filed.grant).map_err(|why| fault(path, &format!("grant `{}` is refused: {why}", filed.grant.id)))?;
    change(path, uid, |all| {
        all.retain(|old| old.grant.holds(now_ms) && (old.grant.id != filed.grant.id || old.project != filed.project));
        if all.len() >= MOST {
            return Err(fault(path, &format!("there are {MOST} grants already; revoke some: tinkerbell policy grants")));
        }
        all.push(filed);
        Ok(())
    })
}

/// Removes all grants of this name; how many there were.
///
/// # Errors
/// As [`read`].
pub fn revoke(path: &Path, uid: u32, id: &str) -> Result<usize, Fault> {
    let mut gone = 0;
    change(path, uid, |all| {
        let before = all.len();
        all.retain(|old| old.grant.id != id);
        gone = before - all.len();
        Ok(())
    })?;
    Ok(gone)
}

/// Reads, changes and replaces the file under a lock beside it.
fn change(path: &Path, uid: u32, with: impl FnOnce(&mut Vec<Filed>) -> Result<(), Fault>) -> Result<(), Fault> {
    let io = |error: std::io::Error| fault(path, &format!("it can not be written: {error}"));
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(io)?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(path.with_extension("lock"), flags, Mode::RUSR | Mode::WUSR).map_err(|error| io(error.into()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    let mut all = read(path, uid)?;
    with(&mut all)?;
    let file = GrantsFile { version: VERSION, grant: all.into_iter().map(One::from).collect() };
    let body = toml::to_string(&file).map_err(|error| fault(path, &error.to_string()))?;
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut out = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        out.write_all(format::HEAD.as_bytes())?;
        out.write_all(body.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&fresh, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(io)
}

fn fault(path: &Path, why: &str) -> Fault {
    Fault::new("TB-APPROVE-006", exit::CONFIG, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filed(id: &str, project: Option<&str>, expires_ms: u64) -> Filed {
        let grant = Grant {
            id: id.to_owned(),
            argv: vec!["git".to_owned(), "push".to_owned()],
            options: vec!["--tags".to_owned()],
            example: "git push --tags \"origin\"".to_owned(),
            expires_ms,
        };
        Filed { grant, project: project.map(PathBuf::from), asked: "7f3a/2".to_owned() }
    }

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn grants_are_filed_replaced_dropped_when_expired_and_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config/grants.toml");
        assert_eq!(read(&path, uid()), Ok(Vec::new()));
        add(&path, (uid(), 10), filed("g-1", None, 100)).unwrap();
        add(&path, (uid(), 10), filed("g-1", Some("/r"), 20)).unwrap();
        add(&path, (uid(), 10), filed("g-1", None, 200)).unwrap();
        assert_eq!(read(&path, uid()).unwrap(), [filed("g-1", Some("/r"), 20), filed("g-1", None, 200)]);
        add(&path, (uid(), 20), filed("g-2", Some("/r"), 0)).unwrap();
        let all = read(&path, uid()).unwrap();
        assert_eq!(all, [filed("g-1", None, 200), filed("g-2", Some("/r"), 0)]);
        let held =
            |repository: &str| all.iter().filter_map(|one| one.held(Path::new(repository))).map(|(scope, _)| scope).collect::<Vec<_>>();
        assert_eq!((held("/r"), held("/other")), (vec!["user", "project"], vec!["user"]));
        assert_eq!((revoke(&path, uid(), "g-1"), revoke(&path, uid(), "g-1")), (Ok(1), Ok(0)));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777, 0o600);
    }

    #[test]
    fn version_1_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        add(&path, (uid(), 10), filed("g-1", Some("/home/u/répo"), 1_700_000_000_000)).unwrap();
        add(&path, (uid(), 10), filed("g-2", None, 1_700_000_000_000)).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/grants.toml");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn what_others_wrote_or_what_allows_anything_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        add(&path, (uid(), 10), filed("g-1", None, 0)).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (from, to) in
            [("\"git\", \"push\"", "\"env\""), ("version = 1", "version = 2"), ("id =", "idd ="), ("push --tags", "pull --tags")]
        {
            assert!(good.contains(from), "{from}: {good}");
            std::fs::write(&path, good.replace(from, to)).unwrap();
            assert_eq!(read(&path, uid()).unwrap_err().code.0, "TB-APPROVE-006", "{from}");
        }
        let bad = Filed {
            grant: Grant { argv: vec!["sudo".to_owned()], example: "sudo x".to_owned(), ..Grant::default() },
            ..filed("g", None, 0)
        };
        std::fs::write(&path, &good).unwrap();
        assert_eq!(add(&path, (uid(), 0), bad).unwrap_err().code.0, "TB-APPROVE-006");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(read(&path, uid()).unwrap_err().code.0, "TB-POLICY-002");
    }
}
