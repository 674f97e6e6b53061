//! What the manifest says of packages fits the files that it names, and the scripts do what they say.
//!
//! No package is built here, and nothing of this host is touched: the scripts run on a directory of the test, with
//! programs that only write down how they were called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::listing::{SCRIPTS, golden};
use super::{SHELLS, run};
use crate::shell;

/// Where the kinds put the same file in different places, by their own customs.
const CUSTOMS: [(&str, &str); 3] = [
    ("/usr/share/zsh/vendor-completions/_tinkerbell", "/usr/share/zsh/site-functions/_tinkerbell"),
    ("/usr/share/doc/tinkerbell/LICENSE-MIT", "/usr/share/licenses/tinkerbell/LICENSE-MIT"),
    ("/usr/share/doc/tinkerbell/LICENSE-APACHE", "/usr/share/licenses/tinkerbell/LICENSE-APACHE"),
];
/// For another system than the packages' ones.
const NOT_PACKAGED: &str = "packaging/launchd/";

/// Where a file goes, and with which mode.
type Assets = BTreeMap<String, (String, String)>;

fn metadata() -> toml::Table {
    let text = fs::read_to_string(shell::root().join("crates/tinkerbell/Cargo.toml")).unwrap();
    text.parse::<toml::Table>().unwrap()["package"]["metadata"].as_table().unwrap().clone()
}

/// From the place of a file to its own name in the package.
fn asset(source: &str, dest: &str, mode: &str) -> (String, (String, String)) {
    let name = if dest.ends_with('/') { source.rsplit('/').next().unwrap() } else { "" };
    (source.trim_start_matches("../../").to_owned(), (format!("/{}{name}", dest.trim_start_matches('/')), mode.to_owned()))
}

fn deb() -> Assets {
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let row = |row: &toml::Value| asset(&text(&row[0]), &text(&row[1]), &text(&row[2]));
    metadata()["deb"]["assets"].as_array().unwrap().iter().map(row).collect()
}

fn rpm() -> Assets {
    let metadata = metadata();
    let rows = metadata["generate-rpm"]["assets"].as_array().unwrap();
    let text = |row: &toml::Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter()
        .filter(|row| row.get("dir").is_none())
        .map(|row| asset(&text(row, "source"), &text(row, "dest"), &text(row, "mode")))
        .collect()
}

fn files_below(dir: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(shell::root().join(dir)).unwrap().map(Result::unwrap) {
        let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { found.extend(files_below(&path)) } else { found.extend([path]) }
    }
    found
}

#[test]
fn every_packaging_file_is_in_both_packages_and_every_source_is_there() {
    let metadata = metadata();
    assert_eq!(metadata["deb"]["maintainer-scripts"].as_str(), Some("../../packaging/scripts"));
    assert_eq!(metadata["deb"]["triggers-file"].as_str(), Some("../../packaging/scripts/triggers"));
    let keys = ["post_install_script", "pre_uninstall_script", "post_uninstall_script"];
    for ((name, _), key) in SCRIPTS.iter().zip(keys) {
        assert_eq!(metadata["generate-rpm"][key].as_str(), Some(format!("packaging/scripts/{name}").as_str()), "{key}");
    }
    // dpkg's tool takes all that has such a name, rpm's knows no triggers.
    let scripts: BTreeSet<String> =
        SCRIPTS.iter().map(|(name, _)| *name).chain(["triggers"]).map(|name| format!("packaging/scripts/{name}")).collect();
    for (kind, assets) in [("deb", deb()), ("rpm", rpm())] {
        let named: BTreeSet<String> = assets.keys().filter(|source| source.starts_with("packaging/")).chain(&scripts).cloned().collect();
        let there: BTreeSet<String> = files_below("packaging").into_iter().filter(|path| !path.starts_with(NOT_PACKAGED)).collect();
        assert_eq!(named, there, "{kind}: left what the manifest names, right what lies below packaging/");
        for source in assets.keys().filter(|source| !source.starts_with("target/release/")) {
            assert!(shell::root().join(source).is_file(), "{kind}: {source}");
        }
        for shell in SHELLS {
            assert!(assets.contains_key(&format!("target/release/packaged/completion/{shell}")), "{kind}: {shell}");
        }
        assert!(golden(kind).is_file(), "{kind}");
    }
}

#[test]
fn both_packages_hold_the_same_in_the_same_places() {
    let (deb, rpm) = (deb(), rpm());
    assert_eq!(deb.keys().collect::<Vec<_>>(), rpm.keys().collect::<Vec<_>>());
    for (source, (place, mode)) in &deb {
        let custom = CUSTOMS.iter().find(|(of_deb, _)| of_deb == place).map_or(place.as_str(), |(_, of_rpm)| of_rpm);
        assert_eq!((custom, mode), (rpm[source].0.as_str(), &rpm[source].1), "{source}");
        let is_program = place.starts_with("/usr/bin/");
        assert_eq!(mode, if is_program { "755" } else { "644" }, "{source}");
    }
}

