//! The demo's own daemon: started, killed with SIGKILL, started again.
//!
//! Invariant: `kill` is the real signal to the real process; nothing is told to it before.

use super::stage::Stage;
use crate::daemon::READY;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_core::code::{Fault, exit};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon of the demo.
pub struct Daemon {
    child: Child,
    pid: u32,
    socket: PathBuf,
}

fn failed(why: &str) -> Fault {
    Fault::new("TB-DAEMON-002", exit::UNAVAILABLE, format!("the daemon could not be started: {why}"))
        .hint("tinkerbell daemon start --foreground   shows what it says")
}

impl Daemon {
    /// Starts one on the stage and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(stage: &Stage) -> Result<Self, Fault> {
        let mut child = Command::new(&stage.exe)
            .args(["daemon", "start", "--foreground"])
            .env("TINKERBELL_HOME", &stage.home)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let out = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) || line.trim() != READY {
            return Err(failed(&complaint(child).await));
        }
        let pid = child.id().ok_or_else(|| failed("it ended at once"))?;
        Ok(Self { child, pid, socket: stage.home.join("run/tinkerbelld.sock") })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// A client of it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn client(&self) -> Result<Client, Fault> {
        Client::connect(&self.socket).await
    }

    /// SIGKILL, and waits until the kernel has taken it away.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub async fn kill(mut self) -> Result<(), Fault> {
        self.child.kill().await.map_err(|error| failed(&format!("it could not be killed: {error}")))
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stop(mut self) -> Result<(), Fault> {
        self.client().await?.stop().await?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("it did not stop")),
        }
    }
}

/// What a daemon that did not come up printed.
async fn complaint(child: Child) -> String {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    match output {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        _ => "it did not answer in time".to_owned(),
    }
}
