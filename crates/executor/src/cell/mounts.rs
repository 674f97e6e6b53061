//! The new root: an empty file system in which only granted paths of the host appear.
//!
//! Runs as PID 1 of its own mount namespace with capabilities there. Invariant: nothing of the old
//! root is reachable once [`build`] returns, and no mount travels back to the host.

use super::{At, Broken};
use crate::wire::{Mount, Walls};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A directory that every host has; the staging area is mounted over it, in our namespace only.
const STAGE: &str = "/tmp";
const OLD: &str = "/old";
const NEW: &str = "/new";
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// How a path is looked up that somebody else may change meanwhile.
const EXACTLY: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// Builds the root and moves into it.
pub fn build(mounts: &[Mount], walls: &Walls) -> Result<(), Broken> {
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).at("cut mount propagation")?;
    stage()?;
    devices(walls.shared_bytes)?;
    processes(walls.processes)?;
    for dir in ["tmp", "run", "var"] {
        directory(&Path::new(NEW).join(dir))?;
    }
    for mount in mounts {
        let what = if matches!(mount, Mount::Overlay { .. }) { crate::layer::STEP } else { "mount" };
        apply(mount).map_err(|broken| Broken { step: format!("{what} `{}`, {}", mount.place().display(), broken.step), ..broken })?;
    }
    seal()
}

/// Mounts the staging area, with the old root and the new one side by side in it.
fn stage() -> Result<(), Broken> {
    tmpfs(Path::new(STAGE), "mode=0755")?;
    std::env::set_current_dir(STAGE).at("enter the staging area")?;
    for dir in ["old", "new"] {
        std::fs::create_dir(dir).at("staging directories")?;
    }
    rustix::process::pivot_root(".", "old").at("pivot to the staging area")?;
    std::env::set_current_dir("/").at("enter the staging area")?;
    tmpfs(Path::new(NEW), "mode=0755")
}

fn tmpfs(at: &Path, data: &str) -> Result<(), Broken> {
    let data = CString::new(data).at("mount options")?;
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, data.as_c_str())
        .at(format!("tmpfs at {}", at.display()))
}

/// A `/dev` with the harmless devices only, and terminals of its own.
fn devices(shared_bytes: Option<u64>) -> Result<(), Broken> {
    let dev = Path::new(NEW).join("dev");
    directory(&dev)?;
    tmpfs(&dev, "mode=0755,size=1m,nr_inodes=4096")?;
    for name in DEVICES {
        let from = Path::new(OLD).join("dev").join(name);
        if from.exists() {
            let to = dev.join(name);
            drop(mount_point(&to, false)?);
            rustix::mount::mount_bind(&from, &to).at(format!("device {name}"))?;
        }
    }
    for dir in ["pts", "shm"] {
        directory(&dev.join(dir))?;
    }
    let options = c"newinstance,ptmxmode=0666,mode=620";
    rustix::mount::mount("devpts", dev.join("pts"), "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options).at("terminals")?;
    // Empty files take the kernel's memory too.
    let size = shared_bytes.map_or(String::new(), |bytes| format!(",size={bytes}"));
    tmpfs(&dev.join("shm"), &format!("mode=1777,nr_inodes=65536{size}"))?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, dev.join(name)).at("device links")?;
    }
    Ok(())
}

/// A `/proc` that shows this PID namespace only, its switches read-only: their owner is user 0,
/// who needs no capability to write many of them.
fn processes(most: Option<u64>) -> Result<(), Broken> {
    let proc = Path::new(NEW).join("proc");
    directory(&proc)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &proc, "proc", flags, None).at("fresh /proc")?;
    wall_of_pids(&proc, most);
    for name in ["sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"] {
        let path = proc.join(name);
        if path.exists() {
            rustix::mount::mount_bind(&path, &path).at("protect /proc")?;
            set_attributes(&path, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC)?;
        }
    }
    Ok(())
}

/// Process numbers that the kernel keeps back, whatever a namespace's limit is.
const RESERVED: u64 = 301;

/// Limits the numbers that processes of this namespace can have, which binds root as well. Only where
/// the number belongs to the namespace: on older kernels it is the host's.
fn wall_of_pids(proc: &Path, most: Option<u64>) {
    if let Some(most) = most.filter(|_| crate::process::kernel() >= (6, 14)) {
        let wall = most.saturating_add(RESERVED + crate::groups::STAGES);
        // The watch stays where this is refused.
        std::fs::write(proc.join("sys/kernel/pid_max"), wall.to_string()).ok();
    }
}

