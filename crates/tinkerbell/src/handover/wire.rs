//! The words that two processes of possibly two releases say to each other during a handover.
//!
//! One parcel in memory with descriptors beside it, then one JSON line per word. Invariant: fields
//! may be added, never renamed; `tests/golden/v1/handover.json` stays readable for ever.

use serde::{Deserialize, Serialize};

/// The version of these words.
pub const VERSION: u32 = 1;

/// What a process is given when it is to take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Version of these words.
    pub v: u32,
    /// The data directory that changes hands.
    pub data_dir: String,
    /// The process that gives it away.
    pub from_pid: u32,
    /// Its release.
    pub from_version: String,
    /// The new binary.
    pub binary: String,
    /// Versions of the states of live tasks, all of which must be readable.
    #[serde(default)]
    pub states: Vec<u32>,
    /// Only look and tell.
    #[serde(default)]
    pub dry_run: bool,
    /// Present when the taking over begins at once: the old binary takes over again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<Go>,
    /// Present when the receiver watches over another one's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Why the old binary takes over again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_back: Option<String>,
}

/// What only memory holds, given at the moment of the handover.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// What clients sent of their environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// What is taken out of texts, values that are no longer used among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<(String, String)>,
    /// Runs that may have a command under a keeper.
    #[serde(default)]
    pub runs: Vec<String>,
    /// Model calls that the courier carries on.
    #[serde(default)]
    pub carried: u64,
    /// When the last client was answered, on the clock that counts since the machine's start.
    #[serde(default)]
    pub closed_ms: u64,
}

/// The watch over another process's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// That process.
    pub child: u32,
    /// How long it may take to its first answer.
    pub health_ms: u64,
    /// What it is told.
    pub go: Go,
}

/// One line between the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Word {
    /// The new one has looked and can take over.
    Looked {
        /// Its release.
        version: String,
        /// Records that it looked at.
        records: u64,
    },
    /// The new one can not take over.
    Refused {
        /// Why.
        why: String,
    },
    /// Take over now.
    Go(Go),
    /// The new one serves.
    Healthy {},
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote is read by every later one, and written the same.
    #[test]
    fn the_words_of_version_1_are_understood() {
        let golden = include_str!("../../tests/golden/v1/handover.jsonl");
        let mut lines = golden.lines();
        let parcel: Parcel = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!((parcel.v, parcel.states.as_slice(), parcel.guard.as_ref().unwrap().child), (1, &[1][..], 12));
        assert_eq!(serde_json::to_string(&parcel).unwrap(), golden.lines().next().unwrap());
        for line in lines {
            let word: Word = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&word).unwrap(), line);
        }
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over() {
        let word: Word = serde_json::from_str(r#"{"word":"looked","version":"9.0.0","records":7,"more":true}"#).unwrap();
        assert_eq!(word, Word::Looked { version: "9.0.0".into(), records: 7 });
        assert!(serde_json::from_str::<Parcel>(r#"{"v":1,"data_dir":"/d","from_pid":1,"from_version":"0","binary":"/b","x":1}"#).is_ok());
    }
}
