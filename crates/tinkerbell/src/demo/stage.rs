//! The stage: a temporary directory with a sample repository and a home for the daemon.
//!
//! Git is asked through the user's own binary, as an independent witness of what the canvas did.
//! Invariant: everything lies below one directory that is removed at the end.

use super::Show;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use tinkerbell_core::code::{Fault, exit};

/// The sample repository.
const SAMPLE: [(&str, &str); 13] = [
    ("README.md", include_str!("../../demo/sample/README.md")),
    ("AGENTS.md", include_str!("../../demo/sample/AGENTS.md")),
    (".gitignore", include_str!("../../demo/sample/.gitignore")),
    (".ci/check.sh", include_str!("../../demo/sample/.ci/check.sh")),
    ("bin/roman", include_str!("../../demo/sample/bin/roman")),
    ("docs/format.md", include_str!("../../demo/sample/docs/format.md")),
    ("lib/check.sh", include_str!("../../demo/sample/lib/check.sh")),
    ("lib/encode.sh", include_str!("../../demo/sample/lib/encode.sh")),
    ("lib/decode.sh", include_str!("../../demo/sample/lib/decode.sh")),
    ("tests/run.sh", include_str!("../../demo/sample/tests/run.sh")),
    ("tests/all-numbers.sh", include_str!("../../demo/sample/tests/all-numbers.sh")),
    ("tests/encode.txt", include_str!("../../demo/sample/tests/encode.txt")),
    ("tests/decode.txt", include_str!("../../demo/sample/tests/decode.txt")),
];
/// The recorded turns of the model.
const TURNS: &str = include_str!("../../demo/turns.jsonl");

/// The directories of one demo.
pub struct Stage {
    /// All of it.
    pub root: PathBuf,
    /// The sample repository: the user's, in this play.
    pub sample: PathBuf,
    /// `TINKERBELL_HOME` of its daemon.
    pub home: PathBuf,
    /// Our own binary.
    pub exe: PathBuf,
    /// PATH of the user.
    path: String,
}

fn broken(what: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::new("TB-DEMO-001", exit::FAILED, format!("the demo's stage could not be set: {what}: {error}"))
        .hint("it needs git, /bin/sh and some space in the temporary directory")
}

impl Stage {
    /// Writes sample and home.
    ///
    /// # Errors
    /// When the temporary directory can not be written, or git is missing.
    pub fn set(show: &Show<'_>, salt: u128) -> Result<Self, Fault> {
        let temporary = show.env.path("TMPDIR").filter(|dir| dir.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp"));
        let root = temporary.join(format!("tinkerbell-demo-{:08x}", salt as u32));
        std::fs::DirBuilder::new().mode(0o700).create(&root).map_err(|error| broken(&root.display().to_string(), &error))?;
        let stage = Self {
            sample: root.join("roman"),
            home: root.join("home"),
            root,
            exe: show.exe.to_owned(),
            path: show.env.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin").to_owned(),
        };
        let filled = stage.fill(show);
        if filled.is_err() {
            // The cause is told; what was written of the stage is of no use.
            let _gone = std::fs::remove_dir_all(&stage.root);
        }
        filled.map(|()| stage)
    }

    fn fill(&self, show: &Show<'_>) -> Result<(), Fault> {
        for (name, text) in SAMPLE {
            write(&self.sample.join(name), text)?;
        }
        std::fs::set_permissions(self.sample.join("bin/roman"), std::fs::Permissions::from_mode(0o755))
            .map_err(|error| broken("bin/roman", &error))?;
        let turns = self.home.join("turns.jsonl");
        write(&turns, TURNS)?;
        let own = std::fs::read_to_string(show.config).unwrap_or_default();
        let recorded = format!("model = \"demo/recorded\"\n\n[providers.demo]\nwire = \"replay\"\npath = \"{}\"\n", turns.display());
        write(&self.home.join("config.toml"), if show.model.is_some() { &own } else { &recorded })?;
        self.git(&["init", "--quiet", "--initial-branch=main"])?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "roman: numbers to numerals"]).map(drop)
    }

    /// Runs git in the sample without any configuration but the sample's own.
    fn git(&self, args: &[&str]) -> Result<String, Fault> {
        self.git_with(args, &[])
    }

    fn git_with(&self, args: &[&str], env: &[(&str, &Path)]) -> Result<String, Fault> {
        let output = Command::new("git")
            .args(["-c", "user.name=You", "-c", "user.email=you@localhost", "-c", "core.hooksPath=/dev/null"])
            .args(args)
            .current_dir(&self.sample)
            .env_clear()
            .env("PATH", &self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(env.iter().copied())
            .output()
            .map_err(|error| broken("git", &error))?;
        if !output.status.success() {
            return Err(broken(&format!("git {}", args.join(" ")), &String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The micro-commits of a branch with their trailers.
    ///
    /// # Errors
    /// When git does not answer.
    pub fn log(&self, branch: &str) -> Result<String, Fault> {
        let trailers = "%(trailers:key=Step,key=Lsn,key=Model,key=Cost,separator=%x20·%x20,key_value_separator=%x20)";
        self.git(&["log", "--reverse", &format!("--format=%h  %s%n         {trailers}"), &format!("main..{branch}")])
    }

    /// The tree that the user had, by git's own hash.
    ///
    /// # Errors
    /// When git does not answer.
    pub fn base_tree(&self) -> Result<String, Fault> {
        self.git(&["rev-parse", "HEAD^{tree}"])
    }

    /// The hash of a directory as git would commit it, untracked files included.
    ///
    /// # Errors
    /// When git does not answer.
    pub fn tree_of(&self, dir: &Path) -> Result<String, Fault> {
        let index = self.root.join("witness.index");
        let git_dir = self.sample.join(".git");
        let env = [("GIT_INDEX_FILE", index.as_path()), ("GIT_DIR", git_dir.as_path()), ("GIT_WORK_TREE", dir)];
        self.git_with(&["-C", &dir.display().to_string(), "add", "--all"], &env)?;
        let tree = self.git_with(&["write-tree"], &env);
        std::fs::remove_file(&index).map_err(|error| broken("witness.index", &error))?;
        tree
    }

    /// Whether the user's files, index and branch are as they were.
    ///
    /// # Errors
    /// When git does not answer.
    pub fn is_untouched(&self) -> Result<bool, Fault> {
        let clean = self.git(&["status", "--porcelain"])?.is_empty();
        Ok(clean && self.git(&["rev-list", "--count", "HEAD"])? == "1")
    }

    /// Stops what may still run, and removes everything.
    pub async fn clear(&self) {
        if let Ok(client) = tinkerbell_api::Client::connect(self.home.join("run/tinkerbelld.sock")).await {
            // Best effort on the way out: an interrupted demo leaves a daemon that is asked to go.
            let open = client.tasks(true, 100, None).await.map(|page| page.tasks);
            for task in open.unwrap_or_default() {
                let _ended_or_gone = client.command(&task.id, &tinkerbell_api::wire::CommandRequest::Cancel {}).await;
            }
            let _going = client.stop().await;
        }
        for _ in 0..100 {
            // A daemon on its way out may still write its last records.
            if std::fs::remove_dir_all(&self.root).is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let parent = path.parent().unwrap_or(path);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| broken(&path.display().to_string(), &error))
}
