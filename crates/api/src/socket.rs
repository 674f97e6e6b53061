//! The socket's place: made safely, found safely, whatever the length of its path.
//!
//! A path beyond 107 bytes is reached through its directory's descriptor, because the kernel's
//! address has no room for more. Invariant: neither side uses a socket in a directory that another
//! user could write.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tokio::net::{UnixListener, UnixStream};

/// Longest path that fits into a socket's address, its final zero excluded.
const MAX_PATH_BYTES: usize = 107;
/// A daemon that does not take a connection for this long is stuck.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Makes the socket, mode 0600 in a directory of mode 0700.
///
/// The caller holds the lock on the data directory; so a socket of ours that nobody answers is
/// stale and is replaced.
///
/// # Errors
/// When directory or socket belong to somebody else, when another daemon answers there, or when
/// the file system refuses. Must be called inside a runtime.
pub async fn bind(path: &Path) -> Result<UnixListener, Fault> {
    let dir = parent(path)?;
    make_dir(dir)?;
    check_dir(dir)?;
    clear(path).await?;
    let (address, _dir) = address(path)?;
    let listener = UnixListener::bind(&address).map_err(|error| unusable(path, &format!("can not be made: {error}")))?;
    // Nobody else can reach it before this line: the directory is closed to others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| unusable(path, &format!("can not be closed to others: {error}")))?;
    Ok(listener)
}

/// Takes a socket that somebody else bound: the process before us, or the service manager.
///
/// # Errors
/// `TB-API-003` when it is not the one at `path`, or its directory is not closed to others. Must be
/// called inside a runtime.
pub fn adopt(listener: std::os::unix::net::UnixListener, path: &Path) -> Result<UnixListener, Fault> {
    let dir = parent(path)?;
    check_dir(dir)?;
    let bound = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    // One that was bound through its directory's descriptor tells only its own name.
    let same_place = bound.as_deref() == Some(path);
    let same_name = bound.as_deref().is_some_and(|bound| bound.starts_with("/proc/self/fd") && bound.file_name() == path.file_name());
    if !same_place && !same_name {
        let bound = bound.map_or_else(|| "nowhere".to_owned(), |bound| bound.display().to_string());
        return Err(unusable(path, &format!("is not where the socket that was passed on listens: {bound}"))
            .hint("let ListenStream= in the socket unit name the place that `tinkerbell config path` shows"));
    }
    let unfit = |error: io::Error| unusable(path, &format!("can not be taken over: {error}"));
    listener.set_nonblocking(true).map_err(unfit)?;
    UnixListener::from_std(listener).map_err(unfit)
}

/// The file beside the socket that stands while one process hands it to another. Clients are
/// patient then: they are held in the queue, not refused.
#[must_use]
pub fn handover_mark(path: &Path) -> PathBuf {
    path.with_extension("handover")
}

/// Connects to a daemon of our own.
///
/// # Errors
/// `TB-API-001` when nobody listens, `TB-API-003` when the place belongs to somebody else.
pub async fn connect(path: &Path) -> Result<UnixStream, Fault> {
    let dir = parent(path)?;
    match fs::symlink_metadata(dir) {
        Ok(_) => check_dir(dir)?,
        Err(error) => return Err(unreachable(path, &error)),
    }
    if let Some(owner) = fs::symlink_metadata(path).ok().map(|facts| facts.uid()).filter(|owner| *owner != own_uid()) {
        return Err(foreign(path, owner));
    }
    let (address, _dir) = address(path)?;
    let stream = match tokio::time::timeout(CONNECT_WAIT, UnixStream::connect(&address)).await {
        Ok(connected) => connected.map_err(|error| unreachable(path, &error))?,
        Err(_) => return Err(unreachable(path, &io::Error::from(io::ErrorKind::TimedOut))),
    };
    let peer = stream.peer_cred().map_err(|error| unreachable(path, &error))?;
    if peer.uid() != own_uid() {
        return Err(foreign(path, peer.uid()));
    }
    Ok(stream)
}

fn parent(path: &Path) -> Result<&Path, Fault> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.ok_or_else(|| unusable(path, "is not a path with a directory"))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn make_dir(dir: &Path) -> Result<(), Fault> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| unusable(dir, &format!("can not be made: {error}")))
}

/// Only a directory of our own, closed to others, will do. One of ours that is open is closed.
fn check_dir(dir: &Path) -> Result<(), Fault> {
    let facts = fs::symlink_metadata(dir).map_err(|error| unusable(dir, &format!("can not be read: {error}")))?;
    if facts.file_type().is_symlink() {
        return Err(unusable(dir, "is a symbolic link").hint(format!("remove the link: rm {}", dir.display())));
    }
    if !facts.is_dir() {
        return Err(unusable(dir, "is not a directory").hint(format!("move it away: mv {0} {0}.old", dir.display())));
    }
    if facts.uid() != own_uid() {
        return Err(foreign(dir, facts.uid()));
    }
    check_above(dir)?;
    if facts.mode() & 0o077 != 0 {
        let closed = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
        closed.map_err(|error| unusable(dir, &format!("is open to other users and can not be closed: {error}")))?;
    }
    Ok(())
}

