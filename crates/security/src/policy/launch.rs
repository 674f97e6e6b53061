//! Programs that run what they are given: interpreters and launchers.
//!
//! One table for the lint of `allow` rules and for commands that a stricter rule might be hidden in.
//! It names what is common, not all there is: containment never rests on it. Invariant: what is in the
//! table is at most asked for too often, never allowed too easily.

use super::shell::Word;

/// Programs that run their arguments, whatever they are.
const LAUNCHERS: [&str; 33] = [
    "busybox", "chroot", "chrt", "command", "doas", "env", "eval", "exec", "builtin", "flock", "gdb", "ionice", "ltrace", "nice", "nohup",
    "nsenter", "parallel", "script", "setarch", "setpriv", "setsid", "ssh", "stdbuf", "strace", "su", "sudo", "taskset", "time", "timeout",
    "unshare", "watch", "xargs", "source",
];
/// Interpreters that run a text given as an argument or on standard input.
const INTERPRETERS: [&str; 22] = [
    "ash", "awk", "bash", "bun", "csh", "dash", "deno", "fish", "gawk", "ksh", "lua", "mawk", "node", "nodejs", "perl", "php", "pwsh",
    "python", "python3", "ruby", "sh", "zsh",
];
/// Options by which other programs run a program of the caller's choice.
const OPTIONS: [(&str, &[&str]); 8] = [
    ("find", &["-exec", "-execdir", "-ok", "-okdir"]),
    ("fd", &["-x", "--exec", "-X", "--exec-batch"]),
    ("git", &["-c", "--config-env", "--exec-path"]),
    ("tar", &["-I", "--use-compress-program", "--to-command", "--checkpoint-action", "-F"]),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("make", &["-f", "--file", "--eval"]),
    ("cargo", &["--config"]),
    ("rg", &["--pre", "--hostname-bin"]),
];
/// Options of interpreters after which a text to run follows.
const TEXTS: [&str; 10] = ["-c", "-e", "-E", "-r", "-s", "-i", "-p", "-", "--eval", "--command"];

/// The last part of a program's path.
fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Options by which this program runs others; empty for most.
pub fn options(program: &str) -> &'static [&'static str] {
    OPTIONS.iter().find(|(known, _)| *known == name(program)).map_or(&[], |(_, options)| options)
}

/// Why nobody knows what a command with this beginning will run; `None` when it is not open.
#[must_use]
pub fn opens(prefix: &[&str], without: &[&str]) -> Option<String> {
    let (program, rest) = prefix.split_first()?;
    let program = name(program);
    if LAUNCHERS.contains(&program) {
        return Some(format!("`{program}` runs whatever follows"));
    }
    if is_interpreter(program) {
        return match rest.iter().find(|word| is_text_option(word)) {
            Some(option) => Some(format!("`{program} {option}` runs whatever text follows")),
            None if rest.is_empty() => {
                Some(format!("`{program}` runs whatever follows; add what it may run, as in [\"python\", \"-m\", \"pytest\"]"))
            }
            None => None,
        };
    }
    let options = options(program);
    if let Some(option) = rest.iter().find(|word| options.iter().any(|option| is_option(word, option))) {
        return Some(format!("`{program} {option}` runs a program of the caller's choice"));
    }
    // After a subcommand the options of the program itself do not count any more, except where they stand last.
    let is_open = rest.is_empty() || matches!(program, "find" | "cargo" | "rg" | "fd" | "tar" | "rsync" | "make");
    let missing: Vec<&str> = options.iter().copied().filter(|option| !without.contains(option)).collect();
    (is_open && !missing.is_empty())
        .then(|| format!("`{program} {}` runs a program of the caller's choice; put it into `without`", missing.join("`, `")))
}

/// Whether a command may run others that are not among its own words' beginning.
pub fn hides(words: &[Word]) -> bool {
    let Some(program) = words.first() else { return false };
    let Some(program) = program.known().map(name) else { return true };
    let rest = words.get(1..).unwrap_or_default();
    if LAUNCHERS.contains(&program) {
        return true;
    }
    let any = |test: &dyn Fn(&str) -> bool| rest.iter().any(|word| word.known().is_some_and(test));
    if is_interpreter(program) {
        return rest.is_empty() || any(&|word| is_text_option(word));
    }
    let options = options(program);
    !matches!(program, "make" | "cargo") && any(&|word| options.iter().any(|option| is_option(word, option)))
}

fn is_interpreter(program: &str) -> bool {
    // `python3.12` is one, too.
    let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&program) || INTERPRETERS.contains(&bare)
}

fn is_text_option(word: &str) -> bool {
    TEXTS.contains(&word) || word.starts_with("--eval=") || (word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))
}

fn is_option(word: &str, option: &str) -> bool {
    word == option || word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
}
