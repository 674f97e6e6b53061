//! The project's chores: `cargo xtask test | crash | sim | fuzz | services | bench | package`.
//!
//! A chore is a program for developers: it prints, reads the clock and the environment, and starts
//! other programs. It is no part of the product, and the product never depends on it. Invariant:
//! the exit code is honest; whatever was not run is named together with the reason.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the terminal is the product of a chore")]
#![allow(clippy::disallowed_methods, reason = "chores measure real time")]

mod bench;
mod crash;
mod date;
mod fuzz;
mod package;
mod services;
mod shell;
mod sim;
mod suite;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

  test [--fast] [--with llm] [--with builds] [--with servers] [--with packages]
                                   formatting, lints, tests, house laws, licences
  tidy                             the house laws alone (also: cargo test -p xtask)
  services up|down|status llm      the real model for `test --with llm`
  services up builds               real projects for `test --with builds`
  services up corpora              published injections for the suite's obedient model
  crash [--kills N] [--seed N] [--parallel N] [--peers [--trials N]] [--release]
                                   real kills, for us and for codex, goose, opencode
  sim [--seed N] [--seconds S] [--base N] [--plant NAME]
                                   the deterministic simulator
  fuzz [--seconds N] [--target NAME]
                                   the parsers against libFuzzer, a minute each
  bench [NAME…] [--no-build]       figures for docs/benchmarks.md; without a name: all
  package [deb|rpm]… [--no-build]  packages of the release (docs/install.md); without a name: both
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> anyhow::Result<ExitCode> {
    match words {
        ["test", rest @ ..] => suite::run(&suite::Plan::parse(rest)?),
        ["tidy"] => tidy::run(),
        ["services", rest @ ..] => services::run(rest),
        ["crash", rest @ ..] => crash::run(rest),
        ["sim", rest @ ..] => sim::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["package", rest @ ..] => package::run(rest),
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        [other, ..] => {
            eprint!("xtask: there is no chore `{other}`\n\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}
