//! What every `Keyring` keeps.
//!
//! Knows nothing of files or root keys. Invariant checked above all: a number stands for one key for
//! ever, also after the keyring was opened again.

use std::collections::BTreeSet;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{KEY_DESTROYED, Keyring, SealKey};
use tinkerbell_core::words::Subject;

/// Opens the one keyring, empty at first.
pub trait Open: Fn() -> Result<Arc<dyn Keyring>, Fault> {}
impl<F: Fn() -> Result<Arc<dyn Keyring>, Fault>> Open for F {}

/// Runs the whole suite.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub fn suite(open: impl Open) {
    let subjects = [0, 1, 1000, u32::MAX].map(Subject);
    let first = keys_differ_between_subjects(&open, &subjects);
    they_survive_reopening(&open, &subjects, &first);
    many_can_ask_at_once(&open);
    an_unknown_number_is_a_fault(&open);
    secrets_are_not_shown(&first);
}

fn keys_differ_between_subjects(open: &impl Open, subjects: &[Subject]) -> Vec<SealKey> {
    let keyring = open().expect("opens");
    let keys: Vec<SealKey> = subjects.iter().map(|subject| keyring.of(*subject).expect("gives a key")).collect();
    let ids: BTreeSet<u32> = keys.iter().map(|key| key.id).collect();
    let secrets: BTreeSet<[u8; 32]> = keys.iter().map(|key| key.secret).collect();
    assert_eq!((ids.len(), secrets.len()), (keys.len(), keys.len()), "each subject has a number and a secret of its own");
    assert!(ids.iter().all(|id| *id >= 16), "numbers below 16 are not for subjects: {ids:?}");
    keys
}

fn they_survive_reopening(open: &impl Open, subjects: &[Subject], first: &[SealKey]) {
    for _ in 0..2 {
        let keyring = open().expect("opens again");
        for (subject, key) in subjects.iter().zip(first) {
            assert!(keyring.find(key.id).expect("finds it") == *key, "a number stands for the same key");
            assert!(keyring.of(*subject).expect("gives it") == *key, "a subject keeps its key");
        }
    }
}

fn many_can_ask_at_once(open: &impl Open) {
    let keyring = open().expect("opens");
    let ids: BTreeSet<u32> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| keyring.of(Subject(77)).expect("gives a key").id)).collect();
        asked.into_iter().map(|thread| thread.join().expect("thread ends")).collect()
    });
    assert_eq!(ids.len(), 1, "a subject gets one key, whoever asks first");
}

fn an_unknown_number_is_a_fault(open: &impl Open) {
    let keyring = open().expect("opens");
    let fault = keyring.find(3).expect_err("there is no such key");
    assert!(fault.message.contains('3'), "the fault names the key: {fault}");
    assert_ne!(fault.code.0, KEY_DESTROYED, "what never existed was not destroyed");
}

fn secrets_are_not_shown(keys: &[SealKey]) {
    for key in keys {
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.id.to_string()) && !shown.contains("secret"), "{shown}");
    }
}
