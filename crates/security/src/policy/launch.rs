//! Programs that run what they are given: interpreters and launchers.
//!
//! One table for the lint of `allow` rules and for commands that a stricter rule might be hidden in.
//! It names what is common, not all there is: containment never rests on it. Invariant: what is in the
//! table is at most asked for too often, never allowed too easily.

use super::shell::Word;

/// Programs that run their arguments, whatever they are.
const LAUNCHERS: [&str; 62] = [
    "at",
    "batch",
    "expect",
    "perf",
    "screen",
    "tmux",
    "capsh",
    "chronic",
    "dbus-run-session",
    "dumb-init",
    "fakeroot",
    "gosu",
    "hyperfine",
    "i386",
    "linux32",
    "linux64",
    "numactl",
    "prlimit",
    "runcon",
    "start-stop-daemon",
    "tini",
    "toybox",
    "unbuffer",
    "valgrind",
    "x86_64",
    "busybox",
    "chroot",
    "chrt",
    "command",
    "doas",
    "env",
    "eval",
    "exec",
    "builtin",
    "flock",
    "gdb",
    "ionice",
    "ltrace",
    "nice",
    "nohup",
    "nsenter",
    "parallel",
    "pkexec",
    "run0",
    "runuser",
    "script",
    "setarch",
    "setpriv",
    "setsid",
    "ssh",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "systemd-run",
    "taskset",
    "time",
    "timeout",
    "unshare",
    "watch",
    "xargs",
    "source",
];
/// Interpreters, and which letters of their short options say what.
const INTERPRETERS: [Interpreter; 9] = [
    interpreter(SHELLS, ("csiC", "", "oO")),
    interpreter(&["python", "pypy", "ipython"], ("ci", "mWXQ", "WXQ")),
    interpreter(&["perl", "raku"], ("eEmMnpFd", "IiDV", "I")),
    interpreter(&["ruby"], ("e", "rIiEFCx", "rIEC")),
    interpreter(&["node", "nodejs", "bun", "deno"], ("epi", "rC", "rC")),
    interpreter(&["php"], ("rBREa", "dfFtzS", "dtz")),
    interpreter(&["lua", "luajit"], ("ei", "ljO", "l")),
    interpreter(AWKS, ("e", "FvfEil", "Fvil")),
    // Its options are words of their own, and may be cut short.
    interpreter(&["pwsh"], ("cCeE", "abdfghijklmnopqrstuvwxyzABDFGHIJKLMNOPQRSTUVWXYZ", "")),
];
const SHELLS: &[&str] = &[
    "ash", "bash", "csh", "dash", "elvish", "fish", "hush", "jsh", "ksh", "lksh", "mksh", "nu", "oil", "osh", "pdksh", "rbash", "rksh",
    "rzsh", "sh", "tcsh", "xonsh", "yash", "zsh",
];
const AWKS: &[&str] = &["awk", "gawk", "mawk", "nawk"];
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
/// Options of interpreters after which a text to run follows, or with which they read one.
const TEXTS: [&str; 13] = ["-c", "-e", "-E", "-r", "-s", "-i", "-p", "-", "--eval", "--command", "--init-command", "--print", "--import"];
/// Options of php after which a text to run follows.
const PHP_TEXTS: [&str; 4] = ["--run", "--process-begin", "--process-code", "--process-end"];
/// Modules of python that run a text, or what is typed.
const MODULES: [&str; 5] = ["timeit", "code", "pdb", "asyncio", "IPython"];
/// Long options of interpreters whose value is the next word, so that it is no script.
const VALUED: [&str; 6] = ["--rcfile", "--init-file", "--require", "--loader", "--conditions", "--check-hash-based-pycs"];
/// Words with which an interpreter tells about itself, or finds what it runs by itself.
const TELLING: [&str; 5] = ["--version", "--help", "-V", "-h", "--test"];

/// Programs and subcommands that run what the next word names, or what follows it: a script or task of the
/// project, or another program. No subcommands: the program does so by itself.
const RUNNERS: [(&[&str], &[&str], Names); 13] = [
    (&["npm", "pnpm", "yarn", "bun"], &["run", "run-script", "rum", "urn"], Names::Script),
    (&["npm", "pnpm", "yarn", "bun"], &["exec", "x", "dlx"], Names::Program),
    (&["npx", "pnpx", "bunx", "uvx"], &[], Names::Program),
    (&["composer"], &["run", "run-script", "exec"], Names::Script),
    (&["deno"], &["task", "run"], Names::Script),
    (&["cargo"], &["xtask", "make"], Names::Script),
    (&["go"], &["run", "tool", "generate"], Names::Script),
    (&["poetry", "uv", "pipenv", "pdm", "hatch", "rye", "pixi", "conda", "mamba", "pipx"], &["run"], Names::Program),
    (&["uv"], &["tool"], Names::Program),
    (&["bundle"], &["exec"], Names::Program),
    (&["docker", "podman"], &["run", "exec", "compose"], Names::Script),
    (&["nx", "turbo", "lerna", "moon"], &["run", "exec", "run-many"], Names::Script),
    (&["yarn", "mix", "rails", "tox", "nox"], &[], Names::Script),
];
/// Programs whose every further word is a task of the project, or sets a variable of its file.
const MAKERS: [&str; 16] =
    ["make", "gmake", "bmake", "just", "task", "rake", "invoke", "inv", "ant", "gradle", "gradlew", "mage", "mvn", "mvnw", "ninja", "fab"];

