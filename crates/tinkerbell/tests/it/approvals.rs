//! Approvals as their user meets them: bound to bytes, used once, expiring, granted for more, answered together.
//!
//! A rule of the user's asks about a program of the test's own, `deploy`, which writes down that it ran. Invariant
//! of every test: what ran is what was approved, and as often.

use crate::home::{Home, exec, finish, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::Turn;

const ASK: &str = "[[rule]]\nid = \"deploys\"\nargv = [\"deploy\"]\ndecision = \"ask\"\nwhy = \"somebody should look\"\n";

/// A home whose PATH begins with a directory in which `deploy` lies.
struct Bench {
    home: Home,
    bin: PathBuf,
}

impl Bench {
    async fn with(turns: Vec<Turn>, more: &str) -> Self {
        let home = Home::with(turns).await;
        let bin = home.dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(home.tb().join("policy.toml"), ASK).unwrap();
        let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
        let read = format!("[sandbox]\nread = [\"{}\"]\n{more}", bin.display());
        home.config(&format!("{config}{read}"));
        let bench = Self { home, bin };
        bench.program("deployed");
        bench
    }

    /// Puts a program in place, by renaming, as installers do.
    fn program(&self, word: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let fresh = self.bin.join("deploy.new");
        std::fs::write(&fresh, format!("#!/bin/sh\necho {word} \"$@\" >> \"${{RAN:-ran.txt}}\"\n")).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(fresh, self.bin.join("deploy")).unwrap();
    }

    async fn run(&self, args: &[&str]) -> crate::home::Out {
        let mut command = self.home.command(args);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        finish(command, args).await
    }

    async fn open(&self) -> Vec<Value> {
        serde_json::from_str(&self.run(&["inbox", "--json"]).await.exits(0).stdout).unwrap()
    }

    /// Gives a task that asks; its id and its question.
    async fn asks(&self, goal: &str) -> (String, Value) {
        self.run(&["run", goal]).await.exits(4).says("tinkerbell approve");
        let open = self.open().await;
        (open[0]["task"].as_str().unwrap().to_owned(), open[0].clone())
    }

    async fn tree(&self, task: &str) -> PathBuf {
        PathBuf::from(self.home.inspect(task).await["workspace"].as_str().unwrap())
    }

    fn told(&self) -> String {
        self.home.model.as_ref().unwrap().requests().last().unwrap().body.to_string()
    }
}

fn ran(tree: &Path) -> String {
    std::fs::read_to_string(tree.join("ran.txt")).unwrap_or_default()
}

fn twice() -> Vec<Turn> {
    vec![exec("deploy now"), Turn::text("done")]
}

/// The plain way, and that the same answer is worth nothing a second time.
#[tokio::test(flavor = "multi_thread")]
async fn an_approved_command_runs_once_and_the_answer_is_used_up() {
    let bench = Bench::with(vec![exec("deploy now"), exec("deploy now"), Turn::text("done")], "").await;
    let (task, asked) = bench.asks("ship it").await;
    let question = &asked["question"];
    assert_eq!(question["rules"][0], "deploys");
    assert!(question["expires"].is_string() && question["digest"].as_str().unwrap().len() == 64, "{question}");
    let facts = question["facts"].to_string();
    assert!(facts.contains("first word") && facts.contains("sha256:") && facts.contains("bin/deploy"), "{facts}");
    bench.run(&["inspect", &task]).await.exits(0).says("deploy now").says("first word").says("expires");
    let id = format!("{}/1", asked["short"].as_str().unwrap());
    bench.run(&["approve", &id]).await.exits(0).says("approved");
    // The second call is the same command, and another deed.
    bench.run(&["wait", &task]).await.exits(4).says("tinkerbell approve").says("/2");
    bench.run(&["approve", &id]).await.exits(2).says("no such open question");
    assert_eq!(ran(&bench.tree(&task).await), "deployed now\n");
    bench.run(&["deny", &task, "--why", "once is enough"]).await.exits(0);
    bench.run(&["wait", &task]).await.exits(0);
    assert!(bench.told().contains("once is enough") && bench.told().contains("Do not try to get around it"));
    assert_eq!(ran(&bench.tree(&task).await), "deployed now\n");
}

/// What is exchanged between question and answer is asked about anew; nothing runs on the old answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_swapped_after_the_question_needs_another_answer() {
    for swap in ["program", "link", "environment", "policy"] {
        let bench = Bench::with(twice(), "").await;
        let (task, asked) = bench.asks("ship it").await;
        let tree = bench.tree(&task).await;
        match swap {
            "program" => bench.program("stolen"),
            "link" => {
                std::fs::write(bench.bin.join("other"), "#!/bin/sh\necho stolen >> ran.txt\n").unwrap();
                std::fs::set_permissions(bench.bin.join("other"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
                std::fs::remove_file(bench.bin.join("deploy")).unwrap();
                std::os::unix::fs::symlink("other", bench.bin.join("deploy")).unwrap();
            }
            "environment" => {
                // A client that brings another locale changes what commands of every task get.
                let args = ["attach", task.as_str()];
                let mut command = bench.home.command(&args);
                command.env("PATH", format!("{}:/usr/bin:/bin", bench.bin.display())).env("LANG", "tr_TR.UTF-8");
                finish(command, &args).await.exits(4);
            }
            _ => {
                let more = "[[rule]]\nid = \"x\"\nargv = [\"x\"]\ndecision = \"ask\"\n";
                std::fs::write(bench.home.tb().join("policy.toml"), format!("{ASK}\n{more}")).unwrap();
                bench.run(&["daemon", "reload"]).await.exits(0);
            }
        }
        let id = format!("{}/1", asked["short"].as_str().unwrap());
        bench.run(&["approve", &id]).await.exits(0);
        bench.run(&["wait", &task]).await.exits(4).says("/2");
        assert_eq!(ran(&tree), "", "{swap}: it ran on an answer to something else");
        bench.run(&["deny", &task]).await.exits(0);
        bench.run(&["wait", &task]).await.exits(0);
        assert_eq!(ran(&tree), "", "{swap}");
    }
}

/// A directory that is replaced by a link is another directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_working_directory_needs_another_answer() {
    let call = Turn::call("exec", serde_json::json!({ "cmd": "deploy now", "workdir": "src" }));
    let bench = Bench::with(vec![call, Turn::text("done")], "").await;
    let (task, _) = bench.asks("ship it").await;
    let tree = bench.tree(&task).await;
    std::fs::rename(tree.join("src"), tree.join("was")).unwrap();
    std::fs::create_dir(tree.join("evil")).unwrap();
    std::os::unix::fs::symlink("evil", tree.join("src")).unwrap();
    bench.run(&["approve", &task]).await.exits(0);
    bench.run(&["wait", &task]).await.exits(4).says("/2");
    assert!(!tree.join("evil/ran.txt").exists() && !tree.join("was/ran.txt").exists());
}

/// A protected file: shown as a diff, and bound to what it would replace.
#[tokio::test(flavor = "multi_thread")]
async fn a_protected_file_is_shown_as_a_diff_and_bound_to_what_stands_there() {
    let write = |text: &str| Turn::call("write", serde_json::json!({ "path": "AGENTS.md", "content": text }));
    let bench = Bench::with(vec![write("be bold\n"), Turn::text("done")], "").await;
    let (task, asked) = bench.asks("note it").await;
    let body = asked["question"]["body"].as_str().unwrap();
    assert!(body.contains("--- /dev/null") && body.contains("+be bold"), "{body}");
    let tree = bench.tree(&task).await;
    std::fs::write(tree.join("AGENTS.md"), "somebody else\n").unwrap();
    bench.run(&["approve", &task]).await.exits(0);
    bench.run(&["wait", &task]).await.exits(4);
    assert_eq!(std::fs::read_to_string(tree.join("AGENTS.md")).unwrap(), "somebody else\n");
}

/// Nobody answers: it counts as denied, the model is told, and the task goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_expires() {
    let bench = Bench::with(twice(), "[approvals]\nexpires = \"6s\"\n").await;
    let (task, asked) = bench.asks("ship it").await;
    let id = format!("{}/1", asked["short"].as_str().unwrap());
    let tree = bench.tree(&task).await;
    let home = &bench.home;
    until("the model was told", || home.asked() == 2).await;
    assert!(bench.told().contains("Nobody answered in time"), "{}", bench.told());
    bench.run(&["wait", &task]).await.exits(0);
    bench.run(&["approve", &id]).await.exits(2).says("no such open question");
    assert_eq!(ran(&tree), "");
    bench.run(&["logs", &task]).await.exits(0).says("nobody answered in time");
}

