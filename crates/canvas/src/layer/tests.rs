//! What applying costs, without the checkpoint that follows it.
//!
//! The figures in `docs/benchmarks.md` are what this prints (`cargo xtask bench safety`). Invariant: it holds on a busy machine, because it
//! counts this thread's own time.

use super::*;
use rustix::time::{ClockId, clock_gettime};

fn used_us() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

/// Applies a layer over a thousand files of a tree; what `fill` writes for each, and the microseconds.
fn cost(ended: bool, fill: impl Fn(&Path, usize)) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let git = std::process::Command::new("git").args(["init", "-q"]).arg(dir.path().join("repo")).status().unwrap();
    assert!(git.success());
    let repo = gix::open(dir.path().join("repo")).unwrap();
    let tree = dir.path().join("tree");
    let ws = Workspace {
        task: tinkerbell_core::words::TaskId(1),
        repo: tree.clone(),
        git_dir: tree.clone(),
        common_dir: tree.clone(),
        branch: String::new(),
        base: "0".repeat(40).parse().unwrap(),
        tree: tree.clone(),
    };
    let layer = tinkerbell_core::layer::place(&ws, 7).unwrap();
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::create_dir_all(layer.join(UPPER)).unwrap();
    for n in 0..1000 {
        for root in [&tree, &layer.join(UPPER)] {
            let sub = root.join(format!("d{}", n % 20));
            std::fs::create_dir_all(&sub).unwrap();
            if *root == tree {
                std::fs::write(sub.join(format!("f{n}")), "base\n".repeat(200)).unwrap();
            } else {
                fill(&sub, n);
            }
        }
    }
    std::fs::write(layer.join(START), "").unwrap();
    if ended {
        std::fs::write(layer.join(ENDED), "").unwrap();
    }
    let root = Root::open(&tree, Obstacle::Clear).unwrap();
    let around = Around { root: &root, ignored: Ignored::of(&repo, None).unwrap(), tracked: &Tracked::default() };
    let before = used_us();
    let absorbed = absorb(&ws, &around, &mut Told::default()).unwrap();
    let used = used_us() - before;
    assert_eq!(absorbed.layers.first().unwrap().refused, Vec::<String>::new());
    used
}

#[test]
fn a_thousand_changed_files_cost_little() {
    let changed = |dir: &Path, n: usize| std::fs::write(dir.join(format!("f{n}")), "changed\n".repeat(200)).unwrap();
    let deleted = |dir: &Path, n: usize| {
        let name = dir.join(format!("f{n}"));
        rustix::fs::mknodat(rustix::fs::CWD, name, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty(), 0).unwrap();
    };
    let added = |dir: &Path, n: usize| std::fs::write(dir.join(format!("new{n}")), "new\n").unwrap();
    type Fill<'a> = &'a dyn Fn(&Path, usize);
    let ways: [(&str, bool, Fill<'_>); 4] =
        [("changed", true, &changed), ("added", true, &added), ("deleted", true, &deleted), ("changed", false, &changed)];
    let rounds = if cfg!(debug_assertions) { 1 } else { 5 };
    for (what, ended, fill) in ways {
        let mut used: Vec<i64> = (0..rounds).map(|_| cost(ended, fill)).collect();
        used.sort_unstable();
        let median = used[rounds / 2];
        let when = if ended { "has ended" } else { "runs" };
        eprintln!("cost: apply 1,000 files {what}, while the command {when}, CPU, median of {rounds}: {:.1} ms", median as f64 / 1e3);
        assert!(median < 1_000_000, "{what}: {median} us");
    }
}
