//! What may be taken over from a layer, by path, type and mode alone.
//!
//! Pure but for [`is_clean`], which only reads. Invariant: what is not known to be harmless is not
//! taken over.

use crate::beneath::{self, kind_of};
use crate::budget::{DEPTH, PATH_BYTES};
use crate::snapshot;
use gix::bstr::{BStr, BString, ByteSlice};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most signs of a path that people and models are shown.
const PRINTED_SIGNS: usize = 400;
/// Beginning of names that are the runtime's own.
const OURS: &[u8] = b".tinkerbell~";

/// What stands in a layer under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A link.
    Link,
    /// A directory.
    Dir,
    /// The mark of a deletion.
    Whiteout,
    /// A device, a pipe or a socket; its name for people.
    Other(&'static str),
}

impl Kind {
    /// Of a stat.
    pub fn of(stat: &Stat) -> Self {
        match kind_of(stat) {
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Link,
            FileType::Directory => Self::Dir,
            FileType::CharacterDevice if stat.st_rdev == 0 => Self::Whiteout,
            FileType::Fifo => Self::Other("a pipe"),
            FileType::Socket => Self::Other("a socket"),
            _ => Self::Other("a device"),
        }
    }
}

/// Whether the mode has bits that raise whoever runs the file.
pub fn raises(stat: &Stat) -> bool {
    stat.st_mode & 0o6000 != 0
}

/// Whether a name is the runtime's own.
pub fn is_ours(name: &[u8]) -> bool {
    name.starts_with(OURS)
}

/// Whether the protected set has what stands at `path`.
pub fn steers(path: &BStr, kind: Kind) -> bool {
    if kind == Kind::Dir { snapshot::is_protected(path) } else { snapshot::is_protected_file(path) }
}

/// Whether a link at `path` leads out of the tree, as far as its text tells. A `..` behind a name is
/// taken for a way out: the name may be a link that leads upwards.
pub fn leads_out(tree: &Path, path: &BStr, target: &[u8]) -> bool {
    let inside = |rest: &[u8]| rest.split(|byte| *byte == b'/').all(|part| part != b"..");
    if target.first() == Some(&b'/') {
        let tree = tree.as_os_str().as_bytes();
        return !target.strip_prefix(tree).is_some_and(|rest| rest.first() == Some(&b'/') && inside(rest));
    }
    let mut up = 0;
    let mut parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").peekable();
    while parts.next_if(|part| *part == b"..").is_some() {
        up += 1;
    }
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    up > depth || parts.any(|part| part == b"..")
}

/// A path for people: no control characters, whatever a command has called its files, and of a path
/// that is longer than anybody reads its beginning and its end.
pub fn printed(path: &BStr) -> String {
    let text = path.to_str_lossy();
    let clean = |sign: char| if sign.is_control() || is_bidi(sign) { '\u{fffd}' } else { sign };
    let count = text.chars().count();
    if count <= PRINTED_SIGNS {
        return text.chars().map(clean).collect();
    }
    let half = PRINTED_SIGNS / 2;
    text.chars().take(half).chain(['…']).chain(text.chars().skip(count - half)).map(clean).collect()
}

