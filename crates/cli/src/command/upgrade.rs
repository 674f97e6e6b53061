//! `daemon upgrade`: asks for it, and follows it through the change of hands.
//!
//! The daemon does the work; this only asks how it stands. Invariant: what is printed last is what the
//! process that serves now says of itself.

use super::{Desk, LOOK, local};
use std::path::PathBuf;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::wire::{UpgradeRequest, UpgradeView};
use tinkerbell_core::code::{Fault, exit};

/// Beyond draining and health: looking at a large journal, and the way back.
const MORE: Duration = Duration::from_secs(120);

/// What is wished for.
pub struct Wish {
    /// The new binary; `None` for this very program.
    pub binary: Option<PathBuf>,
    /// For how long model calls may end.
    pub drain: Duration,
    /// Within what the new binary must serve.
    pub health: Duration,
    /// Only look.
    pub dry_run: bool,
}

/// Asks for the upgrade and follows it to its end.
pub async fn upgrade(desk: &Desk, wish: Wish) -> Result<u8, Fault> {
    let surroundings = desk.house.surroundings();
    let binary = wish.binary.unwrap_or(surroundings.exe);
    let binary = if binary.is_absolute() { binary } else { surroundings.cwd.unwrap_or_default().join(binary) };
    let client = desk.house.connect(false).await?;
    let request = UpgradeRequest {
        binary: binary.display().to_string(),
        drain_ms: millis(wish.drain),
        health_ms: millis(wish.health),
        dry_run: wish.dry_run,
    };
    let looked = client.upgrade(&request).await?;
    desk.out.talk(&format!("{} (release {}) can read all {} records", looked.binary, looked.version, looked.records));
    if wish.dry_run {
        return Ok(exit::DONE);
    }
    let end = wish.drain.saturating_add(wish.health).saturating_add(MORE);
    let view = match tokio::time::timeout(end, follow(desk, &client, &looked)).await {
        Ok(view) => view?,
        Err(_) => return Err(local("the upgrade did not come to an end in time; tinkerbell daemon status shows how it stands")),
    };
    if view.state != "done" {
        return Err(failed(&view));
    }
    let now = client.daemon().await?;
    desk.out.talk(&format!("process {} gave its place to process {}; {}", view.from_pid, now.pid, line(&view)));
    Ok(exit::DONE)
}

/// Asks until the upgrade has come to an end.
async fn follow(desk: &Desk, client: &Client, begun: &UpgradeView) -> Result<UpgradeView, Fault> {
    let mut told = String::new();
    loop {
        // A process that dies in between takes the answer with it; the next one has another.
        match client.daemon().await {
            Ok(now) => {
                if let Some(view) = now.upgrade.filter(|view| view.from_pid == begun.from_pid && view.binary == begun.binary) {
                    if matches!(view.state.as_str(), "done" | "refused" | "taken-back") {
                        return Ok(view);
                    }
                    if view.state != told {
                        desk.out.talk(&line(&view));
                        told = view.state;
                    }
                }
            }
            Err(fault) if fault.retryable => {}
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn failed(view: &UpgradeView) -> Fault {
    let text = match view.state.as_str() {
        "taken-back" => format!("the new binary did not serve, and the old one took over again: {}", view.why),
        _ => format!("the upgrade was refused, and nothing was touched: {}", view.why),
    };
    let code = if view.state == "taken-back" { "TB-DAEMON-014" } else { "TB-DAEMON-011" };
    Fault::new(code, exit::FAILED, text).hint("tinkerbell daemon logs   has what the new binary said")
}

/// How an upgrade stands, for people.
pub fn line(view: &UpgradeView) -> String {
    let after = |text: String| if view.why.is_empty() { text } else { format!("{text}: {}", view.why) };
    match view.state.as_str() {
        "draining" => "upgrade: waiting for model calls to end".to_owned(),
        "handing-over" => "upgrade: handing over".to_owned(),
        "done" => format!(
            "upgraded from {} in {} ms; commands: {} run on, {} have ended, {} unknown; model calls carried on: {}",
            view.from_version, view.gap_ms, view.adopted, view.finished, view.indeterminate, view.carried
        ),
        "taken-back" => after(format!("an upgrade to {} was taken back", view.binary)),
        "refused" => after(format!("an upgrade to {} was refused", view.binary)),
        _ => format!("upgrade: looking at {}", view.binary),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
