//! The private home of a task: empty, but for links to the user's package stores.
//!
//! A store is shared for reading only; what is written stays in the task's home. Invariant: nothing
//! that may hold a credential is copied or linked.

use super::Places;
use crate::error::Error;
use crate::options::{NetworkChoice, SandboxOptions};
use std::path::{Path, PathBuf};

/// Stores in the user's home, and where the private home links to them.
pub const STORES: &[(&str, &str)] = &[
    (".cargo/registry/index", ".cargo/registry/index"),
    (".cargo/registry/cache", ".cargo/registry/cache"),
    (".cargo/git/db", ".cargo/git/db"),
    (".npm/_cacache/content-v2", ".npm/_cacache/content-v2"),
    (".npm/_cacache/index-v5", ".npm/_cacache/index-v5"),
    ("go/pkg/mod/cache/download", ".goproxy"),
    (".m2/repository", ".m2/repository"),
];

/// Fills a task's home, once, before its first command: afterwards commands own what is in it, and
/// the daemon, which stands outside the sandbox, must not write through links they may have left.
///
/// # Errors
/// When the home can not be written.
pub fn prepare(options: &SandboxOptions, places: &Places) -> Result<(), Error> {
    let private = &places.private;
    let (lock, ready) = (private.join("lock"), private.join("ready"));
    let file = std::fs::File::create(&lock).map_err(Error::files(&lock))?;
    // Two first commands at once: the second waits, and finds everything done.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|error| Error::files(&lock)(error.into()))?;
    if ready.exists() {
        return Ok(());
    }
    fill(options, places)?;
    std::fs::write(&ready, "").map_err(Error::files(&ready))
}

fn fill(options: &SandboxOptions, places: &Places) -> Result<(), Error> {
    let Some(user) = &options.home else { return Ok(()) };
    // Who can fetch must be able to keep what was fetched, and the user's stores can only be read.
    let stores = if options.network == NetworkChoice::Proxy { &[] } else { STORES };
    for (store, place) in stores {
        let (from, to) = (user.join(store), places.home.join(place));
        let Ok(from) = from.canonicalize() else { continue };
        if to.symlink_metadata().is_ok() {
            continue;
        }
        let link = || -> std::io::Result<()> {
            to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::os::unix::fs::symlink(&from, &to)
        };
        link().map_err(Error::files(&to))?;
    }
    carry_cargo_config(user, &places.home)
}

/// Cargo finds vendored and mirrored sources by its configuration; lines that may hold a credential
/// stay behind.
fn carry_cargo_config(user: &Path, home: &Path) -> Result<(), Error> {
    let to = home.join(".cargo/config.toml");
    if to.exists() {
        return Ok(());
    }
    let Ok(text) = std::fs::read_to_string(user.join(".cargo/config.toml")) else { return Ok(()) };
    let write = || -> std::io::Result<()> {
        to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&to, without_secrets(&text))
    };
    write().map_err(Error::files(&to))
}

/// Files that tools look for in every directory above the workspace. At level `full` those are not
/// there; at level `landlock` they are seen and refused, and cargo for one fails on a refusal. They
/// are granted unless they may hold a credential.
#[must_use]
pub fn ancestors(tree: &Path) -> Vec<PathBuf> {
    const NAMES: &[&str] = &[
        ".cargo/config.toml",
        ".cargo/config",
        "Cargo.toml",
        "rust-toolchain",
        "rust-toolchain.toml",
        "rustfmt.toml",
        ".rustfmt.toml",
        "clippy.toml",
        "package.json",
        "tsconfig.json",
        "pyproject.toml",
        "setup.cfg",
        "pytest.ini",
        "tox.ini",
        "go.work",
        "go.mod",
        ".editorconfig",
        ".prettierrc",
        ".eslintrc.json",
    ];
    let files = tree.ancestors().skip(1).flat_map(|dir| NAMES.iter().map(move |name| dir.join(name)));
    let is_harmless =
        |path: &PathBuf| path.is_file() && std::fs::read_to_string(path).is_ok_and(|text| text.lines().all(|line| !is_secret(line)));
    files.filter(is_harmless).filter_map(|path| path.canonicalize().ok()).collect()
}

fn without_secrets(text: &str) -> String {
    text.lines().filter(|line| !is_secret(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Whether a line of configuration may hold a credential.
fn is_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let user_in_url = line.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    user_in_url || ["token", "secret", "password", "credential", "authorization"].iter().any(|word| line.contains(word))
}

#[cfg(test)]
#[test]
fn cargo_configuration_is_carried_without_credentials() {
    let text = "[source.x]\nregistry = \"sparse+https://m.example/x/\"\n[registries.y]\ntoken = \"t\"\nindex = \"https://u:p@h/i\"\n";
    assert_eq!(without_secrets(text), "[source.x]\nregistry = \"sparse+https://m.example/x/\"\n[registries.y]\n");
}
