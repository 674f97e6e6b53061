//! Real MCP servers, fetched by package name, for tests of the client that drives them in their sandboxes.
//!
//! They are installed below `target/` as a user would install them, and started by tests alone. Invariant: a
//! kind that cannot be fetched is left out and named with the reason.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

/// The language, and how its servers are installed into the current directory.
const KINDS: [(&str, &str); 2] = [
    (
        "node",
        "npm install --prefix . --no-audit --no-fund --loglevel=error \
         @modelcontextprotocol/server-everything@2026.8.31 @modelcontextprotocol/server-filesystem@2026.8.31",
    ),
    (
        "python",
        "python3 -m pip install --quiet --disable-pip-version-check --timeout 20 --retries 1 --target . \
         mcp-server-time==2026.10.19 mcp-server-git==2026.10.19",
    ),
];

/// Fetches what is missing; tells where it lies.
///
/// # Errors
/// A directory can not be written.
pub fn up(home: &Path) -> Result<ExitCode> {
    println!("the servers lie in {}", fetch(home)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The directory with one directory per kind, and a file `KIND.ready` beside each that is whole.
///
/// # Errors
/// A directory can not be written.
pub fn fetch(home: &Path) -> Result<PathBuf> {
    for (kind, script) in KINDS {
        super::builds::fetch_one(home, (kind, script), ("ready", ""))?;
    }
    Ok(home.to_owned())
}
