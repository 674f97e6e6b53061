//! A policy file as types.
//!
//! Only shapes; what they mean is in `load`. Invariant: a key that no field here reads is refused,
//! because a misspelt `forbid` must not be silence.

use serde::Deserialize;
use toml::Spanned;

/// A whole policy file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    /// What becomes of a command that no `allow` rule with `argv` matches.
    pub unmatched_commands: Option<Spanned<Unmatched>>,
    /// The rules.
    pub rule: Vec<Spanned<RuleOptions>>,
}

/// What becomes of commands that no `allow` covers; later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// Refused when the file is read: leaving it out says so.
    Allow,
    /// What risk and the user's own words say.
    Risk,
    /// A person is asked.
    Ask,
    /// They are refused.
    Forbid,
}

/// What a rule says; later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It may be done.
    Allow,
    /// A person is asked.
    Ask,
    /// It is refused.
    Forbid,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleOptions {
    /// Its name, unique in the file.
    pub id: Spanned<String>,
    /// Beginning of a command, word by word; an inner list holds alternatives.
    #[serde(default)]
    pub argv: Option<Vec<Spanned<Words>>>,
    /// Words that must not follow.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// `toolchain` (found outside the workspace) or the program's whole path; for `allow` only.
    #[serde(default)]
    pub program: Option<Spanned<String>>,
    /// Patterns of files that a file tool would write.
    #[serde(default)]
    pub paths: Option<Vec<Spanned<String>>>,
    /// Tools that it is about; all when left out. `server.tool` is one of an MCP server, `server.*` all
    /// of it.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Only calls of an MCP server's tools, or only others.
    #[serde(default)]
    pub mcp: Option<bool>,
    /// Only tools of MCP servers that the operator calls read-only, or only those that he does not.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// Sandbox levels that it is about; all when left out.
    #[serde(default)]
    pub level: Vec<Spanned<String>>,
    /// Only calls that run or feed a command, or only those that do not.
    #[serde(default)]
    pub runs: Option<bool>,
    /// Only calls that write files, or only those that do not.
    #[serde(default)]
    pub writes: Option<bool>,
    /// Only calls that delete more tracked files than this.
    #[serde(default)]
    pub deletes_over: Option<u32>,
    /// What it says.
    pub decision: Spanned<Decision>,
    /// Examples that it must match.
    #[serde(default, rename = "match")]
    pub matches: Vec<Spanned<String>>,
    /// Examples that it must not match.
    #[serde(default)]
    pub not_match: Vec<Spanned<String>>,
    /// Why, for whoever is asked or refused.
    #[serde(default)]
    pub why: Option<String>,
}

/// One place of a command's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// This word.
    One(String),
    /// One of these.
    Any(Vec<String>),
}
