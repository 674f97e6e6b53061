//! Trees that no list holds: made by a command, and delivered by a repository.
//!
//! Invariant: the task ends, with a record, and the daemon neither grows nor dies nor begins again.

use crate::home::{Home, exec};
use tinkerbell_testkit::llm::Turn;

/// The most memory that the daemon has had, in KiB.
async fn peak_kib(home: &Home) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", home.pid().await)).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// That the task has failed with the code, that a new daemon does not take it up, and that it can be removed.
async fn ended(home: &Home, task: &str) {
    let told = |value: serde_json::Value| (value["result"]["status"].as_str().unwrap_or_default().to_owned(), value.to_string());
    let (status, all) = told(home.inspect(task).await);
    assert_eq!(status, "failed", "{all}");
    assert!(all.contains("TB-CANVAS-014"), "{all}");
    let asked = home.asked();
    assert!(peak_kib(home).await < 400 << 10, "{} KiB", peak_kib(home).await);
    home.kill_daemon().await;
    home.run(&["daemon", "start"]).await.exits(0);
    assert_eq!(told(home.inspect(task).await).0, "failed");
    assert_eq!(home.asked(), asked, "it is not taken up again");
    assert!(peak_kib(home).await < 400 << 10);
    home.run(&["rm", task]).await.exits(0);
    let left: Vec<_> = std::fs::read_dir(home.tb().join("data/work")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Each name is short enough, and the walk goes by descriptor: together the names are longer than any program can say.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_endless_paths_ends_its_task_and_not_the_daemon() {
    let script = "import os\nfor _ in range(180):\n  os.mkdir('n' * 250)\n  os.chdir('n' * 250)\nfor n in range(3000):\n  open(str(n), 'w').close()\nprint('made')\n";
    let mut home = Home::with(vec![exec(&format!("python3 -c \"{script}\"")), Turn::text("done")]).await;
    home.workspace = Some("direct".to_owned());
    let task = home.submit(&["go"]).await;
    let out = home.run(&["wait", &task]).await;
    assert_ne!(out.code, 0, "{out:?}");
    ended(&home, &task).await;
}

/// Eight objects that stand for a hundred million files.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_tree_that_holds_itself_again_and_again_is_refused() {
    let home = Home::with(vec![Turn::text("done")]).await;
    let mut id = home.git(&["rev-parse", "HEAD:run.sh"]);
    for level in 0..8 {
        let (mode, kind) = if level == 0 { ("100644", "blob") } else { ("040000", "tree") };
        let lines: String = (0..10).map(|n| format!("{mode} {kind} {id}\tx{n}\n")).collect();
        let list = home.dir.path().join("lines");
        std::fs::write(&list, lines).unwrap();
        let lines = std::fs::File::open(list).unwrap();
        let made = std::process::Command::new("git").arg("mktree").current_dir(&home.repo).stdin(lines).output().unwrap();
        id = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    }
    let commit = home.git(&["commit-tree", "-m", "many", &id]);
    home.git(&["update-ref", "refs/heads/main", &commit]);
    let task = home.submit(&["go"]).await;
    let out = home.run(&["wait", &task]).await;
    assert_ne!(out.code, 0, "{out:?}");
    assert_eq!(home.asked(), 0, "nobody pays for it");
    ended(&home, &task).await;
}

/// Trees within an index, a million deep: whoever reads them by calling itself has no stack left.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_index_does_not_end_the_daemon() {
    let home = Home::with(vec![exec("ls"), Turn::text("done")]).await;
    let deep = b"x\0-1 1\n".repeat(1_000_000);
    let size = u32::try_from(deep.len()).unwrap().to_be_bytes();
    let index = [&b"DIRC\0\0\0\x02\0\0\0\0TREE"[..], &size, &deep, &[0; 20]].concat();
    std::fs::write(home.repo.join(".git/index"), index).unwrap();
    home.run(&["daemon", "start"]).await.exits(0);
    let pid = home.pid().await;
    home.run(&["run", "go"]).await.exits(0);
    assert_eq!(home.pid().await, pid);
}

/// Files of a git directory that say they hold gigabytes, which costs nothing to deliver, and files that have no end.
#[tokio::test(flavor = "multi_thread")]
async fn delivered_git_files_without_measure_are_refused() {
    const GIB: u64 = 1 << 30;
    let home = Home::with(vec![Turn::text("done")]).await;
    let tip = home.git(&["rev-parse", "HEAD"]);
    let git = home.repo.join(".git");
    let config = std::fs::read_to_string(git.join("config")).unwrap();
    home.run(&["daemon", "start"]).await.exits(0);
    let cases = [
        ("big", String::new(), 3 * GIB, "[include]\n\tpath = big\n"),
        ("refs/heads/main", format!("{tip}\n"), GIB, ""),
        ("packed-refs", "# pack-refs with: peeled fully-peeled sorted \n".to_owned(), GIB, ""),
        ("packed-refs", format!("{tip} refs/heads/x\n"), GIB, ""),
        ("x/info/alternates", String::new(), GIB, ""),
        ("description", "it\n".to_owned(), 3, "[include]\n\tpath = /proc/kmsg\n"),
    ];
    for (name, head, bytes, more) in cases {
        let path = git.join(name);
        let was = std::fs::read(&path).ok();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, head).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        std::fs::write(git.join("config"), format!("{config}{more}")).unwrap();
        std::fs::write(git.join("objects/info/alternates"), "../x\n").unwrap();
        let command = home.command(&["run", "go"]);
        let out = crate::home::finish_within(command, &["run", name], std::time::Duration::from_secs(60)).await;
        out.exits(2).says("TB-CANVAS-018");
        assert!(peak_kib(&home).await < 400 << 10, "{name}: {} KiB", peak_kib(&home).await);
        match was {
            Some(was) => std::fs::write(&path, was).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    std::fs::write(git.join("config"), config).unwrap();
    home.run(&["run", "go"]).await.exits(0);
}
