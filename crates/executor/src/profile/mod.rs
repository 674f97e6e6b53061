//! What a command may see: from options, workspace and level to the plan of a cell.
//!
//! Reads the file system, changes nothing but the task's private home. Invariant: a path is granted
//! by name or not at all, and no granted tree shows a hidden path.

mod environment;
mod git;
mod home;
mod mac;
mod private;
mod reach;
mod real;

use crate::error::Error;
use crate::options::{NetworkChoice, SandboxOptions};
use crate::wire::{Cell, CellLevel, Guarded, Mount, Rules, Sockets, Walls};
use git::Git;
use reach::{Hidden, Reach};
use real::Real;
use std::path::{Path, PathBuf};
use tinkerbell_core::layer::{UPPER, WORK};
use tinkerbell_core::port::{CHECK, ExecSpec, Level};
use tinkerbell_core::protected;

pub use mac::mac;
pub use private::Private;

/// Port on a command's own loopback that leads to its proxy. The network is new for each command, so
/// the port is always free.
const PROXY_PORT: u16 = 3128;
/// Where a command finds the certificates that it may trust, the proxy's own among them.
const CERTIFICATES: &str = "/run/tinkerbell/certificates.pem";
/// The file in a run's directory that the proxy writes them to.
pub(crate) const BUNDLE: &str = "certificates.pem";

/// What is to be executed, and what it needs to see beside the usual.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Extra paths to read.
    pub read: Vec<PathBuf>,
    /// Whether it is the self-test's attacker.
    pub is_probe: bool,
    /// What whoever reads its output is told before it.
    pub notice: String,
}

impl Plan {
    /// A shell command.
    #[must_use]
    pub fn shell(command: &str) -> Self {
        Self { argv: vec!["/bin/sh".into(), "-c".into(), command.into()], ..Self::default() }
    }
}

/// Places of one command.
pub(crate) struct Places {
    tree: PathBuf,
    /// Whether the worktree is seen, and whether it is written.
    access: Access,
    git: Git,
    private: PathBuf,
    home: PathBuf,
    tmp: PathBuf,
}

/// What a program may do with the worktree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    reads: bool,
    writes: bool,
}

impl Access {
    /// Commands may do both; a service what the operator said.
    fn of(spec: &ExecSpec) -> Self {
        spec.service
            .as_ref()
            .map_or(Self { reads: true, writes: true }, |service| Self { reads: service.reads || service.writes, writes: service.writes })
    }
}

/// Protected paths of the tree, as they stand before a command that writes to it directly.
#[derive(Debug, Default)]
pub struct Watched {
    /// Relative paths that are missing.
    pub absent: Vec<PathBuf>,
    /// Those that are mounted read-only.
    pub guarded: Vec<Guarded>,
}

/// Builds the cell, and tells how the protected paths stand now.
///
/// # Errors
/// When the working directory is outside, or the private home can not be made.
pub fn build(
    options: &SandboxOptions,
    spec: &ExecSpec,
    (level, layer): (Level, Option<&Path>),
    plan: Plan,
) -> Result<(Cell, Watched), Error> {
    let real = Real::default();
    let hidden = Hidden::find(options, &real);
    let places = places(options, spec, (&hidden, &real))?;
    let workdir = match &spec.service {
        None => workdir(&places.tree, &spec.workdir)?,
        Some(_) if places.access.reads => places.tree.clone(),
        Some(_) => places.home.clone(),
    };
    let path = spec.env.iter().find(|(key, _)| key == "PATH").map_or(&options.path, |(_, value)| value);
    let reach = Reach::find(options, path, (&plan.read, &hidden), &real);
    home::prepare(options, &places)?;
    let env = environment::build(options, spec, level, (&places, &reach, &real));
    let is_host = options.network == NetworkChoice::Host;
    let mut cell = Cell {
        level: CellLevel::None,
        argv: plan.argv,
        workdir,
        env,
        mounts: Vec::new(),
        host_network: is_host,
        proxy_port: (options.network == NetworkChoice::Proxy).then_some(PROXY_PORT),
        sockets: Sockets::Common,
        segments: false,
        rules: Rules::default(),
        least_abi: 0,
        guarded_pids: Vec::new(),
        walls: Walls::default(),
    };
    match level {
        Level::None => return Ok((cell, Watched::default())),
        Level::Full => {
            let layer = layer.map(|layer| Layer { dir: layer, bulky: crate::layer::bulky(spec, &places.tree) });
            fill_full(&mut cell, &places, &reach, layer);
            if options.network == NetworkChoice::Proxy && options.way_out.as_ref().is_some_and(|way| way.reads_tls) {
                let from = options.runs_dir.join(spec.run.to_string()).join(BUNDLE);
                cell.mounts.push(Mount::Bind { from, to: CERTIFICATES.into(), writable: false });
            }
        }
        Level::Landlock => fill_landlock(&mut cell, &places, &reach),
    }
    // A service lives longer than a command: what a person approved meanwhile must not go with it.
    // What it writes to protected files is put back like a background command's. What a layer holds is
    // judged when it is applied; the tree itself is not written.
    let is_watched = level == Level::Full && spec.service.is_none() && layer.is_none();
    let watched = if is_watched { Watched { absent: absent(&places.tree), guarded: guarded(&places.tree) } } else { Watched::default() };
    Ok((cell, watched))
}

