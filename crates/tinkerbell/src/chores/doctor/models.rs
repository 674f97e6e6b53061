//! Models: what is at hand, what is configured, and which one a task would get.
//!
//! Looks at names of variables and at this machine only; no hosted provider is contacted.
//! Invariant: no value of a key passes through here.

use super::super::Shop;
use super::report::{Finding, Group, broken};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::wire;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::Fault;
use tinkerbell_router::options::Wire;
use tinkerbell_router::{Detection, Environment, Router, ServerState, Target};

/// Longest wait for a server on this machine.
const PATIENCE: Duration = Duration::from_millis(400);
fn lookup(shop: &Shop<'_>) -> Environment {
    let env = shop.env.clone();
    Arc::new(move |name| env.secret(name))
}

fn router(shop: &Shop<'_>, config: &Config) -> Arc<Router> {
    Router::new(wire::router_options(config, shop.places), lookup(shop), Arc::new(SystemClock))
}

/// What is at hand; `offline` leaves the servers of this machine alone.
async fn detection(shop: &Shop<'_>, offline: bool) -> Detection {
    if offline {
        return Detection { keys: tinkerbell_router::keys_seen(&lookup(shop)), servers: Vec::new() };
    }
    tinkerbell_router::detect(&lookup(shop)).await
}

/// The model that a task without `-m` gets, and why.
///
/// # Errors
/// `TB-ROUTER-001` when there is none.
pub async fn chosen_model(shop: &Shop<'_>, config: &Config, offline: bool) -> Result<(String, String), Fault> {
    let options = wire::router_options(config, shop.places);
    if let Some(model) = &options.model {
        return Ok((model.clone(), "configured".to_owned()));
    }
    let detection = detection(shop, offline).await;
    tinkerbell_router::default_model(&options, &detection)
}

/// Examines keys, servers, configured providers and the choice.
pub async fn look(shop: &Shop<'_>, config: &Config, offline: bool) -> Group {
    let router = router(shop, config);
    let detection = detection(shop, offline).await;
    let mut findings = vec![keys(&detection)];
    findings.extend(detection.servers.iter().filter_map(|seen| match &seen.state {
        ServerState::Refused => None,
        ServerState::Found(models) => {
            Some(Finding::good(seen.name, format!("answers at {} with {} models", seen.address, models.len())).with(models.clone()))
        }
        ServerState::Silent => Some(Finding::look(
            seen.name,
            format!("something listens at {} and gives no list of models", seen.address),
            format!("curl http://{}/v1/models shows what it is; if it is no model server, ignore this", seen.address),
        )),
    }));
    let options = wire::router_options(config, shop.places);
    let chosen = tinkerbell_router::default_model(&options, &detection);
    let is_chosen =
        |name: &str| chosen.as_ref().is_ok_and(|(model, _)| model.split_once('/').is_some_and(|(provider, _)| provider == name));
    for name in config.providers.keys() {
        let finding = match router.target(&format!("{name}/any")) {
            Err(fault) => broken(name, &fault),
            Ok(target) => provider(shop, name, &target, offline).await,
        };
        findings.push(if is_chosen(name) { finding.worse() } else { finding });
    }
    findings.push(match chosen {
        Ok((model, why)) => choice(shop, &router, &model, &why),
        Err(fault) if offline => Finding::look(
            "choice",
            "no model is configured and no key is set; servers on this machine were not looked for",
            first_fix(&fault),
        ),
        Err(fault) => Finding::bad("choice", fault.message.clone(), first_fix(&fault)),
    });
    Group { name: "Models", findings }
}

/// What the fault offers first, in one line.
fn first_fix(fault: &Fault) -> String {
    let lines = fault.hints.iter().flat_map(|hint| hint.lines()).map(str::trim);
    let line =
        lines.filter(|line| line.starts_with("export ") || line.starts_with("ollama ")).map(|line| line.split("  ").next().unwrap_or(line));
    let ways: Vec<&str> = line.take(2).collect();
    if ways.is_empty() { "export ANTHROPIC_API_KEY=KEY, or start a local model server".to_owned() } else { ways.join(", or: ") }
}

