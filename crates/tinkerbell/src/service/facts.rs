//! What the daemon tells of itself, and what clients may ask of its process.
//!
//! Invariant: an answer here costs no more than a few small files, so that a status can be asked for
//! at any time.

use crate::clock::SystemClock;
use crate::halt;
use crate::handover::Upgrades;
use crate::wire::House;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::{Arc, OnceLock};
use tinkerbell_api::Daemon;
use tinkerbell_api::server::DaemonStatus;
use tinkerbell_api::wire::{HaltView, UpgradeRequest, UpgradeView};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{JournalState, Room, Sandbox as _};
use tokio_util::sync::CancellationToken;

/// What the facts are gathered from.
pub struct FactsOf {
    /// The house.
    pub house: Arc<House>,
    /// Ends the daemon.
    pub stop: CancellationToken,
    /// The upgrades.
    pub upgrades: Arc<Upgrades>,
    /// The data directory.
    pub data: String,
}

/// The daemon's process, as the doors see it.
pub struct Facts {
    of: FactsOf,
    since: u64,
    level: OnceLock<String>,
}

impl Facts {
    /// From now on.
    #[must_use]
    pub fn new(of: FactsOf) -> Arc<Self> {
        Arc::new(Self { of, since: SystemClock.now().mono_ms, level: OnceLock::new() })
    }

    /// Learns the sandbox level, which takes a self-test.
    pub async fn learn_level(self: Arc<Self>) {
        // The self-test runs commands, too.
        while halt::fault(&self.of.house.data).is_some() {
            tokio::time::sleep(halt::LOOK).await;
        }
        match self.of.house.sandbox.level().await {
            Ok(level) => {
                // Learnt once; a later answer would be the same.
                let _known = self.level.set(level.name().to_owned());
            }
            Err(fault) => tracing::warn!(%fault, "no sandbox level is complete on this host"),
        }
    }

    /// One line for the service manager.
    #[must_use]
    pub fn line(&self) -> String {
        let engine = &self.of.house.engine;
        let state = self.of.house.journal.state();
        format!("{} open tasks, {} model calls, newest record {}", engine.open_tasks(), engine.asking(), state.tip)
    }
}

impl Daemon for Facts {
    fn status(&self) -> DaemonStatus {
        let house = &self.of.house;
        let journal = house.journal.state();
        DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: SystemClock.now().mono_ms.saturating_sub(self.since),
            lsn: journal.tip.0,
            states: house.engine.states(),
            lag: house.engine.lag(),
            epoch: journal.epoch,
            journal_bytes: journal.bytes,
            room: room(&journal.room),
            keepers: house.sandbox.alive(&house.engine.open_runs()) as u64,
            rss_bytes: rss_bytes(),
            notices: notices(house, &journal),
            pending: house.live.pending(),
            upgrade: self.of.upgrades.view(),
            level: self.level.get().cloned(),
            data_dir: self.of.data.clone(),
            set: house.live.sources().set.clone(),
        }
    }

    fn ready(&self) -> Result<(), Fault> {
        self.of.house.engine.ready()?;
        let short = |why: &str| {
            Fault::new("TB-DAEMON-013", exit::UNAVAILABLE, format!("no new work is taken: {why}"))
                .hint("free space on the disk of the data directory: df -h")
                .transient()
        };
        match self.of.house.journal.state().room {
            Room::Ample => Ok(()),
            Room::Reserve => Err(short("the disk is full, and the journal lives on its reserve")),
            Room::ReadOnly(why) => Err(short(&format!("the journal can not be written: {why}"))),
        }
    }

    fn alive(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async move { self.of.house.engine.beat().await.map(drop) }.boxed()
    }

    fn stop(&self) {
        self.of.stop.cancel();
    }

    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<'_, Result<UpgradeView, Fault>> {
        // Of its own: a client that goes away must not leave half of it.
        let begun = tokio::spawn(Arc::clone(&self.of.upgrades).begin(self.of.house.engine.clone(), request));
        let ended = |error| Fault::new("TB-BUG-001", exit::INTERNAL, format!("the upgrade ended early: {error}"));
        async move { begun.await.map_err(ended)? }.boxed()
    }

    fn halt(&self) -> BoxFuture<'_, HaltView> {
        async move {
            let obeyed = halt::obey(&self.of.house).await;
            HaltView { halted: obeyed.text.is_some(), text: obeyed.text.unwrap_or_default(), working: obeyed.working as u64 }
        }
        .boxed()
    }

    fn reload(&self) -> Result<String, Fault> {
        self.of.house.reload()
    }

    fn environment(&self, values: Vec<tinkerbell_secret::Named>) {
        self.of.house.environment(values);
    }
}

fn room(room: &Room) -> String {
    match room {
        Room::Ample => "ample".to_owned(),
        Room::Reserve => "reserve".to_owned(),
        Room::ReadOnly(why) => format!("read-only: {why}"),
    }
}

/// What a person should know.
fn notices(house: &House, journal: &JournalState) -> Vec<String> {
    let mut notices: Vec<String> = halt::fault(&house.data).map(|fault| format!("halted: {}", fault.message)).into_iter().collect();
    notices.extend(house.live.notices());
    notices.extend(house.policy.notices());
    match &journal.room {
        Room::Ample => {}
        Room::Reserve => notices.push("disk.full: only what is under way is finished, out of the reserve".to_owned()),
        Room::ReadOnly(why) => notices.push(format!("journal.read-only: {why}")),
    }
    notices.extend(journal.damage.iter().map(|damage| format!("journal.damage: {damage}")));
    notices
}

/// Memory of this process that lies in RAM; 0 when the kernel does not say.
fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages: Option<u64> = pages.and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}
