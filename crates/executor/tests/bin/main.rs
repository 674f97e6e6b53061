//! The stages' binary for tests: what the roof's `main` does first, and nothing else.
//!
//! Never shipped. Invariant: no thread exists before the stage runs.

fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    std::process::exit(tinkerbell_executor::early_main(&args).unwrap_or(64));
}
