//! Who is let in: counts of open tasks, limits, and how long a refused one should wait.
//!
//! Counts follow the fold, so asking costs the same with one task and with a million. Invariant: a
//! refusal changes nothing and names the limit, the way out, and an honest time to come back.

use std::collections::{BTreeMap, VecDeque};
use tinkerbell_core::code::{Fault, exit};

/// Ends of tasks from which the pace is taken.
const ENDS: usize = 32;
/// Where no pace is known yet.
const UNKNOWN_WAIT_MS: u64 = 30_000;
/// An estimate is never shorter nor longer than this.
const WAIT_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// A full inbox or journal queue empties with the next sync of the disk.
pub(crate) const BUSY_WAIT_MS: u64 = 1_000;
/// Submissions that may wait for the disk at the same time; one more is refused, because a longer
/// queue would only hide a slow disk behind growing latency.
pub(crate) const INBOX_SLOTS: usize = 1_024;

/// How many tasks are open, altogether and by tenant.
#[derive(Debug, Default)]
pub(crate) struct Census {
    open: usize,
    tenants: BTreeMap<u32, usize>,
    /// When the newest ones ended, wall time in milliseconds.
    ends: VecDeque<u64>,
}

impl Census {
    /// Open tasks.
    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    /// Takes in that a task of this tenant was open before an event and is open after it, or not.
    pub(crate) fn moved(&mut self, tenant: u32, was_open: bool, is_open: bool, at_ms: u64) {
        if was_open == is_open {
            return;
        }
        let count = self.tenants.entry(tenant).or_default();
        if is_open {
            (self.open, *count) = (self.open.saturating_add(1), count.saturating_add(1));
            return;
        }
        (self.open, *count) = (self.open.saturating_sub(1), count.saturating_sub(1));
        if *count == 0 {
            self.tenants.remove(&tenant);
        }
        self.ends.push_back(at_ms);
        if self.ends.len() > ENDS {
            self.ends.pop_front();
        }
    }

    /// Refuses a task that is one too many.
    pub(crate) fn admit(&self, tenant: u32, most: usize, most_per_tenant: usize, now_ms: u64) -> Result<(), Fault> {
        let wait_ms = self.wait_ms(now_ms);
        if self.open >= most {
            return Err(Fault::new("TB-TASK-010", exit::UNAVAILABLE, format!("{} tasks are open, and no more are accepted", self.open))
                .hint("wait until some have ended (`run --wait` does), or stop some: tinkerbell ps")
                .after_ms(wait_ms));
        }
        let own = self.tenants.get(&tenant).copied().unwrap_or(0);
        if own >= most_per_tenant {
            return Err(Fault::new(
                "TB-TASK-011",
                exit::UNAVAILABLE,
                format!("{own} tasks of user {tenant} are open, and no more are accepted"),
            )
            .hint("wait until some have ended (`run --wait` does), or stop some: tinkerbell ps")
            .hint("the limit is `[scheduler] per_tenant`")
            .after_ms(wait_ms));
        }
        Ok(())
    }

    /// How long the next end of a task lets wait, if they go on at the pace of the last ones.
    fn wait_ms(&self, now_ms: u64) -> u64 {
        let (Some(first), true) = (self.ends.front(), self.ends.len() >= 2) else { return UNKNOWN_WAIT_MS };
        let span = now_ms.saturating_sub(*first);
        (span / self.ends.len() as u64).clamp(*WAIT_MS.start(), *WAIT_MS.end())
    }
}

/// The refusal of a full inbox.
pub(crate) fn busy() -> Fault {
    Fault::new("TB-TASK-012", exit::UNAVAILABLE, format!("{INBOX_SLOTS} submissions wait for the disk, and no more are taken"))
        .hint("run the command again in a moment (`run --wait` does)")
        .after_ms(BUSY_WAIT_MS)
}

/// A refusal of the journal, with a time to come back where it may pass.
pub(crate) fn later(fault: Fault) -> Fault {
    if fault.retryable && fault.retry_after_ms.is_none() { fault.after_ms(BUSY_WAIT_MS) } else { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_tasks_and_refusals_name_a_wait() {
        let mut census = Census::default();
        let code = |census: &Census, tenant| census.admit(tenant, 3, 2, 50_000).map_err(|fault| (fault.code.0, fault.retry_after_ms));
        census.moved(7, false, true, 0);
        census.moved(7, false, true, 0);
        assert_eq!(code(&census, 7), Err(("TB-TASK-011", Some(UNKNOWN_WAIT_MS))));
        assert_eq!(code(&census, 8), Ok(()));
        census.moved(8, false, true, 0);
        assert_eq!(code(&census, 9), Err(("TB-TASK-010", Some(UNKNOWN_WAIT_MS))));
        for at in 1..=4 {
            census.moved(7, true, false, at * 10_000);
            census.moved(7, false, true, at * 10_000);
        }
        // Four ends in the forty seconds since the first: ten seconds each.
        assert_eq!(code(&census, 9), Err(("TB-TASK-010", Some(10_000))));
        census.moved(8, true, true, 0);
        assert_eq!((census.open(), census.tenants.len()), (3, 2));
    }
}
