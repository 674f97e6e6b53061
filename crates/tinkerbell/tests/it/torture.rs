//! Torture: SIGKILL at random moments, to the daemon, to keepers, to both, until the task has ended.
//!
//! `TINKERBELL_TORTURE_KILLS` raises the number of kills per task for runs by hand, and
//! `TINKERBELL_TORTURE_SEED` repeats one. Invariant: the oracle counts what happened in the world
//! (files, requests, processes), never what the product says of itself.

use crate::home::{Home, exec, kill, until};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::Turn;

/// Kills per task in a normal run.
const KILLS: u64 = 7;
/// A task that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the background command of [`script`] stands among the task's effects.
const UNIT: &str = "u10";

/// Chance that can be repeated (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let given = std::env::var("TINKERBELL_TORTURE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(seed);
        eprintln!("torture: TINKERBELL_TORTURE_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// How many kills a task of this many stands for.
fn kills() -> u64 {
    std::env::var("TINKERBELL_TORTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// A command that counts its runs in a file and says a word at its beginning and end.
fn counted(name: &str, between: &str) -> String {
    format!("echo {name}-begin; echo x >> {name}.count; {between}; echo {name}-end")
}

/// One of everything.
fn script() -> Vec<Turn> {
    let background = json!({"cmd": counted("back", "sleep 0.3; echo y > back.txt; sleep 0.6"), "yield_ms": 250});
    let turns = vec![
        exec(&counted("one", "sleep 0.3")),
        Turn::call("edit", json!({"path": "src/a.txt", "old": "two", "new": "TWO"})),
        Turn::call("exec", background),
        Turn::call("write", json!({"path": "new.txt", "content": "new\n"})),
        Turn::call("exec_wait", json!({"unit": UNIT, "timeout_ms": 10_000})),
        Turn::call("write", json!({"path": "AGENTS.md", "content": "Be kind.\n"})),
        exec(&counted("two", "(sleep 0.2; echo z > grandchild.txt) & wait")),
        Turn::text("All done."),
    ];
    turns.into_iter().map(|turn| Turn { delay_ms: 40, ..turn }).collect()
}

/// The script's commands by the names of their counters.
const COMMANDS: [&str; 3] = ["one", "back", "two"];

struct Victim {
    home: Home,
    task: String,
    tree: PathBuf,
    before: Witness,
}

/// What must stay as it was: the user's own things.
#[derive(Debug, Default, PartialEq)]
struct Witness {
    head: String,
    refs: String,
    status: String,
    tree: String,
}

impl Witness {
    fn of(home: &Home) -> Self {
        Self {
            head: home.git(&["symbolic-ref", "HEAD"]),
            refs: home.git(&["for-each-ref", "refs/heads/main", "refs/tags"]),
            status: home.git(&["status", "--porcelain", "--ignored"]),
            tree: home.tree_of(&home.repo),
        }
    }
}

impl Victim {
    async fn new() -> Self {
        Self::of(Home::with(script()).await).await
    }

    /// One whose commands write to layers; `None` where this host gives none.
    async fn in_layers() -> Option<Self> {
        let mut home = Home::with(script()).await;
        (home.level, home.workspace) = ("full", Some("overlay".to_owned()));
        if home.gives_layers().await { Some(Self::of(home).await) } else { None }
    }

    async fn of(home: Home) -> Self {
        let before = Witness::of(&home);
        let task = home.submit(&["--verify", "sleep 0.2; test -e new.txt", "do everything"]).await;
        Self { home, task, tree: PathBuf::new(), before }
    }

    /// The process that holds the data directory; nothing is asked, so that nothing is started.
    fn daemon(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.home.tb().join("data/daemon.lock")).ok()?;
        let pid = text.trim().parse().ok()?;
        is_tinkerbell(pid).then_some(pid)
    }

    fn keepers(&self) -> Vec<i32> {
        let mark = format!("TINKERBELL_KEEPER={}", self.task);
        let is_keeper = |pid: &i32| is_tinkerbell(*pid) && holds(&read(*pid, "environ"), mark.as_bytes());
        processes().into_iter().filter(is_keeper).collect()
    }

    async fn kill_daemon(&self) {
        let Some(pid) = self.daemon() else { return };
        kill(pid);
        // Its first thread ends before the others let go of socket and lock.
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
        until("the daemon is gone", || !is_tinkerbell(pid) && threads() <= 1).await;
    }

    /// Asks for an operation, kills the daemon in its middle, and starts the next.
    async fn cut_off(&self, words: &[&str], dice: &mut Dice) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let asked = tokio::spawn(self.home.run_owned(words));
        // Most of the time the client needs until then: it has to be started first.
        tokio::time::sleep(Duration::from_millis(10 + dice.below(60))).await;
        self.kill_daemon().await;
        asked.await.unwrap();
        self.start().await;
    }

    async fn start(&self) {
        self.home.run(&["daemon", "start"]).await.exits(0);
    }

    async fn status(&self) -> String {
        self.home.inspect(&self.task).await["status"].as_str().unwrap().to_owned()
    }

    /// Lives on, answers what is asked, until the task has ended.
    async fn finish(&mut self) {
        let started = Instant::now();
        loop {
            self.start().await;
            let view = self.home.inspect(&self.task).await;
            match view["status"].as_str().unwrap() {
                "needs-you" => drop(self.home.run(&["approve", &self.task]).await),
                "queued" | "running" => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => {
                    self.tree = PathBuf::from(view["workspace"].as_str().unwrap_or_else(|| panic!("no workspace: {view}")));
                    return;
                }
            }
            assert!(started.elapsed() < PATIENCE, "the task never ends: {view}");
        }
    }

    fn results(&self) -> Vec<String> {
        let requests = self.home.model.as_ref().unwrap().requests();
        let messages = requests.last().unwrap().body["messages"].as_array().unwrap().clone();
        let results = messages.iter().filter(|message| message["role"] == "tool");
        results.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    }

    /// Answers that were bought more than once.
    fn bought_again(&self) -> u64 {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for request in self.home.model.as_ref().unwrap().requests() {
            let messages = request.body["messages"].as_array().unwrap();
            *counts.entry(messages.iter().filter(|message| message["role"] == "assistant").count()).or_default() += 1;
        }
        counts.values().map(|count| count - 1).sum()
    }

    /// Each command ran exactly once, and its whole output was told exactly once.
    fn ran_once(&self) {
        let told = self.results().join("\n");
        for name in COMMANDS {
            let count = std::fs::read_to_string(self.tree.join(format!("{name}.count"))).unwrap_or_default();
            assert_eq!(count, "x\n", "`{name}` did not run once\n{told}");
            for word in ["begin", "end"] {
                let lines = told.lines().filter(|line| *line == format!("{name}-{word}")).count();
                assert_eq!(lines, 1, "`{name}-{word}` was told {lines} times\n{told}");
            }
        }
        let read = |name: &str| std::fs::read_to_string(self.tree.join(name)).unwrap();
        assert_eq!((read("src/a.txt"), read("AGENTS.md")), ("one\nTWO\nthree\n".to_owned(), "Be kind.\n".to_owned()));
        assert_eq!((read("back.txt"), read("grandchild.txt")), ("y\n".to_owned(), "z\n".to_owned()));
    }

    /// No command ran twice, and no line was told twice.
    fn ran_at_most_once(&self) {
        let told = self.results().join("\n");
        for name in COMMANDS {
            let count = std::fs::read_to_string(self.tree.join(format!("{name}.count"))).unwrap_or_default();
            assert!(matches!(count.as_str(), "" | "x\n"), "`{name}` ran more than once: {count:?}\n{told}");
            for word in ["begin", "end"] {
                let lines = told.lines().filter(|line| *line == format!("{name}-{word}")).count();
                assert!(lines <= 1, "`{name}-{word}` was told {lines} times\n{told}");
            }
        }
    }

    /// Journal, repositories, branch, the user's things, processes, undo.
    async fn is_sound(&self) {
        let home = &self.home;
        home.run(&["wal", "verify"]).await.exits(0);
        home.git(&["fsck", "--strict", "--no-dangling"]);
        let store = home.tb().join("data");
        for git_dir in bare_stores(&store) {
            home.git_in(&git_dir, &["fsck", "--strict", "--no-dangling"], &[]);
        }
        let branch = home.inspect(&self.task).await["branch"].as_str().unwrap().to_owned();
        let log = home.git(&["log", "--format=%(trailers:key=Lsn,valueonly,separator=)", &format!("main..{branch}")]);
        let lsns: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
        let unique: std::collections::BTreeSet<&&str> = lsns.iter().collect();
        assert_eq!(unique.len(), lsns.len(), "micro-commits stand twice\n{log}");
        assert_eq!(home.git(&["rev-parse", &format!("{branch}^{{tree}}")]), home.tree_of(&self.tree), "the branch is not what the tree is");
        assert_eq!(Witness::of(home), self.before, "something of the user's was touched");
        let base = home.git(&["rev-parse", "main^{tree}"]);
        home.run(&["undo", &self.task, "--all"]).await.exits(0);
        assert_eq!(home.tree_of(&self.tree), base, "undo does not lead to the base");
        home.run(&["daemon", "stop"]).await.exits(0);
        let layers = std::fs::read_dir(self.tree.parent().unwrap().join("layers")).into_iter().flatten().flatten();
        assert_eq!(layers.filter(|layer| layer.path().join("up").exists()).count(), 0, "layers were not applied");
        let left = self.left_over();
        assert!(left.is_empty(), "processes are left: {left:#?}");
    }

    /// Processes that have anything to do with the home.
    fn left_over(&self) -> Vec<String> {
        let mark = self.home.dir.path().as_os_str().as_encoded_bytes().to_vec();
        let own = i32::try_from(std::process::id()).unwrap();
        let ours = |pid: &i32| {
            let words = [read(*pid, "cmdline"), read(*pid, "environ")];
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|fd| fd.path());
            let links = fds.chain([PathBuf::from(format!("/proc/{pid}/cwd"))]).filter_map(|path| std::fs::read_link(path).ok());
            let words_tell = words.iter().any(|bytes| holds(bytes, &mark) || holds(bytes, self.task.as_bytes()));
            *pid != own && (words_tell || links.into_iter().any(|link| link.starts_with(self.home.dir.path())))
        };
        let left: Vec<i32> = processes().into_iter().filter(ours).collect();
        left.into_iter().map(|pid| format!("{pid} {}", String::from_utf8_lossy(&read(pid, "cmdline")))).collect()
    }
}

