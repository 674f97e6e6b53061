//! A small journal, as `wal stat | verify | dump` show it.

use super::super::bench::{Bench, Heard};
use super::*;
use crate::clock::{SystemClock, SystemEntropy};
use std::sync::Arc;
use tinkerbell_core::event::{Call, Finished, Intent, Submitted};
use tinkerbell_core::port::{Journal as _, NewRecord};
use tinkerbell_core::words::TaskId;
use tinkerbell_wal::Wal;

const ONE: TaskId = TaskId(0x7f3a_0000_0000_0000_0000_0000_0000_0001);
const TWO: TaskId = TaskId(0x11aa_0000_0000_0000_0000_0000_0000_0002);

async fn fill(bench: &Bench) {
    let wal = Wal::open(tinkerbell_wal::Options::new(bench.places.journal()), Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
    let call = Call { tool: "exec".into(), args: "{\"cmd\":\"ls\"}".into(), ..Call::default() };
    let events = [
        (ONE, Event::Submitted(Submitted { goal: "fix\n\x1b[2Jit".into(), model: "a/b".into(), ..Submitted::default() })),
        (TWO, Event::Submitted(Submitted { goal: "other".into(), model: "a/b".into(), ..Submitted::default() })),
        (ONE, Event::Intent(Intent { seq: 2, class: 0, action: Some(Action::Call(call)), yolo: false })),
        (ONE, Event::Finished(Finished { status: "verified".into(), text: "done".into(), ..Finished::default() })),
    ];
    let at = 1_795_166_043_120;
    let mut records: Vec<NewRecord> = events
        .into_iter()
        .map(|(task, event)| NewRecord {
            kind: event.kind(),
            schema: event::SCHEMA,
            task: Some(task),
            subject: Default::default(),
            blob: false,
            payload: event::encode(event, at).into(),
        })
        .collect();
    let blob = BlobRef { key_id: 1, hash: [0xab; 32], size_bytes: 77 };
    records.push(NewRecord {
        kind: 24,
        schema: event::SCHEMA,
        task: Some(ONE),
        subject: Default::default(),
        blob: true,
        payload: blob.to_bytes().into(),
    });
    wal.append(records).unwrap().durable.await.unwrap();
    wal.close().await.unwrap();
}

fn dumped(bench: &Bench, from: u64, limit: usize, task: Option<&str>) -> Vec<String> {
    let heard = Heard::new();
    assert_eq!(dump(&bench.shop(), from, limit, task, &heard.out), Ok(exit::DONE));
    heard.data().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn records_are_shown_one_a_line() {
    let bench = Bench::new();
    fill(&bench).await;
    let all = dumped(&bench, 1, 100, None);
    assert_eq!(all[0].trim_start(), "1  2026-11-20T09:14:03.120Z  7f3a0000  submitted       a/b: fix \\x1b[2Jit");
    assert!(all[2].ends_with("intent          #2 call exec {\"cmd\":\"ls\"}"), "{}", all[2]);
    assert!(all[3].ends_with("finished        verified (exit 0) done"), "{}", all[3]);
    assert!(all[4].contains("state-saved") && all[4].contains("payload in blob 1-abab"), "{}", all[4]);
    assert_eq!(all.len(), 5);
    assert_eq!(dumped(&bench, 2, 2, None).len(), 2);
    assert_eq!(dumped(&bench, 1, 100, Some("11AA")).len(), 1);
    assert_eq!(dumped(&bench, 1, 2, Some("7f3a")).len(), 2);
    assert_eq!(dumped(&bench, 1, 100, Some(&ONE.to_string())).len(), 4);
}

#[tokio::test]
async fn a_sound_journal_is_counted_and_verified() {
    let (bench, heard) = (Bench::new(), Heard::new());
    assert_eq!(verify(&bench.shop(), &heard.out), Ok(exit::DONE));
    assert!(heard.talk().contains("no journal yet"));
    fill(&bench).await;
    assert_eq!(verify(&bench.shop(), &heard.out), Ok(exit::DONE));
    // The mark of an orderly closing is a record, too.
    assert!(heard.data().starts_with("6 records in 2 batches stand, up to record 5;"), "{}", heard.data());
    assert_eq!(stat(&bench.shop(), false, &heard.out), Ok(exit::DONE));
    for line in ["state     closed in order", "dropped   nothing was compacted yet", "room      ", "watermark "] {
        assert!(heard.data().contains(line), "{line}: {}", heard.data());
    }
    let heard = Heard::new();
    assert_eq!(stat(&bench.shop(), true, &heard.out), Ok(exit::DONE));
    let value: serde_json::Value = serde_json::from_str(&heard.data()).unwrap();
    assert_eq!((value["records"].as_u64(), value["damage"].is_null()), (Some(6), true));
    assert!(value["dropped"] == 0 && value["room"].is_string() && value["segments"][0]["dropped"].is_null(), "{value}");
}

#[tokio::test]
async fn damage_is_named_and_exits_with_one() {
    let bench = Bench::new();
    fill(&bench).await;
    let segment = std::fs::read_dir(bench.places.journal())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some())
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4_096 + 60] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let heard = Heard::new();
    for result in [verify(&bench.shop(), &heard.out), dump(&bench.shop(), 1, 10, None, &heard.out)] {
        let fault = result.unwrap_err();
        assert_eq!((fault.code.0, fault.exit, fault.hints.is_empty()), ("TB-WAL-002", exit::FAILED, false));
    }
    assert_eq!(stat(&bench.shop(), false, &heard.out), Ok(exit::FAILED));
    assert!(heard.talk().contains("tinkerbell wal repair"));
}

