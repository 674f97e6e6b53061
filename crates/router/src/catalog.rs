//! What is known of well-known models: windows and prices, compiled in.
//!
//! Checked by hand against the published price lists as collected in LiteLLM 1.106.2, 2026-11-21.
//! A window is cut where its price steps up, because one price per model is kept here; the
//! configuration overrides every value. Invariant: a model that is not listed has no price, never
//! a guessed one.

use tinkerbell_core::money::Price;

/// One model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The built-in provider's name.
    pub provider: &'static str,
    /// The model's name there.
    pub model: &'static str,
    /// Tokens that fit into one call at the price given.
    pub context_tokens: u64,
    /// Most tokens of one answer.
    pub max_output_tokens: u64,
    /// Its price.
    pub price: Price,
}

/// `tokens`: window, answer. `pico`: pico-dollars per token of input, cache read, cache write, output.
const fn row(provider: &'static str, model: &'static str, tokens: [u64; 2], pico: [u64; 4]) -> Known {
    let [context_tokens, max_output_tokens] = tokens;
    let [input_pico, cached_pico, cache_write_pico, output_pico] = pico;
    Known { provider, model, context_tokens, max_output_tokens, price: Price { input_pico, cached_pico, cache_write_pico, output_pico } }
}

/// The table, newest first within a provider; the first of a provider is its dearest, not its default.
#[rustfmt::skip]
pub const KNOWN: &[Known] = &[
    row("anthropic", "claude-fable-5-1", [1_000_000, 128_000], [10_000_000, 250_000, 12_500_000, 50_000_000]),
    row("anthropic", "claude-opus-5-5", [1_000_000, 128_000], [4_000_000, 200_000, 5_000_000, 20_000_000]),
    row("anthropic", "claude-opus-5", [1_000_000, 128_000], [5_000_000, 500_000, 6_250_000, 25_000_000]),
    row("anthropic", "claude-opus-4-8", [1_000_000, 128_000], [5_000_000, 500_000, 6_250_000, 25_000_000]),
    row("anthropic", "claude-opus-4-7", [1_000_000, 128_000], [5_000_000, 500_000, 6_250_000, 25_000_000]),
    row("anthropic", "claude-opus-4-6", [1_000_000, 128_000], [5_000_000, 500_000, 6_250_000, 25_000_000]),
    row("anthropic", "claude-opus-4-5", [200_000, 64_000], [5_000_000, 500_000, 6_250_000, 25_000_000]),
    row("anthropic", "claude-sonnet-5-5", [1_000_000, 128_000], [2_000_000, 100_000, 2_500_000, 10_000_000]),
    row("anthropic", "claude-sonnet-5", [1_000_000, 128_000], [2_000_000, 200_000, 2_500_000, 10_000_000]),
    row("anthropic", "claude-sonnet-4-6", [1_000_000, 128_000], [3_000_000, 300_000, 3_750_000, 15_000_000]),
    row("anthropic", "claude-sonnet-4-5", [200_000, 64_000], [3_000_000, 300_000, 3_750_000, 15_000_000]),
    row("anthropic", "claude-haiku-5-5", [100_000, 128_000], [100_000, 10_000, 125_000, 500_000]),
    row("anthropic", "claude-haiku-4-5", [200_000, 64_000], [1_000_000, 100_000, 1_250_000, 5_000_000]),
    row("openai", "gpt-6-astra", [272_000, 128_000], [10_000_000, 1_000_000, 12_500_000, 50_000_000]),
    row("openai", "gpt-6.1-sol", [272_000, 128_000], [2_000_000, 100_000, 2_500_000, 10_000_000]),
    row("openai", "gpt-6-sol", [272_000, 128_000], [2_000_000, 200_000, 2_500_000, 10_000_000]),
    row("openai", "gpt-6-luna", [272_000, 128_000], [100_000, 10_000, 125_000, 500_000]),
    row("openai", "gpt-5.6", [272_000, 128_000], [4_000_000, 400_000, 5_000_000, 20_000_000]),
    row("openai", "gpt-5.5", [272_000, 128_000], [5_000_000, 500_000, 5_000_000, 30_000_000]),
    row("openai", "gpt-5.4", [272_000, 128_000], [2_500_000, 250_000, 2_500_000, 15_000_000]),
    row("openai", "gpt-5.4-mini", [272_000, 128_000], [750_000, 75_000, 750_000, 4_500_000]),
    row("openai", "gpt-5.4-nano", [272_000, 128_000], [200_000, 20_000, 200_000, 1_250_000]),
    row("openai", "gpt-5.3-codex", [272_000, 128_000], [1_750_000, 175_000, 1_750_000, 14_000_000]),
    row("openai", "gpt-5.2", [272_000, 128_000], [1_750_000, 175_000, 1_750_000, 14_000_000]),
    row("openai", "gpt-5.1", [272_000, 128_000], [1_250_000, 125_000, 1_250_000, 10_000_000]),
    row("openai", "gpt-5", [272_000, 128_000], [1_250_000, 125_000, 1_250_000, 10_000_000]),
    row("openai", "gpt-5-mini", [272_000, 128_000], [250_000, 25_000, 250_000, 2_000_000]),
    row("openai", "gpt-5-nano", [272_000, 128_000], [50_000, 5_000, 50_000, 400_000]),
    row("openai", "gpt-4.1", [1_047_576, 32_768], [2_000_000, 500_000, 2_000_000, 8_000_000]),
    row("openai", "gpt-4.1-mini", [1_047_576, 32_768], [400_000, 100_000, 400_000, 1_600_000]),
    row("openai", "gpt-4o", [128_000, 16_384], [2_500_000, 1_250_000, 2_500_000, 10_000_000]),
    row("openai", "gpt-4o-mini", [128_000, 16_384], [150_000, 75_000, 150_000, 600_000]),
    row("openai", "o3", [200_000, 100_000], [2_000_000, 500_000, 2_000_000, 8_000_000]),
    row("gemini", "gemini-3.8-flash", [1_048_576, 65_536], [750_000, 75_000, 750_000, 3_750_000]),
    row("gemini", "gemini-3.5-flash-lite", [1_048_576, 65_536], [300_000, 30_000, 300_000, 2_500_000]),
    row("gemini", "gemini-3.1-pro-preview", [200_000, 65_536], [2_000_000, 200_000, 2_000_000, 12_000_000]),
    row("gemini", "gemini-2.5-pro", [200_000, 65_536], [1_250_000, 125_000, 1_250_000, 10_000_000]),
    row("gemini", "gemini-2.5-flash", [1_048_576, 65_536], [300_000, 30_000, 300_000, 2_500_000]),
    row("gemini", "gemini-2.5-flash-lite", [1_048_576, 65_536], [100_000, 10_000, 100_000, 400_000]),
    row("deepseek", "deepseek-v4-pro", [1_000_000, 128_000], [1_320_000, 44_000, 1_320_000, 3_960_000]),
    row("deepseek", "deepseek-v4-flash", [1_000_000, 128_000], [300_000, 6_000, 300_000, 1_200_000]),
    row("mistral", "mistral-large-latest", [262_144, 128_000], [500_000, 50_000, 500_000, 1_500_000]),
    row("mistral", "mistral-medium-latest", [262_144, 128_000], [1_500_000, 150_000, 1_500_000, 7_500_000]),
    row("mistral", "codestral-latest", [128_000, 128_000], [300_000, 30_000, 300_000, 900_000]),
    row("mistral", "devstral-latest", [256_000, 128_000], [400_000, 40_000, 400_000, 2_000_000]),
    row("xai", "grok-4.7", [200_000, 128_000], [2_000_000, 500_000, 2_000_000, 6_000_000]),
    row("xai", "grok-4.5", [200_000, 128_000], [2_000_000, 300_000, 2_000_000, 6_000_000]),
    row("xai", "grok-code-fast-1", [200_000, 128_000], [1_000_000, 200_000, 1_000_000, 2_000_000]),
    row("groq", "openai/gpt-oss-120b", [131_072, 65_536], [150_000, 75_000, 150_000, 600_000]),
    row("groq", "openai/gpt-oss-20b", [131_072, 65_536], [75_000, 37_500, 75_000, 300_000]),
];

