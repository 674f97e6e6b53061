//! What a command sees of a repository: the task's own git directory, and of the shared one what git reads.
//!
//! A delivered repository chooses which directory is the shared one, and a bare one may stand in a directory with
//! other things: other worktrees, or whatever lay where an archive was unpacked. Invariant: of a directory that is
//! not called `.git` only git's own names are granted, and of none what has a name that git does not know.

use super::real::Real;
use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What git reads of a shared directory that holds other things, too.
const READ: &[&str] = &[
    "HEAD",
    "config",
    "config.worktree",
    "info/attributes",
    "info/exclude",
    "info/grafts",
    "info/sparse-checkout",
    "logs/HEAD",
    "logs/refs",
    "packed-refs",
    "refs",
    "reftable",
    "shallow",
];
/// Names in a directory called `.git`, beside those that are read: git's, and of its extension for large files.
const KNOWN: &[&str] = &[
    "AUTO_MERGE",
    "addp-hunk-edit.diff",
    "branches",
    "commondir",
    "description",
    "gc.log",
    "gc.pid",
    "gitdir",
    "hooks",
    "index",
    "info",
    "lfs",
    "logs",
    "modules",
    "objects",
    "remotes",
    "rr-cache",
    "sequencer",
    "worktrees",
];
/// How others of them begin, or end.
const BEGIN: &[&str] = &["BISECT_", "MERGE_", "NOTES_", "config", "fsmonitor--daemon", "rebase-", "sharedindex."];
const END: &[&str] = &["_EDITMSG", "_HEAD", "_MSG", ".lock"];
/// Most names that are hidden one by one; a directory with more of them is granted by name.
const STRANGERS: usize = 64;
/// Most names that are looked at for that.
const ENTRIES: usize = 4096;
/// Largest list of borrowed stores.
const LIST_BYTES: u64 = 1 << 20;

/// What is granted for reading, and what is hidden within it.
#[derive(Debug, Default)]
pub struct Git {
    /// Directories and files, links resolved.
    pub roots: Vec<PathBuf>,
    /// Hidden paths within them.
    pub holes: Vec<PathBuf>,
    /// What git keeps of other worktrees, hidden where that costs nothing else. Rules that only add would have to
    /// grant each name beside them, and a file that the host replaces meanwhile would be lost to a running command.
    pub others: Vec<PathBuf>,
}

impl Git {
    /// Looks at the git directories of a workspace, and at the stores of objects that they lean on. `hidden` is
    /// what nothing may show.
    pub fn find((own, common): (&Path, &Path), hidden: Vec<PathBuf>, real: &Real) -> Self {
        let Ok(common) = real.of(common) else { return Self::default() };
        let mut git = Self { holes: hidden, ..Self::default() };
        let own = real.of(own).ok().filter(|own| own.starts_with(common.join("worktrees")));
        let others = |path: &Path| Some(path) != own.as_deref();
        let hidden = || {
            let mut strangers = covered(&common, is_strange)?;
            of_modules(&common.join("modules"), &mut strangers)?;
            Some((strangers, covered(&common.join("worktrees"), others)?))
        };
        match hidden().filter(|_| common.file_name() == Some(OsStr::new(".git"))) {
            Some((strangers, others)) => {
                git.roots.push(common.clone());
                git.holes.extend(strangers);
                git.others = others;
            }
            None => git.by_name(&common, real),
        }
        git.roots.extend(own);
        git.roots.extend(borrowed(&common, real));
        let roots = &git.roots;
        git.holes.retain(|hole| roots.iter().any(|root| hole.starts_with(root) && hole != root));
        git.holes.sort();
        git.holes.dedup();
        git
    }

    /// Names that are not there are left out, and so are links: what they lead to may be anything.
    fn by_name(&mut self, common: &Path, real: &Real) {
        let is_real = |path: &PathBuf| real.of(path).is_ok_and(|real| real == *path);
        self.roots.extend(READ.iter().map(|name| common.join(name)).filter(is_real));
        let objects = common.join("objects");
        if is_store(&objects) {
            self.roots.extend(Some(objects).filter(is_real));
        } else {
            let entries = std::fs::read_dir(&objects).into_iter().flatten().flatten();
            let is_kept = |name: &str| is_part(name) && !name.starts_with("tmp_");
            let parts = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_kept));
            self.roots.extend(parts.map(|entry| entry.path()).filter(is_real));
        }
    }

    /// Sockets right within a directory, of git's watcher of files for one: that a directory is mounted read-only
    /// keeps nobody from speaking to who listens there.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let entries = self.roots.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())).map(|entry| entry.path()).collect()
    }
}

/// What is to be covered in a directory, which need not be there; `None` when it is too much.
fn covered(dir: &Path, is_covered: impl Fn(&Path) -> bool) -> Option<Vec<PathBuf>> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES + 1).map(|entry| entry.path()).collect();
    let is_long = entries.len() > ENTRIES;
    let found: Vec<PathBuf> = entries.into_iter().filter(|path| is_covered(path)).collect();
    (!is_long && found.len() <= STRANGERS).then_some(found)
}

/// Adds what is to be covered in the git directories of submodules, whose names may have slashes; `None` when it is
/// too much.
fn of_modules(modules: &Path, found: &mut Vec<PathBuf>) -> Option<()> {
    let (mut rest, mut seen) = (vec![modules.to_owned()], 0);
    while let Some(dir) = rest.pop() {
        let is_module = dir.join("HEAD").symlink_metadata().is_ok();
        if is_module {
            found.extend(covered(&dir, is_strange)?);
        }
        let inner = if is_module { dir.join("modules") } else { dir };
        for entry in std::fs::read_dir(&inner).into_iter().flatten().flatten() {
            seen += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                rest.push(entry.path());
            } else if !is_module {
                // Nothing but directories stands between the names.
                found.push(entry.path());
            }
        }
        if seen > ENTRIES || found.len() > STRANGERS {
            return None;
        }
    }
    Some(())
}

