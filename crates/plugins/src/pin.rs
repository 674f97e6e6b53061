//! The pin of a program: which file would be started, with which words and rights.
//!
//! Reads the program's file and those that its arguments name; runs nothing. Invariant: whatever could
//! make the same configuration start something else changes the digest.

use crate::error::Error;
use crate::plain::plain;
use crate::server::Server;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Names the form of the bytes; a new form gets a new name, so that old approvals do not fit it.
const FORM: &str = "tinkerbell mcp launch 1";
/// Largest file of an argument that is read for the digest.
const MOST_BYTES: u64 = 256 << 20;

/// Most files whose sums are kept.
const MOST_SUMS: usize = 1_000;

/// A file as the kernel tells it: device, number, length, and the moment of its last change.
type Identity = (u64, u64, u64, i64, i64);

/// Sums of files that were read, so that a large interpreter is not read before each call.
#[derive(Debug, Default)]
pub struct Sums(Mutex<HashMap<Identity, String>>);

impl Sums {
    fn of(&self, file: &Path) -> std::io::Result<String> {
        let mut open = std::fs::File::open(file)?;
        let meta = open.metadata()?;
        if meta.len() > MOST_BYTES {
            return Err(std::io::Error::other("it is larger than 256 MiB"));
        }
        // The moment of change is the kernel's own: no program of a user can set it back.
        let identity = (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sum) = known().get(&identity) {
            return Ok(sum.clone());
        }
        let sum = sum(&mut open)?;
        let mut known = known();
        if known.len() >= MOST_SUMS {
            known.clear();
        }
        known.insert(identity, sum.clone());
        Ok(sum)
    }
}

/// What would be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The words, the program with its whole path.
    pub argv: Vec<String>,
    /// The files that are pinned and must be readable: the program and those that arguments name.
    pub files: Vec<PathBuf>,
    /// SHA-256 over all, hexadecimal.
    pub digest: String,
    /// All of it for a person.
    pub text: String,
}

impl Launch {
    /// Looks at what a server's configuration means now. Blocks while files are read.
    ///
    /// # Errors
    /// When there is no such program, or what would be started lies where a task can write.
    pub fn of(server: &Server, path: &str, (writable, known): (&[PathBuf], &Sums)) -> Result<Self, Error> {
        let bad = |why: String| Error::Configured { name: server.name.clone(), why };
        let (word, rest) = server.command.split_first().ok_or_else(|| bad("its `command` is empty".into()))?;
        let program = find(word, path).ok_or_else(|| bad(format!("no program `{}` is found; give its whole path", plain(word))))?;
        let named = rest.iter().map(PathBuf::from).filter(|file| file.is_absolute() && file.is_file());
        let files: Vec<PathBuf> = std::iter::once(program.clone()).chain(named).collect();
        let mut sums = Vec::new();
        for file in &files {
            let real = file.canonicalize().map_err(|error| bad(format!("{}: {error}", file.display())))?;
            if let Some(place) = writable.iter().find(|place| real.starts_with(place)) {
                return Err(bad(format!("{} lies in {}, which the task can write", real.display(), place.display())));
            }
            sums.push((real.clone(), known.of(&real).map_err(|error| bad(format!("{}: {error}", real.display())))?));
        }
        let argv: Vec<String> = std::iter::once(program.to_string_lossy().into_owned()).chain(rest.iter().cloned()).collect();
        let parts = parts(server, &argv, &sums);
        let digest = digest(FORM, parts.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        let text = parts.iter().map(|(name, value)| format!("{name:<9} {}\n", plain(value))).collect();
        Ok(Self { argv, files, digest, text })
    }
}

/// All that is pinned, as name and value, in order.
fn parts(server: &Server, argv: &[String], sums: &[(PathBuf, String)]) -> Vec<(&'static str, String)> {
    let mut parts = vec![("server", server.name.clone())];
    parts.extend(argv.iter().enumerate().map(|(at, word)| (if at == 0 { "program" } else { "argument" }, word.clone())));
    parts.extend(sums.iter().map(|(file, sum)| ("file", format!("{}  sha256 {sum}", file.display()))));
    parts.extend(server.env.iter().map(|(name, _)| ("variable", name.clone())));
    let network = match server.network {
        None => "what commands get",
        Some(false) => "none",
        Some(true) => "the host's",
    };
    parts.push(("network", network.to_owned()));
    let tree = match (server.reads, server.writes) {
        (_, true) => "read and written",
        (true, false) => "read",
        (false, false) => "not seen",
    };
    parts.push(("worktree", tree.to_owned()));
    parts.extend(server.read.iter().map(|path| ("reads", path.display().to_string())));
    parts
}

/// SHA-256 over length-led parts, hexadecimal.
pub fn digest<'a>(form: &'a str, parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(form).chain(parts) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

/// What a name would start: itself as a whole path, or the first of PATH. Not a path relative to
/// anything, because that would depend on where the daemon stands.
fn find(word: &str, path: &str) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if word.contains('/') {
        return Some(PathBuf::from(word)).filter(|file| file.is_absolute() && is_program(file));
    }
    path.split(':').map(Path::new).filter(|dir| dir.is_absolute()).map(|dir| dir.join(word)).find(is_program)
}

