//! Walls: what a hostile command tries from the shell, and what an honest one needs.

use crate::both;
use crate::house::{self, *};
use std::net::TcpListener;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::port::{ExecSpec, Level, Sandbox, Service};
use tinkerbell_core::words::{RunId, SERVICE_SEQ};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_self_test_reports_each_check() {
    for level in [Level::Full, Level::Landlock] {
        let Some(house) = House::at(level).await else { continue };
        let report = house.sandbox.probe_report().await.unwrap();
        for (name, checks) in [("full", &report.full), ("landlock", &report.landlock)] {
            for check in checks {
                eprintln!("{name}: {} {}: {}", if check.passed { "ok" } else { "FAILED" }, check.name, check.text);
            }
        }
        assert!(report.full.len() > 10 || report.landlock.len() > 10);
        assert_eq!(house.sandbox.level().await.unwrap(), level);
    }
}

// Every attack prints `BROKE` and a name if it works.
both!(attacks_from_the_shell_fail, house, {
    let root = house.root();
    let root = root.display();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let victim = std::process::id();
    let _datagrams = std::os::unix::net::UnixDatagram::bind(house.root().join("datagrams")).unwrap();
    let _watcher = std::os::unix::net::UnixListener::bind(house.root().join("git/watcher.ipc")).unwrap();
    std::fs::write(house.root().join("outside"), "outside-canary").unwrap();
    // Landlock up to ABI 7 does not know `chmod`: the level's documented gap.
    let chmod = if house.level == Level::Full { "" } else { "# " };
    let attacks = format!(
        r#"
        broke() {{ echo BROKE $1; }}
        echo x > {root}/new && broke write
        echo x > {root}/outside && broke overwrite
        echo x >> ../../outside && broke dotdot
        rm {root}/outside && broke remove
        {chmod}chmod 777 {root}/outside && broke chmod
        cat {root}/outside && broke read
        cat {root}/home/.ssh/id && broke ssh
        cat {root}/data/secret/key && broke data
        ls {root}/data/secret && broke listing
        cat /etc/shadow | grep . && broke shadow
        ln -s {root} l && cat l/outside && broke symlink
        ln {root}/outside hard && broke hardlink
        ln git/config hard2 && broke hardlink2
        cat /proc/self/root{root}/outside && broke procroot
        cat /proc/1/root{root}/outside && broke procroot1
        cat /proc/{victim}/environ && broke environ
        cat /proc/{victim}/root{root}/outside && broke victimroot
        kill -0 {victim} && broke kill
        python3 -c 'import resource; resource.prlimit({victim}, resource.RLIMIT_CORE, (0, 0))' && broke prlimit
        python3 -c 'import os; os.setpriority(os.PRIO_PROCESS, {victim}, 1)' && broke nice
        python3 -c 'import os; os.sched_setaffinity({victim}, os.sched_getaffinity(0))' && broke affinity
        python3 -c 'import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "{root}/datagrams")' && broke datagram
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("{root}/git/watcher.ipc")' && broke watcher
        (exec 3<>/dev/tcp/127.0.0.1/{port}) && broke bash-tcp
        python3 -c 'import socket; socket.create_connection(("127.0.0.1", {port}))' && broke tcp
        echo x > {root}/git/config && broke gitconfig
        echo x > {root}/git/hooks/pre-commit && broke hook
        mv {root}/git {root}/git2 && broke gitmove
        unshare -U true && broke userns
        mount -t tmpfs x sub && broke mount
        chroot . /bin/true && broke chroot
        echo 1 > /proc/sys/kernel/core_pattern && broke sysctl
        head -c1 /dev/vda && broke disk
        cp /bin/true mine && chmod 4755 mine && broke setuid
        chmod g+s mine && broke setgid
        chmod 755 mine || broke plain-chmod
        true
        "#
    );
    let (output, ended) = house.run(1, &attacks).await;
    let in_private_tmp = house.level == Level::Full && house.root().starts_with("/tmp");
    let output = if in_private_tmp {
        ["write", "overwrite", "dotdot", "remove"].iter().fold(output, |o, name| o.replace(&format!("BROKE {name}\n"), ""))
    } else {
        output
    };
    assert!(!output.contains("BROKE"), "{output}");
    assert_eq!(ended.code, Some(0), "{output}");
    assert!(!output.contains("canary"), "{output}");
    assert_eq!(std::fs::read_to_string(house.root().join("outside")).unwrap(), "outside-canary");
    assert!(tcp.accept().is_err());
});

