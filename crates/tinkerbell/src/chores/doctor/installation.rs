//! The installation itself: daemon, directories, journal, configuration.
//!
//! Reads only. Invariant: it needs no daemon, no writable directory and no valid configuration.

use super::super::Shop;
use super::super::config::meanings;
use super::super::repository;
use super::super::text::{size, span};
use super::report::{Finding, Group, broken};
use crate::clock::SystemClock;
use crate::config::{self, Loaded};
use crate::halt;
use crate::project;
use crate::service;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::wire::DaemonView;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::HALT_MARK;
use tinkerbell_router::courier::{CourierState, courier_state};
use tinkerbell_security::trust::Standing;
use tinkerbell_wal::inspect;

/// Longest wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(3);
/// Below this a task can not keep its outputs.
const LITTLE_SPACE: u64 = 64 << 20;
/// Below this a person should look.
const SOME_SPACE: u64 = 1 << 30;
/// What to do about a notice of the daemon.
const NOTICED: &str = "tinkerbell daemon logs   has when it began; tinkerbell config validate   checks the files";
/// Most files that are counted for a size.
const MOST_FILES: usize = 200_000;

/// Open tasks that are looked through for those that ask nobody.
const OPEN: u32 = 100;

/// The daemon and its socket.
pub async fn daemon(shop: &Shop<'_>) -> Group {
    let socket = shop.places.socket();
    let holder = service::holder(&shop.places.data);
    let asked = tokio::time::timeout(PATIENCE, async {
        let client = Client::connect(&socket).await?;
        let view = client.daemon().await?;
        // Without the list the rest is told all the same.
        let open = client.tasks(true, OPEN, None).await.map(|list| list.tasks).unwrap_or_default();
        Ok::<_, Fault>((view, open))
    })
    .await;
    let (asked, open) = match asked {
        Ok(Ok((view, open))) => (Ok(Ok(view)), open),
        Ok(Err(fault)) => (Ok(Err(fault)), Vec::new()),
        Err(late) => (Err(late), Vec::new()),
    };
    let notices: Vec<String> = asked.iter().flatten().flat_map(|view| view.notices.clone()).collect();
    let mut findings = vec![match (asked, holder) {
        (Ok(Ok(view)), _) => running(shop, &view),
        (Ok(Err(fault)), None) if fault.code.0 == "TB-API-001" => {
            Finding::good("daemon", "not running; the first command that needs it starts it")
        }
        (Ok(Err(fault)), Some(pid)) if fault.code.0 == "TB-API-001" => {
            Finding::bad("daemon", format!("process {pid} holds the data directory and does not answer on its socket"), restart(pid))
        }
        (Ok(Err(fault)), _) => broken("daemon", &fault),
        (Err(_), pid) => {
            let pid = pid.map_or_else(|| "it".to_owned(), |pid| format!("process {pid}"));
            Finding::bad(
                "daemon",
                format!("{pid} gave no answer within {} s", PATIENCE.as_secs()),
                "tinkerbell daemon logs, then kill it: its tasks go on at the next start",
            )
        }
    }];
    // Told below, because it holds without a daemon, too.
    findings.extend(notices.into_iter().filter(|notice| !notice.starts_with(HALT_MARK)).map(|notice| {
        let (what, text) = notice.split_once(": ").unwrap_or(("notice", &notice));
        Finding::look(what, text.to_owned(), NOTICED)
    }));
    for (task, yolo) in open.iter().filter_map(|task| Some((task, task.yolo.as_ref()?))) {
        let text = format!("task {} asks nobody until {} ({}; {})", task.short, yolo.until, yolo.reason, yolo.source);
        findings.push(Finding::look("yolo", tinkerbell_cli::visible(&text), format!("tinkerbell stop {}   ends it", task.short)));
    }
    if let Some(mark) = halt::read(&shop.places.data) {
        findings.push(Finding::look(HALT_MARK, halt::line(&mark), "tinkerbell halt --lift   lets tasks go on"));
    }
    findings.push(Finding::good("socket", socket.display().to_string()));
    findings.push(courier(shop));
    Group { name: "Daemon", findings }
}

/// The process that speaks to providers and keeps answers while no daemon lives.
fn courier(shop: &Shop<'_>) -> Finding {
    match courier_state(&shop.places.data) {
        CourierState::Lives(pid) => Finding::good("courier", format!("process {pid} speaks to providers")),
        CourierState::Rests => Finding::good("courier", "not running; the first call to a provider starts it"),
        CourierState::Refused(why) => Finding::look(
            "courier",
            format!("{why}; the daemon speaks to providers itself, and an answer that is being given dies with it"),
            format!("look into {}; the next call tries again", shop.places.state.join("courier.log").display()),
        ),
    }
}

