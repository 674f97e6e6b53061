//! What the roof tells the sandbox: places, level, network, what may be read.
//!
//! Plain values; the roof fills them from configuration and environment. Invariant: nothing in
//! here can come from a project, a model or a prompt.

use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::port::Limits;
use tinkerbell_secret::Known;

/// Which level the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LevelChoice {
    /// The best complete level that passes its self-test.
    #[default]
    Auto,
    /// `full` or nothing.
    Full,
    /// `landlock` or nothing.
    Landlock,
    /// No sandbox, by the operator's explicit word.
    None,
}

/// Which network commands get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// Loopback of their own, or no sockets at all.
    #[default]
    None,
    /// Loopback of their own, and on it the way to a proxy that the operator's list guards; level
    /// `full` only.
    Proxy,
    /// The host's; level `full` only.
    Host,
}

impl NetworkChoice {
    /// As records name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Proxy => "proxy",
            Self::Host => "host",
        }
    }
}

/// The proxy of a command, which this crate starts, feeds and ends, and knows nothing else of.
#[derive(Clone)]
pub struct WayOut {
    /// What the proxy reads on its standard input, made anew for each run: it may hold values of
    /// credentials, so it is never written down.
    pub plan: Arc<dyn Fn() -> String + Send + Sync>,
    /// Variables that commands see; never such values.
    pub env: Vec<(String, String)>,
    /// Whether the proxy reads within TLS, so that commands need its certificate.
    pub reads_tls: bool,
}

impl std::fmt::Debug for WayOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WayOut").field("reads_tls", &self.reads_tls).finish_non_exhaustive()
    }
}

/// How commands write to the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkspaceChoice {
    /// The gate's check in a layer where that works, all else directly.
    #[default]
    Auto,
    /// Every command in a layer; level `full` only.
    Overlay,
    /// Every command directly.
    Direct,
}

/// Everything the sandbox needs to know of the host.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// The binary whose `main` calls [`crate::early_main`]; usually our own.
    pub exe: PathBuf,
    /// Keepers' directories, one per run.
    pub runs_dir: PathBuf,
    /// Private homes and temporary directories, one per task.
    pub homes_dir: PathBuf,
    /// Where the self-test's result is kept.
    pub cache_dir: PathBuf,
    /// Never visible to commands, whatever else is granted: data, state, configuration, sockets.
    pub hidden: Vec<PathBuf>,
    /// What each command may use, with everything that it starts.
    pub limits: Limits,
    /// The level.
    pub level: LevelChoice,
    /// The network.
    pub network: NetworkChoice,
    /// The proxy, where the network is one.
    pub way_out: Option<WayOut>,
    /// How commands write to the workspace.
    pub workspace: WorkspaceChoice,
    /// Extra paths that commands may read and execute.
    pub read: Vec<PathBuf>,
    /// The user's home: where toolchains and caches are looked for; never visible as such.
    pub home: Option<PathBuf>,
    /// The user's PATH; a PATH in a command's own environment wins.
    pub path: String,
    /// Variables of the user that commands may see (toolchain homes, locale); never secrets.
    pub env: Vec<(String, String)>,
    /// What no spool of a command may hold; keepers are told what is known when they start.
    pub known: Arc<Known>,
}
