//! Version 1 of the checkpoint image: which task stands where, as bytes that need no parsing.
//!
//! ```text
//! image = "TBSCHED1" | tasks u64 | keys u64 | tasks × (id u128 | lsn u64 | flags u64) | keys × (hash u128 | id u128)
//! ```
//! Integers are little endian; tasks are sorted by id, keys stand oldest first. Invariant: an image
//! of another version or length counts as missing, because the records tell the same.

use crate::table::{Entry, Flags};
use bytes::Bytes;
use tinkerbell_core::words::{Lsn, TaskId};

const MAGIC: [u8; 8] = *b"TBSCHED1";
const HEADER: usize = 24;
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

    /// Adds the keys and gives the image.
    pub(crate) fn finish(mut self, keys: impl Iterator<Item = (u128, TaskId)>) -> Bytes {
        let mut count: u64 = 0;
        for (hash, id) in keys {
            self.bytes.extend_from_slice(&hash.to_le_bytes());
            self.bytes.extend_from_slice(&id.0.to_le_bytes());
            count += 1;
        }
        let counts = [self.tasks.to_le_bytes(), count.to_le_bytes()].concat();
        if let Some(place) = self.bytes.get_mut(8..HEADER) {
            place.copy_from_slice(&counts);
        }
        Bytes::from(self.bytes)
    }
}

/// An image that was read back.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    bytes: Bytes,
    tasks: usize,
}

impl Image {
    /// The image; `None` when it is none of this version.
    pub(crate) fn read(bytes: Bytes) -> Option<Self> {
        let tasks = usize::try_from(number(bytes.strip_prefix(&MAGIC)?)?).ok()?;
        let keys = usize::try_from(number(bytes.get(16..)?)?).ok()?;
        let len = tasks.checked_add(keys)?.checked_mul(ROW)?.checked_add(HEADER)?;
        (bytes.len() == len).then_some(Self { bytes, tasks })
    }

    fn rows(&self) -> (&[u8], &[u8]) {
        self.bytes.get(HEADER..).and_then(|rows| rows.split_at_checked(self.tasks * ROW)).unwrap_or_default()
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
        self.rows().1.chunks_exact(ROW).filter_map(|row| Some((wide(row)?, TaskId(wide(row.get(16..)?)?))))
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
        builder.finish([(5_u128, TaskId(7))].into_iter())
    }

    #[test]
    fn version_1_stays_readable_byte_for_byte() {
        let hex: String = image().chunks(16).flat_map(|row| row.iter().map(|b| format!("{b:02x}")).chain(["\n".to_owned()])).collect();
        expect_test::expect_file!["../tests/golden/v1/image.txt"].assert_eq(&hex);
    }

    #[test]
    fn an_image_comes_back_and_what_is_cut_counts_as_missing() {
        let bytes = image();
        let image = Image::read(bytes.clone()).unwrap();
        assert_eq!(image.tasks().map(|entry| (entry.id.0, entry.lsn.0)).collect::<Vec<_>>(), [(7, 9), (u128::MAX, 1 << 40)]);
        assert!(image.find(TaskId(u128::MAX)).unwrap().flags.is_paused_for("person"));
        assert_eq!((image.find(TaskId(8)), image.keys().collect::<Vec<_>>()), (None, vec![(5, TaskId(7))]));
        for len in 0..bytes.len() {
            assert!(Image::read(bytes.slice(..len)).is_none(), "cut at {len}");
        }
    }
}
