//! Repositories whose own files say that they stand somewhere else, such as in the user's home.
//!
//! The canvas has tests of every form; here the whole way is walked, with a file in the home that must not get
//! out. Invariant: a task sees the directory that its user named, whatever the repository says.

use crate::home::{Home, exec};
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::Turn;

const CANARY: &str = "canary-4f1e0c77";

/// A home with a key in `$HOME/.ssh` and a repository there, and a model that looks for the key.
async fn home() -> (Home, PathBuf) {
    let home =
        Home::with(vec![exec("find . -name 'id*'; cat .ssh/id .git/config; git log -3 --all; git status"), Turn::text("done")]).await;
    let user = home.dir.path().join("home");
    std::fs::create_dir_all(user.join(".ssh")).unwrap();
    std::fs::write(user.join(".ssh/id"), format!("{CANARY}\n")).unwrap();
    home.git_in(&user, &["init", "-q", "-b", "main"], &[]);
    home.git_in(&user, &["add", "-A"], &[]);
    home.git_in(&user, &["commit", "-q", "-m", CANARY], &[]);
    (home, user)
}

/// Runs the task, which ends with `code`; nothing of the home has got out or changed.
async fn kept(home: &Home, cwd: &Path, code: i32, what: &str) {
    let user = home.dir.path().join("home");
    let before = home.git_in(&user, &["for-each-ref"], &[]);
    let out = home.run(&["run", "--cd", cwd.to_str().unwrap(), "go"]).await;
    let requests = home.model.as_ref().unwrap().requests();
    let told = requests.iter().map(|request| request.body.to_string()).collect::<String>();
    assert!(!told.contains(CANARY) && !out.stdout.contains(CANARY), "{what}: {told}");
    if code != 0 {
        assert!(requests.is_empty(), "{what}: nobody pays for it");
        assert!(out.stderr.contains("TB-CANVAS-018"), "{what}: {out:?}");
    }
    let trees = crate::home::walk(&home.tb().join("data/work"));
    assert!(!trees.iter().any(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(CANARY.as_bytes()))), "{what}: {trees:?}");
    assert_eq!(home.git_in(&user, &["for-each-ref"], &[]), before, "{what}");
    assert!(!user.join(".git/worktrees").exists(), "{what}");
    out.exits(code);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_tree_that_the_configuration_chooses_is_refused() {
    let (home, user) = home().await;
    home.git(&["config", "core.worktree", user.to_str().unwrap()]);
    kept(&home, &home.repo, 2, "core.worktree").await;
    let out = home.run(&["run", "go"]).await;
    out.exits(2).says("core.worktree").says("--unset core.worktree");
    home.run(&["explain", "TB-CANVAS-018"]).await.exits(0).says("git clone");
    // What the advice says helps.
    let config = home.repo.join(".git/config");
    home.git_in(home.dir.path(), &["config", "--file", config.to_str().unwrap(), "--unset", "core.worktree"], &[]);
    kept(&home, &home.repo, 0, "unset").await;
}