fn restart(pid: u32) -> String {
    format!("kill {pid} && tinkerbell daemon start (tasks go on by themselves)")
}

fn running(shop: &Shop<'_>, view: &DaemonView) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let text = format!("process {}, version {}, up {}, {} open tasks", view.pid, view.version, span(view.uptime_ms), view.open_tasks);
    if view.version != own {
        return Finding::look(
            "daemon",
            format!("{text}; this command is version {own}"),
            "tinkerbell daemon stop && tinkerbell daemon start",
        );
    }
    if Path::new(&view.data_dir) != shop.places.data {
        let text = format!("{text}; it works on {}, not on {}", view.data_dir, shop.places.data.display());
        return Finding::look("daemon", text, "set XDG_DATA_HOME and XDG_RUNTIME_DIR together, or use TINKERBELL_HOME");
    }
    Finding::good("daemon", text)
}

/// Directories: whose, writable, space; and what fills them.
pub fn places(shop: &Shop<'_>) -> Group {
    let places = shop.places;
    let uid = rustix::process::getuid().as_raw();
    let mut findings: Vec<Finding> = [("data", &places.data), ("state", &places.state), ("cache", &places.cache), ("runtime", &places.run)]
        .into_iter()
        .map(|(name, dir)| directory(name, dir, uid))
        .collect();
    findings.push(space(&places.data));
    let sizes = [
        ("worktrees", "work"),
        ("checkpoints", "checkpoints"),
        ("spools", "runs"),
        ("answers", "calls"),
        ("blobs", "blobs"),
        ("homes", "homes"),
    ];
    let mut left = MOST_FILES;
    let sizes: Vec<String> =
        sizes.into_iter().map(|(name, dir)| format!("{name} {}", size(bytes_below(&places.data.join(dir), &mut left)))).collect();
    let at_least = if left == 0 { "at least " } else { "" };
    findings.push(Finding::good("sizes", format!("{at_least}{}", sizes.join(", "))));
    Group { name: "Directories", findings }
}

/// The nearest directory at or above a path that exists.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("/")).to_owned()
}

fn directory(name: &str, dir: &Path, uid: u32) -> Finding {
    let shown = dir.display();
    let elsewhere = "make it writable and yours, or choose another place: export TINKERBELL_HOME=/path";
    let can_write = |dir: &Path| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    let Ok(meta) = std::fs::symlink_metadata(dir) else {
        let above = nearest(dir);
        return if can_write(&above) {
            Finding::good(name, format!("{shown} (made when needed)"))
        } else {
            Finding::bad(name, format!("{shown} can not be made: {} is not writable", above.display()), elsewhere)
        };
    };
    if !meta.is_dir() {
        return Finding::bad(name, format!("{shown} is not a directory"), format!("move it away: mv {shown} {shown}.old"));
    }
    if meta.uid() != uid {
        return Finding::bad(
            name,
            format!("{shown} belongs to user {}, not to you ({uid})", meta.uid()),
            format!("sudo chown -R {uid} {shown}"),
        );
    }
    if !can_write(dir) {
        return Finding::bad(name, format!("{shown} is not writable"), elsewhere);
    }
    if meta.mode() & 0o077 != 0 {
        return Finding::look(
            name,
            format!("{shown} is open to other users (mode {:03o})", meta.mode() & 0o777),
            format!("chmod 700 {shown}"),
        );
    }
    Finding::good(name, shown.to_string())
}

fn space(data: &Path) -> Finding {
    let at = nearest(data);
    let Ok(stat) = rustix::fs::statvfs(&at) else {
        return Finding::look("disk", format!("the free space at {} is unknown", at.display()), format!("df -h {}", at.display()));
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} free at {}", size(free), at.display());
    let fix =
        format!("free space (df -h {}), remove finished tasks (tinkerbell rm), or move it: export TINKERBELL_HOME=/path", at.display());
    match free {
        _ if free < LITTLE_SPACE => Finding::bad("disk", text, fix),
        _ if free < SOME_SPACE => Finding::look("disk", text, fix),
        _ => Finding::good("disk", text),
    }
}

