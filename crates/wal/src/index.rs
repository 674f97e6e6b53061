//! Where durable records lie: the map from numbers to stretches of segments.
//!
//! In memory only, rebuilt at each opening. It knows nothing of batches that are not durable.
//! Invariant: every number up to the last extent's end is covered, in order.

use crate::scan::Span;
use std::sync::Arc;

/// Batches are joined until a stretch has this length: a reader in the middle reads at most one
/// stretch too much, and a full segment of 64 MiB needs about a thousand entries.
const STRETCH_BYTES: u64 = 64 * 1024;

/// Consecutive batches of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: Arc<str>,
    pub(crate) first: u64,
    /// The number behind the last one.
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Whether numbers are missing because compaction dropped them.
    pub(crate) sparse: bool,
    /// Whether it is a whole segment that nobody has read yet.
    pub(crate) unread: bool,
}

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Index {
    extents: Vec<Extent>,
    tip: u64,
}

impl Index {
    /// Adds a durable batch; batches come in order.
    pub(crate) fn add(&mut self, segment: &str, span: &Span) {
        self.tip = self.tip.max(span.tip);
        let end = span.last.saturating_add(1);
        let name = match self.extents.last_mut() {
            Some(last) if *last.segment == *segment => {
                if !span.sparse && !last.unread && last.len < STRETCH_BYTES {
                    last.end = end;
                    last.len = last.len.saturating_add(span.len);
                    return;
                }
                Arc::clone(&last.segment)
            }
            _ => Arc::from(segment),
        };
        let Span { first, offset, len, sparse, unread, .. } = *span;
        self.extents.push(Extent { segment: name, first, end, offset, len, sparse, unread });
    }

    /// The stretch that holds `lsn`, with its segment's name.
    pub(crate) fn find(&self, lsn: u64) -> Option<(Extent, String)> {
        let at = self.extents.partition_point(|extent| extent.end <= lsn);
        let extent = self.extents.get(at)?;
        Some((extent.clone(), extent.segment.to_string()))
    }

    /// All segments that hold something, in order, each with its stretches.
    pub(crate) fn segments(&self) -> Vec<Vec<Extent>> {
        self.extents.chunk_by(|a, b| a.segment == b.segment).map(<[Extent]>::to_vec).collect()
    }

    /// Puts the stretches of a compacted segment in the place of those of the segments that it stands
    /// for: everything in `first..end`, which begins and ends with a segment.
    pub(crate) fn replace(&mut self, first: u64, end: u64, segment: &str, spans: &[Span]) {
        let from = self.extents.partition_point(|extent| extent.end <= first);
        let to = self.extents.partition_point(|extent| extent.end <= end);
        let name: Arc<str> = Arc::from(segment);
        let new = spans.iter().map(|span| Extent {
            segment: Arc::clone(&name),
            first: span.first,
            end: span.last.saturating_add(1),
            offset: span.offset,
            len: span.len,
            sparse: true,
            unread: false,
        });
        drop(self.extents.splice(from..to.max(from), new));
    }

    /// Puts the stretches of a segment in the place of the whole that stood for it unread.
    pub(crate) fn fill(&mut self, segment: &str, part: Self) {
        if let Some(at) = self.extents.iter().position(|extent| extent.unread && *extent.segment == *segment) {
            drop(self.extents.splice(at..=at, part.extents));
        }
    }

    /// Bytes that the stretches take on disk; of a segment that nobody has read, all that it has.
    pub(crate) fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// The tip is at least this one, whether or not its record is still there.
    pub(crate) fn raise(&mut self, tip: u64) {
        self.tip = self.tip.max(tip);
    }

    /// The newest durable record that readers see; 0 when there is none.
    pub(crate) const fn tip(&self) -> u64 {
        self.tip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_in_its_stretch() {
        let mut index = Index::default();
        let mut offset = 4096;
        for n in 0..500_u64 {
            let span = Span { offset, len: 1000, first: n * 3 + 1, last: n * 3 + 3, tip: n * 3 + 2, ..Span::default() };
            index.add(if n < 300 { "a" } else { "b" }, &span);
            offset += 1000;
        }
        assert!(index.extents.len() < 20);
        assert_eq!(index.tip(), 1499);
        for lsn in 1..=1500 {
            let (extent, name) = index.find(lsn).unwrap();
            assert!(extent.first <= lsn && lsn < extent.end);
            assert_eq!(name, if lsn <= 900 { "a" } else { "b" });
        }
        assert_eq!(index.find(1501), None);
    }
}
