//! The corpus of escapes: each way out of the worktree that is known to us, tried for real.
//!
//! A scripted model plays all of them in one task, through every door. Invariant: everything outside
//! is afterwards what it was before, byte for byte, and every script has really been tried.

use crate::home::{Home, finish_within};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::protected::is_protected;
use tinkerbell_testkit::llm::{Call, Scripted, Turn};

/// What no request to a model may hold.
const SECRET: &str = "SECRET-CANARY-5d1f";
/// All scripts of one level take half a minute on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// At least so many are in the corpus.
const LEAST: usize = 60;

/// One file of the corpus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    script: Vec<Script>,
}

/// One way out.
///
/// In its texts `@OUT@` is a directory outside with `canary.txt`, `@REL@` the same from above the
/// worktree's root, `@HOME@` the user's home, `@REPO@` the user's repository, `@TB@` and `@DATA@` our
/// directories, `@SIB@` the worktree of another task, `@PID@` the daemon, `@PORT@` a listener on the
/// host's loopback, `@PY@` an interpreter of Python, `@MARK@` a name that nothing may have afterwards.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    id: String,
    /// The family of the list in `docs/security.md`.
    family: String,
    /// `shell` where nothing is said.
    #[serde(default = "shell")]
    door: String,
    /// A shell command in a directory of its own, two below the worktree's root.
    #[serde(default)]
    cmd: String,
    /// The same in Python; `OUT`, `HOME`, `REPO`, `TB` and `PID` are set.
    #[serde(default)]
    python: String,
    /// A shell command after `python`.
    #[serde(default)]
    then: String,
    /// A shell command that runs while the calls are made, three seconds at most.
    #[serde(default)]
    background: String,
    /// Calls of tools, after the commands.
    #[serde(default)]
    calls: Vec<Call>,
    /// Calls after those.
    #[serde(default)]
    after: Vec<Call>,
    /// What a tool server is told.
    #[serde(default)]
    lines: Vec<String>,
    /// Words that its output may not hold.
    #[serde(default)]
    refuse: Vec<String>,
}

fn shell() -> String {
    "shell".to_owned()
}

fn corpus() -> Vec<Script> {
    let files = [
        include_str!("escapes/shell.toml"),
        include_str!("escapes/archive.toml"),
        include_str!("escapes/tools.toml"),
        include_str!("escapes/server.toml"),
    ];
    let scripts: Vec<Script> = files.iter().flat_map(|text| toml::from_str::<Corpus>(text).unwrap().script).collect();
    let ids: BTreeSet<&str> = scripts.iter().map(|script| script.id.as_str()).collect();
    assert_eq!(ids.len(), scripts.len(), "two scripts have one name");
    assert!(scripts.len() >= LEAST);
    for door in ["shell", "file tool", "patch", "server"] {
        assert!(scripts.iter().any(|script| script.door == door), "nothing comes through the door `{door}`");
    }
    scripts
}

