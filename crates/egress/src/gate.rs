//! The gate: rules, names to addresses, budgets and records of one run, in one place.
//!
//! Invariant: every address that is dialled came from one resolution, after which each was tested.

use crate::host::{Host, ends, special};
use crate::record::Log;
use crate::rules::{Allowlist, Reach, Refusal, Rule};
use crate::tls::Tls;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for a resolution.
const RESOLVE: Duration = Duration::from_secs(10);
/// Longest time for a connection to one address.
const DIAL: Duration = Duration::from_secs(10);
/// Addresses that are tried.
const ADDRESSES: usize = 4;

/// Names to addresses, and which of these are our own.
pub trait Resolve: Send + Sync {
    /// All addresses of a name.
    fn resolve(&self, name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;
    /// Whether an address belongs to this machine, whatever kind it is of.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// The system's resolver.
pub struct System;

impl Resolve for System {
    fn resolve(&self, name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }

    /// A socket can be bound to own addresses only. Where the kernel was told to let any be bound
    /// (`ip_nonlocal_bind`), there is no telling.
    fn is_own(&self, address: IpAddr) -> bool {
        let binds = |address: IpAddr| std::net::UdpSocket::bind((address, 0)).is_ok();
        // For documentation, so nobody's.
        let nobodys: IpAddr = if address.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
        binds(address) && !binds(nobodys)
    }
}

/// Why a command gets no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// It may not have one.
    Refused(Refusal),
    /// It may, and there is none.
    Failed(String),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Where a connection may go: judged, resolved, tested.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Rules that are for it.
    pub reach: Reach,
    /// The only addresses that may be dialled for it.
    pub addresses: Vec<SocketAddr>,
}

/// What the proxy holds for one run.
pub struct Gate {
    /// The rules.
    pub allow: Allowlist,
    /// Values of credentials.
    pub values: BTreeMap<String, String>,
    /// Reading within TLS, where a rule needs it.
    pub tls: Option<Tls>,
    /// The records.
    pub log: Arc<Log>,
    resolver: Box<dyn Resolve>,
    sent: Vec<AtomicU64>,
}

impl Gate {
    /// A gate.
    #[must_use]
    pub fn new(
        allow: Allowlist,
        values: BTreeMap<String, String>,
        tls: Option<Tls>,
        log: Arc<Log>,
        resolver: Box<dyn Resolve>,
    ) -> Arc<Self> {
        let sent = allow.rules().iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { allow, values, tls, log, resolver, sent })
    }

    /// Judges host and port, resolves once, tests every address.
    ///
    /// # Errors
    /// When it may not be reached, or has no address.
    pub async fn admit(&self, host: Host, port: u16) -> Result<Target, No> {
        let reach = self.allow.reach(&host, port)?;
        self.count_name(&host, &reach)?;
        let found = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let found = timeout(RESOLVE, self.resolver.resolve(name.clone())).await;
                found.map_err(|_| No::Failed("its name was not resolved in time".into()))?.map_err(|error| No::Failed(error.to_string()))?
            }
        };
        // One bad address condemns the name: an attacker who owns it chooses which one comes first.
        for address in &found {
            let is_own = || ends(*address).into_iter().any(|end| self.resolver.is_own(end));
            let own = || is_own().then_some("an address of this machine");
            if let Some(kind) = special(*address).or_else(own).filter(|_| !self.allow.names(*address, port)) {
                let way = format!("an operator can allow the very address with [[egress.host]] name = \"{address}\"");
                return Err(No::Refused(Refusal { why: format!("it leads to {address}, which is {kind}"), way }));
            }
        }
        let addresses: Vec<SocketAddr> = found.into_iter().take(ADDRESSES).map(|address| SocketAddr::new(address, port)).collect();
        if addresses.is_empty() {
            return Err(No::Failed("it has no address".into()));
        }
        Ok(Target { host, port, reach, addresses })
    }

    /// A name below a zone is sent to whoever answers for the zone: its bytes count as sent.
    fn count_name(&self, host: &Host, reach: &Reach) -> Result<(), Refusal> {
        let Host::Name(name) = host else { return Ok(()) };
        let rule_at = |at: &usize| self.allow.rules().get(*at);
        if !reach.rules().iter().filter_map(rule_at).all(Rule::is_zone) {
            return Ok(());
        }
        let Some(first) = reach.rules().first() else { return Ok(()) };
        if self.spend(*first, name.len() as u64) { Ok(()) } else { Err(over_budget(self.rule_id(*first))) }
    }

    /// Counts bytes that are sent by a rule; `false` when its budget is over.
    pub fn spend(&self, rule: usize, bytes: u64) -> bool {
        let (Some(sent), Some(limit)) = (self.sent.get(rule), self.allow.rules().get(rule)) else { return false };
        sent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= limit.upload_bytes
    }

    /// What may still be sent by a rule.
    pub fn left(&self, rule: usize) -> u64 {
        let (Some(sent), Some(limit)) = (self.sent.get(rule), self.allow.rules().get(rule)) else { return 0 };
        limit.upload_bytes.saturating_sub(sent.load(Ordering::Relaxed))
    }

    /// The name of a rule.
    pub fn rule_id(&self, rule: usize) -> &str {
        self.allow.rules().get(rule).map_or("", |rule| &rule.id)
    }
}

impl Target {
    /// Connects to the first of its addresses that answers.
    ///
    /// # Errors
    /// What the last one said.
    pub async fn dial(&self) -> Result<TcpStream, String> {
        let mut why = String::new();
        for address in &self.addresses {
            match timeout(DIAL, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small writes are forwarded as they come; failing only makes them slower.
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = "no answer in time".to_owned(),
            }
        }
        Err(format!("not reached: {why}"))
    }
}

/// The refusal of a run that has sent all that it may.
#[must_use]
pub fn over_budget(rule: &str) -> Refusal {
    Refusal {
        why: format!("this run has sent as much as {rule} allows"),
        way: "an operator can allow more with upload_bytes in [[egress.host]]".to_owned(),
    }
}