#[test]
fn units_profile_and_scripts_name_the_places_where_things_are_put() {
    for (kind, assets) in [("deb", deb()), ("rpm", rpm())] {
        let place = |source: &str| assets[source].0.as_str();
        let text = |source: &str| fs::read_to_string(shell::root().join(source)).unwrap();
        let binary = place("target/release/tinkerbell");
        for unit in ["packaging/systemd/user/tinkerbell.service", "packaging/systemd/system/tinkerbell.service"] {
            assert!(text(unit).contains(&format!("\nExecStart={binary} daemon start --foreground\n")), "{kind}: {unit}");
        }
        assert!(text("packaging/apparmor/tinkerbell").contains(&format!("profile tinkerbell \"{binary}\" ")), "{kind}");
        assert_eq!(place("packaging/systemd/system/tinkerbell.conf"), "/usr/lib/sysusers.d/tinkerbell.conf", "{kind}");
        for (source, folder) in
            [("user/tinkerbell.service", "user"), ("user/tinkerbell.socket", "user"), ("system/tinkerbell.service", "system")]
        {
            let name = source.rsplit('/').next().unwrap();
            assert_eq!(place(&format!("packaging/systemd/{source}")), format!("/usr/lib/systemd/{folder}/{name}"), "{kind}");
        }
        let profile = place("packaging/apparmor/tinkerbell");
        assert!(text("packaging/scripts/postinst").contains(&format!("\nprofile={profile}\n")), "{kind}");
        assert!(text("packaging/scripts/prerm").contains(&format!("\nprofile={profile}\n")), "{kind}");
        assert!(text("packaging/scripts/postrm").contains(&format!("\ndir={}\n", profile.strip_suffix("/tinkerbell").unwrap())), "{kind}");
        // The place of which `doctor` speaks.
        assert!(text("crates/tinkerbell/src/chores/apparmor.rs").contains(&format!("PLACE: &str = \"{profile}\";")), "{kind}");
    }
}

#[test]
fn words_are_read_or_refused_by_name() {
    for words in [&["msi"][..], &["--fast"], &["deb", "rmp"]] {
        assert!(run(words).unwrap_err().to_string().contains("`package` does not know"), "{words:?}");
    }
}

#[test]
fn a_shell_reads_the_scripts() {
    for (name, _) in SCRIPTS {
        let path = shell::root().join("packaging/scripts").join(name);
        let read = Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(read.success(), "{name}");
        match Command::new("shellcheck").args(["--shell", "sh"]).arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => eprintln!("{name} is not checked further: there is no shellcheck ({error})"),
        }
    }
}

/// A host on which a script runs.
struct Host {
    dir: tempfile::TempDir,
}

/// Marks in the test's directory, each of which makes the parser fail at one thing.
const OLD: &str = "old";
const FULL: &str = "full";