both!(what_etc_keeps_for_its_owner_is_not_shown_to_a_command_of_user_0, house, {
    let find = r"find /etc \( -type d ! -perm -o+x -o -type f ! -perm -o+r \) -print 2>/dev/null";
    let found = std::process::Command::new("sh").args(["-c", find]).output().unwrap().stdout;
    let found = String::from_utf8(found).unwrap();
    if found.is_empty() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: /etc keeps nothing for its owner, or we are not user 0 and can not read it anyway");
        return;
    }
    // Landlock grants the listing of a directory with all below it: there, names are seen and contents are not.
    let list = if house.level == Level::Full { "ls -A" } else { "true" };
    for (seq, path) in (1..).zip(found.lines()) {
        let look = format!("cat '{path}' '{path}'/* 2>/dev/null; test -d '{path}' && {list} '{path}' 2>/dev/null");
        let (output, _) = house.run(seq, &look).await;
        assert_eq!(output, "", "{path}");
    }
});

/// Programs save a file by renaming a new one over it, which takes away what was mounted over the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hidden_stays_hidden_when_the_host_saves_it_anew() {
    let Some(mut house) = House::at(Level::Full).await else { return };
    let shown = house.root().join("shown");
    std::fs::create_dir_all(shown.join("deeper")).unwrap();
    std::fs::write(shown.join("plain"), "plain text\n").unwrap();
    std::os::unix::fs::symlink("plain", shown.join("link")).unwrap();
    std::fs::write(shown.join("deeper/token"), "first-canary\n").unwrap();
    // A hidden name that leads to another file, which is saved anew in its own place.
    std::fs::create_dir(shown.join("kept")).unwrap();
    std::fs::write(shown.join("kept/real"), "first-canary\n").unwrap();
    std::os::unix::fs::symlink("kept/real", shown.join("led")).unwrap();
    house.options.read.push(shown.clone());
    house.options.hidden.extend(["deeper/token", "late", "led"].map(|name| shown.join(name)));
    house.sandbox = daemon(&house.options);
    let path = shown.display();
    let look = format!("cat {path}/plain {path}/link; cat {path}/deeper/token {path}/late {path}/led {path}/kept/real");
    let unit = house.start(1, &format!("{look}; echo looked; read line; {look}; ls -A {path} {path}/deeper; exit 7")).await;
    line(unit.as_ref(), "looked").await;
    std::fs::write(shown.join("deeper/new"), "second-canary\n").unwrap();
    std::fs::rename(shown.join("deeper/new"), shown.join("deeper/token")).unwrap();
    std::fs::write(shown.join("deeper/new"), "third-canary\n").unwrap();
    std::fs::rename(shown.join("deeper/new"), shown.join("kept/real")).unwrap();
    std::fs::write(shown.join("late"), "late-canary\n").unwrap();
    unit.stdin(1, bytes::Bytes::from_static(b"go on\n")).await.unwrap();
    assert_eq!(end(unit.as_ref()).await.code, Some(7));
    let output = text(unit.as_ref()).await;
    assert_eq!(output.matches("plain text").count(), 4, "{output}");
    assert!(!output.contains("canary") && output.matches("deeper").count() >= 1, "{output}");
    assert!(output.lines().all(|line| !matches!(line, "token" | "late")), "{output}");
}