const fn is_bidi(sign: char) -> bool {
    matches!(sign, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How a directory is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The task's tree.
    pub tree: &'a Path,
    /// Whether git ignores it: then links may lead anywhere.
    pub ignored: bool,
    /// Whether it is a bulky folder: then protected names count for nothing in it.
    pub bulky: bool,
}

/// Whether a new directory of an ended command can be moved into the tree as it is: nothing in it
/// would be refused. Takes the file system's own attributes off what it sees.
///
/// # Errors
/// When it can not be read.
pub fn is_clean(dir: BorrowedFd<'_>, path: &BStr, depth: usize, view: View<'_>) -> Result<bool, Errno> {
    if depth > DEPTH {
        return Ok(false);
    }
    let names = match beneath::list(dir) {
        // Whoever looks at each of them says that they are too many.
        Err(why) if why.kind() == std::io::ErrorKind::FileTooLarge => return Ok(false),
        other => other.map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?,
    };
    for name in names {
        let child: BString = crate::ignored::join(path, &name);
        let Some(stat) = beneath::stat_at(dir, &name)? else { continue };
        let is_barred =
            child.len() > PATH_BYTES || is_ours(&name) || raises(&stat) || (!view.bulky && steers(child.as_bstr(), Kind::of(&stat)));
        let is_fine = !is_barred
            && match Kind::of(&stat) {
                Kind::File => true,
                Kind::Link => view.ignored || !leads_out(view.tree, child.as_bstr(), &beneath::read_link(dir, &name)?),
                Kind::Dir => {
                    let inner = Opened::dir(dir, &name, &stat)?;
                    is_clean(inner.fd(), child.as_bstr(), depth + 1, view)?
                }
                Kind::Whiteout | Kind::Other(_) => false,
            };
        if !is_fine {
            return Ok(false);
        }
        strip(dir, &name);
    }
    Ok(true)
}

/// A directory that was opened whatever its mode, and gets its mode back.
pub struct Opened {
    fd: std::os::fd::OwnedFd,
    mode: Option<u32>,
}

impl Opened {
    /// Opens a directory of our own below another.
    pub fn dir(at: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<Self, Errno> {
        let fd = beneath::open_dir(at, name, true)?;
        let closed = stat.st_mode & 0o700 != 0o700;
        if closed {
            rustix::fs::fchmod(&fd, rustix::fs::Mode::from_raw_mode(0o700))?;
        }
        Ok(Self { fd, mode: closed.then_some(stat.st_mode & 0o7777) })
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(mode) = self.mode {
            // What can not be put back stays open to its owner, which is the task itself.
            rustix::fs::fchmod(&self.fd, rustix::fs::Mode::from_raw_mode(mode)).ok();
        }
    }
}

/// The way to a name in an open directory, for calls that know no descriptors.
fn way(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(std::ffi::OsStr::from_bytes(name))
}

/// Whether the file system was told that this was copied up from the tree.
pub fn is_copied(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    has(dir, name, "origin").is_some()
}

/// Whether a directory hides what the tree has there.
pub fn is_opaque(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    has(dir, name, "opaque").as_deref() == Some(b"y")
}

fn has(dir: BorrowedFd<'_>, name: &[u8], attribute: &str) -> Option<Vec<u8>> {
    let mut value = [0_u8; 256];
    let size = rustix::fs::lgetxattr(way(dir, name), format!("user.overlay.{attribute}"), &mut value).ok()?;
    value.get(..size).map(<[u8]>::to_vec)
}

/// Takes the file system's own attributes off; what carries none is left as it is.
pub fn strip(dir: BorrowedFd<'_>, name: &[u8]) {
    let way = way(dir, name);
    for attribute in ["user.overlay.origin", "user.overlay.opaque", "user.overlay.impure"] {
        rustix::fs::lremovexattr(&way, attribute).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_known_by_their_text() {
        let cases = [
            ("a", "b", false),
            ("a", "../b", true),
            ("a", "/etc/passwd", true),
            ("a", "/t/tree/x", false),
            ("a", "/t/tree", true),
            ("a", "/t/treetop/x", true),
            ("a", "/t/tree/../x", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "./../b", false),
            ("d/e/a", "../../b/c", false),
            ("d/e/a", "../../../b", true),
            ("d/e/a", "l/..", true),
            ("a", "b/./c//d", false),
            ("a", "", false),
        ];
        for (path, target, want) in cases {
            assert_eq!(leads_out(Path::new("/t/tree"), path.into(), target.as_bytes()), want, "{path} -> {target}");
        }
    }

    #[test]
    fn names_can_not_write_lines_of_their_own() {
        assert_eq!(printed(b"a\nb\x1b[2J\xff".as_bstr()), "a\u{fffd}b\u{fffd}[2J\u{fffd}");
        assert_eq!(printed("\u{202e}txt".into()), "\u{fffd}txt");
    }
}
