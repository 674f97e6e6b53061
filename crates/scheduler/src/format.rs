//! Version 2 of the checkpoint image: which task stands where, as bytes that need no parsing.
//!
//! ```text
//! image = "TBSCHED2" | tasks u64 | keys u64 | deadlines u64 | boot u128
//!         | tasks × (id u128 | lsn u64 | flags u64) | keys × (hash u128 | id u128)
//!         | deadlines × (id u128 | wall ms u64 | ms since boot u64, 0 where wall time decides)
//! ```
//! Integers are little endian; tasks and deadlines are sorted by id, keys stand oldest first. Version 1
//! had neither deadlines nor boot. Invariant: an image of another version or length counts as missing,
//! because the records tell the same.

use crate::table::{Entry, Flags};
use crate::timers::Deadline;
use bytes::Bytes;
use tinkerbell_core::words::{Lsn, TaskId};

const MAGIC: [u8; 8] = *b"TBSCHED2";
const HEADER: usize = 48;
/// The version before, which is still read.
const MAGIC_1: [u8; 8] = *b"TBSCHED1";
const HEADER_1: usize = 24;
const ROW: usize = 32;

/// Builds an image; tasks first, then keys.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    tasks: u64,
}

impl Builder {
    pub(crate) fn new(tasks: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + tasks * ROW);
        bytes.extend_from_slice(&MAGIC);
        bytes.resize(HEADER, 0);
        Self { bytes, tasks: 0 }
    }

    /// Adds a task; ids come in order.
    pub(crate) fn task(&mut self, entry: Entry) {
        self.bytes.extend_from_slice(&entry.id.0.to_le_bytes());
        self.bytes.extend_from_slice(&entry.lsn.0.to_le_bytes());
        self.bytes.extend_from_slice(&entry.flags.0.to_le_bytes());
        self.tasks += 1;
    }

    /// Adds keys and deadlines and gives the image.
    pub(crate) fn finish(mut self, keys: impl Iterator<Item = (u128, TaskId)>, mut deadlines: Vec<Deadline>, boot: u128) -> Bytes {
        let mut count: u64 = 0;
        for (hash, id) in keys {
            self.bytes.extend_from_slice(&hash.to_le_bytes());
            self.bytes.extend_from_slice(&id.0.to_le_bytes());
            count += 1;
        }
        deadlines.sort_unstable_by_key(|deadline| deadline.id);
        for deadline in &deadlines {
            self.bytes.extend_from_slice(&deadline.id.0.to_le_bytes());
            self.bytes.extend_from_slice(&deadline.wall_ms.to_le_bytes());
            self.bytes.extend_from_slice(&deadline.mono_ms.to_le_bytes());
        }
        let counts = [self.tasks, count, deadlines.len() as u64].map(u64::to_le_bytes).concat();
        if let Some(place) = self.bytes.get_mut(8..32) {
            place.copy_from_slice(&counts);
        }
        if let Some(place) = self.bytes.get_mut(32..HEADER) {
            place.copy_from_slice(&boot.to_le_bytes());
        }
        Bytes::from(self.bytes)
    }
}

/// An image that was read back.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    bytes: Bytes,
    header: usize,
    tasks: usize,
    keys: usize,
    boot: u128,
}

impl Image {
    /// The image; `None` when it is none of these versions.
    pub(crate) fn read(bytes: Bytes) -> Option<Self> {
        let count = |from: usize| usize::try_from(number(bytes.get(from..)?)?).ok();
        let (header, deadlines, boot) = match *bytes.first_chunk()? {
            MAGIC => (HEADER, count(24)?, wide(bytes.get(32..)?)?),
            MAGIC_1 => (HEADER_1, 0, 0),
            _ => return None,
        };
        let (tasks, keys) = (count(8)?, count(16)?);
        let len = tasks.checked_add(keys)?.checked_add(deadlines)?.checked_mul(ROW)?.checked_add(header)?;
        (bytes.len() == len).then_some(Self { bytes, header, tasks, keys, boot })
    }

    /// The rows of tasks, and those behind them.
    fn rows(&self) -> (&[u8], &[u8]) {
        self.bytes.get(self.header..).and_then(|rows| rows.split_at_checked(self.tasks * ROW)).unwrap_or_default()
    }

