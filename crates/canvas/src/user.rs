//! The user's repository, opened so that nothing in it can make us run a program.
//!
//! Reads configuration, commits and references; writes objects, and references by compare-and-swap.
//! Invariant: the working tree, the index and HEAD of the user are never written here.

use crate::beneath::{Obstacle, Root};
use crate::error::{Error, Result, words};
use crate::store::full_name;
use crate::{found, gitdir};
use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use gix::refs::transaction::{LogChange, PreviousValue, RefEdit, RefLog};
use std::path::{Path, PathBuf};

/// Most bytes that one object may take: those of the largest file that is recorded. What an object says of its size
/// is believed before anything of it is read.
pub const OBJECT_LIMIT: &str = "gitoxide.objects.allocLimit=4g";

/// How the user's repository is opened: with the user's own configuration, for name, line ends and
/// ignore patterns, but without the environment's word on where the repository is.
fn options(home_config: bool) -> gix::open::Options {
    use gix::sec::Permission::{Allow, Deny};
    let mut permissions = gix::open::Permissions::isolated();
    permissions.config.includes = true;
    permissions.attributes.git = home_config;
    if home_config {
        permissions.config.system = true;
        permissions.config.git = true;
        permissions.config.user = true;
        permissions.env.home = Allow;
        permissions.env.xdg_config_home = Allow;
    }
    permissions.env.identity = Deny;
    gix::open::Options::isolated().permissions(permissions).open_path_as_is(true).config_overrides([OBJECT_LIMIT])
}

/// Opens a repository by the git directory that its worktrees share, after a look at what stands there.
///
/// # Errors
/// When it is not there, or not to be used.
pub fn open_git_dir(git_dir: &Path, home_config: bool) -> Result<gix::Repository> {
    gitdir::check(git_dir, git_dir)?;
    let repo = open_checked(git_dir, home_config)?;
    gitdir::check_named(&repo)?;
    Ok(repo)
}

fn open_checked(git_dir: &Path, home_config: bool) -> Result<gix::Repository> {
    gix::open_opts(git_dir, options(home_config)).map_err(|e| Error::Gone(git_dir.to_owned(), words(&e)))
}

/// Finds the repository that holds a directory; its working tree holds the directory, too.
///
/// # Errors
/// When there is none, it has no working tree, or what stands in it names other places.
pub fn discover(cwd: &Path, home_config: bool) -> Result<gix::Repository> {
    let cwd = cwd.canonicalize().map_err(Error::io("open", cwd))?;
    let found = found::upwards(&cwd)?;
    gitdir::check_whole(&found.git_dir, &found.common_dir)?;
    let repo = open_checked(&found.git_dir, home_config)?;
    found::agrees(&repo, &found)?;
    gitdir::check_named(&repo)?;
    Ok(repo)
}

/// The working tree of a repository, absolute and without links.
pub fn workdir(repo: &gix::Repository) -> Result<PathBuf> {
    let dir = repo.workdir().ok_or_else(|| Error::Bare(repo.git_dir().to_owned()))?;
    dir.canonicalize().map_err(Error::io("open", dir))
}

/// The directory that all worktrees of a repository share, absolute and without links.
pub fn common_dir(repo: &gix::Repository) -> Result<PathBuf> {
    repo.common_dir().canonicalize().map_err(Error::io("open", repo.common_dir()))
}

/// Who commits: the user's configured name, or the house's.
pub fn identity(repo: &gix::Repository, time_s: u64) -> gix::actor::Signature {
    let config = repo.config_snapshot();
    let read = |keys: [&str; 2]| keys.iter().find_map(|key| config.string(*key)).map(one_line).filter(|value| !value.is_empty());
    let name = read(["author.name", "user.name"]);
    let email = read(["author.email", "user.email"]);
    let (name, email) = match (name, email) {
        (Some(name), Some(email)) => (name, email),
        _ => (BString::from("tinkerbell"), BString::from("tinkerbell@localhost")),
    };
    let time = gix::date::Time { seconds: i64::try_from(time_s).unwrap_or(i64::MAX), offset: 0 };
    gix::actor::Signature { name, email, time }
}

/// What git leaves of a name: no signs that end it or its line.
fn one_line(value: BString) -> BString {
    let clean: Vec<u8> = value.bytes().filter(|byte| !byte.is_ascii_control() && !matches!(byte, b'<' | b'>')).collect();
    clean.trim().into()
}

