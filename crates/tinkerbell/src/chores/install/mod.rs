//! `daemon install | uninstall`: lets the service manager start the daemon.
//!
//! Writes a unit or two, enables them, and says each thing it did. Invariant: without a service
//! manager that runs nothing is written, and what is written is exactly what `--dry-run` shows.

mod units;

use super::Shop;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::client::probe;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};
use units::{Paths, Unit};

/// Longest wait for a daemon that was started otherwise to make room.
const LEAVE: Duration = Duration::from_secs(15);

/// What is wished for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Our own binary, which the service manager shall start.
    pub exe: &'a Path,
    /// For the whole machine.
    pub system: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What installing means here.
struct Plan {
    files: Vec<(PathBuf, String)>,
    /// Commands after writing.
    enable: Vec<Vec<String>>,
    /// Commands before removing.
    disable: Vec<Vec<String>>,
    /// Commands after removing.
    after: Vec<Vec<String>>,
    /// What the user may want to do, too.
    hints: Vec<String>,
    /// Why it can not be done here; the plan can still be shown.
    obstacle: Option<String>,
}

/// Writes and enables the units.
///
/// # Errors
/// `TB-DAEMON-015` where no service manager runs, `TB-DAEMON-016` when a step failed.
pub async fn install(shop: &Shop<'_>, wish: Wish<'_>, out: &Output) -> Result<u8, Fault> {
    let plan = plan(shop, wish, std::env::consts::OS)?;
    if wish.dry_run {
        show(&plan, out);
        return Ok(exit::DONE);
    }
    if let Some(why) = &plan.obstacle {
        return Err(by_hand(&plan, why));
    }
    for (path, text) in &plan.files {
        write(path, text)?;
        out.talk(&format!("wrote {}", path.display()));
    }
    if !wish.system {
        make_room(shop, out).await?;
    }
    run_all(&plan.enable, out)?;
    plan.hints.iter().for_each(|hint| out.talk(hint));
    Ok(exit::DONE)
}

/// Disables and removes the units; data stays.
///
/// # Errors
/// As for [`install`].
pub fn uninstall(shop: &Shop<'_>, wish: Wish<'_>, out: &Output) -> Result<u8, Fault> {
    let plan = plan(shop, wish, std::env::consts::OS)?;
    let there: Vec<&PathBuf> = plan.files.iter().map(|(path, _)| path).filter(|path| path.exists()).collect();
    if wish.dry_run {
        plan.disable.iter().for_each(|command| out.data(&command.join(" ")));
        there.iter().for_each(|path| out.data(&format!("rm {}", path.display())));
        plan.after.iter().for_each(|command| out.data(&command.join(" ")));
        return Ok(exit::DONE);
    }
    if there.is_empty() {
        out.talk("nothing is installed");
        return Ok(exit::DONE);
    }
    if plan.obstacle.is_none() {
        run_all(&plan.disable, out)?;
    }
    for path in there {
        std::fs::remove_file(path).map_err(|error| failed(&format!("{} can not be removed: {error}", path.display())))?;
        out.talk(&format!("removed {}", path.display()));
    }
    if plan.obstacle.is_none() {
        run_all(&plan.after, out)?;
    }
    out.talk(&format!("data stays in {}", shop.places.data.display()));
    Ok(exit::DONE)
}

