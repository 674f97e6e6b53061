//! What the mark of a halt says: by whom, since when, why.
//!
//! JSON in the file `halted` of the data directory. That it stands is what counts; a file with any
//! other content halts all the same. Invariant: fields may be added, never renamed;
//! `tests/golden/v1/halted.json` stays readable for ever.

use serde::{Deserialize, Serialize};

/// Version of the mark.
pub const VERSION: u16 = 1;

/// The mark's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Format version.
    pub version: u16,
    /// Wall time in milliseconds since 1970.
    pub at_ms: u64,
    /// The user who halted.
    pub uid: u32,
    /// That user's name, as the environment gave it; for people only.
    #[serde(default)]
    pub name: String,
    /// Why, in the user's words.
    #[serde(default)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_is_read_and_written_as_ever() {
        let golden = include_str!("../../tests/golden/v1/halted.json");
        let mark = Mark { version: 1, at_ms: 1_795_166_043_120, uid: 1000, name: "ada".into(), reason: "it deletes things".into() };
        assert_eq!(serde_json::to_string(&mark).unwrap(), golden.trim_end());
        assert_eq!(serde_json::from_str::<Mark>(golden).unwrap(), mark);
        let later = r#"{"version":2,"at_ms":1,"uid":0,"more":[1]}"#;
        assert_eq!(serde_json::from_str::<Mark>(later).unwrap().at_ms, 1, "fields of a later release are left alone");
    }
}