/// The names that stand in scripts, with what they mean here.
struct Names(Vec<(&'static str, String)>);

impl Names {
    fn put(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn put_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.put(text)),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.put_all(value))).collect(),
            other => other.clone(),
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// A home with all that may be attacked.
struct World {
    home: Home,
    names: Names,
    listener: TcpListener,
    mark: String,
}

impl World {
    /// `None` where this host does not give the level.
    async fn at(level: &'static str, as_nobody: bool) -> Option<Self> {
        let Some(place) = place(as_nobody) else {
            eprintln!("skipped: every place for the test's files lies below /tmp");
            return None;
        };
        let mut home = Home::bare_in(&place);
        home.level = level;
        let dir = home.dir.path().to_owned();
        let write = |path: &str, text: &str| {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("outside/canary.txt", "canary\n"),
            ("outside/loose.txt", "loose\n"),
            ("outside/AGENTS.md", "real\n"),
            ("outside/dir/deep.txt", "canary\n"),
            ("outside/secret.txt", SECRET),
            ("home/.ssh/id_ed25519", SECRET),
            ("home/.aws/credentials", SECRET),
            ("home/.netrc", SECRET),
            ("home/.git-credentials", SECRET),
            ("home/.bashrc", "home\n"),
            ("home/.cargo/registry/index/x", "store\n"),
            ("repo/AGENTS.md", "real\n"),
            ("repo/deep/er/AGENTS.md", "real\n"),
            ("repo/.github/workflows/ci.yml", "real\n"),
            ("repo/.gitignore", ".env\n"),
            ("repo/.env", SECRET),
        ] {
            write(path, text);
        }
        std::fs::create_dir_all(dir.join("outside/empty")).unwrap();
        home.git(&["add", "-A"]);
        home.git(&["commit", "-q", "-m", "more"]);
        let mark = format!("tb-mark-{}-{level}-{as_nobody}", std::process::id());
        for place in ["/tmp", "/var/tmp", "/dev/shm"] {
            std::fs::write(Path::new(place).join(format!("{mark}-canary")), "canary\n").unwrap();
        }
        if as_nobody {
            hand_over(&dir);
            home.wrap = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned).to_vec();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let world = Self { home, names: Names(Vec::new()), listener, mark };
        world.furnish(level).await
    }

    /// A task of a neighbour, and the names.
    async fn furnish(mut self, level: &'static str) -> Option<Self> {
        self.script(vec![Turn::call("exec", json!({ "cmd": "true" })), Turn::text("done")]).await;
        let out = self.home.run(&["run", "--bg", "the neighbour"]).await;
        let task = out.stdout.trim().to_owned();
        let out = self.home.run(&["wait", &task]).await;
        if out.stderr.contains("TB-SANDBOX-002") || out.stdout.contains("TB-SANDBOX-002") {
            eprintln!("skipped at level {level}");
            return None;
        }
        assert_eq!(out.code, 0, "{out:?}");
        let dir = self.home.dir.path().display().to_string();
        let sibling = self.home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
        let interpreter = std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let interpreter = interpreter.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
        self.names = Names(vec![
            ("@OUT@", format!("{dir}/outside")),
            ("@REL@", "../../../../outside".to_owned()),
            ("@HOME@", format!("{dir}/home")),
            ("@REPO@", format!("{dir}/repo")),
            ("@TB@", format!("{dir}/tb")),
            ("@DATA@", format!("{dir}/tb/data")),
            ("@SIB@", sibling),
            ("@PID@", self.home.pid().await.to_string()),
            ("@PORT@", self.listener.local_addr().unwrap().port().to_string()),
            ("@PY@", if interpreter.is_empty() { "python3".to_owned() } else { interpreter }),
            ("@MARK@", self.mark.clone()),
        ]);
        Some(self)
    }

    /// Sets what the model plays from now on.
    async fn script(&mut self, turns: Vec<Turn>) {
        let model = Scripted::start(turns).await.unwrap();
        self.home.config(&format!(
            "model = \"local/scripted\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"local/scripted\"]\ncontext_tokens = 2000000\n",
            model.base_url()
        ));
        self.home.model = Some(model);
        if !self.home.wrap.is_empty() {
            hand_over(&self.home.tb());
        }
    }

    /// Every path outside with all that must stay.
    fn picture(&self, is_landlock: bool) -> BTreeMap<PathBuf, String> {
        let dir = self.home.dir.path();
        let mut seen = BTreeMap::new();
        let roots = ["outside", "home", "repo", "tb/config.toml", "tb/data/keys"].map(|name| dir.join(name));
        for root in roots.into_iter().chain([PathBuf::from(self.names.get("@SIB@"))]) {
            look(&root, &mut seen);
        }
        // Ours: objects, the worktrees' directories and the branches of tasks.
        let ours = [".git/objects", ".git/worktrees", ".git/refs/heads/tinkerbell", ".git/logs/refs/heads/tinkerbell"];
        seen.retain(|path, _| !ours.iter().any(|name| path.starts_with(dir.join("repo").join(name))));
        for path in [dir.join("repo/.git"), dir.join("repo/.git/refs/heads"), dir.join("repo/.git/logs/refs/heads")] {
            // Only their times change.
            seen.remove(&path);
        }
        for place in ["/tmp", "/var/tmp", "/dev/shm"] {
            look(&Path::new(place).join(format!("{}-canary", self.mark)), &mut seen);
        }
        let loose = dir.join("outside/loose.txt");
        if is_landlock && let Some(text) = seen.get_mut(&loose) {
            // The documented gap of this level; content and name must stay all the same.
            *text = std::fs::read_to_string(&loose).unwrap();
        }
        seen
    }

    /// Files that the attacks leave when they go through, wherever that is.
    fn traces(&self, tree: &Path) -> Vec<PathBuf> {
        let system = ["/", "/etc", "/usr/bin", "/usr/local/bin", "/opt", "/var", "/root", "/boot", "/lib", "/run", "/srv", "/mnt"];
        let shared = ["/tmp", "/var/tmp", "/dev/shm", "/run/user/0", "/run/lock"];
        let path = std::env::var("PATH").unwrap_or_default();
        let places = system.iter().chain(&shared).copied().chain(path.split(':'));
        let mut found: Vec<PathBuf> = places.map(|dir| Path::new(dir).join(&self.mark)).filter(|path| path.exists()).collect();
        let dir = self.home.dir.path();
        let own = [tree.to_owned(), dir.join("tb/data/homes"), dir.join("tb/data/runs")];
        let files = crate::home::walk(dir).into_iter().filter(|path| !own.iter().any(|own| path.starts_with(own)));
        found.extend(files.filter(|path| {
            let is_small = path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= 64);
            let is_named = path.file_name().is_some_and(|name| name == "pwned" || name.as_bytes().starts_with(b"by-"));
            is_named || is_small && std::fs::read(path).is_ok_and(|bytes| bytes.windows(4).any(|window| window == b"evil"))
        }));
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for place in ["/tmp", "/var/tmp", "/dev/shm"] {
            std::fs::remove_file(Path::new(place).join(format!("{}-canary", self.mark))).ok();
        }
    }
}

