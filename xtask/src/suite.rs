//! `cargo xtask test`: every check of the project, in one order, with one honest result.
//!
//! It runs all steps even after one failed, because a developer wants the whole list at once.
//! Invariant: a step that was not run stands in the summary with its reason, never as a success.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{crash, fuzz, package, services, shell, sim};

/// Kills of the crash matrix; by hand it is run with ten thousand.
const CRASH_KILLS: u64 = 200;

/// Seconds of fresh histories in the simulator.
const SIM_SECONDS: u64 = 60;
/// … and where somebody waits for the tests while writing.
const SIM_FAST_SECONDS: u64 = 5;

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only formatting, unit tests and a few histories: for the loop while writing.
    fast: bool,
    /// Also the suite with the real local model.
    llm: bool,
    /// Also real projects, built inside the sandbox.
    builds: bool,
    /// Also real MCP servers, driven in their sandboxes.
    servers: bool,
    /// Also packages, built and compared with their lists.
    packages: bool,
}

enum Outcome {
    Passed,
    Failed,
    Skipped(String),
    /// Passed or not, with what is to be told beneath.
    Told(bool, Vec<String>),
}

struct Report {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

impl Plan {
    /// Reads the arguments after `test`.
    ///
    /// # Errors
    /// An argument that this chore does not know.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut plan = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "--fast" => plan.fast = true,
                "--with" => plan.with(rest.next().copied().unwrap_or(""))?,
                other => match other.strip_prefix("--with=") {
                    Some(what) => plan.with(what)?,
                    None => bail!("`test` does not know `{other}`; it takes --fast and --with llm, builds, servers or packages"),
                },
            }
        }
        Ok(plan)
    }

    fn with(&mut self, what: &str) -> Result<()> {
        match what {
            "llm" => self.llm = true,
            "builds" => self.builds = true,
            "servers" => self.servers = true,
            "packages" => self.packages = true,
            other => bail!("--with knows `llm`, `builds`, `servers` and `packages`, not `{other}`"),
        }
        Ok(())
    }
}

