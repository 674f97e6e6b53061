//! The digest that binds an approval to exact bytes.
//!
//! Invariant: two deeds that differ in anything a person would decide upon have different digests;
//! each part is led by its length, so that no part can flow into the next.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use tinkerbell_core::port::{Deed, Level};

/// Names the form of the bytes; a new form gets a new name, so that old approvals do not fit it.
const FORM: &str = "tinkerbell deed 1";

/// SHA-256 over the canonical bytes of a deed, hexadecimal.
///
/// Task, tool, arguments as the model wrote them, command, paths, deletions and sandbox level are
/// bound; the provider's call id is not, because it names the message and not the deed.
#[must_use]
pub fn deed_digest(deed: &Deed) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(FORM);
    part(&deed.task.to_string());
    part(&deed.call.name);
    part(&deed.call.args);
    part(deed.plan.command.as_deref().unwrap_or_default());
    part(&deed.plan.writes.len().to_string());
    deed.plan.writes.iter().for_each(|path| part(path));
    part(&deed.plan.deletes.to_string());
    part(deed.level.map_or("no level", Level::name));
    hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}
