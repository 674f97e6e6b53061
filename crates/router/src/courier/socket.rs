//! The courier's place and socket: who may enter, and how messages are cut out of the stream.
//!
//! The socket is bound through its directory's descriptor, because its path may exceed 107 bytes.
//! Invariant: the directory is 0700 and ours, and both ends check the other's user.

use bytes::{Buf as _, BytesMut};
use prost::Message;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A peer that takes nothing for this long is gone.
const TAKES: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// The courier's directory of a home.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The place below a data directory.
    pub fn new(data: &Path) -> Self {
        Self { dir: data.join("courier") }
    }

    /// Where a daemon notes why it has no courier.
    pub fn refused(&self) -> PathBuf {
        self.dir.join("refused")
    }

    /// Makes the directory; one that is not ours alone is refused.
    ///
    /// # Errors
    /// When it can not be made or belongs to somebody else.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let meta = std::fs::symlink_metadata(&self.dir)?;
        let is_ours = meta.is_dir() && meta.uid() == own_uid() && meta.mode() & 0o077 == 0;
        if is_ours { Ok(()) } else { Err(io::Error::other(format!("{} is not ours alone", self.dir.display()))) }
    }

    /// Takes the lock of the one courier; `None` when another has it.
    ///
    /// # Errors
    /// When the file can not be used.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let mut file = self.lock_file(true)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(file))
    }

    fn lock_file(&self, create: bool) -> io::Result<File> {
        OpenOptions::new().create(create).read(true).write(true).truncate(false).mode(0o600).open(self.dir.join("lock"))
    }

    /// The process that is the courier, if one lives.
    pub fn holder(&self) -> Option<u32> {
        let mut file = self.lock_file(false).ok()?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        file.rewind().ok()?;
        file.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Binds the socket; whoever holds the lock may replace a stale one.
    ///
    /// # Errors
    /// When it can not be bound.
    pub fn bind(&self) -> io::Result<UnixListener> {
        match std::fs::remove_file(self.dir.join("s")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (address, _dir) = self.address()?;
        UnixListener::bind(address)
    }

    /// Connects to the courier.
    ///
    /// # Errors
    /// When nobody listens, or it is somebody else's.
    pub async fn connect(&self) -> io::Result<Conn> {
        let (address, _dir) = self.address()?;
        let stream = timeout(CONNECT, UnixStream::connect(address)).await??;
        Conn::of(stream)
    }

    /// The socket's address, and the descriptor that must live while it is used.
    fn address(&self) -> io::Result<(PathBuf, OwnedFd)> {
        let dir = rustix::fs::open(&self.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        Ok((PathBuf::from(format!("/proc/self/fd/{}/s", dir.as_raw_fd())), dir))
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A connection, with the bytes that were read ahead.
pub struct Conn {
    /// Reads.
    pub hears: Hears,
    /// Writes.
    pub speaks: OwnedWriteHalf,
}

/// The reading half.
pub struct Hears {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Conn {
    /// A connection to a peer of the same user.
    ///
    /// # Errors
    /// When it is another user.
    pub fn of(stream: UnixStream) -> io::Result<Self> {
        let uid = stream.peer_cred()?.uid();
        if uid != own_uid() {
            return Err(io::Error::other(format!("user {uid} stands at the other end")));
        }
        let (half, speaks) = stream.into_split();
        Ok(Self { hears: Hears { half, buffer: BytesMut::new() }, speaks })
    }
}

impl Hears {
    /// The next message; `None` once the peer has closed. Cancel safe.
    ///
    /// # Errors
    /// When the stream breaks, or carries what is no message of at most `most` bytes.
    pub async fn next<M: Message + Default>(&mut self, most: usize) -> io::Result<Option<M>> {
        loop {
            if let Some(message) = self.take(most)? {
                return Ok(Some(message));
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take<M: Message + Default>(&mut self, most: usize) -> io::Result<Option<M>> {
        let Some(head) = self.buffer.get(..4).and_then(|head| <[u8; 4]>::try_from(head).ok()) else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
        if len > most {
            return Err(io::Error::other("a message is too long"));
        }
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        let message = M::decode(self.buffer.split_to(len)).map_err(io::Error::other)?;
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            // A long prompt went by; its room is not kept for the connection's life.
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// A message as it travels.
pub fn pack<M: Message>(message: &M) -> Zeroizing<Vec<u8>> {
    let len = message.encoded_len();
    // With all its room from the start: growing would leave a copy of a key behind.
    let mut packed = Zeroizing::new(Vec::with_capacity(4 + len));
    packed.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    // Writing into a vector can not fail.
    message.encode(&mut *packed).unwrap_or_default();
    packed
}

/// Sends a message, within a deadline.
///
/// # Errors
/// When the peer is gone or does not read.
pub async fn send<M: Message>(speaks: &mut OwnedWriteHalf, message: &M) -> io::Result<()> {
    timeout(TAKES, speaks.write_all(&pack(message))).await?
}