/// Runs the plan; the exit code is 1 where any step failed.
///
/// # Errors
/// Cargo itself cannot be started.
pub fn run(plan: &Plan) -> Result<ExitCode> {
    type Step = fn(&Plan) -> Result<Outcome>;
    let steps: [(&'static str, Step); 12] = [
        ("formatting", formatting),
        ("lints", lints),
        ("tests and house laws", tests),
        ("obedient model", obedient_model),
        ("crash matrix", crash_matrix),
        ("simulation", simulation),
        ("fuzzing", fuzzing),
        ("licences and bans", licences),
        ("real builds", real_builds),
        ("real servers", real_servers),
        ("real model", real_model),
        ("packages", packages),
    ];
    let mut reports = Vec::new();
    for (name, step) in steps {
        println!("\n== {name} ==");
        let start = Instant::now();
        let outcome = step(plan)?;
        if let Outcome::Skipped(why) = &outcome {
            println!("skipped: {why}");
        }
        reports.push(Report { name, outcome, took: start.elapsed() });
    }
    Ok(summary(&reports))
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(shell::cargo());
    command.args(words);
    // The suite with the real model is a step of its own; a URL in the environment must not
    // make the ordinary tests depend on that model.
    command.env_remove(services::LLM_URL).env_remove(services::CORPORA).env_remove(services::BUILDS).env_remove(services::SERVERS);
    command
}

/// The integration tests whose names hold this word, with their own words shown. All of the house is selected,
/// so that features are unified, and outputs shared, as in the other steps.
fn it(filter: &str) -> Command {
    let mut command = Command::new(shell::cargo());
    command.args(["test", "--workspace", "--test", "it", filter, "--", "--nocapture"]);
    command
}

fn outcome_of(command: &mut Command) -> Result<Outcome> {
    Ok(if shell::succeeds(command)? { Outcome::Passed } else { Outcome::Failed })
}

fn formatting(_: &Plan) -> Result<Outcome> {
    outcome_of(&mut cargo(&["fmt", "--all", "--check"]))
}

fn lints(plan: &Plan) -> Result<Outcome> {
    if plan.fast {
        return Ok(Outcome::Skipped("--fast".into()));
    }
    outcome_of(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn tests(plan: &Plan) -> Result<Outcome> {
    let words: &[&str] =
        if plan.fast { &["test", "--workspace", "--lib", "--bins", "--no-fail-fast"] } else { &["test", "--workspace", "--no-fail-fast"] };
    outcome_of(&mut cargo(words))
}

/// Published injections, obeyed to the letter. Where the package index can not be reached the corpora
/// are missing, and so is this step.
fn obedient_model(plan: &Plan) -> Result<Outcome> {
    if plan.fast {
        return Ok(Outcome::Skipped("--fast".into()));
    }
    let dir = match services::corpora()? {
        Ok(dir) => dir,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    outcome_of(it("obedient").env(services::CORPORA, dir))
}

fn crash_matrix(plan: &Plan) -> Result<Outcome> {
    if plan.fast {
        return Ok(Outcome::Skipped("--fast".into()));
    }
    Ok(if crash::kills(CRASH_KILLS)? { Outcome::Passed } else { Outcome::Failed })
}

fn simulation(plan: &Plan) -> Result<Outcome> {
    let seconds = if plan.fast { SIM_FAST_SECONDS } else { SIM_SECONDS };
    Ok(if sim::fresh(seconds)? { Outcome::Passed } else { Outcome::Failed })
}

fn fuzzing(plan: &Plan) -> Result<Outcome> {
    if plan.fast {
        return Ok(Outcome::Skipped("--fast; the same entry functions ran among the tests".into()));
    }
    Ok(match fuzz::pass(fuzz::usual_seconds(), None)? {
        fuzz::Ended::Clean(lines) => Outcome::Told(true, lines),
        fuzz::Ended::Found(lines) => Outcome::Told(false, lines),
        fuzz::Ended::Skipped(why) => Outcome::Skipped(why),
    })
}

fn licences(plan: &Plan) -> Result<Outcome> {
    if plan.fast {
        return Ok(Outcome::Skipped("--fast".into()));
    }
    let installed = cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        return Ok(Outcome::Skipped("cargo deny (not installed; cargo install cargo-deny)".into()));
    }
    outcome_of(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))
}

fn real_builds(plan: &Plan) -> Result<Outcome> {
    if !plan.builds {
        return Ok(Outcome::Skipped("not asked for (--with builds)".into()));
    }
    outcome_of(it("builds").env(services::BUILDS, services::builds()?))
}

fn real_servers(plan: &Plan) -> Result<Outcome> {
    if !plan.servers {
        return Ok(Outcome::Skipped("not asked for (--with servers)".into()));
    }
    outcome_of(it("servers").env(services::SERVERS, services::servers()?))
}

fn real_model(plan: &Plan) -> Result<Outcome> {
    if !plan.llm {
        return Ok(Outcome::Skipped("not asked for (--with llm)".into()));
    }
    let Some(model) = services::llm_in_use() else {
        return Ok(Outcome::Skipped(format!("no model is up: cargo xtask services up llm, or set {}", services::LLM_URL)));
    };
    println!("using {} at {}", model.model, model.url);
    let mut command = it("llm");
    command.arg("--test-threads=1").env(services::LLM_URL, &model.url).env(services::LLM_MODEL, &model.model);
    outcome_of(&mut command)
}

fn packages(plan: &Plan) -> Result<Outcome> {
    if !plan.packages {
        return Ok(Outcome::Skipped("not asked for (--with packages)".into()));
    }
    Ok(match package::pass(&[], true)? {
        package::Ended::Made(lines) => Outcome::Told(true, lines),
        package::Ended::Wrong(lines) => Outcome::Told(false, lines),
        package::Ended::Skipped(why) => Outcome::Skipped(why),
    })
}

fn summary(reports: &[Report]) -> ExitCode {
    println!("\n== summary ==");
    for report in reports {
        let seconds = report.took.as_secs_f64();
        match &report.outcome {
            Outcome::Passed | Outcome::Told(true, _) => println!("passed   {:<22} {seconds:>7.1} s", report.name),
            Outcome::Failed | Outcome::Told(false, _) => println!("FAILED   {:<22} {seconds:>7.1} s", report.name),
            Outcome::Skipped(why) => println!("skipped  {:<22}           {why}", report.name),
        }
        if let Outcome::Told(_, lines) = &report.outcome {
            lines.iter().for_each(|line| println!("           {line}"));
        }
    }
    if reports.iter().any(|report| matches!(report.outcome, Outcome::Failed | Outcome::Told(false, _))) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        let check = |words: &[&str], fast, llm, builds| {
            assert_eq!(Plan::parse(words).unwrap(), Plan { fast, llm, builds, ..Plan::default() });
        };
        check(&[], false, false, false);
        check(&["--fast"], true, false, false);
        check(&["--with", "llm", "--fast"], true, true, false);
        check(&["--with=llm", "--with", "builds"], false, true, true);
        assert_eq!(Plan::parse(&["--with", "packages"]).unwrap(), Plan { packages: true, ..Plan::default() });
        assert_eq!(Plan::parse(&["--with", "servers"]).unwrap(), Plan { servers: true, ..Plan::default() });
        for bad in [&["--slow"][..], &["--with"], &["--with", "k8s"]] {
            assert!(Plan::parse(bad).is_err(), "{bad:?}");
        }
    }
}
