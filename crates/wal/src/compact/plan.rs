//! Which neighbours are rewritten together.
//!
//! Pure. Invariant: a run is chosen only if it frees more than its share of dead bytes, or if it makes
//! one file of several of which none is larger than the others together; so each byte is copied a number
//! of times that grows with the logarithm of the journal's size, and planning ends.

use super::{Measured, Worth};
use crate::format::HEADER_BYTES;
use std::ops::Range;

/// The next run to rewrite, at most `left` bytes of it to be written; `None` when nothing is worth it.
pub(crate) fn plan(segments: &[Measured], worth: &Worth, left: u64) -> Option<Range<usize>> {
    let most = worth.segment_bytes.min(left);
    (0..segments.len()).find_map(|from| {
        let rest = segments.get(from..)?;
        let fits = rest.iter().scan(0_u64, |sum, segment| {
            *sum = sum.saturating_add(segment.live);
            Some(*sum <= most)
        });
        // A single segment is always allowed to begin with, or a batch larger than the limit would
        // never be given back.
        let longest = fits.take_while(|fits| *fits).count().max(usize::from(left >= worth.call_bytes));
        (1..=longest).rev().find_map(|len| is_worth_it(rest.get(..len)?, worth).then(|| from..from.saturating_add(len)))
    })
}

fn is_worth_it(run: &[Measured], worth: &Worth) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    let total: u64 = run.iter().map(|segment| segment.total).sum();
    let live: u64 = run.iter().map(|segment| segment.live).sum();
    // A run does not reach out to a full neighbour whose bytes would be copied for nothing.
    let ends = [first, last].iter().all(|end| is_dead(end.total, end.live, worth) || end.live < worth.segment_bytes / 2);
    if ends && is_dead(total, live, worth) {
        return true;
    }
    let costs = run.iter().map(|segment| segment.live.saturating_add(HEADER_BYTES as u64));
    let largest = costs.clone().max().unwrap_or(0);
    let rest = costs.sum::<u64>().saturating_sub(largest);
    run.len() > 1 && largest <= rest
}

fn is_dead(total: u64, live: u64, worth: &Worth) -> bool {
    let dead = total.saturating_sub(live);
    dead.saturating_mul(100) > total.saturating_mul(worth.dead_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(total: u64, live: u64) -> Measured {
        Measured {
            name: String::new(),
            epoch: 1,
            first: 1,
            end: 2,
            chain: [0; 32],
            chain_end: [0; 32],
            created_ms: 0,
            tip: 0,
            dropped: 0,
            size: total,
            total,
            live,
            extents: Vec::new(),
        }
    }

    fn planned(segments: &[(u64, u64)], left: u64) -> Option<Range<usize>> {
        let worth = Worth { segment_bytes: 100_000, call_bytes: 100_000, dead_percent: 50 };
        let segments: Vec<Measured> = segments.iter().map(|(total, live)| segment(*total, *live)).collect();
        plan(&segments, &worth, left)
    }

    #[test]
    fn a_run_must_be_worth_its_copying() {
        let full = 100_000;
        assert_eq!(planned(&[], full), None);
        assert_eq!(planned(&[(90_000, 90_000), (95_000, 60_000)], full), None, "half dead is not enough");
        assert_eq!(planned(&[(90_000, 90_000), (95_000, 40_000)], full), Some(1..2));
        assert_eq!(planned(&[(95_000, 40_000), (95_000, 30_000), (95_000, 95_000)], full), Some(0..2), "neighbours join");
        assert_eq!(planned(&[(95_000, 0), (95_000, 0), (80_000, 80_000)], full), Some(0..2), "a full neighbour is left alone");
        assert_eq!(planned(&[(20_000, 20_000), (20_000, 20_000)], full), Some(0..2), "small ones merge");
        assert_eq!(planned(&[(90_000, 90_000), (100, 100)], full), None, "a small one does not make a large one move");
        assert_eq!(planned(&[(300_000, 120_000)], full), Some(0..1), "one is always allowed at first");
        assert_eq!(planned(&[(300_000, 120_000)], full - 1), None);
        assert_eq!(planned(&[(95_000, 40_000), (95_000, 30_000)], 50_000), Some(0..1), "what is left limits a run");
    }

    /// Rewriting as planned ends, and leaves few files.
    #[test]
    fn a_thousand_small_ones_become_a_handful() {
        let worth = Worth { segment_bytes: 1 << 20, call_bytes: 1 << 20, dead_percent: 50 };
        let mut segments: Vec<Measured> = Vec::new();
        let mut copied = 0;
        for n in 0..2_000_u64 {
            segments.push(segment(4_096, n % 7 * 100));
            while let Some(run) = plan(&segments, &worth, 1 << 20) {
                let live = segments[run.clone()].iter().map(|segment| segment.live).sum();
                copied += live;
                segments.splice(run, [segment(live, live)]);
            }
        }
        assert!(segments.len() <= 12, "{} files", segments.len());
        let live: u64 = segments.iter().map(|segment| segment.live).sum();
        assert!(copied < live * 12, "{copied} bytes copied for {live}");
    }
}