fn apply(mount: &Mount) -> Result<(), Broken> {
    match mount {
        Mount::Bind { from, to, writable } => bind(&beneath(OLD, from), &beneath(NEW, to), *writable),
        Mount::Overlay { tree, upper, work } => overlay(tree, upper, work),
        Mount::Mask { at } => mask(&beneath(NEW, at)),
        Mount::Link { at, target } => {
            let at = beneath(NEW, at);
            if at.symlink_metadata().is_ok() {
                return Ok(());
            }
            at.parent().map_or(Ok(()), directory)?;
            std::os::unix::fs::symlink(target, at).at("link")
        }
    }
}

fn beneath(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

/// Binds by descriptors that were opened without following any link: a command that runs already
/// in the same workspace may swap a directory for a link while this sandbox is being built, and the
/// link would be followed by us, who still see the whole host.
fn bind(from: &Path, to: &Path, writable: bool) -> Result<(), Broken> {
    let source = match open_exact(from) {
        // A path that has gone since the list was made grants nothing.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.at("open what is bound")?,
    };
    let kind = rustix::fs::fstat(&source).at("look at what is bound")?.st_mode;
    let target = mount_point(to, rustix::fs::FileType::from_raw_mode(kind).is_dir())?;
    // With everything below it: in a user namespace the kernel refuses to show what a mount hides.
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&source, c"", flags).at("take what is bound")?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    set_attributes_of(&tree, if writable { attributes } else { attributes | libc::MOUNT_ATTR_RDONLY })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &target, c"", flags).at("bind")
}

/// Lays a layer over the tree, by descriptors for the same reason as in [`bind`]. Attributes of the
/// user's name space, because the others need a capability on the host; redirects are off with them.
fn overlay(tree: &Path, upper: &Path, work: &Path) -> Result<(), Broken> {
    let open = |path: &Path| open_exact(&beneath(OLD, path)).at(format!("open `{}`", path.display()));
    let (lower, upper, work) = (open(tree)?, open(upper)?, open(work)?);
    let target = mount_point(&beneath(NEW, tree), true)?;
    let name = |fd: &OwnedFd| by_descriptor(fd).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={},userxattr", name(&lower), name(&upper), name(&work));
    let options = CString::new(options).at("mount options")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", by_descriptor(&target), "overlay", flags, options.as_c_str()).at("overlay")
}

fn open_exact(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), EXACTLY)
}

/// The place of a mount, by no link, made where it is missing.
fn mount_point(at: &Path, is_dir: bool) -> Result<OwnedFd, Broken> {
    match open_exact(at) {
        Err(rustix::io::Errno::NOENT) if is_dir => {
            directory(at)?;
            open_exact(at)
        }
        Err(rustix::io::Errno::NOENT) => {
            at.parent().map_or(Ok(()), directory)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat2(CWD, at, flags, Mode::RUSR, EXACTLY)
        }
        other => other,
    }
    .at(format!("mount point {}", at.display()))
}

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    Path::new(NEW).join("proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// Hides a path that exists: an empty read-only directory, or a device that is always empty.
fn mask(at: &Path) -> Result<(), Broken> {
    let Ok(meta) = at.symlink_metadata() else { return Ok(()) };
    if meta.is_dir() {
        tmpfs(at, "mode=0755,size=4k")?;
        return set_attributes(at, libc::MOUNT_ATTR_RDONLY);
    }
    if meta.is_symlink() {
        return Ok(());
    }
    rustix::mount::mount_bind(Path::new(NEW).join("dev/null"), at).at("mask")
}

/// Makes the root itself read-only and leaves the old one behind.
fn seal() -> Result<(), Broken> {
    std::env::set_current_dir(NEW).at("enter the new root")?;
    rustix::process::pivot_root(".", ".").at("pivot to the new root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at("leave the old root")?;
    std::env::set_current_dir("/").at("enter the new root")?;
    let flat = |path: &str| {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount(path, flags, "")
    };
    flat("/").at("make the root read-only")
}

fn set_attributes(path: &Path, attributes: u64) -> Result<(), Broken> {
    set_attributes_of(&open_exact(path).at("open a mount")?, attributes)
}

/// `mount_setattr`, recursive: one call for a bind and all that lies below it.
#[allow(unsafe_code)]
fn set_attributes_of(mount: &OwnedFd, attributes: u64) -> Result<(), Broken> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = (libc::AT_RECURSIVE | libc::AT_EMPTY_PATH).cast_unsigned();
    // SAFETY: the descriptor is open, the path is NUL-terminated and the structure lives across the
    // call; its true size is passed, so the kernel reads no byte beyond it.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size_of::<libc::mount_attr>())
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).at("mount attributes") }
}

fn directory(path: &Path) -> Result<(), Broken> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).at(format!("directory {}", path.display()))
}