fn keys(detection: &Detection) -> Finding {
    let set: Vec<&str> = detection.keys.iter().filter(|seen| seen.is_set).map(|seen| seen.variable).collect();
    let text = if set.is_empty() { format!("none of {} variables is set", detection.keys.len()) } else { set.join(", ") };
    Finding::good("keys", text)
}

fn missing_key<'a>(shop: &Shop<'_>, target: &'a Target) -> Option<&'a str> {
    let has_key = target.keys.iter().any(|name| shop.env.get(name).is_some());
    target.keys.first().filter(|_| target.needs_key && !has_key).map(String::as_str)
}

async fn provider(shop: &Shop<'_>, name: &str, target: &Target, offline: bool) -> Finding {
    let wire = target.wire.name();
    if target.wire == Wire::Replay {
        return match &target.path {
            Some(path) if path.is_file() => Finding::good(name, format!("replay of {}", path.display())),
            Some(path) => {
                Finding::bad(name, format!("the recording {} is not there", path.display()), format!("set `path` under [providers.{name}]"))
            }
            None => Finding::bad(name, "wire replay without a recording", format!("set `path` under [providers.{name}]")),
        };
    }
    if let Some(key) = missing_key(shop, target) {
        return Finding::look(name, format!("{wire} at {}; {key} is not set", target.host), format!("export {key}=KEY"));
    }
    if !target.is_local {
        return Finding::good(name, format!("{wire} at {}; its key is set; not contacted", target.host));
    }
    if offline {
        return Finding::good(name, format!("{wire} at {}; not asked", target.host));
    }
    let started_ms = SystemClock.now().mono_ms;
    match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address(&target.base_url))).await {
        Ok(Ok(_)) => Finding::good(
            name,
            format!("{wire} at {}; accepts connections after {} ms", target.host, SystemClock.now().mono_ms.saturating_sub(started_ms)),
        ),
        Ok(Err(error)) => Finding::look(
            name,
            format!("{wire} at {}: {error}", target.host),
            format!("start that server, or change `base_url` under [providers.{name}]"),
        ),
        Err(_) => Finding::look(
            name,
            format!("{wire} at {}: no answer", target.host),
            format!("restart that server, or change `base_url` under [providers.{name}]"),
        ),
    }
}

/// `host:port` of an address; the usual port where none is given.
fn address(base_url: &str) -> String {
    let (scheme, rest) = base_url.split_once("://").unwrap_or(("http", base_url));
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = if scheme == "https" { 443 } else { 80 };
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

fn choice(shop: &Shop<'_>, router: &Router, model: &str, why: &str) -> Finding {
    let target = match router.target(model) {
        Ok(target) => target,
        Err(fault) => return broken("choice", &fault),
    };
    let price = match target.card.price {
        _ if target.is_local => "free".to_owned(),
        None => "price unknown, so tokens are capped".to_owned(),
        Some(price) => format!("{} in, {} out per million tokens", usd(price.input_pico), usd(price.output_pico)),
    };
    let text = format!("a task gets {model} ({why}); window {} tokens, {price}", target.card.context_tokens);
    match missing_key(shop, &target) {
        Some(key) => Finding::bad("choice", format!("{text}; {key} is not set"), format!("export {key}=KEY")),
        None => Finding::good("choice", text),
    }
}

/// Pico-dollars per token are micro-dollars per million tokens.
fn usd(pico: u64) -> String {
    format!("{}.{:02} usd", pico / 1_000_000, pico % 1_000_000 / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        for (url, wanted) in [
            ("http://127.0.0.1:8080/v1/", "127.0.0.1:8080"),
            ("http://localhost/v1/", "localhost:80"),
            ("https://me:pw@localhost/v1/", "localhost:443"),
            ("http://[::1]:90/v1/", "[::1]:90"),
            ("http://[::1]/v1/", "[::1]:80"),
        ] {
            assert_eq!(address(url), wanted);
        }
        assert_eq!(usd(3_750_000), "3.75 usd");
    }
}