both!(names_that_are_no_text_keep_nothing_from_starting, house, {
    use std::os::unix::ffi::OsStrExt;
    let mut house = house;
    let odd = house.root().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir_all(odd.join("inner")).unwrap();
    std::fs::write(odd.join("inner/word"), "read\n").unwrap();
    std::fs::write(odd.join("key"), "canary\n").unwrap();
    house.options.hidden.push(odd.join("key"));
    house.options.read.push(odd);
    house.sandbox = daemon(&house.options);
    let look = format!("printf 'cd \"{}/caf\\351\" && cat inner/word; cat key 2> /dev/null' > go; sh ./go", house.root().display());
    let (output, ended) = house.run(1, &look).await;
    assert_eq!((output.as_str(), ended.code.is_some_and(|code| code > 0)), ("read\n", true));
});

/// Attributes in the tree decide what a layer over it shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_get_no_attributes_where_there_may_be_layers() {
    let Some(house) = House::at(Level::Full).await else { return };
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let set = "import os\nfor name in ('user.overlay.metacopy', 'user.mine'):\n  try: os.setxattr('f', name, b'y')\n  except OSError as e: print(e.errno)";
    let (output, ended) = house.run(1, &format!("echo x > f; python3 -c \"{set}\"; cp -a f g; mv g h; cat h")).await;
    assert_eq!((output.as_str(), ended.code), ("95\n95\nx\n", Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protected_set_holds_at_level_full_missing_paths_too() {
    let Some(house) = House::at(Level::Full).await else { return };
    std::fs::create_dir_all(house.tree().join(".github/workflows")).unwrap();
    std::fs::write(house.tree().join(".github/workflows/ci.yml"), "real").unwrap();
    std::fs::write(house.tree().join("AGENTS.md"), "real").unwrap();
    let before = std::fs::read_to_string(house.tree().join(".git")).unwrap();
    let (output, _) = house
        .run(
            1,
            "echo x > .git; rm -f .git; mv .git .g2; echo x > AGENTS.md; mv AGENTS.md A; echo x > .github/workflows/ci.yml; \
             mv .github .g3; rm -rf .github; mkdir .claude; echo x > .claude/settings.json; echo x > .envrc; echo x > normal; \
             mkdir -p docs/ci .gitea .config/mise; ln -s docs .gitlab; echo x > .gitea/free; echo x > .config/mise/config.toml; exit 0",
        )
        .await;
    let read = |name: &str| std::fs::read_to_string(house.tree().join(name)).unwrap_or_default();
    assert_eq!((read(".git"), read("AGENTS.md"), read(".github/workflows/ci.yml")), (before, "real".into(), "real".into()));
    assert!(!house.tree().join(".claude").exists() && !house.tree().join(".envrc").exists());
    assert_eq!((read("normal"), read(".gitea/free")), ("x\n".into(), "x\n".into()));
    // A link in the place of their directory would make other files protected ones.
    assert!(house.tree().join(".gitlab").symlink_metadata().is_err() && house.tree().join("docs/ci").exists(), "{output}");
    assert!(house.tree().join(".config").exists() && !house.tree().join(".config/mise").exists(), "{output}");
    assert!(output.contains("removed `") && output.contains(".claude"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protected_path_that_the_host_replaces_is_told() {
    let Some(house) = House::at(Level::Full).await else { return };
    for name in ["AGENTS.md", "CLAUDE.md"] {
        std::fs::write(house.tree().join(name), "real").unwrap();
    }
    let unit = house.start(1, "echo ready; read go; echo evil > CLAUDE.md; echo evil > AGENTS.md; exit 0").await;
    line(unit.as_ref(), "ready").await;
    // As editors save.
    std::fs::write(house.tree().join("AGENTS.new"), "saved").unwrap();
    std::fs::rename(house.tree().join("AGENTS.new"), house.tree().join("AGENTS.md")).unwrap();
    unit.stdin(1, "go\n".into()).await.unwrap();
    end(unit.as_ref()).await;
    let output = text(unit.as_ref()).await;
    assert!(output.contains("`AGENTS.md` is protected and was replaced from outside"), "{output}");
    assert!(!output.contains("`CLAUDE.md` is protected"), "{output}");
    assert_eq!(std::fs::read_to_string(house.tree().join("CLAUDE.md")).unwrap(), "real");
}

both!(links_that_a_command_leaves_do_not_lead_us_out, house, {
    let outside = house.root().join("elsewhere");
    for dir in ["workflows", "registry"] {
        std::fs::create_dir_all(outside.join(dir)).unwrap();
    }
    std::fs::create_dir_all(house.root().join("home/.cargo/registry/index")).unwrap();
    std::fs::write(house.root().join("home/.cargo/config.toml"), "[net]\n").unwrap();
    let link = outside.display();
    let command =
        format!("ln -s {link} .github; ln -s {link} .claude; cd $HOME; rm -rf .cargo .npm go; ln -s {link} .cargo; ln -s {link} .npm");
    let (output, ended) = house.run(1, &command).await;
    assert_eq!(ended.code, Some(0), "{output}");
    house.run(2, "true").await;
    let mut names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["registry", "workflows"]);
    assert_eq!(std::fs::read_dir(outside.join("registry")).unwrap().count(), 0);
    assert_eq!(house.tree().join(".claude").symlink_metadata().is_ok(), house.level == Level::Landlock);
});

both!(honest_work_is_possible, house, {
    let script = r#"
        set -e
        echo x > file; mv file sub/file; mkdir -p a/b; cp sub/file a/b/; rm -r a
        t=$(mktemp); echo t > $t; cat $t; rm $t
        cd "$HOME" && echo h > h && cd - > /dev/null
        echo to null > /dev/null; head -c 4 /dev/urandom | wc -c
        (exit 3) || echo "sub $?"
        [ "$(cat .git | cut -c1-7)" = "gitdir:" ]
        echo "$TINKERBELL_RUN"
        ulimit -c
        umask
        cat /proc/self/oom_score_adj
    "#;
    let (output, ended) = house.run(1, script).await;
    assert_eq!(ended.code, Some(0), "{output}");
    let run = house.spec(1, "").run;
    assert_eq!(output, format!("t\n4\nsub 3\n{run}\n0\n0022\n300\n"));
    let mut spec = house.spec(2, "pwd");
    spec.workdir = "sub".into();
    let unit = house.sandbox.start(spec.clone()).await.unwrap();
    end(unit.as_ref()).await;
    assert_eq!(text(unit.as_ref()).await.trim(), house.tree().join("sub").to_str().unwrap());
    for (seq, bad) in [(3, "../.."), (4, "/etc"), (5, "missing")] {
        spec.run.seq = seq;
        spec.workdir = bad.into();
        assert_eq!(house.sandbox.start(spec.clone()).await.err().unwrap().code.0, "TB-EXEC-005");
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_works_within_level_full() {
    let Some(house) = House::at(Level::Full).await else { return };
    let code = "import socket,threading; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); c=socket.create_connection(s.getsockname()); print('ok')";
    let (output, ended) = house.run(1, &format!("command -v python3 >/dev/null || {{ echo ok; exit 0; }}; python3 -c \"{code}\"")).await;
    assert_eq!((output.as_str(), ended.code), ("ok\n", Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn level_none_runs_and_is_named() {
    let house = House::at(Level::None).await.unwrap();
    assert_eq!(house.sandbox.level().await.unwrap(), Level::None);
    let (output, ended) = house.run(1, "echo $TINKERBELL_RUN; exit 2").await;
    assert_eq!((output, ended.code), (format!("{}\n", house.spec(1, "").run), Some(2)));
}

both!(a_start_is_quick, house, {
    let begin = RealClock.now().mono_ms;
    for seq in 1..=20 {
        assert_eq!(house.run(seq, "true").await.1.code, Some(0));
    }
    eprintln!("{}: {} ms for 20 commands", house.level.name(), RealClock.now().mono_ms - begin);
});

both!(alternates_of_a_repository_open_no_directory, house, {
    let private = house.root().join("private");
    for dir in [&private, &house.root().join("git/objects/info"), &house.root().join("store/objects/pack")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(private.join("s"), "private-canary").unwrap();
    std::fs::write(house.root().join("store/objects/pack/p"), "shared").unwrap();
    let store = house.root().join("store/objects");
    std::fs::write(house.root().join("git/objects/info/alternates"), format!("{}\n{}\n", private.display(), store.display())).unwrap();
    let (output, _) = house.run(1, &format!("cat {}/s; cat {}/pack/p", private.display(), store.display())).await;
    assert!(output.contains("shared") && !output.contains("canary"), "{output}");
});

/// A service of this number: a shell that reads its orders from standard input.
fn service(house: &House, seq: u32, (reads, writes): (bool, bool)) -> ExecSpec {
    let argv = vec!["/bin/sh".to_owned()];
    let service = Service { name: format!("s{seq}"), argv, reads, writes, ..Service::default() };
    ExecSpec { service: Some(service), ..house.spec(SERVICE_SEQ + seq, "") }
}

async fn orders(house: &House, spec: ExecSpec, text: &str) -> String {
    let unit = house.sandbox.start(spec).await.unwrap();
    unit.stdin(1, text.to_owned().into()).await.unwrap();
    unit.stdin(2, Vec::new().into()).await.unwrap();
    end(unit.as_ref()).await;
    house::text(unit.as_ref()).await
}

both!(a_service_gets_what_it_was_granted_and_no_more, house, {
    std::fs::write(house.tree().join("file"), "of the tree\n").unwrap();
    house.run(1, "echo of-commands > $HOME/mine").await;
    let outside = house.root().join("outside");
    std::fs::write(&outside, "outside-canary").unwrap();
    let tree = house.tree().display().to_string();
    let tries = format!(
        "cat {tree}/file; echo x > {tree}/made && echo BROKE write; cat {} && echo BROKE read; cat $HOME/mine ../../home/mine && echo BROKE home; echo own > $HOME/own && cat $HOME/own; pwd",
        outside.display()
    );
    let reading = orders(&house, service(&house, 1, (true, false)), &tries).await;
    assert!(reading.contains("of the tree") && reading.contains("own\n") && !reading.contains("BROKE"), "{reading}");
    let blind = orders(&house, service(&house, 2, (false, false)), &tries).await;
    assert!(!blind.contains("of the tree") && blind.contains("own\n") && !blind.contains("BROKE"), "{blind}");
    let writing =
        orders(&house, service(&house, 3, (true, true)), &format!("echo written > {tree}/by-service; echo x > {tree}/AGENTS.md")).await;
    assert_eq!(std::fs::read_to_string(house.tree().join("by-service")).unwrap(), "written\n", "{writing}");
    assert!(!house.tree().join("made").exists());
    assert!(!reading.contains("outside-canary") && !blind.contains("outside-canary"));
});

both!(errors_of_a_service_stand_behind_its_output, house, {
    let flood = "echo one; head -c 3000000 /dev/zero | tr '\\0' e >&2; echo the end >&2; echo two\n";
    let output = orders(&house, service(&house, 1, (true, false)), flood).await;
    assert!(output.starts_with("one\ntwo\n\n") && output.ends_with("eee\nthe end\n") || output.ends_with("ethe end\n"), "{}", output.len());
    assert!(output.len() < 5_000, "{} bytes are kept", output.len());
});

both!(a_service_lives_while_its_task_has_something_under_way, house, {
    let spec = service(&house, 1, (true, false));
    let run = spec.run;
    house.sandbox.start(spec).await.unwrap();
    let open = RunId { seq: 5, ..run };
    assert!(house.sandbox.sweep(vec![open]).await.unwrap().is_empty());
    let reaped = house.sandbox.sweep(Vec::new()).await.unwrap();
    assert_eq!(reaped.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [run]);
});
