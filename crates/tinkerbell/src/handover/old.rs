//! The old process: it lets a successor look, lets model calls end, and then gives its place away.
//!
//! Until the last step it works on as ever. Invariant: whatever goes wrong before it closes the
//! journal leaves it serving, and ends the successor.

use super::new::{Place, tell};
use super::wire::{Go, Parcel, VERSION, Word};
use super::{Start, parcel, refused, step};
use crate::environment::Environment;
use rustix::process::{Pid, Signal};
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_api::wire::{UpgradeRequest, UpgradeView};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_scheduler::Engine;
use tinkerbell_secret::{Named, Secret};
use tokio::sync::mpsc;

/// A successor may look at the journal for so many times as long as it may take to serve.
const LOOK_TIMES: u32 = 6;

/// A successor that has looked and waits; dropping it ends it.
struct Successor {
    child: Child,
    link: UnixStream,
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().is_ok();
        let _reaped = self.child.wait().is_ok();
    }
}

/// What the daemon needs for its last step.
pub struct Closing {
    /// The parcel as the successor has it.
    pub parcel: Parcel,
    /// How long the successor may take.
    pub health_ms: u64,
    /// Model calls that the courier carries on.
    pub carried: u64,
    successor: Successor,
}

impl Closing {
    /// The successor's process and the link to it, which nobody ends any more.
    pub fn release(self) -> (u32, std::io::Result<UnixStream>) {
        let link = self.successor.link.try_clone();
        let pid = self.successor.child.id();
        // Its end is the guard's matter from here on.
        std::mem::forget(self.successor);
        (pid, link)
    }
}

/// The upgrades of this process: at most one at a time.
pub struct Upgrades {
    start: Start,
    env: Environment,
    place: Place,
    data_dir: String,
    view: Mutex<Option<UpgradeView>>,
    /// The successor that waits; 0 when none does.
    waiting: AtomicU32,
    ready: mpsc::Sender<Closing>,
}

impl Upgrades {
    /// Upgrades that give this place away; what is ready for the last step arrives in the channel.
    pub fn new(start: Start, env: Environment, place: Place, data_dir: String) -> (Arc<Self>, mpsc::Receiver<Closing>) {
        let (ready, closing) = mpsc::channel(1);
        (Arc::new(Self { start, env, place, data_dir, view: Mutex::new(None), waiting: AtomicU32::new(0), ready }), closing)
    }

    /// The place, to be passed on.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// How the newest upgrade stands.
    pub fn view(&self) -> Option<UpgradeView> {
        self.lock().clone()
    }

    /// Says how the one stands that this process came from.
    pub fn came_from(&self, view: UpgradeView) {
        *self.lock() = Some(view);
    }

    /// Changes what the newest upgrade says of itself.
    pub fn note(&self, change: impl FnOnce(&mut UpgradeView)) {
        if let Some(view) = self.lock().as_mut() {
            change(view);
        }
    }