/// An interpreter runs a text given as an argument or on standard input.
struct Interpreter {
    names: &'static [&'static str],
    /// Letters behind which such a text follows, or with which one is read.
    texts: &'static str,
    /// Letters that end a cluster: what follows in the word is their value.
    ends: &'static str,
    /// Letters whose value is the next word, where they stand last.
    valued: &'static str,
}

const fn interpreter(names: &'static [&'static str], (texts, ends, valued): (&'static str, &'static str, &'static str)) -> Interpreter {
    Interpreter { names, texts, ends, valued }
}

/// What the word behind a runner names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// A script or task of the project.
    Script,
    /// A program, whose own words follow.
    Program,
}

/// The last part of a program's path.
fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// How many words of a beginning are a runner, and whether a program follows.
fn runner(words: &[&str]) -> Option<(usize, Names)> {
    let program = name(words.first()?);
    let known = |subs: &[&str]| words.get(1).is_some_and(|sub| subs.contains(sub));
    let found = RUNNERS.iter().filter(|(programs, ..)| programs.contains(&program));
    let with_sub = found.clone().find(|(_, subs, _)| known(subs)).map(|(.., names)| (2, *names));
    let maker = MAKERS.contains(&program).then_some((1, Names::Script));
    with_sub.or_else(|| found.clone().find(|(_, subs, _)| subs.is_empty()).map(|(.., names)| (1, *names))).or(maker)
}

