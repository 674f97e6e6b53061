//! The configuration file as types, and the table of all its keys.
//!
//! Only shapes; reading and layering are in `load`. Invariant: every key that a type here reads
//! stands in [`KEYS`], and the other way round; a test holds them together.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tinkerbell_egress::options::Egress;
use tinkerbell_plugins::options::McpServer;
use tinkerbell_router::options::{Model, Provider};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Model used when `-m` is not given, `provider/model`.
    pub model: Option<String>,
    /// Providers by name.
    pub providers: BTreeMap<String, Provider>,
    /// Models by `provider/model`.
    pub models: BTreeMap<String, Model>,
    /// Where commands run.
    pub sandbox: Sandbox,
    /// Hosts that commands may reach.
    pub egress: Egress,
    /// MCP servers by name.
    pub mcp_servers: BTreeMap<String, McpServer>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Keys that seal journal and blobs, and what is hidden by its looks.
    pub security: Security,
    /// What a task's worktree holds.
    pub workspace: Workspace,
    /// Default limits of a task.
    pub limits: Limits,
    /// The check that decides whether a task is done.
    pub verify: Verify,
    /// What becomes of old parts of the journal.
    pub journal: Journal,
    /// Who may work, and how many tasks are taken.
    pub scheduler: Scheduler,
    /// Questions to a person.
    pub approvals: Approvals,
    /// Manners of the command line.
    pub ui: Ui,
}

/// Questions to a person. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Approvals {
    /// How long a question waits, and an approval may be unused, e.g. `"24h"`.
    pub expires: Option<String>,
    /// Whether a person is asked at all.
    pub mode: Asking,
    /// Why nobody is asked.
    pub reason: Option<String>,
    /// Until when nobody is asked, e.g. `2026-12-01T07:00:00Z`.
    pub until: Option<String>,
}

/// Manners of the command line. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ui {
    /// Whether a terminal calls when a task asks or ends.
    pub notify: Wanted,
}

/// Whether something is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Where the terminal can do it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Where commands run. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sandbox {
    /// The level: the best that passes its self-test, or one by name.
    pub level: Level,
    /// Which network commands get; without a word `proxy` where `[egress]` lists hosts, else `none`.
    pub network: Option<Network>,
    /// How commands write to the worktree.
    pub workspace: Writing,
    /// Further directories that commands may read.
    pub read: Vec<PathBuf>,
    /// Memory of a command with all that it starts: an amount (`8GiB`), or a part of the host's (`75%`).
    pub memory: Option<String>,
    /// Processes and threads of a command at once.
    pub processes: Option<u64>,
    /// Disk that a task's commands may take in its worktree and private directories, e.g. `20GiB`.
    pub disk: Option<String>,
}

/// How commands write to the worktree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Writing {
    /// The check in a layer where that works, other commands directly.
    #[default]
    Auto,
    /// Every command in a layer, which is applied path by path (level `full` only).
    Overlay,
    /// Every command directly.
    Direct,
}

/// Sandbox levels as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The best complete level of this host.
    #[default]
    Auto,
    /// Namespaces, Landlock, seccomp.
    Full,
    /// Landlock and seccomp.
    Landlock,
    /// Nothing; each command is asked for.
    None,
}

/// Network of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// No network.
    None,
    /// The hosts that `[egress]` lists, through a proxy (level `full` only).
    Proxy,
    /// The host's network (level `full` only).
    Host,
}

/// Keys that seal journal and blobs. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Security {
    /// The file with the root key, which wraps the keys of all subjects; made when it is first needed.
    pub root_key: Option<PathBuf>,
    /// Whether what looks like a secret is hidden from providers and from the log.
    pub patterns: Patterns,
}

/// Whether values are hidden by their looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Patterns {
    /// They are.
    #[default]
    On,
    /// Only known values are.
    Off,
}

