//! The daemon's own watch over the mark, in a thread that needs neither runtime nor engine.
//!
//! So a mark that somebody only `touch`es works as well, and so does one in a daemon whose engine is
//! stuck. Invariant: a daemon that has not stood still within [`STUCK`] of seeing the mark is dead.

use super::end::end_courier;
use super::{LOOK, fault, mark, obeying};
use crate::wire::House;
use rustix::process::{Signal, getpid, kill_process};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tinkerbell_executor::halt::{end_all, stands};
use tinkerbell_scheduler::Engine;
use tokio_util::sync::CancellationToken;

/// An engine that does not stand still within this time is stuck.
const STUCK: Duration = Duration::from_secs(2);
/// How long a client is kept waiting for tasks to stop.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest time for the commands of one halt.
const COMMANDS: Duration = Duration::from_secs(5);

/// How the daemon stands to the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obeyed {
    /// By whom, since when and why all effects are halted, if they are.
    pub text: Option<String>,
    /// Tasks that still work all the same.
    pub working: usize,
}

/// Looks at the mark now, and obeys it.
pub async fn obey(house: &House) -> Obeyed {
    match fault(&house.data) {
        Some(fault) => Obeyed { text: Some(fault.message), working: house.engine.halt(PATIENCE).await },
        None => {
            house.engine.lift().await;
            Obeyed { text: None, working: 0 }
        }
    }
}

/// Begins the watch; it ends with `stop`. Must be called inside a runtime.
///
/// # Errors
/// When no thread can be started.
pub fn guard(house: &Arc<House>, stop: CancellationToken) -> std::io::Result<()> {
    let watch = Watch { data: house.data.clone(), engine: house.engine.clone(), runtime: tokio::runtime::Handle::current() };
    let builder = std::thread::Builder::new().name("halt".to_owned());
    builder.spawn(move || watch.keep(&stop)).map(drop)
}

struct Watch {
    data: PathBuf,
    engine: Engine,
    runtime: tokio::runtime::Handle,
}

impl Watch {
    fn keep(&self, stop: &CancellationToken) {
        let mark = mark(&self.data);
        let mut was_halted = false;
        while !stop.is_cancelled() {
            let is_halted = stands(&mark);
            if is_halted && !was_halted {
                tracing::warn!("all effects are halted");
                self.halt();
            // The engine as well: it may have been told of a mark that came and went between two looks.
            } else if !is_halted && (was_halted || self.engine.is_halted()) {
                tracing::warn!("the halt was lifted");
                let engine = self.engine.clone();
                // Not waited for: the next look is due.
                drop(self.runtime.spawn(async move { engine.lift().await }));
            }
            was_halted = is_halted;
            std::thread::sleep(LOOK);
        }
    }

    fn halt(&self) {
        let Some(held) = obeying(&self.data) else { return };
        let (told, wait) = mpsc::sync_channel(1);
        let engine = self.engine.clone();
        drop(self.runtime.spawn(async move {
            let working = engine.halt(STUCK).await;
            // Nobody waits any more: then this process is about to die.
            let _late = told.send(working).is_err();
        }));
        end_courier(&self.data);
        let ended = end_all(&self.data.join("runs"), COMMANDS);
        drop(held);
        tracing::warn!(runs = ended.runs, processes = ended.processes, left = ended.left.len(), "commands were ended");
        if !matches!(wait.recv_timeout(STUCK), Ok(0)) && stands(&mark(&self.data)) {
            tracing::error!("the engine does not stand still; this daemon ends itself, nothing is lost");
            // As hard as it gets, because whatever is stuck must not act again.
            let _never_comes_back = kill_process(getpid(), Signal::KILL).is_err();
        }
    }
}
