//! The door of the real daemon: where it listens, for whom, and that it listens nowhere else.
//!
//! Other users are real ones: children with another user id, where the test may make them. Invariant: a
//! test that can not be made on this host says so.

use crate::home::Home;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};
use tinkerbell_testkit::llm::Turn;

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// Asks as another user, with a program that knows nothing of us.
fn curl(uid: Option<u32>, socket: &Path, words: &[&str]) -> Option<Output> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "--max-time", "10", "--unix-socket"]).arg(socket).args(words).current_dir("/");
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    match command.output() {
        Err(error) => {
            eprintln!("skipped: curl: {error}");
            None
        }
        Ok(output) => Some(output),
    }
}

/// Inodes of the sockets in a table of the kernel; of a listening one only, where there are such.
fn inodes(table: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let wanted = |fields: &Vec<&str>| !table.starts_with("tcp") || fields.get(3) == Some(&"0A");
    let fields = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(wanted).filter_map(|fields| fields.get(9).map(|inode| (*inode).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_of_ours_listens_on_the_network() {
    let home = Home::with(vec![Turn { delay_ms: 1_500, ..Turn::text("done") }]).await;
    home.submit(&["ask"]).await;
    crate::home::until("the model is asked", || home.asked() == 1).await;
    let mark = home.tb().into_os_string().into_encoded_bytes();
    let ours = |pid: &str| {
        let words = ["cmdline", "environ"].map(|file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
        let is_tinkerbell = std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("tinkerbell"));
        is_tinkerbell && words.iter().any(|bytes| bytes.windows(mark.len()).any(|word| word == mark))
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids: Vec<String> = pids.filter(|pid| ours(pid)).collect();
    assert!(pids.len() >= 2, "daemon and courier: {pids:?}");
    let listening: BTreeSet<String> = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"].iter().flat_map(|table| inodes(table)).collect();
    for pid in pids {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = std::fs::read_link(fd.path()).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
                assert!(!listening.contains(inode), "process {pid} listens: {link}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_the_users_alone_and_says_so() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let socket = home.tb().join("run/tinkerbelld.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let place = "http://tinkerbell/v1/tasks";
    let Some(own) = curl(None, &socket, &[place]) else { return };
    assert!(String::from_utf8_lossy(&own.stdout).contains("200 OK"), "{own:?}");
    // The file system is open, as if somebody had closed it badly: the kernel still says who asks.
    if !is_root() {
        return eprintln!("skipped: only root can ask as another user");
    }
    // Everything on the way there, too.
    for above in socket.ancestors().take_while(|path| *path != Path::new("/tmp") && *path != Path::new("/")) {
        let open = if above == socket { 0o666 } else { 0o755 };
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(open)).unwrap();
    }
    for words in [
        vec![place],
        vec!["http://tinkerbell/version"],
        vec!["http://tinkerbell/nowhere"],
        vec!["-X", "POST", "http://tinkerbell/v1/daemon/stop"],
        vec!["-X", "POST", "http://tinkerbell/v1/daemon/halt"],
        vec!["-H", "content-type: application/json", "-d", "{\"goal\":\"x\",\"cwd\":\"/\"}", place],
    ] {
        let Some(other) = curl(Some(NOBODY), &socket, &words) else { return };
        let text = String::from_utf8_lossy(&other.stdout).into_owned();
        assert!(text.contains("403 Forbidden") && text.contains("TB-API-006") && text.contains("user 65534"), "{words:?}: {text}");
    }
    assert!(home.run(&["ps", "--json"]).await.exits(0).stdout.trim() == "[]");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() == 0)
}

/// A place that is not the user's own is refused before anything listens there.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_of_somebody_else_is_refused() {
    let home = Home::with(vec![]).await;
    let run = home.tb().join("run");
    std::fs::create_dir_all(home.dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.dir.path().join("elsewhere"), &run).unwrap();
    let out = home.run(&["ps"]).await;
    assert!(matches!(out.code, 69 | 78), "{out:?}");
    assert!(!home.dir.path().join("elsewhere/tinkerbelld.sock").exists());
    std::fs::remove_file(&run).unwrap();
    if is_root() {
        std::fs::create_dir(&run).unwrap();
        std::os::unix::fs::chown(&run, Some(NOBODY), None).unwrap();
        let out = home.run(&["ps"]).await;
        assert!(matches!(out.code, 69 | 78) && format!("{}{}", out.stdout, out.stderr).contains("65534"), "{out:?}");
        assert!(!run.join("tinkerbelld.sock").exists());
        std::fs::remove_dir(&run).unwrap();
    }
    home.run(&["ps"]).await.exits(0);
}
