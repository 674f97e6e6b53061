//! The commands: each a few calls of the client and some lines.
//!
//! `run` dispatches; the work stands in the modules by subject. Invariant: every failure ends as
//! one rendered fault and its exit code.

mod ask;
mod daemon;
mod follow;
mod offline;
mod ops;
mod run;
mod tasks;
mod upgrade;
mod watch;

pub use offline::offline;

use crate::args::{
    Args, Command, ConfigCommand, DaemonCommand, Format, GrantsCommand, KeysCommand, McpCommand, OpCommand, PolicyCommand, SandboxCommand,
    SecretsCommand, WalCommand,
};
use crate::house::{Chore, House, Rescue};
use crate::output::Output;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::client::probe;
use tinkerbell_core::code::{Fault, exit};

/// Every code that this crate gives out itself.
#[cfg(test)]
pub const CODES: &[&str] = &[
    "TB-CLI-001",
    "TB-CLI-002",
    "TB-CLI-003",
    "TB-CLI-004",
    "TB-CLI-005",
    "TB-CLI-006",
    "TB-CLI-007",
    "TB-CLI-008",
    "TB-CLI-009",
    "TB-CLI-010",
    "TB-API-001",
    "TB-API-002",
    "TB-API-003",
    "TB-API-004",
    "TB-API-005",
    "TB-API-006",
    "TB-API-007",
    "TB-API-008",
    "TB-API-009",
    "TB-API-010",
    "TB-API-011",
    "TB-API-012",
    "TB-API-013",
    "TB-API-014",
];

/// How long a daemon that stops may take before its place is taken.
const LEAVE_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What a command stands on.
#[derive(Clone)]
struct Desk {
    house: Arc<dyn House>,
    out: Arc<Output>,
    is_yes: bool,
    is_no_input: bool,
}

/// Runs a command to its exit code. Everything that is to be said was said.
pub async fn run(args: Args, house: Arc<dyn House>) -> u8 {
    let out = Arc::new(Output::process(&args.manners));
    run_on(args, house, out).await
}

pub(crate) async fn run_on(args: Args, house: Arc<dyn House>, out: Arc<Output>) -> u8 {
    let desk = Desk { house, out, is_yes: args.manners.yes, is_no_input: args.manners.no_input };
    settled(&desk.out, dispatch(&desk, args.command).await)
}

/// The exit code of what was done; data that did not reach stdout is a failure too.
fn settled(out: &Output, done: Result<u8, Fault>) -> u8 {
    let done = match (done, out.trouble()) {
        (Ok(exit::DONE), Some(why)) => Err(local(&format!("standard output can not be written: {why}"))),
        (done, _) => done,
    };
    done.unwrap_or_else(|fault| out.fail(&fault))
}

