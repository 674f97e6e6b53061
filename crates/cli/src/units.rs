//! Values as people write them: durations and counts.
//!
//! Pure. Invariant: what is not understood is refused with an example.

use std::time::Duration;

/// Reads `90s`, `30m`, `1h30m`, `250ms`, `2d`; a bare number is seconds.
///
/// # Errors
/// A line with an example when the text is not a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration; write it like `90s`, `30m` or `1h30m`");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "" if after.is_empty() && total.is_zero() => number.checked_mul(1_000),
            "m" | "min" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            _ => None,
        };
        total = total.checked_add(Duration::from_millis(millis.ok_or_else(bad)?)).ok_or_else(bad)?;
        rest = after;
    }
    Ok(total)
}

/// Reads `200000`, `200k`, `20M`.
///
/// # Errors
/// A line with an example when the text is not a count.
pub fn count(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a count; write it like `200000`, `200k` or `20M`");
    let text = text.trim();
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |number| (number, 1_000_000)),
    };
    number.replace('_', "").parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)
}

/// Bytes in a few signs: `512 B`, `4.0 KiB`, `1.2 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let tenths = |unit: u64| bytes.saturating_mul(10) / unit;
    let shown = |unit: u64, name: &str| format!("{}.{} {name}", tenths(unit) / 10, tenths(unit) % 10);
    match bytes {
        0..=1_023 => format!("{bytes} B"),
        1_024..=1_048_575 => shown(1 << 10, "KiB"),
        1_048_576..=1_073_741_823 => shown(1 << 20, "MiB"),
        _ => shown(1 << 30, "GiB"),
    }
}

/// A duration in a few signs: `0.4 s`, `12 s`, `3 min`, `2 h`.
#[must_use]
pub fn brief(millis: u64) -> String {
    match millis {
        0..=9_999 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        10_000..=119_999 => format!("{} s", millis / 1_000),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("90s", 90_000), ("30m", 1_800_000), ("1h30m", 5_400_000), ("250ms", 250), ("7", 7_000), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "h", "5x", "1h30", "-1s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_read_as_people_write_them() {
        for (text, number) in [("5", 5), ("200k", 200_000), ("20M", 20_000_000), ("1_000", 1_000)] {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        for text in ["", "k", "-1", "1.5M", "99999999999999999999"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_briefly() {
        for (millis, text) in [(0, "0.0 s"), (440, "0.4 s"), (12_300, "12 s"), (180_000, "3 min"), (7_200_000, "2 h")] {
            assert_eq!(brief(millis), text);
        }
    }
}
