//! What any bytes must not do to the reader of a server's messages; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; no server is started.

use crate::lines::{Lines, Piece};
use crate::offer::{Offer, Pages, search};
use crate::plain::hidden;
use crate::server::Server;
use crate::wire::{CallResult, Discovered, Incoming, Initialized, Reply, Search, ToolPage, Use};
use crate::{answer, reader};
use std::collections::BTreeSet;
use std::time::Duration;

/// Reads a server's stream: cuts change nothing, what is answered is one line, and what anybody is shown
/// holds nothing hidden.
pub fn messages(data: &[u8]) {
    let whole = Lines::default().push(data);
    let step = data.first().map_or(1, |byte| usize::from(*byte).max(1));
    let mut lines = Lines::default();
    let pieces: Vec<Piece> = data.chunks(step).flat_map(|chunk| lines.push(chunk)).collect();
    assert_eq!(pieces, whole, "cuts of {step} change the lines");
    let whole = whole.iter().filter_map(|piece| match piece {
        Piece::Line(line) => Some(line.as_slice()),
        Piece::TooLong => None,
    });
    whole.chain([lines.rest()]).for_each(message);
}

/// One line of a server, and whatever could stand in it.
fn message(line: &[u8]) {
    let line = line.trim_ascii();
    if let Ok(message) = serde_json::from_slice::<Incoming<'_>>(line) {
        let is_ours = message.answers(7);
        assert!(!is_ours || message.method.is_none());
        if let (Some(method), Some(id)) = (message.method.as_deref(), message.id) {
            replied(method, id);
        }
        match reader::answer(&message) {
            Some(reader::Answer::Result(raw)) => result(&raw),
            Some(reader::Answer::Error(words)) => assert!(hidden(&words) == 0, "{words}"),
            None => {}
        }
    }
    // Without their envelopes, which are long for bytes of chance.
    if let Ok(text) = std::str::from_utf8(line) {
        result(text);
    }
    // What a model sends for tools of servers.
    let (_searched, _used) = (serde_json::from_slice::<Search>(line).is_ok(), serde_json::from_slice::<Use>(line).is_ok());
}

fn replied(method: &str, id: &serde_json::value::RawValue) {
    let reply = Reply::to(method, id).line();
    assert_eq!(reply.iter().filter(|byte| **byte == b'\n').count(), 1, "an answer is one line");
    let again = serde_json::from_slice::<serde_json::Value>(&reply).ok();
    let same = serde_json::from_str::<serde_json::Value>(id.get()).ok();
    assert!(same.is_none() || again.and_then(|again| again.get("id").cloned()) == same, "the id is the server's own");
}

/// A text as each kind of result.
fn result(raw: &str) {
    if let Ok((text, _)) = answer::read("s.t", raw) {
        assert!(text.starts_with("[data from the MCP tool s.t:") && hidden(&text) == 0, "{text}");
    }
    let _calls = serde_json::from_str::<CallResult<'_>>(raw).is_ok();
    let _greets = serde_json::from_str::<Discovered>(raw).is_ok() || serde_json::from_str::<Initialized>(raw).is_ok();
    if serde_json::from_str::<ToolPage<'_>>(raw).is_err() {
        return;
    }
    let server = server();
    let [one, two] = [(); 2].map(|()| offered(&server, raw));
    assert_eq!(one, two, "the same page is the same offer");
    let Some(offer) = one else { return };
    let pin = offer.pin(1);
    let shown = [offer.question(&server, None), offer.question(&server, Some(&pin))];
    for (title, body) in &shown {
        assert!(hidden(title) + hidden(body) == 0 && body.len() < 512 << 10, "{body}");
    }
    for query in ["", "read write"] {
        assert_eq!(hidden(&search(&[(server.clone(), offer.clone())], query)), 0);
    }
}

fn offered(server: &Server, page: &str) -> Option<Offer> {
    let mut pages = Pages::default();
    pages.take(server, page).ok()?;
    Some(pages.finish(server))
}

fn server() -> Server {
    Server {
        name: "s".to_owned(),
        command: Vec::new(),
        env: Vec::new(),
        network: None,
        reads: false,
        writes: false,
        read: Vec::new(),
        tools: None,
        read_only: BTreeSet::from(["read".to_owned()]),
        timeout: Duration::ZERO,
        fault: None,
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let golden = include_str!("../tests/seeds/messages.jsonl");
    let mut seeds: Vec<&[u8]> = golden.lines().map(str::as_bytes).collect();
    seeds.push(golden.as_bytes());
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, messages);
}
