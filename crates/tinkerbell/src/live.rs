//! The configuration in force while the daemon runs, and what of it waits for a restart.
//!
//! Files are read again when they change, at each submission, and on SIGHUP. Invariant: a file with a
//! mistake changes nothing, and a key that only a restart applies is reported, never half applied.

use crate::config::{self, Applies, Config, Loaded, Sources};
use crate::environment::Environment;
use crate::places::Places;
use crate::wire::router_options;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::code::Fault;
use tinkerbell_router::Router;
use tokio::sync::watch;

/// The configuration in force.
pub struct Live {
    sources: Sources,
    env: Environment,
    router: Arc<Router>,
    places: Places,
    /// What the parts were built with.
    begun: Loaded,
    now: watch::Sender<Arc<Loaded>>,
    /// Why the files as they are now are not in force.
    rejected: Mutex<Option<String>>,
}

/// What reading the files again changed: keys by when they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// At once.
    pub live: Vec<String>,
    /// For the next task.
    pub next_task: Vec<String>,
    /// Only after a restart.
    pub restart: Vec<String>,
}

impl Live {
    /// In force from the start on.
    #[must_use]
    pub fn new(sources: Sources, env: Environment, places: Places, router: Arc<Router>, loaded: Loaded) -> Arc<Self> {
        let (now, _) = watch::channel(Arc::new(loaded.clone()));
        Arc::new(Self { sources, env, router, places, begun: loaded, now, rejected: Mutex::new(None) })
    }

    /// Reads the files again and tells what changed; a mistake leaves the old values in force.
    ///
    /// # Errors
    /// The mistake, with file and line.
    pub fn reload(&self) -> Result<Changed, Fault> {
        let loaded = match config::load(&self.sources, &self.env) {
            Ok(loaded) => loaded,
            Err(fault) => {
                let line = fault.message.lines().next().unwrap_or_default().to_owned();
                if self.rejected().replace(line.clone()).as_ref() != Some(&line) {
                    tracing::warn!(code = %fault.code, why = line, "config.rejected: the old configuration stays in force");
                }
                return Err(fault);
            }
        };
        self.rejected().take();
        let changed = Changed::between(&self.snapshot(), &loaded);
        if changed != Changed::default() {
            tracing::info!(live = ?changed.live, next_task = ?changed.next_task, restart = ?changed.restart, "the configuration changed");
        }
        self.router.reload(router_options(&loaded.config, &self.places));
        self.now.send_replace(Arc::new(loaded));
        Ok(changed)
    }

    fn rejected(&self) -> MutexGuard<'_, Option<String>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All values in force, as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Loaded> {
        self.now.borrow().clone()
    }

    /// The values in force, as types.
    #[must_use]
    pub fn config(&self) -> Config {
        self.now.borrow().config.clone()
    }

    /// The router in force.
    #[must_use]
    pub const fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Where everything lies.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// Where configuration is read from.
    #[must_use]
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Keys whose new values wait for a restart.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        Changed::between(&self.begun, &self.snapshot()).restart
    }

    /// What a person should know of the configuration.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let rejected = self.rejected().as_ref().map(|why| format!("config.rejected: the old configuration stays in force: {why}"));
        let pending = self.pending();
        let restart = (!pending.is_empty())
            .then(|| format!("config.restart: {} count after `tinkerbell daemon stop && tinkerbell daemon start`", pending.join(", ")));
        rejected.into_iter().chain(restart).collect()
    }
}

impl Changed {
    /// The keys whose values differ.
    fn between(old: &Loaded, new: &Loaded) -> Self {
        let value = |loaded: &Loaded, key: &str| loaded.origins.get(key).map(|origin| origin.value.clone());
        let keys: BTreeSet<&String> = old.origins.keys().chain(new.origins.keys()).collect();
        let mut changed = Self::default();
        for key in keys.into_iter().filter(|key| value(old, key) != value(new, key)) {
            match config::applies(key) {
                Applies::Live => changed.live.push(key.clone()),
                Applies::NextTask => changed.next_task.push(key.clone()),
                Applies::Restart => changed.restart.push(key.clone()),
            }
        }
        changed
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let part = |keys: &[String], when: &str| (!keys.is_empty()).then(|| format!("{when}: {}", keys.join(", ")));
        let parts = [part(&self.live, "in force"), part(&self.next_task, "for the next task"), part(&self.restart, "after a restart")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "nothing has changed".to_owned() } else { parts.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chores::bench::Bench;
    use crate::wire;

    fn live(bench: &Bench) -> Arc<Live> {
        let loaded = config::load(&bench.sources, &bench.env).unwrap();
        let options = wire::router_options(&loaded.config, &bench.places);
        let clock = Arc::new(crate::clock::SystemClock);
        let router = Router::new(options, Arc::new(|_| None), clock);
        Live::new(bench.sources.clone(), bench.env.clone(), bench.places.clone(), router, loaded)
    }

    #[test]
    fn a_change_counts_when_its_key_says_and_a_mistake_changes_nothing() {
        let bench = Bench::new();
        let write = |text: &str| {
            std::fs::create_dir_all(bench.places.config.parent().unwrap()).unwrap();
            std::fs::write(&bench.places.config, text).unwrap();
        };
        write("model = \"a/b\"\n");
        let live = live(&bench);
        assert_eq!(live.reload().unwrap().line(), "nothing has changed");
        write("model = \"a/c\"\n[sandbox]\nlevel = \"none\"\n[models.\"a/c\"]\ncontext_tokens = 5\n");
        assert_eq!(
            live.reload().unwrap().line(),
            "in force: models.a/c.context_tokens; for the next task: model; after a restart: sandbox.level"
        );
        assert_eq!((live.config().model.as_deref(), live.pending()), (Some("a/c"), vec!["sandbox.level".to_owned()]));
        write("model = 5\n");
        assert_eq!(live.reload().unwrap_err().code.0, "TB-CONFIG-002");
        assert_eq!(live.config().model.as_deref(), Some("a/c"), "the old values stay in force");
        assert!(live.notices().iter().any(|notice| notice.starts_with("config.rejected: ")), "{:?}", live.notices());
        write("model = \"a/c\"\n");
        live.reload().unwrap();
        assert!(live.notices().is_empty(), "what was taken back waits for nothing: {:?}", live.notices());
    }
}
