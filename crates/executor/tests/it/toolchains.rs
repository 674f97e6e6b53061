//! Toolchains of the host, as commands see them. What is not installed is not tested.

use crate::both;
use crate::house::*;
use std::path::Path;
use std::time::Duration;
use tinkerbell_core::port::{ExecSpec, Level, Sandbox, UnitState, Until};
use tinkerbell_executor::SandboxOptions;

/// The same house with the real user's home, so that toolchains are found.
fn at_home(house: &House) -> SandboxOptions {
    SandboxOptions { home: std::env::var_os("HOME").map(Into::into), ..house.options.clone() }
}

async fn run(house: &House, seq: u32, command: &str) -> (String, Option<i32>) {
    let sandbox = daemon(&at_home(house));
    let unit = sandbox.start(house.spec(seq, command)).await.unwrap();
    let ended = end(unit.as_ref()).await;
    (text(unit.as_ref()).await, ended.code)
}

both!(cargo_builds_a_crate_without_dependencies, house, {
    // A workspace of its own: the test's place may lie below another.
    std::fs::create_dir_all(house.tree().join("c/src")).unwrap();
    std::fs::write(
        house.tree().join("c/Cargo.toml"),
        "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    )
    .unwrap();
    std::fs::write(house.tree().join("c/src/main.rs"), "fn main() { println!(\"Hello, world!\"); }\n").unwrap();
    let command = "cargo --version > /dev/null 2>&1 || { echo none; exit 0; }; cd c && cargo build && ./target/debug/probe";
    let (output, code) = run(&house, 1, command).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("Hello, world!") || output.contains("none"), "{output}");
});

/// Programs that are missing here are told, not tested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_builds_work_in_a_layer() {
    let Some(house) = House::layered().await else { return };
    for (path, text) in [
        ("c/Cargo.toml", "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
        ("c/src/lib.rs", "#[test]\nfn it_works() { assert_eq!(1 + 1, 2); }\n"),
        ("g/go.mod", "module probe\n\ngo 1.20\n"),
        ("g/main.go", "package main\n\nfunc main() { println(\"go\") }\n"),
        (
            "n/package.json",
            "{\"name\":\"probe\",\"version\":\"1.0.0\",\"scripts\":{\"build\":\"rm -rf dist && mkdir dist && node -e 1 > dist/x\"}}\n",
        ),
        ("p/test_it.py", "def test_it():\n    assert 1 + 1 == 2\n"),
        ("m/Makefile", "all: x.o\n\t@echo made\nx.o: x.c\n\tcp x.c x.o\nclean:\n\trm -rf x.o out && mkdir out\n"),
        ("m/x.c", "int x;\n"),
    ] {
        let path = house.tree().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let builds = [
        ("cargo --version", "cd c && cargo test --quiet && touch src/lib.rs && cargo build && cargo clean && cargo build"),
        ("go version", "cd g && go build -o probe . && ./probe && go vet ./..."),
        ("npm --version", "cd n && npm run build && npm run build && npm install --no-audit --no-fund"),
        ("python3 -m pytest --version", "cd p && python3 -m pytest -q && python3 -m pytest -q"),
        ("python3 -m venv --help", "cd p && python3 -m venv --without-pip .venv && .venv/bin/python -c 'print(1)'"),
        ("make --version", "cd m && make && touch x.c && make && make clean all"),
        (
            "git --version",
            "mkdir r && cd r && git init -q . && git -c user.name=a -c user.email=b commit -q --allow-empty -m one && git log",
        ),
    ];
    let sandbox = daemon(&at_home(&house));
    for (seq, (probe, build)) in builds.iter().enumerate() {
        let command = format!("{probe} > /dev/null 2>&1 || {{ echo MISSING; exit 0; }}; set -e; {build}");
        // A first build compiles a standard library, and the machine may be busy.
        let patience = Duration::from_secs(300);
        let spec = ExecSpec { deadline: patience, ..house.spec(1 + seq as u32, &command) };
        let unit = sandbox.start(spec).await.unwrap();
        let state = unit.wait(Until { timeout: patience, line: None, from: 0 }).await.unwrap();
        let (output, code) = (text(unit.as_ref()).await, matches!(state, UnitState::Ended(ended) if ended.code == Some(0)));
        eprintln!("{probe}: {}", if output.contains("MISSING") { "not here" } else { "works" });
        assert!(code, "{build}: {output}");
    }
    assert!(!house.tree().join("c/target").exists() && !house.tree().join("m/x.o").exists());
}

both!(python_node_and_git_answer, house, {
    let ask = |name: &str, rest: &str| format!("command -v {name} > /dev/null || exit 0; {name} {rest}");
    for (seq, command) in
        [ask("python3", "-c 'print(1+1)'"), ask("node", "-e 'console.log(1+1)'"), ask("git", "--version")].iter().enumerate()
    {
        let (output, code) = run(&house, 10 + seq as u32, command).await;
        assert_eq!(code, Some(0), "{command}: {output}");
    }
});

both!(git_reads_and_does_not_write, house, {
    let repo = house.root().join("repo");
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&repo).args(args).env("HOME", house.root()).env("GIT_AUTHOR_NAME", "a").env("GIT_AUTHOR_EMAIL", "a@b");
        command.env("GIT_COMMITTER_NAME", "a").env("GIT_COMMITTER_EMAIL", "a@b").output().is_ok_and(|output| output.status.success())
    };
    std::fs::create_dir_all(&repo).unwrap();
    let work = house.root().join("work");
    if !git(&["init", "-q"]) {
        return;
    }
    std::fs::write(repo.join("f"), "1\n").unwrap();
    assert!(git(&["add", "f"]) && git(&["commit", "-qm", "one"]) && git(&["worktree", "add", "-q", work.to_str().unwrap()]));
    let mut house = house;
    house.workspace.tree = work;
    house.workspace.common_dir = repo.join(".git");
    house.workspace.git_dir = repo.join(".git/worktrees/work");
    let (output, code) =
        run(&house, 1, "echo 2 >> f; git status --short && git diff --stat && git log --oneline && git blame f > /dev/null").await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(" M f") && output.contains("one"), "{output}");
    let (output, code) = run(&house, 2, "git add f && git commit -qm two").await;
    assert!(code != Some(0) && output.contains("index.lock"), "{output}");
});

