//! A real, weak model repairs ten small repositories; the figure is a measure, not a gate.
//!
//! The model is local and named by the environment (`cargo xtask test --with llm` sets it); without it
//! the test says so and passes. Invariant: it fails for the runtime's mistakes only: a hang, a lost
//! task, a `verified` that is not true, a user's tree that was touched.

use crate::home::{Home, Out, finish_within};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The server's address, as in `http://127.0.0.1:8080/v1`.
const URL: &str = "TINKERBELL_TEST_LLM_URL";
/// The model's name at that server.
const MODEL: &str = "TINKERBELL_TEST_LLM_MODEL";
/// Which repairs to do, by parts of their names with commas between; all where it is not set.
const ONLY: &str = "TINKERBELL_TEST_LLM_ONLY";
/// The runtime's own limit of one repair.
const WALL: &str = "180s";
/// The limit is looked at between steps, and one answer of a slow server may take minutes.
const PATIENCE: Duration = Duration::from_secs(480);
/// Model calls of one repair.
const STEPS: &str = "12";

/// What came of a repair.
struct Row {
    name: String,
    status: String,
    steps: u64,
    seconds: u64,
    tokens: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_model_repairs_what_it_can() {
    let Ok(url) = std::env::var(URL) else {
        eprintln!("skipped: no model is named by {URL}; start it with cargo xtask services up llm, then cargo xtask test --with llm");
        return;
    };
    let model = std::env::var(MODEL).unwrap_or_else(|_| "qwen2.5-coder-1.5b".to_owned());
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut rows = Vec::new();
    for dir in repairs().into_iter().filter(|dir| only.split(',').any(|part| name(dir).contains(part))) {
        match missing(&name(&dir)) {
            Some(program) => eprintln!("skipped: {} ({program} does not run here)", name(&dir)),
            None => {
                rows.push(repair(&dir, &url, &model).await);
                eprintln!("{}", line(&rows[rows.len() - 1]));
            }
        }
    }
    let verified = rows.iter().filter(|row| row.status == "verified").count();
    eprintln!("\n| repair | language | result | steps | seconds | tokens |\n|---|---|---|---|---|---|");
    rows.iter().for_each(|row| eprintln!("{}", line(row)));
    eprintln!("\n{verified} of {} verified with {model}", rows.len());
}

fn line(row: &Row) -> String {
    let language = row.name.split('-').next().unwrap_or_default();
    format!("| {} | {language} | {} | {} | {} | {} |", row.name, row.status, row.steps, row.seconds, row.tokens)
}

/// The folders of the repairs, in the order of their names.
fn repairs() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repairs");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    dirs
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap().to_string_lossy().into_owned()
}

/// The program that a repair needs and that does not run here.
fn missing(name: &str) -> Option<&'static str> {
    let program = match name.split('-').next() {
        Some("py") => "python3",
        Some("c") => "cc",
        Some("rust") => "rustc",
        _ => return None,
    };
    let ran = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!ran.is_ok_and(|status| status.success())).then_some(program)
}

/// The search path of a repair. rustup's own `rustc` looks into the user's home for a toolchain, and
/// the test has a home of its own: the toolchain itself goes first.
fn path(name: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    if !name.starts_with("rust-") {
        return path;
    }
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    format!("{}/bin:{path}", String::from_utf8_lossy(&output.stdout).trim())
}

async fn repair(dir: &Path, url: &str, model: &str) -> Row {
    let mut home = Home::bare();
    home.wrap = vec!["env".to_owned(), format!("PATH={}", path(&name(dir)))];
    plant(&home, &dir.join("tree"));
    home.config(&format!(
        "[providers.local]\nwire = \"openai\"\nbase_url = \"{url}\"\n[models.\"local/{model}\"]\ncontext_tokens = 16384\ntools = \"json-schema\"\n"
    ));
    assert!(!check(&home.repo), "{}: the check is green before the repair", name(dir));
    let (before, head) = (home.tree_of(&home.repo), home.git(&["rev-parse", "HEAD"]));
    let goal = std::fs::read_to_string(dir.join("goal.txt")).unwrap();
    let started = Instant::now();
    let target = format!("local/{model}");
    let task =
        home.submit(&["-m", &target, "--verify", "sh tests/run.sh", "--max-steps", STEPS, "--max-wall-time", WALL, goal.trim()]).await;
    let waited = wait(&home, &task).await;
    let seconds = started.elapsed().as_secs();
    let seen = home.inspect(&task).await;
    // A task without a result stands still: its limits are reached.
    let status = seen["result"]["status"].as_str().or(seen["status"].as_str()).unwrap_or("lost").to_owned();
    let tree = seen["workspace"].as_str().unwrap_or_default().to_owned();
    assert_eq!(status == "verified", waited.code == 0, "{}: {}\n{seen}", name(dir), waited.stderr);
    assert!(status != "verified" || check(Path::new(&tree)), "{}: called verified, and the check is red", name(dir));
    assert_eq!((home.tree_of(&home.repo), home.git(&["rev-parse", "HEAD"])), (before, head), "{}: the user's tree was touched", name(dir));
    if status != "verified" {
        // Where it stumbled is what the measure is for.
        eprintln!("\n{}", home.run(&["logs", "--full", &task]).await.stdout);
    }
    home.run(&["daemon", "stop"]).await;
    Row { name: name(dir), status, steps: seen["steps"].as_u64().unwrap_or_default(), seconds, tokens: tokens(&seen) }
}

/// Tokens in and out, those from the server's cache too.
fn tokens(seen: &Value) -> u64 {
    ["input_tokens", "output_tokens"].iter().filter_map(|kind| seen["usage"][kind].as_u64()).sum()
}

/// The repository as the repair's user has it.
fn plant(home: &Home, tree: &Path) {
    home.git(&["rm", "-r", "-q", "."]);
    let copied = Command::new("cp").arg("-R").arg(format!("{}/.", tree.display())).arg(&home.repo).status().unwrap();
    assert!(copied.success());
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "broken"]);
}

/// The repair's own check, run by the test and not by the runtime that is tested.
fn check(tree: &Path) -> bool {
    Command::new("sh").arg("tests/run.sh").current_dir(tree).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

async fn wait(home: &Home, task: &str) -> Out {
    let args = ["wait", task];
    finish_within(home.command(&args), &args, PATIENCE).await
}
