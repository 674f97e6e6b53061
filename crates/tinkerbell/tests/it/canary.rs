//! The canary matrix: a value of its own in each channel, looked for in each sink, in each form.
//!
//! Here with the real binary; where the bulk of the runs is, in memory, it stands beside `clean` and in
//! the executor's spool. A host that has none of the tools that encode prints less, and says so.
//! Invariant: the only places where a canary may stand are where the user put it, and the header of a
//! request to the provider.

use crate::courier::courier;
use crate::home::{Home, Out, exec, finish, until, walk};
use serde_json::{Value, json};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_testkit::canary::{CHANNELS, Dice};
use tinkerbell_testkit::llm::Turn;

/// Which tasks run: `TINKERBELL_CANARY_TASKS` says how many, `TINKERBELL_CANARY_FROM` the first one's number.
fn runs() -> Range<usize> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let from = number("TINKERBELL_CANARY_FROM").unwrap_or(0);
    from..from + number("TINKERBELL_CANARY_TASKS").unwrap_or(1).clamp(1, 1_000)
}

/// One value per channel, of each number its own. Signs that encodings change are in them.
#[derive(Debug, Clone)]
struct Canaries {
    key: String,
    variable: String,
    file: String,
    remote: String,
}

impl Canaries {
    fn of(number: usize) -> Self {
        const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let mut dice = Dice::new(number as u64);
        // Of lengths that put what follows at each place of a Base64 group.
        let mut tail = || {
            let length = 6 + dice.below(5);
            dice.signs(length, LETTERS)
        };
        Self {
            key: format!("canary/env+key={}", tail()),
            variable: format!("canary&variable\"{}", tail()),
            file: format!("canary$file'{}\\tail", tail()),
            remote: format!("canary-remote-{}", tail()),
        }
    }

