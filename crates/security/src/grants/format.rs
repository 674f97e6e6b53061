//! Version 1 of the file of grants.
//!
//! Only shapes. Invariant: a key that no field here reads is refused, and `tests/golden/v1/grants.toml`
//! stays readable for ever.

use super::Filed;
use serde::{Deserialize, Serialize};
use tinkerbell_core::approval::Grant;

/// The newest version that this release reads.
pub const VERSION: u32 = 1;
/// What the file says about itself.
pub const HEAD: &str = "# What you allowed for more than one time, written by `tinkerbell approve --for`.\n\
    # `tinkerbell policy grants` lists it, `tinkerbell policy grants revoke ID` takes one back.\n";

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantsFile {
    /// Version of this form.
    pub version: u32,
    /// The grants.
    #[serde(default)]
    pub grant: Vec<One>,
}

/// One grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    /// Its name.
    pub id: String,
    /// The first words of the commands.
    pub argv: Vec<String>,
    /// Options that may follow; others must not.
    #[serde(default)]
    pub options: Vec<String>,
    /// The command that it was made for: it must be covered.
    pub example: String,
    /// Holds until then, milliseconds since the epoch; 0 for ever.
    pub expires_ms: u64,
    /// The repository that it is for; left out for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<std::path::PathBuf>,
    /// The question that was answered with it.
    #[serde(default)]
    pub asked: String,
}

impl From<One> for Filed {
    fn from(one: One) -> Self {
        let One { id, argv, options, example, expires_ms, project, asked } = one;
        Self { grant: Grant { id, argv, options, example, expires_ms }, project, asked }
    }
}

impl From<Filed> for One {
    fn from(filed: Filed) -> Self {
        let Filed { grant: Grant { id, argv, options, example, expires_ms }, project, asked } = filed;
        Self { id, argv, options, example, expires_ms, project, asked }
    }
}
