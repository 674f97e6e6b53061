//! Money in integers: nano-dollars in the ledger, pico-dollars per token in prices.
//!
//! The cheapest published rates are a few thousand pico-dollars per token, so floats never touch
//! money. Invariant: every rounding goes up, against us, so a cap is never passed by rounding.

use std::fmt;

/// An amount of US dollars in units of 10⁻⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// The amount in millionths of a dollar, rounded up.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// The sum, held at the largest value instead of wrapping.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, never below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Reads amounts as people write them: `2usd`, `$2`, `0.50`, `2.5 USD`.
    ///
    /// # Errors
    /// Returns the text when it is not a non-negative amount with at most nine decimals.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not an amount; write it like `2usd` or `0.50`");
        let lower = text.trim().to_ascii_lowercase();
        let body = lower.strip_prefix('$').unwrap_or(&lower);
        let body = body.strip_suffix("usd").unwrap_or(body).trim();
        let (whole, part) = body.split_once('.').unwrap_or((body, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if body.is_empty() || body == "." || !digits(whole) || !digits(part) || part.len() > 9 {
            return Err(bad());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let nanos: u64 = format!("{part:0<9}").parse().map_err(|_| bad())?;
        whole.checked_mul(1_000_000_000).and_then(|dollars| dollars.checked_add(nanos)).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for NanoUsd {
    /// Dollars and cents, with four decimals below ten cents; rounded up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("$0.00");
        }
        if self.0 < 100_000_000 {
            let units = self.0.div_ceil(100_000);
            return write!(f, "$0.{units:04}");
        }
        let cents = self.0.div_ceil(10_000_000);
        write!(f, "${}.{:02}", cents / 100, cents % 100)
    }
}

/// Prices of one model in pico-dollars (10⁻¹²) per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price {
    /// Fresh input tokens.
    pub input_pico: u64,
    /// Input tokens read from the provider's cache.
    pub cached_pico: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write_pico: u64,
    /// Output tokens, reasoning included.
    pub output_pico: u64,
}

/// Tokens that a call used; `input` includes cache reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input tokens.
    pub input: u64,
    /// Of those, read from cache.
    pub cached: u64,
    /// Of those, written to cache.
    pub cache_write: u64,
    /// Output tokens.
    pub output: u64,
}

impl Usage {
    /// The sum of two usages.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
        }
    }

    /// Input and output together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl Price {
    /// What `usage` costs, rounded up to a nano-dollar.
    #[must_use]
    pub fn cost(&self, usage: Usage) -> NanoUsd {
        let fresh = usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write);
        let pico = [
            (fresh, self.input_pico),
            (usage.cached, self.cached_pico),
            (usage.cache_write, self.cache_write_pico),
            (usage.output, self.output_pico),
        ]
        .iter()
        .map(|(tokens, price)| u128::from(*tokens) * u128::from(*price))
        .sum::<u128>();
        NanoUsd(u64::try_from(pico.div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    /// The most that a call can cost: all input at its dearest rate, output up to its limit.
    #[must_use]
    pub fn ceiling(&self, input_tokens: u64, max_output_tokens: u64) -> NanoUsd {
        let dearest = self.input_pico.max(self.cache_write_pico);
        let pico = u128::from(input_tokens) * u128::from(dearest) + u128::from(max_output_tokens) * u128::from(self.output_pico);
        NanoUsd(u64::try_from(pico.div_ceil(1_000)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, nanos) in [("2usd", 2_000_000_000), ("$2", 2_000_000_000), ("0.5", 500_000_000), (".25 USD", 250_000_000), ("0", 0)] {
            assert_eq!(NanoUsd::parse(text), Ok(NanoUsd(nanos)), "{text}");
        }
        for text in ["", "usd", "-1", "1e3", "2 euros", "0.0000000001", "99999999999999999999"] {
            assert!(NanoUsd::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cost_counts_cache_reads_once_and_rounds_up() {
        let price = Price { input_pico: 3_000_000, cached_pico: 300_000, cache_write_pico: 3_750_000, output_pico: 15_000_000 };
        let usage = Usage { input: 1_000, cached: 900, cache_write: 0, output: 10 };
        assert_eq!(price.cost(usage), NanoUsd(300_000 + 270_000 + 150_000));
        let one = Price { input_pico: 1, ..Price::default() };
        assert_eq!(one.cost(Usage { input: 1, ..Usage::default() }), NanoUsd(1));
    }

    #[test]
    fn amounts_show_cents_or_finer() {
        for (nanos, text) in [(0, "$0.00"), (1, "$0.0001"), (12_345_678, "$0.0124"), (1_234_567_890, "$1.24")] {
            assert_eq!(NanoUsd(nanos).to_string(), text);
        }
    }
}
