//! The command line's grammar.
//!
//! Words and their checks only; nothing is done here. Invariant: an unknown word is refused with
//! the nearest known one and exit code 2, before anything was touched.

mod keys;
mod limits;
mod mcp;
mod policy;
mod sandbox;
mod secrets;
mod service;
mod trust;
mod wal;
mod when;
mod yolo;

pub use keys::KeysCommand;
pub use limits::Limits;
pub use mcp::{McpAdd, McpCommand};
pub use policy::{GrantsCommand, PolicyCommand};
pub use sandbox::SandboxCommand;
pub use secrets::SecretsCommand;
pub use service::DaemonCommand;
pub use trust::TrustArgs;
pub use wal::WalCommand;
pub use when::{PRIORITIES, When};
pub use yolo::Yolo;

use crate::units;
use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tinkerbell_core::code::exit;

const EXAMPLES: &str = "Examples:
  tinkerbell demo                                      see it work, without a model or a network
  tinkerbell run \"make the parser accept CRLF\"         work on a task in its own worktree
  tinkerbell run --bg --budget 2usd \"port to edition 2024\"
  tinkerbell ps                                        what runs, what waits for you
  tinkerbell diff 7f3a2c                               what a task changed
  tinkerbell land 7f3a2c --squash                      put the change on your branch
  tinkerbell undo 7f3a2c                               take the last operation back
";

const EXIT_CODES: &str = "Exit codes:
  0 done  1 task failed  2 usage  3 verification failed  4 needs approval or input  5 budget exhausted
  6 cancelled elsewhere  7 policy denied  8 conflict  69 unavailable  70 internal error
  77 not authenticated  78 configuration  124 deadline  130 SIGINT  143 SIGTERM

Errors carry a code; `tinkerbell explain CODE` prints its page.";

