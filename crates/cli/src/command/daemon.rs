//! Commands to a daemon that runs: status, reload and stop.
//!
//! Starting one is the roof's work. Invariant: none starts a daemon.

use super::{Desk, LOOK};
use crate::output::Tone;
use crate::render::lines::unasked;
use crate::units;
use std::time::Duration;
use tinkerbell_api::client::probe;
use tinkerbell_api::wire::DaemonView;
use tinkerbell_core::code::{Fault, exit};

/// Open tasks that are looked through for those that ask nobody.
const TASKS: u32 = 100;
/// A daemon that stops answers no more after this long, or something is wrong.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// `daemon status`.
pub async fn status(desk: &Desk, json: bool) -> Result<u8, Fault> {
    let client = desk.house.connect(false).await?;
    let view = client.daemon().await?;
    if json {
        desk.json(&view)?;
        return Ok(exit::DONE);
    }
    let readiness = match client.ready().await {
        Ok(()) => "ready".to_owned(),
        Err(fault) => format!("not ready: {}", crate::render::one_line(&fault.message, 200)),
    };
    lines(&view, &readiness).iter().for_each(|line| desk.out.data(line));
    // Whoever looks after a machine wants to know it, whatever else is asked.
    let open = client.tasks(true, TASKS, None).await?.tasks;
    unasked(&open).for_each(|line| desk.out.data(&desk.out.on_data(Tone::Bad, &line)));
    Ok(exit::DONE)
}

/// The status for people.
fn lines(view: &DaemonView, readiness: &str) -> Vec<String> {
    let states: Vec<String> = view.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    let lag = if view.lag == 0 { String::new() } else { format!(", {} on their way to the disk", view.lag) };
    let mut lines = vec![
        format!("daemon {} runs as process {} for {}, {readiness}", view.version, view.pid, units::brief(view.uptime_ms)),
        format!("tasks {} ({} open){states}; clients {}, commands {}", view.tasks, view.open_tasks, view.clients, view.keepers),
        format!("journal: newest record {}{lag}, {}, room {}", view.lsn, units::size(view.journal_bytes), view.room),
        format!("memory {}", units::size(view.rss_bytes)),
        format!("data {}", view.data_dir),
    ];
    lines.extend((!view.set.is_empty()).then(|| format!("started with {}", view.set.join(", "))));
    lines.extend(view.upgrade.iter().map(super::upgrade::line));
    lines.extend(view.notices.iter().map(|notice| format!("! {notice}")));
    lines
}

/// `daemon reload`.
pub async fn reload(desk: &Desk) -> Result<u8, Fault> {
    let client = desk.house.connect(false).await?;
    let said = client.reload().await?;
    desk.out.talk(&said);
    Ok(exit::DONE)
}

/// `daemon stop`: returns once it is gone.
pub async fn stop(desk: &Desk) -> Result<u8, Fault> {
    let client = match desk.house.connect(false).await {
        Ok(client) => client,
        Err(fault) if fault.code.0 == "TB-API-001" => {
            desk.out.talk("no daemon runs");
            return Ok(exit::DONE);
        }
        Err(fault) => return Err(fault),
    };
    let (open, pid) = client.daemon().await.map(|view| (view.open_tasks, view.pid)).unwrap_or_default();
    client.stop().await?;
    let gone = async {
        while probe(client.path()).await.is_ok() {
            tokio::time::sleep(LOOK).await;
        }
        // The socket goes before the lock; who returns here may start the next one at once.
        while pid != 0 && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(STOP_WAIT, gone).await.is_err() {
        return Err(
            Fault::new("TB-API-002", exit::UNAVAILABLE, "the daemon was asked to stop and still answers").hint("tinkerbell daemon logs")
        );
    }
    desk.out.talk(&match open {
        0 => "stopped".to_owned(),
        open => format!("stopped; {open} open tasks go on when a daemon runs again"),
    });
    Ok(exit::DONE)
}
