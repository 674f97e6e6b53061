//! Secrets in variables of the environment that the newest client sent.
//!
//! Whose environment that is, the roof says. Invariant: nothing is kept here.

use std::ffi::OsStr;
use tinkerbell_secret::{Lookup, Refused, SecretProvider, Shared};

/// Variables; a place is a variable's name.
pub struct Variables {
    lookup: Lookup,
}

impl Variables {
    /// Looked up so.
    #[must_use]
    pub const fn new(lookup: Lookup) -> Self {
        Self { lookup }
    }
}

impl SecretProvider for Variables {
    fn value(&self, place: &OsStr) -> Result<Option<Shared>, Refused> {
        let value = place.to_str().and_then(|name| (self.lookup)(name));
        Ok(value.filter(|value| !value.expose().is_empty()))
    }

    fn changed_s(&self, _place: &OsStr) -> Option<i64> {
        None
    }

    fn remedy(&self, place: &OsStr) -> String {
        format!("export {}=…", place.display())
    }
}
