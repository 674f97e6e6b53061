//! The plan of a cell as a profile for `sandbox-exec`, macOS' own sandbox.
//!
//! Text only: nothing here applies it. In a profile the last rule that matches decides, so rules stand
//! from the widest to the narrowest, and what is protected stands behind all that is granted. Invariant:
//! what no rule names is denied, and a path that can not be spelled gives no profile at all.

mod spelling;
#[cfg(test)]
mod tests;

use crate::error::Error;
use crate::options::SandboxOptions;
use crate::profile;
use crate::wire::{Cell, Mount};
use spelling::{Spelt, literal, subpath};
use std::collections::BTreeSet;
use std::path::Path;

/// Directories of the system that programs can not do without, and those of developers' tools.
const SYSTEM: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr",
    "/System/Library",
    "/System/Cryptexes",
    "/System/Volumes/Preboot/Cryptexes",
    "/System/iOSSupport",
    "/Library/Apple",
    "/Library/Developer",
    "/Library/Frameworks",
    "/Library/Java",
    "/Library/Perl",
    "/Library/Ruby",
    "/Applications/Xcode.app",
    "/opt/homebrew",
    "/private/etc/ssl",
    "/private/etc/paths.d",
    "/private/var/db/timezone",
    "/private/var/select",
];

/// Single files, and the root, whose list of names programs ask for before they begin.
const FILES: &[&str] = &[
    "/",
    "/private/etc/bashrc",
    "/private/etc/group",
    "/private/etc/hosts",
    "/private/etc/localtime",
    "/private/etc/passwd",
    "/private/etc/paths",
    "/private/etc/profile",
    "/private/etc/protocols",
    "/private/etc/resolv.conf",
    "/private/etc/services",
    "/private/etc/shells",
    "/private/etc/zprofile",
    "/private/etc/zshenv",
    "/private/etc/zshrc",
];

/// Within those directories, and no business of a command: credentials and databases.
const SECRETS: &[&str] = &["/usr/etc/npmrc", "/usr/local/etc/npmrc", "/usr/local/var", "/opt/homebrew/etc/npmrc", "/opt/homebrew/var"];

/// Read by every command.
const SOURCES: &[&str] = &["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/stdin", "/dev/stdout", "/dev/stderr"];
/// Written by every command; neither terminals of others nor disks.
const SINKS: &[&str] = &["/dev/null", "/dev/zero", "/dev/tty", "/dev/stdout", "/dev/stderr"];

/// Names of users and groups, and the log. None that opens programs, pastes, or fetches for others.
const SERVICES: &[&str] =
    &["com.apple.system.opendirectoryd.libinfo", "com.apple.system.opendirectoryd.membership", "com.apple.system.logger", "com.apple.logd"];

/// Facts of the machine. `kern.procargs2` is not among them: it shows other processes' environment.
const FACTS: &[&str] = &[
    "kern.argmax",
    "kern.boottime",
    "kern.hostname",
    "kern.maxfilesperproc",
    "kern.maxproc",
    "kern.ngroups",
    "kern.osproductversion",
    "kern.osrelease",
    "kern.ostype",
    "kern.osvariant_status",
    "kern.osversion",
    "kern.secure_kernel",
    "kern.usrstack64",
    "kern.version",
    "sysctl.proc_cputype",
    "vm.loadavg",
];

/// Socket of the resolver, without which no name is looked up.
const RESOLVER: &str = "/private/var/run/mDNSResponder";

const READ: &str = "allow file-read* file-map-executable process-exec";
const WRITE: &str = "allow file-write*";
const KEEP: &str = "deny file-write*";
const HIDE: &str = "deny file-read* file-write* file-map-executable process-exec";
/// A directory stays where it is and no other takes its place.
const STAY: &str = "deny file-write-create file-write-unlink";

