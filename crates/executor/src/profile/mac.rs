//! The plan as macOS would get it: the same grants and holes as at level `full`, found without a run.
//!
//! Directories of the system are left out, because those of macOS are others and are known. Invariant:
//! nothing is made or changed, and every hidden path is a hole, also one within the worktree.

use super::git::Git;
use super::reach::{self, Hidden, Reach};
use super::real::Real;
use super::{Access, Places, fill_full};
use crate::error::Error;
use crate::options::{NetworkChoice, SandboxOptions};
use crate::wire::{Cell, CellLevel, Mount, Rules, Sockets, Walls};
use std::path::{Path, PathBuf};
use tinkerbell_core::words::TaskId;

/// Credentials in the user's home on macOS.
const HOME_SECRETS: &[&str] = &[
    "Library/Keychains",
    "Library/Cookies",
    "Library/Mail",
    "Library/Messages",
    "Library/Safari",
    "Library/Application Support/Google/Chrome",
    "Library/Application Support/Firefox",
];

/// The cell of a command in a worktree with its git directory and the common one, and the worktree with
/// its links resolved. The private home is that of task 0, whom nobody is.
///
/// # Errors
/// When the worktree is not there.
pub fn mac(options: &SandboxOptions, tree: &Path, (git_dir, common_dir): (&Path, &Path)) -> Result<(Cell, PathBuf), Error> {
    let tree = tree.canonicalize().map_err(Error::files(tree))?;
    let private = settled(&options.homes_dir.join(TaskId(0).to_string()));
    let real = Real::default();
    let hidden = Hidden::find(options, &real);
    let places = Places {
        tree: tree.clone(),
        access: Access { reads: true, writes: true },
        git: Git::find((git_dir, common_dir), hidden.real.clone(), &real),
        home: private.join("home"),
        tmp: private.join("tmp"),
        private,
    };
    let mut reach = Reach::find(options, &options.path, (&[], &hidden), &real);
    let is_named = |root: &PathBuf| options.read.iter().any(|read| read.canonicalize().is_ok_and(|read| read == *root));
    reach.roots.retain(|root| is_named(root) || !reach::is_system(root));
    reach.links.clear();
    reach.holes = hidden.real;
    reach.holes.extend(hidden.home.iter().flat_map(|home| HOME_SECRETS.iter().map(move |name| home.join(name))));
    // A rule can name what is not there yet.
    let own = [&options.runs_dir, &options.homes_dir, &options.cache_dir];
    reach.holes.extend(options.hidden.iter().chain(own).map(|path| settled(path)));
    reach.holes.sort();
    reach.holes.dedup();
    let mut cell = Cell {
        level: CellLevel::Full,
        argv: Vec::new(),
        workdir: tree.clone(),
        env: Vec::new(),
        mounts: Vec::new(),
        host_network: options.network == NetworkChoice::Host,
        proxy_port: (options.network == NetworkChoice::Proxy).then_some(super::PROXY_PORT),
        sockets: Sockets::Common,
        segments: false,
        rules: Rules::default(),
        least_abi: 0,
        guarded_pids: Vec::new(),
        walls: Walls::default(),
    };
    fill_full(&mut cell, &places, &reach, None);
    // A command's own `/tmp` is a place of its own only where there are mounts; elsewhere it is `TMPDIR`,
    // and its depth is another.
    cell.mounts.sort_by_key(depth);
    Ok((cell, tree))
}

fn depth(mount: &Mount) -> usize {
    let place = if let Mount::Bind { from, .. } = mount { from } else { mount.place() };
    place.components().count()
}

/// A path with the links of what exists of it resolved.
fn settled(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    known.and_then(|(above, real)| Some(real.join(path.strip_prefix(above).ok()?))).unwrap_or_else(|| path.to_owned())
}
