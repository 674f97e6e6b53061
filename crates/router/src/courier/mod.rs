//! The courier: the process that speaks to providers and outlives the daemon.
//!
//! The daemon hands it calls, keys included, over a socket; it spools each answer under the call's
//! id, and whichever daemon lives then fetches it. It decides nothing: models, budgets and what an
//! answer means are the daemon's business. Invariant: a call whose end is on disk is never made
//! again, and no key is ever written down.

pub(crate) mod convert;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod link;
mod serve;
mod socket;
mod spool;
mod wire;

pub(crate) use link::{Carried, Link};
pub use serve::serve;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a courier says on its standard output once it serves.
pub const READY: &str = "ready";
/// What it says when another one serves the home.
pub const TAKEN: &str = "taken";

/// A home as its courier knows it.
#[derive(Debug, Clone)]
pub struct CourierHome {
    /// The data directory; the courier's own things lie below it.
    pub data: PathBuf,
    /// Where what was found out about servers is kept.
    pub cache: Option<PathBuf>,
    /// The release of the running binary.
    pub release: String,
}

impl CourierHome {
    fn spools(&self) -> spool::Spools {
        spool::Spools::new(self.data.join("calls"))
    }
}

/// How a daemon starts its courier.
#[derive(Debug, Clone)]
pub struct CourierOptions {
    /// The home.
    pub home: CourierHome,
    /// Program and arguments of the courier's process.
    pub command: Vec<OsString>,
    /// Its whole environment; no key is in it.
    pub env: Vec<(String, String)>,
    /// Where its words go.
    pub log: PathBuf,
    /// What no spool may hold; every order tells what is known then.
    pub known: std::sync::Arc<tinkerbell_secret::Known>,
}

/// How a home's courier stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CourierState {
    /// It lives, as this process.
    Lives(u32),
    /// The next call starts it.
    Rests,
    /// The daemon could not start it, and speaks to providers itself; why.
    Refused(String),
}

/// How the courier of a data directory stands; asks nobody.
#[must_use]
pub fn courier_state(data: &Path) -> CourierState {
    let place = socket::Place::new(data);
    if let Some(pid) = place.holder() {
        return CourierState::Lives(pid);
    }
    std::fs::read_to_string(place.refused()).map_or(CourierState::Rests, |why| CourierState::Refused(why.trim().to_owned()))
}
