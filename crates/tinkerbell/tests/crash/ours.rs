//! Tinkerbell under kills: tasks of all effect classes, and a tally of what happened.
//!
//! Each task has a home, a repository and a scripted model of its own; a seed decides when which of
//! its processes dies. Invariant: a task's tally is taken only from the world.

use crate::home::{Home, exec, kill, until};
use crate::words::Words;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::Turn;

/// Kills per task at most; then it may end.
const KILLS: u64 = 12;
/// A task that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(120);
/// Commands that count themselves.
const COMMANDS: [&str; 2] = ["one", "two"];
/// Lines that the background server is given.
const PINGS: [&str; 2] = ["ping-a", "ping-b"];
/// The background server's name: its place among the task's effects.
const UNIT: &str = "u12";

/// Chance that can be repeated (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// What is counted, by name; those that begin with `!` must stay zero.
#[derive(Debug, Default, Clone)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, name: &str, count: u64) {
        *self.0.entry(name.to_owned()).or_default() += count;
    }

    fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(name, count)| self.add(&name, count));
    }

    fn broken(&self) -> Vec<String> {
        self.0.iter().filter(|(name, count)| name.starts_with('!') && **count > 0).map(|(name, count)| format!("{name} {count}")).collect()
    }
}

/// A task of every class: pure, idempotent, verifiable, unsafe under a keeper, and model calls.
fn script() -> Vec<Turn> {
    let counted = |name: &str, between: &str| format!("echo {name}-begin; echo x >> {name}.count; {between}; echo {name}-end");
    let server = json!({"cmd": "while read line; do echo \"$line\" >> lines.txt; echo \"got $line\"; done", "yield_ms": 250});
    let send = |line: &str| Turn::call("exec_send", json!({"unit": UNIT, "stdin": format!("{line}\n")}));
    let turns = vec![
        exec(&counted("one", "sleep 0.3")),
        // An edit of a file that was not read is refused, rightly, unless a restart forgot what was read.
        Turn::call("read", json!({"path": "src/a.txt"})),
        Turn::call("edit", json!({"path": "src/a.txt", "old": "two", "new": "TWO"})),
        Turn::call("exec", server),
        send(PINGS[0]),
        Turn::call("write", json!({"path": "new.txt", "content": "new\n"})),
        send(PINGS[1]),
        exec(&counted("two", "(sleep 0.2; echo z > grandchild.txt) & wait")),
        Turn::text("All done."),
    ];
    turns.into_iter().map(|turn| Turn { delay_ms: 120, ..turn }).collect()
}

/// Runs tasks until that many kills have been dealt; says whether all counts are as they must be.
pub async fn run(words: &Words) -> bool {
    println!("crash: {} kills, --seed {}, {} homes at a time", words.kills, words.seed, words.parallel);
    let started = Instant::now();
    let layers = words.layers.filter_by(gives_layers().await);
    let (left, next) = (Arc::new(AtomicU64::new(words.kills)), Arc::new(AtomicU64::new(words.seed)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..words.parallel {
        let (left, next) = (left.clone(), next.clone());
        workers.spawn(async move {
            let mut tally = Tally::default();
            while left.load(Ordering::SeqCst) > 0 {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                let task = tokio::spawn(live_through(seed, layers.of(seed), left.clone()));
                match task.await {
                    Ok(found) => {
                        found.broken().iter().for_each(|what| println!("crash: seed {seed}: {what}"));
                        tally.merge(found);
                    }
                    Err(error) => {
                        println!("crash: seed {seed}: {error}");
                        tally.add("!tasks that never came to an end", 1);
                    }
                }
            }
            tally
        });
    }
    let mut tally = Tally::default();
    while let Some(one) = workers.join_next().await {
        tally.merge(one.unwrap());
    }
    print(&tally, started.elapsed());
    tally.broken().is_empty()
}

fn print(tally: &Tally, took: Duration) {
    println!("\n| what | count |\n|---|---:|");
    for (name, count) in &tally.0 {
        println!("| {} | {count} |", name.trim_start_matches('!'));
    }
    println!("| minutes | {:.1} |", took.as_secs_f64() / 60.0);
}

struct Victim {
    home: Home,
    task: String,
    tally: Tally,
    /// Whether a keeper was killed: then an outcome may be unknown, but nothing may run twice.
    is_bereft: bool,
    /// Whether the courier was killed: an answer that it had read and not yet written down is lost
    /// with it, and only the provider could know.
    is_courier_killed: bool,
    /// Events as they were shown.
    shown: Vec<String>,
}

/// Whether this host gives layers.
async fn gives_layers() -> bool {
    let mut home = Home::bare();
    (home.level, home.workspace) = ("full", Some("overlay".to_owned()));
    home.gives_layers().await
}

async fn live_through(seed: u64, in_layers: bool, left: Arc<AtomicU64>) -> Tally {
    let mut dice = Dice::new(seed);
    let mut home = Home::with(script()).await;
    if in_layers {
        (home.level, home.workspace) = ("full", Some("overlay".to_owned()));
    }
    let task = home.submit(&["--verify", "sleep 0.2; test -e new.txt", "do everything"]).await;
    let mut victim = Victim { home, task, tally: Tally::default(), is_bereft: false, is_courier_killed: false, shown: Vec::new() };
    let told = victim.home.run(&["tell", &victim.task, "word-that-must-stay"]).await.code == 0;
    victim.tally.add(if in_layers { "tasks, commands in layers" } else { "tasks, commands directly" }, 1);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(dice.below(420))).await;
        victim.kill_something(&mut dice).await;
        victim.tally.add(if in_layers { "kills and stops in layers" } else { "kills and stops directly" }, 1);
        let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        victim.start().await;
        if dice.below(3) == 0 {
            victim.compare_events().await;
        }
        if spent == Ok(0) || victim.ended().await {
            break;
        }
    }
    victim.finish().await;
    victim.judge(told).await;
    victim.tally
}

