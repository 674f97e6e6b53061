//! What daemon, keeper and cell say to each other over pipes and sockets; never on disk.
//!
//! Both ends are the same binary or at most two minor versions apart; unknown fields are ignored.
//! Invariant: the environment and the command travel here and nowhere else, so that they never
//! stand in an argument list.

mod path;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tinkerbell_core::approval::Approved;
use tinkerbell_core::port::Limits;
use tinkerbell_secret::Shared;

/// Daemon to keeper, on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The run.
    pub run: String,
    /// Its directory.
    #[serde(with = "path")]
    pub run_dir: PathBuf,
    /// The binary of the later stages.
    #[serde(with = "path")]
    pub exe: PathBuf,
    /// Journal epoch of the daemon.
    pub epoch: u64,
    /// Lease of the task.
    pub generation: u64,
    /// The command is ended after this long.
    pub deadline_ms: u64,
    /// The sandbox and what runs in it.
    pub cell: Cell,
    /// The workspace's tree.
    #[serde(with = "path")]
    pub tree: PathBuf,
    /// Protected paths, relative to it, that did not exist at the start; what appears there is
    /// removed at the end.
    #[serde(with = "path::list")]
    pub absent: Vec<PathBuf>,
    /// Whether standard output is a protocol: then standard error is not mixed into it, and only its
    /// end is kept, behind all output.
    #[serde(default)]
    pub errors_apart: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Bounds,
    /// Directory with the figures of the task's commands.
    #[serde(default, with = "path")]
    pub ledger: PathBuf,
    /// Directories whose size is limited; the workspace's tree first.
    #[serde(default, with = "path::list")]
    pub roots: Vec<PathBuf>,
    /// What they took before the task's first command.
    #[serde(default)]
    pub base: u64,
    /// The approval that the command needed.
    #[serde(default)]
    pub approved: Option<Approval>,
    /// What the proxy of the command is told, where it has one.
    #[serde(default)]
    pub way_out: Option<String>,
    /// `none`, `proxy` or `host`.
    #[serde(default)]
    pub network: String,
    /// Protected paths of the tree that are mounted read-only. Where somebody on the host puts another
    /// file in such a place, the kernel takes the mount away, and the command can write there.
    #[serde(default)]
    pub guarded: Vec<Guarded>,
    /// The layer that the command writes to, if it has one.
    #[serde(default, with = "path::maybe")]
    pub layer: Option<PathBuf>,
    /// What whoever reads the output is told before it.
    #[serde(default)]
    pub notice: String,
    /// What the spool must not hold.
    #[serde(default)]
    pub secrets: Vec<Hidden>,
}

/// An approval, as the daemon read it from its journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approval {
    /// SHA-256 over the canonical form of the other fields, hexadecimal.
    pub digest: String,
    /// Names and values.
    pub facts: Vec<(String, String)>,
    /// Void from this moment on, wall time in milliseconds.
    pub expires_ms: u64,
    /// Makes it differ from every other one.
    pub nonce: String,
}

impl From<Approved> for Approval {
    fn from(approved: Approved) -> Self {
        let Approved { digest, facts, expires_ms, nonce } = approved;
        Self { digest, facts, expires_ms, nonce }
    }
}

impl From<Approval> for Approved {
    fn from(approval: Approval) -> Self {
        let Approval { digest, facts, expires_ms, nonce } = approval;
        Self { digest, facts, expires_ms, nonce }
    }
}

/// Limits of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// Memory at once, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// CPU time in milliseconds that all commands of the task together may reach.
    pub cpu_ms: Option<u64>,
    /// Bytes by which the directories may have grown.
    pub disk_bytes: Option<u64>,
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        let Limits { memory_bytes, processes, cpu_ms, disk_bytes } = limits;
        Self { memory_bytes, processes, cpu_ms, disk_bytes }
    }
}

impl From<Bounds> for Limits {
    fn from(bounds: Bounds) -> Self {
        let Bounds { memory_bytes, processes, cpu_ms, disk_bytes } = bounds;
        Self { memory_bytes, processes, cpu_ms, disk_bytes }
    }
}

/// A file or directory by its place and its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// Relative to the tree.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Device and inode.
    pub file: (u64, u64),
}

/// A secret on its way to a keeper.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hidden {
    /// What stands in its place.
    pub name: String,
    /// The value.
    #[serde(with = "value")]
    pub value: Shared,
}

/// The one place where a secret becomes part of a message.
mod value {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use tinkerbell_secret::{Secret, Shared};

    pub(super) fn serialize<S: Serializer>(value: &Shared, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shared, D::Error> {
        String::deserialize(from).map(Secret::shared)
    }
}

/// Keeper to daemon, on standard output, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The gate is open.
    Started,
    /// Another keeper has or had this run.
    Taken,
    /// Nothing ran.
    Failed {
        /// What the keeper was doing.
        step: String,
        /// Why it failed.
        why: String,
    },
}

/// How much of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CellLevel {
    /// Namespaces and all.
    Full,
    /// Without namespaces.
    Landlock,
    /// None.
    None,
}