/// SIGKILL between question and answer, answer and use: asked once, run once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_question_answer_and_use_it_runs_once() {
    let slow = "deploy now; echo begun; sleep 1; echo ended >> ran.txt";
    let bench = Bench::with(vec![exec(slow), Turn::text("done")], "").await;
    let (task, asked) = bench.asks("ship it").await;
    let tree = bench.tree(&task).await;
    bench.home.kill_daemon().await;
    assert_eq!(bench.open().await[0]["question"], asked["question"], "the same question, nonce and all");
    bench.run(&["approve", &task]).await.exits(0);
    bench.home.until_output("begun").await;
    bench.home.kill_daemon().await;
    bench.run(&["wait", &task]).await.exits(0);
    assert_eq!(ran(&tree), "deployed now\nended\n");
    assert!(bench.open().await.is_empty(), "nothing is asked again");
}

/// A kill in the very moment after the answer: the approval is on record and used by the next daemon, once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_answer_it_runs_once() {
    for _ in 0..3 {
        let bench = Bench::with(twice(), "").await;
        let (task, _) = bench.asks("ship it").await;
        let pid = bench.home.pid().await;
        bench.run(&["approve", &task]).await.exits(0);
        crate::home::kill(pid);
        bench.run(&["wait", &task]).await.exits(0);
        assert_eq!(ran(&bench.tree(&task).await), "deployed now\n");
    }
}

