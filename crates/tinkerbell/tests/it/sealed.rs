//! What lies on the disk: nothing that a user said or a command printed, in journal and blobs.

use crate::home::{Home, exec, walk};
use std::path::Path;
use tinkerbell_testkit::llm::Turn;

/// Files below a directory that hold a text.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let holds = |path: &Path| std::fs::read(path).unwrap_or_default().windows(text.len()).any(|part| part == text.as_bytes());
    walk(dir).into_iter().filter(|path| path.is_file() && holds(path)).map(|path| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_and_blobs_are_sealed_and_readable_with_their_keys() {
    // The output is large enough to be a blob.
    let home = Home::with(vec![exec("yes canary-output | head -n 4000"), Turn::text("done, canary-answer")]).await;
    let task = home.submit(&["canary-goal"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let data = home.tb().join("data");
    home.run(&["wal", "dump"]).await.exits(0).says("canary-goal");
    let before = std::fs::read(data.join("keys/root.key")).unwrap();
    home.run(&["keys", "rotate-root"]).await.exits(0).says("1 keys");
    assert_ne!(std::fs::read(data.join("keys/root.key")).unwrap(), before);
    home.run(&["keys", "ls"]).await.exits(0).says("old");
    home.kill_daemon().await;
    for dir in ["journal", "blobs"] {
        assert_eq!(holding(&data.join(dir), "canary"), Vec::<String>::new());
    }
    // The next daemon reads all of it, also after the root key was renewed beside the last one.
    home.run(&["logs", &task, "--full"]).await.exits(0).says("canary-output").says("canary-answer");
    home.run(&["wal", "verify"]).await.exits(0);
    home.run(&["daemon", "stop"]).await.exits(0);
    // Verifying needs no key; showing says what is missing.
    std::fs::rename(data.join("keys"), data.join("away")).unwrap();
    home.run(&["wal", "verify"]).await.exits(0);
    let shown = home.run(&["wal", "dump"]).await.exits(0).says("sealed, key ");
    assert!(!shown.stdout.contains("canary"), "{}", shown.stdout);
    home.run(&["ps"]).await.exits(69).says("TB-KEY-004");
    std::fs::rename(data.join("away"), data.join("keys")).unwrap();
    home.run(&["ps", "--all"]).await.exits(0);
    home.run(&["rm", &task]).await.exits(0);
    home.kill_daemon().await;
    home.run(&["ps", "--all"]).await.exits(0);
}