#[tokio::test]
async fn a_repair_explains_first_and_then_does_that() {
    let bench = Bench::new();
    fill(&bench).await;
    let heard = Heard::new();
    assert_eq!(repair::repair(&bench.shop(), true, None, &heard.out), Ok(exit::DONE));
    assert!(heard.data().contains("nothing to repair"), "{}", heard.data());
    let dir = bench.places.journal();
    let segment = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[4_096 + 60] ^= 0xff;
    std::fs::write(&segment, &bytes).unwrap();
    let heard = Heard::new();
    assert_eq!(repair::repair(&bench.shop(), false, None, &heard.out), Ok(exit::FAILED));
    let text = heard.data();
    assert!(text.contains("byte 4096, record 1: ") && text.contains("records 1 to 6, which had been acknowledged"), "{text}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
    // From a backup nothing is lost.
    let backup = bench.dir.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    std::fs::write(backup.join(segment.file_name().unwrap()), &whole).unwrap();
    let heard = Heard::new();
    assert_eq!(repair::repair(&bench.shop(), true, Some(&backup), &heard.out), Ok(exit::DONE));
    assert!(heard.data().contains("  loses   nothing") && heard.data().contains(".damaged-1"), "{}", heard.data());
    assert_eq!(verify(&bench.shop(), &heard.out), Ok(exit::DONE));
    let running = Wal::open(tinkerbell_wal::Options::new(&dir), Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
    assert_eq!(repair::repair(&bench.shop(), true, None, &heard.out).unwrap_err().code.0, "TB-WAL-001");
    drop(running);
}

#[tokio::test]
async fn a_record_is_explained_in_words() {
    let bench = Bench::new();
    fill(&bench).await;
    let heard = Heard::new();
    assert_eq!(explain(&bench.shop(), 3, &heard.out), Ok(exit::DONE));
    let text = heard.data();
    assert!(text.starts_with("3  ") && text.contains("#2 call exec"), "{text}");
    assert!(
        text.contains("batch     records 1..6 in one sync") && text.contains("previous  1  ") && text.contains("next      4  "),
        "{text}"
    );
    let heard = Heard::new();
    assert_eq!(explain(&bench.shop(), 6, &heard.out), Ok(exit::DONE));
    assert!(heard.data().starts_with("6  the trailer of a batch"), "{}", heard.data());
    assert_eq!(explain(&bench.shop(), 99, &heard.out).unwrap_err().code.0, "TB-WAL-011");
}

#[test]
fn the_table_of_names_agrees_with_the_events() {
    for event in [Event::Submitted(Submitted::default()), Event::Finished(Finished::default()), Event::OpDone(event::OpDone::default())] {
        assert_eq!(kind_name(event.kind()), event.name());
    }
    assert_eq!((kind_name(31), kind_name(16), kind_name(99)), ("orphan-reaped", "unknown", "unknown"));
}

#[tokio::test]
async fn a_journal_is_archived_restored_and_reads_the_same() {
    let (bench, heard) = (Bench::new(), Heard::new());
    assert_eq!(archive::archive(&bench.shop(), None, &heard.out).await, Ok(exit::DONE));
    assert!(heard.talk().contains("no journal yet"));
    fill(&bench).await;
    let fault = archive::archive(&bench.shop(), None, &heard.out).await.unwrap_err();
    assert_eq!((fault.code.0, fault.exit), ("TB-WAL-021", exit::CONFIG));
    let (store, to) = (bench.dir.path().join("archive"), bench.dir.path().join("restored"));
    let config = format!("[journal]\narchive = {store:?}\n");
    std::fs::create_dir_all(bench.places.config.parent().unwrap()).unwrap();
    std::fs::write(&bench.places.config, config).unwrap();
    assert_eq!(archive::archive(&bench.shop(), None, &heard.out).await, Ok(exit::DONE));
    assert!(heard.data().starts_with("1 segments, ") && heard.talk().contains("blobs"), "{}", heard.data());
    assert_eq!(archive::restore(&store, &to, &heard.out).await, Ok(exit::DONE));
    assert!(heard.data().contains("6 records in 1 segments, "), "{}", heard.data());
    let filter = Filter::default();
    let texts = |dir: &std::path::Path| -> Vec<String> { inspect::dump(dir, &filter, None).unwrap().iter().map(line).collect() };
    assert_eq!(texts(&to), texts(&bench.places.journal()));
    assert_eq!(archive::restore(&store, &to, &heard.out).await.unwrap_err().code.0, "TB-WAL-019");
    let nowhere = bench.dir.path().join("nowhere");
    assert_eq!(archive::restore(&nowhere, &bench.dir.path().join("other"), &heard.out).await.unwrap_err().code.0, "TB-WAL-020");
}

#[tokio::test]
async fn a_running_daemon_is_not_archived_behind_its_back() {
    let (bench, heard) = (Bench::new(), Heard::new());
    fill(&bench).await;
    let wal = Wal::open(tinkerbell_wal::Options::new(bench.places.journal()), Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
    let fault = archive::archive(&bench.shop(), Some(&bench.dir.path().join("archive")), &heard.out).await.unwrap_err();
    assert!(fault.code.0 == "TB-WAL-001" && fault.hints.iter().any(|hint| hint.contains("daemon stop")), "{fault:?}");
    let fault = compact::compact(&bench.shop(), &heard.out).await.unwrap_err();
    assert!(fault.code.0 == "TB-WAL-001" && fault.hints.iter().any(|hint| hint.contains("daemon stop")), "{fault:?}");
    let fault = export::export(&bench.shop(), None, true, &heard.out).await.unwrap_err();
    assert_eq!(fault.code.0, "TB-WAL-001");
    assert_eq!(export::export(&bench.shop(), None, false, &heard.out).await, Ok(exit::DONE));
    drop(wal);
}

/// States of a finished task, each of which the last one replaces, and a checkpoint that says so.
async fn fill_with_old_states(bench: &Bench, checkpoint: bool) {
    let wal = Wal::open(tinkerbell_wal::Options::new(bench.places.journal()), Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
    let state = |_| {
        let event = Event::StateSaved(event::StateSaved { state: vec![7; 200], seq: 1 });
        let (kind, payload) = (event.kind(), event::encode(event, 1).into());
        NewRecord { kind, schema: event::SCHEMA, task: Some(ONE), subject: Default::default(), blob: false, payload }
    };
    wal.append((0..100).map(state).collect()).unwrap().durable.await.unwrap();
    if checkpoint {
        let rows = [&1_u64.to_le_bytes()[..], &0_u64.to_le_bytes(), &ONE.0.to_le_bytes(), &100_u64.to_le_bytes(), &4_u64.to_le_bytes()];
        wal.checkpoint(Lsn(100), [b"TBSCHED1", rows.concat().as_slice()].concat().into()).await.unwrap();
    }
    wal.close().await.unwrap();
}

#[tokio::test]
async fn a_stopped_journal_is_compacted_by_its_checkpoint_and_whole_without_one() {
    let bench = Bench::new();
    let compacted = async || {
        let heard = Heard::new();
        assert_eq!(compact::compact(&bench.shop(), &heard.out).await, Ok(exit::DONE));
        heard.data() + &heard.talk()
    };
    assert!(compacted().await.contains("no journal yet"));
    fill_with_old_states(&bench, false).await;
    assert!(compacted().await.contains("there is no checkpoint"));
    let bench = Bench::new();
    fill_with_old_states(&bench, true).await;
    let heard = Heard::new();
    assert_eq!(compact::compact(&bench.shop(), &heard.out).await, Ok(exit::DONE));
    assert!(heard.data().contains("99 records dropped"), "{}", heard.data());
    assert_eq!(dumped(&bench, 1, 1_000, None).len(), 1);
    assert_eq!(verify(&bench.shop(), &heard.out), Ok(exit::DONE));
    let heard = Heard::new();
    assert_eq!(compact::compact(&bench.shop(), &heard.out).await, Ok(exit::DONE));
    assert!(heard.data().contains(" 0 records dropped"), "{}", heard.data());
}

#[tokio::test]
async fn every_record_is_exported_as_a_line_of_json() {
    let bench = Bench::new();
    fill(&bench).await;
    let exported = async |task: Option<&str>| -> Vec<serde_json::Value> {
        let heard = Heard::new();
        assert_eq!(export::export(&bench.shop(), task, false, &heard.out).await, Ok(exit::DONE));
        heard.data().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = exported(None).await;
    assert_eq!(all.len(), 5);
    assert_eq!(all[0]["lsn"], 1);
    assert_eq!((all[0]["event"].as_str(), all[0]["kind"].as_u64()), (Some("submitted"), Some(17)));
    assert_eq!(all[0]["time"], "2026-11-20T09:14:03.120Z");
    assert_eq!(all[0]["task"], ONE.to_string());
    assert!(all[0]["details"].as_str().unwrap().starts_with("a/b: fix"));
    assert!(all[4]["blob"].as_str().unwrap().starts_with("1-abab") && all[4]["payload"].is_null());
    assert_eq!(exported(Some("11AA")).await.len(), 1);
    // A blob that is not there is an error, not a line that looks whole.
    let heard = Heard::new();
    assert!(export::export(&bench.shop(), None, true, &heard.out).await.unwrap_err().code.0.starts_with("TB-BLOB-"));
}