async fn dispatch(desk: &Desk, command: Command) -> Result<u8, Fault> {
    match command {
        Command::Run(args) => run::run(desk, *args).await,
        Command::Tell { task, text } => tasks::tell(desk, &task, &text.join(" ")).await,
        Command::Ps { output, json, all, limit } => tasks::ps(desk, format(output, json), all, limit).await,
        Command::Attach { task, json } => run::attach(desk, &task, json).await,
        Command::Logs { task, follow, full, json } => tasks::logs(desk, &task, tasks::LogDepth { follow, full, json }).await,
        Command::Inspect { task, json } => tasks::inspect(desk, &task, json).await,
        Command::Wait { task, timeout } => tasks::wait(desk, &task, timeout).await,
        Command::Pause(tasks) => ops::each(desk, &tasks.tasks, ops::Verb::Pause).await,
        Command::Unpause(tasks) => ops::each(desk, &tasks.tasks, ops::Verb::Unpause).await,
        Command::Stop(tasks) => ops::each(desk, &tasks.tasks, ops::Verb::Stop).await,
        Command::Priority { task, priority } => ops::prioritise(desk, &task, priority).await,
        Command::Rm { force, tasks } => ops::remove(desk, &tasks.tasks, force).await,
        Command::Resume { task, limits } => ops::resume(desk, &task, &limits).await,
        Command::Diff { task, stat, from, to } => ops::diff(desk, &task, stat, (from, to)).await,
        Command::Land { task, squash: _, branch, message } => ops::land(desk, &task, branch, message).await,
        Command::Undo { task, all } => ops::undo(desk, &task, all).await,
        Command::Redo { task } => ops::redo(desk, &task).await,
        Command::Restore { task, op } => ops::restore(desk, &task, op).await,
        Command::Op(OpCommand::Log { task, json }) => ops::log(desk, &task, json).await,
        Command::Approve { id, answer, scope, all_like, rule } => {
            let wish = ask::Wish { id, approve: true, text: answer.unwrap_or_default(), scope, is_like: all_like, rule };
            ask::answer(desk, &wish).await
        }
        Command::Deny { id, why, all_like, rule, all: _ } => {
            let text = why.unwrap_or_default();
            ask::answer(desk, &ask::Wish { id, approve: false, text, scope: String::new(), is_like: all_like, rule }).await
        }
        Command::Policy(PolicyCommand::Grants { what: Some(GrantsCommand::Revoke { id }), json: _ }) => ask::revoke(desk, id).await,
        Command::Inbox { output, json } => ask::inbox(desk, format(output, json)).await,
        Command::Daemon(DaemonCommand::Status { json }) => daemon::status(desk, json).await,
        Command::Daemon(DaemonCommand::Stop) => daemon::stop(desk).await,
        Command::Daemon(DaemonCommand::Reload) => daemon::reload(desk).await,
        Command::Daemon(DaemonCommand::Upgrade { binary, drain, health, dry_run }) => {
            upgrade::upgrade(desk, upgrade::Wish { binary, drain, health, dry_run }).await
        }
        Command::Explain { code } => offline::explain(&desk.out, &code),
        Command::Completion { shell } => offline::completion(&desk.out, shell),
        Command::Man { dir } => offline::man(&desk.out, dir.as_deref()),
        other => match chore(other) {
            Some(chore) => desk.house.chore(chore, Arc::clone(&desk.out)).await,
            None => Ok(exit::USAGE),
        },
    }
}

