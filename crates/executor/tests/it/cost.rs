//! What the walls and the keeper add to the start of a command; figures with `--nocapture`.
//!
//! `TINKERBELL_EXE` names the binary whose stages are measured, by default the small one of these tests.
//! Invariant: a bare process, each level and a layer take turns, so that a busy machine slows all alike.

use crate::house::{House, daemon, end};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tinkerbell_core::port::{Level, Sandbox};
use tinkerbell_executor::{HostSandbox, WorkspaceChoice};

/// A median of so many turns means something where nothing else runs.
const TURNS: u32 = if cfg!(debug_assertions) { 10 } else { 100 };

struct Way {
    name: &'static str,
    house: House,
    sandbox: Arc<HostSandbox>,
    times: Vec<Duration>,
    /// The part until it runs.
    starts: Vec<Duration>,
}

async fn way(name: &'static str, level: Level, workspace: WorkspaceChoice) -> Option<Way> {
    let mut house = match workspace {
        WorkspaceChoice::Overlay => House::layered().await?,
        _ => House::at(level).await?,
    };
    if let Some(exe) = std::env::var_os("TINKERBELL_EXE") {
        house.options.exe = PathBuf::from(exe);
    }
    let sandbox = daemon(&house.options);
    sandbox.level().await.unwrap();
    Some(Way { name, house, sandbox, times: Vec::new(), starts: Vec::new() })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_and_its_end() {
    let wanted = [
        ("full", Level::Full, WorkspaceChoice::Direct),
        ("full, in a layer", Level::Full, WorkspaceChoice::Overlay),
        ("landlock", Level::Landlock, WorkspaceChoice::Direct),
        ("none: the keeper alone", Level::None, WorkspaceChoice::Direct),
    ];
    let mut ways = Vec::new();
    for (name, level, workspace) in wanted {
        ways.extend(way(name, level, workspace).await);
    }
    let mut bare = Vec::new();
    for turn in 1..=TURNS {
        let begin = Instant::now();
        // As a keeper starts one: by a shell.
        assert!(tokio::process::Command::new("sh").args(["-c", "true"]).status().await.unwrap().success());
        bare.push(begin.elapsed());
        for way in &mut ways {
            let begin = Instant::now();
            let unit = way.sandbox.start(way.house.spec(turn, "true")).await.unwrap();
            way.starts.push(begin.elapsed());
            assert_eq!(end(unit.as_ref()).await.code, Some(0), "{}", way.name);
            way.times.push(begin.elapsed());
        }
    }
    let bare = median(&mut bare);
    eprintln!("cost: `sh -c true` without anything, median of {TURNS}: {:.2} ms", bare.as_secs_f64() * 1e3);
    for way in &mut ways {
        let more = median(&mut way.times).saturating_sub(bare);
        let start = median(&mut way.starts);
        eprintln!(
            "cost: the same at level {}: {:.2} ms more; {:.2} ms until it ran",
            way.name,
            more.as_secs_f64() * 1e3,
            start.as_secs_f64() * 1e3
        );
    }
}
