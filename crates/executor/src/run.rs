//! A run's directory seen from the daemon: how it stands, and what to do about it.
//!
//! It gathers the evidence for the table in `verdict`. The lock tells whether a keeper lives; files
//! tell the rest. Invariant: a run whose command may have begun is never called "never ran".

use crate::error::Error;
use crate::format::{Lock, Lost, Shown, Spent, Started, Trailer, VERSION, Versioned};
use crate::process::{boot_id, is_alive, kill_cgroup, kill_until_gone, marked, remove_groups, signal};
use crate::verdict::{Evidence, Verdict};
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::port::{Ended, Used};
use tinkerbell_core::tool::Traffic;
use tinkerbell_core::words::Seq;

/// Longest time that ending a lost run's processes may take.
const KILL: Duration = Duration::from_secs(5);
/// Effects whose place in the output is remembered: only the newest can be done again.
const SHOWN: usize = 16;

/// Before anything was shown.
const NOTHING_SHOWN: Shown = Shown { version: VERSION, ends: BTreeMap::new(), connections: BTreeMap::new() };

/// A run's directory.
#[derive(Debug, Clone)]
pub struct Run {
    /// Name of the run, and of its directory.
    pub name: String,
    /// The directory.
    pub dir: PathBuf,
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is no directory.
    Absent,
    /// There is one, and the command was never begun.
    NeverRan,
    /// Its keeper lives.
    Running,
    /// Its keeper wrote down the end.
    Ended(Box<Trailer>),
    /// Its keeper is gone without a word.
    Lost,
}

impl Standing {
    /// The row of the table that it is.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Absent => Verdict::Absent,
            Self::NeverRan => Verdict::NeverRan,
            Self::Running => Verdict::Running,
            Self::Ended(_) => Verdict::Ended,
            Self::Lost => Verdict::Lost,
        }
    }
}

impl Run {
    /// The run of this name.
    #[must_use]
    pub fn new(runs_dir: &Path, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { dir: runs_dir.join(&name), name }
    }

    /// Looks, and changes nothing.
    ///
    /// # Errors
    /// When a file exists and can not be read, or is of a newer version.
    pub fn look(&self) -> Result<Standing, Error> {
        let mut seen = Evidence { directory: self.dir.is_dir(), ..Evidence::default() };
        let mut trailer = None;
        if seen.directory {
            seen.held = self.is_held()?;
            trailer = self.read::<Trailer>("trailer")?;
            seen.trailer = trailer.is_some();
        }
        if seen.directory && !seen.trailer && !seen.held {
            seen.begun = self.dir.join("lost").exists() || self.started()?.is_some();
            seen.other_boot = self.read::<Lock>("lock").ok().flatten().is_some_and(|lock| lock.boot_id != boot_id());
        }
        Ok(match Verdict::of(seen) {
            Verdict::Absent => Standing::Absent,
            Verdict::NeverRan => Standing::NeverRan,
            Verdict::Running => Standing::Running,
            Verdict::Ended => Standing::Ended(Box::new(trailer.unwrap_or_default())),
            Verdict::Lost => Standing::Lost,
        })
    }

    /// Looks, and ends what a lost keeper left running; blocks for at most some seconds.
    ///
    /// # Errors
    /// As [`Self::look`]; also when processes of a lost run can not be ended.
    pub fn settle(&self) -> Result<Standing, Error> {
        let standing = self.look()?;
        if standing == Standing::Lost && !self.dir.join("lost").exists() {
            self.end_processes()?;
            if let Some(layer) = self.started()?.and_then(|started| started.layer) {
                crate::layer::close(&layer)?;
            }
            self.mark_lost("its keeper is gone")?;
        }
        Ok(standing)
    }

