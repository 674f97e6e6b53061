//! The spool keeps the beginning and the end, and never a byte that does not match its sum.

mod canary;

use super::*;

fn all(dir: &Path) -> Vec<Chunk> {
    let (mut offset, mut chunks) = (0, Vec::new());
    loop {
        let chunk = read(dir, offset, 100, &mut Cursor::default()).unwrap();
        if chunk.bytes.is_empty() {
            return chunks;
        }
        offset = chunk.next;
        chunks.push(chunk);
    }
}

fn joined(dir: &Path) -> Vec<u8> {
    all(dir).iter().flat_map(|chunk| chunk.bytes.to_vec()).collect()
}

#[test]
fn small_output_comes_back_whole_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), Caps::default()).unwrap();
    writer.push(1, 5, b"hello ");
    writer.push(2, 6, b"");
    writer.push(2, 7, b"world");
    assert_eq!(joined(dir.path()), b"hello world");
    let mut cursor = Cursor::default();
    for at in [0_u64, 3, 6, 8, 11, 2] {
        let chunk = read(dir.path(), at, 1000, &mut cursor).unwrap();
        assert_eq!(chunk.bytes, b"hello world"[at as usize..], "{at}");
        assert_eq!((chunk.offset, chunk.next), (at, 11));
    }
    assert_eq!(read(dir.path(), 2, 3, &mut cursor).unwrap().bytes, "llo");
    let total = writer.total();
    assert_eq!((total.bytes, total.dropped), (11, 0));
    assert_eq!(total.sha256, "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
}

#[test]
fn large_output_keeps_head_and_tail_and_counts_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let caps = Caps { head_bytes: 400, tail_bytes: 300 };
    let mut writer = Writer::create(dir.path(), caps).unwrap();
    for n in 0..200 {
        writer.push(1, n, format!("line {n:04}\n").as_bytes());
    }
    let text = String::from_utf8(joined(dir.path())).unwrap();
    assert!(text.starts_with("line 0000\n") && text.ends_with("line 0199\n"), "{text}");
    let total = writer.total();
    assert_eq!(total.bytes, 2000);
    assert_eq!(total.dropped, 2000 - text.len() as u64);
    let chunks = all(dir.path());
    assert!(chunks.windows(2).any(|pair| pair[0].next < pair[1].offset), "the gap shows");
}

#[test]
fn damaged_frames_end_the_reading() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), Caps::default()).unwrap();
    writer.push(1, 0, b"good");
    writer.push(1, 0, b"evil");
    let path = dir.path().join("spool");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(joined(dir.path()), b"good");
    std::fs::write(&path, &bytes[..last - 10]).unwrap();
    assert_eq!(joined(dir.path()), b"good");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(joined(dir.path()), b"");
}