/// The profile that a command in this worktree would get, with the worktree's own git directory and the
/// repository's common one. Reads the file system and changes nothing; in the place of a task's private
/// home stands that of task 0, which does not exist.
///
/// # Errors
/// When the worktree is not there, and when one of the paths has no spelling in a profile.
pub fn seatbelt(options: &SandboxOptions, tree: &Path, (git_dir, common_dir): (&Path, &Path)) -> Result<String, Error> {
    let (cell, tree) = profile::mac(options, tree, (git_dir, common_dir))?;
    text(&cell, &tree)
}

/// The profile of a cell of level `full`, whose protected files stand in `tree`.
fn text(cell: &Cell, tree: &Path) -> Result<String, Error> {
    let mut profile = Profile::default();
    let places = &cell.mounts;
    processes(&mut profile);
    system(&mut profile)?;
    granted(&mut profile, places)?;
    ways(&mut profile, places)?;
    protected(&mut profile, places, tree)?;
    network(&mut profile, cell);
    Ok(profile.finish())
}

/// Sections of rules.
#[derive(Default)]
struct Profile {
    text: String,
    /// Head and filters of the rule that is still open.
    open: Option<(&'static str, Vec<String>)>,
}

impl Profile {
    fn section(&mut self, comment: &str) {
        self.close();
        self.text.push_str(&format!("\n; {comment}\n"));
    }

    /// Adds filters; neighbours of one head become one rule, which changes nothing.
    fn rule(&mut self, head: &'static str, filters: impl IntoIterator<Item = String>) {
        match &mut self.open {
            Some((known, list)) if *known == head => list.extend(filters),
            _ => {
                self.close();
                self.open = Some((head, filters.into_iter().collect()));
            }
        }
    }

    /// A rule for everything of its kind.
    fn whole(&mut self, head: &str) {
        self.close();
        self.text.push_str(&format!("({head})\n"));
    }

    /// A rule without filters holds for everything, so a list that came out empty writes none.
    fn close(&mut self) {
        let Some((head, filters)) = self.open.take() else { return };
        match filters.as_slice() {
            [] => {}
            [one] => self.text.push_str(&format!("({head} {one})\n")),
            many => self.text.push_str(&format!("({head}\n  {})\n", many.join("\n  "))),
        }
    }

