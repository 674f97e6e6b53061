//! The splitter against cases that are easy to get wrong, random bytes, and a real shell.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// `a b | c`: known words, `…` for unknown ones, `?` before what is doubtful, `!` for what is opaque.
fn shown(text: &str) -> String {
    let split = split(text);
    let words = |segment: &Segment| segment.words.iter().map(|word| word.known().unwrap_or("…")).collect::<Vec<_>>().join(" ");
    let one = |segment: &Segment| format!("{}{}", if segment.doubt.is_some() { "?" } else { "" }, words(segment));
    let mut all: Vec<String> = split.segments.iter().map(one).collect();
    all.extend(split.opaque.map(|_| "!".to_owned()));
    all.join(" | ")
}

#[test]
fn tricky_texts_are_split_as_a_shell_would() {
    for (text, expected) in [
        ("", ""),
        ("  \n\n ", ""),
        ("# only a comment", ""),
        ("a b", "a b"),
        ("a;b", "a | b"),
        ("a&&b||c", "a | b | c"),
        ("a & b", "a | b"),
        ("a |\n\n b", "a | b"),
        ("a 'b;c' \"d|e\" f\\ g", "a b;c d|e f g"),
        ("a ''", "a "),
        ("a '' b", "a  b"),
        ("a\\\nb", "ab"),
        ("a \\\n b", "a b"),
        ("a \\\n#c\nd", "a | d"),
        ("a#b # c", "a#b"),
        ("a '#' b", "a # b"),
        ("a \"\\$x \\` \\\" \\n\"", "a $x ` \" \\n"),
        ("a $x", "?a …"),
        ("a \"$x\"", "?a …"),
        ("a '$x'", "a $x"),
        ("a ${x}", "?a …"),
        ("a ${x:-$(b)}", "!"),
        ("a $(b c; d) e", "?b c | ?d | ?a … e"),
        ("a \"$(b \"c d\")\"", "?b c d | ?a …"),
        ("$(a)", "?a | ?…"),
        ("a `b`", "!"),
        ("a $((1+2))", "!"),
        ("a *", "?a …"),
        ("a ~/x", "?a …"),
        ("a {b,c}", "?a …"),
        ("[ a = b ]", "[ a = b ]"),
        ("a > f", "?a"),
        ("a 2>&1 b", "?a b"),
        ("a 2 >f", "?a 2"),
        ("a x2>f", "?a x2"),
        (">f", "?"),
        ("a >", "!"),
        ("a &>f", "!"),
        ("a |& b", "!"),
        ("a <(b)", "!"),
        ("a <<E\nx; y\nE\nb", "?a | b"),
        ("a <<'E'\n$(x)\nE\nb", "?a | b"),
        ("a <<E\n$(x)\nE\nb", "?a | !"),
        ("a <<-E\n\tx\n\tE\nb", "?a | b"),
        ("a <<E\nx", "?a | !"),
        ("a <<E", "?a | !"),
        ("a <<<b", "!"),
        ("X=1", "?"),
        ("X=1 a", "?a"),
        ("X=1; a", "? | ?a"),
        ("X=$(a) b", "?a | ?b"),
        ("'X'=1 a", "X=1 a"),
        ("A$x=1 a", "?… a"),
        ("X=1 if a", "?if a"),
        ("then", "!"),
        ("a; fi", "?a"),
        ("(a; b) c", "?a | ?b | ?c"),
        ("a (b)", "!"),
        ("f() { a; }", "!"),
        ("{ a; b; }", "?a | ?b"),
        ("if a; then b; else c; fi; d", "?a | ?b | ?c | ?d"),
        ("for x in $(a); do b; done", "?a | ?b"),
        ("for x do a; done", "?a"),
        ("while a; do b; done", "?a | ?b"),
        ("! a", "?a"),
        ("case a in b) c;; esac", "!"),
        ("time a", "!"),
        ("]] a", "!"),
        ("in a", "!"),
        ("a then b", "a then b"),
        ("'if' a", "if a"),
        ("i\\f a", "if a"),
        ("export X=1; a", "?export X=1 | ?a"),
        ("cd x && a", "cd x | a"),
        ("printf -v PATH x; a", "?printf -v PATH x | ?a"),
        ("a 'b", "!"),
        ("a \"b", "!"),
        ("a \\", "!"),
        ("a )", "!"),
        ("a && ", "a | !"),
        ("; a", "!"),
        ("a ;; b", "!"),
        ("a\rb", "!"),
        ("a\0b", "!"),
        ("a\u{a0}b", "!"),
        ("a\u{2028}b", "!"),
        ("a $'b'", "!"),
    ] {
        // What was read before a text turned out to be opaque does not matter.
        let got = shown(text);
        let fits = got == expected || (expected == "!" && got.ends_with('!'));
        assert!(fits, "{text:?}\n got {got}\nwant {expected}");
    }
    assert!(shown(&"$(".repeat(5_000)).ends_with('!'));
    assert!(shown(&"a".repeat(LONGEST + 1)).ends_with('!'));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(split(&text).segments.len() <= text.len());
    }

    #[test]
    fn no_mix_of_signs_makes_it_panic(text in "[ab=\\\\'\"$(){}<>|&;#\n\t `*~\\[0-9!-]{0,80}") {
        prop_assert!(split(&text).segments.len() <= text.len());
    }
}

