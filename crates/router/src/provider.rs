//! From `provider/model` to a target: where it listens, what it speaks, whose key it wants.
//!
//! Pure over options and environment; nothing is contacted. Invariant: a key is looked up only at
//! the moment of a call, and is held by nothing here.

use crate::catalog;
use crate::fault;
use crate::options::{Options, Provider, Reasoning, Tools, Wire};
use std::path::PathBuf;
use tinkerbell_core::code::Fault;
use tinkerbell_core::model::{EditStyle, ModelCard, ToolMode};
use tinkerbell_core::money::Price;
use tinkerbell_secret::Lookup;

/// Looks up a variable of the environment that the newest client sent.
pub type Environment = Lookup;

/// A provider that needs no configuration.
struct BuiltIn {
    name: &'static str,
    wire: Wire,
    base_url: &'static str,
    /// Variables that may hold its key, best first.
    keys: &'static [&'static str],
    /// Variable that moves it elsewhere.
    base_env: &'static str,
}

const fn built_in(
    name: &'static str,
    wire: Wire,
    base_url: &'static str,
    keys: &'static [&'static str],
    base_env: &'static str,
) -> BuiltIn {
    BuiltIn { name, wire, base_url, keys, base_env }
}

/// In the order in which keys are looked for.
const BUILT_IN: &[BuiltIn] = &[
    built_in("anthropic", Wire::Anthropic, "https://api.anthropic.com/v1/", &["ANTHROPIC_API_KEY"], "ANTHROPIC_BASE_URL"),
    built_in("openai", Wire::OpenaiResponses, "https://api.openai.com/v1/", &["OPENAI_API_KEY"], "OPENAI_BASE_URL"),
    built_in("gemini", Wire::Gemini, "https://generativelanguage.googleapis.com/v1beta/", &["GEMINI_API_KEY", "GOOGLE_API_KEY"], ""),
    built_in("openrouter", Wire::Openai, "https://openrouter.ai/api/v1/", &["OPENROUTER_API_KEY"], ""),
    built_in("mistral", Wire::Openai, "https://api.mistral.ai/v1/", &["MISTRAL_API_KEY"], ""),
    built_in("deepseek", Wire::Openai, "https://api.deepseek.com/v1/", &["DEEPSEEK_API_KEY"], ""),
    built_in("groq", Wire::Openai, "https://api.groq.com/openai/v1/", &["GROQ_API_KEY"], ""),
    built_in("xai", Wire::Openai, "https://api.x.ai/v1/", &["XAI_API_KEY"], ""),
    built_in("ollama", Wire::Ollama, "http://127.0.0.1:11434/v1/", &[], "OLLAMA_HOST"),
    built_in("lmstudio", Wire::Openai, "http://127.0.0.1:1234/v1/", &[], ""),
    built_in("llamacpp", Wire::Openai, "http://127.0.0.1:8080/v1/", &[], ""),
    built_in("vllm", Wire::Openai, "http://127.0.0.1:8000/v1/", &[], ""),
];

/// What a key begins with that is a configured secret and no variable.
const SECRET: &str = "secret:";

/// Providers and the variables of their keys, in the order of choice.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.iter().flat_map(|known| known.keys.iter().map(|key| (known.name, *key)))
}

/// Every variable that may hold a key: what must be redacted everywhere.
#[must_use]
pub fn key_variables(options: &Options) -> Vec<String> {
    let own = options.providers.values().filter_map(|provider| provider.api_key_env.clone());
    let mut names: Vec<String> = keys().map(|(_, key)| key.to_owned()).chain(own).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Every variable that a router may ask for: what a client sends along with its request.
#[must_use]
pub fn variables(options: &Options) -> Vec<String> {
    const PROXIES: &[&str] = &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "OLLAMA_CONTEXT_LENGTH"];
    let moved = BUILT_IN.iter().map(|known| known.base_env).filter(|name| !name.is_empty());
    let mut names = key_variables(options);
    names.extend(moved.chain(PROXIES.iter().copied()).map(str::to_owned));
    names
}

/// Names of all providers that `options` and the house know.
pub fn names(options: &Options) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.iter().map(|known| known.name.to_owned()).collect();
    names.extend(options.providers.keys().cloned());
    names.sort_unstable();
    names.dedup();
    names
}

/// One model at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The provider's name.
    pub provider: String,
    /// The model's name at the provider.
    pub model: String,
    /// What is spoken.
    pub wire: Wire,
    /// Where, ending in `/`; empty for replays.
    pub base_url: String,
    /// Host and port of it.
    pub host: String,
    /// Whether it is this machine.
    pub is_local: bool,
    /// Variables that may hold the key, best first.
    pub keys: Vec<String>,
    /// Whether a call without a key is pointless.
    pub needs_key: bool,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Recorded turns, for replays.
    pub path: Option<PathBuf>,
    /// How much it shall think.
    pub reasoning: Option<Reasoning>,
    /// What is known of it.
    pub card: ModelCard,
}