/// Where the world may stand. Not below `/tmp`: commands have one of their own there, in which they may
/// write as they like.
fn place(as_nobody: bool) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|_| !as_nobody).map(PathBuf::from);
    let places = [Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))), home, Some("/opt".into()), Some("/srv".into())];
    let is_apart = |path: &PathBuf| !path.starts_with("/tmp") && !path.starts_with("/var/tmp");
    places.into_iter().flatten().filter(is_apart).find(|path| tempfile::tempdir_in(path).is_ok())
}

/// Gives a directory and all below it to the user `nobody`.
fn hand_over(dir: &Path) {
    std::os::unix::fs::lchown(dir, Some(65_534), Some(65_534)).unwrap();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            hand_over(&entry.path());
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(65_534), Some(65_534)).unwrap();
        }
    }
}

/// Notes kind, mode, owner, links, time and content of everything below a path.
pub fn look(path: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let Ok(meta) = path.symlink_metadata() else {
        seen.insert(path.to_owned(), "missing".to_owned());
        return;
    };
    let content = if meta.is_symlink() {
        format!("{:?}", std::fs::read_link(path).unwrap())
    } else if meta.is_file() {
        format!("{:?}", Sha256::digest(std::fs::read(path).unwrap()))
    } else {
        String::new()
    };
    let links = if meta.is_dir() { 0 } else { meta.nlink() };
    let facts = format!("{:o} {}:{} {links} {} {content}", meta.permissions().mode(), meta.uid(), meta.gid(), meta.mtime());
    seen.insert(path.to_owned(), facts);
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).unwrap().flatten() {
            look(&entry.path(), seen);
        }
    }
}

