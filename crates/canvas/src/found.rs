//! Which repository a directory belongs to, and whether both ends say so.
//!
//! Files of a repository name other places: a git directory that stands apart, one that worktrees share, a working
//! tree. They may have come from a stranger together with the rest, so each is believed only where the place that it
//! names says the same. Invariant: the working tree of what is found is the directory that holds `.git`, so nobody
//! but the user, who named a directory at or below it, chooses what a task sees.

use crate::error::{Error, Result};
use crate::gitdir;
use gix::bstr::ByteSlice;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest file that names a path.
const NAMED_BYTES: u64 = 64 << 10;

/// Where a repository stands; all paths are absolute and without links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The directory that holds `.git`.
    pub top: PathBuf,
    /// The git directory of that working tree.
    pub git_dir: PathBuf,
    /// The one that all worktrees share; the same one where there is but one.
    pub common_dir: PathBuf,
}

/// Finds the repository that holds a directory, which must be absolute and without links. What only looks like a
/// git directory and is not called `.git` is content: anybody can lay out a directory so.
///
/// # Errors
/// When there is none, it has no working tree, or its parts do not name each other.
pub fn upwards(cwd: &Path) -> Result<Found> {
    for top in cwd.ancestors() {
        let dot_git = top.join(".git");
        let Ok(meta) = dot_git.symlink_metadata() else { continue };
        let found = if meta.is_dir() { within(top, dot_git)? } else { Some(apart(top, &dot_git)?) };
        let Some(found) = found else { continue };
        if cwd.starts_with(&found.git_dir) {
            return Err(astray(
                top,
                "the directory stands in its git directory, not in its working tree",
                "name a directory of the tree: --cd DIR",
            ));
        }
        if gix::path::env::home_dir().and_then(|home| home.canonicalize().ok()).is_some_and(|home| home.starts_with(&found.common_dir)) {
            let why = format!("its git directory would be {}, which holds a home directory", found.common_dir.display());
            return Err(astray(top, why, "do not use it; have a repository of your own elsewhere: git clone --bare"));
        }
        return Ok(found);
    }
    let bare = cwd.ancestors().find(|dir| has(dir, "HEAD") && has(dir, "objects") && has(dir, "refs"));
    Err(bare.map_or_else(|| Error::NoRepository(cwd.to_owned()), |dir| Error::Bare(dir.to_owned())))
}

/// A git directory in its usual place; `None` when it is none, which git passes over, too.
fn within(top: &Path, git_dir: PathBuf) -> Result<Option<Found>> {
    if !has(&git_dir, "HEAD") {
        return Ok(None);
    }
    if has(&git_dir, "commondir") {
        let why = "its .git holds a file `commondir`, which only the git directory of a linked worktree has";
        return Err(astray(
            top,
            why,
            format!("where it came from a stranger, do not use it; else: rm {}", git_dir.join("commondir").display()),
        ));
    }
    let whole = has(&git_dir, "objects") && has(&git_dir, "refs");
    Ok(whole.then(|| Found { top: top.to_owned(), common_dir: git_dir.clone(), git_dir }))
}

/// A git directory that stands elsewhere, named by a file or a link.
fn apart(top: &Path, dot_git: &Path) -> Result<Found> {
    let git_dir = named(top, dot_git)?;
    if !has(&git_dir, "commondir") {
        // That it names this working tree, its configuration must say: see `agrees`.
        return Ok(Found { top: top.to_owned(), common_dir: git_dir.clone(), git_dir });
    }
    let back = text(&git_dir.join("gitdir")).map(|path| git_dir.join(path));
    let names_us = back.is_some_and(|back| {
        back.file_name() == Some(OsStr::new(".git")) && back.parent().and_then(|dir| dir.canonicalize().ok()).as_deref() == Some(top)
    });
    let common_dir = text(&git_dir.join("commondir")).and_then(|path| git_dir.join(path).canonicalize().ok());
    match common_dir {
        Some(common_dir)
            if names_us && git_dir.parent() == Some(common_dir.join("worktrees").as_path()) && !has(&common_dir, "commondir") =>
        {
            Ok(Found { top: top.to_owned(), git_dir, common_dir })
        }
        _ => Err(one_sided(top, &git_dir)),
    }
}