impl Victim {
    async fn kill_something(&mut self, dice: &mut Dice) {
        let name = match dice.below(20) {
            0..=11 => {
                self.kill_daemon().await;
                "kills: daemon"
            }
            12..=14 => {
                self.kill_keepers();
                self.kill_daemon().await;
                "kills: daemon and keepers"
            }
            15..=16 => {
                self.kill_keepers();
                "kills: keepers"
            }
            17 => {
                self.is_courier_killed = true;
                self.kill_all_of("__courier");
                "kills: courier"
            }
            18 => {
                self.is_courier_killed = true;
                self.kill_all_of("__courier");
                self.kill_daemon().await;
                "kills: daemon and courier"
            }
            _ => {
                self.home.run(&["daemon", "stop"]).await;
                "orderly stops"
            }
        };
        self.tally.add(name, 1);
    }

    /// The process that holds the data directory; nothing is asked, so that nothing is started.
    fn daemon(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.home.tb().join("data/daemon.lock")).ok()?;
        let pid = text.trim().parse().ok()?;
        is_tinkerbell(pid).then_some(pid)
    }

    async fn kill_daemon(&self) {
        let Some(pid) = self.daemon() else { return };
        kill(pid);
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
        until("the daemon is gone", || !is_tinkerbell(pid) && threads() <= 1).await;
    }

    fn kill_keepers(&mut self) {
        let mark = format!("TINKERBELL_KEEPER={}", self.task);
        let keepers: Vec<i32> =
            processes().into_iter().filter(|pid| is_tinkerbell(*pid) && holds(&read(*pid, "environ"), mark.as_bytes())).collect();
        self.is_bereft |= !keepers.is_empty();
        keepers.into_iter().for_each(kill);
    }

    fn kill_all_of(&self, word: &str) {
        let home = self.home.tb();
        let ours = |pid: &i32| {
            is_tinkerbell(*pid)
                && holds(&read(*pid, "cmdline"), word.as_bytes())
                && ["cmdline", "environ"].iter().any(|file| holds(&read(*pid, file), home.as_os_str().as_encoded_bytes()))
        };
        processes().into_iter().filter(ours).for_each(kill);
    }

    async fn start(&self) {
        self.home.run(&["daemon", "start"]).await.exits(0);
    }

    async fn view(&self) -> Value {
        self.home.inspect(&self.task).await
    }

    async fn ended(&self) -> bool {
        matches!(self.view().await["status"].as_str(), Some("finished"))
    }

    /// What was shown once is shown again, the same and in the same order.
    async fn compare_events(&mut self) {
        let out = self.home.run(&["logs", "--json", &self.task]).await;
        let now: Vec<String> = out.stdout.lines().map(str::to_owned).collect();
        let same = now.len() >= self.shown.len() && now.iter().zip(&self.shown).all(|(now, before)| now == before);
        self.tally.add("!lost or changed: event shown before", u64::from(!same));
        self.tally.add("events compared", self.shown.len() as u64);
        self.shown = now;
    }

    /// Lives on, denies what is asked, until the task has ended.
    async fn finish(&mut self) {
        let started = Instant::now();
        loop {
            self.start().await;
            let view = self.view().await;
            match view["status"].as_str().unwrap() {
                "needs-you" => {
                    self.tally.add("unknown outcomes that a person was asked about", 1);
                    self.home.run(&["deny", &self.task]).await;
                }
                "queued" | "running" => tokio::time::sleep(Duration::from_millis(50)).await,
                "paused" => drop(self.home.run(&["resume", &self.task]).await),
                _ => break,
            }
            assert!(started.elapsed() < PATIENCE, "the task never ends: {view}");
        }
        self.compare_events().await;
    }

    async fn judge(&mut self, told: bool) {
        let listed = self.home.run(&["ps", "-a", "-o", "name"]).await;
        let stands = listed.stdout.lines().any(|line| self.task.starts_with(line.trim()) && !line.trim().is_empty());
        self.tally.add("!lost: acknowledged task", u64::from(!stands));
        let requests = self.home.model.as_ref().unwrap().requests();
        let heard = requests.last().is_some_and(|last| last.body.to_string().contains("word-that-must-stay"));
        self.tally.add("!lost: acknowledged word of the user", u64::from(told && !heard));
        self.judge_effects().await;
        self.judge_answers();
        self.home.run(&["daemon", "stop"]).await;
        self.kill_all_of("__courier");
        let gone = Instant::now();
        while !self.left_over().is_empty() && gone.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.left_over();
        left.iter().for_each(|line| println!("crash: left over: {line}"));
        self.tally.add("!left over: processes", left.len() as u64);
        self.tally.add("journals verified", u64::from(self.home.run(&["wal", "verify"]).await.code == 0));
    }

    async fn judge_effects(&mut self) {
        let view = self.view().await;
        let tree = PathBuf::from(view["workspace"].as_str().unwrap_or_default());
        let told = self.results();
        let text = |name: &str| std::fs::read_to_string(tree.join(name)).unwrap_or_default();
        let times = |text: &str, line: &str| text.lines().filter(|l| *l == line).count() as u64;
        for name in COMMANDS {
            let ran = times(&text(&format!("{name}.count")), "x");
            self.tally.add("effects: command (unsafe)", ran);
            self.tally.add("!twice: command (unsafe)", ran.saturating_sub(1));
            let shown = times(&told, &format!("{name}-end"));
            self.tally.add("!twice: output told to the model", shown.saturating_sub(1));
            self.tally.add("!lost: outcome of a command whose keeper lived", u64::from(!self.is_bereft && (ran != 1 || shown != 1)));
        }
        for ping in PINGS {
            let came = times(&text("lines.txt"), ping);
            self.tally.add("effects: line to a server (idempotent)", came);
            self.tally.add("!twice: line to a server (idempotent)", came.saturating_sub(1));
            self.tally.add("!lost: outcome of a command whose keeper lived", u64::from(!self.is_bereft && came != 1));
        }
        let layers = std::fs::read_dir(tree.join("../layers")).into_iter().flatten().flatten();
        // Its marks stay until the unit is let go; what the command wrote does not.
        let unapplied = layers.filter(|layer| layer.path().join("up").exists()).count();
        self.tally.add("!left over: layers that were not applied", unapplied as u64);
        let edited = text("src/a.txt") == "one\nTWO\nthree\n" && text("new.txt") == "new\n";
        self.tally.add("effects: edit and micro-commit (verifiable)", 2);
        let branch = view["branch"].as_str().unwrap_or("HEAD").to_owned();
        let log = self.home.git(&["log", "--format=%(trailers:key=Lsn,valueonly,separator=)", &format!("main..{branch}")]);
        let mut lsns: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
        let all = lsns.len();
        lsns.sort_unstable();
        lsns.dedup();
        self.tally.add("!twice: edit or micro-commit (verifiable)", (all - lsns.len()) as u64 + u64::from(!edited));
        self.tally.add("effects: read (pure)", 1);
        if !self.tally.broken().is_empty() {
            let lines = text("lines.txt");
            println!("crash: {} of {}: server had {lines:?}, result {}\n{told}", self.task, tree.display(), view["result"]);
        }
    }

    fn judge_answers(&mut self) {
        let model = self.home.model.as_ref().unwrap();
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        model.taken().into_iter().for_each(|turn| *counts.entry(turn).or_default() += 1);
        self.tally.add("effects: model call", counts.len() as u64);
        self.tally
            .add("model calls cut off by a kill and made again", (model.requests().len() as u64).saturating_sub(counts.values().sum()));
        let again: u64 = counts.values().map(|count| count - 1).sum();
        let (ours, couriers) = if self.is_courier_killed { (0, again) } else { (again, 0) };
        self.tally.add("!twice: completed answer paid again", ours);
        self.tally.add("answers paid again that a killed courier had read", couriers);
    }

    /// What the model was told of its tool calls, in its last request.
    fn results(&self) -> String {
        let requests = self.home.model.as_ref().unwrap().requests();
        let Some(last) = requests.last() else { return String::new() };
        let messages = last.body["messages"].as_array().cloned().unwrap_or_default();
        let results = messages.iter().filter(|message| message["role"] == "tool");
        results.filter_map(|message| message["content"].as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Processes that have anything to do with the home.
    fn left_over(&self) -> Vec<String> {
        let mark = self.home.dir.path().as_os_str().as_encoded_bytes().to_vec();
        let own = i32::try_from(std::process::id()).unwrap();
        let ours = |pid: &i32| {
            let words = [read(*pid, "cmdline"), read(*pid, "environ")];
            *pid != own && words.iter().any(|bytes| holds(bytes, &mark) || holds(bytes, self.task.as_bytes()))
        };
        let left: Vec<i32> = processes().into_iter().filter(ours).collect();
        left.into_iter().map(|pid| format!("{pid} {}", String::from_utf8_lossy(&read(pid, "cmdline")).replace('\0', " "))).collect()
    }
}

pub fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

pub fn read(pid: i32, file: &str) -> Vec<u8> {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default()
}

fn is_tinkerbell(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("tinkerbell"))
}

pub fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}
