//! A user's repository in a temporary directory, the real git as oracle, and a canvas on it.
//!
//! No assertions of its own beyond "the command worked". Invariant: the machine's own git
//! configuration never counts.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tinkerbell_canvas::{GitCanvas, Options};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Canvas, Checkpoint, Difference, Kept, LandSpec, Landed, Landing, MicroCommit, OpenSpec, Opened};
use tinkerbell_core::words::{GitId, TaskId};

pub const TASK: TaskId = TaskId(0x7f3a_0000_0000_0000_0000_0000_0000_0001);

/// Where a house stands: removed with it, or somebody else's.
pub enum Place {
    Own(tempfile::TempDir),
    Lent(PathBuf),
}

impl Place {
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Lent(dir) => dir,
        }
    }
}

pub struct House {
    pub dir: Place,
    pub canvas: Arc<GitCanvas>,
    pub options: Options,
}

impl House {
    /// An empty repository on branch `main`.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("user")).unwrap();
        let mut options = Options::new(dir.path().join("data"));
        options.home_config = false;
        change(&mut options);
        let house = Self { canvas: GitCanvas::new(options.clone()), dir: Place::Own(dir), options };
        house.git(&["init", "-q", "-b", "main"]);
        house.git(&["config", "user.name", "User"]);
        house.git(&["config", "user.email", "user@example.com"]);
        house
    }

    /// A house whose directory another process keeps.
    pub fn again_in(dir: &Path) -> Self {
        let mut options = Options::new(dir.join("data"));
        options.home_config = false;
        Self { canvas: GitCanvas::new(options.clone()), dir: Place::Lent(dir.to_owned()), options }
    }

    /// The same data directory, nothing remembered: the daemon after a crash.
    pub fn again(&mut self) {
        self.canvas = GitCanvas::new(self.options.clone());
    }

    pub fn user(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    pub fn write(&self, path: &str, content: &str) {
        write(&self.user(), path, content.as_bytes());
    }

    pub fn commit_all(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn git(&self, args: &[&str]) -> String {
        git_in(&self.user(), args)
    }

    pub fn spec(&self) -> OpenSpec {
        OpenSpec { task: TASK, cwd: self.user(), base: None }
    }

    pub fn open(&self) -> Opened {
        wait(self.canvas.open(self.spec())).unwrap()
    }

    pub fn take(&self, opened: &Opened) -> GitId {
        self.guarded(opened, None).id
    }

    pub fn guarded(&self, opened: &Opened, guard: Option<GitId>) -> Checkpoint {
        wait(self.canvas.checkpoint(opened.workspace.clone(), guard.map(Kept::from))).unwrap()
    }

    pub fn restore(&self, opened: &Opened, to: &GitId) -> GitId {
        wait(self.canvas.restore(opened.workspace.clone(), to.clone())).unwrap()
    }

    pub fn commit(&self, opened: &Opened, tree: &GitId, message: &str) -> Result<GitId, Fault> {
        let parent = wait(self.canvas.tip(opened.workspace.clone())).unwrap();
        wait(self.canvas.commit(
            opened.workspace.clone(),
            MicroCommit { tree: tree.clone(), parent, message: message.to_owned(), time_s: 1_700_000_000 },
        ))
    }

    pub fn diff(&self, opened: &Opened, from: &GitId, to: &GitId) -> Difference {
        wait(self.canvas.diff(opened.workspace.clone(), from.clone(), to.clone(), true)).unwrap()
    }

    pub fn land_spec(&self, opened: &Opened, branch: Option<&str>) -> LandSpec {
        LandSpec {
            workspace: opened.workspace.clone(),
            from: opened.checkpoint.clone(),
            to: self.take(opened),
            branch: branch.map(str::to_owned),
            message: "land: the change\n\nTask: 7f3a\n".to_owned(),
            time_s: 1_700_000_100,
        }
    }

    pub fn land(&self, opened: &Opened) -> Result<Landed, Fault> {
        wait(self.canvas.land(self.land_spec(opened, None)))
    }

    /// All that must stay as it is: files, index, HEAD, branches but the tasks'.
    pub fn untouched(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = listing(&self.user(), &|path| path.starts_with(".git"));
        let git = self.user().join(".git");
        all.insert("index".into(), std::fs::read(git.join("index")).unwrap_or_default());
        all.insert("HEAD".into(), std::fs::read(git.join("HEAD")).unwrap_or_default());
        all.insert("config".into(), std::fs::read(git.join("config")).unwrap_or_default());
        let refs = self.git(&["for-each-ref"]);
        all.insert("refs".into(), refs.lines().filter(|line| !line.contains("refs/heads/tinkerbell/")).collect::<String>().into_bytes());
        all
    }
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub fn run_git(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("HOME", dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("GIT_OPTIONAL_LOCKS", "0");
    command.output().unwrap()
}

pub fn git_in(dir: &Path, args: &[&str]) -> String {
    let out = run_git(dir, args);
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Every file, link and directory below `root` with its mode and content.
pub fn listing(root: &Path, skip: &dyn Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let rel = path.strip_prefix(root).unwrap();
            let name: String = rel.as_os_str().as_bytes().iter().flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect();
            if skip(&name) {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            let mode = meta.permissions().mode() & 0o777;
            if meta.is_symlink() {
                out.insert(name, std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec());
            } else if meta.is_dir() {
                out.insert(format!("{name}/ {mode:o}"), Vec::new());
                open.push(path);
            } else {
                out.insert(format!("{name} {mode:o}"), std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

/// The task's tree, without git's own file.
pub fn tree(opened: &Opened) -> BTreeMap<String, Vec<u8>> {
    listing(&opened.workspace.tree, &|path| path == ".git")
}
