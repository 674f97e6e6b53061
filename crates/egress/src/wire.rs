//! What the proxy is told and says on its standard input, which is a socket to the keeper.
//!
//! A length of four bytes, little endian, and the plan as JSON; the answer is one line. Both ends are
//! the same binary. Invariant: values of credentials stand in the plan and nowhere else.

use crate::options::Egress;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The plan of one run.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// What is allowed.
    pub egress: Egress,
    /// Values of credentials, by name.
    pub values: Vec<(String, String)>,
    /// A file with the authorities to trust beside the system's own.
    pub authorities: Option<PathBuf>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("egress", &self.egress).finish_non_exhaustive()
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Waiting for the listening socket.
    Ready,
    /// It can not serve.
    Failed {
        /// Why.
        why: String,
    },
}
