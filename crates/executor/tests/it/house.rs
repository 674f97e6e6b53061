//! A house for one test: a temporary place, a workspace, a sandbox at one level.

use futures_core::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy, Stamp};
use tinkerbell_core::effect::Fence;
use tinkerbell_core::port::{Ended, ExecSpec, Level, Limits, Sandbox, Unit, UnitState, Until};
use tinkerbell_core::words::{RunId, TaskId, Workspace};
use tinkerbell_executor::{HostSandbox, LevelChoice, NetworkChoice, SandboxOptions, WorkspaceChoice};

pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Stamp {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let mono_ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        Stamp { wall_ms: mono_ms, mono_ms }
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Unique within and between test processes.
pub struct Counted;

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Entropy for Counted {
    fn id(&self) -> u128 {
        let n = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
        (u128::from(std::process::id()) << 64) | (u128::from(RealClock.now().mono_ms) << 24) | n
    }
}

pub struct House {
    pub dir: tempfile::TempDir,
    pub options: SandboxOptions,
    pub sandbox: Arc<HostSandbox>,
    pub workspace: Workspace,
    pub task: TaskId,
    pub level: Level,
}

impl House {
    /// A house at this level; `None`, with a word, where the host does not give it.
    pub async fn at(level: Level) -> Option<Self> {
        Self::with(level, WorkspaceChoice::Direct).await
    }

    /// A house whose commands write to layers over the workspace.
    pub async fn layered() -> Option<Self> {
        Self::with(Level::Full, WorkspaceChoice::Overlay).await
    }

    async fn with(level: Level, workspace: WorkspaceChoice) -> Option<Self> {
        // Not below /tmp where that can be: there a command has a private one, and what it writes
        // beside its workspace succeeds without being seen by anyone.
        let named = |dir: &Path| tempfile::Builder::new().prefix("tb-exec-").tempdir_in(dir);
        let dir = named(Path::new(env!("CARGO_TARGET_TMPDIR"))).or_else(|_| named(&std::env::temp_dir())).unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["tree/sub", "data/secret", "home/.ssh", "git/hooks", "cache"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("home/.ssh/id"), "ssh-canary").unwrap();
        std::fs::write(root.join("data/secret/key"), "data-canary").unwrap();
        std::fs::write(root.join("git/config"), "[core]\n").unwrap();
        std::fs::write(root.join("tree/.git"), format!("gitdir: {}\n", root.join("git").display())).unwrap();
        let options = SandboxOptions {
            exe: PathBuf::from(env!("CARGO_BIN_EXE_tb-keeper-for-tests")),
            // So long that the path of a keeper's socket exceeds its 107 bytes.
            runs_dir: root.join("data").join("x".repeat(100)).join("runs"),
            homes_dir: root.join("data/homes"),
            limits: Limits::default(),
            cache_dir: root.join("cache"),
            hidden: vec![root.join("data")],
            level: match level {
                Level::Full => LevelChoice::Full,
                Level::Landlock => LevelChoice::Landlock,
                Level::None => LevelChoice::None,
            },
            network: NetworkChoice::None,
            way_out: None,
            workspace,
            read: Vec::new(),
            home: Some(root.join("home")),
            path: std::env::var("PATH").unwrap_or_default(),
            env: Vec::new(),
            known: tinkerbell_secret::Known::new(),
        };
        let task = TaskId(Counted.id());
        let workspace = Workspace {
            task,
            repo: root.join("repo"),
            tree: root.join("tree"),
            git_dir: root.join("git"),
            common_dir: root.join("git"),
            branch: "refs/heads/tinkerbell/test".into(),
            base: "0".repeat(40).parse().unwrap(),
        };
        let sandbox = daemon(&options);
        let proven = sandbox.level().await;
        if let Err(fault) = proven {
            eprintln!("skipped at level {}: {fault}", level.name());
            return None;
        }
        Some(Self { dir, options, sandbox, workspace, task, level })
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub fn tree(&self) -> &Path {
        &self.workspace.tree
    }

    pub fn spec(&self, seq: u32, command: &str) -> ExecSpec {
        ExecSpec {
            run: RunId { task: self.task, seq },
            fence: Fence { epoch: 1, generation: 1 },
            command: command.into(),
            workdir: String::new(),
            workspace: self.workspace.clone(),
            env: vec![("LANG".into(), "C".into())],
            deadline: Duration::from_secs(60),
            service: None,
            limits: Limits::default(),
            approved: None,
        }
    }

    pub async fn start(&self, seq: u32, command: &str) -> Arc<dyn Unit> {
        self.sandbox.start(self.spec(seq, command)).await.unwrap()
    }

    /// Runs to the end; output and end.
    pub async fn run(&self, seq: u32, command: &str) -> (String, Ended) {
        let unit = self.start(seq, command).await;
        let ended = end(unit.as_ref()).await;
        (text(unit.as_ref()).await, ended)
    }
}

/// A second daemon over the same directories.
pub fn daemon(options: &SandboxOptions) -> Arc<HostSandbox> {
    HostSandbox::new(options.clone(), Arc::new(RealClock), Arc::new(Counted))
}

pub const LONG: Duration = Duration::from_secs(20);

pub async fn end(unit: &dyn Unit) -> Ended {
    match unit.wait(Until { timeout: LONG, line: None, from: 0 }).await.unwrap() {
        UnitState::Ended(ended) => ended,
        other => panic!("{other:?}: {}", text(unit).await),
    }
}

pub async fn line(unit: &dyn Unit, line: &str) {
    let state = unit.wait(Until { timeout: LONG, line: Some(line.into()), from: 0 }).await.unwrap();
    let output = text(unit).await;
    assert!(output.contains(line), "{state:?} {output:?}");
}

pub async fn text(unit: &dyn Unit) -> String {
    let (mut offset, mut bytes) = (0, Vec::new());
    loop {
        let chunk = unit.output(offset, 1 << 20).await.unwrap();
        if chunk.bytes.is_empty() {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        bytes.extend_from_slice(&chunk.bytes);
        offset = chunk.next;
    }
}

/// Processes that carry a run's mark.
pub fn marked(run: &str) -> Vec<i32> {
    let mark = format!("TINKERBELL_RUN={run}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    })
    .collect()
}

/// Runs a test at both levels.
#[macro_export]
macro_rules! both {
    ($name:ident, $house:ident, $body:expr) => {
        mod $name {
            use super::*;
            async fn body($house: $crate::house::House) {
                $body
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn full() {
                if let Some(house) = $crate::house::House::at(Level::Full).await {
                    body(house).await;
                }
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn landlock() {
                if let Some(house) = $crate::house::House::at(Level::Landlock).await {
                    body(house).await;
                }
            }
        }
    };
}
