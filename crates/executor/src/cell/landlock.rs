//! Landlock: allowlists for files, none for TCP, and scopes for signals and abstract sockets.
//!
//! Every right that the running kernel knows is required, never best effort. Up to ABI 7 the kernel
//! does not check `chmod`, `chown`, `utime` and extended attributes: level `landlock` can not keep a
//! command from changing those of the user's own files. Invariant: a path that is on no list can not
//! be opened, whatever the mount namespace shows.

use super::{At, Broken};
use crate::wire::Rules;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};
use std::path::Path;

/// The running kernel's Landlock ABI; 0 where it has none.
#[must_use]
#[allow(unsafe_code)]
pub fn abi() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: with the version flag the call takes no pointer and creates nothing.
    let found = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    i32::try_from(found).unwrap_or(0).max(0)
}

/// The newest set of rights that both the kernel and this code know. Rights newer than ABI 7 are
/// left alone until a kernel with them could be tested.
fn known(abi: i32) -> ABI {
    match abi {
        ..=0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// Builds the ruleset; the caller enforces it in the command's process.
pub fn ruleset(rules: &Rules, least: i32) -> Result<RulesetCreated, Broken> {
    let found = abi();
    if found < least {
        return Err(Broken { step: "landlock".into(), why: format!("the kernel has Landlock ABI {found}, and {least} is needed") });
    }
    let abi = known(found);
    let all = AccessFs::from_all(abi);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(all).at("landlock: files")?;
    if rules.no_tcp && found >= 4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).at("landlock: TCP")?;
    }
    if found >= 6 {
        ruleset = ruleset.scope(Scope::from_all(abi)).at("landlock: scopes")?;
    }
    let mut created = ruleset.create().at("landlock: create")?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let device = (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev | AccessFs::ReadDir) & all;
    let lists = [(&rules.read, read), (&rules.list, BitFlags::from(AccessFs::ReadDir)), (&rules.write, all), (&rules.devices, device)];
    for (paths, access) in lists {
        for path in paths {
            created = allow(created, path, access, abi)?;
        }
    }
    Ok(created)
}

/// Adds one rule. A path that does not exist grants nothing, so it is skipped.
fn allow(created: RulesetCreated, path: &Path, access: BitFlags<AccessFs>, abi: ABI) -> Result<RulesetCreated, Broken> {
    let Ok(fd) = PathFd::new(path) else { return Ok(created) };
    let is_dir = rustix::fs::fstat(&fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
    let access = if is_dir { access } else { access & AccessFs::from_file(abi) };
    if access.is_empty() {
        return Ok(created);
    }
    created.add_rule(PathBeneath::new(fd, access)).at(format!("landlock: `{}`", path.display()))
}
