//! What every `Journal` keeps.
//!
//! Knows nothing of files: a journal is opened by name and the same name is the same storage.
//! Invariant checked above all: what was acknowledged is read back, in order, after reopening.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Journal, NewRecord, Record};
use tinkerbell_core::words::{Lsn, Subject, TaskId};

/// Opens the journal of that name, making it when it is new.
pub trait Open: Fn(&str) -> Result<Arc<dyn Journal>, Fault> {}
impl<F: Fn(&str) -> Result<Arc<dyn Journal>, Fault>> Open for F {}

/// Runs the whole suite.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn suite(open: impl Open) {
    an_empty_journal_has_nothing(&open).await;
    records_come_back_as_they_went_in(&open).await;
    numbers_are_dense_within_an_append_and_rise_between(&open).await;
    reading_starts_anywhere_and_stops_at_the_limit(&open).await;
    reopening_keeps_records_and_raises_the_epoch(&open).await;
    a_closed_journal_refuses_appends_and_still_reads(&open).await;
    kinds_of_the_journal_itself_are_refused(&open).await;
    concurrent_appends_are_all_kept(&open).await;
    the_newest_checkpoint_comes_back(&open).await;
    compaction_drops_only_what_is_not_needed(&open).await;
}

/// Compacts until nothing more is done; gives how many records are gone.
async fn compact(journal: &Arc<dyn Journal>, kept: &BTreeSet<Lsn>) -> u64 {
    let mut dropped = 0;
    for _ in 0..50 {
        let kept = kept.clone();
        let done = journal.compact(Arc::new(move |lsn, _, _| kept.contains(&lsn))).await.expect("compacts");
        dropped += done.dropped;
        if done.segments == 0 && done.dropped == 0 {
            return dropped;
        }
    }
    panic!("compaction never comes to an end");
}

/// The part of the suite that is about compaction; also for adapters that keep less than the whole.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn compaction_drops_only_what_is_not_needed(open: &impl Open) {
    let mut journal = open("compact").expect("opens");
    for n in 0..60 {
        let long = NewRecord { payload: Bytes::from(vec![n; 5_000]), ..record(17, "") };
        put(&journal, vec![record(16, &format!("n{n}")), long]).await;
    }
    let mut before = all(&journal).await;
    for keep in [10, 20, usize::MAX] {
        // What was written so far is sealed at the latest when the journal is opened again.
        journal.close().await.expect("closes");
        drop(journal);
        journal = open("compact").expect("opens again");
        let tip = journal.state().tip;
        let kept: BTreeSet<Lsn> = before.iter().filter(|r| r.kind == 16).map(|r| r.lsn).step_by(keep).collect();
        let dropped = compact(&journal, &kept).await;
        let seen = all(&journal).await;
        assert!(dropped > 0, "sealed segments lose what is not needed");
        assert_eq!(dropped, (before.len() - seen.len()) as u64, "the records that are gone are counted");
        assert!(before.iter().filter(|r| kept.contains(&r.lsn)).all(|r| seen.contains(r)), "needed records are read unchanged");
        assert!(seen.iter().all(|r| before.contains(r)), "numbers stay");
        assert_eq!(journal.state().tip, tip, "the tip stays, whatever became of its record");
        for from in 1..=tip.0 {
            let expected = seen.iter().find(|r| r.lsn.0 >= from);
            let next = journal.read(Lsn(from), 1).await.expect("reads");
            assert_eq!(next.first(), expected, "reading from {from} skips what is gone");
        }
        let (first, _) = put(&journal, vec![record(16, "later"), record(17, "later")]).await;
        assert!(first > tip, "appends go on behind the tip");
        before = all(&journal).await;
    }
    journal.close().await.expect("closes");
    drop(journal);
    let again = open("compact").expect("opens again");
    assert_eq!(all(&again).await, before, "what is left survives another opening");
}

