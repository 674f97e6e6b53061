//! Stores of objects that a repository borrows from others: what its lists name, and the lists of what they name.
//!
//! Objects of another repository would be readable for the task, and a delivered file chooses which. Invariant: the
//! lists are read as the library reads them, and however a store is reached, it is used only where it is the
//! repository's own or the user has named it.

use crate::error::{Error, Result};
use crate::found::astray;
use crate::gitdir::small;
use gix::bstr::{BString, ByteSlice};
use gix::config::Source;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Largest list.
const LIST_BYTES: u64 = 1 << 20;
/// Most stores in all lists together.
const STORES: usize = 256;
/// Most lists in a row, as git has it.
const DEEPEST: usize = 5;

/// A store that a list names.
struct Lent {
    /// As the library spells it.
    path: PathBuf,
    /// Where it stands; `None` when there is nothing.
    real: Option<PathBuf>,
    /// Whether the way to it, by its words alone, leads out of the repository from where it is relative to.
    is_climbing: bool,
}

/// That all lists together are of a measure that the library can be let at.
///
/// # Errors
/// When one is no regular file of at most 1 MiB, they name more than 256 stores, or lead on more than five times.
pub fn measure(common_dir: &Path) -> Result<()> {
    stores(common_dir).map(drop)
}

/// Follows the lists, each bounded, as the library does: a relative path is relative to the first store, and the
/// end of a line is a line feed and nothing else.
fn stores(common_dir: &Path) -> Result<Vec<Lent>> {
    let objects = common_dir.join("objects");
    let mut found = Vec::new();
    let mut seen = HashSet::from([objects.clone()]);
    let mut open = vec![(objects.clone(), DEEPEST)];
    while let Some((store, depth)) = open.pop() {
        let list = store.join("info/alternates");
        let fault = |why: &str| {
            let hint = format!("look at it; where nothing is borrowed on purpose: rm {}", list.display());
            astray(common_dir, format!("{}, its list of borrowed objects, {why}", list.display()), hint)
        };
        let bytes = match small(&list, LIST_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(why) => return Err(fault(&format!("can not be read: {why}"))),
        };
        if bytes.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"\"")) {
            return Err(fault("has a path in quotes"));
        }
        let named = gix::odb::alternate::parse(&bytes).map_err(|_| fault("can not be read"))?;
        if !named.is_empty() && depth == 0 {
            return Err(fault(&format!("is reached through more than {DEEPEST} others")));
        }
        for name in named {
            if found.len() == STORES {
                return Err(fault(&format!("is one of those that name more than {STORES} stores")));
            }
            let (path, is_climbing) = (objects.join(&name), name.is_relative() && climbs(&name));
            let real = path.canonicalize().ok();
            if let Some(real) = real.clone().filter(|real| seen.insert(real.clone())) {
                open.push((real, depth - 1));
            }
            found.push(Lent { path, real, is_climbing });
        }
    }
    Ok(found)
}

/// Whether a path relative to a store of objects leaves the repository that holds the store. The store of checkpoints
/// reads the list, too, and to it the same words would lead elsewhere.
fn climbs(path: &Path) -> bool {
    let mut depth = 1_usize;
    path.components().any(|part| match part {
        Component::ParentDir => {
            let is_out = depth == 0;
            depth = depth.saturating_sub(1);
            is_out
        }
        Component::Normal(_) => {
            depth += 1;
            false
        }
        _ => false,
    })
}

/// That every store is the repository's own, or one that the user has named.
///
/// # Errors
/// As [`measure`]; and when objects are borrowed without the user's own word.
pub fn check(repo: &gix::Repository) -> Result<()> {
    let common_dir = repo.common_dir().canonicalize().map_err(Error::io("open", repo.common_dir()))?;
    let stores = stores(&common_dir)?;
    if stores.is_empty() {
        return Ok(());
    }
    let ours =
        |meta: &gix::config::file::Metadata| matches!(meta.source, Source::GitInstallation | Source::System | Source::Git | Source::User);
    let allowed: Vec<BString> = repo.config_snapshot().plumbing().raw_values_filter("tinkerbell.alternate", ours).unwrap_or_default();
    let allowed: Vec<PathBuf> = allowed.iter().filter_map(|path| Path::new(OsStr::from_bytes(path)).canonicalize().ok()).collect();
    for Lent { path, real, is_climbing } in stores {
        let is_fine = match &real {
            Some(store) => allowed.contains(store) || (!is_climbing && store.starts_with(&common_dir)),
            None => !is_climbing,
        };
        if !is_fine {
            let shown = path.as_os_str().as_bytes().as_bstr();
            let why = format!("it borrows the objects of {shown}, so a task could read that repository's history");
            let list = common_dir.join("objects/info/alternates");
            let hint = format!("have them here: git -C {} repack -a -d && rm {}", common_dir.display(), list.display());
            let word = format!("or say that tasks may read them: git config --global --add tinkerbell.alternate {shown}");
            return Err(astray(&common_dir, why, format!("{hint}\n{word}")));
        }
    }
    Ok(())
}