/// For the task and for the project: not asked again within, asked outside and once it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn grants_answer_in_advance_as_far_as_they_reach() {
    let bench = Bench::with(vec![exec("deploy now a"), exec("cd . && deploy now a"), Turn::text("done")], "").await;
    // The task: its second call runs unasked, the next task asks.
    let (task, asked) = bench.asks("one").await;
    assert_eq!(asked["question"]["offer"]["argv"], serde_json::json!(["deploy", "now", "a"]), "{asked}");
    bench.run(&["approve", &task, "--for", "task"]).await.exits(0).says("for the task");
    bench.run(&["wait", &task]).await.exits(0);
    assert_eq!(ran(&bench.tree(&task).await), "deployed now a\ndeployed now a\n");
    bench.run(&["logs", &task]).await.exits(0).says("allowed for the task: `deploy now a`");
    // The project: a file of the user's, never in the repository.
    let (task, _) = bench.asks("two").await;
    bench.run(&["approve", &task, "--for", "project"]).await.exits(0).says("revoke");
    bench.run(&["wait", &task]).await.exits(0);
    assert!(!bench.home.repo.join(".tinkerbell").exists() && bench.home.tb().join("grants.toml").exists());
    bench.run(&["run", "three"]).await.exits(0);
    let list: Value = serde_json::from_str(&bench.run(&["policy", "grants", "--json"]).await.exits(0).stdout).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    assert!(list[0]["project"].as_str().unwrap().ends_with("/repo"), "{list}");
    bench.run(&["policy", "grants"]).await.exits(0).says("  `deploy now a`  ");
    bench.run(&["policy", "explain", "deploy now a"]).await.exits(0).says("you allowed `deploy now a` for this project");
    // Word by word: neither another one, nor one more, nor what is done with it.
    for other in ["deploy now b", "deploy now", "deploy now a b", "deploy now a > log"] {
        bench.run(&["policy", "explain", other]).await.exits(0).says("ask: ");
    }
    // Taken back, it is asked for again.
    bench.run(&["policy", "grants", "revoke", id]).await.exits(0).says("revoked");
    bench.asks("four").await;
}

