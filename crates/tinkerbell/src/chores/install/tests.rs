//! The texts are those in `packaging/`, systemd understands them, and nothing is written for nobody.

use super::*;
use crate::chores::bench::Bench;

const EXE: &str = "/usr/bin/tinkerbell";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// `TINKERBELL_PACKAGING=write` writes the files anew.
#[test]
fn the_shipped_files_are_what_the_binary_would_write() {
    let socket = Path::new("%t/tinkerbell/tinkerbelld.sock");
    let paths = Paths { exe: Path::new(EXE), socket, home: None };
    // In a shipped file the runtime directory is the reader's own.
    let user = units::user(paths).into_iter().map(|unit| (format!("systemd/user/{}", unit.name), unit.text.replace("%%t", "%t")));
    let system = units::system(Path::new(EXE)).into_iter().map(|unit| (format!("systemd/system/{}", unit.name), unit.text));
    let launchd = units::launchd(paths).into_iter().map(|unit| (format!("launchd/{}", unit.name), unit.text));
    for (name, text) in user.chain(system).chain(launchd) {
        let path = shipped(&name);
        if crate::environment::Environment::of_process().get("TINKERBELL_PACKAGING") == Some("write") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{name}: run again with TINKERBELL_PACKAGING=write");
    }
}

/// Asks systemd itself, where it is installed.
#[test]
fn systemd_understands_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("a dir/tinkerbell");
    std::fs::create_dir_all(exe.parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", &exe).unwrap();
    let paths = Paths { exe: &exe, socket: Path::new("/run/x/100%/s"), home: Some(Path::new("/home/a b/tb")) };
    for (kind, units) in [("--user", units::user(paths)), ("--system", units::system(&exe))] {
        let place = dir.path().join(kind);
        std::fs::create_dir_all(&place).unwrap();
        let mut names = Vec::new();
        for unit in units.into_iter().filter(|unit| !unit.name.ends_with(".conf")) {
            let path = place.join(unit.name);
            std::fs::write(&path, unit.text).unwrap();
            names.push(path);
        }
        let mut command = Command::new("systemd-analyze");
        command.args([kind, "--man=no", "--generators=no", "--recursive-errors=no", "verify"]).args(&names);
        let Ok(done) = command.env("XDG_RUNTIME_DIR", dir.path()).output() else { return };
        let said = String::from_utf8_lossy(&done.stderr);
        // Which a systemd before 254 does not know, says so, and goes on without.
        let is_newer = |line: &str| line.contains("Unknown key") && line.contains("DelegateSubgroup");
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("tinkerbell.") && !is_newer(line)).collect();
        let is_only_older = !said.is_empty() && said.lines().all(is_newer);
        assert!((done.status.success() || is_only_older) && ours.is_empty(), "{kind}: {said}");
    }
}

#[test]
fn a_unit_names_its_paths_and_lets_keepers_live() {
    let paths = Paths { exe: Path::new("/opt/50% off/tinkerbell"), socket: Path::new("/run/s"), home: Some(Path::new("/t")) };
    let units = units::user(paths);
    let service = &units[0].text;
    assert!(service.contains("ExecStart=\"/opt/50%% off/tinkerbell\" daemon start --foreground\n"), "{service}");
    for line in ["KillMode=process", "Delegate=yes", "Environment=TINKERBELL_HOME=/t", "WatchdogSec=60", "Type=notify"] {
        assert!(service.contains(&format!("{line}\n")), "{line}");
    }
    let plist = &units::launchd(Paths { exe: Path::new("/Applications/A & B/tb"), ..paths })[0].text;
    assert!(plist.contains("<string>/Applications/A &amp; B/tb</string>"), "{plist}");
    assert_eq!(plist.matches("<key>").count(), plist.matches("</key>").count());
    for tag in ["dict", "array", "plist"] {
        assert_eq!(plist.matches(&format!("<{tag}")).count(), plist.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

/// In a test's surroundings no service manager runs for the user: nothing may be written.
#[tokio::test]
async fn without_a_service_manager_it_says_what_to_type() {
    let bench = Bench::new();
    let shop = bench.shop();
    let wish = Wish { exe: Path::new(EXE), system: false, dry_run: false };
    let plan = plan(&Shop { env: &with_home(&bench), ..shop }, wish, "linux").unwrap();
    assert!(plan.obstacle.is_some());
    let fault = by_hand(&plan, plan.obstacle.as_deref().unwrap());
    assert_eq!((fault.code.0, fault.exit), ("TB-DAEMON-015", exit::UNAVAILABLE));
    assert!(fault.hints.iter().any(|hint| hint == "systemctl --user enable --now tinkerbell.socket"), "{:?}", fault.hints);
    assert!(plan.files.iter().all(|(path, _)| path.starts_with(bench.dir.path()) && !path.exists()));
}

fn with_home(bench: &Bench) -> crate::environment::Environment {
    crate::environment::Environment::of(&[("XDG_CONFIG_HOME", bench.dir.path().join("config").to_str().unwrap()), ("USER", "u")])
}

#[test]
fn on_macos_the_agent_goes_to_the_users_library() {
    let mut bench = Bench::new();
    bench.places.home = Some("/Users/u".into());
    let wish = Wish { exe: Path::new(EXE), system: false, dry_run: true };
    let plan = plan(&bench.shop(), wish, "macos").unwrap();
    assert_eq!(plan.files[0].0, Path::new("/Users/u/Library/LaunchAgents/dev.tinkerbell.daemon.plist"));
    assert_eq!(plan.enable[0][..2], ["launchctl", "bootstrap"]);
    assert!(super::plan(&bench.shop(), Wish { system: true, ..wish }, "macos").is_err());
}