/// Finds what `name` means.
///
/// # Errors
/// `TB-ROUTER-002` for unknown providers, `TB-ROUTER-011` for configurations that can not work.
pub fn resolve(name: &str, options: &Options, env: &Environment) -> Result<Target, Fault> {
    let known = || names(options);
    let Some((provider, model)) = name.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty()) else {
        let near = suggest_model(name, options);
        return Err(fault::unknown_provider(name, &known(), near.as_deref()));
    };
    let configured = options.providers.get(provider);
    let base = BUILT_IN.iter().find(|known| known.name == provider);
    if configured.is_none() && base.is_none() {
        let near = nearest(provider, &known()).map(|near| format!("{near}/{model}"));
        return Err(fault::unknown_provider(name, &known(), near.as_deref()));
    }
    let place = place(provider, configured, base, env)?;
    check_name(name, place.wire, model)?;
    Ok(target(name, (provider, model), place, options))
}

/// A provider's place, before the model comes in.
struct Place {
    wire: Wire,
    base_url: String,
    keys: Vec<String>,
    needs_key: bool,
    headers: Vec<(String, String)>,
    path: Option<PathBuf>,
    /// Whether it is the vendor's own address, whose prices we know.
    is_vendor: bool,
    context_env: Option<u64>,
}

fn place(provider: &str, configured: Option<&Provider>, base: Option<&BuiltIn>, env: &Environment) -> Result<Place, Fault> {
    let empty = Provider::default();
    let own = configured.unwrap_or(&empty);
    let moved = base.filter(|known| !known.base_env.is_empty()).and_then(|known| env(known.base_env));
    let moved = moved.map(|url| url.expose().clone()).filter(|url| !url.trim().is_empty());
    let wire = own.wire.or_else(|| base.map(|known| known.wire)).ok_or_else(|| {
        fault::configuration(
            format!("provider `{provider}` has no wire"),
            "set `wire` under [providers.NAME]: openai, openai-responses, anthropic, gemini, ollama or replay",
        )
    })?;
    let given = own.base_url.clone().or(moved);
    let is_vendor = given.is_none() && base.is_some();
    // Compatible servers rarely speak Responses: away from the vendor's host the plain wire is safe.
    let wire = if !is_vendor && own.wire.is_none() && wire == Wire::OpenaiResponses { Wire::Openai } else { wire };
    let base_url = match (wire, given.or_else(|| base.map(|known| known.base_url.to_owned()))) {
        (Wire::Replay, _) => String::new(),
        (_, Some(url)) => normalise(&url, wire)?,
        (_, None) => {
            return Err(fault::configuration(format!("provider `{provider}` has no address"), "set `base_url` under [providers.NAME]"));
        }
    };
    let local = is_loopback(&host_of(&base_url));
    let named = match &own.api_key {
        Some(name) if !name.starts_with(SECRET) => return Err(fault::key_in_configuration(provider)),
        named => named.as_ref().or(own.api_key_env.as_ref()),
    };
    let (keys, needs_key) = match named {
        Some(name) => (vec![name.clone()], true),
        None => {
            let keys: Vec<String> = base.map(|known| known.keys.iter().map(|key| (*key).to_owned()).collect()).unwrap_or_default();
            let needs = !keys.is_empty() && !local;
            (keys, needs)
        }
    };
    let headers = own.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let context_env = (wire == Wire::Ollama).then(|| env("OLLAMA_CONTEXT_LENGTH")?.expose().trim().parse().ok()).flatten();
    Ok(Place { wire, base_url, keys, needs_key, headers, path: own.path.clone(), is_vendor, context_env })
}

fn target(name: &str, (provider, model): (&str, &str), place: Place, options: &Options) -> Target {
    let host = host_of(&place.base_url);
    let is_local = is_loopback(&host);
    let own = options.models.get(name).cloned().unwrap_or_default();
    let known = catalog::find(provider, model).filter(|_| place.is_vendor);
    let free = is_local || place.wire == Wire::Replay;
    let window = own.context_tokens.or(place.context_env).or(known.map(|known| known.context_tokens));
    let context_tokens = window.unwrap_or(if is_local { 32_768 } else { 128_000 });
    let answer = own.max_output_tokens.or(known.map(|known| known.max_output_tokens)).unwrap_or(context_tokens / 4);
    let card = ModelCard {
        name: name.to_owned(),
        provider: provider.to_owned(),
        wire: place.wire.name().to_owned(),
        host: host.clone(),
        context_tokens,
        max_output_tokens: answer.min(context_tokens).max(1),
        tools: match own.tools {
            None | Some(Tools::Native) => ToolMode::Native,
            Some(Tools::JsonSchema) => ToolMode::JsonSchema,
            Some(Tools::Auto) => ToolMode::Auto,
        },
        price: configured_price(&own).or_else(|| if free { Some(Price::default()) } else { known.map(|known| known.price) }),
        edits: edit_style(model),
    };
    Target {
        provider: provider.to_owned(),
        model: model.to_owned(),
        wire: place.wire,
        base_url: place.base_url,
        host,
        is_local,
        keys: place.keys,
        needs_key: place.needs_key,
        headers: place.headers,
        path: place.path,
        reasoning: own.reasoning,
        card,
    }
}

