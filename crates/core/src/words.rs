//! Identifiers and small values that every crate speaks.
//!
//! An id is always a newtype; its text form is stable because people and scripts keep it. Nothing
//! here knows where a value came from. Invariant: `Display` and `FromStr` are inverse for each id.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A text that was expected to be an id and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}")]
pub struct BadId {
    /// The kind of id that was expected.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
}

/// A task: 128 random bits, shown as 32 lower-case hexadecimal digits.
///
/// People use a prefix of at least six digits; random bits keep such prefixes unique, where
/// time-ordered ids would collide for a minute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u128);

impl TaskId {
    /// The id's first `len` digits, at most 32.
    #[must_use]
    pub fn short(&self, len: usize) -> String {
        let mut text = self.to_string();
        text.truncate(len);
        text
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { what: "task id", text: text.to_owned() };
        if text.len() != 32 {
            return Err(bad());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| bad())
    }
}

/// A log sequence number: dense, starting at 1; 0 means "before everything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an effect within its task, starting at 1.
pub type Seq = u32;

/// One command of one task: names the keeper's directory, so that no effect can start twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    /// The task that runs the command.
    pub task: TaskId,
    /// The effect that started it.
    pub seq: Seq,
}

/// Runs from this number on, and below those of operations, are services: programs that serve a task
/// beside its effects. No effect of a task is ever numbered so high.
pub const SERVICE_SEQ: Seq = 0x4000_0000;

impl RunId {
    /// Whether it is a service of its task, not the command of one effect.
    #[must_use]
    pub const fn is_service(&self) -> bool {
        self.seq >= SERVICE_SEQ && self.seq < 2 * SERVICE_SEQ
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.task, self.seq)
    }
}

impl FromStr for RunId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { what: "run id", text: text.to_owned() };
        let (task, seq) = text.split_once('-').ok_or_else(bad)?;
        Ok(Self { task: task.parse()?, seq: seq.parse().map_err(|_| bad())? })
    }
}

/// A git object id in lower-case hexadecimal (40 digits for SHA-1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitId(String);

impl GitId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GitId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId { what: "git object id", text: text.to_owned() })
        }
    }
}

/// Where a blob is found: the key it was hashed with, its keyed BLAKE3, and its length.
///
/// The hash is keyed because a plain content hash would leak equality between subjects and could
/// not be erased for one of them only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    /// Which key of this installation hashed the content.
    pub key_id: u32,
    /// Keyed BLAKE3 of the content.
    pub hash: [u8; 32],
    /// Content length in bytes.
    pub size_bytes: u64,
}

impl BlobRef {
    /// Length of the binary form.
    pub const ENCODED_BYTES: usize = 44;

    /// The binary form that journal records carry: key id, hash, size, little endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::ENCODED_BYTES);
        out.extend_from_slice(&self.key_id.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out
    }

    /// Reads the binary form; `None` when the length is wrong.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::ENCODED_BYTES {
            return None;
        }
        Some(Self {
            key_id: u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?),
            hash: bytes.get(4..36)?.try_into().ok()?,
            size_bytes: u64::from_le_bytes(bytes.get(36..44)?.try_into().ok()?),
        })
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-", self.key_id)?;
        self.hash.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, "-{}", self.size_bytes)
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobRef {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { what: "blob id", text: text.to_owned() };
        let mut parts = text.split('-');
        let (Some(key), Some(hex), Some(size), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut hash = [0_u8; 32];
        for (slot, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            let pair = hex.get(at..at + 2).ok_or_else(bad)?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self { key_id: u32::from_str_radix(key, 16).map_err(|_| bad())?, hash, size_bytes: size.parse().map_err(|_| bad())? })
    }
}

/// How urgent a task is, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody sits before it.
    Interactive,
    /// Somebody will look at it.
    #[default]
    Normal,
    /// Whenever there is room.
    Batch,
    /// The house's own chores.
    Maintenance,
}

impl Priority {
    /// All, most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::Normal, Self::Batch, Self::Maintenance];

    /// The number that the journal carries.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Interactive => 1,
            Self::Normal => 2,
            Self::Batch => 3,
            Self::Maintenance => 4,
        }
    }

    /// The priority of a number from the journal; records from before there were any have 0.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Interactive,
            3 => Self::Batch,
            4 => Self::Maintenance,
            _ => Self::Normal,
        }
    }

    /// Its name for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Batch => "batch",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Priority {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let found = Self::ALL.into_iter().find(|priority| priority.name() == text);
        found.ok_or_else(|| BadId { what: "priority", text: text.to_owned() })
    }
}

/// Whose data something is: the user id of the tenant that gave the task. Each subject has a key of
/// its own, so that its data can be made unreadable everywhere by destroying one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject(pub u32);

/// To whom stored bytes belong; they go when the task is removed or the subject is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Whose data it is.
    pub subject: Subject,
    /// The task that keeps it.
    pub task: TaskId,
}

/// Where a task works: its own worktree and the git directories behind it.
///
/// Paths are recorded when the worktree is made; they are never found again through the worktree's
/// own `.git` file, which a command could rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The task that owns it.
    pub task: TaskId,
    /// The user's repository (its main worktree), which is never written except by landing.
    pub repo: PathBuf,
    /// The task's own tree, where commands run.
    pub tree: PathBuf,
    /// The worktree's private git directory.
    pub git_dir: PathBuf,
    /// The repository's common git directory.
    pub common_dir: PathBuf,
    /// Full name of the task's branch, `refs/heads/tinkerbell/<task>`.
    pub branch: String,
    /// The commit on which the task's branch starts.
    pub base: GitId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let task = TaskId(0x7f3a_0000_0000_0000_0000_0000_0000_0001);
        assert_eq!(task.to_string().parse::<TaskId>().unwrap(), task);
        let run = RunId { task, seq: 12 };
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        let blob = BlobRef { key_id: 1, hash: [0xab; 32], size_bytes: 77 };
        assert_eq!(blob.to_string().parse::<BlobRef>().unwrap(), blob);
        assert_eq!(BlobRef::from_bytes(&blob.to_bytes()), Some(blob));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "7f3a", "zz", "-", "7f3a00000000000000000000000000-1"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
            assert!(text.parse::<RunId>().is_err(), "{text}");
            assert!(text.parse::<BlobRef>().is_err(), "{text}");
            assert!(text.parse::<GitId>().is_err(), "{text}");
        }
    }
}