fn plan(shop: &Shop<'_>, wish: Wish<'_>, os: &str) -> Result<Plan, Fault> {
    let home = shop.env.path("TINKERBELL_HOME");
    let socket = shop.places.socket();
    let paths = Paths { exe: wish.exe, socket: &socket, home: home.as_deref() };
    match (os, wish.system) {
        ("macos", false) => agent(shop, paths),
        ("macos", true) => Err(failed("on macOS the daemon is installed for one user").hint("tinkerbell daemon install")),
        (_, false) => user(shop, paths),
        (_, true) => Ok(machine(wish.exe)),
    }
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

fn user(shop: &Shop<'_>, paths: Paths<'_>) -> Result<Plan, Fault> {
    let config = shop.env.path("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
    let config = config.or_else(|| Some(shop.places.home.as_ref()?.join(".config")));
    let dir = config.ok_or_else(|| failed("HOME is not set, so there is no place for the unit"))?.join("systemd/user");
    let manager = shop.env.path("XDG_RUNTIME_DIR").is_some_and(|dir| dir.join("systemd").is_dir());
    let obstacle = (!is_booted() || !manager).then(|| "no systemd runs for this user here".to_owned());
    let name = shop.env.get("USER").or_else(|| shop.env.get("LOGNAME")).unwrap_or("$USER");
    let lingers = Path::new("/var/lib/systemd/linger").join(name).exists();
    let linger = format!("to keep it after you log out, and to start it at boot:  loginctl enable-linger {name}");
    Ok(Plan {
        files: placed(&dir, units::user(paths)),
        enable: vec![
            words("systemctl --user daemon-reload"),
            words("systemctl --user enable --now tinkerbell.socket"),
            words("systemctl --user enable --now tinkerbell.service"),
        ],
        disable: vec![words("systemctl --user disable --now tinkerbell.socket tinkerbell.service")],
        after: vec![words("systemctl --user daemon-reload")],
        hints: if lingers { Vec::new() } else { vec![linger] },
        obstacle,
    })
}

fn machine(exe: &Path) -> Plan {
    let mut files = units::system(exe).into_iter().map(|unit| {
        let dir = if unit.name.ends_with(".conf") { "/etc/sysusers.d" } else { "/etc/systemd/system" };
        (Path::new(dir).join(unit.name), unit.text)
    });
    let obstacle = if !is_booted() {
        Some("systemd does not run here".to_owned())
    } else if !rustix::process::geteuid().is_root() {
        Some("only root may install for the whole machine".to_owned())
    } else {
        None
    };
    Plan {
        files: files.by_ref().collect(),
        enable: vec![words("systemd-sysusers"), words("systemctl daemon-reload"), words("systemctl enable --now tinkerbell.service")],
        disable: vec![words("systemctl disable --now tinkerbell.service")],
        after: vec![words("systemctl daemon-reload")],
        hints: vec![
            "repositories that it may work on are named in ReadWritePaths=:  systemctl edit tinkerbell".to_owned(),
            "it serves its own user only:  sudo -u tinkerbell XDG_RUNTIME_DIR=/run XDG_CONFIG_HOME=/etc XDG_DATA_HOME=/var/lib tinkerbell ps"
                .to_owned(),
        ],
        obstacle,
    }
}

fn agent(shop: &Shop<'_>, paths: Paths<'_>) -> Result<Plan, Fault> {
    let home = shop.places.home.as_ref().ok_or_else(|| failed("HOME is not set, so there is no place for the agent"))?;
    let files = placed(&home.join("Library/LaunchAgents"), units::launchd(paths));
    let file = files.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    Ok(Plan {
        enable: vec![["launchctl", "bootstrap", &domain, &file].map(str::to_owned).to_vec()],
        disable: vec![["launchctl", "bootout", &domain, &file].map(str::to_owned).to_vec()],
        after: Vec::new(),
        hints: Vec::new(),
        obstacle: None,
        files,
    })
}

fn placed(dir: &Path, units: Vec<Unit>) -> Vec<(PathBuf, String)> {
    units.into_iter().map(|unit| (dir.join(unit.name), unit.text)).collect()
}

fn is_booted() -> bool {
    sd_notify::booted().unwrap_or(false)
}

fn show(plan: &Plan, out: &Output) {
    for (path, text) in &plan.files {
        out.data(&format!("# {}", path.display()));
        out.data(text);
    }
    plan.enable.iter().for_each(|command| out.data(&command.join(" ")));
    if let Some(why) = &plan.obstacle {
        out.talk(&format!("it can not be done from here: {why}"));
    }
}

/// Makes room for the service manager's daemon: another one holds the data directory.
async fn make_room(shop: &Shop<'_>, out: &Output) -> Result<(), Fault> {
    let socket = shop.places.socket();
    let Ok(client) = Client::connect(&socket).await else { return Ok(()) };
    client.stop().await?;
    let gone = async {
        while probe(&socket).await.is_ok() || crate::service::holder(&shop.places.data).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LEAVE, gone).await.is_err() {
        return Err(failed("the daemon that runs does not leave").hint("tinkerbell daemon stop, then install again"));
    }
    out.talk("stopped the daemon that ran; its tasks go on under the new one");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    // Beside and renamed, so that the service manager never reads half of it.
    let beside = path.with_extension("tinkerbell-new");
    let written = made.and_then(|()| std::fs::write(&beside, text)).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| failed(&format!("{} can not be written: {error}", path.display())))
}

fn run_all(commands: &[Vec<String>], out: &Output) -> Result<(), Fault> {
    for command in commands {
        let shown = command.join(" ");
        let Some((program, args)) = command.split_first() else { continue };
        let done = Command::new(program).args(args).output().map_err(|error| failed(&format!("`{shown}` can not be run: {error}")))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(failed(&format!("`{shown}` failed: {said}")).hint(shown));
        }
        out.talk(&format!("ran {shown}"));
    }
    Ok(())
}

fn failed(why: &str) -> Fault {
    Fault::new("TB-DAEMON-016", exit::FAILED, format!("the daemon was not installed as a service: {why}"))
}

/// What to type where the service manager runs.
fn by_hand(plan: &Plan, why: &str) -> Fault {
    let start = "tinkerbell daemon install --dry-run   prints the files, to be put there by hand";
    let fault = Fault::new("TB-DAEMON-015", exit::UNAVAILABLE, format!("{why}, so nothing was written")).hint(start);
    let fault = plan.enable.iter().fold(fault, |fault, command| fault.hint(command.join(" ")));
    fault.hint("without a service manager, the first command that needs the daemon starts it")
}

#[cfg(test)]
mod tests;
