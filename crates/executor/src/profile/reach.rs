//! What can be read outside the workspace: system directories, toolchains, stores; and the holes.
//!
//! Invariant: the user's home itself, its parents, and hidden paths are never roots.

use super::real::Real;
use crate::options::SandboxOptions;
use crate::wire::{Mount, Rules};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Directories of the system, readable on every host.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/nix/var/nix/profiles",
    "/gnu/store",
    "/run/current-system",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
];

/// Credentials below system directories; user 0 owns them and would need no capability to read them.
const SYSTEM_SECRETS: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/pki/private",
    "/etc/krb5.keytab",
    "/etc/NetworkManager",
    "/etc/wpa_supplicant",
    "/etc/netplan",
    "/etc/wireguard",
    "/etc/openvpn",
    "/etc/ipsec.secrets",
    "/etc/ipsec.d",
    "/etc/ppp",
    "/etc/docker",
    "/etc/containers/auth.json",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/letsencrypt",
    "/etc/mysql/debian.cnf",
    "/etc/exim4/passwd.client",
    "/etc/postfix/sasl_passwd",
    "/etc/npmrc",
    "/usr/etc/npmrc",
    "/usr/local/etc/npmrc",
    "/etc/pip.conf",
];

/// Credentials in the user's home, hidden even where a toolchain's root would show them.
const HOME_SECRETS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".vault-token",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".config",
    ".local/share/keyrings",
    ".password-store",
    ".mozilla",
];

/// Directories in which a toolchain manager keeps everything; their root is what is granted.
const MANAGERS: &[&str] = &[
    ".pyenv",
    ".nvm",
    ".volta",
    ".fnm",
    ".asdf",
    ".sdkman",
    ".goenv",
    ".rbenv",
    ".rvm",
    ".nodenv",
    ".jenv",
    ".bun",
    ".deno",
    ".juliaup",
    ".ghcup",
    ".opam",
    ".nix-profile",
    ".rustup",
    ".dotnet",
    ".rye",
    ".pixi",
    "mise",
    "fnm",
    "uv",
    "pnpm",
    "pipx",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "mambaforge",
];

/// A directory with more entries than this is shown whole, and its hidden ones are covered: each mount costs time.
const MOST_ENTRIES: usize = 1_000;

/// What can be read.
#[derive(Debug, Default)]
pub struct Reach {
    /// Trees, links resolved.
    pub roots: Vec<PathBuf>,
    /// Hidden paths within them.
    pub holes: Vec<PathBuf>,
    /// Hidden names within them that a mount over the name would not keep hidden: whoever saves such a file by
    /// renaming a new one over it takes the mount away, and what does not exist yet can not be mounted over.
    fragile: Vec<PathBuf>,
    /// Links of the root directory, such as `/bin`.
    pub links: Vec<(PathBuf, PathBuf)>,
}

impl Reach {
    /// Looks at the host.
    #[must_use]
    pub fn find(options: &SandboxOptions, path: &str, (extra, hidden): (&[PathBuf], &Hidden), real: &Real) -> Self {
        let home = &hidden.home;
        // The same directory stands in many a PATH twice.
        let entries: BTreeSet<&str> = path.split(':').collect();
        let mut wanted: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        wanted.extend(options.read.iter().cloned());
        wanted.extend(entries.iter().flat_map(|entry| toolchain(Path::new(entry), home.as_deref(), real)));
        wanted.extend(home.iter().flat_map(|home| stores(options, home)));
        let mut links = Vec::new();
        let mut roots = BTreeSet::new();
        for want in wanted {
            if want.parent() == Some(Path::new("/"))
                && let Ok(target) = std::fs::read_link(&want)
            {
                links.push((want.clone(), target));
            }
            let Ok(root) = real.of(&want) else { continue };
            let is_home = home.as_ref().is_some_and(|home| home.starts_with(&root));
            let is_hidden = hidden.real.iter().any(|hole| root.starts_with(hole));
            if !is_home && !is_hidden && root != Path::new("/") {
                roots.insert(root);
            }
        }
        // By name from our own side, not from configuration: they may lie in a hidden place.
        roots.extend(extra.iter().filter_map(|path| real.of(path).ok()));
        let outer = |root: &PathBuf| !roots.iter().any(|other| other != root && root.starts_with(other));
        let roots: Vec<PathBuf> = roots.iter().filter(|root| outer(root)).cloned().collect();
        let is_within = |hole: &PathBuf| roots.iter().any(|root| hole.starts_with(root) && hole != root);
        // Of the system's own files a daemon of another user can read no more than it is shown anyway.
        let is_root = rustix::process::geteuid().is_root();
        let is_others = |name: &PathBuf| !is_root && SYSTEM.iter().any(|root| name.starts_with(root));
        let placed = |name: &PathBuf| match (name.parent().map(|dir| real.of(dir)), name.file_name()) {
            (Some(Ok(parent)), Some(last)) => parent.join(last),
            _ => name.clone(),
        };
        // What a hidden name leads to is saved anew in its own place.
        let named = hidden.names.iter().chain(&hidden.real).map(placed);
        let fragile = named.filter(|name| is_within(name) && !name.is_dir() && !is_others(name)).collect();
        let holes = hidden.real.iter().filter(|hole| is_within(hole)).cloned().collect();
        Self { roots, holes, fragile, links }
    }

