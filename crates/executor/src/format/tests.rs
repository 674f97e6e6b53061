//! Version 1 can be read for ever: golden files written once.
//!
//! A golden file is never written anew; a change that needs it is a new version.

use super::*;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(golden: &str, value: &T) {
    assert_eq!(&serde_json::from_str::<T>(golden).unwrap(), value);
    assert_eq!(serde_json::to_string(value).unwrap(), golden.trim_end(), "what is written now is the golden form");
    let newer = golden.trim_end().replacen('{', r#"{"of_a_later_release":1,"#, 1);
    assert_eq!(&serde_json::from_str::<T>(&newer).unwrap(), value, "unknown fields are ignored");
}

#[test]
fn files_of_version_1_are_read() {
    let process = |pid| Process { pid, start: 1000 + u64::from(pid.cast_unsigned()) };
    let boot_id = || "5e0a3c6e-0000-4000-8000-000000000001".to_owned();
    check(include_str!("../../tests/golden/v1/lock.json"), &Lock { version: 1, boot_id: boot_id(), keeper: process(10) });
    let started = Started {
        version: 1,
        run: "0000000000000000000000000000002a-7".into(),
        boot_id: boot_id(),
        keeper: process(10),
        cell: process(11),
        init: process(12),
        cgroup: None,
        level: "full".into(),
        epoch: 3,
        generation: 4,
        wall_ms: 1_790_000_000_000,
        groups: Vec::new(),
        means: String::new(),
        network: String::new(),
        layer: None,
    };
    check(include_str!("../../tests/golden/v1/started.json"), &started);
    let grouped =
        Started { groups: vec!["/sys/fs/cgroup/pids/tinkerbell-x".into()], means: "memory cgroup1, disk watch".into(), ..started.clone() };
    check(include_str!("../../tests/golden/v1/started-groups.json"), &grouped);
    let layered = Started { layer: Some("/data/2a/layers/7".into()), ..started.clone() };
    check(include_str!("../../tests/golden/v1/started-layer.json"), &layered);
    let shown = Shown { version: 1, ends: [(7, 11), (9, 20)].into(), connections: [].into() };
    check(include_str!("../../tests/golden/v1/shown.json"), &shown);
    let proxied = Started { network: "proxy".into(), ..started };
    check(include_str!("../../tests/golden/v1/started-proxy.json"), &proxied);
    let told = Shown { connections: [(7, 230)].into(), ..shown };
    check(include_str!("../../tests/golden/v1/shown-connections.json"), &told);
    let trailer = Trailer {
        version: 1,
        status: Some(3),
        signal: None,
        rusage: Usage { user_us: 1, system_us: 2, max_rss_kib: 3 },
        bytes: 11,
        sha256: "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9".into(),
        dropped: 0,
        cause: "deadline".into(),
        wall_ms: 1234,
        lingering: 2,
        why: String::new(),
        spent: None,
    };
    check(include_str!("../../tests/golden/v1/trailer.json"), &trailer);
    let spent = Spent { version: 1, cpu_ms: 5, memory_bytes: 6, processes: 7, disk_bytes: 8, at_ms: 9, ended: true };
    let limited = Trailer { cause: "memory".into(), why: "it held too much".into(), spent: Some(spent), ..trailer };
    check(include_str!("../../tests/golden/v1/trailer-limits.json"), &limited);
    check(include_str!("../../tests/golden/v1/usage.json"), &spent);
    check(include_str!("../../tests/golden/v1/lost.json"), &Lost { version: 1, why: "its keeper is gone".into() });
}

#[test]
fn folded_figures_of_version_1_are_read_and_are_one_run_to_older_releases() {
    let golden = include_str!("../../tests/golden/v1/folded.json");
    let spent = Spent { version: 1, cpu_ms: 5, memory_bytes: 6, processes: 7, disk_bytes: 8, at_ms: 9, ended: true };
    check(golden, &Folded { spent, runs: vec!["00000000000059570003b57f2e00000c-7".into()] });
    assert_eq!(serde_json::from_str::<Spent>(golden).unwrap(), spent);
}

#[test]
fn spool_of_version_1_is_read() {
    let golden = include_bytes!("../../tests/golden/v1/spool");
    let frames = [
        Frame { seq: 0, offset: 0, mono_ms: 5, stream: 1, bytes: b"hello " },
        Frame { seq: 1, offset: 6, mono_ms: 9, stream: 2, bytes: b"world" },
    ];
    let mut written = SPOOL_MAGIC.to_vec();
    for frame in &frames {
        frame.encode(&mut written);
    }
    assert_eq!(written, golden, "what is written now is the golden form");
    let (first, len) = Frame::decode(&golden[8..]).unwrap();
    assert_eq!(first, frames[0]);
    assert_eq!(Frame::decode(&golden[8 + len..]).unwrap().0, frames[1]);
}
