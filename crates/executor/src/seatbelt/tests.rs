//! Profiles as text, and as the kernel is said to read them: the last rule that matches decides.
//!
//! Patterns are tried by this host's `grep -E` byte by byte. Invariant: no test needs macOS.

use super::spelling::{self, Spelt};
use super::*;
use crate::options::{LevelChoice, NetworkChoice, WorkspaceChoice};
use crate::wire::{CellLevel, Rules, Sockets, Walls};
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tinkerbell_core::port::Limits;
use tinkerbell_core::protected;

fn bind(path: &str, writable: bool) -> Mount {
    Mount::Bind { from: path.into(), to: path.into(), writable }
}

fn cell(mounts: Vec<Mount>) -> Cell {
    Cell {
        level: CellLevel::Full,
        argv: Vec::new(),
        workdir: "/".into(),
        env: Vec::new(),
        mounts,
        host_network: false,
        proxy_port: None,
        sockets: Sockets::Common,
        segments: false,
        rules: Rules::default(),
        least_abi: 0,
        guarded_pids: Vec::new(),
        walls: Walls::default(),
    }
}

const TREE: &str = "/Users/u/.local/trees/a b/tree";

/// A tree within a hidden directory, and a hole within a toolchain.
fn usual() -> Cell {
    cell(vec![
        bind("/Users/u/.cargo", false),
        bind("/Users/u/repo/.git", false),
        Mount::Mask { at: "/Users/u/.local".into() },
        Mount::Mask { at: "/Users/u/.cargo/credentials.toml".into() },
        bind("/private/tmp/homes/0/home", true),
        bind("/private/tmp/homes/0/tmp", true),
        bind(TREE, true),
        Mount::Mask { at: format!("{TREE}/secret").into() },
    ])
}

/// What a rule looks at.
#[derive(Debug)]
enum Filter {
    Subpath(String),
    Literal(String),
    Regex(String),
    Other,
}

#[derive(Debug)]
struct Rule {
    allows: bool,
    operations: Vec<String>,
    filters: Vec<Filter>,
}

