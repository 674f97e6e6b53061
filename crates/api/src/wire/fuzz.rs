//! What any bytes must not do to the public JSON; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; nothing is sent anywhere.

use super::{CommandRequest, Envelope, EnvironmentRequest, Problem, SubmitRequest, TaskView, UpgradeRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads each shape of the door: what is understood is the same after a journey.
pub fn wire(data: &[u8]) {
    journey::<SubmitRequest>(data);
    journey::<CommandRequest>(data);
    journey::<EnvironmentRequest>(data);
    journey::<UpgradeRequest>(data);
    journey::<Problem>(data);
    journey::<Envelope>(data);
    journey::<TaskView>(data);
}

fn journey<T: Serialize + DeserializeOwned + PartialEq>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let Ok(text) = serde_json::to_vec(&read) else { return };
    let again = serde_json::from_slice::<T>(&text);
    assert!(again.is_ok_and(|again| again == read), "{}", String::from_utf8_lossy(&text));
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let golden = include_str!("../../tests/golden/v1/events.jsonl");
    let mut seeds: Vec<&[u8]> = golden.lines().map(str::as_bytes).collect();
    seeds.push(include_bytes!("../../tests/golden/v1/problem.json"));
    seeds.push(include_bytes!("../../tests/golden/v1/task-waiting.json"));
    seeds.push(br#"{"goal":"x","cwd":"/","caps":{"steps":1},"env":{"A":"b"}}"#);
    seeds.push(br#"{"command":"undo","all":true}"#);
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, wire);
}
