//! The reconciliation table, row by row, on directories as a crash would leave them.

use super::*;
use crate::format::{Process, Usage};
use std::os::unix::fs::PermissionsExt;

const GONE: Process = Process { pid: i32::MAX - 1, start: 1 };

struct Left {
    dir: tempfile::TempDir,
    lock: Option<File>,
}

/// Leaves `lock`, `started`, `trailer` as the words say: `held`, `free`, `torn`, `old` (boot).
fn left(words: &str) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(dir.path(), "r");
    let boot = if words.contains("old") { "another".to_owned() } else { boot_id() };
    let mut held = None;
    for word in words.split_whitespace() {
        std::fs::create_dir_all(&run.dir).unwrap();
        let put = |name: &str, value: serde_json::Value| std::fs::write(run.dir.join(name), value.to_string()).unwrap();
        match word {
            "dir" | "old" => {}
            "held" | "free" => {
                put("lock", serde_json::json!({"version": 1, "boot_id": boot, "keeper": GONE}));
                if word == "held" {
                    let file = File::open(run.dir.join("lock")).unwrap();
                    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
                    held = Some(file);
                }
            }
            "started" => put(
                "started",
                serde_json::json!({"version": 1, "run": "r", "boot_id": boot, "keeper": GONE, "cell": GONE, "init": GONE,
                    "cgroup": null, "level": "full", "epoch": 1, "generation": 1, "wall_ms": 1}),
            ),
            "trailer" => put("trailer", serde_json::to_value(trailer()).unwrap()),
            "torn" => std::fs::write(run.dir.join("trailer"), "").unwrap(),
            other => panic!("{other}"),
        }
    }
    Left { dir, lock: held }
}

fn trailer() -> Trailer {
    Trailer { version: 1, status: Some(0), rusage: Usage::default(), ..Trailer::default() }
}

#[test]
fn each_row_has_its_verdict() {
    let ended = || Standing::Ended(Box::new(trailer()));
    let rows = [
        ("", Standing::Absent),
        ("dir", Standing::NeverRan),
        ("free", Standing::NeverRan),
        ("held", Standing::Running),
        ("held started", Standing::Running),
        ("held started trailer", ended()),
        ("free started trailer", ended()),
        ("free started trailer old", ended()),
        ("free started", Standing::Lost),
        ("free started torn", Standing::Lost),
        ("free started old", Standing::Lost),
        ("free old", Standing::Lost),
    ];
    for (words, wanted) in rows {
        let left = left(words);
        let run = Run::new(left.dir.path(), "r");
        assert_eq!(run.settle().unwrap(), wanted, "{words:?}");
        assert_eq!(run.settle().unwrap(), wanted, "{words:?}, once more");
        assert_eq!(run.dir.join("lost").exists(), wanted == Standing::Lost, "{words:?}");
        drop(left.lock);
    }
}

#[test]
fn files_of_a_newer_version_are_refused_and_not_guessed() {
    let left = left("free started");
    let run = Run::new(left.dir.path(), "r");
    std::fs::write(run.dir.join("trailer"), r#"{"version":2,"anything":"else"}"#).unwrap();
    let error = run.look().unwrap_err();
    assert!(error.to_string().contains("trailer"), "{error}");
    std::fs::write(run.dir.join("trailer"), "garbage").unwrap();
    assert!(run.look().is_err());
    assert_eq!(std::fs::metadata(&run.dir).unwrap().permissions().mode() & 0o170_000, 0o040_000);
}

#[test]
fn a_start_is_taken_back_only_before_it_began() {
    for (words, wanted) in [("dir", true), ("free", true), ("held", false), ("free started", false)] {
        let left = left(words);
        let run = Run::new(left.dir.path(), "r");
        assert_eq!(run.withdraw().unwrap(), wanted, "{words:?}");
        assert_eq!(run.dir.exists(), !wanted, "{words:?}");
    }
}