/// The model a provider is used with when only its key was found.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("anthropic", "claude-sonnet-5"),
    ("openai", "gpt-6-sol"),
    ("gemini", "gemini-3.8-flash"),
    ("openrouter", "anthropic/claude-sonnet-5"),
    ("mistral", "devstral-latest"),
    ("deepseek", "deepseek-v4-pro"),
    ("groq", "openai/gpt-oss-120b"),
    ("xai", "grok-code-fast-1"),
];

/// Finds a model, with or without the date of a snapshot behind its name.
#[must_use]
pub fn find(provider: &str, model: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.provider == provider && is_snapshot(model, known.model))
}

fn is_snapshot(model: &str, name: &str) -> bool {
    model.strip_prefix(name).is_some_and(|rest| {
        let dated = rest.strip_prefix('-').is_some_and(|date| date.len() >= 4 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        rest.is_empty() || dated
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinkerbell_core::money::{NanoUsd, Usage};

    #[test]
    fn a_snapshot_has_its_models_price_and_a_variant_has_not() {
        assert_eq!(find("anthropic", "claude-sonnet-4-5-20250929").unwrap().model, "claude-sonnet-4-5");
        assert_eq!(find("openai", "gpt-5-2025-08-07").unwrap().model, "gpt-5");
        assert_eq!(find("openai", "gpt-5-mini").unwrap().model, "gpt-5-mini");
        assert_eq!(find("openai", "gpt-5-turbo"), None);
        assert_eq!(find("openai", "claude-sonnet-4-5"), None);
    }

    #[test]
    fn prices_are_sane_and_defaults_are_priced() {
        for known in KNOWN {
            let Price { input_pico, cached_pico, output_pico, .. } = known.price;
            assert!(cached_pico <= input_pico && input_pico < output_pico, "{}", known.model);
            assert!(known.context_tokens >= 100_000 && known.max_output_tokens >= 8_000, "{}", known.model);
        }
        for (provider, model) in DEFAULTS {
            assert!(*provider == "openrouter" || find(provider, model).is_some(), "{provider}/{model}");
        }
    }

    #[test]
    fn a_million_tokens_cost_the_list_price() {
        let price = find("openai", "gpt-5").unwrap().price;
        let usage = Usage { input: 1_000_000, cached: 500_000, cache_write: 0, output: 1_000_000 };
        assert_eq!(price.cost(usage), NanoUsd(625_000_000 + 62_500_000 + 10_000_000_000));
    }
}
