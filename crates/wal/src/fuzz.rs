//! What any bytes must not do to the reader of a segment; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; no file is touched.

use crate::format::{HEADER_BYTES, Head, Header};
use crate::scan::{evidence, frames, scan};

/// Scans bytes as a segment, and as what follows a whole header: it ends, and what stands lies within.
pub fn segment(data: &[u8]) {
    if let Ok(header) = Header::decode(data) {
        scanned(data, &header);
    }
    let header = Header { epoch: 1, first_lsn: 1, incarnation: 7, chain: Head::default(), created_ms: 0, boot_id: [0; 16], seals: None };
    let mut whole = header.encode();
    whole.extend_from_slice(data);
    match Header::decode(&whole) {
        Ok(read) => {
            assert_eq!(read, header);
            scanned(&whole, &read);
        }
        Err(why) => assert!(whole.len() < HEADER_BYTES, "{why}"),
    }
    // Bounded by the bytes: each frame takes some.
    assert!(frames(data).take(data.len() + 2).count() <= data.len() + 1, "frames without end");
    let _seen = evidence(data, 7);
}

fn scanned(bytes: &[u8], header: &Header) {
    let mut end = 0;
    let found = scan(bytes, header, None, &mut |span, batch| {
        assert!(span.offset >= end && span.offset + span.len <= bytes.len() as u64, "{span:?} lies outside");
        assert!(batch.len() as u64 <= span.len, "{span:?} has {} bytes", batch.len());
        end = span.offset + span.len;
    });
    assert!(found.next >= header.first_lsn, "{found:?}");
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let seeds: [&[u8]; 4] = [
        include_bytes!("../tests/golden/v1/0000000000000001-0000000000000001.wal"),
        include_bytes!("../tests/golden/v1/0000000000000002-000000000000000f.wal"),
        include_bytes!("../tests/golden/v1-sealed/0000000000000001-0000000000000005.wal"),
        include_bytes!("../tests/golden/v1-watermark/0000000000000001-0000000000000001.wal"),
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 2_000, segment);
}
