//! Ending all that runs of one home, from outside and without anybody's help.
//!
//! A daemon that answers in time is left alive, because it holds keys in memory and has stopped its
//! tasks by then. One that does not is killed: it loses nothing by that, and a stopped one would act
//! again as soon as somebody continued it. Invariant: a process is signalled only through a descriptor
//! that was taken while it held the lock of this home.

use super::LOOK;
use crate::clock::SystemClock;
use crate::places::Places;
use crate::service::holder;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_executor::halt;
use tinkerbell_router::courier::{CourierState, courier_state};

/// A daemon that has not stood still by then is killed.
const ANSWER: Duration = Duration::from_millis(300);
/// Longest time that ending the commands may take.
const COMMANDS: Duration = Duration::from_secs(5);
/// Longest time until a killed process has let go of its lock.
const GONE: Duration = Duration::from_secs(2);

/// How the daemon was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// None lives.
    None,
    /// It lives and stands still.
    Still,
    /// It did not stand still in time and was killed.
    Killed(u32),
}

/// What was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Runs whose processes were killed.
    pub runs: usize,
    /// How many processes those were.
    pub processes: usize,
    /// Whether a courier was killed.
    pub courier: bool,
    /// The daemon.
    pub daemon: Met,
    /// What survived.
    pub left: Vec<String>,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
}

/// Ends commands and courier, and makes the daemon stand still or kills it. With `kill` it is killed in
/// any case. The mark must stand already, unless it could not be written.
pub async fn end(places: &Places, kill: bool) -> Ended {
    let began_ms = SystemClock.now().mono_ms;
    let runs = places.data.join("runs");
    let first = {
        let runs = runs.clone();
        tokio::task::spawn_blocking(move || halt::end_all(&runs, COMMANDS))
    };
    let mut courier = end_courier(&places.data);
    let is_still = !kill && matches!(tokio::time::timeout(ANSWER, stands_still(places)).await, Ok(true));
    let daemon = match holder(&places.data) {
        None => Met::None,
        Some(_) if is_still => Met::Still,
        Some(pid) => end_daemon(&places.data).await.map_or(Met::None, |()| Met::Killed(pid)),
    };
    let first = first.await.unwrap_or_default();
    // Once more: what a daemon began while it was being asked, or just before it was killed.
    courier |= end_courier(&places.data);
    let last = tokio::task::spawn_blocking(move || halt::end_all(&runs, COMMANDS)).await.unwrap_or_default();
    let mut left = last.left;
    left.extend(holder(&places.data).filter(|_| daemon != Met::Still).map(|pid| format!("daemon {pid}")));
    left.extend(lives(&places.data).map(|pid| format!("courier {pid}")));
    Ended {
        runs: first.runs.max(last.runs),
        processes: first.processes.saturating_add(last.processes),
        courier,
        daemon,
        left,
        took_ms: SystemClock.now().mono_ms.saturating_sub(began_ms),
    }
}

async fn stands_still(places: &Places) -> bool {
    let Ok(client) = Client::connect(places.socket()).await else { return false };
    client.halt().await.is_ok_and(|view| view.halted && view.working == 0)
}

/// Kills whoever holds the data directory; `None` when nobody does any more. A handover is two
/// processes: the other one may take the place, and is killed in its turn.
async fn end_daemon(data: &Path) -> Option<()> {
    holder(data)?;
    let end_ms = SystemClock.now().mono_ms.saturating_add(millis(GONE));
    while holder(data).is_some() && SystemClock.now().mono_ms < end_ms {
        kill_holder(|| holder(data));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Some(())
}

/// Kills the process that speaks to providers; says whether one lived.
pub fn end_courier(data: &Path) -> bool {
    let lived = lives(data).is_some();
    let end_ms = SystemClock.now().mono_ms.saturating_add(millis(LOOK));
    while lives(data).is_some() && SystemClock.now().mono_ms < end_ms {
        kill_holder(|| lives(data));
        std::thread::sleep(Duration::from_millis(2));
    }
    lived
}

fn lives(data: &Path) -> Option<u32> {
    match courier_state(data) {
        CourierState::Lives(pid) => Some(pid),
        _ => None,
    }
}

/// Kills who holds a lock, by a descriptor: a number alone may be another process's by now.
fn kill_holder(find: impl Fn() -> Option<u32>) {
    let Some(number) = find() else { return };
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if find() == Some(number) {
        // Gone in between is what is wanted; the caller looks again.
        let _gone_already = pidfd_send_signal(&fd, Signal::KILL).is_err();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
