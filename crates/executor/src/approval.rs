//! What exactly a command would run, and the keeper's own comparison with what was approved.
//!
//! The same function looks when a person is asked and again behind the keeper, so neither believes the
//! other. It reads program files and changes nothing. Invariant: an order that carries an approval and
//! differs from it in any of these facts opens no gate.
//!
//! Named are the shell and the program of the command's first word; what those start in turn is the
//! sandbox's business. The look is a moment before the start: who can exchange a system's programs within
//! that moment is not kept out.

use crate::cell::{At, Broken};
use crate::wire::{Cell, CellLevel, Mount, Order};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tinkerbell_core::approval::{Approved, Fact, canonical};

/// The keeper's step in whose name a comparison fails.
pub const STEP: &str = "compare with the approval";
/// Names of the facts that are looked up here; an approval holds others beside them.
const OWN: [&str; 8] = ["argv", "program", "first word", "directory", "environment", "stdin", "sandbox", "reach"];
/// Longest program that is read; what is larger is no program that anybody approves.
const MOST_BYTES: u64 = 1 << 30;

/// Looks at what a cell would run.
///
/// # Errors
/// When the working directory or a program can not be read.
pub fn facts(cell: &Cell) -> Result<Vec<Fact>, Broken> {
    let mut found: Vec<Fact> = cell.argv.iter().map(|word| ("argv".to_owned(), word.clone())).collect();
    let mut add = |name: &str, value: String| found.push((name.to_owned(), value));
    let path = cell.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
    let program = cell.argv.first().map_or("", String::as_str);
    add("program", described(program, path, cell)?);
    if let [_, flag, text] = cell.argv.as_slice()
        && flag == "-c"
    {
        add("first word", described(first_word(text), path, cell)?);
    }
    let directory = cell.workdir.metadata().at(STEP)?;
    // By number as well: a directory of the same name may be another one.
    add("directory", format!("{} ({}:{})", cell.workdir.display(), directory.dev(), directory.ino()));
    add("environment", format!("sha256:{}", pairs(&cell.env)));
    add("stdin", "open, empty".to_owned());
    let level = match cell.level {
        CellLevel::Full => "full",
        CellLevel::Landlock => "landlock",
        CellLevel::None => "none",
    };
    let is_free = cell.host_network || cell.level == CellLevel::None;
    let network = match cell.proxy_port {
        _ if is_free => "the host's network",
        Some(_) => "hosts that the operator lists, through a proxy",
        None => "no network",
    };
    let is_layered = cell.mounts.iter().any(|mount| matches!(mount, Mount::Overlay { .. }));
    let tree = if cell.level == CellLevel::None {
        "all files of the user"
    } else if is_layered {
        "writes a layer over its worktree"
    } else {
        "writes its own worktree"
    };
    add("sandbox", format!("level {level}, {network}, {tree}"));
    let mounts: Vec<&Mount> = cell.mounts.iter().filter(|mount| !is_of_others(mount)).collect();
    let reach = serde_json::to_vec(&(mounts, &cell.rules, cell.sockets)).at(STEP)?;
    add("reach", format!("sha256:{}", hex(&Sha256::digest(reach))));
    Ok(found)
}

/// Whether it covers what git keeps of another worktree: those come and go with other tasks, and what is approved
/// stays the same.
fn is_of_others(mount: &Mount) -> bool {
    let Mount::Mask { at } = mount else { return false };
    at.parent().is_some_and(|dir| dir.ends_with(".git/worktrees"))
}

/// Compares an order with the approval that it carries, at this wall time. Blocks while programs are read.
///
/// # Errors
/// What differs; then nothing may run.
pub fn check(order: &Order, now_ms: u64) -> Result<(), Broken> {
    let Some(approved) = &order.approved else { return Ok(()) };
    let approved = Approved::from(approved.clone());
    if now_ms >= approved.expires_ms {
        return Err("it has expired").at(STEP);
    }
    let now = facts(&order.cell)?;
    let then: Vec<&Fact> = approved.facts.iter().filter(|(name, _)| OWN.contains(&name.as_str())).collect();
    if let Some((name, value)) = now.iter().zip(then.iter()).find_map(|(now, then)| (now != *then).then_some(now)) {
        return Err(format!("{name} is not what was approved: it is `{}` now", short(value))).at(STEP);
    }
    let bytes = canonical(&approved.facts, approved.expires_ms, &approved.nonce);
    if now.len() != then.len() || hex(&Sha256::digest(bytes)) != approved.digest {
        return Err("its digest is not the approved one").at(STEP);
    }
    Ok(())
}

