//! Calendar dates, as far as expiry dates need them: parse, today, compare.
//!
//! No time zones: an exception expires at the end of its day in UTC. Invariant: text that is no
//! date of the calendar is refused, because a date that never comes would never expire.

use std::time::{SystemTime, UNIX_EPOCH};

/// A day; ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: i64,
    month: u8,
    day: u8,
}

impl Date {
    /// Reads `YYYY-MM-DD`; `None` where this is no day of the calendar.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        let date = Self { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? };
        let real = (1..=12).contains(&date.month) && date.day >= 1 && date.day <= date.days_in_month();
        real.then_some(date)
    }

    /// Returns today's date in UTC.
    pub fn today() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_days(i64::try_from(elapsed.as_secs() / 86_400).unwrap_or_default())
    }

    /// Days since 1970-01-01 to a date: the algorithm `civil_from_days` by Howard Hinnant.
    fn from_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let slot = (5 * of_year + 2) / 153;
        let day = of_year - (153 * slot + 2) / 5 + 1;
        let month = if slot < 10 { slot + 3 } else { slot - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day).unwrap_or(1),
        }
    }

    const fn days_in_month(self) -> u8 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Date;

    #[test]
    fn only_days_of_the_calendar_are_dates() {
        for good in ["2026-11-21", "2024-02-29", "2000-02-29", "1999-12-31"] {
            assert!(Date::parse(good).is_some(), "{good}");
        }
        for bad in ["2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "26-11-21", "2026-11-21-1", "soon", ""] {
            assert!(Date::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn days_count_from_the_epoch() {
        for (days, text) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_778, "2026-11-21")] {
            assert_eq!(Some(Date::from_days(days)), Date::parse(text), "{days}");
        }
    }

    #[test]
    fn dates_compare_by_time() {
        assert!(Date::parse("2026-12-01") > Date::parse("2026-11-30"));
        assert!(Date::parse("2027-01-01") > Date::parse("2026-12-31"));
    }
}
