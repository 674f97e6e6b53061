//! A keyring in memory: the same seed gives the same keys on every run.
//!
//! Not secret in any way. Invariant: a number is given once, so a destroyed key never comes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tinkerbell_core::clock::Entropy as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{KEY_DESTROYED, Keyring, SealKey};
use tinkerbell_core::words::Subject;

/// The number of the first key that is given.
pub const FIRST_ID: u32 = 100;

/// A keyring that tests may take keys away from.
#[derive(Debug)]
pub struct MemKeyring {
    seed: u64,
    subjects: Mutex<Vec<(Subject, State)>>,
}

/// The key with number `FIRST_ID + n` is the entry `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Lost,
    Destroyed,
}

impl MemKeyring {
    /// An empty keyring.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, subjects: Mutex::new(Vec::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Subject, State)>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Destroys the subject's keys, as erasing does: the next one has another number.
    pub fn destroy(&self, subject: Subject) {
        self.mark(subject, State::Destroyed);
    }

    /// Loses the subject's keys, as a forgotten backup does.
    pub fn lose(&self, subject: Subject) {
        self.mark(subject, State::Lost);
    }

    fn mark(&self, subject: Subject, state: State) {
        self.lock().iter_mut().filter(|(whose, _)| *whose == subject).for_each(|entry| entry.1 = state);
    }

    fn key(&self, id: u32) -> SealKey {
        let chance = crate::fake::SeedEntropy::new(self.seed ^ (u64::from(id) << 32));
        let mut secret = [0; 32];
        for half in secret.chunks_mut(16) {
            half.copy_from_slice(&chance.id().to_le_bytes());
        }
        SealKey { id, secret }
    }
}

impl Keyring for MemKeyring {
    fn of(&self, subject: Subject) -> Result<SealKey, Fault> {
        let mut subjects = self.lock();
        let at = subjects.iter().position(|entry| *entry == (subject, State::Whole)).unwrap_or_else(|| {
            subjects.push((subject, State::Whole));
            subjects.len() - 1
        });
        Ok(self.key(FIRST_ID.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))))
    }

    fn find(&self, id: u32) -> Result<SealKey, Fault> {
        let states: BTreeMap<u32, State> = (FIRST_ID..).zip(self.lock().iter().map(|(_, state)| *state)).collect();
        match states.get(&id) {
            Some(State::Whole) => Ok(self.key(id)),
            Some(State::Destroyed) => Err(Fault::new(KEY_DESTROYED, exit::UNAVAILABLE, format!("key {id} was destroyed"))),
            Some(State::Lost) | None => Err(Fault::new("TB-KEY-004", exit::UNAVAILABLE, format!("key {id} is missing"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        let keyring = std::sync::Arc::new(MemKeyring::new(1));
        crate::contract::keyring::suite(|| Ok(keyring.clone() as std::sync::Arc<dyn Keyring>));
    }

    #[test]
    fn a_destroyed_key_is_told_from_a_missing_one() {
        let keyring = MemKeyring::new(1);
        let (one, two) = (keyring.of(Subject(1)).unwrap(), keyring.of(Subject(2)).unwrap());
        keyring.destroy(Subject(1));
        keyring.lose(Subject(2));
        assert_eq!(keyring.find(one.id).unwrap_err().code.0, KEY_DESTROYED);
        assert_eq!(keyring.find(two.id).unwrap_err().code.0, "TB-KEY-004");
        assert_ne!(keyring.of(Subject(1)).unwrap().id, one.id);
    }
}
