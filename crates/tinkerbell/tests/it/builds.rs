//! Real projects, built and tested inside the sandbox: a wall that breaks builds is taken down.
//!
//! `cargo xtask test --with builds` fetches them by package name; nothing of them is kept here. Invariant:
//! each is verified at both complete levels, without a network, with the user's own caches.

use crate::home::{Home, finish_within};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::{Scripted, Turn};

/// The directory of the projects.
const BUILDS: &str = "TINKERBELL_TEST_BUILDS";
/// Longest time of one build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// The projects that could be fetched, with the command that builds and tests each.
fn projects(dir: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "command"))
        .map(|path| (path.with_extension(""), std::fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-R").arg(from.join(".")).arg(to).status();
    assert!(copied.unwrap().success());
}

async fn build(dir: &Path, command: &str, level: &'static str) -> bool {
    let mut home = Home::bare_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    home.level = level;
    copy(dir, &home.repo);
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "project"]);
    let model =
        Scripted::start(vec![Turn::call("write", json!({ "path": "note.txt", "content": "built\n" })), Turn::text("done")]).await.unwrap();
    home.config(&format!("model = \"local/scripted\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"{}\"\n", model.base_url()));
    home.model = Some(model);
    let args = ["run", "--verify", command, "build it"];
    let mut run = home.command(&args);
    // The real home: its toolchains and caches are what a build needs.
    run.env("HOME", std::env::var_os("HOME").unwrap_or_default());
    let started = Instant::now();
    let out = finish_within(run, &args, PATIENCE).await;
    let text = format!("{}{}", out.stdout, out.stderr);
    if text.contains("TB-SANDBOX-002") {
        eprintln!("skipped at level {level}");
        return true;
    }
    let is_verified = out.code == 0 && text.contains("verified") && !text.contains("unverified");
    let name = dir.file_name().unwrap().to_string_lossy();
    eprintln!("{name} at {level}: {} in {} s", if is_verified { "verified" } else { "FAILED" }, started.elapsed().as_secs());
    if !is_verified {
        eprintln!("{text}\n{}", home.run(&["logs", "--full", &newest(&home).await]).await.stdout);
    }
    is_verified
}

async fn newest(home: &Home) -> String {
    let tasks: serde_json::Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.stdout).unwrap();
    tasks[0]["short"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_projects_build_inside_the_sandbox() {
    let Ok(dir) = std::env::var(BUILDS) else {
        return eprintln!("skipped: no projects are named by {BUILDS}; cargo xtask test --with builds fetches them");
    };
    let mut failed = Vec::new();
    let projects = projects(Path::new(&dir));
    assert!(!projects.is_empty());
    for (project, command) in &projects {
        for level in ["full", "landlock"] {
            if !build(project, command, level).await {
                failed.push((project, level));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
