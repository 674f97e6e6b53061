//! Well-known sets of hosts, for fetching only.
//!
//! A registry that takes uploads is a way out for secrets, so only methods that read are allowed; git
//! needs one `POST` to fetch. Invariant: no preset names a host at which a plain `GET` changes anything.

use crate::options::{HostEntry, Preset};

/// Hosts of repositories; whether groups stand within groups.
const FORGES: [(&str, bool); 4] = [("github.com", false), ("gitlab.com", true), ("bitbucket.org", false), ("codeberg.org", false)];

/// As the configuration spells it.
pub const fn name(preset: Preset) -> &'static str {
    match preset {
        Preset::Cargo => "cargo",
        Preset::Npm => "npm",
        Preset::Pip => "pip",
        Preset::Go => "go",
        Preset::Git => "git",
    }
}

/// The entries that a preset stands for.
pub fn entries(preset: Preset) -> Vec<HostEntry> {
    match preset {
        Preset::Cargo => all(&["index.crates.io", "static.crates.io", "crates.io"]),
        Preset::Npm => all(&["registry.npmjs.org"]),
        Preset::Pip => all(&["pypi.org", "files.pythonhosted.org"]),
        Preset::Go => {
            let mut found = all(&["proxy.golang.org", "sum.golang.org"]);
            // Where the module proxy sends clients for large modules; other buckets are other people's.
            found.push(HostEntry { paths: vec!["/proxy-golang-org-prod/".to_owned()], ..reading("storage.googleapis.com") });
            found
        }
        Preset::Git => {
            let mut found = all(&FORGES.map(|(name, _)| name));
            found.extend(all(&[
                "codeload.github.com",
                "raw.githubusercontent.com",
                "objects.githubusercontent.com",
                "release-assets.githubusercontent.com",
            ]));
            found
        }
    }
}

/// The entries at which git may ask for objects, with its one `POST`; and whether groups stand within groups.
pub fn fetching(preset: Preset) -> Vec<(HostEntry, bool)> {
    let forges = FORGES.iter().filter(|_| preset == Preset::Git);
    forges.map(|(name, is_deep)| (HostEntry { methods: vec!["POST".to_owned()], ..reading(name) }, *is_deep)).collect()
}

fn all(names: &[&str]) -> Vec<HostEntry> {
    names.iter().map(|name| reading(name)).collect()
}

fn reading(name: &str) -> HostEntry {
    HostEntry { name: name.to_owned(), ports: vec![443], methods: ["GET", "HEAD"].map(str::to_owned).to_vec(), ..HostEntry::default() }
}
