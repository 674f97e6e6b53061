//! The shape of `xtask/tidy.toml`. Unknown keys are refused: a misspelt `expires` must not pass.

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The exceptions; none is the aim.
    #[serde(default)]
    pub exception: Vec<Exception>,
}

/// One exception.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Name of the rule.
    pub rule: String,
    /// The file, from the root.
    pub path: String,
    /// One item in it, such as a function's name; absent: the whole file.
    pub item: Option<String>,
    /// Why the law cannot hold here.
    pub reason: String,
    /// Last day on which the exception holds, `YYYY-MM-DD`.
    pub expires: String,
}
