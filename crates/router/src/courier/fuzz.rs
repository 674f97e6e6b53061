//! What any bytes must not do to the courier's socket and spools; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; nobody is called.

use super::convert::{self, Words};
use super::format::{Event, Head};
use super::wire::{Reply, Request, Wanted};
use prost::Message;

/// Reads messages and the pieces of spools: what is understood is the same after a journey, and an order
/// that can not be carried out is refused.
pub fn wire(data: &[u8]) {
    journey::<Reply>(data);
    journey::<Event>(data);
    journey::<Head>(data);
    if let Some(Wanted::Order(order)) = journey::<Request>(data).and_then(|request| request.wanted) {
        // Either way it ends with a word.
        drop(convert::read_order(*order, &Words::default()));
    }
}

fn journey<M: Message + Default + PartialEq>(data: &[u8]) -> Option<M> {
    let read = M::decode(data).ok()?;
    let bytes = read.encode_to_vec();
    let again = M::decode(bytes.as_slice()).ok()?;
    // By bytes: a number that is none is unequal to itself.
    assert_eq!(again.encode_to_vec(), bytes);
    Some(read)
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let golden = include_str!("../../tests/golden/v1/courier-wire.txt");
    let seeds: Vec<Vec<u8>> = golden.lines().filter_map(hex).chain([include_bytes!("../../tests/golden/v1/spool").to_vec()]).collect();
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    assert!(seeds.len() > 1, "the golden file is hexadecimal");
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, wire);
}

/// The last word of a line, where it is hexadecimal.
#[cfg(test)]
fn hex(line: &str) -> Option<Vec<u8>> {
    let word = line.split_whitespace().next_back().filter(|word| word.len() > 1 && word.len() % 2 == 0)?;
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok()).collect()
}