fn sum(open: &mut std::fs::File) -> std::io::Result<String> {
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = open.read(&mut block)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(block.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn server(command: &[&str]) -> Server {
        Server {
            name: "files".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("TOKEN".into(), "one".into())],
            network: None,
            reads: true,
            writes: false,
            read: Vec::new(),
            tools: None,
            read_only: BTreeSet::new(),
            timeout: Duration::from_secs(1),
            fault: None,
        }
    }

    #[test]
    fn whatever_would_start_something_else_changes_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (program, script) = (dir.path().join("serve"), dir.path().join("main.py"));
        let write = |file: &Path, text: &str| {
            std::fs::write(file, text).unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(&program, "#!/bin/sh\n");
        write(&script, "print(1)\n");
        let path = dir.path().to_str().unwrap();
        let plain = server(&["serve", script.to_str().unwrap()]);
        let digest = |server: &Server| Launch::of(server, path, (&[], &Sums::default())).unwrap().digest;
        let first = digest(&plain);
        assert_eq!(first, digest(&plain));
        assert_eq!(first, digest(&Server { env: vec![("TOKEN".into(), "two".into())], ..plain.clone() }), "values are not pinned");
        let others = [
            Server { name: "other".into(), ..plain.clone() },
            Server { env: vec![("TOKEN".into(), "one".into()), ("MORE".into(), "x".into())], ..plain.clone() },
            Server { network: Some(true), ..plain.clone() },
            Server { writes: true, ..plain.clone() },
            Server { reads: false, ..plain.clone() },
            Server { read: vec!["/srv".into()], ..plain.clone() },
            server(&["serve", script.to_str().unwrap(), "--root"]),
            server(&["serve"]),
        ];
        let mut seen: BTreeSet<String> = others.iter().map(&digest).collect();
        assert!(seen.len() == others.len() && !seen.contains(&first));
        write(&script, "print(2)\n");
        assert!(seen.insert(digest(&plain)) && !seen.contains(&first), "the script was replaced");
        write(&script, "print(1)\n");
        assert_eq!(first, digest(&plain));
        write(&program, "#!/bin/sh\n:\n");
        assert!(seen.insert(digest(&plain)) && !seen.contains(&first), "the program was replaced");
    }

    #[test]
    fn what_can_not_be_pinned_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().canonicalize().unwrap();
        std::fs::write(place.join("serve"), "").unwrap();
        let why = |command: &[&str]| {
            Launch::of(&server(command), place.to_str().unwrap(), (std::slice::from_ref(&place), &Sums::default())).unwrap_err().to_string()
        };
        assert!(why(&[]).contains("`command` is empty"));
        assert!(why(&["serve"]).contains("no program `serve`"), "it is not executable");
        assert!(why(&["./serve"]).contains("whole path"), "a relative path depends on where the daemon stands");
        std::fs::set_permissions(place.join("serve"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(why(&["serve"]).contains("which the task can write"));
    }
}
