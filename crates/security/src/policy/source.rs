//! The files of the policy: where they are, and who may have written them.
//!
//! Invariant: a file that somebody else could have written is refused and not skipped, or its rules
//! would vanish without a word.

use super::built_in;
use super::judge::Layer;
use super::load::{RuleSet, parse};
use crate::owner;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};

/// The most that is read of a file.
pub const MOST_BYTES: u64 = 1024 * 1024;

/// Where the files of organisation and user lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPlaces {
    /// The machine's file; only root may own it.
    pub organisation: PathBuf,
    /// The user's file.
    pub user: PathBuf,
    /// The user.
    pub uid: u32,
}

impl PolicyPlaces {
    /// The file of what the user allowed for more than one time, beside the user's policy.
    #[must_use]
    pub fn grants(&self) -> PathBuf {
        self.user.with_file_name("grants.toml")
    }

    /// Reads the built-in rules and both files; a file that does not exist has none.
    ///
    /// # Errors
    /// `TB-POLICY-002` for a file that can not be trusted or read, else as [`parse`].
    pub fn read(&self) -> Result<Vec<RuleSet>, Fault> {
        let mut sets = vec![built_in()?];
        sets.extend(read_file(Layer::Organisation, &self.organisation, &[0])?);
        sets.extend(read_file(Layer::User, &self.user, &[0, self.uid])?);
        Ok(sets)
    }
}

/// Reads one file; `owners` may own it and the directories above it.
///
/// # Errors
/// `TB-POLICY-002` for a file that can not be trusted or read, else as [`parse`].
pub fn read_file(layer: Layer, path: &Path, owners: &[u32]) -> Result<Option<RuleSet>, Fault> {
    let Some(text) = read_owned(path, owners)? else { return Ok(None) };
    parse(layer, &path.display().to_string(), &text).map(Some)
}

/// Reads the text of a file that steers; `owners` may own it and its directory.
///
/// # Errors
/// `TB-POLICY-002` for a file that can not be trusted or read.
pub fn read_owned(path: &Path, owners: &[u32]) -> Result<Option<String>, Fault> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let meta = file.metadata().map_err(|error| unreadable(path, &error.to_string()))?;
    trusted(path, &meta, owners)?;
    if let Some(dir) = path.parent() {
        let meta = dir.metadata().map_err(|error| unreadable(dir, &error.to_string()))?;
        trusted(dir, &meta, owners)?;
        if let Some(why) = owner::shared_above(dir, owners) {
            return Err(untrusted(path, &why));
        }
    }
    text(path, &mut file, &meta).map(Some)
}

/// Reads a project's file, `.tinkerbell/policy.toml` below its root; anybody may have written it,
/// because it can only tighten.
///
/// # Errors
/// `TB-POLICY-002` for a file that can not be read or is a link, else as [`parse`].
pub fn project_file(root: &Path) -> Result<Option<RuleSet>, Fault> {
    let path = root.join(".tinkerbell/policy.toml");
    match path.symlink_metadata() {
        Err(error) if is_absent(&error) => return Ok(None),
        Ok(meta) if meta.is_symlink() => return Err(unreadable(&path, "it is a link")),
        // Anything else is told by opening it.
        _ => {}
    }
    let Some(mut file) = open(&path)? else { return Ok(None) };
    let meta = file.metadata().map_err(|error| unreadable(&path, &error.to_string()))?;
    let text = text(&path, &mut file, &meta)?;
    parse(Layer::Project, &path.display().to_string(), &text).map(Some)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Opens without waiting for a writer, should it be a pipe.
fn open(path: &Path) -> Result<Option<File>, Fault> {
    use rustix::fs::{Mode, OFlags};
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(error) if is_absent(&error.into()) => Ok(None),
        Err(error) => Err(unreadable(path, &error.to_string())),
    }
}

fn text(path: &Path, file: &mut File, meta: &Metadata) -> Result<String, Fault> {
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return Err(unreadable(path, "it is not a plain file of at most 1 MiB"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| unreadable(path, &error.to_string()))?;
    Ok(text)
}

fn trusted(path: &Path, meta: &Metadata, owners: &[u32]) -> Result<(), Fault> {
    let Some(why) = owner::shared(meta, owners) else { return Ok(()) };
    let fault = untrusted(path, &why);
    Err(if owners.contains(&meta.uid()) { fault.hint(format!("chmod go-w {}", path.display())) } else { fault })
}

fn untrusted(path: &Path, why: &str) -> Fault {
    Fault::new("TB-POLICY-002", exit::CONFIG, format!("{} can not be trusted as policy: {why}", path.display()))
}

fn unreadable(path: &Path, why: &str) -> Fault {
    Fault::new("TB-POLICY-002", exit::CONFIG, format!("{} can not be read as policy: {why}", path.display()))
        .hint("make it a readable plain file, or move it away")
}
