//! The root key: the one secret that wraps all others, in a file that only its owner reads.
//!
//! ```text
//! file = ("tinkerbell root key 1" SP id SP secret LF)+      id and secret hexadecimal
//! id   = the first 16 bytes of BLAKE3 keyed with the secret, over "tinkerbell root key id 1"
//! ```
//! Two lines stand there only while a rotation is under way. Invariant: a file that others may read
//! or write is refused, and a missing one is made only where no keyring needs it.

use super::error::Error;
use super::file::{Locked, read_open, replace};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

const FRONT: &str = "tinkerbell root key 1";
const CONTEXT: &[u8] = b"tinkerbell root key id 1";

/// Names a root key without telling it.
pub(super) type RootId = [u8; 16];

/// A root key.
#[derive(Clone)]
pub(super) struct Root(Zeroizing<[u8; 32]>);

/// The file's content.
pub(super) struct Roots(pub(super) Vec<Root>);

/// Random bytes from the cipher's own source: the house's ids may fall back to a clock, keys never.
pub(super) fn chance<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    crypto::rand::fill(&mut *bytes).map_err(|_| Error::Cipher)?;
    Ok(bytes)
}

impl Root {
    pub(super) fn random() -> Result<Self, Error> {
        Ok(Self(chance()?))
    }

    #[cfg(test)]
    pub(super) fn fixed(byte: u8) -> Self {
        Self(Zeroizing::new([byte; 32]))
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn id(&self) -> RootId {
        let hash = blake3::keyed_hash(&self.0, CONTEXT);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl Roots {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoRoot(path.to_owned())),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let meta = file.metadata().map_err(|e| Error::io("read", path, e))?;
        check(meta.uid(), meta.mode(), rustix::process::geteuid().as_raw()).map_err(|why| Error::Unsafe { path: path.to_owned(), why })?;
        let text = Zeroizing::new(read_open(file, path)?);
        Self::parse(&text).map_err(|why| Error::DamagedRoot { path: path.to_owned(), why })
    }

    /// Reads the file, or makes it with a fresh key; for a keyring that does not exist yet.
    pub(super) fn read_or_make(path: &Path, lock: &Locked) -> Result<Root, Error> {
        match Self::read(path) {
            Ok(mut roots) => roots.0.pop().ok_or_else(|| Error::DamagedRoot { path: path.to_owned(), why: "it is empty" }),
            Err(Error::NoRoot(_)) => {
                let root = Root::random()?;
                Self(vec![root.clone()]).write(path, lock)?;
                Ok(root)
            }
            Err(other) => Err(other),
        }
    }

    pub(super) fn for_keyring(self, wanted: &RootId, path: &Path) -> Result<Root, Error> {
        let found = self.0.into_iter().find(|root| root.id() == *wanted);
        found.ok_or_else(|| Error::OtherRoot { path: path.to_owned(), wanted: hex(wanted) })
    }

    pub(super) fn write(&self, path: &Path, lock: &Locked) -> Result<(), Error> {
        let mut text = Zeroizing::new(String::with_capacity(256));
        for root in &self.0 {
            let secret = Zeroizing::new(hex(root.secret()));
            for part in [FRONT, " ", &hex(&root.id()), " ", &secret, "\n"] {
                text.push_str(part);
            }
        }
        replace(path, text.as_bytes(), lock)
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
        let roots = text.lines().map(line).collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() { Err("it is empty") } else { Ok(Self(roots)) }
    }
}

fn line(line: &str) -> Result<Root, &'static str> {
    let rest =
        line.strip_prefix(FRONT).and_then(|rest| rest.strip_prefix(' ')).ok_or("it does not begin like a root key of this release")?;
    let (id, secret) = rest.split_once(' ').ok_or("a part of it is missing")?;
    let root = Root(Zeroizing::new(unhex(secret).ok_or("its secret is not 64 hexadecimal digits")?));
    if hex(&root.id()) == id { Ok(root) } else { Err("its secret does not match its name") }
}

/// Why a file may not hold a secret, or that it may.
fn check(owner: u32, mode: u32, own: u32) -> Result<(), String> {
    if owner != own {
        return Err(format!("it belongs to user {owner}, not to you ({own})"));
    }
    if mode & 0o077 != 0 {
        return Err(format!("others may use it (mode {:03o}, must be 600)", mode & 0o777));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_have_it() {
        for (owner, mode, own, good) in
            [(7, 0o100_600, 7, true), (7, 0o100_400, 7, true), (7, 0o100_640, 7, false), (0, 0o100_600, 7, false)]
        {
            assert_eq!(check(owner, mode, own).is_ok(), good, "{owner} {mode:o}");
        }
    }

    #[test]
    fn a_changed_text_is_no_root_key() {
        let root = Root::fixed(7);
        let text = format!("{FRONT} {} {}\n", hex(&root.id()), hex(root.secret()));
        assert!(Roots::parse(text.as_bytes()).is_ok_and(|roots| roots.0.len() == 1));
        assert!(Roots::parse(format!("{text}{text}").as_bytes()).is_ok());
        for at in 0..text.len() - 1 {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
            assert!(Roots::parse(&bad).is_err(), "byte {at}");
            assert!(Roots::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }
}
