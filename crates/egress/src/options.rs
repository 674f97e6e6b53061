//! What an operator writes about the way out: `[egress]` and `[[egress.host]]`.
//!
//! Only shapes; what they mean stands in `rules`. The same shapes travel to the proxy. Invariant:
//! nothing in here may come from a project or a model, and no value of a credential stands in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which hosts commands may reach when their network is `proxy`. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Well-known sets of hosts, for reading only.
    pub presets: Vec<Preset>,
    /// Hosts one by one.
    pub host: Vec<HostEntry>,
}

impl Egress {
    /// Whether it allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.presets.is_empty() && self.host.is_empty()
    }
}

/// A well-known set of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The registry of Rust: index and downloads.
    Cargo,
    /// The npm registry.
    Npm,
    /// The index of Python: pages and files.
    Pip,
    /// Go's module proxy and checksum database.
    Go,
    /// Fetching and cloning from GitHub, GitLab, Bitbucket, Codeberg.
    Git,
}

/// One host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HostEntry {
    /// `example.com`, `*.example.com` (everything below, not itself), or an address.
    pub name: String,
    /// Ports; 80 and 443 when empty.
    pub ports: Vec<u16>,
    /// HTTP methods; any when empty.
    pub methods: Vec<String>,
    /// Beginnings of paths (`/api`), or ends after a star (`*/git-upload-pack`); any when empty.
    pub paths: Vec<String>,
    /// Most bytes that one run may send there.
    pub upload_bytes: Option<u64>,
    /// Variable whose value the proxy puts into requests; commands see a placeholder.
    pub credential: Option<String>,
    /// Header to set, with `{}` for the value: `Authorization: Bearer {}`.
    pub header: Option<String>,
}
