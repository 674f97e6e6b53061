//! Who may do what: policy rules, approvals bound to bytes, peer identity; where secrets
//! come from; and the keys of all subjects.
//!
//! Not here: the sandbox (executor) and the protected set's names (core). Invariant: what no
//! rule settles is asked for, never allowed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod digest;
mod git;
pub mod grants;
mod keyring;
pub mod owner;
mod peer;
pub mod policy;
mod secrets;
pub mod trust;

pub use digest::deed_digest;
pub use keyring::{FileKeyring, KeyFacts, KeyPlaces};
pub use peer::check_peer;
pub use policy::PolicyGuard;
pub use secrets::{Files, Providers, SecretSeen, SecretState, SecretStore, Source, Variables};