/// Which sockets a command may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sockets {
    /// None but socket pairs.
    Refused,
    /// Local and internet families, within the command's own network.
    Common,
}

/// A sandbox and the command in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The level.
    pub level: CellLevel,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Absolute working directory.
    #[serde(with = "path")]
    pub workdir: PathBuf,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The new root, parents first; level `full` only.
    pub mounts: Vec<Mount>,
    /// Whether it keeps the host's network.
    pub host_network: bool,
    /// Port on its own loopback that leads to the proxy; level `full` only.
    #[serde(default)]
    pub proxy_port: Option<u16>,
    /// Sockets it may open.
    pub sockets: Sockets,
    /// Whether it may make segments of shared memory, queues and semaphores of System V.
    #[serde(default)]
    pub segments: bool,
    /// Landlock's lists.
    pub rules: Rules,
    /// Least Landlock ABI.
    pub least_abi: i32,
    /// Processes that it must not signal, where the kernel can not scope signals itself.
    pub guarded_pids: Vec<i32>,
    /// Walls that the kernel keeps for each process or for the namespace.
    #[serde(default)]
    pub walls: Walls,
}

/// Walls beside the control groups; each may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Walls {
    /// Processes and threads of the user in the namespace, or of the whole user.
    pub processes: Option<u64>,
    /// CPU time of one process in seconds.
    pub cpu_s: Option<u64>,
    /// Size of `/dev/shm` in bytes; level `full` only.
    pub shared_bytes: Option<u64>,
}

/// One entry of the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A path of the host.
    Bind {
        /// Where it stands.
        #[serde(with = "path")]
        from: PathBuf,
        /// Where the command sees it.
        #[serde(with = "path")]
        to: PathBuf,
        /// Whether it may be written.
        writable: bool,
    },
    /// A tree of the host that is only read, under a layer that takes what is written.
    Overlay {
        /// The tree, and where the command sees it.
        #[serde(with = "path")]
        tree: PathBuf,
        /// Where what is written goes.
        #[serde(with = "path")]
        upper: PathBuf,
        /// Room that the file system asks for, beside it.
        #[serde(with = "path")]
        work: PathBuf,
    },
    /// Something that must not be seen.
    Mask {
        /// Where.
        #[serde(with = "path")]
        at: PathBuf,
    },
    /// A symbolic link of the root (`/bin`).
    Link {
        /// Where.
        #[serde(with = "path")]
        at: PathBuf,
        /// Its text.
        #[serde(with = "path")]
        target: PathBuf,
    },
}

impl Mount {
    /// Where the command sees it.
    #[must_use]
    pub fn place(&self) -> &std::path::Path {
        match self {
            Self::Bind { to, .. } => to,
            Self::Overlay { tree, .. } => tree,
            Self::Mask { at } | Self::Link { at, .. } => at,
        }
    }
}

/// Landlock's allowlists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Read and execute, with everything below.
    #[serde(with = "path::list")]
    pub read: Vec<PathBuf>,
    /// List directories, with everything below.
    #[serde(with = "path::list")]
    pub list: Vec<PathBuf>,
    /// Everything, with everything below.
    #[serde(with = "path::list")]
    pub write: Vec<PathBuf>,
    /// Read and write existing files only.
    #[serde(with = "path::list")]
    pub devices: Vec<PathBuf>,
    /// Whether TCP is refused by rule.
    pub no_tcp: bool,
}

/// Proxy to keeper, one line on the socket that is its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromProxy {
    /// It has its plan and waits for the listening socket.
    Ready,
    /// It can not serve.
    Failed {
        /// Why.
        why: String,
    },
}

/// Cell to keeper, one line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromCell {
    /// The init process, as the keeper's PID namespace counts it.
    Init {
        /// Its number.
        pid: i32,
    },
    /// The listening socket of the way out; its descriptor comes beside this line.
    Listening,
    /// The sandbox stands; waiting at the gate.
    Ready,
    /// It does not; nothing ran.
    Failed {
        /// The step.
        step: String,
        /// Why.
        why: String,
    },
    /// The main process ended.
    Exit {
        /// Exit code.
        code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
        /// What it and its children used.
        rusage: crate::format::Usage,
        /// Whether nothing of it was left by then.
        #[serde(default)]
        is_last: bool,
    },
}

/// Daemon to keeper, on its socket, one line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Write to standard input, once per number.
    Stdin {
        /// Counts the writes.
        number: u64,
        /// The bytes; empty closes it.
        bytes: Vec<u8>,
    },
    /// Signal every process.
    Signal {
        /// Linux number.
        signal: i32,
    },
    /// End it: ask, and after the grace force.
    Stop {
        /// Recorded in the trailer.
        cause: String,
        /// Milliseconds between both.
        grace_ms: u64,
    },
    /// Send one byte whenever there is news.
    Watch,
}

/// Keeper to daemon, one line per request but [`Request::Watch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Done, or done before under this number.
    Done,
    /// Not done.
    Refused {
        /// Why.
        why: String,
    },
}
