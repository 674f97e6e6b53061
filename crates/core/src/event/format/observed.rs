//! Version 1 of what was observed: the outcome of each kind of effect.
//!
//! Part of the journal's payloads; the same rules hold as in the module above. Invariant: fields
//! are added, never renumbered or reused.

/// An effect's outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Observed {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// The outcome.
    #[prost(oneof = "Observation", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub observation: Option<Observation>,
}

/// An effect's outcome, by kind of action.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Observation {
    /// The workspace stands.
    #[prost(message, tag = "2")]
    Prepared(Prepared),
    /// The model answered.
    #[prost(message, tag = "3")]
    Reply(Reply),
    /// A tool's result.
    #[prost(message, tag = "4")]
    Result(ResultSeen),
    /// The gate's verdict.
    #[prost(message, tag = "5")]
    Verdict(Verdict),
    /// A micro-commit stands.
    #[prost(message, tag = "6")]
    Committed(Committed),
    /// A user's operation is done.
    #[prost(message, tag = "7")]
    Operated(Operated),
    /// The effect failed for good.
    #[prost(message, tag = "8")]
    Failed(Failed),
}

/// The workspace stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Prepared {
    /// The user's repository, path bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub repo: Vec<u8>,
    /// The task's tree, path bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub tree: Vec<u8>,
    /// The worktree's private git directory, path bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub git_dir: Vec<u8>,
    /// The common git directory, path bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub common_dir: Vec<u8>,
    /// The task's branch.
    #[prost(string, tag = "5")]
    pub branch: String,
    /// The commit it starts on.
    #[prost(string, tag = "6")]
    pub base: String,
    /// The first checkpoint.
    #[prost(string, tag = "7")]
    pub checkpoint: String,
    /// Texts of AGENTS.md and kin, outermost first, capped.
    #[prost(string, tag = "8")]
    pub rules: String,
    /// Facts that can not change in the task: system, root files, languages.
    #[prost(string, tag = "9")]
    pub environment: String,
    /// The verification command that holds for the task; empty when none was found.
    #[prost(string, tag = "10")]
    pub verify: String,
    /// Where that command came from: `given`, `config`, `project`, a file name, or empty.
    #[prost(string, tag = "11")]
    pub verify_origin: String,
    /// The sandbox level that commands get.
    #[prost(string, tag = "12")]
    pub level: String,
    /// Directory of the task inside the tree, relative; empty for its root.
    #[prost(string, tag = "13")]
    pub subdir: String,
    /// Things the user should know: submodules left empty, files carried.
    #[prost(string, repeated, tag = "14")]
    pub notes: Vec<String>,
    /// The digest under which the project's own files were trusted; empty where nothing of them counts.
    #[prost(string, tag = "15")]
    pub trust: String,
    /// Whether the model is offered the tools of MCP servers; fixed for the task, because the tools
    /// are part of each request's beginning.
    #[prost(bool, tag = "30")]
    pub servers: bool,
}

/// The model answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The answer's parts in order.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
    /// Who made it.
    #[prost(message, optional, tag = "2")]
    pub made: Option<Made>,
    /// Input tokens, cache reads and writes included.
    #[prost(uint64, tag = "3")]
    pub input_tokens: u64,
    /// Of those, read from cache.
    #[prost(uint64, tag = "4")]
    pub cached_tokens: u64,
    /// Of those, written to cache.
    #[prost(uint64, tag = "5")]
    pub cache_write_tokens: u64,
    /// Output tokens.
    #[prost(uint64, tag = "6")]
    pub output_tokens: u64,
    /// Whether the usage is our estimate because the provider gave none.
    #[prost(bool, tag = "7")]
    pub estimated: bool,
    /// `end`, `calls`, `length`, `filter`.
    #[prost(string, tag = "8")]
    pub stop: String,
    /// Cost in nano-dollars; absent where the price is unknown.
    #[prost(uint64, optional, tag = "9")]
    pub nano_usd: Option<u64>,
    /// Wall time in milliseconds.
    #[prost(uint64, tag = "10")]
    pub wall_ms: u64,
    /// Failed tries before this answer.
    #[prost(uint32, tag = "11")]
    pub retries: u32,
    /// Tries that were paid and gave no answer; `nano_usd` counts them, the tokens above do not.
    #[prost(message, repeated, tag = "12")]
    pub lost: Vec<LostTry>,
}