/// A directory above that anybody may write to lets anybody put another one in our place, unless it is
/// sticky as `/tmp` is.
fn check_above(dir: &Path) -> Result<(), Fault> {
    let real = fs::canonicalize(dir).map_err(|error| unusable(dir, &format!("can not be read: {error}")))?;
    for above in real.ancestors().skip(1) {
        let facts = fs::metadata(above).map_err(|error| unusable(above, &format!("can not be read: {error}")))?;
        if facts.mode() & 0o002 != 0 && facts.mode() & 0o1000 == 0 {
            return Err(unusable(dir, &format!("lies below {}, where every user may write", above.display()))
                .hint(format!("chmod o-w {}", above.display()))
                .hint("or choose another place: export TINKERBELL_HOME=/path"));
        }
    }
    Ok(())
}

/// Removes a stale socket of ours; refuses anything else that stands in its place.
async fn clear(path: &Path) -> Result<(), Fault> {
    let Ok(facts) = fs::symlink_metadata(path) else { return Ok(()) };
    if facts.uid() != own_uid() {
        return Err(foreign(path, facts.uid()));
    }
    if !facts.file_type().is_socket() {
        return Err(unusable(path, "is not a socket").hint(format!("move it away: mv {0} {0}.old", path.display())));
    }
    if connect(path).await.is_ok() {
        return Err(Fault::new("TB-API-004", exit::UNAVAILABLE, format!("another daemon answers at {}", path.display()))
            .hint("it serves another data directory; give this one its own place with TINKERBELL_HOME"));
    }
    fs::remove_file(path).map_err(|error| unusable(path, &format!("is stale and can not be removed: {error}")))
}

/// The address for a path, and the descriptor that must live while the address is used.
fn address(path: &Path) -> Result<(PathBuf, Option<OwnedFd>), Fault> {
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return Ok((path.to_owned(), None));
    }
    let name = path.file_name().ok_or_else(|| unusable(path, "has no file name"))?;
    let opened = rustix::fs::open(parent(path)?, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let dir = opened.map_err(|error: Errno| unusable(path, &format!("has a directory that can not be opened: {error}")))?;
    let address = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    if address.as_os_str().len() > MAX_PATH_BYTES {
        return Err(unusable(path, "has a name that is too long for a socket"));
    }
    Ok((address, Some(dir)))
}

fn unreachable(path: &Path, error: &io::Error) -> Fault {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no socket is there".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    };
    Fault::new("TB-API-001", exit::UNAVAILABLE, format!("the daemon can not be reached at {}: {why}", path.display()))
        .hint("tinkerbell daemon start")
        .transient()
}

fn unusable(path: &Path, why: &str) -> Fault {
    Fault::new("TB-API-003", exit::CONFIG, format!("the daemon's place {} {why}", path.display()))
}

fn foreign(path: &Path, owner: u32) -> Fault {
    unusable(path, &format!("belongs to user {owner}, not to user {}", own_uid()))
        .hint("run `tinkerbell` as that user, or give yours its own place with TINKERBELL_HOME")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn a_long_path_is_bound_and_connected_through_its_directory() {
        let root = temp();
        let path = root.path().join("d".repeat(120)).join("s");
        let listener = bind(&path).await.unwrap();
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let root = temp();
        let path = root.path().join("run/s");
        let listener = bind(&path).await.unwrap();
        assert_eq!(bind(&path).await.unwrap_err().code.0, "TB-API-004");
        drop(listener);
        assert_eq!(connect(&path).await.unwrap_err().code.0, "TB-API-001");
        bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn links_files_and_missing_places_are_refused_with_what_to_do() {
        let root = temp();
        let real = root.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, root.path().join("link")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        fs::write(real.join("s"), "").unwrap();
        for (place, word) in [("link/s", "symbolic link"), ("file/s", ""), ("real/s", "not a socket")] {
            let fault = bind(&root.path().join(place)).await.unwrap_err();
            assert_eq!(fault.code.0, "TB-API-003", "{place}");
            assert!(fault.message.contains(word), "{}", fault.message);
        }
        let fault = connect(&root.path().join("none/s")).await.unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-API-001", exit::UNAVAILABLE));
    }

    #[tokio::test]
    async fn an_open_directory_of_ours_is_closed() {
        let root = temp();
        let dir = root.path().join("run");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        bind(&dir.join("s")).await.unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_place_that_others_could_swap_is_refused() {
        let root = temp();
        let above = root.path().join("shared");
        fs::create_dir(&above).unwrap();
        let path = above.join("run/s");
        for (mode, is_fit) in [(0o777, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            let bound = bind(&path).await;
            assert_eq!(bound.is_ok(), is_fit, "{mode:o}");
            if let Err(fault) = bound {
                assert!(fault.message.contains("every user may write"), "{}", fault.message);
                assert_eq!(
                    connect(&path).await.unwrap_err().code.0,
                    if path.parent().unwrap().exists() { "TB-API-003" } else { "TB-API-001" }
                );
            }
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_passed_on_is_taken_only_at_its_place() {
        let root = temp();
        for dir in ["run".to_owned(), "d".repeat(120)] {
            let path = root.path().join(dir).join("s");
            let first = bind(&path).await.unwrap().into_std().unwrap();
            assert_eq!(adopt(first.try_clone().unwrap(), &root.path().join("run/other")).unwrap_err().code.0, "TB-API-003");
            let second = adopt(first, &path).unwrap();
            let (client, server) = tokio::join!(connect(&path), second.accept());
            assert!(client.is_ok() && server.is_ok());
        }
    }

    #[test]
    fn a_foreign_owner_is_named_with_what_to_do() {
        let fault = foreign(Path::new("/run/x"), 4242);
        assert!(fault.message.contains("user 4242"));
        assert_eq!(fault.hints.len(), 1);
    }
}
