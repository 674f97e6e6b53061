//! Keyring and root key.
//!
//! Reads only; nothing is made. Invariant: no secret is in a finding.

use super::super::{Shop, keys};
use super::report::{Finding, Group, broken};

/// Whether the keys can be had, and where they lie.
pub fn look(shop: &Shop<'_>) -> Group {
    let places = keys::places(shop);
    let findings = match keys::open(shop) {
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
    Group { name: "Keys", findings }
}