/// A try of a model call that cost something and gave no answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LostTry {
    /// What became of it, in words.
    #[prost(string, tag = "1")]
    pub why: String,
    /// Input tokens.
    #[prost(uint64, tag = "2")]
    pub input_tokens: u64,
    /// Output tokens.
    #[prost(uint64, tag = "3")]
    pub output_tokens: u64,
    /// Whether a part of that is our estimate.
    #[prost(bool, tag = "4")]
    pub estimated: bool,
    /// The text that had come, as far as it is kept.
    #[prost(string, tag = "5")]
    pub text: String,
}

/// A piece of an answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Part {
    /// What it is.
    #[prost(enumeration = "PartKind", tag = "1")]
    pub kind: i32,
    /// Text, reasoning, call arguments, or opaque JSON.
    #[prost(string, tag = "2")]
    pub text: String,
    /// The provider's call id.
    #[prost(string, tag = "3")]
    pub call_id: String,
    /// The tool that is called.
    #[prost(string, tag = "4")]
    pub tool: String,
}

/// Kinds of [`Part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PartKind {
    /// Words for the user.
    Text = 0,
    /// The model's reasoning, unsigned.
    Reasoning = 1,
    /// A tool call.
    Call = 2,
    /// Bytes that belong to one maker (signatures, encrypted reasoning), replayed only to it.
    Opaque = 3,
}

/// Provenance of an answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Made {
    /// The provider's name in the configuration.
    #[prost(string, tag = "1")]
    pub provider: String,
    /// The wire that was spoken.
    #[prost(string, tag = "2")]
    pub wire: String,
    /// Host and port of the endpoint.
    #[prost(string, tag = "3")]
    pub host: String,
    /// The model that was asked for.
    #[prost(string, tag = "4")]
    pub asked: String,
    /// The model that answered, as the provider names it.
    #[prost(string, tag = "5")]
    pub served: String,
    /// The provider's id of the answer.
    #[prost(string, tag = "6")]
    pub reply_id: String,
}

/// A tool's result.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResultSeen {
    /// What the model reads.
    #[prost(string, tag = "1")]
    pub text: String,
    /// `done`, `failed`, `exited`, `signalled`, `running`, `lost`, `denied`.
    #[prost(string, tag = "2")]
    pub status: String,
    /// Exit code or signal number.
    #[prost(sint32, tag = "3")]
    pub number: i32,
    /// The whole output where the text was cut: a `BlobRef` in binary.
    #[prost(bytes = "vec", tag = "4")]
    pub full: Vec<u8>,
    /// One line for people.
    #[prost(string, tag = "5")]
    pub summary: String,
    /// Wall time in milliseconds.
    #[prost(uint64, tag = "6")]
    pub wall_ms: u64,
    /// Sandbox level of a command.
    #[prost(string, tag = "7")]
    pub level: String,
    /// Checkpoint before; empty when none was taken.
    #[prost(string, tag = "8")]
    pub before: String,
    /// Checkpoint after; empty when none was taken.
    #[prost(string, tag = "9")]
    pub after: String,
    /// What changed between them.
    #[prost(message, repeated, tag = "10")]
    pub files: Vec<FileChange>,
    /// The plan, where the call was `plan`.
    #[prost(message, repeated, tag = "11")]
    pub plan: Vec<PlanStep>,
    /// Connections of a command that ended since its last result.
    #[prost(message, repeated, tag = "24")]
    pub connections: Vec<Connection>,
    /// Network of a command: `none`, `proxy`, `host`; empty where it is not known.
    #[prost(string, tag = "25")]
    pub network: String,
    /// Why a person would have been asked, where a waiver took the question's place.
    #[prost(string, tag = "30")]
    pub waived: String,
    /// CPU time that the command used with all it started, in milliseconds; for those that ended.
    #[prost(uint64, tag = "20")]
    pub cpu_ms: u64,
    /// Most memory that it held at once, in bytes.
    #[prost(uint64, tag = "21")]
    pub memory_bytes: u64,
    /// Most processes and threads that it had at once.
    #[prost(uint64, tag = "22")]
    pub processes: u64,
    /// Why it was ended, where a limit was passed: `memory`, `processes`, `cpu`, `disk`, `deadline`.
    #[prost(string, tag = "23")]
    pub cause: String,
    /// How a command wrote to the tree: `overlay` or `direct`; empty where none ran.
    #[prost(string, tag = "27")]
    pub workspace: String,
}

