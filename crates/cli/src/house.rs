//! What the command line needs of the roof.
//!
//! Narrow on purpose: all that only talks to the daemon is done here with the client. Invariant:
//! the command line itself reads neither environment nor configuration.

use crate::notify::Notify;
use crate::output::Output;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_api::Client;
use tinkerbell_core::code::Fault;

/// The roof, as the command line sees it.
pub trait House: Send + Sync {
    /// Connects to the daemon; starts one first if `autostart` and none runs.
    fn connect(&self, autostart: bool) -> BoxFuture<'_, Result<Client, Fault>>;
    /// What surrounds this process.
    fn surroundings(&self) -> Surroundings;
    /// Does a piece of work that belongs to the roof; returns the exit code.
    fn chore(&self, chore: Chore, out: Arc<Output>) -> BoxFuture<'_, Result<u8, Fault>>;
}

/// What surrounds this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The current directory; `None` when it is gone.
    pub cwd: Option<PathBuf>,
    /// This very program.
    pub exe: PathBuf,
    /// PATH, locale and provider variables, to be sent with a request.
    pub env: BTreeMap<String, String>,
    /// A fresh random text: the key of a submission.
    pub key: String,
    /// How this terminal calls a person back.
    pub notify: Notify,
}

/// Work that belongs to the roof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chore {
    /// Start the daemon; in the foreground, be it.
    DaemonStart {
        /// Stay and be the daemon.
        foreground: bool,
    },
    /// Show the daemon's log.
    DaemonLogs {
        /// Go on showing.
        follow: bool,
        /// Lines from the end.
        lines: usize,
    },
    /// Let the service manager start the daemon.
    DaemonInstall {
        /// For the whole machine.
        system: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Take that back.
    DaemonUninstall {
        /// For the whole machine.
        system: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Halt all effects.
    Halt {
        /// Why, for people.
        reason: String,
    },
    /// Take that back.
    Lift,
    /// Examine the installation.
    Doctor {
        /// As JSON.
        json: bool,
        /// Ask no provider.
        offline: bool,
    },
    /// Show the configuration in force.
    ConfigShow {
        /// With the place each value came from.
        origin: bool,
        /// As JSON.
        json: bool,
    },
    /// Check the configuration files.
    ConfigValidate,
    /// Print the configuration's JSON Schema.
    ConfigSchema,
    /// Print where files are looked for.
    ConfigPath,
    /// Write a project's configuration.
    Init,
    /// Count the journal's segments and records.
    WalStat {
        /// As JSON.
        json: bool,
    },
    /// Check every record of the journal.
    WalVerify,
    /// Print records.
    WalDump {
        /// First number.
        from: u64,
        /// At most so many.
        limit: usize,
        /// Only of the task with this prefix.
        task: Option<String>,
    },
    /// Copy sealed segments of the journal to the archive.
    WalArchive {
        /// Another directory than the configured one.
        to: Option<PathBuf>,
    },
    /// Give the disk back what nobody needs any more of the journal.
    WalCompact,
    /// Build a journal from an archive.
    WalRestore {
        /// The archive.
        from: PathBuf,
        /// The journal's new directory.
        to: PathBuf,
    },
    /// Print every record as a line of JSON.
    WalExport {
        /// Only of the task with this prefix.
        task: Option<String>,
        /// With large payloads in place of references to them.
        blobs: bool,
    },
    /// Say what mends a damaged journal, and do it.
    WalRepair {
        /// Whether it is done.
        apply: bool,
        /// A backup of the journal's directory.
        from: Option<PathBuf>,
    },
    /// Tell everything about one record.
    WalExplain {
        /// Its number.
        lsn: u64,
    },
    /// List the keys of all subjects.
    KeysLs {
        /// As JSON.
        json: bool,
    },
    /// Wrap all keys under a new root key.
    KeysRotateRoot,
    /// List the configured secrets, without values.
    SecretsLs {
        /// As JSON.
        json: bool,
    },
    /// Add an MCP server to the user's configuration.
    McpAdd(Box<crate::args::McpAdd>),
    /// List MCP servers.
    McpList {
        /// As JSON.
        json: bool,
    },
    /// Show one MCP server.
    McpGet {
        /// Its name.
        name: String,
        /// As JSON.
        json: bool,
    },
    /// Remove an MCP server.
    McpRemove {
        /// Its name.
        name: String,
    },
    /// Start an MCP server and show what it offers.
    McpTools {
        /// Its name.
        name: String,
        /// As JSON.
        json: bool,
    },
    /// Agree to what an MCP server is and says.
    McpApprove {
        /// Its name.
        name: String,
    },
    /// Check policy files.
    PolicyCheck {
        /// Only this one.
        file: Option<PathBuf>,
    },
    /// Try the examples of all policy files.
    PolicyTest {
        /// As JSON.
        json: bool,
    },
    /// Say what would become of a command.
    PolicyExplain {
        /// The command.
        command: String,
        /// The sandbox level.
        level: String,
        /// The words of the task that it would be part of.
        goal: String,
        /// As JSON.
        json: bool,
    },
    /// Print the built-in policy.
    PolicyShow,
    /// Print the AppArmor profile.
    Apparmor,
    /// Print the profile for macOS.
    Seatbelt,
    /// List what was allowed for more than one time.
    PolicyGrants {
        /// As JSON.
        json: bool,
    },
    /// Take a grant back.
    PolicyRevoke {
        /// Its name.
        id: String,
    },
    /// File what a person allowed for a project or for everything.
    Grant(Granting),
    /// Say what a repository brings, and trust it or not.
    Trust {
        /// A directory in the repository; the current one when left out.
        dir: Option<PathBuf>,
        /// What to do.
        wish: TrustWish,
    },
    /// Read damaged sessions of other agents.
    Rescue(Rescue),
    /// Show a task from start to undo.
    Demo {
        /// Without pauses.
        fast: bool,
        /// With a live model.
        model: Option<String>,
    },
}

/// What to do about a repository's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustWish {
    /// Show them and ask.
    #[default]
    Ask,
    /// Show them.
    Show,
    /// Take trust back.
    Revoke,
    /// A task is about to be given: show and ask only when something is not trusted, and go on anyway.
    BeforeRun,
}

/// What a person allowed for more than one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granting {
    /// Its name.
    pub id: String,
    /// The first words of the commands.
    pub argv: Vec<String>,
    /// Options that may follow.
    pub options: Vec<String>,
    /// The command that it was made for.
    pub example: String,
    /// Holds until then, milliseconds since the epoch.
    pub expires_ms: u64,
    /// The repository that it is for; `None` for all of the user's.
    pub project: Option<String>,
    /// The question that was answered with it, as `TASK/NUMBER`.
    pub asked: String,
}

/// What to do with damaged sessions of other agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescue {
    /// The files; none lists what can be found.
    pub files: Vec<PathBuf>,
    /// Print the transcript instead of a report.
    pub transcript: bool,
    /// Write a mended copy to this new file.
    pub repair: Option<PathBuf>,
    /// As JSON.
    pub json: bool,
    /// Longest transcript, in bytes; its end is kept.
    pub max_bytes: usize,
}
