//! The reconciliation table: what a run's directory proves, and what may be done about it.
//!
//! Pure: it looks at nothing itself, so the host's files and a simulation's are judged by the same
//! rows. Invariant: a run whose command may have begun is never called "never ran".

/// What was found of a run. What need not be known for the verdict may be left out: a trailer
/// decides alone, then a held lock, then the marks of a beginning, and the boot at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Its directory exists.
    pub directory: bool,
    /// Its keeper wrote down the end.
    pub trailer: bool,
    /// A keeper holds its lock. Looked at before the trailer: a keeper publishes before it lets go,
    /// so what is missing after the lock was seen free will never come.
    pub held: bool,
    /// Its keeper published that the gate opens, or the run was called lost before.
    pub begun: bool,
    /// Its lock file names another boot than this one: a keeper of that boot may have gone further
    /// than what reached the disk.
    pub other_boot: bool,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is no directory.
    Absent,
    /// There is one, and the command was never begun.
    NeverRan,
    /// Its keeper lives.
    Running,
    /// Its keeper wrote down the end.
    Ended,
    /// Its keeper is gone without a word.
    Lost,
}

/// What a sweep does with a run that no task knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Its keeper is told to end it.
    Stop,
    /// What its keeper left running is ended.
    End,
    /// Nothing of it lives.
    Leave,
}

impl Verdict {
    /// The row of the table that the evidence meets.
    #[must_use]
    pub const fn of(evidence: Evidence) -> Self {
        match evidence {
            Evidence { directory: false, .. } => Self::Absent,
            Evidence { trailer: true, .. } => Self::Ended,
            Evidence { held: true, .. } => Self::Running,
            Evidence { begun: true, .. } | Evidence { other_boot: true, .. } => Self::Lost,
            _ => Self::NeverRan,
        }
    }

    /// The verdict for a run that a task's record names. After a new start of the machine a missing
    /// file proves nothing, because it may just not have reached the disk.
    #[must_use]
    pub const fn of_known(self, is_new_boot: bool) -> Self {
        match self {
            Self::Absent | Self::NeverRan if is_new_boot => Self::Lost,
            other => other,
        }
    }

    /// Whether a keeper may be started for the run.
    #[must_use]
    pub const fn may_start(self) -> bool {
        matches!(self, Self::Absent | Self::NeverRan)
    }

    /// What a sweep does, where the run may have been called lost by an earlier one.
    #[must_use]
    pub const fn sweep(self, marked_lost: bool) -> Sweep {
        match self {
            Self::Running => Sweep::Stop,
            Self::Lost if !marked_lost => Sweep::End,
            _ => Sweep::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(words: &str) -> Evidence {
        let has = |word: &str| words.split_whitespace().any(|w| w == word);
        Evidence {
            directory: has("directory"),
            trailer: has("trailer"),
            held: has("held"),
            begun: has("begun"),
            other_boot: has("other-boot"),
        }
    }

    #[test]
    fn each_row_has_its_verdict() {
        // evidence, verdict, verdict for a known run after a new boot, what a sweep does
        let rows = [
            ("", Verdict::Absent, Verdict::Lost, Sweep::Leave),
            ("directory", Verdict::NeverRan, Verdict::Lost, Sweep::Leave),
            ("directory held", Verdict::Running, Verdict::Running, Sweep::Stop),
            ("directory held begun", Verdict::Running, Verdict::Running, Sweep::Stop),
            ("directory held begun trailer", Verdict::Ended, Verdict::Ended, Sweep::Leave),
            ("directory begun trailer", Verdict::Ended, Verdict::Ended, Sweep::Leave),
            ("directory begun trailer other-boot", Verdict::Ended, Verdict::Ended, Sweep::Leave),
            ("directory begun", Verdict::Lost, Verdict::Lost, Sweep::End),
            ("directory begun other-boot", Verdict::Lost, Verdict::Lost, Sweep::End),
            ("directory other-boot", Verdict::Lost, Verdict::Lost, Sweep::End),
        ];
        for (words, verdict, known, sweep) in rows {
            let found = Verdict::of(evidence(words));
            assert_eq!((found, found.of_known(true), found.sweep(false)), (verdict, known, sweep), "{words:?}");
            assert_eq!(found.of_known(false), found, "{words:?}");
        }
        assert_eq!(Verdict::Lost.sweep(true), Sweep::Leave);
    }

    #[test]
    fn only_what_never_began_may_start() {
        for bits in 0..32_u32 {
            let bit = |n: u32| bits & (1 << n) != 0;
            let seen = Evidence { directory: bit(0), trailer: bit(1), held: bit(2), begun: bit(3), other_boot: bit(4) };
            let clean = !seen.directory || !(seen.trailer || seen.held || seen.begun || seen.other_boot);
            assert_eq!(Verdict::of(seen).may_start(), clean, "{seen:?}");
        }
    }
}
