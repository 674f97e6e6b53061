//! Version 1 of limits, reservations and what became of them.
//!
//! Part of the journal's payloads; the same rules hold as in the module above. Invariant: fields
//! are added, never renumbered or reused.

/// Limits of a task; `None` where nothing is limited.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Caps {
    /// Money in nano-dollars.
    #[prost(uint64, optional, tag = "1")]
    pub nano_usd: Option<u64>,
    /// Model calls.
    #[prost(uint32, optional, tag = "2")]
    pub steps: Option<u32>,
    /// Tokens in and out together.
    #[prost(uint64, optional, tag = "3")]
    pub tokens: Option<u64>,
    /// Wall time in milliseconds.
    #[prost(uint64, optional, tag = "4")]
    pub wall_ms: Option<u64>,
    /// CPU time of all its commands together, in milliseconds.
    #[prost(uint64, optional, tag = "5")]
    pub cpu_ms: Option<u64>,
    /// Bytes by which its worktree and private directories may grow.
    #[prost(uint64, optional, tag = "6")]
    pub disk_bytes: Option<u64>,
    /// Processes and threads of a command at once.
    #[prost(uint64, optional, tag = "7")]
    pub processes: Option<u64>,
    /// Memory of a command at once, in bytes.
    #[prost(uint64, optional, tag = "8")]
    pub memory_bytes: Option<u64>,
}

/// Money and tokens, or CPU time and disk, were set aside for an effect.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reserved {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// Nano-dollars.
    #[prost(uint64, tag = "2")]
    pub nano_usd: u64,
    /// Tokens.
    #[prost(uint64, tag = "3")]
    pub tokens: u64,
    /// CPU time in milliseconds, where the task has a limit: what was left of it. Commands that run
    /// beside each other share it.
    #[prost(uint64, optional, tag = "4")]
    pub cpu_ms: Option<u64>,
    /// Bytes of disk, likewise.
    #[prost(uint64, optional, tag = "5")]
    pub disk_bytes: Option<u64>,
}

/// A reservation became spend.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Settled {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// Nano-dollars really spent.
    #[prost(uint64, tag = "2")]
    pub nano_usd: u64,
    /// Input tokens.
    #[prost(uint64, tag = "3")]
    pub input_tokens: u64,
    /// Of those, read from cache.
    #[prost(uint64, tag = "4")]
    pub cached_tokens: u64,
    /// Output tokens.
    #[prost(uint64, tag = "5")]
    pub output_tokens: u64,
    /// CPU time of all commands of the task until now, background ones included, in milliseconds.
    #[prost(uint64, optional, tag = "6")]
    pub cpu_ms: Option<u64>,
    /// Bytes by which the task's worktree and private directories have grown until now.
    #[prost(uint64, optional, tag = "7")]
    pub disk_bytes: Option<u64>,
}

/// A reservation was given back unspent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Released {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// Why.
    #[prost(string, tag = "2")]
    pub why: String,
}