/// Whether git does not know a name.
fn is_strange(path: &Path) -> bool {
    let is_known = |name: &str| {
        READ.contains(&name)
            || KNOWN.contains(&name)
            || BEGIN.iter().any(|begin| name.starts_with(begin))
            || END.iter().any(|end| name.ends_with(end))
    };
    !path.file_name().and_then(OsStr::to_str).is_some_and(is_known)
}

/// The stores that a list names by absolute paths.
fn borrowed(common: &Path, real: &Real) -> Vec<PathBuf> {
    use std::io::Read;
    let path = common.join("objects/info/alternates");
    let mut list = String::new();
    // One that is no file might have no end.
    let file = if path.is_file() { std::fs::File::open(path) } else { return Vec::new() };
    if file.is_ok_and(|file| file.take(LIST_BYTES).read_to_string(&mut list).is_err()) {
        return Vec::new();
    }
    let named = list.split('\n').map(Path::new).filter(|line| line.is_absolute());
    named.filter_map(|line| real.of(line).ok()).filter(|dir| is_store(dir)).collect()
}

/// Whether a directory is a store of git's objects and nothing else: the file that names it may have
/// come with the repository, and names what a command is to read.
fn is_store(dir: &Path) -> bool {
    let names = |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_part));
    dir.ends_with("objects") && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.all(names))
}

/// Whether a name is one of those in a store of objects.
fn is_part(name: &str) -> bool {
    let is_fan = name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_fan || matches!(name, "pack" | "info" | "maintenance.lock") || name.starts_with("tmp_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names below a directory that are granted, or hidden.
    fn below(dir: &Path, paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.strip_prefix(dir).unwrap().display().to_string()).collect()
    }

    fn made(dir: &Path, dirs: &[&str], files: &[&str]) {
        dirs.iter().for_each(|name| std::fs::create_dir_all(dir.join(name)).unwrap());
        files.iter().for_each(|name| std::fs::write(dir.join(name), "x\n").unwrap());
    }

    #[test]
    fn a_directory_with_other_things_is_granted_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path().canonicalize().unwrap();
        let own = common.join("worktrees/own");
        made(
            &common,
            &["objects/pack", "objects/ab", "refs/heads", "worktrees/own", "worktrees/other", ".ssh", "main", "logs", "info"],
            &["HEAD", "config", ".ssh/id", "main/.env", "logs/of-work", "info/mine", "info/exclude"],
        );
        std::os::unix::fs::symlink(common.join(".ssh/id"), common.join("packed-refs")).unwrap();
        let git = Git::find((&own, &common), Vec::new(), &Real::default());
        assert_eq!(below(&common, &git.roots), ["HEAD", "config", "info/exclude", "refs", "objects", "worktrees/own"]);
        made(&common, &["objects/mine"], &[]);
        let mut roots = below(&common, &Git::find((&own, &common), Vec::new(), &Real::default()).roots);
        roots.sort();
        assert_eq!(roots, ["HEAD", "config", "info/exclude", "objects/ab", "objects/pack", "refs", "worktrees/own"]);
        // A directory of one's own that is none of this repository's is not granted.
        made(&common, &["elsewhere"], &[]);
        let roots = below(&common, &Git::find((&common.join("elsewhere"), &common), Vec::new(), &Real::default()).roots);
        assert!(!roots.contains(&"elsewhere".to_owned()), "{roots:?}");
    }

    #[test]
    fn a_usual_git_directory_is_granted_but_for_what_git_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path().canonicalize().unwrap().join(".git");
        made(
            &common,
            &["objects", "refs", "hooks", "git-crypt", "info", "worktrees/own", "worktrees/other"],
            &["HEAD", "ORIG_HEAD", "packed-refs.lock", "notes.txt", "info/key"],
        );
        made(
            &common,
            &["modules/sub/git-crypt/keys", "modules/sub/objects", "modules/deep/er/modules/in", "modules/deep/er/refs"],
            &[
                "modules/sub/HEAD",
                "modules/deep/er/HEAD",
                "modules/deep/er/modules/in/HEAD",
                "modules/deep/er/modules/in/key",
                "modules/deep/loose",
            ],
        );
        let hidden = vec![common.join("info/key"), common.clone(), dir.path().to_owned(), PathBuf::from("/etc/shadow")];
        let own = common.join("worktrees/own");
        let git = Git::find((&own, &common), hidden.clone(), &Real::default());
        assert_eq!(below(&common, &git.roots), ["", "worktrees/own"]);
        assert_eq!(below(&common, &git.others), ["worktrees/other"]);
        assert_eq!(
            below(&common, &git.holes),
            ["git-crypt", "info/key", "modules/deep/er/modules/in/key", "modules/deep/loose", "modules/sub/git-crypt", "notes.txt"]
        );
        // Far too many of them.
        (0..=STRANGERS).for_each(|n| made(&common, &[], &[&format!("x{n}")]));
        let git = Git::find((&common, &common), hidden, &Real::default());
        assert_eq!((below(&common, &git.roots), git.holes.len()), (vec!["HEAD".into(), "refs".into(), "objects".into()], 0));
    }
}