async fn the_newest_checkpoint_comes_back(open: &impl Open) {
    let journal = open("checkpoint").expect("opens");
    assert_eq!(journal.restore().await.expect("reads"), None, "a new journal has no checkpoint");
    let (_, last) = put(&journal, vec![record(16, "one")]).await;
    journal.checkpoint(last, Bytes::from_static(b"old")).await.expect("keeps it");
    journal.checkpoint(last, Bytes::from_static(b"new")).await.expect("replaces it");
    journal.close().await.expect("closes");
    drop(journal);
    let again = open("checkpoint").expect("opens again");
    assert_eq!(again.restore().await.expect("reads"), Some((last, Bytes::from_static(b"new"))), "the newest checkpoint survives");
}

/// A record of the given kind and payload.
#[must_use]
pub fn record(kind: u16, payload: &str) -> NewRecord {
    NewRecord {
        kind,
        schema: 1,
        task: Some(TaskId(u128::from(kind) << 64 | 7)),
        subject: Subject(1),
        blob: false,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

async fn put(journal: &Arc<dyn Journal>, records: Vec<NewRecord>) -> (Lsn, Lsn) {
    let appended = journal.append(records).expect("append is accepted");
    appended.durable.await.expect("append becomes durable");
    (appended.first, appended.last)
}

async fn all(journal: &Arc<dyn Journal>) -> Vec<Record> {
    journal.read(Lsn(1), usize::MAX).await.expect("the journal can be read")
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect()
}

async fn an_empty_journal_has_nothing(open: &impl Open) {
    let journal = open("empty").expect("opens");
    assert_eq!(journal.state().tip, Lsn(0), "an empty journal's tip is 0");
    assert!(all(&journal).await.is_empty(), "an empty journal has no records");
    journal.close().await.expect("closes");
    let again = open("empty").expect("opens again");
    assert_eq!(again.state().tip, Lsn(0), "closing adds no record that a reader sees");
    assert!(all(&again).await.is_empty(), "closing adds no record that a reader sees");
}

async fn records_come_back_as_they_went_in(open: &impl Open) {
    let journal = open("same").expect("opens");
    let sent = vec![
        NewRecord { kind: 16, schema: 1, task: None, subject: Subject(0), blob: false, payload: Bytes::new() },
        NewRecord {
            kind: u16::MAX,
            schema: 255,
            task: Some(TaskId(u128::MAX)),
            subject: Subject(1),
            blob: true,
            payload: Bytes::from(vec![7; 44]),
        },
        NewRecord {
            kind: 17,
            schema: 0,
            task: Some(TaskId(1)),
            subject: Subject(2),
            blob: false,
            payload: Bytes::from(vec![0xa5; 100_000]),
        },
    ];
    let (first, last) = put(&journal, sent.clone()).await;
    let seen = all(&journal).await;
    assert_eq!(seen.len(), sent.len(), "all records are read");
    for (back, new) in seen.iter().zip(&sent) {
        let NewRecord { subject, .. } = *new;
        let same =
            NewRecord { kind: back.kind, schema: back.schema, task: back.task, subject, blob: back.blob, payload: back.payload.clone() };
        assert_eq!(&same, new, "a record comes back as it went in");
    }
    assert_eq!(seen.first().map(|r| r.lsn), Some(first), "the first record has the first number");
    assert_eq!(seen.last().map(|r| r.lsn), Some(last), "the last record has the last number");
    assert_eq!(journal.state().tip, last, "the tip is the newest durable record");
}

async fn numbers_are_dense_within_an_append_and_rise_between(open: &impl Open) {
    let journal = open("numbers").expect("opens");
    let mut before = Lsn(0);
    for size in [1_u16, 5, 2] {
        let (first, last) = put(&journal, (0..size).map(|n| record(16 + n, "x")).collect()).await;
        assert!(first > before, "numbers rise from one append to the next");
        assert_eq!(last.0 - first.0 + 1, u64::from(size), "numbers are dense within one append");
        before = last;
    }
    let seen: Vec<u64> = all(&journal).await.iter().map(|r| r.lsn.0).collect();
    assert!(seen.is_sorted(), "records are read in order: {seen:?}");
    assert_eq!(seen.len(), 8, "every record is read once");
}

async fn reading_starts_anywhere_and_stops_at_the_limit(open: &impl Open) {
    let journal = open("read").expect("opens");
    for n in 0..40 {
        put(&journal, vec![record(16, &format!("a{n}")), record(16, &format!("b{n}"))]).await;
    }
    let whole = all(&journal).await;
    assert_eq!(whole.len(), 80, "every record is read");
    for (at, from) in whole.iter().enumerate() {
        for limit in [0, 1, 3, 100] {
            let part = journal.read(from.lsn, limit).await.expect("reads");
            let expected: Vec<&Record> = whole.iter().skip(at).take(limit).collect();
            assert_eq!(part.iter().collect::<Vec<_>>(), expected, "from {} limit {limit}", from.lsn);
        }
    }
    assert_eq!(journal.read(Lsn(0), 1).await.expect("reads").len(), 1, "0 reads from the start");
    let past = journal.read(journal.state().tip.next(), 10).await.expect("reads");
    assert!(past.is_empty(), "reading after the tip gives nothing");
}

async fn reopening_keeps_records_and_raises_the_epoch(open: &impl Open) {
    let (mut epoch, mut sent, mut tip) = (0, Vec::new(), Lsn(0));
    for round in 0..4 {
        let journal = open("reopen").expect("opens");
        assert!(journal.state().epoch > epoch, "the epoch rises with each opening");
        assert_eq!(journal.state().tip, tip, "the tip survives");
        assert_eq!(texts(&all(&journal).await), sent, "the records survive");
        epoch = journal.state().epoch;
        let text = format!("round {round}");
        let (first, last) = put(&journal, vec![record(20, &text)]).await;
        assert!(first > tip, "numbers go on after reopening");
        (tip, sent) = (last, [sent, vec![text]].concat());
        if round % 2 == 0 {
            journal.close().await.expect("closes");
        }
        drop(journal);
    }
}

async fn a_closed_journal_refuses_appends_and_still_reads(open: &impl Open) {
    let journal = open("closed").expect("opens");
    let queued = journal.append(vec![record(16, "last words")]).expect("append is accepted");
    journal.close().await.expect("closes");
    queued.durable.await.expect("closing writes what was queued");
    assert!(journal.append(vec![record(16, "late")]).is_err(), "a closed journal refuses appends");
    assert_eq!(texts(&all(&journal).await), ["last words"], "a closed journal can be read");
    journal.close().await.expect("closing twice is harmless");
    let other = open("closed").expect("a closed journal can be opened again while the old handle lives");
    assert_eq!(texts(&all(&other).await), ["last words"], "records survive closing");
}

async fn kinds_of_the_journal_itself_are_refused(open: &impl Open) {
    let journal = open("kinds").expect("opens");
    for kind in [0, 1, 15] {
        assert!(journal.append(vec![record(16, "good"), record(kind, "bad")]).is_err(), "kind {kind} is reserved");
    }
    let nothing = journal.append(Vec::new()).expect("appending nothing is harmless");
    nothing.durable.await.expect("appending nothing is harmless");
    put(&journal, vec![record(16, "good")]).await;
    assert_eq!(texts(&all(&journal).await), ["good"], "a refused append leaves nothing behind");
}

async fn concurrent_appends_are_all_kept(open: &impl Open) {
    let journal = open("many").expect("opens");
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for n in 0..25 {
                    let text = format!("{writer}/{n}");
                    let (first, last) = put(&journal, vec![record(16, &text), record(17, &text)]).await;
                    assert_eq!(last, first.next(), "an append is not split");
                    numbers.push((first, text));
                }
                numbers
            })
        })
        .collect();
    let mut expected = Vec::new();
    for writer in writers {
        expected.extend(writer.await.expect("writer ends"));
    }
    expected.sort();
    let seen: Vec<(Lsn, String)> =
        all(&journal).await.iter().filter(|r| r.kind == 16).map(|r| (r.lsn, String::from_utf8_lossy(&r.payload).into_owned())).collect();
    assert_eq!(seen, expected, "every acknowledged append is read, in the order of its number");
}
