//! The outside of the self-test: sets the targets up, starts the attacker, looks at the damage.
//!
//! Invariant: what the attacker says is checked from outside where that is possible.

use super::attacks::VICTIM;
use super::format::{Check, Report, Targets, VERSION};
use crate::error::Error;
use crate::host::{HostSandbox, Proven, remove_tree};
use crate::options::{LevelChoice, NetworkChoice, WorkspaceChoice};
use crate::profile::Plan;
use crate::unit::blocking;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tinkerbell_core::effect::Fence;
use tinkerbell_core::layer::{ENDED, UPPER};
use tinkerbell_core::port::{ExecSpec, Level, Limits, Sandbox, UnitState, Until};
use tinkerbell_core::words::{GitId, RunId, TaskId, Workspace};

/// Longest time of one level's attacks.
const ATTACK: Duration = Duration::from_secs(20);
/// The canaries' content.
const CANARY: &str = "canary";

/// How far a self-test goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Until the operator's choice is decided: the first command waits for it.
    Decided,
    /// Every level, for `doctor`.
    Whole,
}

/// Attacks the levels, strongest first.
///
/// # Errors
/// When the test itself can not be set up.
pub async fn run(sandbox: &HostSandbox, extent: Extent) -> Result<Report, Error> {
    let (full, landlock, overlay) = (Vec::new(), Vec::new(), Vec::new());
    let mut report = Report { version: VERSION, key: super::cache::key(&sandbox.options), full, landlock, overlay };
    let choice = sandbox.options.level;
    let is_whole = extent == Extent::Whole;
    if is_whole || matches!(choice, LevelChoice::Auto | LevelChoice::Full) {
        report.full = checks(sandbox, Proven { level: Level::Full, overlay: false }).await;
    }
    let is_full = report.choose(choice).is_ok_and(|level| level == Level::Full);
    if is_full && (is_whole || sandbox.options.workspace != WorkspaceChoice::Direct) {
        report.overlay = checks(sandbox, Proven { level: Level::Full, overlay: true }).await;
    }
    let is_decided = report.choose(choice).is_ok() || choice == LevelChoice::Full;
    if is_whole || !is_decided {
        report.landlock = checks(sandbox, Proven { level: Level::Landlock, overlay: false }).await;
    }
    Ok(report)
}

/// Attacks one level; what hinders the attack is a failed check.
async fn checks(sandbox: &HostSandbox, proven: Proven) -> Vec<Check> {
    let task = TaskId(sandbox.entropy.id());
    // Where worktrees are: not every file system can hold a layer.
    let place = if proven.overlay { &sandbox.options.homes_dir } else { &sandbox.options.cache_dir };
    let base = place.join(format!("probe-{task}"));
    let checks = match attack(sandbox, proven, RunId { task, seq: 1 }, &base).await {
        Ok(checks) => checks,
        Err(error) => vec![Check { name: "start".into(), passed: false, text: error.to_string() }],
    };
    // Left-overs of a self-test are untidy, not dangerous; `remove` reports its own faults.
    drop(sandbox.remove(task).await);
    drop(blocking(move || remove_tree(&base).map_err(Error::files(base))).await);
    checks
}

/// Everything that the attacker aims at; dropping it ends the victim.
struct Range {
    targets: Targets,
    tcp: TcpListener,
    abstract_socket: Option<UnixListener>,
    victim: tokio::process::Child,
}

async fn attack(sandbox: &HostSandbox, proven: Proven, run: RunId, base: &Path) -> Result<Vec<Check>, Error> {
    let mut range = set_up(sandbox, proven, run.task, base)?;
    let argument = serde_json::to_string(&range.targets).map_err(|error| Error::Internal(error.to_string()))?;
    let exe = sandbox.options.exe.canonicalize().map_err(Error::files(&sandbox.options.exe))?;
    let plan = Plan {
        argv: vec![exe.to_string_lossy().into_owned(), "__probe".into(), argument],
        read: vec![exe],
        is_probe: true,
        ..Plan::default()
    };
    let unit = sandbox.start_at(proven, spec(run, &range.targets.tree)?, plan).await?;
    let fault = |fault: tinkerbell_core::code::Fault| Error::Internal(fault.message);
    let state = unit.wait(Until { timeout: ATTACK, line: None, from: 0 }).await.map_err(fault)?;
    let output = unit.output(0, 1 << 20).await.map_err(fault)?;
    let text = String::from_utf8_lossy(&output.bytes).into_owned();
    let mut checks: Vec<Check> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_whole = matches!(&state, UnitState::Ended(ended) if ended.code == Some(0));
    let tail: String = text.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join(" ");
    checks.push(Check {
        name: "attacker ran to its end".into(),
        passed: is_whole,
        text: if is_whole { "yes".into() } else { format!("{state:?} {tail}") },
    });
    checks.extend(inspect(&mut range));
    Ok(checks)
}