    fn finish(mut self) -> String {
        self.close();
        let head = "(version 1)\n\
                    ; One command of Tinkerbell under macOS: sandbox-exec -f THIS-FILE /bin/sh -c COMMAND\n\
                    ; The last rule that matches decides.\n\
                    (deny default)\n";
        format!("{head}{}", self.text)
    }
}

fn processes(profile: &mut Profile) {
    let named = |kind: &'static str, names: &'static [&str]| names.iter().map(move |name| format!("({kind} \"{name}\")"));
    profile.section("processes: it starts others, and sees and signals its own alone");
    profile.whole("allow process-fork");
    profile.rule("allow process-info*", ["(target same-sandbox)".to_owned()]);
    profile.rule("allow signal", ["(target same-sandbox)".to_owned()]);
    profile.section("facts of the machine, never of other processes; nothing is set");
    profile.rule("allow sysctl-read", ["(sysctl-name-prefix \"hw.\")".to_owned()].into_iter().chain(named("sysctl-name", FACTS)));
    profile.section("services outside the sandbox");
    profile.rule("allow mach-lookup", named("global-name", SERVICES));
}

fn system(profile: &mut Profile) -> Result<(), Error> {
    let each = |paths: &[&str], kind: fn(&Spelt) -> String| -> Result<Vec<String>, Error> {
        paths.iter().try_fold(Vec::new(), |mut found, path| {
            found.extend(Spelt::all(Path::new(path))?.iter().map(kind));
            Ok(found)
        })
    };
    profile.section("the system");
    profile.rule(READ, each(SYSTEM, subpath)?);
    profile.rule("allow file-read*", each(FILES, literal)?);
    profile.rule(HIDE, each(SECRETS, subpath)?);
    profile.rule("allow file-read*", each(SOURCES, literal)?.into_iter().chain(["(subpath \"/dev/fd\")".to_owned()]));
    profile.rule("allow file-write-data", each(SINKS, literal)?.into_iter().chain(["(subpath \"/dev/fd\")".to_owned()]));
    Ok(())
}

/// What the plan mounts, in its order: parents first, so a hole stands behind the tree that it is in,
/// and a tree behind the hole.
fn granted(profile: &mut Profile, mounts: &[Mount]) -> Result<(), Error> {
    profile.section("toolchains, repository, worktree, private home; and what is hidden in them");
    let mut stay = Vec::new();
    for mount in mounts {
        match mount {
            Mount::Mask { at } => profile.rule(HIDE, subpaths(at)?),
            Mount::Bind { from, writable: true, .. } => {
                profile.rule(READ, subpaths(from)?);
                profile.rule(WRITE, subpaths(from)?);
                stay.extend(Spelt::all(from)?.iter().map(literal));
            }
            // There are no layers on macOS: what asks for one is only read.
            Mount::Bind { from: path, .. } | Mount::Overlay { tree: path, .. } => {
                profile.rule(READ, subpaths(path)?);
                profile.rule(KEEP, subpaths(path)?);
            }
            // The system's own links lead to the same places.
            Mount::Link { .. } => {}
        }
    }
    profile.section("what is written stays where it is, and gains no rights of others");
    profile.rule(STAY, stay);
    profile.whole("deny file-write-setugid");
    profile.close();
    Ok(())
}

/// The directories above all that is granted: that they exist, not what is in them.
fn ways(profile: &mut Profile, mounts: &[Mount]) -> Result<(), Error> {
    let granted = mounts.iter().filter_map(|mount| match mount {
        Mount::Bind { from: path, .. } | Mount::Overlay { tree: path, .. } => Some(path),
        Mount::Mask { .. } | Mount::Link { .. } => None,
    });
    let above: BTreeSet<&Path> = granted.flat_map(|path| path.ancestors().skip(1)).chain(spelling::LINKS.iter().map(Path::new)).collect();
    let mut filters = BTreeSet::new();
    for path in above.into_iter().filter(|path| *path != Path::new("/")) {
        filters.extend(Spelt::all(path)?.iter().map(literal));
    }
    profile.section("the ways there: their names and times, not what lies beside");
    profile.rule("allow file-read-metadata", filters);
    Ok(())
}

/// Protected names and paths of the worktree, where it is written at all.
fn protected(profile: &mut Profile, mounts: &[Mount], tree: &Path) -> Result<(), Error> {
    let is_written = |mount: &Mount| matches!(mount, Mount::Bind { from, writable: true, .. } if from == tree);
    if mounts.iter().any(is_written) {
        let root = spelling::root(tree)?;
        profile.section("protected files, in every spelling that a file system takes for theirs");
        profile.rule(KEEP, spelling::names(&root).chain(spelling::paths(&root)));
        profile.section("no other directory takes the place of one that holds them");
        profile.rule(STAY, spelling::parents(&root));
    }
    Ok(())
}

/// None, the proxy's one port, or the host's.
fn network(profile: &mut Profile, cell: &Cell) {
    match (cell.host_network, cell.proxy_port) {
        (true, _) => {
            profile.section("network: the host's; no sockets of other programs");
            profile.rule("allow network-outbound", ["(remote ip)".to_owned(), format!("(literal \"{RESOLVER}\")")]);
            profile.rule("allow network-bind", ["(local ip)".to_owned()]);
            profile.rule("allow network-inbound", ["(local ip)".to_owned()]);
        }
        (false, Some(port)) => {
            profile.section("network: the proxy, which knows what is allowed");
            profile.rule("allow network-outbound", [format!("(remote tcp \"localhost:{port}\")")]);
        }
        (false, None) => {
            profile.section("network: none");
            profile.whole("deny network*");
        }
    }
}

fn subpaths(path: &Path) -> Result<Vec<String>, Error> {
    Ok(Spelt::all(path)?.iter().map(subpath).collect())
}
