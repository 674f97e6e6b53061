//! Sizes and moments as people read them.
//!
//! Pure. Invariant: moments are UTC and say so, because logs of several machines are compared.

/// A size in three digits: `512 B`, `14.2 kB`, `3.1 GB`; powers of ten, as disks are sold.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    for (at, unit) in UNITS.iter().enumerate() {
        if tenths < 10_000 || at + 1 == UNITS.len() {
            return if tenths < 1_000 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", tenths / 10) };
        }
        tenths /= 1_000;
    }
    format!("{bytes} B")
}

/// A span in its largest unit: `12 s`, `3 min`, `5 h`, `2 days`.
#[must_use]
pub fn span(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// A moment, milliseconds since the epoch, as `2026-11-20T09:14:03.120Z`.
#[must_use]
pub fn moment(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970-01-01 as year, month, day; after Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is the last.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

/// The text in one line of at most `limit` characters, safe for a terminal.
#[must_use]
pub fn brief(text: &str, limit: usize) -> String {
    let line = tinkerbell_cli::visible(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    line.chars().take(limit.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_spans_and_moments_are_brief() {
        for (bytes, shown) in
            [(0, "0 B"), (999, "999 B"), (14_250, "14.2 kB"), (999_999, "999 kB"), (1_000_000, "1.0 MB"), (3_100_000_000, "3.1 GB")]
        {
            assert_eq!(size(bytes), shown);
        }
        for (ms, shown) in [(1_500, "1 s"), (180_000, "3 min"), (7_200_000, "2 h"), (259_200_000, "3 days")] {
            assert_eq!(span(ms), shown);
        }
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_166_043_120, "2026-11-20T09:14:03.120Z"),
        ] {
            assert_eq!(moment(ms), shown);
        }
        assert_eq!(brief("a\n b\x1b[2J  and more of it", 14), "a b\\x1b[2J ...");
    }
}