    /// Ends a successor that waits: nobody will give it its turn.
    pub fn abandon(&self) {
        let waiting = self.waiting.swap(0, Ordering::Relaxed);
        let pid = i32::try_from(waiting).ok().and_then(Pid::from_raw);
        // It may have ended by itself.
        let _ended = pid.is_none_or(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, Option<UpgradeView>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a successor look; the rest goes on by itself.
    ///
    /// # Errors
    /// `TB-DAEMON-011` with the reason, `TB-DAEMON-012` when one is under way.
    pub async fn begin(self: Arc<Self>, engine: Engine, request: UpgradeRequest) -> Result<UpgradeView, Fault> {
        let states = engine.state_versions(tinkerbell_agent::format::version_of).await?;
        self.claim(&request)?;
        let parcel = Parcel {
            v: VERSION,
            data_dir: self.data_dir.clone(),
            from_pid: std::process::id(),
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            binary: request.binary.clone(),
            states: states.into_iter().collect(),
            dry_run: request.dry_run,
            ..Parcel::default()
        };
        let (upgrades, sent) = (Arc::clone(&self), parcel.clone());
        let look_wait = Duration::from_millis(request.health_ms).saturating_mul(LOOK_TIMES);
        let looked = tokio::task::spawn_blocking(move || upgrades.spawn(&sent, look_wait)).await;
        let looked = looked.unwrap_or_else(|error| Err(format!("looking failed: {error}")));
        let (successor, version, records) = match looked {
            Ok(looked) => looked,
            Err(why) => {
                self.fail(&why);
                return Err(refused(&why));
            }
        };
        tracing::info!(binary = request.binary, version, records, "the new binary can read the journal");
        self.note(|view| (view.version, view.records) = (version, records));
        if request.dry_run {
            self.note(|view| view.state = "looked".to_owned());
            drop(successor);
            return Ok(self.view().unwrap_or_default());
        }
        self.waiting.store(successor.child.id(), Ordering::Relaxed);
        self.note(|view| view.state = "draining".to_owned());
        let view = self.view().unwrap_or_default();
        tokio::spawn(async move { self.drain(engine, request, parcel, successor).await });
        Ok(view)
    }

    fn claim(&self, request: &UpgradeRequest) -> Result<(), Fault> {
        let mut view = self.lock();
        if view.as_ref().is_some_and(|view| matches!(view.state.as_str(), "looking" | "draining" | "handing-over")) {
            return Err(Fault::new("TB-DAEMON-012", exit::UNAVAILABLE, "another upgrade is under way")
                .hint("tinkerbell daemon status   shows how it stands")
                .transient());
        }
        fit(Path::new(&request.binary)).map_err(|why| refused(&why))?;
        *view = Some(UpgradeView {
            state: "looking".to_owned(),
            from_pid: std::process::id(),
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            binary: request.binary.clone(),
            ..UpgradeView::default()
        });
        Ok(())
    }

    fn fail(&self, why: &str) {
        tracing::warn!(why, "the upgrade was refused");
        self.note(|view| (view.state, view.why) = ("refused".to_owned(), why.to_owned()));
    }

    /// Starts the binary and hears what it saw. Blocks.
    fn spawn(&self, parcel: &Parcel, look_wait: Duration) -> Result<(Successor, String, u64), String> {
        let unfit = |error: std::io::Error| format!("{} can not be run: {error}", parcel.binary);
        let (link, theirs) = UnixStream::pair().map_err(unfit)?;
        parcel::send(&link, parcel, &[self.place.listener.as_fd(), self.place.lock.as_fd()]).map_err(unfit)?;
        let mut command = Command::new(&parcel.binary);
        command.args(self.start.words()).current_dir("/").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let successor = Successor { child: command.spawn().map_err(unfit)?, link };
        step(&self.env, "old:look");
        // The command holds the other end of the link; only without it the new one's end is heard.
        drop(command);
        successor.link.set_read_timeout(Some(look_wait.max(Duration::from_millis(1)))).map_err(unfit)?;
        let mut line = String::new();
        let heard = BufReader::new(&successor.link).read_line(&mut line);
        match (heard, serde_json::from_str(&line)) {
            (Ok(_), Ok(Word::Looked { version, records })) => Ok((successor, version, records)),
            (Ok(_), Ok(Word::Refused { why })) => Err(why),
            // One that ends without reading what it was given resets the link.
            (Ok(0), _) => Err(format!("{} ended without a word: is it tinkerbell, and does it run?", parcel.binary)),
            (Err(error), _) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                Err(format!("{} ended without a word: is it tinkerbell, and does it run?", parcel.binary))
            }
            (Ok(_), _) => Err(format!("{} says nothing that a tinkerbell would say", parcel.binary)),
            (Err(_), _) => Err(format!("{} said nothing within {} s", parcel.binary, look_wait.as_secs())),
        }
    }

    /// Lets model calls end, then asks for the last step.
    async fn drain(self: Arc<Self>, engine: Engine, request: UpgradeRequest, parcel: Parcel, mut successor: Successor) {
        step(&self.env, "old:drain");
        let carried = engine.stand_still(Duration::from_millis(request.drain_ms)).await;
        if carried > 0 {
            tracing::info!(carried, "model calls go on in the courier");
        }
        let ended = match successor.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{} ended while model calls were waited for: {status}", request.binary)),
            Err(error) => Some(format!("{} can not be watched: {error}", request.binary)),
        };
        if let Some(why) = ended {
            self.waiting.store(0, Ordering::Relaxed);
            self.fail(&why);
            engine.go_on();
            return;
        }
        self.note(|view| (view.state, view.carried) = ("handing-over".to_owned(), carried as u64));
        let closing = Closing { parcel, health_ms: request.health_ms, carried: carried as u64, successor };
        // The daemon is stopping: then nothing is handed over, and the successor ends with it.
        let _stopping = self.ready.send(closing).await.is_err();
    }
}

/// Whether the file can be a binary at all.
fn fit(binary: &Path) -> Result<(), String> {
    let shown = binary.display();
    if !binary.is_absolute() {
        return Err(format!("`{shown}` is not an absolute path"));
    }
    let meta = std::fs::metadata(binary).map_err(|error| format!("{shown} can not be read: {error}"))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(format!("{shown} is not a file that can be run"));
    }
    Ok(())
}

/// What the guard tells the successor.
impl Go {
    /// Of an engine that has stopped, with what clients sent.
    pub fn of(env: &[Named], known: &[Named], runs: &[tinkerbell_core::words::RunId], carried: u64, closed_ms: u64) -> Self {
        let told = |of: &[Named]| of.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect();
        Self { env: told(env), known: told(known), runs: runs.iter().map(ToString::to_string).collect(), carried, closed_ms }
    }

    /// What clients sent of their environment.
    pub fn sent(&self) -> Vec<Named> {
        secrets(&self.env)
    }

    /// What was known to be secret.
    pub fn known(&self) -> Vec<Named> {
        secrets(&self.known)
    }
}

fn secrets(told: &[(String, String)]) -> Vec<Named> {
    told.iter().map(|(name, value)| (name.clone(), Secret::shared(value.clone()))).collect()
}

/// Says that we serve.
pub fn healthy(link: &UnixStream) {
    // Whoever does not hear it is gone; we serve all the same.
    let _guard_gone = tell(link, &Word::Healthy {}).is_err();
}