/// Connections of a command through the proxy: one, or several that differ in nothing but size.
/// The proxy's file in a run's directory holds them as lines of JSON, one each.
#[derive(Clone, PartialEq, Eq, prost::Message, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Connection {
    /// When the first began, milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// How it was asked for: `http`, `connect`, `socks`.
    #[prost(string, tag = "2")]
    pub scheme: String,
    /// The host as it was asked for, made visible and cut.
    #[prost(string, tag = "3")]
    pub host: String,
    /// The port; 0 where none could be read.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// The address that was dialled; empty when none was.
    #[prost(string, tag = "5")]
    pub address: String,
    /// Whether it was allowed to the end.
    #[prost(bool, tag = "6")]
    pub allowed: bool,
    /// The rule that allowed it, or why it was refused or failed.
    #[prost(string, tag = "7")]
    pub why: String,
    /// HTTP requests by method, as `GET 3`; empty where the proxy could not read them.
    #[prost(string, repeated, tag = "8")]
    pub methods: Vec<String>,
    /// Bytes from the command.
    #[prost(uint64, tag = "9")]
    pub up_bytes: u64,
    /// Bytes to the command.
    #[prost(uint64, tag = "10")]
    pub down_bytes: u64,
    /// How long they were open, all together, milliseconds.
    #[prost(uint64, tag = "11")]
    pub open_ms: u64,
    /// How many.
    #[prost(uint32, tag = "12")]
    pub count: u32,
}

/// One changed file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FileChange {
    /// Path in the tree, lossy where it is not UTF-8.
    #[prost(string, tag = "1")]
    pub path: String,
    /// `added`, `changed`, `deleted`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Lines added; 0 for binary files.
    #[prost(uint32, tag = "3")]
    pub plus: u32,
    /// Lines removed; 0 for binary files.
    #[prost(uint32, tag = "4")]
    pub minus: u32,
}

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PlanStep {
    /// What.
    #[prost(string, tag = "1")]
    pub text: String,
    /// `pending`, `active`, `done`.
    #[prost(string, tag = "2")]
    pub status: String,
}

/// The gate's verdict.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Verdict {
    /// Whether the command passed.
    #[prost(bool, tag = "1")]
    pub passed: bool,
    /// What the model reads when it did not.
    #[prost(string, tag = "2")]
    pub text: String,
    /// Exit code, or the negative signal number.
    #[prost(sint32, tag = "3")]
    pub exit: i32,
    /// Wall time in milliseconds.
    #[prost(uint64, tag = "4")]
    pub wall_ms: u64,
    /// Tracked files that the command had changed and that were put back.
    #[prost(string, repeated, tag = "5")]
    pub restored: Vec<String>,
    /// The whole output: a `BlobRef` in binary, or empty.
    #[prost(bytes = "vec", tag = "6")]
    pub full: Vec<u8>,
    /// Connections of the command.
    #[prost(message, repeated, tag = "24")]
    pub connections: Vec<Connection>,
    /// Network of the command, as in [`ResultSeen`].
    #[prost(string, tag = "25")]
    pub network: String,
}

/// A micro-commit stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Committed {
    /// Its object id.
    #[prost(string, tag = "1")]
    pub commit: String,
}

/// A user's operation is done, or could not be.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Operated {
    /// One line for people.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The commit that it made.
    #[prost(string, tag = "2")]
    pub commit: String,
    /// Paths in conflict; not empty means that nothing was changed.
    #[prost(string, repeated, tag = "3")]
    pub conflicts: Vec<String>,
    /// The checkpoint after.
    #[prost(string, tag = "4")]
    pub after: String,
}

/// An effect failed for good.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failed {
    /// The code, e.g. `TB-ROUTER-004`.
    #[prost(string, tag = "1")]
    pub code: String,
    /// What failed.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What to do.
    #[prost(string, repeated, tag = "3")]
    pub hints: Vec<String>,
    /// Exit code of the command line for it.
    #[prost(uint32, tag = "4")]
    pub exit: u32,
    /// Whether the same may succeed later.
    #[prost(bool, tag = "5")]
    pub retryable: bool,
}
