//! Secrets in files that only their owner can read.
//!
//! Looked at anew each time, so that a changed file counts at once. Invariant: a file that others can
//! read or change is refused, whatever is in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tinkerbell_secret::{Refused, Secret, SecretProvider, Shared};
use zeroize::Zeroizing;

/// The longest value that is read from a file.
const MOST_BYTES: u64 = 64 * 1024;
/// Mode bits of group and others.
const OTHERS: u32 = 0o077;

/// Plain files of mode 600; a place is a path.
#[derive(Debug)]
pub struct Files {
    uid: u32,
}

impl Files {
    /// For a user; files may belong to it or to root.
    #[must_use]
    pub const fn of(uid: u32) -> Self {
        Self { uid }
    }
}

impl SecretProvider for Files {
    /// One line end after the value does not count.
    fn value(&self, place: &OsStr) -> Result<Option<Shared>, Refused> {
        use rustix::fs::{Mode, OFlags};
        let broken = |error: std::io::Error| Refused::because(error.to_string());
        // Without waiting for a writer, should it be a pipe.
        let file = match rustix::fs::open(place, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(broken(error.into())),
        };
        let meta = file.metadata().map_err(broken)?;
        if !meta.is_file() || meta.len() > MOST_BYTES {
            return Err(Refused::because("it is not a plain file of at most 64 KiB"));
        }
        if ![0, self.uid].contains(&meta.uid()) {
            return Err(Refused::because(format!("it belongs to user {}, not to {} or root", meta.uid(), self.uid)));
        }
        if meta.mode() & OTHERS != 0 {
            let why = format!("its mode {:o} lets others read or change it", meta.mode() & 0o7777);
            return Err(Refused { why, hint: Some(format!("chmod 600 {}", Path::new(place).display())) });
        }
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(broken)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let value = Secret::shared(line.strip_suffix('\r').unwrap_or(line));
        Ok(Some(value).filter(|value| !value.expose().is_empty()))
    }

    fn changed_s(&self, place: &OsStr) -> Option<i64> {
        Path::new(place).metadata().ok().map(|meta| meta.mtime())
    }

    fn remedy(&self, place: &OsStr) -> String {
        format!("write it there: (umask 077; cat > {})", Path::new(place).display())
    }
}
