//! The canary matrix where its bulk is: what a keeper does with output, without a process.
//!
//! The true redactor, stream and spool; each run has values, forms and cuts of its own, and looks at the
//! spool's raw files, at each pipe's own bytes in them, and at what readers get.
//! `TINKERBELL_CANARY_RUNS` says how many runs. Invariant: a run without a leak in it proves nothing, so
//! the leak must be found before it is looked for.

use super::super::*;
use crate::format::Frame;
use std::sync::Arc;
use tinkerbell_secret::{Named, Redactor, Secret, Stream};
use tinkerbell_testkit::canary::{Run, SAME};

/// Files so small that every run goes on from one to the next.
const CAPS: Caps = Caps { head_bytes: 2_000, tail_bytes: 1_500 };

fn runs() -> usize {
    std::env::var("TINKERBELL_CANARY_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

/// What knows the values of both runs.
fn redactor(pipes: [&Run; 2]) -> Arc<Redactor> {
    let values: Vec<Named> = pipes.iter().flat_map(|run| &run.values).map(|(name, value)| (name.clone(), Secret::shared(value))).collect();
    Arc::new(Redactor::new(&values))
}

/// Gives the pieces of two runs to two pipes by turns, as a keeper takes them.
fn keep(dir: &Path, pipes: [&Run; 2], redactor: &Arc<Redactor>) {
    let mut writer = Writer::create(dir, CAPS).unwrap();
    let mut streams = [Stream::new(redactor.clone()), Stream::new(redactor.clone())];
    for at in 0..pipes.iter().map(|run| run.pieces.len()).max().unwrap_or(0) {
        for (index, run) in pipes.iter().enumerate() {
            let clean = run.pieces.get(at).map(|piece| streams[index].push(piece)).unwrap_or_default();
            writer.push(index as u8 + 1, at as u64, &clean);
        }
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        writer.push(index as u8 + 1, 0, &stream.finish());
    }
}

/// Each pipe's bytes, as they stand in the files.
fn by_pipe(dir: &Path) -> [Vec<u8>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for name in FILES {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
        let mut rest = bytes.get(SPOOL_MAGIC.len()..).unwrap_or_default();
        while let Some((frame, length)) = Frame::decode(rest) {
            found[usize::from(frame.stream) - 1].extend_from_slice(frame.bytes);
            rest = &rest[length..];
        }
    }
    found
}

#[test]
fn no_canary_reaches_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (mut leaks, mut replaced, mut known) = (0, 0, Arc::default());
    for number in 0..runs() {
        let runs = [Run::of(number), Run::of(number + 1_000_000)];
        if number % SAME == 0 {
            known = redactor([&runs[0], &runs[1]]);
        }
        keep(dir.path(), [&runs[0], &runs[1]], &known);
        let mut read = Vec::new();
        let (mut cursor, step) = (Cursor::default(), 1 + number % 300);
        loop {
            let chunk = super::super::read(dir.path(), read.len() as u64, step, &mut cursor).unwrap();
            if chunk.bytes.is_empty() {
                break;
            }
            // What no file holds any more is left out.
            read.resize(usize::try_from(chunk.offset).unwrap(), b'?');
            read.extend_from_slice(&chunk.bytes);
        }
        let raw = FILES.map(|name| std::fs::read(dir.path().join(name)).unwrap_or_default()).concat();
        let [first, second] = by_pipe(dir.path());
        for run in &runs {
            assert!(run.found_in(run.text.as_bytes()).is_some(), "{number}: nothing to find");
            leaks += run.leaks.len();
            for (sink, bytes) in [("raw files", &raw), ("what readers get", &read), ("one pipe", &first), ("the other pipe", &second)] {
                if let Some(found) = run.found_in(bytes) {
                    panic!("run {number}, {sink}: {found} in\n{}\nfrom\n{}", String::from_utf8_lossy(bytes), run.text);
                }
            }
        }
        replaced += String::from_utf8_lossy(&raw).matches("[secret ").count();
        for name in FILES {
            std::fs::remove_file(dir.path().join(name)).ok();
        }
    }
    eprintln!("{} runs of two pipes, {leaks} leaks, {replaced} names in their places", runs());
    assert!(replaced > runs(), "{replaced}");
}