/// Bytes of all files below, links not followed, until `left` files were counted.
fn bytes_below(dir: &Path, left: &mut usize) -> u64 {
    let (mut open, mut sum) = (vec![dir.to_owned()], 0_u64);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if *left == 0 {
                return sum;
            }
            *left -= 1;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                // What it takes on disk: sparse and small files differ from their length.
                Ok(meta) => sum = sum.saturating_add(meta.blocks().saturating_mul(512)),
                Err(_) => {}
            }
        }
    }
    sum
}

/// The journal, read beside whoever writes it.
pub fn journal(shop: &Shop<'_>) -> Group {
    let dir = shop.places.journal();
    let finding = if !dir.exists() {
        Finding::good("journal", "none yet; the first task makes it")
    } else {
        match inspect::stat(&dir) {
            Err(error) => broken("journal", &Fault::from(error)),
            Ok(stat) => {
                let text =
                    format!("{} records, {} in {} segments, up to {}", stat.records, size(stat.size_bytes), stat.segments.len(), stat.tip);
                match stat.damage {
                    Some(damage) => Finding::bad(
                        "journal",
                        format!("{text}; {damage}"),
                        "tinkerbell wal repair (says what mends it; stop the daemon and copy the directory first)",
                    ),
                    None => Finding::good("journal", text),
                }
            }
        }
    };
    Group { name: "Journal", findings: vec![finding] }
}

/// Configuration files, and what they say that nobody can follow.
pub fn configuration(shop: &Shop<'_>, loaded: &Result<Loaded, Fault>) -> Group {
    let mut findings = Vec::new();
    match loaded {
        Err(fault) => findings.push(broken("layers", fault)),
        Ok(loaded) => {
            let files: Vec<String> = loaded.files.iter().map(|path| path.display().to_string()).collect();
            let text = if files.is_empty() {
                format!("built-in values only; yours would be {}", shop.places.config.display())
            } else {
                files.join(", ")
            };
            let origins = loaded.origins.iter().map(|(key, origin)| format!("{key} from {}", origin.place)).collect();
            findings.push(Finding::good("layers", text).with_more(origins));
            findings.extend(loaded.warnings.iter().map(|text| Finding::look("layers", text, "tinkerbell config validate")));
            findings.extend(meanings(shop, &loaded.config).iter().map(|fault| broken("values", fault)));
            findings.extend(unasked(shop, loaded));
        }
    }
    findings.push(match crate::policy::places(shop.sources).read() {
        Ok(sets) => {
            let files: Vec<String> = sets.iter().map(|set| format!("{} rules {}", set.rules.len(), set.name)).collect();
            Finding::good("policy", files.join(", "))
        }
        Err(fault) => broken("policy", &fault),
    });
    if let Some(cwd) = shop.cwd {
        let root = repository::root(cwd).unwrap_or_else(|| cwd.to_owned());
        findings.push(project_files(shop, &root).unwrap_or_else(|fault| broken("project", &fault)));
    }
    Group { name: "Configuration", findings }
}

/// That the configuration wants nobody asked, while it does.
fn unasked(shop: &Shop<'_>, loaded: &Loaded) -> Option<Finding> {
    let (place, now_ms) = (shop.places.config.display().to_string(), SystemClock.now().wall_ms);
    let waiver = match config::waiver(&loaded.config.approvals, &place, 0, now_ms) {
        Ok(waiver) => waiver?,
        Err(fault) => return Some(broken("approvals", &fault)),
    };
    let until = tinkerbell_api::wire::timestamp(waiver.until_ms);
    let text = format!("YOLO: nobody is asked for approvals until {until} ({})", waiver.reason);
    Some(Finding::look("approvals", text, "take `[approvals] mode = \"never\"` out of the configuration"))
}

/// What the repository brings, and whether it counts.
fn project_files(shop: &Shop<'_>, root: &Path) -> Result<Finding, Fault> {
    let project::Brought { file, bundle } = project::read(root)?;
    if file.part.is_none() && bundle.parts().is_empty() {
        return Ok(Finding::good("project", "no file here; `tinkerbell init` writes one"));
    }
    let check = file.config.verify.command.map_or_else(|| "no check".to_owned(), |command| format!("check: {command}"));
    let text = format!("{}, {check}", root.join(config::PROJECT_FILE).display());
    Ok(match project::store(shop.places).standing(root, &bundle)? {
        Standing::Empty | Standing::Trusted => Finding::good("project", text),
        Standing::New => Finding::look("project", format!("{text}; not trusted, so it does not count"), "tinkerbell trust"),
        Standing::Changed(_) => {
            Finding::look("project", format!("{text}; changed since it was trusted, so it does not count"), "tinkerbell trust")
        }
    })
}
