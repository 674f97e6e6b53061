//! Amounts of bytes and time as people write and read them.
//!
//! Pure. Invariant: what is not understood is refused with an example, and nothing is rounded to
//! less than was written.

/// Reads `512`, `64KiB`, `300MB`, `5GiB`, `1.5TiB`; a bare number is bytes. Units of 1024 and of 1000.
///
/// # Errors
/// A line with an example when the text is not an amount of at least one byte.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not an amount of bytes; write it like `512MiB` or `5GiB`");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    let (whole, part) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let thousandths: u64 = format!("{part:0<3}").parse().map_err(|_| bad())?;
    let part = u128::from(thousandths) * u128::from(factor);
    let part = u64::try_from(part.div_ceil(1_000)).map_err(|_| bad())?;
    whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(part)).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// Bytes in a few signs: `512 B`, `4.0 KiB`, `1.2 MiB`.
#[must_use]
pub fn bytes(amount: u64) -> String {
    let shown = |unit: u64, name: &str| {
        let tenths = u128::from(amount) * 10 / u128::from(unit);
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    match amount {
        0..=1_023 => format!("{amount} B"),
        1_024..=1_048_575 => shown(1 << 10, "KiB"),
        1_048_576..=1_073_741_823 => shown(1 << 20, "MiB"),
        _ => shown(1 << 30, "GiB"),
    }
}

/// Milliseconds in a few signs: `0.4 s`, `12 s`, `3 min`, `2 h`; with what is left over where a whole
/// unit would hide more than a tenth.
#[must_use]
pub fn span(millis: u64) -> String {
    match millis {
        0..=9_999 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        10_000..=119_999 => format!("{} s", millis / 1_000),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let rows = [("512", 512), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("5GiB", 5 << 30), ("5g", 5 << 30), ("300MB", 300_000_000)];
        for (text, amount) in rows.into_iter().chain([("1.5GiB", 3 << 29), ("0.001k", 2), ("7B", 7)]) {
            assert_eq!(parse_bytes(text), Ok(amount), "{text}");
        }
        for text in ["", "0", "0GiB", "GiB", "-1", "1e3", "5 XB", "1.2.3M", "1.2345G", "99999999999T", "5GiBx"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_briefly() {
        for (amount, text) in [(0, "0 B"), (4_096, "4.0 KiB"), ((5 << 30) + (1 << 29), "5.5 GiB"), (u64::MAX, "17179869183.9 GiB")] {
            assert_eq!(bytes(amount), text);
        }
        for (millis, text) in [(440, "0.4 s"), (61_000, "61 s"), (300_000, "5 min"), (9_000_000, "2 h 30 min")] {
            assert_eq!(span(millis), text);
        }
    }
}
