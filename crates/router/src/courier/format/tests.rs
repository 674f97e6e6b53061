//! Version 1 can be read for ever: golden files written once.
//!
//! A golden file is never written anew; a change that needs it is a new version.

use super::*;
use prost::Message as _;
use tinkerbell_core::event::PartKind;

fn all() -> (Head, Vec<Event>) {
    let head = Head {
        version: 1,
        id: "0000000000000000000000000000002a-7-1".into(),
        model: "local/m".into(),
        started_ms: 1_790_000_000_000,
        input_tokens: 120,
    };
    let tokens = |input| Tokens { input, cached: 2, cache_write: 3, output: 4 };
    let part = Part { kind: PartKind::Call as i32, text: "{\"path\":\"a\"}".into(), call_id: "c1".into(), tool: "read".into() };
    let made = Made {
        provider: "local".into(),
        wire: "openai".into(),
        host: "127.0.0.1:1".into(),
        asked: "m".into(),
        served: "m-1".into(),
        reply_id: "r".into(),
    };
    let answer = Answer {
        parts: vec![part],
        made: Some(made),
        usage: Some(tokens(10)),
        estimated: true,
        stop: "calls".into(),
        retries: 2,
        lost: Some(tokens(20)),
    };
    let failure = Failure {
        too_long: Some(TooLong { limit: Some(9) }),
        code: "TB-ROUTER-009".into(),
        exit: 69,
        message: "busy".into(),
        hints: vec!["wait".into()],
        retryable: true,
        retry_after_ms: Some(60_000),
    };
    let retrying = Retrying { why: "rate limit (429)".into(), wait_ms: 1_500, spent: Some(tokens(5)) };
    let kinds = [
        Kind::Text("hello ".into()),
        Kind::Reasoning("hm".into()),
        Kind::Retrying(retrying),
        Kind::Done(answer),
        Kind::Failed(failure),
        Kind::Cancelled(Cancelled {}),
    ];
    (head, kinds.into_iter().map(Event::of).collect())
}

#[test]
fn spool_of_version_1_is_read() {
    let golden = include_bytes!("../../../tests/golden/v1/spool");
    let (head, events) = all();
    let mut written = MAGIC.to_vec();
    written.extend(frame(&head.encode_to_vec()));
    events.iter().for_each(|event| written.extend(frame(&event.encode_to_vec())));
    assert_eq!(written, golden, "what is written now is the golden form");
    let (payload, mut at) = unframe(&golden[8..]).unwrap();
    assert_eq!(Head::decode(payload).unwrap(), head);
    at += 8;
    for event in events {
        let (payload, len) = unframe(&golden[at..]).unwrap();
        assert_eq!(Event::decode(payload).unwrap(), event);
        at += len;
    }
    assert_eq!(at, golden.len());
}

#[test]
fn a_frame_that_is_torn_or_changed_is_none() {
    let whole = frame(b"payload");
    assert_eq!(unframe(&whole), Some((&b"payload"[..], whole.len())));
    for len in 0..whole.len() {
        assert_eq!(unframe(&whole[..len]), None, "cut at {len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(unframe(&bad), None, "bit {bit}");
    }
}

#[test]
fn events_of_a_later_release_are_skipped() {
    // Field 99 of an event: a kind that nobody knows yet.
    let event = Event::decode(&[0x9a, 0x06, 0x01, b'x'][..]).unwrap();
    assert_eq!((event.kind.clone(), event.is_last()), (None, false));
}