/// Reads a profile as this module writes it: brackets, words and strings.
fn read(text: &str) -> Vec<Rule> {
    let lines: String = text.lines().filter(|line| !line.starts_with(';')).flat_map(|line| [line, "\n"]).collect();
    let mut signs = lines.chars().peekable();
    let (mut depth, mut words, mut rules) = (0, Vec::new(), Vec::new());
    while let Some(sign) = signs.next() {
        match sign {
            '(' => (depth, _) = (depth + 1, words.push("(".to_owned())),
            ')' => {
                (depth, _) = (depth - 1, words.push(")".to_owned()));
                if depth == 0 {
                    rules.extend(rule(&std::mem::take(&mut words)));
                }
            }
            '"' => {
                let is_raw = words.last().is_some_and(|word| word == "#");
                let mut string = String::new();
                loop {
                    match signs.next().expect("a string has an end") {
                        '"' => break,
                        '\\' if !is_raw => string.push(match signs.next().unwrap() {
                            'n' => '\n',
                            'r' => '\r',
                            't' => '\t',
                            sign => sign,
                        }),
                        sign => string.push(sign),
                    }
                }
                words.push(string);
            }
            sign if sign.is_whitespace() => {}
            sign => {
                let mut word = sign.to_string();
                while let Some(next) = signs.next_if(|next| !next.is_whitespace() && !"()\"".contains(*next)) {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    assert_eq!(depth, 0, "every bracket is closed");
    rules
}

fn rule(words: &[String]) -> Option<Rule> {
    let allows = match words[1].as_str() {
        "allow" => true,
        "deny" => false,
        "version" => return None,
        other => panic!("no rule: {other}"),
    };
    let rest = &words[2..words.len() - 1];
    let operations: Vec<String> = rest.iter().take_while(|word| *word != "(").cloned().collect();
    let filters = rest[operations.len()..].split(|word| word == "(").skip(1).map(|words| match words {
        [kind, path, _] if kind == "subpath" => Filter::Subpath(path.clone()),
        [kind, path, _] if kind == "literal" => Filter::Literal(path.clone()),
        [kind, mark, pattern, _] if kind == "regex" && mark == "#" => Filter::Regex(pattern.clone()),
        _ => Filter::Other,
    });
    Some(Rule { allows, filters: filters.collect(), operations })
}

fn matches(patterns: &[&str], text: &[u8]) -> bool {
    let mut grep = Command::new("grep");
    grep.args(["-qzE"]).args(patterns.iter().flat_map(|pattern| ["-e", pattern])).env("LC_ALL", "C").stdin(Stdio::piped());
    let mut grep = grep.spawn().expect("this host has grep");
    grep.stdin.take().unwrap().write_all(text).unwrap();
    let code = grep.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "grep takes the patterns");
    code == Some(0)
}

fn decides(rule: &Rule, operation: &str, path: &str) -> bool {
    let is_of = |known: &String| known.strip_suffix('*').map_or(known == operation, |start| operation.starts_with(start));
    if !rule.operations.iter().any(|known| known == "default" || is_of(known)) {
        return false;
    }
    let mut patterns = Vec::new();
    for filter in &rule.filters {
        match filter {
            Filter::Subpath(root) if Path::new(path).starts_with(root) => return true,
            Filter::Literal(place) if place == path => return true,
            Filter::Regex(pattern) => patterns.push(pattern.as_str()),
            _ => {}
        }
    }
    rule.filters.is_empty() || (!patterns.is_empty() && matches(&patterns, path.as_bytes()))
}

fn allows(rules: &[Rule], operation: &str, path: &str) -> bool {
    rules.iter().rfind(|rule| decides(rule, operation, path)).expect("there is a default").allows
}

#[test]
fn paths_are_quoted_and_spelt_both_ways() {
    for (path, wanted) in [
        ("/Users/u", vec!["/Users/u"]),
        ("/a \"b\"\\c", vec!["/a \\\"b\\\"\\\\c"]),
        ("/a\nb\tc\r", vec!["/a\\nb\\tc\\r"]),
        ("/a/", vec!["/a"]),
        ("/", vec!["/"]),
        ("/é)(;", vec!["/é)(;"]),
        ("/tmp", vec!["/tmp", "/private/tmp"]),
        ("/private/tmp/x", vec!["/tmp/x", "/private/tmp/x"]),
        ("/var/folders/x", vec!["/var/folders/x", "/private/var/folders/x"]),
        ("/private/etc/hosts", vec!["/etc/hosts", "/private/etc/hosts"]),
        ("/tmpfiles", vec!["/tmpfiles"]),
        ("/private/other", vec!["/private/other"]),
        ("/Users/private/tmp", vec!["/Users/private/tmp"]),
    ] {
        let spelt: Vec<String> = Spelt::all(Path::new(path)).unwrap().iter().map(literal).collect();
        let wanted: Vec<String> = wanted.iter().map(|path| format!("(literal \"{path}\")")).collect();
        assert_eq!(spelt, wanted, "{path:?}");
    }
}

#[test]
fn what_can_not_be_spelt_gives_no_profile() {
    let paths: [&[u8]; 6] = [b"relative", b"", b"/a/../b", b"/a\x1bb", b"/a\0b", b"/a\xffb"];
    for path in paths {
        let path = Path::new(OsStr::from_bytes(path));
        assert!(Spelt::all(path).is_err() && spelling::root(path).is_err(), "{path:?}");
        let plans = [
            vec![bind(TREE, true), Mount::Mask { at: path.to_owned() }],
            vec![Mount::Bind { from: path.to_owned(), to: "/x".into(), writable: false }],
        ];
        for plan in plans {
            let error = text(&cell(plan), Path::new(TREE)).unwrap_err();
            assert_eq!(error.code(), "TB-SANDBOX-005", "{error}");
            assert!(!error.to_string().contains(['\x1b', '\0']), "{error:?}");
        }
    }
}

#[test]
fn the_last_rule_decides_as_the_plan_means_it() {
    let rules = read(&text(&usual(), Path::new(TREE)).unwrap());
    let tree = |rest: &str| format!("{TREE}/{rest}");
    let cases = [
        ("/bin/sh", "file-read-data", true),
        ("/bin/sh", "process-exec", true),
        ("/bin/sh", "file-write-data", false),
        ("/usr/local/var/postgres/x", "file-read-data", false),
        ("/private/etc/hosts", "file-read-data", true),
        ("/etc/hosts", "file-read-data", true),
        ("/private/etc/master.passwd", "file-read-data", false),
        ("/private/etc/ssh/key", "file-read-data", false),
        ("/System/Volumes/Data/Users/u/.ssh/id", "file-read-data", false),
        ("/Library/Keychains/System.keychain", "file-read-data", false),
        ("/Users/u/.ssh/id", "file-read-data", false),
        ("/Users/u", "file-read-data", false),
        ("/Users/u", "file-read-metadata", true),
        ("/Users/u/other", "file-read-metadata", false),
        ("/Users/u/.cargo/registry/x", "file-read-data", true),
        ("/Users/u/.cargo/registry/x", "file-write-create", false),
        ("/Users/u/.cargo/credentials.toml", "file-read-data", false),
        ("/Users/u/.cargo/credentials.toml", "file-read-metadata", false),
        ("/Users/u/repo/.git/config", "file-read-data", true),
        ("/Users/u/repo/.git/config", "file-write-data", false),
        ("/Users/u/.local/journal", "file-read-data", false),
        ("/Users/u/.local/tool", "process-exec", false),
        ("/private/tmp/homes/0/home/x", "file-write-create", true),
        ("/tmp/homes/0/tmp/x", "file-write-create", true),
        ("/private/tmp/homes/0/home/.git/config", "file-write-create", true),
        ("/private/tmp/homes/0/tmp", "file-write-unlink", false),
        ("/private/tmp/homes/1/home/x", "file-read-data", false),
        ("/private/tmp/x", "file-write-create", false),
        ("/private/tmp", "file-read-data", false),
        ("/private/tmp", "file-read-metadata", true),
        ("/dev/null", "file-write-data", true),
        ("/dev/null", "file-write-unlink", false),
        ("/dev/ttys001", "file-write-data", false),
        ("/dev/disk0", "file-read-data", false),
        ("", "process-fork", true),
        ("", "network-outbound", false),
        ("", "network-bind", false),
        ("", "system-socket", false),
        ("", "sysctl-write", false),
        ("", "ipc-posix-shm-write-create", false),
    ];
    for (path, operation, wanted) in cases {
        assert_eq!(allows(&rules, operation, path), wanted, "{operation} {path}");
    }
    for (path, operation, wanted) in [
        ("src/main.rs", "file-write-create", true),
        ("src/main.rs", "file-write-setugid", false),
        ("target/debug/x", "process-exec", true),
        ("secret/key", "file-read-data", false),
        ("secret/key", "file-write-data", false),
        (".github", "file-write-create", false),
        (".GitHub", "file-write-unlink", false),
        (".github/ISSUE_TEMPLATE.md", "file-write-create", true),
        (".github", "file-read-data", true),
        ("AGENTS.md", "file-read-data", true),
        ("AGENTS.md", "file-write-unlink", false),
    ] {
        assert_eq!(allows(&rules, operation, &tree(path)), wanted, "{operation} {path}");
    }
    assert!(!allows(&rules, "file-write-unlink", TREE), "the worktree itself stays");
}

/// Other spellings of a name, of which some fold to it and some do not.
fn spellings(name: &str) -> Vec<String> {
    let swapped = |from: char, to: &str| name.replace(from, to);
    let mut found = vec![
        name.to_owned(),
        name.to_uppercase(),
        format!("{name}."),
        format!("{name} . "),
        format!("{name}::$DATA"),
        format!("{name}\u{feff} ."),
        format!("\u{200b}{name}"),
        name.chars().flat_map(|sign| [sign, '\u{200c}']).collect(),
        swapped('i', "\u{131}"),
        swapped('s', "\u{17f}"),
        swapped('k', "\u{212a}"),
        name.replace("fi", "\u{fb01}"),
        name.replace("ss", "\u{df}"),
        format!("{name}x"),
        format!("x{name}"),
        name.chars().skip(1).collect(),
    ];
    found.dedup();
    found
}

#[test]
fn what_is_protected_is_never_written() {
    let root = spelling::root(Path::new(TREE)).unwrap();
    let filters: Vec<String> = spelling::names(&root).chain(spelling::paths(&root)).collect();
    let patterns: Vec<&str> =
        filters.iter().map(|filter| filter.strip_prefix("(regex #\"").and_then(|rest| rest.strip_suffix("\")")).unwrap()).collect();
    let mut paths: Vec<String> = protected::NAMES.iter().chain(protected::PATHS).flat_map(|name| spellings(name)).collect();
    paths.extend(protected::NAMES.iter().flat_map(|name| [format!("a/b/{name}"), format!("a/{name}/c"), format!("{name}/d/e")]));
    paths.extend(protected::PATHS.iter().flat_map(|path| [format!("{path}/x"), format!("a/{path}")]));
    paths.extend(["GIT~1/config", "x/gitmod~2", "Gi7eBa~1", "git~", "git~one", ".github /workflows./x"].map(str::to_owned));
    paths.extend(
        ["src/main.rs", ".gitignore", ".gitattributes", "agents.rs", "AGENTSxmd", "\u{65e5}\u{672c}\u{8a9e}.md"].map(str::to_owned),
    );
    for path in paths {
        let full = format!("{TREE}/{path}");
        assert_eq!(matches(&patterns, full.as_bytes()), protected::is_protected(&path), "{path:?}");
    }
    assert!(!matches(&patterns, b"/Users/u/.git/config"), "only below the worktree");
}

#[test]
fn a_worktrees_own_path_is_no_pattern_and_no_protected_name() {
    for tree in ["/u/.claude/trees/a+b.c", "/private/tmp/(x)|[y]/t*", "/u/q\"b\\c^", "/u/\u{e9}t\u{e9}/\u{65e5}", "/u/a{1,2}$"] {
        let plan = vec![bind(tree, true)];
        let rules = read(&text(&cell(plan), Path::new(tree)).unwrap());
        assert!(allows(&rules, "file-write-create", &format!("{tree}/src/x")), "{tree}");
        assert!(!allows(&rules, "file-write-create", &format!("{tree}/sub/.git/hooks/x")), "{tree}");
        assert!(!allows(&rules, "file-write-create", &format!("{tree}/.github/workflows/x")), "{tree}");
    }
    let rules = read(&text(&cell(vec![bind("/private/tmp/t", true)]), Path::new("/private/tmp/t")).unwrap());
    assert!(!allows(&rules, "file-write-create", "/tmp/t/.envrc") && allows(&rules, "file-write-create", "/tmp/t/env"));
}

#[test]
fn a_layer_is_only_read() {
    let overlay = Mount::Overlay { tree: TREE.into(), upper: "/u/upper".into(), work: "/u/work".into() };
    let rules = read(&text(&cell(vec![overlay]), Path::new(TREE)).unwrap());
    assert!(allows(&rules, "file-read-data", &format!("{TREE}/x")) && !allows(&rules, "file-write-create", &format!("{TREE}/x")));
    assert!(!allows(&rules, "file-write-create", "/u/upper/x"));
}

/// The whole text, for people and for a diff when it changes. `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_text_is_the_golden_one() {
    let mut proxy = usual();
    proxy.proxy_port = Some(3128);
    let mut host = usual();
    host.host_network = true;
    for (name, cell) in [("none", usual()), ("proxy", proxy), ("host", host)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/seatbelt/{name}.sb"));
        let text = text(&cell, Path::new(TREE)).unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
    }
}

/// From the host's own plan: what is hidden lies below what is granted, and nothing is made.
#[test]
fn the_plan_of_this_host_becomes_a_profile() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let at = |name: &str| -> PathBuf { base.join(name) };
    for made in ["home/repo/.git/objects", "home/repo/own", "home/.ssh", "home/shared/keys", "data"] {
        std::fs::create_dir_all(at(made)).unwrap();
    }
    let options = SandboxOptions {
        exe: "/x".into(),
        runs_dir: at("data/runs"),
        homes_dir: at("data/homes"),
        cache_dir: at("data/cache"),
        hidden: vec![at("data"), at("home/repo/own"), at("home/shared/keys"), at("home/repo/later")],
        limits: Limits::default(),
        level: LevelChoice::Auto,
        network: NetworkChoice::None,
        way_out: None,
        workspace: WorkspaceChoice::Auto,
        read: vec![at("home/shared")],
        home: Some(at("home")),
        path: "/usr/bin:/bin".into(),
        env: Vec::new(),
        known: Arc::default(),
    };
    let (tree, git) = (at("home/repo"), at("home/repo/.git"));
    let rules = read(&seatbelt(&options, &tree, (&git, &git)).unwrap());
    let private = format!("data/homes/{:032}", 0);
    for (path, operation, wanted) in [
        ("home/repo/src/x", "file-write-create", true),
        ("home/repo/.git/config", "file-read-data", true),
        ("home/repo/.git/config", "file-write-data", false),
        ("home/repo/own/x", "file-read-data", false),
        ("home/repo/own/x", "file-write-create", false),
        ("home/repo/later/x", "file-read-data", false),
        ("home/shared/x", "file-read-data", true),
        ("home/shared/x", "file-write-create", false),
        ("home/shared/keys/x", "file-read-data", false),
        ("home/.ssh/id", "file-read-data", false),
        ("home", "file-read-data", false),
        ("data/journal", "file-read-data", false),
        (&format!("{private}/home/x"), "file-write-create", true),
        (&format!("{private}/tmp/x"), "file-write-create", true),
        (&format!("{private}/lock"), "file-read-data", false),
    ] {
        assert_eq!(allows(&rules, operation, at(path).to_str().unwrap()), wanted, "{operation} {path}");
    }
    assert!(!allows(&rules, "file-read-data", "/etc/shadow") && !allows(&rules, "file-read-data", "/etc/fstab"));
    assert!(!at("data/homes").exists(), "nothing is made");
    assert!(seatbelt(&options, &at("gone"), (&git, &git)).is_err());
}