impl Host {
    /// `parser`: there is one; `enabled`: the kernel uses AppArmor.
    fn new(has_parser: bool, is_enabled: bool) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["bin", "apparmor.d/local", "cache/0a1b.0"] {
            fs::create_dir_all(host.at(dir)).unwrap();
        }
        for tool in ["ln", "mkdir", "readlink", "rm", "rmdir"] {
            let found = ["/bin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists()).unwrap();
            symlink(found, host.at("bin").join(tool)).unwrap();
        }
        if has_parser {
            let at = host.dir.path().display();
            host.program(
                "apparmor_parser",
                &format!(
                    "echo \"$*\" >>{at}/log\ncase \"$*\" in\n*--skip-kernel-load*) [ ! -e {at}/{OLD} ] ;;\n*) [ ! -e {at}/{FULL} ] ;;\nesac\n"
                ),
            );
            host.program("aa-enabled", if is_enabled { "exit 0\n" } else { "exit 1\n" });
        }
        fs::write(host.at("apparmor.d/tinkerbell"), "profile").unwrap();
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a script of the packages here; it must end well. Tells how the parser was called.
    fn run(&self, script: &str, words: &[&str]) -> Vec<String> {
        let text = fs::read_to_string(shell::root().join("packaging/scripts").join(script)).unwrap();
        let here = |name: &str| self.at(name).display().to_string();
        let text = text.replace("/etc/apparmor.d", &here("apparmor.d")).replace("/var/cache/apparmor", &here("cache"));
        let text = text.replace(" /usr/share", &format!(" {}", here("share")));
        let is_foreign = |word: &str| word.starts_with('/') && !word.starts_with("/dev/null") && !word.starts_with("/bin/sh");
        let words_of = text.split(|sign: char| sign.is_whitespace() || "=\"'".contains(sign));
        let own = here("");
        assert!(words_of.clone().all(|word| !is_foreign(word) || word.starts_with(&own)), "{script} would touch this host");
        fs::write(self.at("script"), text).unwrap();
        fs::write(self.at("log"), "").unwrap();
        let mut command = Command::new("/bin/sh");
        let output = command.arg(self.at("script")).args(words).env("PATH", self.at("bin")).output().unwrap();
        assert!(output.status.success(), "{script} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let profile = here("apparmor.d/tinkerbell");
        fs::read_to_string(self.at("log")).unwrap().lines().map(|line| line.replace(&profile, "P")).collect()
    }

    fn is_put_aside(&self) -> bool {
        fs::read_link(self.at("apparmor.d/disable/tinkerbell")).is_ok_and(|to| to == Path::new("../tinkerbell"))
    }
}

const READ: &str = "--skip-kernel-load --skip-cache P";
const LOAD: &str = "-r -T -W P";

#[test]
fn an_installation_loads_the_profile_where_it_can_and_never_fails() {
    let check = |words: &[&str], (has_parser, is_enabled): (bool, bool), broken: &[&str], called: &[&str]| {
        let host = Host::new(has_parser, is_enabled);
        broken.iter().for_each(|mark| fs::write(host.at(mark), "").unwrap());
        assert_eq!(host.run("postinst", words), called, "{words:?} {has_parser} {is_enabled} {broken:?}");
        assert_eq!(host.is_put_aside(), called == [READ] && broken == [OLD], "{words:?} {has_parser} {is_enabled} {broken:?}");
    };
    for words in [&["configure", "0.1.0-1"][..], &["configure", ""], &["triggered", "/etc/apparmor.d/abi"], &["1"], &["2"]] {
        check(words, (true, true), &[], &[READ, LOAD]);
        check(words, (true, true), &[FULL], &[READ, LOAD]);
        check(words, (true, false), &[], &[READ]);
        check(words, (true, true), &[OLD], &[READ]);
        check(words, (false, false), &[], &[]);
    }
    for words in [&["abort-upgrade", "1"][..], &[], &["0"]] {
        check(words, (true, true), &[], &[]);
    }
}

#[test]
fn what_an_old_parser_could_not_read_is_taken_up_by_a_newer_one_but_not_against_the_administrator() {
    let host = Host::new(true, true);
    fs::write(host.at(OLD), "").unwrap();
    host.run("postinst", &["configure"]);
    host.run("postinst", &["configure"]);
    assert!(host.is_put_aside());
    fs::remove_file(host.at(OLD)).unwrap();
    assert_eq!(host.run("postinst", &["triggered"]), [READ, LOAD]);
    assert!(!host.at("apparmor.d/disable/tinkerbell").is_symlink());
    // As `aa-disable` writes it.
    symlink(host.at("apparmor.d/tinkerbell"), host.at("apparmor.d/disable/tinkerbell")).unwrap();
    assert!(host.run("postinst", &["configure"]).is_empty());
    assert!(host.at("apparmor.d/disable/tinkerbell").is_symlink());
}

#[test]
fn only_a_removal_unloads_the_profile() {
    for (words, called) in [(&["remove"][..], &["-R P"][..]), (&["0"], &["-R P"]), (&["upgrade", "0.2.0"], &[]), (&["1"], &[]), (&[], &[])]
    {
        let host = Host::new(true, true);
        assert_eq!(host.run("prerm", words), called, "{words:?}");
        fs::write(host.at(FULL), "").unwrap();
        assert_eq!(host.run("prerm", words), called, "{words:?}, the profile was not loaded");
    }
    assert!(Host::new(true, false).run("prerm", &["remove"]).is_empty());
    assert!(Host::new(false, false).run("prerm", &["remove"]).is_empty());
}

#[test]
fn after_a_purge_nothing_of_the_profile_is_left_and_what_is_apparmors_stays() {
    let left = |words: &[&str], has_profile: bool, has_apparmor: bool| {
        let host = Host::new(true, true);
        fs::write(host.at(OLD), "").unwrap();
        host.run("postinst", &["configure"]);
        for name in ["apparmor.d/local/tinkerbell", "cache/0a1b.0/tinkerbell", "cache/0a1b.0/other"] {
            fs::write(host.at(name), "").unwrap();
        }
        if has_apparmor {
            fs::create_dir(host.at("apparmor.d/abi")).unwrap();
        }
        if !has_profile {
            // The package system takes the file itself.
            fs::remove_file(host.at("apparmor.d/tinkerbell")).unwrap();
        }
        host.run("postrm", words);
        let names = ["tinkerbell", "disable/tinkerbell", "local/tinkerbell", "local", "disable", "."];
        let is_there = |name: &&str| fs::symlink_metadata(host.at("apparmor.d").join(name)).is_ok();
        let cached = host.at("cache/0a1b.0/tinkerbell").exists();
        assert!(host.at("cache/0a1b.0/other").exists());
        (names.into_iter().filter(is_there).collect::<Vec<_>>(), cached)
    };
    assert_eq!(left(&["purge"], false, false), (vec![], false));
    assert_eq!(left(&["purge"], false, true), (vec!["local", "disable", "."], false));
    // What an administrator wrote stays where nobody says `purge`.
    assert_eq!(left(&["0"], false, false), (vec!["local/tinkerbell", "local", "."], false));
    let all = vec!["tinkerbell", "disable/tinkerbell", "local/tinkerbell", "local", "disable", "."];
    for words in [&["remove"][..], &["upgrade", "0.2.0"], &["1"]] {
        assert_eq!(left(words, true, false), (all.clone(), true), "{words:?}");
    }
}
