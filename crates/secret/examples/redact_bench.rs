//! What redaction costs, in CPU time per MiB of text.
//!
//! Run it with `cargo run --release -p tinkerbell-secret --example redact_bench`. Each figure is the
//! median of nine rounds over 8 MiB, in CPU time of the thread, because the machines that measure are
//! shared. Invariant: streams are cut as a keeper reads pipes.

// A bench may stop where it stands.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, clippy::indexing_slicing)]

use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use tinkerbell_secret::{Named, Redactor, Secret, Stream, hide_patterns};

const MIB: usize = 8;
const PIPE_BYTES: usize = 64 << 10;

fn main() {
    for (what, text) in [("lines of a build log", log()), ("Base64", base64())] {
        println!("{what}:");
        for count in [0, 1, 5, 20, 50] {
            let values = values(count);
            let begun = cpu_us();
            let redactor = Arc::new(Redactor::new(&values));
            let made = cpu_us() - begun;
            let whole = median(|| drop(black_box(redactor.redact(black_box(&text)))));
            let pieces = median(|| stream(&redactor, &text));
            println!(
                "  {count:>2} secrets   whole {:>7.0} us/MiB ({:.2} GB/s)   stream {:>7.0} us/MiB ({:.2} GB/s)   made in {made:>7.0} us",
                whole / MIB as f64,
                rate(whole),
                pieces / MIB as f64,
                rate(pieces)
            );
        }
        let looks = median(|| drop(black_box(hide_patterns(black_box(&text)))));
        println!("  looks        whole {:>7.0} us/MiB ({:.2} GB/s)", looks / MIB as f64, rate(looks));
    }
}

fn stream(redactor: &Arc<Redactor>, text: &str) {
    let mut stream = Stream::new(redactor.clone());
    for piece in text.as_bytes().chunks(PIPE_BYTES) {
        black_box(stream.push(piece));
    }
    black_box(stream.finish());
}

fn rate(us: f64) -> f64 {
    (MIB << 20) as f64 / us / 1e3
}

/// Keys as providers make them.
fn values(count: usize) -> Vec<Named> {
    let one = |at: usize| (format!("KEY_{at}"), Secret::shared(format!("sk-{}", signs(at as u64 + 1, 48))));
    (0..count).map(one).collect()
}

fn log() -> String {
    let mut text = String::new();
    let mut at = 0_u64;
    while text.len() < MIB << 20 {
        at += 1;
        let word = signs(at, 12);
        writeln!(text, "   Compiling {word} v1.{at}.0 (/home/me/src/{word}) with 3 warnings, task sk-{at} of {word}").unwrap();
    }
    text.truncate(MIB << 20);
    text
}

fn base64() -> String {
    signs(7, MIB << 20)
}

/// Letters and digits without a pattern, the same at each run.
fn signs(seed: u64, len: usize) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(SIGNS[(state >> 32) as usize % SIGNS.len()])
    };
    (0..len).map(|_| next()).collect()
}

fn median(work: impl Fn()) -> f64 {
    let mut rounds: Vec<f64> = (0..9)
        .map(|_| {
            let begun = cpu_us();
            work();
            cpu_us() - begun
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[4]
}

fn cpu_us() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}