/// Where a secret comes from: one of both. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SecretSource {
    /// A file of mode 600 that holds it; one line end after it does not count.
    pub file: Option<PathBuf>,
    /// A variable of the clients' environment.
    pub env: Option<String>,
}

/// What a task's worktree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Workspace {
    /// Ignored directories and files that are carried into the worktree, e.g. `node_modules`.
    pub carry: Option<Vec<String>>,
    /// Whether checkpoints hold ignored files.
    pub ignored: Ignored,
}

/// Ignored files in checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ignored {
    /// They are left out, and undo leaves them alone.
    #[default]
    Skip,
    /// They are kept and undone like all others.
    Keep,
}

/// Whether a person is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Asking {
    /// Whenever the policy says so.
    #[default]
    Policy,
    /// Never, within the floor, until a moment and for a reason.
    Never,
}

/// Default limits of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Money, e.g. `5usd`.
    pub budget: Option<String>,
    /// Model calls.
    pub max_steps: Option<u32>,
    /// Tokens in and out.
    pub max_tokens: Option<u64>,
    /// Working time, e.g. `4h`, `90m`, `30s`.
    pub max_wall_time: Option<String>,
    /// CPU time of all commands together, e.g. `2h`.
    pub max_cpu: Option<String>,
    /// Disk that commands may take, e.g. `5GiB`.
    pub max_disk: Option<String>,
    /// Processes and threads of a command at once.
    pub max_processes: Option<u64>,
    /// Memory of a command at once, e.g. `4GiB`.
    pub max_memory: Option<String>,
}

/// Who may work, and how many tasks are taken. User configuration only; read when the daemon starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Scheduler {
    /// Tasks that work at the same time.
    pub running: Option<usize>,
    /// Open tasks that are accepted.
    pub open: Option<usize>,
    /// Open tasks of one user that are accepted.
    pub per_tenant: Option<usize>,
    /// Tasks that work with one provider at the same time; 0 for any number.
    pub per_provider: Option<u32>,
    /// Tasks that work with one host of a model's endpoint at the same time; 0 for any number.
    pub per_host: Option<u32>,
    /// Tasks that work for one repository at the same time; 0 for any number.
    pub per_workspace: Option<u32>,
}

/// The check that decides whether a task is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Verify {
    /// Command for `/bin/sh -c`; exit code 0 means verified.
    pub command: Option<String>,
}

/// What becomes of old parts of the journal. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Journal {
    /// Directory that old segments are copied to before anything is dropped from them.
    pub archive: Option<PathBuf>,
}

/// A key of the file: its dotted path (`*` stands for a name), and what it means.
pub struct Key {
    /// Dotted path.
    pub path: &'static str,
    /// One line.
    pub meaning: &'static str,
}

const fn key(path: &'static str, meaning: &'static str) -> Key {
    Key { path, meaning }
}

