//! Passing descriptors and what only memory holds from one process to the next.
//!
//! The parcel's text lies in an anonymous file in memory, because it holds keys and has no bound that
//! a socket's buffer would keep. Invariant: nothing of it ever touches a disk, and every descriptor
//! received is closed on exec.

use super::wire::{Parcel, VERSION};
use rustix::fs::MemfdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use zeroize::Zeroizing;

/// Descriptors in one message: the text and at most three more.
const MOST: usize = 4;
/// A text beyond this is none of ours.
const MAX_BYTES: u64 = 64 << 20;

/// Sends the parcel with descriptors beside it.
///
/// # Errors
/// When the kernel refuses; then nothing was sent.
pub fn send(stream: &UnixStream, parcel: &Parcel, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut text = File::from(rustix::fs::memfd_create("tinkerbell-handover", MemfdFlags::CLOEXEC)?);
    text.write_all(&Zeroizing::new(serde_json::to_vec(parcel)?))?;
    text.rewind()?;
    let all: Vec<BorrowedFd<'_>> = std::iter::once(text.as_fd()).chain(fds.iter().copied()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(stream, &[IoSlice::new(b"p")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a parcel and the descriptors beside it, in the order they were sent.
///
/// # Errors
/// When no parcel comes from there, or one whose words this release does not know.
pub fn receive(from: &impl AsFd) -> io::Result<(Parcel, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let text = fds.next().filter(|_| got.bytes == 1).ok_or_else(|| io::Error::other("nothing was handed over"))?;
    let mut bytes = Zeroizing::new(Vec::new());
    File::from(text).take(MAX_BYTES).read_to_end(&mut bytes)?;
    let parcel: Parcel = serde_json::from_slice(&bytes)?;
    if parcel.v > VERSION {
        return Err(io::Error::other(format!("the handover speaks version {}, this release speaks {VERSION}", parcel.v)));
    }
    Ok((parcel, fds.collect()))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Go;
    use super::*;

    #[test]
    fn a_parcel_waits_in_the_socket_after_its_sender_has_gone() {
        let (here, there) = UnixStream::pair().unwrap();
        let env = vec![("KEY".to_owned(), "k".repeat(1 << 20))];
        let parcel = Parcel { v: VERSION, data_dir: "/d".into(), go: Some(Go { env, ..Go::default() }), ..Parcel::default() };
        let (mut kept, passed) = UnixStream::pair().unwrap();
        send(&here, &parcel, &[passed.as_fd()]).unwrap();
        drop((here, passed));
        let (got, fds) = receive(&there).unwrap();
        assert_eq!(got, parcel);
        UnixStream::from(fds.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut byte = [0_u8; 1];
        kept.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_is_no_parcel_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"p").unwrap();
        assert!(receive(&there).is_err());
        let newer = Parcel { v: VERSION + 1, ..Parcel::default() };
        send(&here, &newer, &[]).unwrap();
        assert!(receive(&there).unwrap_err().to_string().contains("version 2"));
        assert!(receive(&File::open("/dev/null").unwrap()).is_err());
    }
}
