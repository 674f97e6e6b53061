//! Real projects of five ecosystems, fetched by package name, for builds inside the sandbox.
//!
//! Fetching fills the user's own package caches as the user would; the build inside then has no
//! network. Invariant: a project that cannot be fetched is left out and named with the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

/// Name, how it is fetched (in an empty directory, outside the sandbox), how it is built and tested.
const PROJECTS: [(&str, &str, &str); 5] = [
    (
        "cargo",
        "printf '[package]\\nname = \"fetch\"\\nversion = \"0.0.0\"\\nedition = \"2021\"\\n[workspace]\\n[lib]\\npath = \"x.rs\"\\n[dependencies]\\nitoa = \"=1.0.18\"\\n' > Cargo.toml && \
         touch x.rs && cargo vendor --quiet v > /dev/null && rm Cargo.* x.rs && cp -R v/itoa/. . && rm -r v .cargo-checksum.json && \
         printf '\\n[workspace]\\n' >> Cargo.toml && cargo fetch --quiet",
        "cargo test --offline --tests",
    ),
    (
        "npm",
        "printf '{\"name\":\"x\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"mocha t.js\"},\"dependencies\":{\"semver\":\"7.6.3\"},\"devDependencies\":{\"mocha\":\"10.8.2\"}}' > package.json && \
         printf 'const semver = require(\"semver\");\\nit(\"compares\", () => { if (!semver.gt(\"1.10.0\", \"1.9.0\")) throw new Error(); });\\n' > t.js && \
         npm install --silent --no-audit --no-fund --omit-lockfile-registry-resolved=false && rm -rf node_modules",
        "npm ci --offline && npm test",
    ),
    (
        "pytest",
        "python3 -m pip download --quiet --no-deps --no-binary :all: --dest d toolz==1.0.0 && tar -xzf d/*.tar.gz --strip-components 1 && rm -r d && \
         python3 -c 'import pytest'",
        "python3 -m pytest -q -p no:cacheprovider toolz",
    ),
    (
        "go",
        "d=$(cd / && GOFLAGS=-mod=mod go mod download -json github.com/google/uuid@v1.6.0 | sed -n 's/.*\"Dir\": \"\\(.*\\)\".*/\\1/p') && cp -R $d/. . && chmod -R u+w .",
        "go vet ./... && go test ./...",
    ),
    (
        "make",
        "printf '[package]\\nname = \"fetch\"\\nversion = \"0.0.0\"\\nedition = \"2021\"\\n[workspace]\\n[lib]\\npath = \"x.rs\"\\n[dependencies]\\nlz4-sys = \"=1.11.1\"\\n' > Cargo.toml && \
         touch x.rs && cargo vendor --quiet v > /dev/null && cp -R v/lz4-sys/liblz4/. . && rm -r v Cargo.* x.rs",
        "make -j2 lib lz4 && ./lz4 -f LICENSE \"$TMPDIR/l.lz4\" && ./lz4 -t \"$TMPDIR/l.lz4\"",
    ),
];

/// Fetches what is missing; tells what can be built.
///
/// # Errors
/// A directory can not be written.
pub fn up(home: &Path) -> Result<ExitCode> {
    let dir = fetch(home)?;
    println!("the projects lie in {}", dir.display());
    Ok(ExitCode::SUCCESS)
}

/// The directory with one project per directory, each with its `command` beside it.
///
/// # Errors
/// A directory can not be written.
pub fn fetch(home: &Path) -> Result<PathBuf> {
    for (name, script, command) in PROJECTS {
        fetch_one(home, (name, script), ("command", command))?;
    }
    Ok(home.to_owned())
}

/// Runs a script in a new directory, unless it did before, and leaves `NAME.ENDING` with this text beside it.
///
/// # Errors
/// A directory can not be written.
pub fn fetch_one(home: &Path, (name, script): (&str, &str), (ending, text): (&str, &str)) -> Result<()> {
    let (dir, ready) = (home.join(name), home.join(format!("{name}.{ending}")));
    if ready.is_file() {
        return Ok(());
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let fetched = Command::new("sh").args(["-ec", script]).current_dir(&dir).stdin(Stdio::null()).output()?;
    if fetched.status.success() {
        fs::write(ready, text)?;
    } else {
        let why = String::from_utf8_lossy(&fetched.stderr);
        println!("skipped: {name} can not be fetched: {}", why.lines().last().unwrap_or("its tools are missing"));
    }
    Ok(())
}
