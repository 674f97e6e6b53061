//! `keys ls | rotate-root`: the keys that seal journal and blobs.
//!
//! Works beside a running daemon, which reads the keyring again before it changes it. Invariant: no
//! secret is ever printed.

use super::Shop;
use super::text::span;
use crate::clock::SystemClock;
use crate::config;
use crate::wire;
use serde_json::json;
use std::sync::Arc;
use tinkerbell_cli::Output;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_security::{FileKeyring, KeyFacts, KeyPlaces};

/// Where the keys lie. A broken configuration leaves the place that is built in.
pub fn places(shop: &Shop<'_>) -> KeyPlaces {
    let config = config::load(shop.sources, shop.env).map(|loaded| loaded.config).unwrap_or_default();
    wire::key_places(&config, shop.places)
}

/// Opens the keyring; makes nothing.
///
/// # Errors
/// What is wrong with keyring or root key.
pub fn open(shop: &Shop<'_>) -> Result<Arc<FileKeyring>, Fault> {
    FileKeyring::open(places(shop), Arc::new(SystemClock))
}

/// Lists the keys.
///
/// # Errors
/// What is wrong with keyring or root key.
pub fn ls(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let keys = open(shop)?.list();
    let now_ms = SystemClock.now().wall_ms;
    if json {
        let shown: Vec<_> = keys
            .iter()
            .map(|key| json!({"id": key.id, "user": key.subject.0, "created_ms": key.created_ms, "destroyed": key.destroyed}))
            .collect();
        out.data(&json!({ "keys": shown }).to_string());
        return Ok(exit::DONE);
    }
    if keys.is_empty() {
        out.talk("there are no keys yet; the first task makes them");
    }
    keys.iter().for_each(|key| out.data(&line(key, now_ms)));
    Ok(exit::DONE)
}

fn line(key: &KeyFacts, now_ms: u64) -> String {
    let state = if key.destroyed { "destroyed".to_owned() } else { format!("{} old", span(now_ms.saturating_sub(key.created_ms))) };
    format!("key {:>10}  user {:>10}  {state}", key.id, key.subject.0)
}

/// Wraps all keys under a new root key.
///
/// # Errors
/// What is wrong with keyring or root key; then nothing was changed.
pub fn rotate_root(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    let keyring = open(shop)?;
    if keyring.list().is_empty() {
        out.talk("there are no keys yet; the first task makes them");
        return Ok(exit::DONE);
    }
    let count = keyring.rotate_root()?;
    out.data(&format!("{count} keys are wrapped by a new root key in {}", places(shop).root.display()));
    out.talk("copies of the old root key open only copies of the old keyring: renew the backup of your keys, and delete those");
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;
    use tinkerbell_core::port::Keyring as _;
    use tinkerbell_core::words::Subject;

    #[test]
    fn keys_are_listed_and_rewrapped_and_no_secret_is_shown() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("home/config.toml", "[security]\nroot_key = \"apart/root\"\n");
        assert_eq!(rotate_root(&bench.shop(), &heard.out), Ok(exit::DONE));
        assert!(heard.talk().contains("no keys yet") && !bench.places.data.exists());
        let key = open(&bench.shop()).unwrap().of(Subject(1000)).unwrap();
        let root = bench.dir.path().join("home/apart/root");
        let before = std::fs::read_to_string(&root).unwrap();
        assert_eq!(rotate_root(&bench.shop(), &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains("1 keys") && heard.data().contains(root.to_str().unwrap()), "{}", heard.data());
        assert_ne!(std::fs::read_to_string(&root).unwrap(), before);
        assert_eq!(ls(&bench.shop(), false, &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains(&key.id.to_string()) && heard.data().contains("user       1000"), "{}", heard.data());
        let heard = Heard::new();
        assert_eq!(ls(&bench.shop(), true, &heard.out), Ok(exit::DONE));
        let value: serde_json::Value = serde_json::from_str(&heard.data()).unwrap();
        assert_eq!((value["keys"][0]["id"].as_u64(), value["keys"][0]["user"].as_u64()), (Some(key.id.into()), Some(1000)));
        let secret: String = key.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!heard.data().contains(&secret[..16]));
    }
}
