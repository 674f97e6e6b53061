//! What the service manager is told: ready, status, alive, stopping.
//!
//! Datagrams to `NOTIFY_SOCKET`; without it every word is dropped. Invariant: no failure to tell ever
//! stops the daemon.

use crate::environment::Environment;
use sd_notify::NotifyState;
use std::time::Duration;

/// Variables of the service manager's protocol; they concern one process and are passed on to none.
pub const VARIABLES: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// The service manager, if one started us.
#[derive(Debug, Clone, Copy)]
pub struct Manager {
    is_there: bool,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    #[must_use]
    pub fn of(env: &Environment) -> Self {
        let watchdog = env.get("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|usec| *usec > 0).map(Duration::from_micros);
        Self { is_there: env.get("NOTIFY_SOCKET").is_some(), watchdog }
    }

    fn tell(self, words: &[NotifyState<'_>]) {
        if !self.is_there {
            return;
        }
        if let Err(error) = sd_notify::notify(words) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    /// Replay is done and clients are served.
    pub fn ready(self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One line for people.
    pub fn status(self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
    }

    /// The start goes on and may take `more` from now.
    pub fn starting(self, text: &str, more: Duration) {
        let usec = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status(text)]);
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The daemon is on its way out.
    pub fn stopping(self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Another process is the service from now on.
    pub fn main_pid(self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid), NotifyState::Status("handed over to the new binary")]);
    }

    /// The engine gave a sign of life.
    pub fn alive(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// How often a sign of life is due: half of what the service manager waits for.
    #[must_use]
    pub fn pulse(self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_service_manager_nothing_is_due() {
        let none = Manager::of(&Environment::of(&[("WATCHDOG_USEC", "0")]));
        assert!(none.pulse().is_none());
        none.ready("nobody hears it");
        let some = Manager::of(&Environment::of(&[("WATCHDOG_USEC", "60000000")]));
        assert_eq!(some.pulse(), Some(Duration::from_secs(30)));
    }
}
