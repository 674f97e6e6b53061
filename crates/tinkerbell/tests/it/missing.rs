//! Hosts on which a layer of the sandbox is missing: the next complete level, or no command at all.
//!
//! The layer is taken away from the very processes of the house by a filter that they inherit, as a
//! container's runtime does it. Invariant: no command runs at a level that could not prove itself.

use crate::home::{Home, exec};
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::Turn;

/// Refuses system calls, by number and, with a colon, first argument, to the program that follows.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys
LOAD, EQUAL, RETURN, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000
code = []
for rule in sys.argv[1].split(","):
    call, _, argument = rule.partition(":")
    number, _, errno = call.partition("=")
    refuse = struct.pack("HBBI", RETURN, 0, 0, REFUSE | int(errno))
    if argument:
        code += [struct.pack("HBBI", LOAD, 0, 0, 0), struct.pack("HBBI", EQUAL, 0, 3, int(number)), struct.pack("HBBI", LOAD, 0, 0, 16), struct.pack("HBBI", EQUAL, 0, 1, int(argument)), refuse]
    else:
        code += [struct.pack("HBBI", LOAD, 0, 0, 0), struct.pack("HBBI", EQUAL, 0, 1, int(number)), refuse]
code.append(struct.pack("HBBI", RETURN, 0, 0, ALLOW))
program = ctypes.create_string_buffer(b"".join(code))
class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Filter(len(code), ctypes.addressof(program))), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// What a host lacks, how that shows on x86-64, and the level that is left.
const HOSTS: [(&str, &str, &[&str]); 5] = [
    ("everything is there", "999=1", &["full", "landlock"]),
    ("user namespaces", "272=1", &["landlock"]),
    ("Landlock", "444=38", &[]),
    ("seccomp", "317=38,157=22:22", &[]),
    ("user namespaces and Landlock", "272=1,444=38", &[]),
];

/// What became of a command on such a host: the level that it ran at, or nothing.
async fn level_without(rules: &str, level: &'static str) -> Option<String> {
    let mut home = Home::with(vec![exec("echo ran > ran.txt"), Turn::text("done")]).await;
    home.level = level;
    let script = home.dir.path().join("without.py");
    std::fs::write(&script, WITHOUT).unwrap();
    home.wrap = vec!["python3".to_owned(), script.display().to_string(), rules.to_owned()];
    let out = home.run(&["run", "go"]).await;
    let tasks = home.run(&["ps", "-a", "--json"]).await.exits(0).stdout;
    let tasks: serde_json::Value = serde_json::from_str(&tasks).unwrap();
    let Some(task) = tasks[0]["id"].as_str() else {
        assert!(out.stderr.contains("TB-SANDBOX-00"), "{out:?}");
        return None;
    };
    let seen = home.inspect(task).await;
    let tree: Option<PathBuf> = seen["workspace"].as_str().map(PathBuf::from);
    let ran = tree.is_some_and(|tree: PathBuf| Path::new(&tree).join("ran.txt").exists());
    ran.then(|| seen["level"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_layer_means_the_next_complete_level_or_none() {
    if !cfg!(target_arch = "x86_64")
        || !std::process::Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success())
    {
        return eprintln!("skipped: the filter is written in Python, for x86-64");
    }
    let auto = level_without(HOSTS[0].1, "auto").await.unwrap_or_default();
    for (missing, rules, left) in &HOSTS {
        // Of the levels that are left in principle, those that this host gives at all.
        let best = left.iter().find(|level| auto == "full" || **level == "landlock").map(|level| (*level).to_owned());
        assert_eq!(level_without(rules, "auto").await, best, "without: {missing}");
        for level in ["full", "landlock"] {
            let got = level_without(rules, level).await;
            assert!(got.is_none() || got.as_deref() == Some(level) && left.contains(&level), "{level} without {missing}: {got:?}");
        }
    }
}