fn places(options: &SandboxOptions, spec: &ExecSpec, (hidden, real): (&Hidden, &Real)) -> Result<Places, Error> {
    let tree = real.of(&spec.workspace.tree).map_err(Error::files(&spec.workspace.tree))?;
    let git = Git::find((&spec.workspace.git_dir, &spec.workspace.common_dir), hidden.real.clone(), real);
    let mut private = options.homes_dir.join(spec.run.task.to_string());
    if spec.env.iter().any(|(key, _)| key == CHECK) {
        private.push("check");
        // What the last check left decides nothing either.
        crate::host::remove_tree(&private).map_err(Error::files(&private))?;
    }
    if let Some(service) = &spec.service {
        private = private.join("services").join(&service.name);
    }
    let (home, tmp) = (private.join("home"), private.join("tmp"));
    for dir in [&home, &tmp] {
        crate::host::make_dir(dir)?;
    }
    let canonical = |dir: &PathBuf| real.of(dir).map_err(Error::files(dir));
    Ok(Places { tree, access: Access::of(spec), git, private, home: canonical(&home)?, tmp: canonical(&tmp)? })
}

/// The working directory, links resolved, inside the tree.
fn workdir(tree: &Path, relative: &str) -> Result<PathBuf, Error> {
    let outside = || Error::Workdir(relative.to_owned());
    let path = tree.join(relative).canonicalize().map_err(|_| outside())?;
    if path.starts_with(tree) && path.is_dir() { Ok(path) } else { Err(outside()) }
}

impl Places {
    /// What may be written: the worktree where that is granted, the home, and `more`.
    fn writable<const N: usize>(&self, more: [PathBuf; N]) -> Vec<PathBuf> {
        let tree = self.access.writes.then(|| self.tree.clone());
        tree.into_iter().chain([self.home.clone()]).chain(more).collect()
    }
}

/// A layer over the workspace, and the folders that are written directly all the same.
struct Layer<'a> {
    dir: &'a Path,
    bulky: Vec<PathBuf>,
}

/// The workspace itself: bound, or under a layer with its bulky folders bound over that.
fn workspace(places: &Places, layer: Option<&Layer<'_>>) -> Vec<Mount> {
    let bind = |path: &PathBuf, writable: bool| Mount::Bind { from: path.clone(), to: path.clone(), writable };
    match layer {
        None => vec![bind(&places.tree, places.access.writes)],
        Some(Layer { dir, bulky }) => {
            let overlay = Mount::Overlay { tree: places.tree.clone(), upper: dir.join(UPPER), work: dir.join(WORK) };
            [overlay].into_iter().chain(bulky.iter().map(|path| bind(path, true))).collect()
        }
    }
}