/// A directory with harmless programs that write down how they were called.
struct Stage {
    dir: tempfile::TempDir,
    /// Any of these may be `/bin/sh`.
    shells: Vec<&'static str>,
    /// What a subshell left running writes into the log of its own text, not into a later one.
    texts: Cell<u32>,
}

const PROGRAMS: [&str; 3] = ["aa", "bb", "cc"];
/// One record with a single write: name and arguments, each led by a unit separator.
const STUB: &str = "#!/bin/sh\nline=$(printf '\\037%s' \"${0##*/}\" \"$@\"; printf x)\nprintf '%s\\036' \"${line%x}\" >> \"$TB_LOG\"\n";

impl Stage {
    fn new() -> Self {
        let shells = ["/bin/sh", "/bin/bash"].into_iter().filter(|shell| Path::new(shell).exists()).collect();
        let stage = Self { dir: tempfile::tempdir().unwrap(), shells, texts: Cell::new(0) };
        std::fs::create_dir(stage.dir.path().join("bin")).unwrap();
        std::fs::create_dir(stage.dir.path().join("work")).unwrap();
        for name in PROGRAMS {
            let path = stage.dir.path().join("bin").join(name);
            std::fs::write(&path, STUB).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        stage
    }

    fn shell(&self, shell: &str, log: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(shell);
        command.arg0("sh").args(args).env_clear().env("PATH", self.dir.path().join("bin")).env("TB_LOG", log);
        command.current_dir(self.dir.path().join("work")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn is_valid(&self, shell: &str, text: &str) -> bool {
        self.shell(shell, Path::new("/dev/null"), &["-n", "-c", text]).status().unwrap().success()
    }

    /// What a shell runs of a text; `None` when it does not end.
    fn runs(&self, shell: &str, text: &str) -> Option<Vec<Vec<String>>> {
        self.texts.set(self.texts.get() + 1);
        let log = self.dir.path().join(format!("log{}", self.texts.get()));
        std::fs::write(&log, "").unwrap();
        let mut child = self.shell(shell, &log, &["-c", &format!("{text}\nwait")]).spawn().unwrap();
        let mut left = 2_000;
        while child.try_wait().unwrap().is_none() {
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        let text = String::from_utf8(std::fs::read(&log).unwrap()).unwrap();
        std::fs::remove_file(&log).unwrap();
        Some(text.split_terminator('\u{1e}').map(|call| call.split('\u{1f}').skip(1).map(str::to_owned).collect()).collect())
    }
}

/// Whether a segment could have become this call: an unknown word is any number of words.
fn covers(words: &[Word], call: &[String]) -> bool {
    match words.split_first() {
        None => call.is_empty(),
        Some((Word::Known(word), rest)) => call.split_first().is_some_and(|(first, call)| first == word && covers(rest, call)),
        Some((Word::Unknown, rest)) => (0..=call.len()).any(|skip| covers(rest, &call[skip..])),
    }
}

fn counted(calls: impl IntoIterator<Item = Vec<String>>) -> BTreeMap<Vec<String>, usize> {
    calls.into_iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(call).or_default() += 1;
        counts
    })
}

/// What the shell did with a text against what the splitter said of it.
fn compare(stage: &Stage, shell: &str, text: &str) -> (bool, bool) {
    let split = split(text);
    let is_plain = split.opaque.is_none() && split.segments.iter().all(|segment| segment.plain().is_some());
    if is_plain {
        assert!(stage.is_valid(shell, text), "a plain text that {shell} refuses: {text:?}");
    }
    let Some(calls) = stage.runs(shell, text) else { return (false, false) };
    if split.opaque.is_none() {
        for call in &calls {
            let is_seen = split.segments.iter().any(|segment| covers(&segment.words, call));
            assert!(is_seen, "{shell} {text:?}\nran {call:?}\nseen {:?}", split.segments);
        }
    }
    let is_exact = is_plain && !text.contains("||");
    if is_exact {
        let known = split.segments.iter().map(|segment| segment.plain().unwrap().into_iter().map(str::to_owned).collect());
        let known = counted(known)
            .into_iter()
            .filter(|(call, _): &(Vec<String>, usize)| PROGRAMS.contains(&call[0].as_str()))
            .collect::<BTreeMap<_, _>>();
        // An unknown program fails, and what stands behind its `&&` is not run.
        let is_total = split.segments.iter().all(|segment| segment.words[0].known().is_some_and(|word| PROGRAMS.contains(&word)));
        if is_total {
            assert_eq!(counted(calls), known, "{text:?}");
        }
    }
    (split.opaque.is_none(), is_exact)
}

/// Texts of pieces that are harmless in any order; loops without end and functions can not arise.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "aa",
        "bb",
        "cc",
        "aa ",
        "bb ",
        "cc ",
        " ",
        " ",
        ";",
        " && ",
        " | ",
        "\n",
        " || ",
        "'x y'",
        "\"x  y\"",
        "\\ ",
        "\\\n",
        "'",
        "\"",
        "#",
        " #z",
        "\\;",
        "=",
        "X=1 ",
        "$X",
        "\"$X\"",
        "${X}",
        "$(",
        ")",
        "(",
        ">f ",
        " 2>&1",
        "<f",
        " 2",
        "*",
        "\\$",
        "-o",
        "if ",
        "; then ",
        "; fi",
        "for x in ",
        "; do ",
        "; done",
        "! ",
        "{ ",
        "; }",
        "<<E\n",
        "\nE\n",
        "<<'E'\n",
        "~",
        "[",
        "]",
        "é",
        "\t",
        "&",
        "`",
        "$((",
        "''",
        "\\\\",
        "in",
        "do ",
        "''aa",
    ]);
    prop::collection::vec(pieces, 1..12).prop_map(|pieces| pieces.concat()).prop_filter("a function could call itself", |text| {
        let dense: String = text.chars().filter(|c| !c.is_whitespace() && *c != '\\').collect();
        !dense.contains("()")
    })
}