/// Set after the task began: its result goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_landed_in_another_working_tree() {
    let (home, user) = home().await;
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    std::fs::write(tree.join("planted.txt"), "x\n").unwrap();
    home.git(&["config", "core.worktree", user.to_str().unwrap()]);
    let out = home.run(&["land", &task, "--squash"]).await;
    assert!(out.code != 0 && !user.join("planted.txt").exists() && !user.join("src").exists(), "{out:?}");
    out.says("core.worktree");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_laid_out_like_a_repository_is_content() {
    let (home, user) = home().await;
    let sub = home.repo.join("src");
    std::fs::create_dir_all(sub.join("objects")).unwrap();
    std::fs::create_dir_all(sub.join("refs")).unwrap();
    std::fs::write(sub.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    std::fs::write(sub.join("config"), format!("[core]\n\tbare = false\n\tworktree = {}\n", user.display())).unwrap();
    kept(&home, &sub, 0, "bare-looking").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_directory_that_does_not_name_its_tree_back_is_refused() {
    let (home, user) = home().await;
    let tip = home.git_in(&user, &["rev-parse", "HEAD"], &[]);
    let evil = home.dir.path().join("evil");
    std::fs::create_dir(&evil).unwrap();
    std::fs::write(evil.join(".git"), format!("gitdir: {}\n", user.join(".git").display())).unwrap();
    kept(&home, &evil, 2, ".git file").await;
    std::fs::remove_file(evil.join(".git")).unwrap();
    std::os::unix::fs::symlink(user.join(".git"), evil.join(".git")).unwrap();
    kept(&home, &evil, 2, ".git link").await;
    std::fs::write(home.repo.join(".git/commondir"), format!("{}\n", user.join(".git").display())).unwrap();
    kept(&home, &home.repo, 2, "commondir").await;
    std::fs::remove_file(home.repo.join(".git/commondir")).unwrap();
    let lent = format!("{}\n", user.join(".git/objects").display());
    std::fs::write(home.repo.join(".git/objects/info/alternates"), &lent).unwrap();
    kept(&home, &home.repo, 2, "alternates").await;
    // A list that leads to another one.
    std::fs::write(home.repo.join(".git/objects/info/alternates"), "../x\n").unwrap();
    std::fs::create_dir_all(home.repo.join(".git/x/info")).unwrap();
    std::fs::write(home.repo.join(".git/x/info/alternates"), &lent).unwrap();
    home.git_in(home.dir.path(), &["--git-dir", home.repo.join(".git").to_str().unwrap(), "update-ref", "refs/heads/main", &tip], &[]);
    kept(&home, &home.repo, 2, "alternates of alternates").await;
}

/// The user's own word opens what a repository can not open by itself.
#[tokio::test(flavor = "multi_thread")]
async fn borrowed_objects_are_read_where_the_user_says_so() {
    let home = Home::with(vec![exec("git log -1 --format=%s"), Turn::text("done")]).await;
    let clone = home.dir.path().join("clone");
    home.git(&["clone", "-q", "--shared", ".", clone.to_str().unwrap()]);
    let objects = home.repo.join(".git/objects").canonicalize().unwrap();
    let cd = clone.to_str().unwrap().to_owned();
    home.run(&["run", "--cd", &cd, "go"]).await.exits(2).says("TB-CANVAS-018").says("tinkerbell.alternate");
    std::fs::write(home.dir.path().join("home/.gitconfig"), format!("[tinkerbell]\n\talternate = {}\n", objects.display())).unwrap();
    home.run(&["run", "--cd", &cd, "go"]).await.exits(0);
    let last = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
    assert!(last.contains("base"), "{last}");
}

/// A log that is a link to a file of the user's gets no line.
#[tokio::test(flavor = "multi_thread")]
async fn landing_adds_to_no_file_outside() {
    let (home, user) = home().await;
    home.git(&["config", "user.name", "x;touch evil #"]);
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    std::fs::write(tree.join("new.txt"), "x\n").unwrap();
    std::fs::write(user.join(".bashrc"), "true\n").unwrap();
    for log in ["HEAD", "refs/heads/main"] {
        let log = home.repo.join(".git/logs").join(log);
        let kept = std::fs::read(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink(user.join(".bashrc"), &log).unwrap();
        let out = home.run(&["land", &task, "--squash"]).await;
        assert_eq!(std::fs::read_to_string(user.join(".bashrc")).unwrap(), "true\n");
        assert_ne!(out.code, 0);
        out.says("TB-CANVAS-018").says("link");
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, kept).unwrap();
    }
    home.run(&["land", &task, "--squash"]).await.exits(0);
}

/// A bare repository with worktrees in it is a custom; so may an archive be laid out, and then what lies around is
/// what lay where it was unpacked.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_shared_directory_a_task_sees_what_is_gits() {
    for level in ["full", "landlock"] {
        let look = "D=$(sed 's/gitdir: //;s,/worktrees/.*,,' .git); cat $D/other/.env $D/.ssh/id $D/tax.txt; ls -a $D; \
            git log --oneline; git status --short; git diff --stat; git blame run.sh; git stash list";
        let mut home = Home::with(vec![exec(look), Turn::text("done")]).await;
        home.level = level;
        let shared = home.dir.path().join("shared");
        home.git(&["clone", "-q", "--bare", ".", shared.to_str().unwrap()]);
        home.git_in(&shared, &["worktree", "add", "-q", "main", "main"], &[]);
        for place in ["other/.env", ".ssh/id", "tax.txt"] {
            std::fs::create_dir_all(shared.join(place).parent().unwrap()).unwrap();
            std::fs::write(shared.join(place), format!("{CANARY}\n")).unwrap();
        }
        // Both ends name each other by relative paths, as they would in an archive.
        std::fs::write(shared.join("worktrees/main/gitdir"), "../../main/.git\n").unwrap();
        std::fs::write(shared.join("main/.git"), "gitdir: ../worktrees/main\n").unwrap();
        home.run(&["run", "--cd", shared.join("main").to_str().unwrap(), "go"]).await.exits(0);
        let told = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
        assert!(told.contains(" base") && !told.contains(CANARY), "{level}: {told}");
        assert!(!told.contains("fatal"), "{level}: {told}");
    }
}

/// An archive without a directory of its own, unpacked in the home: `HEAD`, `objects`, `refs`, `worktrees`, `proj`.
#[tokio::test(flavor = "multi_thread")]
async fn a_home_does_not_become_a_shared_directory() {
    let (home, user) = home().await;
    let archive = home.dir.path().join("archive");
    home.git(&["clone", "-q", "--bare", ".", archive.to_str().unwrap()]);
    home.git_in(&archive, &["worktree", "add", "-q", "proj", "main"], &[]);
    std::fs::write(archive.join("worktrees/proj/gitdir"), "../../proj/.git\n").unwrap();
    std::fs::write(archive.join("proj/.git"), "gitdir: ../worktrees/proj\n").unwrap();
    for entry in std::fs::read_dir(&archive).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), user.join(entry.file_name())).unwrap();
    }
    kept(&home, &user.join("proj"), 2, "archive").await;
}

/// The revision that a task starts from has a link where the user's tree has a directory.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_carried_through_a_link() {
    let home = Home::with(vec![Turn::text("done")]).await;
    let out = home.dir.path().join("home");
    let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    home.config(&format!("{config}[workspace]\ncarry = [\"web/node_modules\"]\n"));
    std::os::unix::fs::symlink(&out, home.repo.join("web")).unwrap();
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "link"]);
    home.git(&["branch", "evil"]);
    home.git(&["rm", "-q", "web"]);
    std::fs::create_dir_all(home.repo.join("web/node_modules/x")).unwrap();
    std::fs::write(home.repo.join("web/node_modules/x/i.js"), "x\n").unwrap();
    home.run(&["run", "--base", "evil", "go"]).await.exits(0);
    assert!(!out.join("node_modules").exists());
    home.git(&["commit", "-q", "-m", "none"]);
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(tree.join("web/node_modules/x/i.js")).unwrap(), "x\n");
}
