//! What the roof chooses about a journal.
//!
//! Plain values with defaults that fit a laptop; nothing here changes what a reader understands.

use std::path::PathBuf;

/// Settings of one journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory; made with mode 0700 when it is missing.
    pub dir: PathBuf,
    /// A new segment begins when a batch would pass this size.
    pub segment_bytes: u64,
    /// Most bytes that one sync makes durable, and most bytes of one append.
    pub batch_bytes: usize,
    /// Most records that one sync makes durable, and most records of one append.
    pub batch_records: usize,
    /// Bytes that may wait for the disk before appends are refused.
    pub queue_bytes: usize,
    /// Most bytes that one call of compaction writes; a single segment is always allowed.
    pub compact_bytes: u64,
    /// A segment is compacted when more than this share of it, in percent, is not needed any more.
    pub compact_dead_percent: u8,
    /// Whether segments are filled with zeros ahead of the records and reused, so that a sync writes
    /// no metadata; `None` lets the file system's kind decide.
    pub preallocate: Option<bool>,
    /// Space that is kept for finishing work on a full disk; 0 for none. It is taken only from a
    /// disk that has four times as much free.
    pub reserve_bytes: u64,
    /// The kernel's boot id, noted in trailers so that monotonic times can be compared.
    pub boot_id: [u8; 16],
}

impl Options {
    /// The defaults: segments of 64 MiB, batches of 4 MiB or 4096 records, a queue of 64 MiB,
    /// a reserve of 256 MiB.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            batch_bytes: 4 << 20,
            batch_records: 4096,
            queue_bytes: 64 << 20,
            compact_bytes: 64 << 20,
            compact_dead_percent: 50,
            preallocate: None,
            reserve_bytes: 256 << 20,
            boot_id: boot_id(),
        }
    }
}

/// Zero where the kernel does not tell; then no two boots are taken for the same one by readers.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).unwrap_or_default().to_be_bytes()
}