#[test]
fn a_real_shell_runs_nothing_that_was_not_seen() {
    let stage = Stage::new();
    let (mut read, mut exact) = (0, 0);
    let mut look = |text: &str| {
        for shell in &stage.shells {
            let (is_read, is_exact) = compare(&stage, shell, text);
            read += u32::from(is_read);
            exact += u32::from(is_exact);
        }
    };
    for text in [
        "aa x;bb 'y z' && cc \"w\" | aa",
        "aa \\\n  b # c\nbb",
        "aa <<E\nbb; cc\nE\ncc",
        "aa <<'E' | bb\n$(cc)\nE\ncc",
        "if aa; then bb $(cc 1); fi",
        "for x in 1 2; do aa $x; done",
        "for x do aa; done; bb",
        "X=1 aa; X=$(bb) cc",
        "'X'=1 aa; A$x=1 bb; X=1 if aa",
        "(aa; bb) | cc 2>&1",
        "aa \\\n#'\nbb '\ncc",
        "aa ''\"\" x''y",
        "{ aa; bb; } > f",
    ] {
        look(text);
    }
    // The same texts each time, so that a red test is the fault of a change.
    let config = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let look = std::cell::RefCell::new(&mut look);
    runner
        .run(&texts(), |text| {
            look.borrow_mut()(&text);
            Ok(())
        })
        .unwrap();
    assert!(read > 100 && exact > 30, "the comparison was empty: {read} read, {exact} exact");
}