    /// The mounts that show a root. Directories on the way to a fragile name are made anew, with each entry but
    /// the hidden ones by itself; the other hidden paths are covered.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for root in &self.roots {
            self.show(root, &mut mounts);
        }
        mounts.extend(self.holes.iter().map(|at| Mount::Mask { at: at.clone() }));
        mounts
    }

    fn show(&self, path: &Path, mounts: &mut Vec<Mount>) {
        let whole = Mount::Bind { from: path.to_owned(), to: path.to_owned(), writable: false };
        if !self.fragile.iter().any(|name| name != path && name.starts_with(path)) {
            mounts.push(whole);
            return;
        }
        let entries: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().take(MOST_ENTRIES + 1).collect();
        if entries.len() > MOST_ENTRIES {
            mounts.push(whole);
            return;
        }
        for entry in entries {
            let at = entry.path();
            if self.holes.contains(&at) || self.fragile.contains(&at) {
                continue;
            }
            match std::fs::read_link(&at) {
                Ok(target) => mounts.push(Mount::Link { at, target }),
                Err(_) => self.show(&at, mounts),
            }
        }
    }

    /// Whether a path can be read.
    #[must_use]
    pub fn shows(&self, path: &Path, real: &Real) -> bool {
        let Ok(path) = real.of(path) else { return false };
        let within = |list: &[PathBuf]| list.iter().any(|root| path.starts_with(root));
        within(&self.roots) && !within(&self.holes)
    }
}

/// The names of everything that is never shown, also of what does not exist.
fn names(options: &SandboxOptions, home: Option<&Path>) -> Vec<PathBuf> {
    let own = [&options.runs_dir, &options.homes_dir, &options.cache_dir];
    let mut names: Vec<PathBuf> = options.hidden.iter().chain(own).cloned().collect();
    names.extend(SYSTEM_SECRETS.iter().map(PathBuf::from));
    names.extend(home.iter().flat_map(|home| HOME_SECRETS.iter().map(move |name| home.join(name))));
    names
}

/// What is never shown.
#[derive(Debug, Default)]
pub struct Hidden {
    /// The user's home, links resolved.
    pub home: Option<PathBuf>,
    /// By name, also what does not exist.
    pub names: Vec<PathBuf>,
    /// What exists, links resolved.
    pub real: Vec<PathBuf>,
}

impl Hidden {
    /// Looks at the host.
    #[must_use]
    pub fn find(options: &SandboxOptions, real: &Real) -> Self {
        let home = options.home.as_ref().and_then(|home| real.of(home).ok());
        let names = names(options, home.as_deref());
        let mut resolved: Vec<PathBuf> = names.iter().filter_map(|path| real.of(path).ok()).collect();
        resolved.sort();
        resolved.dedup();
        Self { home, names, real: resolved }
    }
}

/// Whether a path is one of the system's directories, and not something within.
#[must_use]
pub fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|root| path == Path::new(root) || Path::new(root).canonicalize().is_ok_and(|root| root == path))
}

/// What a PATH entry needs to work: itself, and the root of the toolchain it belongs to.
fn toolchain(entry: &Path, home: Option<&Path>, real: &Real) -> Vec<PathBuf> {
    if !entry.is_absolute() || SYSTEM.iter().any(|root| entry.starts_with(root)) {
        return Vec::new();
    }
    let Ok(dir) = real.of(entry) else { return Vec::new() };
    let mut found = vec![root_of(&dir, home)];
    if dir.ends_with(".cargo/bin") {
        found.extend(home.map(|home| home.join(".rustup")));
    }
    // Programs installed by link: `~/.local/bin/tool` → `~/.local/share/tool/1.2/tool`.
    for link in std::fs::read_dir(&dir).into_iter().flatten().flatten().take(2000) {
        if link.file_type().is_ok_and(|kind| kind.is_symlink())
            && let Ok(target) = real.of(&link.path())
            && target.is_file()
            && !target.starts_with(&dir)
        {
            found.push(target.parent().filter(|parent| parent.ends_with("bin")).map_or(target.clone(), |parent| root_of(parent, home)));
        }
    }
    found
}

/// The root of the toolchain that a directory of programs belongs to.
fn root_of(dir: &Path, home: Option<&Path>) -> PathBuf {
    let managed = dir.ancestors().filter(|ancestor| ancestor.file_name().and_then(|n| n.to_str()).is_some_and(|n| MANAGERS.contains(&n)));
    if let Some(root) = managed.last() {
        return root.to_owned();
    }
    let shared = |parent: &Path| {
        let in_home = home.is_some_and(|home| {
            home.starts_with(parent) || parent == home.join(".local") || parent == home.join(".cargo") || parent == home.join("go")
        });
        in_home || parent.components().count() < 3
    };
    match dir.parent() {
        Some(parent) if dir.ends_with("bin") && !shared(parent) => parent.to_owned(),
        _ => dir.to_owned(),
    }
}

/// Stores of package managers, which private homes link to.
fn stores(options: &SandboxOptions, home: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = super::home::STORES.iter().map(|(store, _)| home.join(store)).collect();
    let named =
        ["RUSTUP_HOME", "PYENV_ROOT", "NVM_DIR", "VOLTA_HOME", "ASDF_DATA_DIR", "MISE_DATA_DIR", "SDKMAN_DIR", "JAVA_HOME", "GOROOT"];
    let value = |name: &&str| options.env.iter().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(value));
    found.extend(named.iter().filter_map(value));
    found
}

/// Grants a tree to Landlock around its holes: rules only add, so the way to each hole is walked and
/// everything beside it is granted.
pub fn expand(root: &Path, holes: &[PathBuf], rules: &mut Rules) {
    if holes.iter().any(|hole| root.starts_with(hole)) {
        return;
    }
    if !holes.iter().any(|hole| hole.starts_with(root)) {
        rules.read.push(root.to_owned());
        return;
    }
    rules.list.push(root.to_owned());
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        // Links need no rule: what they lead to needs one.
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            expand(&entry.path(), holes, rules);
        }
    }
}