/// The calls of a script.
fn turn(script: &Script, names: &Names) -> Turn {
    let mut calls = Vec::new();
    let mut exec = |text: String, yield_ms: u64| {
        let args = json!({ "cmd": text, "workdir": format!("w/{}", script.id), "yield_ms": yield_ms });
        calls.push(Call { tool: "exec".to_owned(), args, id: None });
    };
    let mut text = names.put(&script.cmd);
    if !script.python.is_empty() {
        let value = |name: &str| format!("{name} = {:?}\n", names.get(&format!("@{name}@")));
        let known: String = ["OUT", "HOME", "REPO", "TB"].iter().map(|name| value(name)).collect();
        let pid = names.get("@PID@");
        let body = names.put(&script.python);
        text = format!("cat > s.py <<'END'\n{known}PID = {pid}\n{body}END\n{} s.py\n{}", names.get("@PY@"), names.put(&script.then));
    }
    if !script.lines.is_empty() {
        let lines = names.put(&script.lines.join("\n"));
        let server = include_str!("escapes/server.py");
        text = format!("cat > s.py <<'END'\n{server}END\n{} s.py <<'END'\n{lines}\nEND\n", names.get("@PY@"));
    }
    let id = &script.id;
    if !text.is_empty() {
        exec(
            format!(
                "(\n{text}\n) > out.log 2>&1 < /dev/null\ncd $TMPDIR; cd - > /dev/null; grep -ah -e BROKE -e CANARY out.log; tail -c 200 out.log; echo; echo TRIED {id}"
            ),
            30_000,
        );
    }
    if !script.background.is_empty() {
        exec(format!("echo TRIED {id}; exec timeout 3 sh -c '{}'", names.put(&script.background)), 250);
    }
    for (number, call) in script.calls.iter().chain(&script.after).enumerate() {
        calls.push(Call { args: names.put_all(&call.args), ..call.clone() });
        // A model whose every call fails is stopped after a few; here failing is the rule.
        calls.push(Call { tool: "exec".to_owned(), args: json!({ "cmd": format!("echo {id} {number}") }), id: None });
    }
    Turn { calls, ..Turn::default() }
}

/// Lets the task go to its end; whatever it asks for is denied.
async fn finish(home: &Home, task: &str) -> usize {
    for denied in 0..200 {
        let args = ["wait", task];
        let out = finish_within(home.command(&args), &args, PATIENCE).await;
        if out.code != 4 {
            let log = home.run(&["logs", task]).await.stdout;
            let end: Vec<&str> = log.lines().rev().take(12).collect();
            assert!(out.code == 0, "{out:?}\n{end:#?}");
            return denied;
        }
        home.run(&["deny", task]).await.exits(0);
    }
    panic!("it asks without end");
}