/// The git directory that `.git` names.
fn named(top: &Path, dot_git: &Path) -> Result<PathBuf> {
    let lost = |why: String| astray(top, why, "start anew in a directory of your own: git init, or git clone");
    let named = match std::fs::read_link(dot_git) {
        Ok(_) => dot_git.to_owned(),
        Err(_) => {
            let text = text(dot_git).ok_or_else(|| lost("its .git is no directory, link or short file".to_owned()))?;
            let path = text.as_os_str().as_bytes().strip_prefix(b"gitdir:").map(|path| OsStr::from_bytes(path.trim_start()).to_owned());
            top.join(path.ok_or_else(|| lost("its file .git names no git directory".to_owned()))?)
        }
    };
    match named.canonicalize() {
        Ok(git_dir) if git_dir.is_dir() => Ok(git_dir),
        _ => Err(lost(format!("its .git names {}, which is not there", named.display()))),
    }
}

/// That the library sees the repository as it was found: the configuration has a word in it.
///
/// # Errors
/// When it does not, with the key that says otherwise.
pub fn agrees(repo: &gix::Repository, found: &Found) -> Result<()> {
    let in_place = found.git_dir == found.top.join(".git");
    let Some(workdir) = repo.workdir() else {
        return Err(if in_place { Error::Bare(found.git_dir.clone()) } else { one_sided(&found.top, &found.git_dir) });
    };
    if workdir.canonicalize().ok().as_ref() != Some(&found.top) {
        if !in_place {
            return Err(one_sided(&found.top, &found.git_dir));
        }
        let why = format!("core.worktree in its configuration makes {} its working tree", workdir.display());
        let file = if has(&found.git_dir, "config.worktree") { "config.worktree" } else { "config" };
        let file = found.git_dir.join(file);
        return Err(astray(&found.top, why, format!("git config --file {} --unset core.worktree", file.display())));
    }
    let same = |path: &Path, wanted: &Path| path.canonicalize().is_ok_and(|path| path == wanted);
    if !same(repo.git_dir(), &found.git_dir) || !same(repo.common_dir(), &found.common_dir) {
        return Err(one_sided(&found.top, &found.git_dir));
    }
    let index = repo.index_path();
    if index.file_name() != Some(OsStr::new("index")) || !index.parent().is_some_and(|dir| same(dir, &found.git_dir)) {
        let why = format!("its configuration puts the index at {}", index.display());
        return Err(astray(&found.top, why, "git config --unset gitoxide.core.indexFile"));
    }
    Ok(())
}

fn one_sided(top: &Path, git_dir: &Path) -> Error {
    let (top_shown, dir) = (top.display(), git_dir.display());
    let why = format!("its .git names {dir}, which does not name it back");
    let hint = if has(git_dir, "commondir") {
        format!("a worktree of yours that was moved: git -C {top_shown} worktree repair; else do not use it")
    } else {
        format!("where that directory is made for it alone: git --git-dir={dir} config core.worktree {top_shown}; else do not use it")
    };
    astray(top, why, hint)
}

/// A repository that is not used, why, and what to do.
pub fn astray(place: &Path, why: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Astray { place: place.to_owned(), why: why.into(), hint: hint.into() }
}

fn has(dir: &Path, name: &str) -> bool {
    dir.join(name).symlink_metadata().is_ok()
}

/// The path in a short regular file.
fn text(file: &Path) -> Option<PathBuf> {
    let bytes = gitdir::small(file, NAMED_BYTES).ok()??;
    let path = bytes.trim_end();
    (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}
