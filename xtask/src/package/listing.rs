//! What a package holds, as its own system's tools tell it, against a golden list.
//!
//! Sizes and times differ from build to build and are left out; of the manual pages, one for each command, the first
//! stands for all. Invariant: a script that a package would run as root is byte for byte the one in the tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::shell;

/// Scripts by the name in the tree and the tag that rpm knows them by.
pub const SCRIPTS: [(&str, &str); 3] = [("postinst", "POSTIN"), ("prerm", "PREUN"), ("postrm", "POSTUN")];
/// How rpm shall tell of files: as dpkg-deb does, with the flags of each before its name.
const RPM_FILES: &str = "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILEFLAGS:fflags}|%{FILENAMES}\n]";
/// Which path of the pages for single commands stands for all of them.
const PAGE: &str = "/usr/share/man/man1/tinkerbell-";

/// Compares a package with its list and the scripts in the tree; tells what was compared, or what differs.
///
/// # Errors
/// The package or the list can not be read.
pub fn compared(kind: &str, file: &Path, pages: usize) -> Result<Result<String, String>> {
    let (program, package) = if kind == "deb" { ("dpkg-deb", "dpkg") } else { ("rpm", "rpm") };
    if Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status().is_err() {
        return Ok(Ok(format!("not compared: there is no {program} (package {package})")));
    }
    for (name, tag) in SCRIPTS {
        let held = if kind == "deb" {
            said("dpkg-deb", &["--info"], file, &[name])?
        } else {
            said("rpm", &["--query", "--package", "--queryformat", &format!("%{{{tag}}}")], file, &[])?
        };
        let own = fs::read_to_string(shell::root().join("packaging/scripts").join(name))?;
        if held.trim_end() != own.trim_end() {
            return Ok(Err(format!("its {name} is not packaging/scripts/{name}")));
        }
    }
    let lines = if kind == "deb" { deb(file)? } else { rpm(file)? };
    let held = lines.iter().filter(|line| is_page(line)).count();
    // The first of all, `tinkerbell.1`, belongs to no single command.
    if held.saturating_add(1) != pages {
        return Ok(Err(format!("it holds {held} manual pages of commands; the binary printed {pages} pages")));
    }
    let list = folded(lines);
    let golden = golden(kind);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&golden, list.join("\n") + "\n")?;
    }
    let known = fs::read_to_string(&golden).unwrap_or_default();
    let (is, shall): (BTreeSet<&str>, BTreeSet<&str>) = (list.iter().map(String::as_str).collect(), known.lines().collect());
    if is == shall {
        return Ok(Ok(format!("{} files and {} scripts as listed, {pages} manual pages", is.len(), SCRIPTS.len())));
    }
    let more = is.difference(&shall).map(|line| format!("\n  + {line}"));
    let less = shall.difference(&is).map(|line| format!("\n  - {line}"));
    Ok(Err(format!("it is not what xtask/src/package/golden/{kind}.txt says:{}", more.chain(less).collect::<String>())))
}

/// The list of a kind.
pub fn golden(kind: &str) -> PathBuf {
    shell::root().join("xtask/src/package/golden").join(format!("{kind}.txt"))
}

/// Files of a deb: mode, owner, `c` for those whose changes are kept, path.
fn deb(file: &Path) -> Result<Vec<String>> {
    let kept = said("dpkg-deb", &["--info"], file, &["conffiles"])?;
    Ok(deb_lines(&said("dpkg-deb", &["--contents"], file, &[])?, &kept))
}

fn deb_lines(contents: &str, kept: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in contents.lines() {
        let mut words = line.split_whitespace();
        let (Some(mode), Some(owner), Some(path)) = (words.next(), words.next(), words.nth(3)) else { continue };
        let path = path.trim_start_matches('.');
        let owner = if owner == "0/0" { "root/root" } else { owner };
        // Directories are there for the files in them.
        if !path.ends_with('/') {
            let flags = if kept.lines().any(|name| name == path) { "c " } else { "" };
            lines.push(format!("{mode} {owner} {flags}{path}"));
        }
    }
    lines
}

/// Files of an rpm: mode, owner, flags (`c` configuration, `n` not replaced, `d` documentation), path.
fn rpm(file: &Path) -> Result<Vec<String>> {
    Ok(rpm_lines(&said("rpm", &["--query", "--package", "--queryformat", RPM_FILES], file, &[])?))
}

fn rpm_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.replace(" |", " ").replace('|', " ")).collect()
}

fn said(program: &str, before: &[&str], file: &Path, after: &[&str]) -> Result<String> {
    let output = Command::new(program).args(before).arg(file).args(after).stdin(Stdio::null()).env("LC_ALL", "C").output()?;
    if !output.status.success() {
        bail!("{program} can not read {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_page(line: &str) -> bool {
    line.contains(PAGE)
}

/// The lines by path, and one for all pages of single commands.
fn folded(lines: Vec<String>) -> Vec<String> {
    let fold = |line: String| match line.split_once(PAGE) {
        Some((before, name)) => format!("{before}{PAGE}*{}", name.find('.').and_then(|at| name.get(at..)).unwrap_or_default()),
        None => line,
    };
    let mut lines: Vec<String> = lines.into_iter().map(fold).collect();
    let path = |line: &String| line.rsplit(' ').next().map(str::to_owned);
    lines.sort_by_key(path);
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::{deb_lines, folded, rpm_lines};

    #[test]
    fn lists_of_both_kinds_are_read() {
        let contents = "drwxr-xr-x root/root         0 2026-01-01 00:00 ./etc/apparmor.d/\n\
                        -rw-r--r-- root/root       300 2026-01-01 00:00 ./etc/apparmor.d/x\n\
                        -rwxr-xr-x root/root  37432984 2026-01-01 00:00 ./usr/bin/x\n\
                        -rw-r--r-- 0/0 1 2026-01-01 00:00 ./usr/y\n";
        let deb = deb_lines(contents, "/etc/apparmor.d/x\n");
        assert_eq!(deb, ["-rw-r--r-- root/root c /etc/apparmor.d/x", "-rwxr-xr-x root/root /usr/bin/x", "-rw-r--r-- root/root /usr/y"]);
        let rpm = rpm_lines("-rw-r--r-- root/root cn|/etc/x\n-rwxr-xr-x root/root |/usr/bin/x\n");
        assert_eq!(rpm, ["-rw-r--r-- root/root cn /etc/x", "-rwxr-xr-x root/root /usr/bin/x"]);
    }

    #[test]
    fn pages_of_commands_fold_to_one_line_with_one_mode() {
        let page = |mode: &str, name: &str| format!("{mode} root/root /usr/share/man/man1/{name}");
        let list =
            [("-rw", "tinkerbell-run.1.gz"), ("-rw", "tinkerbell-a-b.1.gz"), ("-rw", "tinkerbell.1.gz"), ("-rwx", "tinkerbell-c.1.gz")];
        let folded = folded(list.map(|(mode, name)| page(mode, name)).to_vec());
        assert_eq!(folded, [page("-rw", "tinkerbell-*.1.gz"), page("-rwx", "tinkerbell-*.1.gz"), page("-rw", "tinkerbell.1.gz")]);
    }
}