/// Durable coding agents in their own worktrees: killed, resumed, explained, undone.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "tinkerbell", version, before_long_help = EXAMPLES, after_long_help = EXIT_CODES)]
#[command(arg_required_else_help = true, disable_help_subcommand = false, infer_long_args = false)]
pub struct Args {
    /// Manners.
    #[command(flatten)]
    pub manners: Manners,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to speak, for all commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
#[command(next_help_heading = "Manners")]
pub struct Manners {
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true)]
    pub color: Color,
    /// Ask nothing: pause instead (exit 4 or 5)
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Answer yes to questions of the command line (never to a task's)
    #[arg(long, global = true)]
    pub yes: bool,
    /// No spinners
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Only ASCII signs
    #[arg(long, global = true)]
    pub ascii: bool,
    /// Override a setting of the daemon that is started, e.g. `--set limits.max_steps=50`
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<String>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that wants them.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Give a task, and follow it to its end
    #[command(before_long_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Say something to a task while it works, or after
    Tell {
        /// The task: a unique prefix of its id
        task: String,
        /// The words
        #[arg(required = true, num_args = 1.., value_name = "TEXT")]
        text: Vec<String>,
    },
    /// List tasks
    #[command(visible_alias = "ls")]
    Ps {
        /// Format
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
        /// Same as `-o json`
        #[arg(long, conflicts_with = "output")]
        json: bool,
        /// Also tasks that have ended
        #[arg(short, long)]
        all: bool,
        /// At most so many, newest activity first
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Follow a task live; ctrl-c leaves it running
    Attach {
        /// The task
        task: String,
        /// Print events as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a task did
    Logs {
        /// The task
        task: String,
        /// Go on with what happens
        #[arg(short, long)]
        follow: bool,
        /// Whole outputs instead of their first lines
        #[arg(long)]
        full: bool,
        /// Print events as JSON
        #[arg(long, conflicts_with = "full")]
        json: bool,
    },
    /// Show all that is known of a task
    Inspect {
        /// The task
        task: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait for a task's end; exits with its exit code
    Wait {
        /// The task
        task: String,
        /// Give up after this long (exit 124)
        #[arg(long, value_parser = units::duration, value_name = "DURATION")]
        timeout: Option<Duration>,
    },
    /// Let tasks stand still
    Pause(Tasks),
    /// Let paused tasks go on
    Unpause(Tasks),
    /// End tasks
    Stop(Tasks),
    /// Make a task more or less urgent
    Priority {
        /// The task
        task: String,
        /// How urgent it is from now on
        #[arg(value_parser = PossibleValuesParser::new(PRIORITIES), value_name = "interactive|normal|batch", hide_possible_values = true)]
        priority: String,
    },
    /// Remove tasks with their worktrees, branches and checkpoints
    Rm {
        /// Also running tasks
        #[arg(short, long)]
        force: bool,
        /// The tasks
        #[command(flatten)]
        tasks: Tasks,
    },
    /// Let a paused task go on, with higher limits if given
    Resume {
        /// The task
        task: String,
        /// New limits
        #[command(flatten)]
        limits: Limits,
    },
    /// Show what a task changed
    Diff {
        /// The task
        task: String,
        /// Only files and counts
        #[arg(long)]
        stat: bool,
        /// From after this operation instead of the base
        #[arg(long, value_name = "OP")]
        from: Option<u32>,
        /// To after this operation instead of now
        #[arg(long, value_name = "OP")]
        to: Option<u32>,
    },
    /// Put a task's change on your branch
    Land {
        /// The task
        task: String,
        /// As one commit (the only way so far)
        #[arg(long, required = true)]
        squash: bool,
        /// On this branch instead of the one that is checked out
        #[arg(long, value_name = "NAME")]
        branch: Option<String>,
        /// The commit's message
        #[arg(short, long, value_name = "TEXT")]
        message: Option<String>,
    },
    /// Take a task's last operation back
    Undo {
        /// The task
        task: String,
        /// All operations, down to the base
        #[arg(long)]
        all: bool,
    },
    /// Bring back what the last undo took
    Redo {
        /// The task
        task: String,
    },
    /// Bring a task's tree to what it was after an operation
    Restore {
        /// The task
        task: String,
        /// The operation's number (`op log` lists them); 0 is the base
        op: u32,
    },
    /// Operations of a task
    #[command(subcommand)]
    Op(OpCommand),
    /// Approve what a task asks for, or answer its question
    Approve {
        /// TASK, or TASK/NUMBER as `inbox` shows it
        #[arg(required_unless_present = "rule")]
        id: Option<String>,
        /// The answer to a question
        #[arg(long, value_name = "TEXT", conflicts_with_all = ["all_like", "rule", "scope"])]
        answer: Option<String>,
        /// How far it reaches; beyond `once` where the question offers it
        #[arg(long = "for", default_value = "once", value_parser = PossibleValuesParser::new(["once", "task", "project", "user"]), value_name = "once|task|project|user", hide_possible_values = true)]
        scope: String,
        /// All questions of all tasks that ask for the same
        #[arg(long, requires = "id")]
        all_like: bool,
        /// All that this rule asks about: yours, the machine's or a built-in one
        #[arg(long, value_name = "RULE", conflicts_with = "id")]
        rule: Option<String>,
    },
    /// Deny what a task asks for
    Deny {
        /// TASK, or TASK/NUMBER as `inbox` shows it
        #[arg(required_unless_present_any = ["rule", "all"])]
        id: Option<String>,
        /// Why; the model reads it
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        /// All questions of all tasks that ask for the same
        #[arg(long, requires = "id")]
        all_like: bool,
        /// All that this rule asks about; `project:NAME` for a repository's
        #[arg(long, value_name = "RULE", conflicts_with = "id")]
        rule: Option<String>,
        /// All that wait
        #[arg(long, conflicts_with_all = ["id", "rule"])]
        all: bool,
    },
    /// List what waits for you
    Inbox {
        /// Format
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
        /// Same as `-o json`
        #[arg(long, conflicts_with = "output")]
        json: bool,
    },
    /// The daemon
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Stop everything now and keep it stopped: all commands and model calls of all tasks
    #[command(long_about = HALT)]
    Halt {
        /// Why; everybody who is refused meanwhile reads it
        #[arg(long, value_name = "TEXT", conflicts_with = "lift")]
        reason: Option<String>,
        /// Take it back: tasks go on by themselves
        #[arg(long)]
        lift: bool,
    },
    /// Set a project up: at most three questions
    Init,
    /// Examine the installation; exit 1 when something is wrong
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Ask no provider
        #[arg(long)]
        offline: bool,
    },
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The rules of what is allowed, asked for and forbidden
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The fence around commands
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Show what a repository brings that steers tasks, and trust it (`--yes`: without a question)
    Trust(TrustArgs),
    /// Servers that offer tools to models (MCP)
    #[command(subcommand)]
    Mcp(McpCommand),
    /// The journal
    #[command(subcommand)]
    Wal(WalCommand),
    /// The keys that seal journal and blobs
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Secrets that the configuration names
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Read a damaged session of codex, claude, copilot or gemini; lists them without a file
    #[command(after_long_help = RESCUE_EXAMPLES)]
    Rescue {
        /// Session files
        files: Vec<PathBuf>,
        /// Print the transcript, to be piped into `run`
        #[arg(long, conflicts_with = "json")]
        transcript: bool,
        /// Write all whole records into this new file, in the same format
        #[arg(long, value_name = "FILE")]
        repair: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Longest transcript in bytes; its end is kept
        #[arg(long, default_value_t = 60_000, value_name = "N")]
        max_bytes: usize,
    },
    /// See a task done, killed, resumed and undone; needs no model and no network
    Demo {
        /// Without pauses
        #[arg(long)]
        fast: bool,
        /// With a live model, `provider/model`
        #[arg(short, long, value_name = "MODEL")]
        model: Option<String>,
    },
    /// Print the page of an error code
    Explain {
        /// The code, e.g. TB-ROUTER-001
        code: String,
    },
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages into a directory
    Man {
        /// The directory
        dir: Option<PathBuf>,
    },
}

const HALT: &str = "Stop everything now and keep it stopped: all commands and model calls of all tasks.

A mark on disk halts all effects until it is lifted, through every restart. It works with a daemon that
is healthy, stuck, stopped or dead: what runs is killed from outside, and a daemon that does not stand
still within 300 ms is killed, too, which loses nothing. Meanwhile no task is taken and none goes on;
`ps` shows them as halted. After `--lift` they go on by themselves, and are told which commands were
ended.";

const RESCUE_EXAMPLES: &str = "Examples:
  tinkerbell rescue                                    sessions of other agents, and which are damaged
  tinkerbell rescue FILE                               what stands and what is lost
  tinkerbell rescue --repair NEW.jsonl FILE            a mended copy for the agent that wrote it
  tinkerbell rescue --transcript FILE | tinkerbell run -p \"go on with this work\"
";

const RUN_EXAMPLES: &str = "Examples:
  tinkerbell run \"fix the failing test\"
  tinkerbell run -m local/qwen --verify 'make test' \"accept CRLF in the parser\"
  git log -1 --format=%B | tinkerbell run -
  tinkerbell run --bg --json --budget 2usd --max-wall-time 1h \"update the docs\"
";

/// A task to give.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub struct RunArgs {
    /// What to do; `-` reads it from standard input
    #[arg(required = true, value_name = "PROMPT")]
    pub prompt: Vec<String>,
    /// Give the task and leave; prints its id
    #[arg(long)]
    pub bg: bool,
    /// Print events as JSON, the result last
    #[arg(long)]
    pub json: bool,
    /// Without questions, as peers spell it; text on standard input is appended
    #[arg(short, long)]
    pub print: bool,
    /// The model, `provider/model`
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The command that must pass before the task counts as done
    #[arg(long, value_name = "CMD")]
    pub verify: Option<String>,
    /// Start from this revision instead of the tree as it is
    #[arg(long, value_name = "REV")]
    pub base: Option<String>,
    /// Work as if called in this directory
    #[arg(short = 'C', long, value_name = "DIR")]
    pub cd: Option<PathBuf>,
    /// When and how urgently.
    #[command(flatten)]
    pub when: When,
    /// Whether anybody is asked.
    #[command(flatten)]
    pub yolo: Yolo,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
}

/// One or more tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub struct Tasks {
    /// The tasks: unique prefixes of their ids
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
}