    /// By the names of their channels.
    fn all(&self) -> [(&'static str, &str); 4] {
        let [key, variable, file, remote] = CHANNELS;
        [(key, &self.key), (variable, &self.variable), (file, &self.file), (remote, &self.remote)]
    }

    fn assert_clean(&self, bytes: &[u8], sink: &str) {
        let text = String::from_utf8_lossy(bytes);
        for (channel, canary) in self.all() {
            for form in forms(canary) {
                if let Some(at) = text.find(&form) {
                    let around: String = text[text.floor_char_boundary(at.saturating_sub(80))..].chars().take(240).collect();
                    panic!("`{form}` of {channel} in {sink}: {around}");
                }
            }
        }
    }
}

/// Prints a file of canaries in all the ways that a POSIX system has.
const PRINT: &str = "cat leak.txt; for i in 1 2 3; do base64 -w0 leak.txt; echo; printf x >> pad; cat pad leak.txt | base64 -w0; echo; done; \
     od -An -v -tx1 leak.txt | tr -d ' \\n'; echo; od -An -v -tx1 leak.txt | tr -d ' \\n' | tr a-f A-F; echo; \
     while read -r line; do printf %s \"$line\" | sed 's/\\(.\\)/\\1\\n/g' | while read -r sign; do printf %s \"$sign\"; sleep 0.002; done; echo; done < leak.txt >&2; \
     cat \"$(git rev-parse --git-common-dir)/config\"; cat leak.txt > copy.txt; cat copy.txt 1>&2";

/// Prints it as programs do, where there is a Python.
const PRINT_MORE: &str = r#"command -v python3 > /dev/null && python3 - <<'E'
import json, shlex, sys, urllib.parse, base64
for line in open('leak.txt').read().splitlines():
    print(json.dumps(line), json.dumps(json.dumps({'k': line})), shlex.quote(line), repr(line))
    print(urllib.parse.quote(line, safe=''), urllib.parse.quote_plus(line), urllib.parse.quote(line))
    print(base64.urlsafe_b64encode(('user:' + line + '@').encode()).decode())
    for sign in line:
        sys.stdout.write(sign)
        sys.stdout.flush()
E
true"#;

struct Cage {
    home: Home,
    canaries: Canaries,
}

impl Cage {
    async fn new(turns: Vec<Turn>, canaries: Canaries) -> Self {
        let home = Home::with(turns).await;
        let url = home.model.as_ref().unwrap().base_url();
        let file = home.dir.path().join("secret-file");
        std::fs::write(&file, format!("{}\n", canaries.file)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        home.config(&format!(
            "model = \"local/m\"\n[providers.local]\nwire = \"openai\"\napi_key_env = \"LOCAL_KEY\"\nbase_url = \"{url}\"\n\
             [models.\"local/m\"]\ncontext_tokens = 64000\n[secrets.file]\nfile = \"{}\"\n[secrets.variable]\nenv = \"MINE\"\n",
            file.display()
        ));
        home.git(&["remote", "add", "origin", &format!("https://me:{}@localhost/x.git", canaries.remote)]);
        let leak: String = canaries.all().map(|(_, canary)| format!("{canary}\n")).concat();
        std::fs::write(home.repo.join("leak.txt"), leak).unwrap();
        home.git(&["add", "-A"]);
        home.git(&["commit", "-q", "-m", "leak"]);
        Self { home, canaries }
    }

    /// As a user's shell, in which keys are exported.
    async fn run(&self, args: &[&str]) -> Out {
        let mut command = self.home.command(args);
        command.env("LOCAL_KEY", &self.canaries.key).env("MINE", &self.canaries.variable).env("RUST_LOG", "trace");
        finish(command, args).await
    }

    fn data(&self) -> PathBuf {
        self.home.tb().join("data")
    }

    /// Looks at everything that we wrote. Trees and objects hold the user's own files.
    fn assert_clean_disk(&self, when: &str) {
        for path in walk(&self.home.tb()) {
            let within = |dir: &str| path.starts_with(self.data().join(dir));
            if !within("work") && !within("homes") {
                self.canaries.assert_clean(&std::fs::read(&path).unwrap_or_default(), &format!("{}, {when}", path.display()));
            }
        }
        self.canaries.assert_clean(self.home.git(&["log", "--all", "--format=%B%an%ae"]).as_bytes(), "commits");
    }

    /// Looks at everything that we tell.
    async fn assert_clean_words(&self, task: &str) {
        for args in [
            &["wal", "dump"][..],
            &["wal", "export", "--task", task, "--blobs"],
            &["ps", "-a"],
            &["ps", "-a", "--json"],
            &["inspect", task],
            &["inspect", "--json", task],
            &["logs", "--full", task],
            &["logs", "--json", task],
            &["secrets", "ls"],
            &["secrets", "ls", "--json"],
            &["config", "show", "--origin"],
            &["doctor", "--offline", "--json"],
            &["daemon", "status", "--json"],
        ] {
            let out = self.run(args).await;
            self.canaries.assert_clean(out.stdout.as_bytes(), &args.join(" "));
            self.canaries.assert_clean(out.stderr.as_bytes(), &args.join(" "));
        }
        for (at, request) in self.home.model.as_ref().unwrap().requests().iter().enumerate() {
            self.canaries.assert_clean(request.body.to_string().as_bytes(), &format!("request {at}"));
            let mut headers = request.headers.clone();
            assert_eq!(headers.remove("authorization").as_deref(), Some(format!("Bearer {}", self.canaries.key).as_str()));
            self.canaries.assert_clean(format!("{headers:?}").as_bytes(), &format!("headers of request {at}"));
        }
    }

    /// Every process of ours and below it: daemon, courier, keepers, stages, commands.
    async fn processes(&self) -> Vec<i32> {
        let mut found = vec![self.home.pid().await, courier(&self.home).unwrap()];
        for path in walk(&self.data().join("runs")).iter().filter(|path| path.ends_with("started")) {
            let started: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            found.extend(
                ["keeper", "cell", "init"]
                    .iter()
                    .filter_map(|part| started[*part]["pid"].as_i64())
                    .filter_map(|pid| i32::try_from(pid).ok()),
            );
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| Path::new(&format!("/proc/{pid}")).exists());
        let children = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let below: Vec<i32> =
            found.iter().flat_map(|pid| children(pid).split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        found.extend(below);
        found
    }
}

/// The forms of a value that programs print.
fn forms(canary: &str) -> Vec<String> {
    let hex = |upper: bool| canary.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect::<String>();
    let url: String = canary
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b == b'-' { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let json = json!(canary).to_string();
    let mut all = vec![canary.to_owned(), hex(false), hex(true), url.clone(), url.to_lowercase(), json.trim_matches('"').to_owned()];
    for before in ["", "x", "xx"] {
        // Groups whose bits are all the canary's.
        let text = base64(format!("{before}{canary}").as_bytes());
        let inner: String = text.chars().skip(4).take((canary.len() - 3) / 3 * 4 - 4).collect();
        all.extend([inner.replace('+', "-").replace('/', "_"), inner]);
    }
    all
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let bits = part.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - part.len()));
        (0..=part.len()).map(|at| char::from(SIGNS[(bits >> (18 - 6 * at) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// The forms above are those that the tools of this host print.
#[test]
fn canaries_are_found_where_they_are() {
    assert_eq!(base64(b"canary"), "Y2FuYXJ5");
    let canaries = Canaries::of(0);
    for form in forms(&canaries.key) {
        let found = std::panic::catch_unwind(|| canaries.assert_clean(format!("<{form}>").as_bytes(), "a test")).is_err();
        assert!(found && form.len() > 12, "{form}");
    }
}

/// One task with all channels in it; `number` makes its goal its own.
async fn one(cage: &Cage, number: usize) {
    let Canaries { key, variable, file, remote } = &cage.canaries;
    let goal = format!("task {number}: use {key} and {variable} and {file} and {remote}");
    // What is executed is never changed, so a check with a secret in it is refused.
    let refused = cage.run(&["run", "--bg", "--verify", &format!("test '{key}' && cat leak.txt"), &goal]).await.exits(2);
    assert!(refused.stderr.contains("TB-SECRET-005"), "{}", refused.stderr);
    cage.canaries.assert_clean(refused.stderr.as_bytes(), "the refusal of a check");
    let task = cage.run(&["run", "--bg", "--verify", "test x && cat leak.txt", &goal]).await.exits(0).stdout.trim().to_owned();
    let told = format!("remember {remote}");
    // A task that has ended takes no words.
    let _told = cage.run(&["tell", &task, &told]).await;
    let run = cage.data().join("runs");
    until("the command waits", || {
        walk(&run)
            .iter()
            .any(|path| std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&format!("waiting-{number}-"))))
    })
    .await;
    for pid in cage.processes().await {
        for file in ["cmdline", "environ"] {
            // Another user than root may not even look at it, which is better.
            cage.canaries.assert_clean(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default(), &format!("{file} of {pid}"));
        }
    }
    cage.assert_clean_disk("while a command runs");
    let full = cage.home.inspect(&task).await["id"].as_str().unwrap().to_owned();
    std::fs::write(cage.data().join("work").join(full).join("tree/go"), "").unwrap();
    let out = cage.run(&["wait", &task]).await;
    cage.canaries.assert_clean(format!("{}{}", out.stdout, out.stderr).as_bytes(), "wait");
    cage.assert_clean_words(&task).await;
    cage.assert_clean_disk("after its end");
}

/// The turns of one task. What the model says it may have read anywhere.
fn turns(number: usize, canaries: &Canaries) -> Vec<Turn> {
    let wait = format!("echo waiting-{number}-; for i in $(seq 1 600); do test -e go && break; sleep 0.05; done; cat leak.txt");
    let repeats = canaries.all().map(|(_, canary)| format!("it is {canary}, is it not? ")).concat();
    vec![
        exec(&format!("{PRINT}; dd if=leak.txt bs={} 2> /dev/null", 1 + number % 17)),
        exec(PRINT_MORE),
        // A tool that there is not.
        Turn::call(&canaries.key, json!({})),
        Turn { text: repeats.clone(), ..exec(&format!("echo '{}' '{}'; {wait}", canaries.key, canaries.remote)) },
        Turn::call("plan", json!({ "steps": [{ "text": format!("use {}", canaries.file), "status": "done" }] })),
        Turn::call("read", json!({ "path": "leak.txt" })),
        Turn::call("search", json!({ "pattern": "canary" })),
        Turn::text(&repeats),
        Turn::text(&repeats),
        Turn::text(&repeats),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_reaches_any_sink() {
    for number in runs() {
        let canaries = Canaries::of(number);
        let cage = Cage::new(turns(number, &canaries), canaries).await;
        one(&cage, number).await;
        let log = std::fs::read_to_string(cage.home.tb().join("state/daemon.log")).unwrap();
        assert!(log.len() > 1_000, "the log was looked at");
        let requests = cage.home.model.as_ref().unwrap().requests();
        let words: String = requests.iter().map(|request| request.body.to_string()).collect();
        for name in CHANNELS {
            assert!(words.contains(&format!("[secret {name}]")), "{name} was printed and replaced");
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", cage.home.pid().await)).unwrap();
        assert!(
            limits.lines().any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0")),
            "{limits}"
        );
    }
}

/// A changed file counts at the next call, without a restart, and the old value stays unknown to all.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_changed_without_a_restart() {
    let print = exec("printf 'old-%s new-%s' value-of-key-1 value-of-key-2");
    let cage = Cage::new(vec![print, Turn::text("said old-value-of-key-1")], Canaries::of(0)).await;
    let url = cage.home.model.as_ref().unwrap().base_url();
    let file = cage.home.dir.path().join("rotating");
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("old-value-of-key-1\n");
    cage.home.config(&format!(
        "model = \"local/m\"\n[providers.local]\nwire = \"openai\"\napi_key = \"secret:mine\"\nbase_url = \"{url}\"\n\
         [models.\"local/m\"]\ncontext_tokens = 64000\n[secrets.mine]\nfile = \"{}\"\n",
        file.display()
    ));
    cage.home.run(&["secrets", "ls"]).await.exits(0).says("mine").says("present");
    cage.home.run(&["run", "go"]).await.exits(0).says("said [secret mine]");
    let pid = cage.home.pid().await;
    write("new-value-of-key-2\n");
    cage.home.run(&["run", "go"]).await.exits(0).says("said [secret mine]");
    assert_eq!(cage.home.pid().await, pid);
    let requests = cage.home.model.as_ref().unwrap().requests();
    let keys: Vec<&str> = requests.iter().map(|request| request.headers["authorization"].as_str()).collect();
    let (old, new) = ("Bearer old-value-of-key-1", "Bearer new-value-of-key-2");
    assert_eq!(keys, [old, old, new, new]);
    assert!(requests[3].body.to_string().contains("[secret mine] [secret mine]"), "{}", requests[3].body);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    cage.home.run(&["run", "go"]).await.exits(78).says("TB-SECRET-002").says("chmod 600");
    cage.home.run(&["doctor", "--offline"]).await.says("lets others read");
}

/// What a command prints that runs while a file is changed is replaced before a provider reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_new_meanwhile_reaches_no_provider() {
    let print = exec("echo waiting; for i in $(seq 1 600); do test -e go && break; sleep 0.05; done; printf 'new-%s' value-of-key-2");
    let home = Home::with(vec![print, Turn::text("done")]).await;
    let file = home.dir.path().join("rotating");
    std::fs::write(&file, "old-value-of-key-1\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    home.config(&format!("{config}[secrets.mine]\nfile = \"{}\"\n", file.display()));
    let task = home.submit(&["go"]).await;
    home.until_output("waiting").await;
    std::fs::write(&file, "new-value-of-key-2\n").unwrap();
    std::fs::write(Path::new(home.inspect(&task).await["workspace"].as_str().unwrap()).join("go"), "").unwrap();
    home.run(&["wait", &task]).await.exits(0);
    let asked = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
    assert!(asked.contains("[secret mine]") && !asked.contains("new-value"), "{asked}");
}

/// What looks like a key of a known maker does not leave the machine, unless the operator says so.
#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_key_stays_here() {
    let look = format!("{}{}", "AKIA", "IOSFODNN7EXAMPLE");
    for (switch, expected) in [("on", "[hidden: AWS key]"), ("off", look.as_str())] {
        let home = Home::with(vec![exec("printf AKIA > a; printf IOSFODNN7EXAMPLE >> a; cat a"), Turn::text("done")]).await;
        let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
        home.config(&format!("{config}[security]\npatterns = \"{switch}\"\n"));
        home.run(&["run", "go"]).await.exits(0);
        let asked = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
        assert!(asked.contains(expected), "{switch}: {asked}");
    }
}

/// Whoever writes the git configuration chooses what is known of it, but no command that is executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_changes_no_check() {
    let home = Home::with(vec![exec("touch fixed"), Turn::text("Fixed.")]).await;
    std::fs::write(home.repo.join("check.sh"), "test -e fixed && test \"$1\" = --strict\n").unwrap();
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "check"]);
    home.git(&["remote", "add", "origin", "https://me:--strict@localhost/x.git"]);
    home.run(&["run", "--verify", "sh check.sh --strict", "fix it"]).await.exits(0).says("verified");
}

/// In a linked worktree `.git` is a file, and what git would send stands elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_linked_worktree_are_known_before_the_first_word() {
    let home = Home::with(vec![exec("git config -l"), Turn::text("done")]).await;
    let linked = home.dir.path().join("linked");
    home.git(&["worktree", "add", "-q", linked.to_str().unwrap()]);
    home.git(&["config", "user.name", "J\u{f6}rg"]);
    let config = home.repo.join(".git/config");
    let mut bytes = std::fs::read(&config).unwrap();
    bytes.extend(b"[remote \"o\"] url = https://me:canary-of-worktree@localhost/x.git\n[user]\n\tname = J\xf6rg\n");
    std::fs::write(&config, bytes).unwrap();
    let task = home.submit(&["--cd", linked.to_str().unwrap(), "use canary-of-worktree now"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let told = home.run(&["logs", "--full", &task]).await.exits(0).stdout;
    assert!(told.contains("[secret git credential]") && !told.contains("canary-of-worktree"), "{told}");
    let asked: String = home.model.as_ref().unwrap().requests().iter().map(|request| request.body.to_string()).collect();
    assert!(asked.contains("use [secret git credential] now") && !asked.contains("canary-of-worktree"), "{asked}");
}

/// Long values, and one within the other: neither memory nor time is theirs to take.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_git_configuration_costs_little() {
    let print = exec("head -c 1000000 /dev/zero | sed 's/\\x00/abcd/g'; echo x; echo abcdabcd");
    let home = Home::with(vec![print, Turn::text("done")]).await;
    let remote = |at: usize, value: String| format!("[remote \"r{at}\"]\n\turl = https://me:{value}@localhost/x.git\n");
    let many = (2..200).map(|at| remote(at, format!("{at}{}", "x%20\u{e9}'".repeat(500))));
    let text = [remote(0, "abcd".repeat(2)), remote(1, "abcd".repeat(35_000)), remote(200, "abcd".repeat(1_000))].into_iter().chain(many);
    let config = home.repo.join(".git/config");
    let whole = std::fs::read_to_string(&config).unwrap() + &text.collect::<String>();
    std::fs::write(&config, whole).unwrap();
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let told = home.run(&["logs", "--full", &task]).await.exits(0).stdout;
    assert!(told.contains("[secret git credential]") && !told.contains("abcdabcd"), "{}", &told[..told.len().min(2_000)]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", home.pid().await)).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("the daemon's peak: {} MiB", kib >> 10);
    assert!(kib < 512 << 10, "{peak}");
}