async fn nothing_gets_out(level: &'static str, as_nobody: bool) {
    let Some(mut world) = World::at(level, as_nobody).await else { return };
    let scripts = corpus();
    let places: Vec<String> = scripts.iter().map(|script| format!("w/{}", script.id)).collect();
    let mut turns = vec![Turn::call("exec", json!({ "cmd": format!("mkdir -p {}", places.join(" ")) }))];
    turns.extend(scripts.iter().map(|script| turn(script, &world.names)));
    turns.push(Turn::text("done"));
    world.script(turns).await;
    let before = world.picture(level == "landlock");
    let task = world.home.submit(&["--max-steps", "1000", "try everything"]).await;
    let denied = finish(&world.home, &task).await;
    let requests = world.home.model.as_ref().unwrap().requests();
    let last = requests.last().unwrap();
    let told = last.body.to_string();
    for script in &scripts {
        let has_command = !(script.cmd.is_empty() && script.python.is_empty() && script.lines.is_empty() && script.background.is_empty());
        assert!(!has_command || told.contains(&format!("TRIED {}", script.id)), "{} ({}) was not tried", script.id, script.family);
    }
    judge(&scripts, &last.body, level);
    let leak = requests.iter().find(|request| request.bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    assert!(leak.is_none(), "a secret reached the model");
    let after = world.picture(level == "landlock");
    let differ: Vec<_> = before.iter().map(|(path, text)| (path, text, after.get(path))).filter(|(_, a, b)| *b != Some(*a)).collect();
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(differ.is_empty() && new.is_empty(), "{level}: changed {differ:#?}, new {new:#?}");
    let tree = PathBuf::from(world.home.inspect(&task).await["workspace"].as_str().unwrap());
    assert_eq!(world.traces(&tree), Vec::<PathBuf>::new(), "{level}");
    assert!(world.listener.accept().is_err(), "{level}: somebody reached the host's loopback");
    protected_files_stay(&world, &task, &tree).await;
    eprintln!("{level}: {} scripts, {denied} questions denied, {} paths outside unchanged", scripts.len(), after.len());
}

/// What no script's output may hold.
fn judge(scripts: &[Script], body: &Value, level: &str) {
    let results: Vec<&str> =
        body["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "tool").filter_map(|m| m["content"].as_str()).collect();
    for script in scripts.iter().filter(|script| !script.refuse.is_empty()) {
        let mark = format!("TRIED {}", script.id);
        for result in results.iter().filter(|result| result.contains(&mark)) {
            let held = script.refuse.iter().find(|word| result.contains(word.as_str()));
            assert!(held.is_none(), "{level}: {}: {result}", script.id);
        }
    }
}

/// In the worktree, in the diff and after landing.
async fn protected_files_stay(world: &World, task: &str, tree: &Path) {
    let home = &world.home;
    for path in ["AGENTS.md", "deep/er/AGENTS.md", ".github/workflows/ci.yml"] {
        assert_eq!(std::fs::read_to_string(tree.join(path)).unwrap_or_default(), "real\n", "{path}");
    }
    let git = std::fs::read_to_string(tree.join(".git")).unwrap();
    assert!(git.starts_with("gitdir: ") && git.contains("/repo/.git/worktrees/"), "{git}");
    let diff = home.run(&["diff", task]).await.exits(0).stdout;
    let touched = diff.lines().filter_map(|line| line.strip_prefix("diff --git").and_then(|line| line.rsplit_once(" b/")));
    // A repository that a command has made stands in checkpoints, whole; it is never landed.
    let bad: Vec<&str> = touched.map(|(_, path)| path).filter(|path| !path.contains("/n/.git/") && is_protected(path)).collect();
    assert_eq!(bad, Vec::<&str>::new());
    home.run(&["land", task, "--squash"]).await.exits(0);
    for path in ["AGENTS.md", "deep/er/AGENTS.md", ".github/workflows/ci.yml"] {
        assert_eq!(std::fs::read_to_string(home.repo.join(path)).unwrap(), "real\n", "{path}");
    }
    for gone in [".vscode", ".claude", ".mcp.json", ".envrc", ".gitmodules", "CLAUDE.md", ".husky"] {
        assert!(home.repo.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert_eq!(std::fs::read_to_string(home.repo.join("src/fine.txt")).unwrap_or_default(), "", "all or nothing");
    let inner = crate::home::walk(&home.repo)
        .into_iter()
        .find(|path| path.starts_with(home.repo.join("w")) && is_protected(&path.to_string_lossy()));
    assert!(inner.is_none(), "{inner:?}");
    let pwned = crate::home::walk(home.dir.path()).into_iter().find(|path| path.file_name().is_some_and(|name| name == "pwned"));
    assert!(pwned.is_none(), "{pwned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_full() {
    nothing_gets_out("full", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_landlock() {
    nothing_gets_out("landlock", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_for_an_ordinary_user() {
    if !rustix::process::getuid().is_root() {
        return eprintln!("skipped: the other tests run as an ordinary user already");
    }
    for level in ["full", "landlock"] {
        nothing_gets_out(level, true).await;
    }
}
