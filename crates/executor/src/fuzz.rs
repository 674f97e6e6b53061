//! What any bytes must not do to the readers of runs and sockets; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; no file and no process is touched.

use crate::format::{FRAME_HEADER_BYTES, FRAME_MAX_BYTES, Frame, Lock, Lost, Shown, Started, Trailer, Versioned};
use crate::wire::{Answer, FromCell, Order, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads bytes as a spool's frames, as each file of a run, and as what daemon, keeper and cell say.
pub fn run(data: &[u8]) {
    files(data);
    wire(data);
}

fn files(data: &[u8]) {
    let mut rest = data;
    while let Some((frame, len)) = Frame::decode(rest) {
        assert!(len == FRAME_HEADER_BYTES + frame.bytes.len() && frame.bytes.len() <= FRAME_MAX_BYTES, "{len}");
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(rest.get(..len), Some(out.as_slice()), "a frame that is read is the frame that was written");
        rest = rest.get(len..).unwrap_or_default();
    }
    if let Ok(version) = serde_json::from_slice::<Versioned>(data) {
        // Only its number is read of it.
        let _known = version.version;
    }
    journey::<Lock>(data);
    journey::<Started>(data);
    journey::<Trailer>(data);
    journey::<Lost>(data);
    journey::<Shown>(data);
}

/// Reads what daemon, keeper and cell say to each other. The order is our own; the cell stands where the
/// command does.
fn wire(data: &[u8]) {
    journey::<Order>(data);
    journey::<Reply>(data);
    journey::<Request>(data);
    journey::<Answer>(data);
    journey::<FromCell>(data);
}

fn journey<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let Ok(text) = serde_json::to_vec(&read) else { return };
    let again = serde_json::from_slice::<T>(&text).ok().and_then(|again| serde_json::to_vec(&again).ok());
    assert_eq!(again.as_ref(), Some(&text), "what was understood is the same after a journey");
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let seeds: [&[u8]; 5] = [
        include_bytes!("../tests/golden/v1/lock.json"),
        include_bytes!("../tests/golden/v1/started.json"),
        include_bytes!("../tests/golden/v1/trailer.json"),
        include_bytes!("../tests/golden/v1/shown.json"),
        include_bytes!("../tests/golden/v1/spool"),
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, run);
    let seeds = [&br#"{"Stop":{"cause":"halted","grace_ms":50}}"#[..], br#"{"Failed":{"step":"gate","why":"x"}}"#, b"\"Started\""];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, run);
}