    /// Writes the verdict down, so that it is given once and for all.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn mark_lost(&self, why: &str) -> Result<(), Error> {
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.dir)?;
            let lost = Lost { version: VERSION, why: why.to_owned() };
            std::fs::write(self.dir.join("lost"), serde_json::to_vec(&lost)?)
        };
        write().map_err(Error::files(self.dir.join("lost")))
    }

    /// Kills every process of the run, its keeper included: by control group, by PID namespace, by
    /// the mark in the environment; whatever this host gives.
    ///
    /// # Errors
    /// When something survives.
    pub fn end_processes(&self) -> Result<(), Error> {
        let mut groups = Vec::new();
        // A keeper that has not begun its command is named by its lock alone.
        if let Some(lock) =
            self.read::<Lock>("lock").ok().flatten().filter(|lock| lock.boot_id == boot_id() && self.is_held().unwrap_or(true))
        {
            kill_until_gone(KILL, || Some(lock.keeper).filter(|keeper| is_alive(*keeper)).into_iter().collect());
        }
        if let Some(started) = self.started().ok().flatten().filter(|started| started.boot_id == boot_id()) {
            let stages = [started.keeper, started.init, started.cell];
            for process in stages {
                // What is gone needs no signal; what may not be signalled is found alive below.
                signal(process, Signal::KILL).ok();
            }
            if let Some(cgroup) = &started.cgroup {
                let _is_gone = kill_cgroup(cgroup, KILL);
            }
            kill_until_gone(KILL, || stages.into_iter().filter(|process| is_alive(*process)).collect());
            groups = started.groups;
        }
        if kill_until_gone(KILL, || marked(&self.name)) {
            // Only now they are empty, and nobody else would ever remove them.
            remove_groups(&groups);
            return Ok(());
        }
        Err(Error::Internal(format!(
            "processes of run {} survive SIGKILL; look for `TINKERBELL_RUN={}` in /proc/*/environ",
            self.name, self.name
        )))
    }

    /// Takes a start back whose command has not begun: a keeper that is still on its way finds no
    /// directory and leaves. `false` when a keeper is there already.
    ///
    /// # Errors
    /// When the directory can not be removed.
    pub fn withdraw(&self) -> Result<bool, Error> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::files(&path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(Error::files(path)(error.into())),
        }
        if self.dir.join("started").exists() {
            return Ok(false);
        }
        crate::remove::tree(&self.dir).map_err(Error::files(&self.dir)).map(|()| true)
    }

    /// Where the output ends that effects before `seq` have shown.
    ///
    /// # Errors
    /// When the note exists and can not be read.
    pub fn shown(&self, seq: Seq) -> Result<u64, Error> {
        let shown = self.read::<Shown>("shown")?;
        Ok(shown.and_then(|shown| shown.ends.range(..seq).next_back().map(|(_, end)| *end)).unwrap_or(0))
    }

    /// Notes where the output ends that the effect `seq` shows.
    ///
    /// # Errors
    /// When the note can not be written.
    pub fn note_shown(&self, seq: Seq, end: u64) -> Result<(), Error> {
        let mut shown = self.read("shown")?.unwrap_or(NOTHING_SHOWN);
        remember(&mut shown.ends, seq, end);
        self.write_shown(&shown)
    }

    /// The network, and the connections that effects before `seq` have not told.
    ///
    /// # Errors
    /// When a file of the run exists and can not be read, or the note can not be written.
    pub fn traffic(&self, seq: Seq) -> Result<Traffic, Error> {
        let network = self.started()?.map(|started| started.network).unwrap_or_default();
        let mut shown = self.read("shown")?.unwrap_or(NOTHING_SHOWN);
        let from = shown.connections.range(..seq).next_back().map_or(0, |(_, end)| *end);
        let (connections, end) = crate::traffic::read(&self.dir, from)?;
        if end > from {
            remember(&mut shown.connections, seq, end);
            self.write_shown(&shown)?;
        }
        Ok(Traffic { network, connections })
    }

    fn write_shown(&self, shown: &Shown) -> Result<(), Error> {
        let path = self.dir.join("shown");
        let write = || -> std::io::Result<()> {
            let temporary = self.dir.join("shown.new");
            std::fs::write(&temporary, serde_json::to_vec(shown)?)?;
            std::fs::rename(temporary, &path)
        };
        write().map_err(Error::files(&path))
    }

    /// What the keeper published when it opened the gate.
    ///
    /// # Errors
    /// When it exists and can not be read.
    pub fn started(&self) -> Result<Option<Started>, Error> {
        self.read("started")
    }

    /// Whether a keeper holds the lock.
    fn is_held(&self) -> Result<bool, Error> {
        let path = self.dir.join("lock");
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::files(&path))?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(Error::files(path)(error.into())),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.dir.join(name);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::files(&path))?,
        };
        if bytes.is_empty() {
            // A power cut can leave a name without its content.
            return Ok(None);
        }
        let version: Versioned = serde_json::from_slice(&bytes).map_err(|e| Error::files(&path)(e.into()))?;
        if version.version > VERSION {
            let why = format!("version {} is newer than this program; use the newer one", version.version);
            return Err(Error::files(&path)(std::io::Error::other(why)));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::files(&path)(e.into()))
    }
}

/// Notes where an effect ended; only the newest can be done again.
fn remember(ends: &mut BTreeMap<Seq, u64>, seq: Seq, end: u64) {
    ends.insert(seq, end);
    while ends.len() > SHOWN {
        ends.pop_first();
    }
}

/// What a command used; trailers of earlier releases know the main process alone.
fn used(trailer: &Trailer) -> Used {
    let usage = trailer.rusage;
    let cpu_ms = usage.user_us.saturating_add(usage.system_us) / 1_000;
    match trailer.spent {
        Some(Spent { cpu_ms, memory_bytes, processes, disk_bytes, .. }) => Used { cpu_ms, memory_bytes, processes, disk_bytes },
        None => Used { cpu_ms, memory_bytes: usage.max_rss_kib << 10, ..Used::default() },
    }
}

/// The port's form of a trailer.
#[must_use]
pub fn ended(trailer: &Trailer) -> Ended {
    Ended {
        code: trailer.status,
        signal: trailer.signal,
        wall_ms: trailer.wall_ms,
        output_bytes: trailer.bytes,
        dropped_bytes: trailer.dropped,
        cause: trailer.cause.clone(),
        why: trailer.why.clone(),
        used: used(trailer),
    }
}

#[cfg(test)]
mod tests;
