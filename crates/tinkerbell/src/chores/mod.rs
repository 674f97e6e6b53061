//! Chores: what the command line does without the daemon's help.
//!
//! Each reads or writes a few files of this installation or of a project and says what it found;
//! none touches a task. Invariant: a chore works beside a running daemon, with none, and with a
//! broken configuration as far as that is possible.

pub mod apparmor;
mod config;
mod doctor;
mod grants;
mod halt;
mod init;
pub mod install;
mod keys;
mod logs;
mod mcp;
mod policy;
mod repository;
mod rescue;
mod seatbelt;
mod secrets;
pub mod text;
mod trust;
mod wal;

use crate::config::Sources;
use crate::environment::Environment;
use crate::places::Places;
use std::path::Path;
use tinkerbell_cli::{Chore, Output};
use tinkerbell_core::code::Fault;

/// What a chore stands on.
#[derive(Clone, Copy)]
pub struct Shop<'a> {
    /// Where everything lies.
    pub places: &'a Places,
    /// The process environment.
    pub env: &'a Environment,
    /// Where configuration is read from.
    pub sources: &'a Sources,
    /// The current directory; `None` when it is gone.
    pub cwd: Option<&'a Path>,
}

/// Does a chore and gives its exit code; `None` for those that belong to the daemon or the demo.
/// `yes` answers all questions.
///
/// # Errors
/// The chore's own fault, to be shown by the caller.
pub async fn run(shop: &Shop<'_>, chore: &Chore, yes: bool, out: &Output) -> Option<Result<u8, Fault>> {
    Some(match chore {
        Chore::DaemonStart { .. } | Chore::DaemonInstall { .. } | Chore::DaemonUninstall { .. } | Chore::Demo { .. } | Chore::Lift => {
            return None;
        }
        Chore::Halt { reason } => halt::halt(shop, reason, out).await,
        Chore::DaemonLogs { follow, lines } => logs::logs(shop, *follow, *lines, out).await,
        Chore::Doctor { json, offline } => doctor::doctor(shop, *json, *offline, out).await,
        Chore::ConfigShow { origin, json } => config::show(shop, *origin, *json, out).await,
        Chore::ConfigValidate => config::validate(shop, out),
        Chore::ConfigSchema => config::schema(out),
        Chore::ConfigPath => config::path(shop, out),
        Chore::Init => init::init(shop, yes, out).await,
        Chore::KeysLs { json } => keys::ls(shop, *json, out),
        Chore::KeysRotateRoot => keys::rotate_root(shop, out),
        Chore::SecretsLs { json } => secrets::ls(shop, *json, out),
        Chore::McpAdd(wish) => mcp::add(shop, wish, out).await,
        Chore::McpList { json } => mcp::list(shop, *json, out),
        Chore::McpGet { name, json } => mcp::get(shop, name, *json, out),
        Chore::McpRemove { name } => mcp::remove(shop, name, out),
        Chore::McpTools { name, json } => mcp::tools(shop, name, *json, out).await,
        Chore::McpApprove { name } => mcp::approve(shop, name, yes, out).await,
        Chore::PolicyCheck { file } => policy::check(shop, file.as_deref(), out),
        Chore::PolicyTest { json } => policy::test(shop, *json, out),
        Chore::PolicyExplain { command, level, goal, json } => {
            policy::explain(shop, command, policy::Wish { level, goal, json: *json }, out)
        }
        Chore::PolicyShow => policy::show(out),
        Chore::Apparmor => apparmor::show(out),
        Chore::Seatbelt => seatbelt::show(shop, out).await,
        Chore::PolicyGrants { json } => grants::list(shop, *json, out),
        Chore::PolicyRevoke { id } => grants::revoke(shop, id, out),
        Chore::Grant(wish) => grants::add(shop, wish, out),
        Chore::Trust { dir, wish } => trust::trust(shop, dir.as_deref(), (*wish, yes), out),
        Chore::Rescue(wish) => rescue::rescue(shop, wish, out),
        Chore::WalStat { json } => wal::stat(shop, *json, out),
        Chore::WalVerify => wal::verify(shop, out),
        Chore::WalRepair { apply, from } => wal::repair::repair(shop, *apply, from.as_deref(), out),
        Chore::WalExplain { lsn } => wal::explain(shop, *lsn, out),
        Chore::WalDump { from, limit, task } => wal::dump(shop, *from, *limit, task.as_deref(), out),
        Chore::WalArchive { to } => wal::archive::archive(shop, to.as_deref(), out).await,
        Chore::WalCompact => wal::compact::compact(shop, out).await,
        Chore::WalRestore { from, to } => wal::archive::restore(from, to, out).await,
        Chore::WalExport { task, blobs } => wal::export::export(shop, task.as_deref(), *blobs, out).await,
    })
}

#[cfg(test)]
pub(crate) mod bench {
    //! A shop in a temporary directory, and streams that can be read afterwards.

    use super::*;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    /// A whole installation in a temporary directory.
    pub struct Bench {
        pub dir: tempfile::TempDir,
        pub places: Places,
        pub env: Environment,
        pub sources: Sources,
        pub cwd: PathBuf,
    }

    impl Bench {
        pub fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().join("home");
            let cwd = dir.path().join("work");
            std::fs::create_dir_all(&cwd).unwrap();
            let env = Environment::of(&[("TINKERBELL_HOME", home.to_str().unwrap()), ("PATH", "/usr/bin:/bin")]);
            let places = Places::find(&env, rustix::process::getuid().as_raw()).unwrap();
            let sources = Sources { system: dir.path().join("etc"), user: places.config.clone(), set: Vec::new(), lenient: false };
            Self { dir, places, env, sources, cwd }
        }

        pub fn shop(&self) -> Shop<'_> {
            Shop { places: &self.places, env: &self.env, sources: &self.sources, cwd: Some(&self.cwd) }
        }

        /// Writes a file below the bench's directory.
        pub fn write(&self, path: impl AsRef<Path>, text: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        /// The text without the temporary directory's name.
        pub fn plain(&self, text: &str) -> String {
            text.replace(self.dir.path().to_str().unwrap(), "/t")
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Streams without a terminal.
    pub struct Heard {
        pub out: Output,
        data: Kept,
        talk: Kept,
    }

    impl Heard {
        pub fn new() -> Self {
            let (data, talk) = (Kept::default(), Kept::default());
            Self { out: Output::plain(Box::new(data.clone()), Box::new(talk.clone())), data, talk }
        }

        pub fn data(&self) -> String {
            String::from_utf8(self.data.0.lock().unwrap().clone()).unwrap()
        }

        pub fn talk(&self) -> String {
            String::from_utf8(self.talk.0.lock().unwrap().clone()).unwrap()
        }
    }
}