/// A commit to be written: the same fields always give the same id.
pub struct NewCommit<'a> {
    /// Its tree.
    pub tree: ObjectId,
    /// Its parents.
    pub parents: Vec<ObjectId>,
    /// Whole message.
    pub message: &'a str,
    /// Seconds since the epoch.
    pub time_s: u64,
}

/// Writes a commit object, and moves no reference.
pub fn write_commit(repo: &gix::Repository, new: &NewCommit<'_>) -> Result<ObjectId> {
    let who = identity(repo, new.time_s);
    let mut message = new.message.trim_end().to_owned();
    message.push('\n');
    let commit = gix::objs::Commit {
        tree: new.tree,
        parents: new.parents.iter().copied().collect(),
        author: who.clone(),
        committer: who,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    Ok(repo.write_object(&commit).map_err(Error::git("write commit"))?.detach())
}

/// Where a reference stands; `None` when it does not exist.
pub fn tip(repo: &gix::Repository, name: &str) -> Result<Option<ObjectId>> {
    let name = full_name(name)?;
    let Some(mut reference) = repo.try_find_reference(name.as_ref()).map_err(Error::git("read reference"))? else { return Ok(None) };
    Ok(Some(reference.peel_to_id().map_err(Error::git("read reference"))?.detach()))
}

/// A move of a reference: from where, to where (`None`: it does not exist), and why.
pub struct Move<'a> {
    /// The reference's full name.
    pub name: &'a str,
    /// Where it must stand.
    pub from: Option<ObjectId>,
    /// Where it shall stand.
    pub to: Option<ObjectId>,
    /// One line for the reflog.
    pub why: &'a str,
    /// Time for the reflog, seconds since the epoch.
    pub time_s: u64,
}

/// Where the tasks' branches stand.
const TASKS: &str = "refs/heads/tinkerbell/";

/// Moves a reference by compare-and-swap.
///
/// # Errors
/// When it does not stand at `from`; then nothing was changed.
pub fn move_ref(repo: &gix::Repository, step: &Move<'_>) -> Result<()> {
    let name = full_name(step.name)?;
    let expected = step.from.map_or(PreviousValue::MustNotExist, |id| PreviousValue::MustExistAndMatch(id.into()));
    let edit = match step.to {
        Some(id) => {
            let log = LogChange { mode: RefLog::AndReference, force_create_reflog: false, message: step.why.into() };
            RefEdit::update_with_log(name, id, expected, log)
        }
        None => RefEdit::delete(name, expected),
    };
    let who = identity(repo, step.time_s);
    let mut time = gix::date::parse::TimeBuf::default();
    let mut done = repo.edit_references_as(Some(edit.clone()), Some(who.to_ref(&mut time)));
    // On a task's branch nobody works but us: a lock that stands is what a killed daemon left.
    if done.is_err() && step.name.starts_with(TASKS) && crate::stale::outlive(&repo.common_dir().join(step.name))? {
        done = repo.edit_references_as(Some(edit), Some(who.to_ref(&mut time)));
    }
    let Err(error) = done else { return Ok(()) };
    let found = tip(repo, step.name)?;
    if found == step.from {
        return Err(Error::BranchBlocked(step.name.to_owned(), words(&error)));
    }
    let text = |id: Option<ObjectId>| id.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    Err(Error::Moved { branch: step.name.to_owned(), expected: text(step.from), found: text(found) })
}

/// Adds the move to HEAD's own log, as git does where HEAD stands on the moved branch. A log that is no regular
/// file of its own gets no line.
pub fn log_head(repo: &gix::Repository, step: &Move<'_>) -> Result<()> {
    let null = repo.object_hash().null();
    let who = identity(repo, step.time_s);
    let (from, to) = (step.from.unwrap_or(null), step.to.unwrap_or(null));
    let why = step.why.lines().next().unwrap_or_default();
    let line = format!("{from} {to} {} <{}> {} +0000\t{why}\n", who.name, who.email, step.time_s);
    let dir = Root::open(repo.git_dir(), Obstacle::Refuse)?;
    dir.append(b"logs/HEAD".as_bstr(), line.as_bytes())
}

/// The tree of a commit.
pub fn tree_of(repo: &gix::Repository, commit: ObjectId) -> Result<ObjectId> {
    Ok(repo.find_commit(commit).map_err(Error::git("read commit"))?.tree_id().map_err(Error::git("read commit"))?.detach())
}
