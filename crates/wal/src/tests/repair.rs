//! Repair: what it says of every kind of damage, that it does exactly that, and nothing before.

use super::compact::{compact, needs};
use super::memory::MemDisk;
use super::{open_with, options, put, recovered};
use crate::disk::Disk;
use crate::format::{HEADER_BYTES, Header};
use crate::repair::{Act, Plan, Repair};
use crate::scan::frames;
use crate::{Error, checkpoint};
use std::collections::BTreeMap;
use std::sync::Arc;
use tinkerbell_core::port::Journal;
use tinkerbell_core::words::Lsn;

type Files = BTreeMap<String, Vec<u8>>;

/// Nine records in three openings, each in a segment of its own and closed in order.
async fn journal() -> Files {
    let disk = MemDisk::default();
    for round in 0..3 {
        let wal = open_with(&disk, &options(), round).unwrap();
        for n in 0..3 {
            put(&wal, &format!("{round}.{n}"), 40).await.unwrap();
        }
        wal.close().await.unwrap();
    }
    disk.files()
}

fn texts(upto: usize) -> Vec<String> {
    (0..3).flat_map(|round| (0..3).map(move |n| format!("{round}.{n}"))).take(upto).collect()
}

fn name(files: &Files, nth: usize) -> String {
    files.keys().nth(nth).unwrap().clone()
}

fn changed(files: &Files, nth: usize, change: impl FnOnce(&mut Vec<u8>)) -> MemDisk {
    let mut files = files.clone();
    change(files.values_mut().nth(nth).unwrap());
    MemDisk::from_files(&files)
}