fn bare_stores(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let dirs = entries.filter(|path| path.is_dir() && !path.is_symlink());
    dirs.flat_map(|dir| if dir.join("HEAD").is_file() && dir.join("objects").is_dir() { vec![dir] } else { bare_stores(&dir) }).collect()
}

fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read(pid: i32, file: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn is_tinkerbell(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("tinkerbell"))
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}

/// Only the daemon dies, at any moment: all promises hold to the letter.
async fn kill_daemons(mut victim: Victim, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..kills() {
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        victim.kill_daemon().await;
        victim.start().await;
        if victim.status().await == "needs-you" {
            victim.home.run(&["approve", &victim.task]).await.exits(0);
        }
    }
    victim.finish().await;
    let view = victim.home.inspect(&victim.task).await;
    assert_eq!(view["result"]["status"], "verified", "{view}");
    assert!(!victim.results().iter().any(|text| text.contains("no unit")), "the unit has another name: {:#?}", victim.results());
    victim.ran_once();
    assert!(victim.bought_again() <= kills(), "{} answers were bought again", victim.bought_again());
    victim.is_sound().await;
}

/// Whatever dies, nothing runs twice, nothing is told twice, nobody is left.
async fn kill_anything(mut victim: Victim, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..kills() {
        tokio::time::sleep(Duration::from_millis(dice.below(350))).await;
        match dice.below(4) {
            0 => victim.keepers().into_iter().for_each(kill),
            1 => {
                victim.keepers().into_iter().for_each(kill);
                victim.kill_daemon().await;
            }
            2 => victim.kill_daemon().await,
            _ => drop(victim.home.run(&["daemon", "stop"]).await.exits(0)),
        }
        victim.start().await;
        if victim.status().await == "needs-you" {
            victim.home.run(&["approve", &victim.task]).await.exits(0);
        }
    }
    victim.finish().await;
    let view = victim.home.inspect(&victim.task).await;
    assert_eq!(view["result"]["exit_code"], 0, "{view}");
    victim.ran_at_most_once();
    assert!(victim.bought_again() <= kills(), "{} answers were bought again", victim.bought_again());
    victim.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_loses_and_repeats_nothing() {
    kill_daemons(Victim::new().await, 0x00C0_FFEE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_layers_a_daemon_killed_at_any_moment_loses_and_repeats_nothing() {
    let Some(victim) = Victim::in_layers().await else { return };
    kill_daemons(victim, 0x001A_7E25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_killed_at_any_moment_is_told_as_lost_and_never_repeated() {
    kill_anything(Victim::new().await, 0x0BAD_CAFE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_layers_a_keeper_killed_at_any_moment_is_told_as_lost_and_never_repeated() {
    let Some(victim) = Victim::in_layers().await else { return };
    kill_anything(victim, 0x0002_5EED).await;
}

/// An orderly stop is as safe as a kill, in mid-command and in mid-answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_and_starts_goes_on_where_it_was() {
    let turns = [exec(&counted("one", "sleep 1")), exec(&counted("two", "sleep 1")), Turn::text("done")];
    let home = Home::with(turns.into_iter().map(|turn| Turn { delay_ms: 700, ..turn }).collect()).await;
    let task = home.submit(&["go"]).await;
    for moment in ["one-begin", "two-begin"] {
        home.run(&["daemon", "stop"]).await.exits(0);
        home.run(&["daemon", "start"]).await.exits(0);
        home.until_output(moment).await;
        home.run(&["daemon", "stop"]).await.exits(0);
        home.run(&["daemon", "start"]).await.exits(0);
    }
    home.run(&["wait", &task]).await.exits(0);
    let view = home.inspect(&task).await;
    let tree = PathBuf::from(view["workspace"].as_str().unwrap());
    let count = |name: &str| std::fs::read_to_string(tree.join(name)).unwrap();
    assert_eq!((count("one.count"), count("two.count")), ("x\n".to_owned(), "x\n".to_owned()));
    // Two answers were cut off at most: those that were being given at a stop.
    assert!((3..=5).contains(&home.asked()), "{} requests", home.asked());
}

/// What a background command wrote after the last call survives a check that is killed in its middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_cut_off_by_a_kill_puts_back_only_what_it_changed() {
    let late = Turn::call("exec", json!({"cmd": "echo x > early.txt; sleep 0.6; echo x > late.txt; sleep 300", "yield_ms": 250}));
    let home = Home::with(vec![late, Turn { delay_ms: 1_000, ..Turn::text("done") }]).await;
    let task = home.submit(&["--verify", "echo checking; echo x > mess.txt; sleep 1", "go"]).await;
    home.until_output("checking\n").await;
    home.kill_daemon().await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    assert!(tree.join("early.txt").exists() && tree.join("late.txt").exists() && !tree.join("mess.txt").exists());
}

/// An operation of the user that is cut off is finished or was never begun; nothing is left between.
#[tokio::test(flavor = "multi_thread")]
async fn undo_and_landing_survive_kills() {
    let mut dice = Dice::new(0x0_5EED);
    let change = "rm src/a.txt; chmod 755 run.sh; mkdir -p new/deep; for n in 1 2 3 4 5 6 7 8 9; do echo $n > new/deep/$n; done";
    let home = Home::with(vec![exec(change), Turn::text("done")]).await;
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    let (base, done) = (home.git(&["rev-parse", "HEAD^{tree}"]), home.tree_of(&tree));
    let head = home.git(&["rev-parse", "HEAD"]);
    let victim = Victim { home, task, tree, before: Witness::default() };
    for round in 0..kills() {
        let at = victim.home.tree_of(&victim.tree);
        let words = if at == done { ["undo", &victim.task, "--all"].to_vec() } else { ["redo", &victim.task].to_vec() };
        victim.cut_off(&words, &mut dice).await;
        // Whatever became of it: the next operation stands on it.
        let out = victim.home.run(&words).await;
        assert!(matches!(out.code, 0 | 1), "round {round}: {out:?}");
        let now = victim.home.tree_of(&victim.tree);
        assert!(now == base || now == done, "round {round}: between two states");
        let branch = victim.home.git(&["rev-parse", &format!("tinkerbell/{}^{{tree}}", victim.task)]);
        assert_eq!(branch, now, "round {round}: the branch follows the tree");
    }
    if victim.home.tree_of(&victim.tree) == base {
        victim.home.run(&["redo", &victim.task]).await.exits(0);
    }
    for round in 0..kills().div_ceil(2) {
        let words = if victim.home.git(&["rev-parse", "HEAD"]) == head {
            ["land", &victim.task, "--squash"].to_vec()
        } else {
            ["undo", &victim.task].to_vec()
        };
        victim.cut_off(&words, &mut dice).await;
        let out = victim.home.run(&["op", "log", &victim.task]).await.exits(0);
        let clean = || victim.home.git(&["status", "--porcelain"]).is_empty();
        until(&format!("round {round}: the user's tree follows {words:?}\n{out:?}"), clean).await;
        let now = victim.home.git(&["rev-parse", "HEAD^{tree}"]);
        assert!(now == base || now == done, "round {round}: a landing between two states");
    }
    victim.home.git(&["fsck", "--strict", "--no-dangling"]);
    victim.home.run(&["wal", "verify"]).await.exits(0);
}

/// A stopped task leaves no process, wherever its command stood, however its children hide.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_task_leaves_no_process() {
    let mut dice = Dice::new(0x57_0B);
    let hide = "setsid sh -c 'trap \"\" TERM HUP; nohup sleep 300 & sleep 301 & wait' & (trap '' TERM; sleep 302 & wait)";
    let home = Home::with(vec![exec(hide)]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    for _ in 0..kills().min(20) {
        let asked = home.asked();
        let task = home.submit(&["hide"]).await;
        until("the model is asked", || home.asked() > asked).await;
        // From before the keeper begins until all its children run.
        tokio::time::sleep(Duration::from_millis(dice.below(120))).await;
        home.run(&["stop", &task]).await.exits(0);
        home.run(&["wait", &task]).await.exits(6);
        until("its processes are gone", || of_task(&task).is_empty()).await;
        // What comes late would come now: a keeper that had not begun when it was stopped.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(of_task(&task).is_empty(), "{:?}", of_task(&task));
    }
}

/// Processes that carry the task's id.
fn of_task(task: &str) -> Vec<i32> {
    let ours = |pid: &i32| ["cmdline", "environ"].iter().any(|file| holds(&read(*pid, file), task.as_bytes()));
    processes().into_iter().filter(ours).collect()
}
