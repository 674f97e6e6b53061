//! What a decision of the policy costs under a thousand rules.
//!
//! Run it with `cargo run --release -p tinkerbell-security --example policy_bench`. Each figure is the
//! median of five rounds, in CPU time of the thread, because the machines that measure are shared.
//! Invariant: the rules are read as a file is, and judged as a call is.

// A bench may stop where it stands.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::hint::black_box;
use tinkerbell_core::port::Level;
use tinkerbell_security::policy::{Call, Layer, Programs, RuleSet, built_in, judge, parse};

const RULES: u32 = 1_000;
const ROUNDS: u32 = 2_000;

fn main() {
    let text = rules();
    let begun = cpu_us();
    let user = parse(Layer::User, "bench", &text).unwrap();
    println!("{:<45} {:>9.1} ms", format!("read {RULES} rules and try {} examples", user.examples), (cpu_us() - begun) / 1e3);
    let built = built_in().unwrap();
    let sets = [&built, &user];
    for (what, command) in [
        ("one command, no rule matches", "true"),
        ("three commands, the last rule matches one", "cd crates/wal && tool999 test -p x | tail -20"),
        ("a redirection and a substitution", "tool5 test $(tool6 list) > log 2>&1"),
        ("not to be read", "tool5 `x`"),
    ] {
        println!("{what:<45} {:>9.1} us", median(|| command_round(&sets, command)));
    }
    println!("{:<45} {:>9.1} us", "an edit of three files", median(|| edit_round(&sets)));
}

/// Rules of all kinds: allow, ask, forbid by words, and every tenth by paths.
fn rules() -> String {
    let mut text = String::from("unmatched_commands = \"ask\"\n");
    for at in 0..RULES {
        let decision = ["allow", "ask", "forbid"].get((at % 3) as usize).unwrap();
        if at % 10 == 4 {
            write!(text, "[[rule]]\nid = \"r{at}\"\npaths = [\"dir{at}/**/*.rs\"]\ndecision = \"ask\"\nmatch = [\"dir{at}/a/b.rs\"]\n")
                .unwrap();
        } else {
            write!(
                text,
                "[[rule]]\nid = \"r{at}\"\nargv = [\"tool{at}\", [\"test\", \"check\"]]\nwithout = [\"--config\"]\ndecision = \"{decision}\"\n\
                 match = [\"tool{at} test -p x\"]\nnot_match = [\"tool{at} run\"]\n"
            )
            .unwrap();
        }
    }
    text
}

/// CPU time of this thread, microseconds.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The median of five rounds, microseconds.
fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut all: Vec<f64> = (0..5).map(|_| round()).collect();
    all.sort_by(f64::total_cmp);
    all.get(2).copied().unwrap_or_default()
}

fn command_round(sets: &[&RuleSet], command: &str) -> f64 {
    let programs = Programs::of("/usr/local/bin:/usr/bin:/bin", vec!["/tmp".into()]);
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let begun = cpu_us();
    for _ in 0..ROUNDS {
        black_box(judge(&call, Some(black_box(command)), sets, Some(&programs)));
    }
    (cpu_us() - begun) / f64::from(ROUNDS)
}

fn edit_round(sets: &[&RuleSet]) -> f64 {
    let writes = ["src/a.rs", "dir4/x/y.rs", "docs/glossary.md"].map(str::to_owned);
    let call = Call { tool: "apply_patch", mcp: None, runs: false, level: Some(Level::Full), writes: &writes, deletes: 0 };
    let begun = cpu_us();
    for _ in 0..ROUNDS {
        black_box(judge(black_box(&call), None, sets, None));
    }
    (cpu_us() - begun) / f64::from(ROUNDS)
}
