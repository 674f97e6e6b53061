//! Keyring and root key; configured secrets.
//!
//! Reads only; nothing is made. Invariant: no secret is in a finding.

use super::super::{Shop, keys, secrets};
use super::report::{Finding, Group, broken};
use crate::config::Config;
use tinkerbell_security::{SecretSeen, SecretState};

/// Whether the keys can be had, and where they lie.
pub fn look(shop: &Shop<'_>, config: &Config) -> Group {
    let places = keys::places(shop);
    let mut findings = match keys::open(shop) {
        Err(fault) => vec![broken("keyring", &fault)],
        Ok(keyring) if keyring.list().is_empty() => vec![Finding::good("keyring", "none yet; the first task makes it")],
        Ok(keyring) => {
            let count = keyring.list().len();
            let apart = if places.root.starts_with(&shop.places.data) {
                "it lies with the data; [security] root_key puts it apart from backups"
            } else {
                "it lies apart from the data"
            };
            let keyring = Finding::good("keyring", format!("{count} keys in {}", places.keyring.display()));
            vec![keyring, Finding::good("root key", format!("{}; {apart}", places.root.display()))]
        }
    };
    findings.extend(configured(shop, config));
    Group { name: "Keys", findings }
}

/// How each configured secret stands.
fn configured(shop: &Shop<'_>, config: &Config) -> Vec<Finding> {
    let all = match secrets::seen(shop, config) {
        Err(fault) => return vec![broken("secrets", &fault)],
        Ok(all) => all,
    };
    let one = |seen: &SecretSeen| {
        let (name, origin) = (format!("secret {}", seen.name), secrets::origin(&seen.source));
        let remedy = seen.remedy.clone();
        match &seen.state {
            SecretState::Present => Finding::good(name, origin),
            SecretState::Short => Finding::look(name, format!("{origin}: too short to be found in texts"), remedy),
            SecretState::Missing => Finding::look(name, format!("{origin}: there is no value here"), remedy),
            SecretState::Refused(why) if remedy.is_empty() => Finding::bad(name, why.clone(), "tinkerbell explain TB-SECRET-002"),
            SecretState::Refused(why) => Finding::bad(name, why.clone(), remedy),
        }
    };
    all.iter().map(one).collect()
}