/// Dollars per million tokens to pico-dollars per token, rounded up; both directions are needed.
fn configured_price(own: &crate::options::Model) -> Option<Price> {
    let pico = |usd: f64| if usd.is_finite() && usd >= 0.0 { Some((usd * 1e6).ceil() as u64) } else { None };
    let input_pico = pico(own.input_usd_per_mtok?)?;
    let output_pico = pico(own.output_usd_per_mtok?)?;
    let cached_pico = own.cached_usd_per_mtok.and_then(pico).unwrap_or(input_pico);
    // Writing costs at most a quarter more wherever it is charged; without a figure the dearer one counts.
    Some(Price { input_pico, cached_pico, cache_write_pico: input_pico.saturating_mul(5).div_ceil(4), output_pico })
}

/// V4A patches come easily only to the family they were made for.
fn edit_style(model: &str) -> EditStyle {
    let last = model.rsplit('/').next().unwrap_or(model);
    let reasoning = last.starts_with('o') && last.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if last.starts_with("gpt-") || reasoning || last.contains("codex") { EditStyle::Patch } else { EditStyle::Replace }
}

/// These wires would strip a suffix like `-high` from the name and read an effort into it.
fn check_name(name: &str, wire: Wire, model: &str) -> Result<(), Fault> {
    const EFFORTS: &[&str] = &["none", "zero", "minimal", "low", "medium", "high", "xhigh", "max"];
    let last = model.rsplit_once('-').map_or("", |(_, last)| last);
    if matches!(wire, Wire::Anthropic | Wire::Gemini) && EFFORTS.contains(&last) {
        return Err(fault::configuration(
            format!("`{name}` ends in `-{last}`, which this wire reads as an effort"),
            "give the model's plain name, and `reasoning` under [models.\"provider/model\"]",
        ));
    }
    Ok(())
}

/// Adds scheme and version path where they are missing, and the slash that joining needs.
fn normalise(url: &str, wire: Wire) -> Result<String, Fault> {
    let text = url.trim();
    let text = match wire {
        Wire::Ollama if !text.contains("://") => ollama_address(text),
        _ => text.to_owned(),
    };
    let bad = || fault::configuration(format!("`{text}` is not an address"), "write `base_url` like http://127.0.0.1:8080/v1");
    let mut parsed = reqwest::Url::parse(&text).map_err(|_| bad())?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(bad());
    }
    let path = match parsed.path().trim_end_matches('/') {
        "" if wire == Wire::Gemini => "/v1beta".to_owned(),
        "" => "/v1".to_owned(),
        path => path.to_owned(),
    };
    parsed.set_path(&format!("{path}/"));
    Ok(parsed.to_string())
}

/// `OLLAMA_HOST` comes as `host`, `host:port` or `:port`, and names the address to bind, too.
fn ollama_address(text: &str) -> String {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => (host, port),
        _ => (text, "11434"),
    };
    let host = if matches!(host, "" | "0.0.0.0" | "[::]") { "127.0.0.1" } else { host };
    format!("http://{host}:{port}")
}

fn host_of(base_url: &str) -> String {
    reqwest::Url::parse(base_url)
        .ok()
        .and_then(|url| Some((url.host_str()?.to_owned(), url.port())))
        .map_or_else(String::new, |(host, port)| port.map_or(host.clone(), |port| format!("{host}:{port}")))
}

fn is_loopback(host: &str) -> bool {
    let name = if host.starts_with('[') { host.split(']').next().unwrap_or(host) } else { host.split(':').next().unwrap_or(host) };
    name == "localhost" || name == "[::1" || name.starts_with("127.")
}

/// The model a bare name may have meant.
fn suggest_model(name: &str, options: &Options) -> Option<String> {
    let known = catalog::KNOWN.iter().map(|known| format!("{}/{}", known.provider, known.model));
    let all: Vec<String> = options.models.keys().cloned().chain(known).collect();
    all.iter().find(|full| full.split_once('/').is_some_and(|(_, model)| model == name)).cloned().or_else(|| nearest(name, &all))
}

/// The nearest of `known` by edit distance, when it is near enough to be a slip.
pub fn nearest(word: &str, known: &[String]) -> Option<String> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|name| (distance(word, name), name))
        .filter(|(far, _)| *far <= limit)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name.clone())
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = i;
        let mut next = vec![i + 1];
        for (right, above) in b.iter().zip(row.iter().skip(1)) {
            let before = next.last().copied().unwrap_or(0);
            next.push((corner + usize::from(left != *right)).min(above + 1).min(before + 1));
            corner = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