fn set_up(sandbox: &HostSandbox, Proven { level, overlay }: Proven, task: TaskId, base: &Path) -> Result<Range, Error> {
    let (tree, outside) = (base.join("tree"), base.join("outside"));
    let make = || -> std::io::Result<()> {
        for dir in [&tree, &outside, &tree.join(".vscode"), &tree.join("below")] {
            std::fs::create_dir_all(dir)?;
        }
        for file in ["file", "below/file"] {
            std::fs::write(tree.join(file), CANARY)?;
        }
        std::fs::write(tree.join(".vscode/settings.json"), CANARY)?;
        std::fs::write(outside.join("canary"), CANARY)
    };
    make().map_err(Error::files(base))?;
    let tcp =
        TcpListener::bind("127.0.0.1:0").and_then(|tcp| tcp.set_nonblocking(true).map(|()| tcp)).map_err(Error::files("127.0.0.1"))?;
    let port = tcp.local_addr().map_or(0, |address| address.port());
    let abstract_name = format!("tinkerbell-probe-{task}");
    let abstract_socket = SocketAddr::from_abstract_name(&abstract_name).and_then(|address| UnixListener::bind_addr(&address)).ok();
    let victim = tokio::process::Command::new(&sandbox.options.exe)
        .args(["__probe", VICTIM])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::files(&sandbox.options.exe))?;
    let pid = victim.id().unwrap_or(0).cast_signed();
    let secrets = vec![outside.join("canary"), sandbox.options.runs_dir.join("boot"), PathBuf::from("/etc/shadow")];
    let is_host = sandbox.options.network == NetworkChoice::Host;
    let private = sandbox.options.homes_dir.join(task.to_string());
    let is_full = level == Level::Full;
    let targets = Targets {
        is_full,
        layer: overlay.then(|| base.join("layers").join("1")),
        tree,
        home: private.join("home"),
        tmp: if is_full { "/tmp".into() } else { private.join("tmp") },
        outside,
        secrets,
        port: if is_host { 0 } else { port },
        abstract_name,
        victim: pid,
    };
    Ok(Range { targets, tcp, abstract_socket, victim })
}

fn spec(run: RunId, tree: &Path) -> Result<ExecSpec, Error> {
    let none = tree.join(".git");
    // Asked for and never used: the attacker's tree is no repository.
    let base: GitId = "0".repeat(40).parse().map_err(|error| Error::Internal(format!("{error}")))?;
    let workspace = Workspace {
        task: run.task,
        repo: tree.to_owned(),
        tree: tree.to_owned(),
        git_dir: none.clone(),
        common_dir: none,
        branch: String::new(),
        base,
    };
    let (command, workdir, env) = (String::new(), String::new(), Vec::new());
    Ok(ExecSpec {
        run,
        fence: Fence::default(),
        command,
        workdir,
        workspace,
        env,
        deadline: ATTACK,
        limits: Limits::default(),
        service: None,
        approved: None,
    })
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether a path carries an attribute that leads overlayfs elsewhere.
fn steers(path: &Path) -> bool {
    let has = |name: &str| rustix::fs::lgetxattr(path, name, &mut [0_u8; 256]).is_ok();
    ["user.overlay.redirect", "user.overlay.metacopy", "trusted.overlay.redirect"].into_iter().any(has)
}

/// The damage, seen from outside.
fn inspect(range: &mut Range) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |name: &str, passed: bool| {
        let text = if passed { "as it was" } else { "the attack had an effect outside" };
        checks.push(Check { name: name.into(), passed, text: text.into() });
    };
    let targets = &range.targets;
    let entries = std::fs::read_dir(&targets.outside).map_or(0, |entries| entries.count());
    let content = std::fs::read_to_string(targets.outside.join("canary")).unwrap_or_default();
    check("files outside", entries == 1 && content == CANARY);
    check("process outside", matches!(range.victim.try_wait(), Ok(None)));
    check("connection from inside", range.tcp.accept().is_err());
    if let Some(socket) = &range.abstract_socket {
        let is_quiet = socket.set_nonblocking(true).is_ok() && socket.accept().is_err();
        check("abstract connection from inside", is_quiet);
    }
    if targets.is_full {
        let content = std::fs::read_to_string(targets.tree.join(".vscode/settings.json")).unwrap_or_default();
        check("protected file", content == CANARY);
        check("protected path that was missing", !targets.tree.join(".claude").exists());
    }
    if let Some(layer) = &targets.layer {
        let holds = |path: &str| std::fs::read_to_string(targets.tree.join(path)).is_ok_and(|text| text == CANARY);
        check("tree under the layer", holds("file") && holds("below/file") && names(&targets.tree) == [".vscode", "below", "file"]);
        let upper = layer.join(UPPER);
        check("layer took what was written", std::fs::read_to_string(upper.join("ok")).is_ok_and(|text| text == "x"));
        check("attributes that steer the layer", !steers(&upper.join("ok")) && !steers(&upper.join("below")));
        check("layer was closed", layer.join(ENDED).exists());
    }
    checks
}
