//! The policy in force while the daemon runs: which files it is read from, and when again.
//!
//! Files are read again when they change, at each submission, and on SIGHUP, like the configuration.
//! Invariant: a file with a mistake changes nothing, is told of, and keeps new tasks from being taken.

use crate::config::options::Network;
use crate::config::{Config, Sources};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::code::Fault;
use tinkerbell_security::policy::{PolicyGuard, PolicyPlaces};

/// Where the files of organisation and user lie: beside their configuration.
#[must_use]
pub fn places(sources: &Sources) -> PolicyPlaces {
    let user = sources.user.parent().unwrap_or(Path::new("/"));
    PolicyPlaces {
        organisation: sources.system.join("policy.toml"),
        user: user.join("policy.toml"),
        uid: rustix::process::getuid().as_raw(),
    }
}

/// Whether commands can reach others from where they run; read when the daemon starts, like the sandbox.
#[must_use]
pub fn reaches(config: &Config) -> bool {
    crate::egress::network(config) != Network::None
}

/// The files of the policy, and the guard that obeys them.
pub struct Policies {
    guard: Arc<PolicyGuard>,
    places: PolicyPlaces,
    /// Why the files as they are now are not in force.
    rejected: Mutex<Option<String>>,
}

impl Policies {
    /// In force from the start on.
    ///
    /// # Errors
    /// A mistake in a file: without it nobody knows what is forbidden.
    pub fn begin(guard: Arc<PolicyGuard>, sources: &Sources) -> Result<Arc<Self>, Fault> {
        let own = Self { guard, places: places(sources), rejected: Mutex::default() };
        own.guard.reload(&own.places)?;
        Ok(Arc::new(own))
    }

    /// Reads the files of organisation and user again; whether anything changed.
    ///
    /// # Errors
    /// The mistake; then the old rules stay in force.
    pub fn reload(&self) -> Result<bool, Fault> {
        match self.guard.reload(&self.places) {
            Ok(changed) => {
                self.rejected().take();
                if changed {
                    tracing::info!("the policy changed");
                }
                Ok(changed)
            }
            Err(fault) => {
                let line = fault.message.clone();
                if self.rejected().replace(line.clone()).as_ref() != Some(&line) {
                    tracing::warn!(code = %fault.code, why = line, "policy.rejected: the old policy stays in force");
                }
                Err(fault.hint("until then tasks go on under the policy that was read before, and no new one is taken"))
            }
        }
    }

    /// Reads what new tasks in a repository stand under.
    ///
    /// # Errors
    /// The first mistake.
    pub fn admit(&self, root: &Path) -> Result<(), Fault> {
        self.reload()?;
        self.guard.reload_project(root)
    }

    /// What a person should know of the policy.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.rejected().iter().map(|why| format!("policy.rejected: the old policy stays in force: {why}")).collect()
    }

    fn rejected(&self) -> MutexGuard<'_, Option<String>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