/// The commands that are the roof's work.
fn chore(command: Command) -> Option<Chore> {
    Some(match command {
        Command::Daemon(DaemonCommand::Start { foreground }) => Chore::DaemonStart { foreground },
        Command::Daemon(DaemonCommand::Logs { follow, lines }) => Chore::DaemonLogs { follow, lines },
        Command::Daemon(DaemonCommand::Install { system, dry_run }) => Chore::DaemonInstall { system, dry_run },
        Command::Daemon(DaemonCommand::Uninstall { system, dry_run }) => Chore::DaemonUninstall { system, dry_run },
        Command::Halt { lift: true, .. } => Chore::Lift,
        Command::Halt { reason, lift: false } => Chore::Halt { reason: reason.unwrap_or_default() },
        Command::Init => Chore::Init,
        Command::Doctor { json, offline } => Chore::Doctor { json, offline },
        Command::Config(ConfigCommand::Show { origin, json }) => Chore::ConfigShow { origin, json },
        Command::Config(ConfigCommand::Validate) => Chore::ConfigValidate,
        Command::Config(ConfigCommand::Schema) => Chore::ConfigSchema,
        Command::Config(ConfigCommand::Path) => Chore::ConfigPath,
        Command::Wal(WalCommand::Stat { json }) => Chore::WalStat { json },
        Command::Wal(WalCommand::Verify) => Chore::WalVerify,
        Command::Wal(WalCommand::Repair { apply, from }) => Chore::WalRepair { apply, from },
        Command::Wal(WalCommand::Explain { lsn }) => Chore::WalExplain { lsn },
        Command::Wal(WalCommand::Dump { from, limit, task }) => Chore::WalDump { from, limit, task },
        Command::Wal(WalCommand::Archive { to }) => Chore::WalArchive { to },
        Command::Wal(WalCommand::Compact) => Chore::WalCompact,
        Command::Wal(WalCommand::Restore { from, to }) => Chore::WalRestore { from, to },
        // There is one form so far; naming it keeps scripts right when there are more.
        Command::Wal(WalCommand::Export { task, format: _, blobs }) => Chore::WalExport { task, blobs },
        Command::Keys(KeysCommand::Ls { json }) => Chore::KeysLs { json },
        Command::Keys(KeysCommand::RotateRoot) => Chore::KeysRotateRoot,
        Command::Secrets(SecretsCommand::Ls { json }) => Chore::SecretsLs { json },
        Command::Mcp(McpCommand::Add(wish)) => Chore::McpAdd(wish),
        Command::Mcp(McpCommand::List { json }) => Chore::McpList { json },
        Command::Mcp(McpCommand::Get { name, json }) => Chore::McpGet { name, json },
        Command::Mcp(McpCommand::Remove { name }) => Chore::McpRemove { name },
        Command::Mcp(McpCommand::Tools { name, json }) => Chore::McpTools { name, json },
        Command::Mcp(McpCommand::Approve { name }) => Chore::McpApprove { name },
        Command::Policy(PolicyCommand::Check { file }) => Chore::PolicyCheck { file },
        Command::Policy(PolicyCommand::Test { json }) => Chore::PolicyTest { json },
        Command::Policy(PolicyCommand::Explain { command, level, goal, json }) => Chore::PolicyExplain { command, level, goal, json },
        Command::Policy(PolicyCommand::Show) => Chore::PolicyShow,
        Command::Sandbox(SandboxCommand::Apparmor) => Chore::Apparmor,
        Command::Sandbox(SandboxCommand::Seatbelt) => Chore::Seatbelt,
        Command::Policy(PolicyCommand::Grants { what: None, json }) => Chore::PolicyGrants { json },
        Command::Trust(args) => Chore::Trust { wish: args.wish(), dir: args.dir },
        Command::Rescue { files, transcript, repair, json, max_bytes } => {
            Chore::Rescue(Rescue { files, transcript, repair, json, max_bytes })
        }
        Command::Demo { fast, model } => Chore::Demo { fast, model },
        _ => return None,
    })
}

const fn format(output: Format, json: bool) -> Format {
    if json { Format::Json } else { output }
}

impl Desk {
    /// The daemon; started if need be.
    async fn client(&self) -> Result<Client, Fault> {
        self.house.connect(true).await
    }

    /// The daemon again, after `client`'s was lost or is on its way down.
    async fn again(&self, client: &Client) -> Result<Client, Fault> {
        let gone = async {
            while probe(client.path()).await.is_ok() && client.ready().await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // One that never goes is told by the next call.
        tokio::time::timeout(LEAVE_WAIT, gone).await.ok();
        self.house.connect(true).await
    }

    /// Calls a person back to this terminal.
    fn call(&self, text: &str) {
        self.out.call(&self.house.surroundings().notify.bytes(text));
    }

    fn fail(&self, problem: &Fault) -> u8 {
        self.out.fail(problem)
    }

    /// Prints a value as indented JSON.
    fn json(&self, value: &impl Serialize) -> Result<(), Fault> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| local(&format!("the answer can not be written as JSON: {error}")))?;
        self.out.data(&text);
        Ok(())
    }
}

/// Whether the daemon is gone or on its way down, so that another one can take over.
fn is_lost(fault: &Fault) -> bool {
    matches!(fault.code.0, "TB-API-001" | "TB-API-002" | "TB-SCHED-002")
}

/// Something on this side failed that should not.
fn local(text: &str) -> Fault {
    Fault::new("TB-CLI-010", exit::FAILED, text)
}

#[cfg(test)]
mod tests;