/// Equal questions are one row and one answer; a rule's questions are one answer, too.
#[tokio::test(flavor = "multi_thread")]
async fn equal_questions_are_answered_together() {
    let bench = Bench::with(twice(), "").await;
    let mut tasks = Vec::new();
    for goal in ["one", "two", "three"] {
        bench.run(&["run", goal]).await.exits(4);
        tasks = bench.open().await.iter().map(|view| view["task"].as_str().unwrap().to_owned()).collect();
    }
    assert_eq!(tasks.len(), 3);
    let inbox = bench.run(&["inbox"]).await.exits(0).says("/1 +2").says("--all-like");
    assert_eq!(inbox.stdout.lines().count(), 2, "{}", inbox.stdout);
    bench.run(&["approve", "--all-like", &tasks[0]]).await.exits(0).says("deploy now");
    for task in &tasks {
        bench.run(&["wait", task]).await.exits(0);
        assert_eq!(ran(&bench.tree(task).await), "deployed now\n");
    }
    for goal in ["four", "five"] {
        bench.run(&["run", goal]).await.exits(4);
    }
    bench.run(&["approve", "--rule", "other"]).await.exits(0).says("nothing of that waits");
    bench.run(&["approve", "--rule", "deploys"]).await.exits(0).says("/1 approved");
    assert!(bench.open().await.is_empty());
}

/// A repository may call its rule as the user calls one: no answer to the user's is one to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_a_repository_is_none_of_the_users() {
    let bench = Bench::with(vec![exec("rm run.sh"), Turn::text("done")], "").await;
    std::fs::create_dir_all(bench.home.repo.join(".tinkerbell")).unwrap();
    let why = "deploy to staging ".repeat(30);
    let rule = format!("[[rule]]\nid = \"deploys\"\nargv = [\"rm\"]\ndecision = \"ask\"\nwhy = \"{why}\"\n");
    std::fs::write(bench.home.repo.join(".tinkerbell/policy.toml"), rule).unwrap();
    let (task, asked) = bench.asks("tidy").await;
    assert_eq!(asked["question"]["rules"], serde_json::json!(["project:deploys"]), "{asked}");
    let title = asked["question"]["title"].as_str().unwrap();
    assert!(title.starts_with("exec: (medium risk: it discards work; you did not ask for it) deploy to") && title.len() < 240, "{title}");
    bench.run(&["approve", "--rule", "deploys"]).await.exits(0).says("nothing of that waits");
    bench.run(&["approve", "--rule", "project:deploys"]).await.exits(2).says("others may have one of that name");
    assert_eq!(bench.open().await.len(), 1);
    bench.run(&["deny", "--rule", "project:deploys"]).await.exits(0).says("/1 denied");
    bench.run(&["wait", &task]).await.exits(0);
    assert!(bench.tree(&task).await.join("run.sh").exists());
}

/// The same deed denied three times: it is not asked for any more, a person says what to do instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_deed_that_is_denied_again_and_again_waits_for_a_word() {
    let bench = Bench::with([vec![exec("deploy now"); 4], vec![Turn::text("done")]].concat(), "").await;
    let (task, _) = bench.asks("ship it").await;
    for _ in 0..2 {
        bench.run(&["deny", &task]).await.exits(0);
        bench.run(&["wait", &task]).await.exits(4);
    }
    bench.run(&["deny", &task]).await.exits(0);
    bench.run(&["wait", &task]).await.exits(4).says("denied 3 times").says("--answer TEXT");
    bench.run(&["approve", &task, "--answer", "write a note"]).await.exits(0);
    // The fourth try is no question whether it may.
    bench.run(&["wait", &task]).await.exits(4).says("denied 3 times");
    assert!(bench.told().contains("The user denied this and said: write a note"), "{}", bench.told());
    bench.run(&["deny", &task]).await.exits(0);
    bench.run(&["wait", &task]).await.exits(0);
    assert_eq!(ran(&bench.tree(&task).await), "");
}

/// What would be read as something else is marked wherever it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn what_misleads_is_marked_wherever_it_is_shown() {
    let bench = Bench::with(vec![exec("deploy p\u{430}ypal \u{202e}x\u{1b}[2K"), Turn::text("done")], "").await;
    let (task, asked) = bench.asks("ship it").await;
    let marks = asked["question"]["marks"].to_string();
    assert!(marks.contains("look-alike letters: U+0430") && marks.contains("U+202E") && marks.contains("U+001B"), "{marks}");
    for args in [&["inspect", &task][..], &["logs", &task], &["approve", "--all-like", &task]] {
        let out = bench.run(args).await.exits(0).says("p<U+0430>ypal <U+202E>x\\x1b[2K").says("look-alike letters");
        assert!(!out.stderr.contains('\u{202e}') && !out.stderr.contains('\u{1b}'), "{}", out.stderr);
    }
}