/// Why a beginning is about every script of the project, or every program that one of its scripts may be;
/// `None` when it is not.
#[must_use]
pub fn runs_any(prefix: &[&str]) -> Option<String> {
    let program = name(prefix.first()?);
    let says = |words: &[&str]| Some(format!("`{}` runs whatever the project calls by that name; add its name", words.join(" ")));
    let Some((count, names)) = runner(prefix) else {
        // Options may stand between the program and its subcommand.
        let is_bare = prefix.len() == 1 && RUNNERS.iter().any(|(programs, ..)| programs.contains(&program));
        return is_bare.then(|| says(prefix)).flatten();
    };
    let (begun, rest) = prefix.split_at_checked(count)?;
    match (rest.first(), names) {
        (None, _) => says(begun),
        (Some(word), _) if word.starts_with('-') => says(begun),
        (Some(_), Names::Script) => None,
        (Some(_), Names::Program) => opens(rest, options(rest.first()?)).or_else(|| runs_any(rest)),
    }
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
    if is_launcher(program) {
        return Some(format!("`{program}` runs whatever follows"));
    }
    if let Some(kind) = Interpreter::of(program) {
        return match rest.iter().find(|word| kind.is_text_option(word)) {
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
    if is_launcher(program) {
        return true;
    }
    if let Some(kind) = Interpreter::of(program) {
        return kind.hides(rest);
    }
    let options = options(program);
    let any = |test: &dyn Fn(&str) -> bool| rest.iter().any(|word| word.known().is_some_and(test));
    match program {
        "make" | "gmake" | "bmake" => makes(rest),
        "cargo" => false,
        "git" if gits(rest) => true,
        _ => any(&|word| options.iter().any(|option| is_option(word, option))),
    }
}

/// Whether a subcommand of git is one that runs commands, or an option of it names one.
fn gits(rest: &[Word]) -> bool {
    let known: Vec<String> = rest.iter().filter_map(Word::known).map(str::to_lowercase).collect();
    let has = |wanted: &str| known.iter().any(|word| word == wanted);
    let names = |option: &str| known.iter().any(|word| is_option(word, option));
    let sets = |word: &String| {
        ["-calias.", "-ccore.", "alias.", "core.sshcommand", "core.pager", "core.editor", "core.hookspath"]
            .iter()
            .any(|key| word.starts_with(key))
    };
    has("filter-branch")
        || (has("submodule") && has("foreach"))
        || (has("bisect") && has("run"))
        || ((has("rebase") || has("difftool")) && known.iter().any(|word| word.starts_with("-x")))
        || ["--exec", "--extcmd", "--upload-pack", "--receive-pack"].iter().any(|option| names(option))
        || known.iter().any(sets)
}

/// Whether the words of `make` hold commands: a piece of a file, one that is read from elsewhere, the shell that runs
/// all, or a function that starts one.
fn makes(rest: &[Word]) -> bool {
    let known: Vec<&str> = rest.iter().filter_map(Word::known).collect();
    let is_file = |word: &str| matches!(word, "-f" | "--file" | "--makefile");
    let reads = |word: &str| word == "-" || is_input(word);
    let holds = |word: &&str| {
        let value = ["--file=", "--makefile=", "-f"].iter().find_map(|option| word.strip_prefix(option));
        is_option(word, "--eval")
            || word.starts_with("-E")
            || value.is_some_and(reads)
            || word.contains("$(")
            || word.contains("${")
            || word.split_once('=').is_some_and(|(name, _)| name.trim_end_matches([':', '+', '?']).ends_with("SHELL"))
    };
    known.iter().any(holds) || known.windows(2).any(|two| matches!(two, [option, value] if is_file(option) && reads(value)))
}

/// What a runner of programs runs: the words behind it, or `Some(None)` where only it knows. `None` for other commands.
pub fn behind(words: &[Word]) -> Option<Option<&[Word]>> {
    let begun: Vec<&str> = words.iter().take(3).map_while(Word::known).collect();
    let count = match begun.as_slice() {
        ["uv", "tool", "run"] => 3,
        _ => runner(&begun).filter(|(_, names)| *names == Names::Program)?.0,
    };
    let rest = words.get(count..).unwrap_or_default();
    let rest = if rest.first().and_then(Word::known) == Some("--") { rest.get(1..).unwrap_or_default() } else { rest };
    let is_program = rest.first().is_none_or(|word| word.known().is_some_and(|word| !word.starts_with('-')));
    Some(is_program.then_some(rest))
}

/// Whether a program runs its arguments. The loader does as well: `/lib64/ld-linux-x86-64.so.2 /usr/bin/git push`.
fn is_launcher(program: &str) -> bool {
    LAUNCHERS.contains(&program) || program == "ld.so" || (program.starts_with("ld-") && program.contains(".so"))
}

impl Interpreter {
    fn of(program: &str) -> Option<&'static Self> {
        // `python3.12` is one, too.
        let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        INTERPRETERS.iter().find(|kind| kind.names.contains(&program) || kind.names.contains(&bare))
    }

    /// Whether it may run a text that is no file: one among its words, or one that it reads because it is given
    /// no script.
    fn hides(&self, rest: &[Word]) -> bool {
        let (mut has_script, mut is_value) = (false, false);
        if self.names.contains(&"python") && is_module_of_texts(rest) {
            return true;
        }
        for word in rest {
            let Some(word) = word.known() else {
                // What only the shell knows may be an option, as long as no script stands before it.
                if !has_script {
                    return true;
                }
                continue;
            };
            if self.is_text_option(word) || is_input(word) || self.calls(word, has_script) {
                return true;
            }
            let is_option = word.starts_with(['-', '+']);
            has_script |= !is_value && (!is_option || self.is_module(word));
            is_value = is_option && self.takes_next(word);
        }
        let tells = |word: &Word| word.known().is_some_and(|word| TELLING.contains(&word) || (word == "-v" && !self.is_shell()));
        !has_script && !rest.first().is_some_and(|word| tells(word) && !(self.is_shell() && word.known() == Some("-V")))
    }

    fn is_text_option(&self, word: &str) -> bool {
        let is_long = |option: &&str| option.starts_with("--") && is_option(word, option);
        if TEXTS.contains(&word) || TEXTS.iter().any(is_long) {
            return true;
        }
        if self.names.contains(&"php") && PHP_TEXTS.iter().any(is_long) {
            return true;
        }
        let Some(cluster) = word.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else { return false };
        let mut read = cluster.chars().take_while(|letter| !self.ends.contains(*letter));
        word.ends_with('c') || read.any(|letter| self.texts.contains(letter))
    }

    /// Whether the next word is an option's value.
    fn takes_next(&self, word: &str) -> bool {
        let is_cluster = !word.starts_with("--");
        VALUED.contains(&word) || (is_cluster && word.len() > 1 && word.ends_with(|last| self.valued.contains(last)))
    }

    /// `python -m pytest` runs what the project names.
    fn is_module(&self, word: &str) -> bool {
        self.names.contains(&"python") && word.starts_with("-m")
    }

    fn is_shell(&self) -> bool {
        self.names == SHELLS
    }

    /// Whether a word that is no option is a text, or says that one follows.
    fn calls(&self, word: &str, has_script: bool) -> bool {
        if self.names == AWKS {
            // The ways of a program to others: `system`, a pipe, a function by its name.
            let is_piped = || word.replace("||", "").contains('|') && !word.starts_with('-');
            return word.contains("system") || word.contains('@') || is_piped();
        }
        !has_script && self.names.contains(&"deno") && matches!(word, "eval" | "repl" | "exec")
    }
}

/// Whether a word names what is read from standard input, from another descriptor, or from the word itself.
fn is_input(word: &str) -> bool {
    word.contains("dev/stdin") || word.contains("/fd/") || word.starts_with("data:") || word.contains("=data:")
}

/// Whether `-m` names a module that runs a text.
fn is_module_of_texts(rest: &[Word]) -> bool {
    rest.iter().enumerate().any(|(at, word)| {
        let letters = word.known().and_then(|word| word.strip_prefix('-')).filter(|letters| !letters.starts_with('-'));
        let Some((_, module)) = letters.and_then(|letters| letters.split_once('m')) else { return false };
        let next = || rest.get(at + 1).and_then(Word::known).unwrap_or_default();
        MODULES.contains(&if module.is_empty() { next() } else { module })
    })
}

fn is_option(word: &str, option: &str) -> bool {
    word == option || word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
}