both!(git_works_and_what_lies_around_a_shared_directory_is_not_shown, house, {
    let root = house.root();
    let repo = root.join("repo");
    std::fs::create_dir_all(&repo).unwrap();
    let git = |dir: &Path, args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(dir).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).env("HOME", &root);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !git(&repo, &["init", "-q", "-b", "main"]) {
        return;
    }
    std::fs::write(repo.join("f"), "1\n").unwrap();
    assert!(git(&repo, &["add", "f"]) && git(&repo, &["commit", "-qm", "one"]));
    // A bare repository with worktrees in it, and a usual one.
    let bare = root.join("proj");
    assert!(git(&root, &["clone", "-q", "--bare", "repo", "proj"]));
    let mut house = house;
    for (nth, common) in [bare, repo.join(".git")].into_iter().enumerate() {
        let work = root.join(format!("work{nth}"));
        assert!(git(&common, &["worktree", "add", "-q", "-b", "t", work.to_str().unwrap(), "main"]));
        for (dir, file) in [("other", ".env"), (".ssh", "id"), ("git-crypt", "key"), ("info", "exclude"), ("worktrees/other", "locked")] {
            std::fs::create_dir_all(common.join(dir)).unwrap();
            std::fs::write(common.join(dir).join(file), format!("# canary-{dir}\n")).unwrap();
        }
        house.workspace.tree = work;
        house.workspace.git_dir = common.join(format!("worktrees/work{nth}"));
        let reads = "echo 2 >> f && git status --short && git diff --stat && git log --oneline && git blame f > /dev/null \
             && git branch -a && git rev-parse refs/heads/t && git stash list && git check-ignore -q f; \
             git stash; git commit -qam two";
        for packed in [false, true] {
            assert!(!packed || git(&common, &["pack-refs", "--all"]) && git(&common, &["gc", "-q"]));
            let seq = 1 + 3 * nth as u32 + 10 * u32::from(packed);
            house.workspace.common_dir = common.clone();
            let (output, _) = run(&house, seq, reads).await;
            assert!(output.contains(" M f") && output.contains("one") && output.contains("* t"), "{output}");
            assert!(!output.contains("fatal") || output.contains("index.lock"), "{output}");
            let dir = common.display();
            let (output, _) = run(
                &house,
                seq + 1,
                &format!("cd {dir}; cat other/.env .ssh/id git-crypt/key info/exclude worktrees/other/locked 2>&-; ls -a"),
            )
            .await;
            let told: Vec<&str> = output.lines().filter(|line| line.contains("canary")).collect();
            // Of other worktrees git itself keeps little, and without mounts that little is shown.
            let is_shown = nth == 1 && house.level == Level::Landlock;
            assert_eq!(told, if is_shown { vec!["# canary-info", "# canary-worktrees/other"] } else { vec!["# canary-info"] }, "{output}");
        }
    }
});

// A usual git directory is shown as it is now, not as it was when the command began.
both!(what_the_user_packs_meanwhile_is_seen, house, {
    let root = house.root();
    let repo = root.join("repo");
    std::fs::create_dir_all(&repo).unwrap();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&repo).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).env("HOME", &root);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "-q", "-b", "main"]) {
        return;
    }
    let work = root.join("work");
    assert!(git(&["commit", "-q", "--allow-empty", "-m", "one"]) && git(&["worktree", "add", "-q", "-b", "t", work.to_str().unwrap()]));
    let mut house = house;
    house.workspace.tree = work;
    house.workspace.common_dir = repo.join(".git");
    house.workspace.git_dir = repo.join(".git/worktrees/work");
    let sandbox = daemon(&at_home(&house));
    let wait = "echo began; n=0; while git rev-parse -q --verify refs/heads/gone > /dev/null && test $n -lt 300; do n=$((n+1)); sleep 0.1; done; \
         git rev-parse --verify refs/heads/t && git config --get a.b && git log --oneline";
    assert!(git(&["branch", "gone"]));
    let unit = sandbox.start(house.spec(1, wait)).await.unwrap();
    unit.wait(Until { timeout: Duration::from_secs(60), line: Some("began".into()), from: 0 }).await.unwrap();
    assert!(git(&["pack-refs", "--all"]) && git(&["config", "a.b", "c"]) && git(&["branch", "-D", "gone"]));
    let ended = end(unit.as_ref()).await;
    assert_eq!(ended.code, Some(0), "{}", text(unit.as_ref()).await);
});
