//! `doctor`: the whole installation examined, each finding with its repair.
//!
//! Looks and tells; it repairs nothing and starts no daemon. Invariant: no key, no header and no
//! password is in a report, so that it can be posted as it is.

mod host;
mod installation;
mod keys;
mod mcp;
mod models;
mod project;
mod report;
mod sandbox;

pub use models::chosen_model;

use super::Shop;
use crate::config;
use crate::environment::Received;
use crate::secrets::Secrets;
use crate::wire;
use report::{Report, Style};
use std::sync::Arc;
use tinkerbell_cli::Output;
use tinkerbell_core::code::Fault;
use tinkerbell_secret::Known;

/// Examines everything; `offline` asks no model server, not even on this machine.
///
/// # Errors
/// None: what goes wrong is part of the report. The exit code is 1 when something is broken.
pub async fn doctor(shop: &Shop<'_>, json: bool, offline: bool, out: &Output) -> Result<u8, Fault> {
    if !json && out.is_talk_terminal() {
        out.talk("examining; the sandbox is attacked for a few seconds");
    }
    let report = examine(shop, offline).await;
    if json {
        out.data(&report.as_json().to_string());
    } else {
        let style = Style { is_ascii: out.is_ascii(), is_verbose: out.verbosity() > 0, paint: &|tone, text| out.on_data(tone, text) };
        report.lines(&style).iter().for_each(|line| out.data(line));
    }
    Ok(report.exit())
}

async fn examine(shop: &Shop<'_>, offline: bool) -> Report {
    let loaded = config::load(shop.sources, shop.env);
    let config = loaded.as_ref().map(|loaded| loaded.config.clone()).unwrap_or_default();
    let (daemon, models, repository) =
        tokio::join!(installation::daemon(shop), models::look(shop, &config, offline), project::repository(shop));
    let places = installation::places(shop);
    // The self-test needs places to work in. What can not be made was found already.
    let _told_above = shop.places.make(rustix::process::getuid().as_raw());
    // Alone, because its attacks have deadlines that a busy machine would miss.
    let sandbox = sandbox::look(shop, &config).await;
    let groups = vec![
        daemon,
        places,
        installation::journal(shop),
        keys::look(shop, &config),
        installation::configuration(shop, &loaded),
        models,
        repository,
        project::rules(shop),
        mcp::look(shop, &config),
        sandbox,
        host::look(shop),
    ];
    let mut names = tinkerbell_router::key_variables(&wire::router_options(&config, shop.places));
    // A proxy's address may hold a password.
    names.extend(crate::secrets::variables(&config));
    names.extend(["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"].map(str::to_owned));
    let received = Arc::new(Received::new(shop.env.clone()));
    let secrets = Secrets::new(Known::new(), received.clone());
    // A mistake in it is a finding already. Files that are configured count, too.
    let _told_above = secrets.refresh(&config, shop.places);
    secrets.known.learn(received.secrets(&names));
    let mut values = secrets.known.values();
    values.extend(received.secrets(&names));
    Report { groups }.redacted(&values, shop.places.home.as_deref())
}

#[cfg(test)]
mod tests;