fn fill_full(cell: &mut Cell, places: &Places, reach: &Reach, layer: Option<Layer<'_>>) {
    let bind = |path: &PathBuf, writable: bool| Mount::Bind { from: path.clone(), to: path.clone(), writable };
    let mut mounts: Vec<Mount> = reach.links.iter().map(|(at, target)| Mount::Link { at: at.clone(), target: target.clone() }).collect();
    mounts.extend(reach.mounts());
    if places.access.reads {
        mounts.extend(places.git.roots.iter().map(|path| bind(path, false)));
        let hidden = places.git.holes.iter().chain(&places.git.others).cloned().chain(places.git.sockets());
        mounts.extend(hidden.map(|at| Mount::Mask { at }));
        mounts.extend(workspace(places, layer.as_ref()));
    }
    mounts.push(bind(&places.home, true));
    mounts.push(Mount::Bind { from: places.tmp.clone(), to: "/tmp".into(), writable: true });
    // Where the workspace itself lies below it, there is a directory already.
    if !mounts.iter().any(|mount| mount.place().starts_with("/var/tmp")) {
        mounts.push(Mount::Link { at: "/var/tmp".into(), target: "/tmp".into() });
    }
    let guarded = if places.access.writes { present(&places.tree) } else { Vec::new() };
    for path in guarded {
        // A parent that is no mount point of its own could be renamed away, protection and all. In a
        // layer that would change nothing, and the parent itself is not to be written.
        if let Some(parent) = path.parent().filter(|parent| *parent != places.tree && layer.is_none()) {
            mounts.push(bind(&parent.to_owned(), true));
        }
        mounts.push(bind(&path, false));
    }
    // Parents first. The sort is stable: of equal depth, what was granted last covers.
    mounts.sort_by_key(|mount| mount.place().components().count());
    mounts.dedup();
    cell.level = CellLevel::Full;
    cell.mounts = mounts;
    cell.least_abi = 1;
    cell.rules = Rules {
        read: vec!["/".into()],
        write: places.writable(["/tmp".into(), "/dev/shm".into()]),
        devices: vec!["/dev".into()],
        ..Rules::default()
    };
}

fn fill_landlock(cell: &mut Cell, places: &Places, reach: &Reach) {
    let mut rules = Rules {
        write: places.writable([places.tmp.clone()]),
        devices: ["null", "zero", "full", "random", "urandom", "tty"].map(|name| Path::new("/dev").join(name)).to_vec(),
        list: vec!["/dev".into()],
        no_tcp: true,
        ..Rules::default()
    };
    rules.read.push("/proc".into());
    for root in &reach.roots {
        reach::expand(root, &reach.holes, &mut rules);
    }
    if places.access.reads {
        rules.read.push(places.tree.clone());
        for root in &places.git.roots {
            reach::expand(root, &places.git.holes, &mut rules);
        }
        rules.read.extend(home::ancestors(&places.tree));
    }
    cell.level = CellLevel::Landlock;
    cell.sockets = Sockets::Refused;
    cell.host_network = false;
    cell.least_abi = 4;
    cell.rules = rules;
    if crate::cell::landlock_abi() < 6 {
        // Below ABI 6 the kernel does not scope signals: everything (−1) and the daemon are refused
        // by number. The keeper's is not known yet; it is the daemon's child and in its own session.
        cell.guarded_pids = vec![-1, std::process::id().cast_signed()];
    }
}

/// Protected paths that exist at the root of the tree.
fn present(tree: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(tree).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = tree.join(name);
        // A link is protected by what it stands in: mounts follow links, so it is compared instead.
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        if protected::is_protected(name) {
            found.push(path);
        } else if path.is_dir() && protected::is_above(name) {
            let inner = std::fs::read_dir(&path).into_iter().flatten().flatten();
            let inner = inner.filter(|e| e.file_name().to_str().is_some_and(|n| protected::is_protected(&format!("{name}/{n}"))));
            found.extend(inner.map(|e| e.path()).filter(|p| !p.is_symlink()));
        }
    }
    found
}

/// The protected paths of [`present`] by their numbers.
fn guarded(tree: &Path) -> Vec<Guarded> {
    use std::os::unix::fs::MetadataExt;
    let one = |path: PathBuf| {
        let meta = path.symlink_metadata().ok()?;
        Some(Guarded { path: path.strip_prefix(tree).ok()?.to_owned(), file: (meta.dev(), meta.ino()) })
    };
    present(tree).into_iter().filter_map(one).collect()
}

/// Protected paths that do not exist, relative to the tree, and the directories for them: what stands there in
/// the end must be a directory.
fn absent(tree: &Path) -> Vec<PathBuf> {
    // The matcher knows names in lower case; the usual spelling of some is another.
    let spelled =
        ["AGENT.md", "CRUSH.md", "AGENTS.md", "AGENTS.override.md", "CLAUDE.md", "CLAUDE.local.md", "GEMINI.md", "QWEN.md", "Jenkinsfile"];
    let mut above: Vec<&str> = protected::PATHS.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    above.dedup();
    let names = above.iter().chain(protected::NAMES).chain(protected::PATHS).chain(&spelled);
    names.map(PathBuf::from).filter(|path| tree.join(path).symlink_metadata().is_err()).collect()
}
