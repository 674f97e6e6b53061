//! The ports of what is kept: the journal, blobs, and the keys that seal both.
//!
//! They know types, versions, bytes and owners, never what a task means. Invariant: what a future
//! of this module reports as done is on stable storage.

use crate::code::Fault;
use crate::words::{BlobRef, Lsn, Owner, Subject, TaskId};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::sync::Arc;

/// A record on its way into the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Type number, 16 or more.
    pub kind: u16,
    /// Payload version.
    pub schema: u8,
    /// Whose it is; `None` for the daemon's own.
    pub task: Option<TaskId>,
    /// Whose data it holds; its payload is sealed with this subject's key.
    pub subject: Subject,
    /// Whether `payload` is a `BlobRef` in binary that stands for the real payload.
    pub blob: bool,
    /// The bytes.
    pub payload: Bytes,
}

/// A record read from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// Type number.
    pub kind: u16,
    /// Payload version.
    pub schema: u8,
    /// Whose it is.
    pub task: Option<TaskId>,
    /// Whether `payload` is a `BlobRef`.
    pub blob: bool,
    /// The bytes.
    pub payload: Bytes,
}

/// Records that have their numbers and are on their way to the disk.
pub struct Appended {
    /// The first record's number.
    pub first: Lsn,
    /// The last record's number.
    pub last: Lsn,
    /// Completes once all of them are on stable storage. Dropping it does not take them back.
    pub durable: BoxFuture<'static, Result<(), Fault>>,
}

/// What a journal can take at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// Everything.
    Ample,
    /// The disk is full: only what finishes work that is under way, out of the reserve.
    Reserve,
    /// Nothing; the text says why. Reading goes on.
    ReadOnly(String),
}

/// How a journal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    /// The newest durable record's number; 0 when empty.
    pub tip: Lsn,
    /// Counts openings of this journal; each is greater than all before.
    pub epoch: u64,
    /// Bytes of all segments on disk that hold records.
    pub bytes: u64,
    /// What it can take.
    pub room: Room,
    /// Damage that was found in old records since it was opened. What is newer is not touched by it,
    /// and every read of the damaged part fails.
    pub damage: Option<String>,
}

/// What compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compaction {
    /// Segments that were rewritten or removed.
    pub segments: u64,
    /// Records that are gone.
    pub dropped: u64,
    /// Bytes that the disk has back.
    pub freed_bytes: u64,
}

/// Says whether a record is still needed, by its number, kind and task.
pub type Needed = Arc<dyn Fn(Lsn, u16, Option<TaskId>) -> bool + Send + Sync>;

/// The write-ahead log.
pub trait Journal: Send + Sync {
    /// Gives the records dense numbers, in order, and queues them. They become durable together or
    /// not at all. Never blocks on the disk.
    ///
    /// # Errors
    /// When the journal is read-only, full, or its queue is full; then nothing was queued.
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault>;
    /// Durable records from `from` on, at most `limit`, in order; empty at the end. Records of the
    /// journal itself (kinds below 16) are left out, and so are those that compaction has dropped.
    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>>;
    /// How it stands; cheap.
    fn state(&self) -> JournalState;
    /// Keeps `image`, which stands for all records up to `through`, durably in place of an earlier
    /// one. It only makes a start faster: whoever loses it reads the records.
    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>>;
    /// The newest checkpoint; `None` when there is none or it is damaged.
    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>>;
    /// Gives the disk back what sealed segments hold of records that are not `needed`. Every record
    /// keeps its number. Safe to be killed at any point; cancel safe.
    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>>;
    /// Writes what is queued, seals with a clean-shutdown mark, and refuses further appends.
    fn close(&self) -> BoxFuture<'_, Result<(), Fault>>;
}

/// Content-addressed bytes. The address is a hash with the subject's key, so equal bytes of two
/// subjects have two addresses.
pub trait BlobStore: Send + Sync {
    /// Stores bytes durably; storing the same bytes for the same owner again is cheap.
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>>;
    /// The bytes, checked against their hash.
    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>>;
    /// What is stored for the owner, oldest first.
    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>>;
    /// Drops all that is stored for the owner; a missing one is no error. What another task of the
    /// same subject stored stays.
    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>>;
}

/// A key that seals data of one subject.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    /// Its number, which stands beside what it seals.
    pub id: u32,
    /// 256 bits.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for SealKey {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for SealKey {
    /// Keeps the secret out of memory that is used again. Without `unsafe` this is the best there is:
    /// the compiler may not drop a write that a black box looks at.
    fn drop(&mut self) {
        self.secret = [0; 32];
        std::hint::black_box(&self.secret);
    }
}

/// Code of the fault for a key that was destroyed on purpose: what it sealed counts as erased.
pub const KEY_DESTROYED: &str = "TB-KEY-005";

/// The keys of all subjects.
pub trait Keyring: Send + Sync {
    /// The subject's key; a new one is durable before it is given out.
    ///
    /// # Errors
    /// When the keys can not be read or written.
    fn of(&self, subject: Subject) -> Result<SealKey, Fault>;
    /// The key of that number.
    ///
    /// # Errors
    /// When it never existed or was destroyed; the fault says which.
    fn find(&self, id: u32) -> Result<SealKey, Fault>;
}
