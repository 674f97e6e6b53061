//! `secrets ls`: the configured secrets, and how each stands.
//!
//! Looked at from here: variables are this terminal's, which is what the next request brings. Invariant:
//! no value is ever printed.

use super::Shop;
use super::text::span;
use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::secrets::{providers, sources};
use serde_json::json;
use std::sync::Arc;
use tinkerbell_cli::{Output, visible};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_secret::Known;
use tinkerbell_security::{SecretSeen, SecretState, SecretStore, Source};

/// How all configured secrets stand.
///
/// # Errors
/// `TB-SECRET-004` for one with no source, or with two.
pub fn seen(shop: &Shop<'_>, config: &Config) -> Result<Vec<SecretSeen>, Fault> {
    let env = shop.env.clone();
    let store = SecretStore::new(providers(Arc::new(move |name| env.secret(name))), Known::new());
    store.reload(sources(config, shop.places)?);
    Ok(store.list())
}

/// Lists them.
///
/// # Errors
/// A mistake in the configuration.
pub fn ls(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let all = seen(shop, &config::load(shop.sources, shop.env)?.config)?;
    let now_s = i64::try_from(SystemClock.now().wall_ms / 1_000).unwrap_or(i64::MAX);
    if json {
        let shown: Vec<_> = all
            .iter()
            .map(
                |seen| json!({"name": seen.name, "origin": origin(&seen.source), "state": state(&seen.state), "changed_s": seen.changed_s}),
            )
            .collect();
        out.data(&json!({ "secrets": shown }).to_string());
        return Ok(exit::DONE);
    }
    if all.is_empty() {
        out.talk("no secrets are configured; [secrets.NAME] file = \"/path\" adds one");
    }
    let width = all.iter().map(|seen| seen.name.len()).max().unwrap_or_default();
    for seen in &all {
        let age = seen.changed_s.map(|at| u64::try_from(now_s.saturating_sub(at)).unwrap_or_default().saturating_mul(1_000));
        let age = age.map(|ms| format!("  changed {} ago", span(ms))).unwrap_or_default();
        let why = if let SecretState::Refused(why) = &seen.state { format!("  {why}") } else { String::new() };
        out.data(&visible(&format!("{:<width$}  {:<8} {}{age}{why}", seen.name, state(&seen.state), origin(&seen.source))));
    }
    Ok(exit::DONE)
}

/// Where it comes from, for people.
pub fn origin(source: &Source) -> String {
    format!("{} {}", source.provider, source.place.display())
}

const fn state(state: &SecretState) -> &'static str {
    match state {
        SecretState::Present => "present",
        SecretState::Short => "short",
        SecretState::Missing => "missing",
        SecretState::Refused(_) => "refused",
    }
}
