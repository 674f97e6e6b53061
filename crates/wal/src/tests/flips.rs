//! Every single flipped bit of a whole journal, header and records, told or harmless.
//!
//! `TINKERBELL_FLIP_BYTES` sets the journal's size in bytes. A flip can change what is read of its own
//! segment alone, so that one is read anew and joined to its neighbour as `survey` does; a sample goes
//! the whole way.

use super::memory::MemDisk;
use super::stepped::{put_now, stepped_with};
use super::{options, recovered};
use crate::Options;
use crate::format::{Header, SLOTS, watermark};
use crate::scan::{End, Scanned, scan};
use crate::survey::segment_name;
use std::collections::BTreeMap;
use std::time::Duration;
use tinkerbell_testkit::fake::FakeClock;

/// One flip in this many is read by an opening of the whole journal as well.
const SAMPLE: u64 = 9_973;

/// What became of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// An opening refuses.
    Damage,
    /// The same records are read.
    Same,
    /// The last batch counts as torn; nothing shows that it had been acknowledged.
    Torn,
}

fn journal(size: usize) -> BTreeMap<String, Vec<u8>> {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let options = Options { segment_bytes: 8 * 1024, ..options() };
    let total = || disk.files().values().map(Vec::len).sum::<usize>();
    let mut opening = 0;
    while total() < size {
        opening += 1;
        let wal = stepped_with(&disk, &options, opening, &clock);
        for n in 0..60 {
            put_now(&wal, &format!("{opening}.{n}"), 20 + n * 37 % 900).unwrap();
            // Some segments get a watermark, and some of those a second one.
            if n % 3 == 0 {
                clock.advance(Duration::from_millis(10));
                while wal.step() {}
            }
            if total() >= size {
                break;
            }
        }
    }
    disk.files()
}

fn told(name: &str, flipped: &[u8], (whole, was): (&[u8], &Scanned), next: Option<&Header>) -> Told {
    let Ok(header) = Header::decode(flipped) else { return Told::Damage };
    if segment_name(header.epoch, header.first_lsn) != name {
        return Told::Damage;
    }
    let now = scan(flipped, &header, None, &mut |_, _| {});
    match now.end {
        End::Corrupt { .. } | End::Unreadable { .. } => Told::Damage,
        _ if (now.next, now.head) == (was.next, was.head) => Told::Same,
        _ if next.is_some_and(|next| next.first_lsn != now.next || next.chain != now.head) => Told::Damage,
        _ => {
            let acked = watermark(whole, header.incarnation);
            assert!(next.is_none() && now.next > acked, "{name}: records up to {acked} were acknowledged, {} stand", now.next - 1);
            Told::Torn
        }
    }
}

#[test]
fn every_single_flipped_bit_is_told_or_harmless() {
    let default = if cfg!(debug_assertions) { 12 << 10 } else { 48 << 10 };
    let size = std::env::var("TINKERBELL_FLIP_BYTES").ok().and_then(|size| size.parse().ok()).unwrap_or(default);
    // Unoptimised, the checksums alone take half a minute: then every ninth bit is enough, which is
    // each place in a byte in turn.
    let stride = if cfg!(debug_assertions) { 9 } else { 1 };
    let files = journal(size);
    let texts = recovered(&MemDisk::from_files(&files)).unwrap();
    let names: Vec<&String> = files.keys().collect();
    let (mut damage, mut same, mut torn, mut sampled) = (0_u64, 0_u64, 0_u64, 0_u64);
    for (nth, name) in names.iter().enumerate() {
        let whole = &files[*name];
        let next = names.get(nth + 1).map(|next| Header::decode(&files[*next]).unwrap());
        let mut flipped = whole.clone();
        let was = scan(whole, &Header::decode(whole).unwrap(), None, &mut |_, _| {});
        for bit in (0..whole.len() * 8).step_by(stride) {
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is = told(name, &flipped, (whole, &was), next.as_ref());
            match is {
                Told::Damage => damage += 1,
                Told::Same => same += 1,
                Told::Torn => torn += 1,
            }
            assert!(is != Told::Same || SLOTS.contains(&(bit / 8)), "{name}, bit {bit} is read as if nothing were wrong");
            if (damage + same + torn).is_multiple_of(SAMPLE) {
                sampled += 1;
                let mut all = files.clone();
                all.insert((*name).clone(), flipped.clone());
                let opened = recovered(&MemDisk::from_files(&all));
                assert!(
                    match is {
                        Told::Damage => opened.is_err_and(|error| matches!(error.code(), "TB-WAL-002" | "TB-WAL-009")),
                        Told::Same => opened.unwrap() == texts,
                        Told::Torn => opened.unwrap() == texts[..texts.len() - 1],
                    },
                    "{name}, bit {bit}: {is:?}"
                );
            }
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }
    println!(
        "{} bytes in {} segments: {damage} flips refused, {same} harmless in watermark slots, {torn} in a batch that nothing protected; {sampled} read by a whole opening",
        files.values().map(Vec::len).sum::<usize>(),
        files.len()
    );
    assert!(damage > torn + same);
}
