//! Where durable records lie: the map from numbers to stretches of segments.
//!
//! In memory only, rebuilt at each opening. It knows nothing of batches that are not durable.
//! Invariant: every number up to the last extent's end is covered, in order.

use crate::scan::Span;

/// Batches are joined until a stretch has this length: a reader in the middle reads at most one
/// stretch too much, and a full segment of 64 MiB needs about a thousand entries.
const STRETCH_BYTES: u64 = 64 * 1024;

/// Consecutive batches of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: usize,
    pub(crate) first: u64,
    /// The number behind the last one.
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: Vec<String>,
    extents: Vec<Extent>,
    tip: u64,
}

impl Index {
    /// Adds a durable batch; batches come in order.
    pub(crate) fn add(&mut self, segment: &str, span: &Span) {
        if self.segments.last().is_none_or(|last| last != segment) {
            self.segments.push(segment.to_owned());
        }
        let number = self.segments.len().saturating_sub(1);
        self.tip = self.tip.max(span.tip);
        let end = span.last.saturating_add(1);
        match self.extents.last_mut() {
            Some(last) if last.segment == number && last.len < STRETCH_BYTES => {
                last.end = end;
                last.len = last.len.saturating_add(span.len);
            }
            _ => self.extents.push(Extent { segment: number, first: span.first, end, offset: span.offset, len: span.len }),
        }
    }

    /// The stretch that holds `lsn`, with its segment's name.
    pub(crate) fn find(&self, lsn: u64) -> Option<(Extent, String)> {
        let at = self.extents.partition_point(|extent| extent.end <= lsn);
        let extent = self.extents.get(at)?;
        Some((extent.clone(), self.segments.get(extent.segment)?.clone()))
    }

    /// Bytes that the stretches take on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
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
