//! Commands that need nothing but the binary: explain, completion, man.
//!
//! No daemon, no runtime, no configuration. Invariant: they work on a broken installation.

use super::{local, settled};
use crate::args::{Args, Command};
use crate::output::Output;
use crate::pages;
use crate::render::one_line;
use clap::CommandFactory as _;
use std::path::Path;
use tinkerbell_core::code::{Fault, exit};

/// Runs the command if it needs no runtime; `None` when it does.
#[must_use]
pub fn offline(args: &Args) -> Option<u8> {
    let out = Output::process(&args.manners);
    let done = match &args.command {
        Command::Explain { code } => explain(&out, code),
        Command::Completion { shell } => completion(&out, *shell),
        Command::Man { dir } => man(&out, dir.as_deref()),
        _ => return None,
    };
    Some(settled(&out, done))
}

/// `explain`.
pub fn explain(out: &Output, code: &str) -> Result<u8, Fault> {
    let Some(page) = pages::page(code) else {
        let near = pages::near(code);
        let problem = Fault::new("TB-CLI-007", exit::USAGE, format!("there is no error code `{}`", one_line(code, 40)));
        return Err(match near.is_empty() {
            true => problem.hint("codes look like TB-ROUTER-001 and stand in brackets after `error`"),
            false => problem.hint(format!("known are {}", near.join(", "))),
        });
    };
    out.data(page.trim_end());
    Ok(exit::DONE)
}

/// `completion`.
pub fn completion(out: &Output, shell: clap_complete::Shell) -> Result<u8, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tinkerbell", &mut script);
    out.raw(&script);
    Ok(exit::DONE)
}

/// `man`.
pub fn man(out: &Output, dir: Option<&Path>) -> Result<u8, Fault> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Args::command())
            .render(&mut text)
            .map_err(|error| local(&format!("the page can not be rendered: {error}")))?;
        out.raw(&text);
        return Ok(exit::DONE);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir));
    written.map_err(|error| local(&format!("the pages can not be written to {}: {error}", dir.display())))?;
    out.talk(&format!("pages written to {}", dir.display()));
    Ok(exit::DONE)
}
