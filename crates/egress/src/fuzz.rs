//! What any bytes must not do to the readers of hosts, greetings and requests; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks. No name is resolved; the one address that may be dialled
//! is port 1 of loopback, where nobody listens.

use crate::gate::{Gate, Resolve};
use crate::hello::{self, First};
use crate::host::{Host, Odd, canonical, special, split};
use crate::options::{Egress, HostEntry};
use crate::record::Log;
use crate::rules::Allowlist;
use crate::{http, socks};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Stamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

/// Reads a text as a host, and as host and port: what is understood has one canonical form, which is
/// understood as the same, and no address goes for a name.
pub fn host(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = Host::parse(&text);
    match &found {
        Ok(host) => {
            assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(host), "the canonical form is itself");
            assert_eq!(split(&format!("{host}:443")), Ok((host.clone(), Some(443))));
            well_formed(host);
        }
        Err(Odd::Empty) => assert!(text.is_empty()),
        Err(_) => {}
    }
    if text.is_ascii() {
        assert_eq!(Host::parse(&text.to_ascii_uppercase()), found, "letters' case says nothing");
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        assert_eq!(found, Ok(Host::Address(canonical(address))), "what is an address for everybody is one here");
    }
    if let Ok((host, port)) = split(&text) {
        well_formed(&host);
        assert!(port != Some(0));
    }
}

fn well_formed(host: &Host) {
    match host {
        Host::Address(address) => {
            assert_eq!(canonical(*address), *address);
            let mapped = match address {
                IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
                IpAddr::V6(_) => *address,
            };
            assert_eq!(special(mapped), special(*address), "a wrapped address is what it wraps");
        }
        Host::Name(name) => {
            let is_sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            assert!(name.len() <= 253 && name.bytes().all(is_sign), "{name}");
            assert!(name.split('.').all(|label| !label.is_empty() && label.len() <= 63), "{name}");
            // A C library would take it for an address and ask nobody.
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(!last.starts_with(|first: char| first.is_ascii_digit()) || last.parse::<u64>().is_err(), "{name}");
            assert!(name.parse::<IpAddr>().is_err(), "{name}");
        }
    }
}

/// Says bytes to the proxy, as HTTP or SOCKS5: each connection ends, and no name is looked up that no rule
/// allows. The same bytes are read as a client's first in a tunnel.
pub fn door(data: &[u8]) {
    let whole = hello::first(data);
    // What was understood of a beginning does not change with what follows.
    for cut in [data.len() / 2, data.len() / 3, 5, 1] {
        let early = hello::first(data.get(..cut).unwrap_or(data));
        assert!(early == First::More || early == whole, "{early:?}, then {whole:?}");
    }
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Out of descriptors: nothing can be asked.
    let (Ok(runtime), Some(gate)) = (made, gate()) else { return };
    let answer = runtime.block_on(said(&gate, data));
    let text = String::from_utf8_lossy(&answer);
    match data.first() {
        Some(5) => assert!(answer.is_empty() || answer.first() == Some(&5), "{text}"),
        _ => assert!(answer.is_empty() || text.starts_with("HTTP/1."), "{text}"),
    }
}

/// One connection, to its end, and what the client heard.
async fn said(gate: &Arc<Gate>, data: &[u8]) -> Vec<u8> {
    let places = Arc::new(Semaphore::new(1));
    let Ok(place) = places.clone().acquire_owned().await else { return Vec::new() };
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut heard = Vec::new();
    // The buffer takes every input whole.
    if client.write_all(data).await.is_err() || client.shutdown().await.is_err() {
        return heard;
    }
    match data.first() {
        Some(5) => socks::serve(gate.clone(), Box::new(server), Arc::new(place)).await,
        _ => http::serve(gate.clone(), server, None, Arc::new(place)).await,
    }
    // A tunnel goes on after its request was served.
    let waited = tokio::time::timeout(Duration::from_secs(5), places.acquire()).await;
    assert!(waited.is_ok(), "a connection whose client has gone does not end");
    let read = client.read_to_end(&mut heard).await;
    assert!(read.is_ok());
    heard
}

/// Two hosts by rules; both lead to loopback.
fn gate() -> Option<Arc<Gate>> {
    let entry = |name: &str, methods: &[&str]| HostEntry {
        name: name.to_owned(),
        ports: vec![1],
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        ..HostEntry::default()
    };
    let host = vec![entry("a.test", &["GET"]), entry("127.0.0.1", &[])];
    let allow = Allowlist::compile(&Egress { host, presets: Vec::new() }).ok()?;
    let log = Log::open(Path::new("/dev/null"), Arc::new(Still)).ok()?;
    Some(Gate::new(allow, [].into(), None, log, Box::new(Nobody)))
}

/// Knows the one name that a rule allows.
struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        assert_eq!(name, "a.test", "a name is looked up that no rule allows");
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
    fn is_own(&self, _address: IpAddr) -> bool {
        false
    }
}

/// A clock that stands.
struct Still;

impl Clock for Still {
    fn now(&self) -> Stamp {
        Stamp { wall_ms: 0, mono_ms: 0 }
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let hosts: Vec<&[u8]> = include_str!("../tests/seeds/hosts.txt").lines().map(str::as_bytes).collect();
    tinkerbell_testkit::hammer::hammer(&hosts, 20_000, host);
    let greeting = hello::tests::greeting(&["a.test"], false, 99);
    let doors: [&[u8]; 5] = [
        include_bytes!("../tests/seeds/door/absolute"),
        include_bytes!("../tests/seeds/door/connect"),
        include_bytes!("../tests/seeds/door/socks-name"),
        include_bytes!("../tests/seeds/door/socks-address"),
        &greeting,
    ];
    tinkerbell_testkit::hammer::hammer(&doors, 500, door);
}
