//! SIGKILL to the process that applies a layer, at each of its system calls that change something.
//!
//! `strace` counts the calls and sends the signal; where it is missing or may not trace, the test says
//! so. The process is this very test binary again, asked for one test by name.
//! `TINKERBELL_LAYER_STRIDE=1` tries every call, the normal run tries a sample. Invariant: whatever the
//! step, doing it again ends with the tree and the words that an undisturbed run gives.

use crate::house::*;
use crate::layers::{Layer, with_base};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use tinkerbell_core::layer::{ENDED, UPPER};
use tinkerbell_core::port::{Applied, Opened};

/// Names the data directory for the process that is to be killed.
const WORKER: &str = "TINKERBELL_LAYER_WORKER";
/// Calls that change something on disk.
const CALLS: &str = "openat,renameat,renameat2,rename,unlinkat,unlink,rmdir,mkdirat,mkdir,fchmod,fchmodat,chmod,write,writev,symlinkat,\
                     linkat,lremovexattr,utimensat";
/// Calls between two tries in a normal run; prime, so that loops are met in all their places.
const STRIDE: usize = 41;
/// Applying the layer below takes fewer calls than this.
const MOST: usize = 20_000;

/// What dies. Does nothing where nobody asked for it.
#[test]
fn worker() {
    let Some(dir) = std::env::var_os(WORKER) else { return };
    let house = House::again_in(Path::new(&dir));
    let opened = house.open();
    house.guarded(&opened, Some(opened.checkpoint.clone()));
}

fn can_trace() -> bool {
    let words = ["-qq", "-o", "/dev/null", "-e", "inject=all:signal=SIGKILL:when=1", "/bin/true"];
    Command::new("strace").args(words).stderr(Stdio::null()).status().is_ok_and(|status| !status.success())
}

/// Applies the layer in a process that dies at the given call; whether it came to its end.
fn apply_and_die(house: &House, when: usize) -> bool {
    let trace = format!("trace={CALLS}");
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={when}");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", "signal=none", "-e", &inject]);
    command.arg(std::env::current_exe().unwrap()).args(["layers_killed::worker", "--exact", "--test-threads=1"]);
    command.env(WORKER, house.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// A layer with something of everything.
fn fill(opened: &Opened, ended: bool) {
    let layer = Layer::of(opened, 7);
    write(&opened.workspace.tree, "b", b"edited meanwhile\n");
    layer.copied("a", "A\n").copied("b", "B\n").whiteout("d/x").copied("d/y", "Y\n").write("new/deep/n", "n\n").write("new/m", "m\n");
    layer.dir("d/e").mark("d/e", "opaque", b"y").write("d/e/z2", "z2\n").write("refused/AGENTS.md", "evil\n").write("refused/ok", "ok\n");
    layer.link("out", "/etc").link("in", "a").write("x.log", "log\n").copied("AGENTS.md", "evil\n").write("c/f", "f\n");
    if ended {
        std::fs::write(layer.dir.join(ENDED), "").unwrap();
    }
}

fn outcome(house: &House, opened: &Opened) -> (BTreeMap<String, Vec<u8>>, Applied) {
    let taken = house.guarded(opened, Some(opened.checkpoint.clone()));
    (tree(opened), taken.layers.into_iter().find(|layer| layer.run == 7).unwrap())
}

fn killed_at_each_step(ended: bool) {
    if !can_trace() {
        eprintln!("skipped: strace is missing or may not trace here");
        return;
    }
    let (house, opened) = with_base();
    fill(&opened, ended);
    let wanted = outcome(&house, &opened);
    assert_eq!(wanted.1.refused.len(), 4, "{:?}", wanted.1.refused);
    let stride = std::env::var("TINKERBELL_LAYER_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(STRIDE);
    let (mut when, mut deaths) = (1, 0);
    loop {
        assert!(when < MOST, "it never came to its end");
        let (mut house, opened) = with_base();
        fill(&opened, ended);
        let is_whole = apply_and_die(&house, when);
        house.again();
        let mut found = outcome(&house, &opened);
        found.1.is_news = wanted.1.is_news;
        assert_eq!(found, wanted, "killed at call {when}");
        assert_eq!(opened.workspace.tree.parent().unwrap().join("layers/7").join(UPPER).exists(), !ended);
        if is_whole {
            break;
        }
        deaths += 1;
        when += stride;
    }
    eprintln!("ended {ended}: {deaths} deaths, up to call {when}");
    assert!(deaths > 2);
}

#[test]
fn an_ended_layer_arrives_whole_whenever_its_bringer_dies() {
    killed_at_each_step(true);
}

#[test]
fn a_running_layer_arrives_whole_whenever_its_bringer_dies() {
    killed_at_each_step(false);
}