/// All keys.
pub const KEYS: [Key; 61] = [
    key("model", "default model, provider/model"),
    key("providers.*.wire", "openai | openai-responses | anthropic | gemini | ollama | replay"),
    key("providers.*.base_url", "where it listens"),
    key("providers.*.api_key_env", "variable that holds the key"),
    key("providers.*.api_key", "the key as a configured secret: \"secret:NAME\""),
    key("providers.*.path", "file of recorded turns (wire replay)"),
    key("providers.*.headers.*", "a further HTTP header"),
    key("models.*.context_tokens", "tokens that fit into one call"),
    key("models.*.max_output_tokens", "most tokens of one answer"),
    key("models.*.tools", "native | json-schema | auto"),
    key("models.*.input_usd_per_mtok", "price of input, US dollars per million tokens"),
    key("models.*.output_usd_per_mtok", "price of output"),
    key("models.*.cached_usd_per_mtok", "price of input read from the provider's cache"),
    key("models.*.reasoning", "off | on | low | medium | high | max"),
    key("sandbox.level", "auto | full | landlock | none"),
    key("sandbox.network", "none | proxy | host; proxy where egress lists hosts"),
    key("sandbox.workspace", "auto | overlay | direct: how commands write to the worktree"),
    key("sandbox.read", "further directories that commands may read"),
    key("sandbox.memory", "memory of a command, e.g. \"8GiB\" or \"75%\" of the host's"),
    key("sandbox.processes", "processes and threads of a command at once"),
    key("sandbox.disk", "disk that a task's commands may take, e.g. \"20GiB\""),
    key("egress.presets", "registries that commands may read: cargo, npm, pip, go, git"),
    key("egress.host", "hosts that commands may reach, one [[egress.host]] each (docs/egress.md)"),
    key("mcp_servers.*.command", "program and arguments of an MCP server"),
    key("mcp_servers.*.env.*", "a variable that the server gets"),
    key("mcp_servers.*.network", "inherit | none | host"),
    key("mcp_servers.*.reads", "whether it sees the worktree; true"),
    key("mcp_servers.*.writes", "whether it may write the worktree; false"),
    key("mcp_servers.*.read", "further paths that it may read"),
    key("mcp_servers.*.tools", "the tools that are offered; all when left out"),
    key("mcp_servers.*.read_only", "tools that change nothing, by your word; called without asking"),
    key("mcp_servers.*.timeout", "longest time for one answer, e.g. \"60s\""),
    key("mcp_servers.*.enabled", "whether it is used; true"),
    key("secrets.*.file", "file of mode 600 that holds the secret"),
    key("secrets.*.env", "variable that holds the secret"),
    key("security.patterns", "on | off: hide what looks like a secret from providers and from the log"),
    key("security.root_key", "file with the root key; keep it apart from backups of the data"),
    key("workspace.carry", "ignored files and directories that a task takes with it"),
    key("workspace.ignored", "skip | keep"),
    key("approvals.mode", "policy | never (nobody is asked; needs reason and until)"),
    key("approvals.reason", "why nobody is asked"),
    key("approvals.until", "until when nobody is asked, RFC 3339"),
    key("limits.budget", "money per task, e.g. \"5usd\""),
    key("limits.max_steps", "model calls per task"),
    key("limits.max_tokens", "tokens per task"),
    key("limits.max_wall_time", "working time per task, e.g. \"4h\""),
    key("limits.max_cpu", "CPU time of a task's commands together, e.g. \"2h\""),
    key("limits.max_disk", "disk that a task's commands may take, e.g. \"5GiB\""),
    key("limits.max_processes", "processes and threads of a command at once"),
    key("limits.max_memory", "memory of a command at once, e.g. \"4GiB\""),
    key("verify.command", "the check that decides whether a task is done"),
    key("approvals.expires", "how long a question waits for an answer, e.g. \"24h\""),
    key("ui.notify", "auto | off: bell and notice when a task asks or ends"),
    key("scheduler.running", "tasks that work at the same time"),
    key("scheduler.open", "open tasks that are accepted"),
    key("scheduler.per_tenant", "open tasks of one user that are accepted"),
    key("scheduler.per_provider", "tasks that work with one provider at the same time; 0: any number"),
    key("scheduler.per_host", "tasks that work with one model host at the same time; 0: any number"),
    key("scheduler.per_workspace", "tasks that work for one repository at the same time; 0: any number"),
    key("journal.archive", "directory that old segments of the journal are copied to before anything is dropped"),
    // A project's file may also say which schema it follows.
    key("version", "version of this file's form; 1"),
];

/// The only keys that a project's own file may hold, trusted or not.
pub const PROJECT_KEYS: [&str; 9] = [
    "verify.command",
    "limits.budget",
    "limits.max_steps",
    "limits.max_tokens",
    "limits.max_wall_time",
    "limits.max_cpu",
    "limits.max_disk",
    "limits.max_processes",
    "limits.max_memory",
];
