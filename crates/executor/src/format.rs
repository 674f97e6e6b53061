//! What a keeper leaves on disk: `lock`, `started`, `trailer`, `lost`, and the spool's frames.
//!
//! Version 1. Readers accept unknown fields, so that a newer keeper stays adoptable; a newer
//! version number is refused. Invariant: a published version never changes its meaning; golden
//! files in `tests/golden` hold it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of all files of a run.
pub const VERSION: u16 = 1;

/// A process by number and start time, because numbers recur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Number in the daemon's PID namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub start: u64,
}

/// Content of `lock`: who holds it, since which boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Format version.
    pub version: u16,
    /// Kernel boot id.
    pub boot_id: String,
    /// The keeper.
    pub keeper: Process,
}

/// Content of `started`: the latch. It exists once the command may have begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Format version.
    pub version: u16,
    /// The run.
    pub run: String,
    /// Kernel boot id.
    pub boot_id: String,
    /// The keeper.
    pub keeper: Process,
    /// The keeper's child.
    pub cell: Process,
    /// PID 1 of the sandbox (level `full`), or the reaper of the command.
    pub init: Process,
    /// The control group that holds the command, when one could be made.
    pub cgroup: Option<String>,
    /// Groups of version 1 that hold it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How each limit is kept, in words; empty in records of earlier releases.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub means: String,
    /// Sandbox level.
    pub level: String,
    /// Journal epoch of whoever started it.
    pub epoch: u64,
    /// Lease of whoever started it.
    pub generation: u64,
    /// Wall time in milliseconds since 1970.
    pub wall_ms: u64,
    /// `none`, `proxy` or `host`; missing in files of earlier releases.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The layer that the command writes to; none where it writes to the tree directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<std::path::PathBuf>,
}

/// Resources the command used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident set of one process, KiB.
    pub max_rss_kib: u64,
}

/// Content of `trailer`: the command's end, in the keeper's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trailer {
    /// Format version.
    pub version: u16,
    /// Exit code, when it exited.
    pub status: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// Resources.
    pub rusage: Usage,
    /// Bytes of its output as the spool counts them: with the names of known secrets in place of their
    /// values, in order of arrival, before any were dropped.
    pub bytes: u64,
    /// SHA-256 of those bytes, hexadecimal.
    pub sha256: String,
    /// Bytes that were not kept.
    pub dropped: u64,
    /// `deadline`, `memory`, `processes`, `cpu`, `disk`, `cancelled`, `halted`, or empty.
    pub cause: String,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Processes that outlived the main one and were ended with it.
    pub lingering: u32,
    /// The limit that it passed, with the numbers, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What it used with everything that it started; absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// What a command used with everything that it started; also the content of its file in the task's
/// `usage` directory, from its first look on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Format version.
    pub version: u16,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Most memory at once, in bytes, as far as it was seen.
    pub memory_bytes: u64,
    /// Most processes and threads at once, as far as they were seen.
    pub processes: u64,
    /// Bytes by which the task's directories have grown since its first command.
    pub disk_bytes: u64,
    /// When this was seen, wall time in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the command has ended, so that nothing changes any more.
    pub ended: bool,
}

/// Content of `folded` in the task's `usage` directory: what runs that have ended used together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Folded {
    /// The figures, `ended`. A release that knows only files of single runs reads them as those of one more.
    #[serde(flatten)]
    pub spent: Spent,
    /// The runs that were added last. A file of such a run that still stands is counted already.
    pub runs: Vec<String>,
}

/// Content of `lost`: the verdict that no trailer will ever come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Format version.
    pub version: u16,
    /// What was seen.
    pub why: String,
}

/// Content of `shown`: how much of the output the model has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Format version.
    pub version: u16,
    /// Effects that showed some, and where in the output each ended.
    pub ends: BTreeMap<u32, u64>,
    /// Effects that told connections, and where in their file each ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<u32, u64>,
}

/// Bytes before each spool file's first frame.
pub const SPOOL_MAGIC: [u8; 8] = *b"TBSPOOL\x01";
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 33;
/// Largest payload of a frame.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;

/// A piece of output: `seq u64 | offset u64 | mono_ms u64 | stream u8 | len u32 | crc32c u32 |
/// bytes`, little endian. The sum covers everything but itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Counts frames from 0, dropped ones included.
    pub seq: u64,
    /// Where its bytes stand in the whole output.
    pub offset: u64,
    /// When, on the clock that counts suspend.
    pub mono_ms: u64,
    /// 1 standard output, 2 standard error, 3 a word of the keeper.
    pub stream: u8,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends the frame's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(FRAME_HEADER_BYTES);
        head.extend_from_slice(&self.seq.to_le_bytes());
        head.extend_from_slice(&self.offset.to_le_bytes());
        head.extend_from_slice(&self.mono_ms.to_le_bytes());
        head.push(self.stream);
        head.extend_from_slice(&u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head), self.bytes);
        out.extend_from_slice(&head);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(self.bytes);
    }

    /// Reads one frame; `None` when it is incomplete or its sum is wrong. The number is the length
    /// of the whole frame.
    #[must_use]
    pub fn decode(input: &'a [u8]) -> Option<(Self, usize)> {
        let head = input.get(..29)?;
        let word = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let len = u32::from_le_bytes(head.get(25..29)?.try_into().ok()?) as usize;
        if len > FRAME_MAX_BYTES {
            return None;
        }
        let sum = u32::from_le_bytes(input.get(29..33)?.try_into().ok()?);
        let bytes = input.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len)?;
        if crc32c::crc32c_append(crc32c::crc32c(head), bytes) != sum {
            return None;
        }
        let frame = Frame { seq: word(0)?, offset: word(8)?, mono_ms: word(16)?, stream: *head.get(24)?, bytes };
        Some((frame, FRAME_HEADER_BYTES + len))
    }
}

/// What every file of a run begins with, read before the rest is believed.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Versioned {
    /// Format version.
    pub version: u16,
}

#[cfg(test)]
mod tests;