/// Formats of lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// Ids alone, one a line.
    Name,
}

/// Commands about operations.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum OpCommand {
    /// List a task's operations
    Log {
        /// The task
        task: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Commands about the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Print the values in force
    Show {
        /// With the place each value came from
        #[arg(long)]
        origin: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check all files; exit 78 when one is wrong
    Validate,
    /// Print the JSON Schema
    Schema,
    /// Print where files are looked for
    Path,
}

/// Reads the command line. Whatever is to be said about it was printed when this fails.
///
/// # Errors
/// The exit code: 0 after help and version, 2 after wrong usage.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Args, u8> {
    Args::try_parse_from(insert_run(argv.into_iter().collect())).map_err(|mut error| {
        advise(&mut error);
        // Help piped into a closed reader is no failure.
        error.print().ok();
        if error.use_stderr() { exit::USAGE } else { exit::DONE }
    })
}

/// `tinkerbell "do this"` and `tinkerbell -p …` are runs. Only a text with a space is taken for a
/// prompt: a single word is more likely a misspelt command.
fn insert_run(mut argv: Vec<OsString>) -> Vec<OsString> {
    let is_run = argv
        .get(1)
        .and_then(|first| first.to_str())
        .is_some_and(|first| matches!(first, "-p" | "--print") || (!first.starts_with('-') && first.trim().contains(char::is_whitespace)));
    if is_run {
        argv.insert(1, "run".into());
    }
    argv
}

/// What fingers know from peers, and what it is called here.
fn advise(error: &mut clap::Error) {
    if error.kind() == ErrorKind::InvalidSubcommand && error.get(ContextKind::SuggestedSubcommand).is_none() {
        swapped(error);
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return };
    let advice = match given.split('=').next().unwrap_or_default() {
        "-c" => "`-c` means something else in every tool; settings are overridden with `--set key=value`",
        "-y" => "`-y` means `yes` to some and `everything is allowed` to others; say `--yes`",
        "--yolo" | "--dangerously-skip-permissions" | "--full-auto" => {
            "commands run in a sandbox and need no approval; `run --yolo` turns the questions that are left into consent for a while"
        }
        "--max-turns" => "say `--max-steps`",
        "--dir" | "--cwd" | "--directory" => "say `--cd DIR`",
        _ => return,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![advice.to_owned().into()]));
    // A guess by spelling beside it would only confuse.
    error.remove(ContextKind::SuggestedArg);
}

/// Two letters in the wrong order are the commonest slip, and the one that the parser's own guess
/// does not see in short words.
fn swapped(error: &mut clap::Error) {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else { return };
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    let wanted = sorted(given);
    let command = Args::command();
    let names = command.get_subcommands().map(|known| known.get_name().to_owned()).filter(|known| sorted(known) == wanted);
    let found: Vec<String> = names.collect();
    if !found.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(found));
    }
}

fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write it like `limits.max_steps=50`".to_owned()),
    }
}

#[cfg(test)]
mod tests;