/// The first word of a shell text, where it is one for certain; else nothing.
fn first_word(text: &str) -> &str {
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+/".contains(&byte));
    if is_plain { word } else { "" }
}

/// The file that a word means within the cell, and its digest.
fn described(word: &str, path: &str, cell: &Cell) -> Result<String, Broken> {
    let Some(file) = find(word, path, cell) else { return Ok(format!("`{word}` is no program file")) };
    let place = file.canonicalize().at(STEP)?;
    // A link of the cell may lead to where the cell shows something else than the host does.
    let is_seen = |mount: &Mount| match mount {
        Mount::Bind { from, .. } => place.starts_with(from),
        Mount::Overlay { tree, .. } => place.starts_with(tree),
        Mount::Mask { .. } | Mount::Link { .. } => false,
    };
    if !cell.mounts.is_empty() && !cell.mounts.iter().any(is_seen) {
        return Ok(format!("`{word}` is no program file that can be compared"));
    }
    let file = File::open(&place).at(format!("{STEP}: `{}`", place.display()))?;
    let length = file.metadata().at(STEP)?.len();
    let (mut hash, mut block, mut left) = (Sha256::new(), vec![0; 1 << 16], file.take(MOST_BYTES));
    loop {
        match left.read(&mut block) {
            Ok(0) => break,
            Ok(count) => hash.update(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at(STEP),
        }
    }
    Ok(format!("{} {length} bytes sha256:{}", place.display(), hex(&hash.finalize())))
}

fn find(word: &str, path: &str, cell: &Cell) -> Option<PathBuf> {
    let workdir = &cell.workdir;
    let is_program = |file: &PathBuf| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    // What `..` means after a link only the cell knows.
    if word.is_empty() || word.split('/').any(|part| part == "..") {
        return None;
    }
    if word.contains('/') {
        return Some(outside(&workdir.join(word), cell)).filter(is_program);
    }
    path.split(':').map(|dir| outside(&workdir.join(dir).join(word), cell)).find(is_program)
}

/// Where on the host a path of the cell stands: a command has a `/tmp` of its own.
fn outside(path: &Path, cell: &Cell) -> PathBuf {
    let deepest = |path: &Path| {
        // Of equal depth the last one covers the others.
        cell.mounts.iter().filter(|mount| path.starts_with(mount.place())).max_by_key(|mount| mount.place().components().count())
    };
    let moved = |path: &Path, from: &Path, to: &Path| path.strip_prefix(from).map_or_else(|_| path.to_owned(), |rest| to.join(rest));
    let path = match deepest(path) {
        Some(Mount::Link { at, target }) => moved(path, at, &Path::new("/").join(target)),
        _ => path.to_owned(),
    };
    match deepest(&path) {
        Some(Mount::Bind { from, to, .. }) => moved(&path, to, from),
        _ => path,
    }
}

/// The digest of names and values, each led by its length.
fn pairs(env: &[(String, String)]) -> String {
    let mut hash = Sha256::new();
    for part in env.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

fn short(text: &str) -> String {
    if text.chars().count() > 160 { text.chars().take(159).chain(['…']).collect() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(dir: &Path, command: &str) -> Cell {
        Cell {
            level: CellLevel::None,
            argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            workdir: dir.to_owned(),
            env: vec![("PATH".to_owned(), dir.join("bin").display().to_string())],
            mounts: Vec::new(),
            host_network: false,
            proxy_port: None,
            sockets: crate::wire::Sockets::Common,
            segments: false,
            rules: crate::wire::Rules::default(),
            least_abi: 0,
            guarded_pids: Vec::new(),
            walls: crate::wire::Walls::default(),
        }
    }

    fn order(dir: &Path, cell: Cell) -> Order {
        let facts: Vec<Fact> = [("task".to_owned(), "7".to_owned())].into_iter().chain(super::facts(&cell).unwrap()).collect();
        let digest = hex(&Sha256::digest(canonical(&facts, 100, "n")));
        let approved = Approved { digest, facts, expires_ms: 100, nonce: "n".to_owned() };
        Order {
            run: "r".to_owned(),
            run_dir: dir.join("run"),
            exe: "/proc/self/exe".into(),
            epoch: 1,
            generation: 1,
            deadline_ms: 1,
            cell,
            tree: dir.to_owned(),
            absent: Vec::new(),
            guarded: Vec::new(),
            layer: None,
            notice: String::new(),
            errors_apart: false,
            limits: crate::wire::Bounds::default(),
            ledger: dir.join("usage"),
            roots: Vec::new(),
            base: 0,
            way_out: None,
            network: String::new(),
            secrets: Vec::new(),
            approved: Some(approved.into()),
        }
    }

    fn program(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_program_is_looked_for_where_the_command_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["private/tool", "host/tool", "tree/own"] {
            program(&place(name), &format!("#!/bin/sh\n# {name}\n"));
        }
        std::os::unix::fs::symlink(place("host/tool"), place("tree/link")).unwrap();
        let mut cell = cell(&place("tree"), "");
        cell.level = CellLevel::Full;
        let bind = |from: &str, to: &str| Mount::Bind { from: place(from), to: place(to), writable: true };
        cell.mounts = vec![bind("private", "host"), bind("tree", "tree"), Mount::Link { at: place("var"), target: place("host") }];
        let digest = |name: &str| hex(&Sha256::digest(std::fs::read(place(name)).unwrap()));
        let host = place("host/tool").display().to_string();
        let var = place("var/tool").display().to_string();
        let up = format!("{}/../host/tool", place("tree").display());
        for (word, seen) in [
            (host.as_str(), Some("private/tool")),
            (&var, Some("private/tool")),
            ("./own", Some("tree/own")),
            ("./link", None),
            (&up, None),
        ] {
            let text = described(word, "", &cell).unwrap();
            assert!(!text.contains(&digest("host/tool")), "{word}: {text}");
            assert_eq!(seen.is_some_and(|name| text.contains(&digest(name))), seen.is_some(), "{word}: {text}");
        }
    }

    #[test]
    fn whatever_is_exchanged_after_the_approval_is_seen() {
        type Swap<'a> = &'a dyn Fn(&mut Order, &Path);
        let swaps: [(&str, Swap<'_>); 13] = [
            ("argv", &|order, _| order.cell.argv[2].push(' ')),
            ("argv", &|order, _| order.cell.argv[0] = "/bin/bash".to_owned()),
            ("first word", &|_, dir| program(&dir.join("bin/deploy"), "#!/bin/sh\necho other\n")),
            ("first word", &|_, dir| program(&dir.join("first/deploy"), "")),
            ("directory", &|order, dir| {
                std::fs::create_dir_all(dir.join("b")).unwrap();
                order.cell.workdir = dir.join("b");
            }),
            ("directory", &|_, dir| {
                std::fs::rename(dir.join("a"), dir.join("old")).unwrap();
                std::fs::create_dir(dir.join("a")).unwrap();
            }),
            ("environment", &|order, _| order.cell.env.push(("LD_PRELOAD".to_owned(), "x".to_owned()))),
            ("sandbox", &|order, _| order.cell.level = CellLevel::Full),
            ("reach", &|order, _| order.cell.rules.write.push("/".into())),
            ("digest", &|order, _| order.approved.as_mut().unwrap().nonce.push('x')),
            ("digest", &|order, _| order.approved.as_mut().unwrap().facts[0].1 = "8".to_owned()),
            ("digest", &|order, _| order.approved.as_mut().unwrap().expires_ms += 1),
            ("digest", &|order, _| drop(order.approved.as_mut().unwrap().facts.pop())),
        ];
        for (at, (named, swap)) in swaps.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            program(&dir.path().join("bin/deploy"), "#!/bin/sh\necho deployed\n");
            std::fs::create_dir_all(dir.path().join("a")).unwrap();
            let mut cell = cell(&dir.path().join("a"), "deploy now");
            cell.env[0].1 = format!("{0}/first:{0}/bin", dir.path().display());
            let mut order = order(dir.path(), cell);
            assert!(check(&order, 99).is_ok(), "{at}");
            assert!(check(&order, 100).unwrap_err().why.contains("expired"));
            swap(&mut order, dir.path());
            let why = check(&order, 99).expect_err(&format!("swap {at} of {named}")).why;
            assert!(why.contains(named), "{at}: {why}");
        }
    }

    #[test]
    fn a_link_to_another_program_is_another_program() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("one"), "1");
        program(&dir.path().join("two"), "1");
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("one"), dir.path().join("bin/deploy")).unwrap();
        let order = order(dir.path(), cell(dir.path(), "deploy"));
        assert!(check(&order, 0).is_ok());
        std::fs::remove_file(dir.path().join("bin/deploy")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("two"), dir.path().join("bin/deploy")).unwrap();
        assert!(check(&order, 0).unwrap_err().why.contains("two"));
    }

    #[test]
    fn only_a_plain_first_word_names_a_program() {
        for (text, word) in [("make x", "make"), ("./run.sh", "./run.sh"), ("A=1 make", ""), ("$X", ""), ("", ""), ("'make' x", "")] {
            assert_eq!(first_word(text), word, "{text}");
        }
    }
}
