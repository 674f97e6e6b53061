//! The digest that binds an approval to exact bytes.
//!
//! Invariant: two deeds that differ in anything a person would decide upon have different digests;
//! each part is led by its length, so that no part can flow into the next.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use tinkerbell_core::port::{Deed, Level};

/// Names the form of the bytes; a new form gets a new name, so that old approvals do not fit it.
const FORM: &str = "tinkerbell deed 2";

/// SHA-256 over the canonical bytes of a deed, hexadecimal.
///
/// Tool, arguments as the model wrote them, command, paths, deletions and sandbox level are
/// bound; the provider's call id is not, because it names the message and not the deed;
/// nor is the task: who asks binds it, together with the moment and what the deed would meet.
#[must_use]
pub fn deed_digest(deed: &Deed) -> String {
    let (writes, deletes) = (deed.plan.writes.len().to_string(), deed.plan.deletes.to_string());
    let mut parts = vec![FORM, &deed.call.name, &deed.call.args, deed.plan.command.as_deref().unwrap_or_default(), &writes];
    parts.extend(deed.plan.writes.iter().map(String::as_str));
    parts.extend([deletes.as_str(), deed.level.map_or("no level", Level::name)]);
    digest_of(&parts)
}

/// SHA-256 over parts, each led by its length, hexadecimal.
#[must_use]
pub fn digest_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}