    /// All tasks, by id.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = Entry> + Clone {
        self.rows().0.chunks_exact(ROW).filter_map(entry)
    }

    /// The task with this id.
    pub(crate) fn find(&self, id: TaskId) -> Option<Entry> {
        let rows = self.rows().0;
        let (mut low, mut high) = (0, self.tasks);
        while low < high {
            let middle = usize::midpoint(low, high);
            let found = entry(rows.get(middle * ROW..)?)?;
            match found.id.cmp(&id) {
                std::cmp::Ordering::Equal => return Some(found),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All keys, oldest first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (u128, TaskId)> {
        let keys = self.rows().1.chunks_exact(ROW).take(self.keys);
        keys.filter_map(|row| Some((wide(row)?, TaskId(wide(row.get(16..)?)?))))
    }

    /// All deadlines, by id; in another boot than that of the image only wall time is left.
    pub(crate) fn deadlines(&self, boot: u128) -> impl Iterator<Item = Deadline> {
        let is_same = boot != 0 && boot == self.boot;
        let rows = self.rows().1.chunks_exact(ROW).skip(self.keys);
        rows.filter_map(move |row| {
            let (id, wall_ms, mono_ms) = (TaskId(wide(row)?), number(row.get(16..)?)?, number(row.get(24..)?)?);
            Some(Deadline { id, wall_ms, mono_ms: if is_same { mono_ms } else { 0 } })
        })
    }
}

fn entry(row: &[u8]) -> Option<Entry> {
    Some(Entry { id: TaskId(wide(row)?), lsn: Lsn(number(row.get(16..)?)?), flags: Flags(number(row.get(24..)?)?) })
}

fn wide(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.first_chunk()?))
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Bytes {
        let mut builder = Builder::new(2);
        for (id, lsn, flags) in [(7, 9, 4), (u128::MAX, 1 << 40, 3 | 3 << 3)] {
            builder.task(Entry { id: TaskId(id), lsn: Lsn(lsn), flags: Flags(flags) });
        }
        let deadline = |id, mono_ms| Deadline { id: TaskId(id), wall_ms: 500, mono_ms };
        builder.finish([(5_u128, TaskId(7))].into_iter(), vec![deadline(u128::MAX, 0), deadline(7, 40)], 3)
    }

    #[test]
    fn version_2_stays_readable_byte_for_byte() {
        let hex: String = image().chunks(16).flat_map(|row| row.iter().map(|b| format!("{b:02x}")).chain(["\n".to_owned()])).collect();
        expect_test::expect_file!["../tests/golden/v2/image.txt"].assert_eq(&hex);
    }

    #[test]
    fn version_1_is_still_read() {
        let hex = include_str!("../tests/golden/v1/image.txt").replace('\n', "");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let image = Image::read(Bytes::from(bytes)).unwrap();
        assert_eq!(image.tasks().map(|entry| (entry.id.0, entry.lsn.0)).collect::<Vec<_>>(), [(7, 9), (u128::MAX, 1 << 40)]);
        assert_eq!((image.keys().collect::<Vec<_>>(), image.deadlines(0).count()), (vec![(5, TaskId(7))], 0));
    }

    #[test]
    fn an_image_comes_back_and_what_is_cut_counts_as_missing() {
        let bytes = image();
        let image = Image::read(bytes.clone()).unwrap();
        assert_eq!(image.tasks().map(|entry| (entry.id.0, entry.lsn.0)).collect::<Vec<_>>(), [(7, 9), (u128::MAX, 1 << 40)]);
        assert!(image.find(TaskId(u128::MAX)).unwrap().flags.is_paused_for("person"));
        assert_eq!((image.find(TaskId(8)), image.keys().collect::<Vec<_>>()), (None, vec![(5, TaskId(7))]));
        let due = |boot| image.deadlines(boot).map(|due| (due.id.0, due.wall_ms, due.mono_ms)).collect::<Vec<_>>();
        assert_eq!((due(3), due(4)), (vec![(7, 500, 40), (u128::MAX, 500, 0)], vec![(7, 500, 0), (u128::MAX, 500, 0)]));
        for len in 0..bytes.len() {
            assert!(Image::read(bytes.slice(..len)).is_none(), "cut at {len}");
        }
    }
}