fn without(files: &Files, nth: usize) -> MemDisk {
    let gone = name(files, nth);
    MemDisk::from_files(&files.iter().filter(|(name, _)| **name != gone).map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
}

fn place_of(files: &Files, nth: usize, text: &str) -> usize {
    files.values().nth(nth).unwrap().windows(text.len()).position(|w| w == text.as_bytes()).unwrap()
}

fn plan(disk: &MemDisk, from: Option<&MemDisk>) -> Plan {
    let before = disk.files();
    let plan = Repair::look_on(Arc::new(disk.clone()), from.map(|from| from as &dyn Disk)).unwrap().plan().clone();
    assert_eq!(disk.files(), before, "looking changes nothing");
    plan
}

/// Repairs, and checks that every file that was replaced lies aside as it was.
fn apply(disk: &MemDisk, from: Option<&MemDisk>) -> Vec<String> {
    let before = disk.files();
    let repaired = Repair::look_on(Arc::new(disk.clone()), from.map(|from| from as &dyn Disk)).unwrap().apply().unwrap();
    let after = disk.files();
    for aside in &repaired.aside {
        let (old, _) = aside.rsplit_once(".damaged-").unwrap();
        assert_eq!(after[aside], before[old], "{aside}");
    }
    for (name, bytes) in before.iter().filter(|(name, _)| !name.ends_with(".new")) {
        let kept = after.get(name) == Some(bytes) || repaired.aside.iter().any(|aside| aside.starts_with(name.as_str()));
        assert!(kept, "{name} was changed without a copy");
    }
    let found = recovered(disk).unwrap();
    let wal = open_with(disk, &options(), 77).unwrap();
    assert_eq!(wal.state().tip, repaired.tip);
    drop(wal);
    assert_eq!(recovered(disk).unwrap(), found);
    found
}

#[tokio::test]
async fn a_whole_journal_needs_nothing() {
    let disk = MemDisk::from_files(&journal().await);
    let tip = Lsn(recovered_tip(&disk.files()));
    assert_eq!(plan(&disk, None), Plan { stands: tip, tip, ..Plan::default() });
    assert_eq!(apply(&disk, None), texts(9));
}

#[tokio::test]
async fn the_newest_part_is_cut_behind_the_last_good_batch() {
    let files = journal().await;
    let at = place_of(&files, 2, "2.1");
    let disk = changed(&files, 2, |bytes| bytes[at] = b'X');
    let told = plan(&disk, None);
    let [step] = &told.steps[..] else { panic!("{told:?}") };
    let begins = at as u64 - 48;
    assert_eq!((step.damage.offset, &step.damage.file, &step.act), (begins, &name(&files, 2), &Act::Cut { at: begins }));
    // Two batches of one record and a trailer, and the mark of the shutdown, whose own trailer nothing
    // vouches for; 2.2 is whole and can be read in the copy.
    assert_eq!((step.loses, step.whole), (Some((step.damage.lsn, Lsn(step.damage.lsn.0 + 3))), 1));
    assert_eq!(apply(&disk, None), texts(7));
    assert!(disk.files().contains_key(&format!("{}.damaged-1", name(&files, 2))));
}

#[tokio::test]
async fn a_second_repair_takes_the_next_free_name() {
    let files = journal().await;
    let at = place_of(&files, 2, "2.1");
    let disk = changed(&files, 2, |bytes| bytes[at] ^= 1);
    disk.put(&format!("{}.damaged-1", name(&files, 2)), b"kept".to_vec());
    apply(&disk, None);
    let after = disk.files();
    assert_eq!(after[&format!("{}.damaged-1", name(&files, 2))], b"kept");
    assert!(after.contains_key(&format!("{}.damaged-2", name(&files, 2))));
}

#[tokio::test]
async fn a_watermark_behind_the_cut_does_not_keep_the_journal_shut() {
    let files = journal().await;
    let disk = changed(&files, 2, |bytes| {
        let incarnation = Header::decode(bytes).unwrap().incarnation;
        let slot = crate::format::Slot { sequence: 2, acked: 500, incarnation };
        bytes[1024..1536].copy_from_slice(&slot.encode());
    });
    let told = plan(&disk, None);
    assert_eq!(told.steps[0].loses.unwrap().1, Lsn(500));
    assert_eq!(apply(&disk, None), texts(9));
}

#[tokio::test]
async fn a_damaged_header_of_the_newest_segment_begins_it_anew_or_is_taken_from_a_copy() {
    let files = journal().await;
    let backup = MemDisk::from_files(&files);
    for at in [0, 17, 40, 300, 3000] {
        let disk = changed(&files, 2, |bytes| bytes[at] ^= 1);
        let told = plan(&disk, None);
        assert_eq!((&told.steps[0].act, told.steps[0].whole), (&Act::Cut { at: HEADER_BYTES as u64 }, 3), "byte {at}");
        assert_eq!(apply(&disk, None), texts(6), "byte {at}");
        let disk = changed(&files, 2, |bytes| bytes[at] ^= 1);
        assert_eq!(apply(&disk, Some(&backup)), texts(9), "byte {at}");
    }
    let short = changed(&files, 2, |bytes| bytes.truncate(100));
    assert_eq!(apply(&short, None), texts(6));
}

#[tokio::test]
async fn damage_that_later_records_stand_on_is_mended_by_a_copy_only() {
    let files = journal().await;
    let backup = MemDisk::from_files(&files);
    let at = place_of(&files, 0, "0.1");
    let damaged = [
        ("a flipped bit", changed(&files, 0, |bytes| bytes[at] ^= 1)),
        ("a damaged header", changed(&files, 1, |bytes| bytes[20] ^= 1)),
        ("a torn tail that another segment follows", changed(&files, 1, |bytes| bytes.truncate(bytes.len() - 1))),
        ("a cut to the header", changed(&files, 1, |bytes| bytes.truncate(HEADER_BYTES))),
        ("a missing first segment", without(&files, 0)),
        ("a missing segment", without(&files, 1)),
        ("a foreign file", {
            let other = files.values().nth(2).unwrap().clone();
            changed(&files, 1, move |bytes| *bytes = other)
        }),
    ];
    for (what, disk) in damaged {
        let told = plan(&disk, None);
        assert!(told.steps.is_empty() && told.stuck.is_some(), "{what}: {told:?}");
        let refused = Repair::look_on(Arc::new(disk.clone()), None).unwrap().apply().unwrap_err();
        assert_eq!(refused.code(), "TB-WAL-012", "{what}");
        let told = plan(&disk, Some(&backup));
        assert!(matches!(&told.steps[..], [step] if matches!(step.act, Act::Take { .. }) && step.loses.is_none()), "{what}: {told:?}");
        assert_eq!(apply(&disk, Some(&backup)), texts(9), "{what}");
    }
}

#[tokio::test]
async fn several_damaged_segments_are_mended_together_or_not_at_all() {
    let files = journal().await;
    let hurt = |files: &Files| {
        let mut files = files.clone();
        files.values_mut().for_each(|bytes| bytes[4200] ^= 1);
        MemDisk::from_files(&files)
    };
    let disk = hurt(&files);
    assert_eq!(plan(&disk, Some(&MemDisk::from_files(&files))).steps.len(), 3);
    assert_eq!(apply(&disk, Some(&MemDisk::from_files(&files))), texts(9));
    // A backup of two of them: the newest is cut. One of the newest alone: the others hold it up.
    let disk = hurt(&files);
    assert_eq!(apply(&disk, Some(&without(&files, 2))), texts(6));
    let disk = hurt(&files);
    let told = plan(&disk, Some(&without(&files, 1)));
    assert_eq!((told.steps.len(), told.stuck.unwrap().0.file), (1, name(&files, 1)));
}

#[tokio::test]
async fn a_copy_that_does_not_fit_is_refused_by_name() {
    let files = journal().await;
    let at = place_of(&files, 1, "1.1");
    let disk = changed(&files, 1, |bytes| bytes[at] ^= 1);
    // The copy is damaged as well; it is older; it is another segment of the same name.
    let other = {
        let disk = MemDisk::default();
        for round in 10..13 {
            let wal = open_with(&disk, &options(), round).unwrap();
            for n in 0..3 {
                put(&wal, &format!("{round}.{n}"), 40).await.unwrap();
            }
            wal.close().await.unwrap();
        }
        disk
    };
    assert_eq!(other.files().keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    for from in [changed(&files, 1, |bytes| bytes[4200] ^= 1), changed(&files, 1, |bytes| bytes.truncate(4096 + 200)), other] {
        let told = plan(&disk, Some(&from));
        assert!(told.stuck.is_some() && told.refused.len() == 1 && told.refused[0].contains(&name(&files, 1)), "{told:?}");
    }
}

#[tokio::test]
async fn an_older_copy_of_the_newest_segment_says_what_it_lacks() {
    let files = journal().await;
    let at = place_of(&files, 2, "2.0");
    let disk = changed(&files, 2, |bytes| bytes[at] ^= 1);
    let end = place_of(&files, 2, "2.2") - 48;
    let older = changed(&files, 2, |bytes| bytes.truncate(end));
    let told = plan(&disk, Some(&older));
    assert!(matches!(told.steps[0].act, Act::Take { .. }), "{told:?}");
    let (first, last) = told.steps[0].loses.unwrap();
    assert_eq!(last.0 - first.0, 1, "2.2 and its trailer were acknowledged before the mark");
    assert_eq!(apply(&disk, Some(&older)), texts(8));
}

#[tokio::test]
async fn a_compacted_segment_is_taken_from_a_copy_and_a_lost_voucher_is_not_cut_away() {
    let disk = MemDisk::from_files(&journal().await);
    let wal = open_with(&disk, &options(), 3).unwrap();
    compact(&wal, &needs(|lsn| lsn % 8 == 1)).await;
    drop(wal);
    let files = disk.files();
    let whole = recovered(&MemDisk::from_files(&files)).unwrap();
    let compacted = files.keys().position(|name| name.len() > 40).unwrap();
    for change in [|bytes: &mut Vec<u8>| bytes[4100] ^= 1, |bytes: &mut Vec<u8>| bytes[30] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(4200)]
    {
        let disk = changed(&files, compacted, change);
        assert!(plan(&disk, None).stuck.is_some());
        assert_eq!(apply(&disk, Some(&MemDisk::from_files(&files))), whole);
    }
    let gone = without(&files, compacted);
    assert!(plan(&gone, None).stuck.is_some());
    assert_eq!(apply(&gone, Some(&MemDisk::from_files(&files))), whole);
    // The record that vouches for it stands in the newest segment and is damaged: cutting it would
    // leave a compacted segment that nobody vouches for.
    let newest = files.len() - 1;
    let bytes = files.values().nth(newest).unwrap();
    let voucher =
        frames(&bytes[HEADER_BYTES..]).filter_map(|(at, frame)| Some((at, frame.ok()?))).find(|(_, frame)| frame.kind == 4).unwrap().0;
    let disk = changed(&files, newest, |bytes| {
        bytes[HEADER_BYTES + voucher as usize + 60] ^= 1;
        let incarnation = Header::decode(bytes).unwrap().incarnation;
        let slot = crate::format::Slot { sequence: 2, acked: 500, incarnation };
        bytes[1024..1536].copy_from_slice(&slot.encode());
    });
    let told = plan(&disk, None);
    assert!(told.stuck.is_some() && told.steps.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_newer_release_and_a_daemon_are_left_alone() {
    let files = journal().await;
    let disk = changed(&files, 2, |bytes| {
        bytes[8] = 2;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..1020]), &bytes[2048..4096]);
        bytes[1020..1024].copy_from_slice(&sum.to_le_bytes());
    });
    assert!(plan(&disk, Some(&MemDisk::from_files(&files))).stuck.unwrap().1.contains("newer release"));
    let disk = MemDisk::from_files(&files);
    let wal = open_with(&disk, &options(), 4).unwrap();
    assert!(matches!(Repair::look_on(Arc::new(disk.clone()), None), Err(Error::Locked { pid: Some(42), .. })));
    drop(wal);
}

#[tokio::test]
async fn a_checkpoint_of_lost_records_goes_aside_and_an_older_one_stays() {
    let files = journal().await;
    let at = place_of(&files, 2, "2.1");
    for (through, stays) in [(1, true), (recovered_tip(&files), false)] {
        let disk = changed(&files, 2, |bytes| bytes[at] ^= 1);
        checkpoint::write(&disk, through, b"image").unwrap();
        assert_eq!(plan(&disk, None).checkpoint, !stays);
        apply(&disk, None);
        let after = disk.files();
        assert_eq!((after.contains_key("checkpoint"), after.contains_key("checkpoint.damaged-1")), (stays, !stays));
    }
}

fn recovered_tip(files: &Files) -> u64 {
    crate::recover::recover(&MemDisk::from_files(files)).unwrap().report.tip.0
}

#[tokio::test]
async fn a_repair_that_is_cut_short_can_be_done_again() {
    let files = journal().await;
    let mut hurt = files.clone();
    hurt.values_mut().for_each(|bytes| bytes[4200] ^= 1);
    let disk = MemDisk::from_files(&hurt);
    let backup = MemDisk::from_files(&files);
    Repair::look_on(Arc::new(disk.clone()), Some(&backup)).unwrap().apply().unwrap();
    let ops = disk.ops();
    assert!(ops.len() > 20);
    for at in 0..=ops.len() {
        let again = MemDisk::from_files(&hurt);
        again.redo(&ops[..at]);
        let texts_now = apply(&again, Some(&backup));
        assert_eq!(texts_now, texts(9), "after act {at}");
    }
}
