//! A rule, and whether it matches.
//!
//! Pure, but for looking up programs. Invariants: an `allow` matches only what is known to the last
//! word; an `ask` or `forbid` that might match is never taken for one that does not.

use super::launch;
use super::options::Decision;
use super::shell::{Segment, Word};
use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_core::port::Level;
use tinkerbell_core::protected::is_protected_file;

/// Runners behind runners beyond which nobody looks.
const DEEPEST: usize = 4;

/// A rule that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// What it says.
    pub decision: Decision,
    /// Why.
    pub why: Option<String>,
    /// Which calls it is about at all.
    pub scope: Scope,
    /// What of them.
    pub subject: Subject,
}

/// Which calls a rule is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Tools, `*` in a name is any text; empty is all.
    pub tools: Vec<String>,
    /// Only tools of MCP servers, or only others.
    pub mcp: Option<bool>,
    /// Only tools of MCP servers that are read-only by the operator's word, or only the others of them.
    pub read_only: Option<bool>,
    /// Levels; empty is all.
    pub levels: Vec<Level>,
    /// Only those that run commands, or only those that do not.
    pub runs: Option<bool>,
    /// Only those that write files, or only those that do not.
    pub writes: Option<bool>,
    /// Only those that delete more files.
    pub deletes_over: Option<u32>,
}

/// What of a call a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The call as a whole.
    Call,
    /// Each command of its text.
    Command(CommandRule),
    /// Each path that it would write.
    Paths(Vec<Pattern>),
}

/// The beginning of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRule {
    /// Alternatives per word.
    pub argv: Vec<Vec<String>>,
    /// Words that must not follow.
    pub without: Vec<String>,
    /// Which program it must be.
    pub program: Option<Program>,
}

/// Which program a first word must mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// One that is found outside the workspace.
    Toolchain,
    /// This very one.
    Path(PathBuf),
}

/// A call, as far as rules look at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call<'a> {
    /// The tool; `server.tool` for one of an MCP server.
    pub tool: &'a str,
    /// For a tool of an MCP server: whether it is read-only by the operator's word.
    pub mcp: Option<bool>,
    /// Whether it runs or feeds a command.
    pub runs: bool,
    /// The level that a command gets.
    pub level: Option<Level>,
    /// Paths that it would write.
    pub writes: &'a [String],
    /// Tracked files that it would delete.
    pub deletes: u32,
}

/// How sure a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    /// It does not match.
    No,
    /// Only the shell would know.
    Maybe,
    /// It matches.
    Yes,
}

/// A command with what every rule asks of it, found out once.
pub struct Look<'a> {
    words: Cow<'a, [Word]>,
    /// Its words, when all are known and nothing else is done.
    plain: Option<Vec<&'a str>>,
    /// The program's name, if it is known.
    name: Option<&'a str>,
    /// It may run others that are not its own words' beginning.
    hides: bool,
    /// What it runs as another command, by its own words: `git push` of `npx git push`.
    inner: Vec<Look<'a>>,
}

impl<'a> Look<'a> {
    /// Looks at a command.
    #[must_use]
    pub fn of(segment: &'a Segment) -> Self {
        let (mut words, mut inner, mut hides) = (segment.words.as_slice(), Vec::new(), segment.launches);
        while let Some(behind) = launch::behind(words) {
            let Some(rest) = behind.filter(|_| inner.len() < DEEPEST) else {
                hides = true;
                break;
            };
            words = rest;
            inner.push(Self::plainly(rest));
        }
        Self { plain: segment.plain(), hides: hides || launch::hides(&segment.words), inner, ..Self::plainly(&segment.words) }
    }

    /// A command without what runs behind it. `git-push` is git's, and so is what git calls by such a name.
    fn plainly(words: &'a [Word]) -> Self {
        let name = words.first().and_then(Word::known).map(|word| word.rsplit('/').next().unwrap_or(word));
        let (words, name) = match name.and_then(|name| name.strip_prefix("git-")).filter(|sub| !sub.is_empty()) {
            Some(sub) => {
                let own = ["git", sub].map(|word| Word::Known(word.to_owned()));
                (Cow::Owned(own.iter().chain(words.iter().skip(1)).cloned().collect()), Some("git"))
            }
            None => (Cow::Borrowed(words), name),
        };
        Self { hides: launch::hides(&words), words, plain: None, name, inner: Vec::new() }
    }

    /// How much of it a rule may have to look at.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + self.words.len() + self.inner.iter().map(Self::size).sum::<usize>()
    }
}

/// Where programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The directories of PATH, in order.
    pub path: Vec<PathBuf>,
    /// What the model can write to.
    pub workspace: Vec<PathBuf>,
}

impl Scope {
    /// Whether it says which kind of tool it is about, so that its rule settles calls of such tools. A
    /// word about all tools is not meant for those of servers, which come and go.
    #[must_use]
    pub fn names_tools(&self) -> bool {
        !self.tools.is_empty() || self.runs.is_some() || self.mcp == Some(true) || self.read_only.is_some()
    }

    /// Whether a call is one of them.
    #[must_use]
    pub fn holds(&self, call: &Call<'_>) -> bool {
        (self.tools.is_empty() || self.tools.iter().any(|tool| fits_name(tool, call.tool)))
            && self.mcp.is_none_or(|mcp| mcp == call.mcp.is_some())
            && self.read_only.is_none_or(|read_only| call.mcp == Some(read_only))
            && (self.levels.is_empty() || call.level.is_some_and(|level| self.levels.contains(&level)))
            && self.runs.is_none_or(|runs| runs == call.runs)
            && self.writes.is_none_or(|writes| writes != call.writes.is_empty())
            && self.deletes_over.is_none_or(|most| call.deletes > most)
    }
}

impl CommandRule {
    /// Whether an `allow` covers a command; `programs` of `None` takes any program for the right one.
    #[must_use]
    pub fn allows(&self, look: &Look<'_>, programs: Option<&Programs>) -> bool {
        let Some(words) = &look.plain else { return false };
        let begins = words.len() >= self.argv.len() && self.argv.iter().zip(words).all(|(any, word)| any.iter().any(|one| one == word));
        let rest = words.get(self.argv.len()..).unwrap_or_default();
        begins && !rest.iter().any(|word| self.without.iter().any(|option| is_near(word, option))) && self.is_program(words, programs)
    }

    /// Whether an `ask` or `forbid` concerns a command.
    #[must_use]
    pub fn tightens(&self, look: &Look<'_>) -> Hit {
        let hit = self.begins(look);
        let might = || look.hides || look.inner.iter().any(|inner| inner.hides || self.begins(inner) != Hit::No);
        if hit == Hit::No && might() { Hit::Maybe } else { hit }
    }

    fn begins(&self, look: &Look<'_>) -> Hit {
        let words = look.words.as_ref();
        let mut given = words.iter();
        for (at, any) in self.argv.iter().enumerate() {
            match given.next() {
                None => return Hit::No,
                Some(Word::Unknown) => return Hit::Maybe,
                Some(Word::Known(word)) => {
                    let bare = if at == 0 { look.name.unwrap_or(word) } else { word };
                    if any.iter().any(|one| one == word || one == bare) {
                        continue;
                    }
                    // `git -C dir push` is a push, too.
                    let is_option = at > 0 && word.starts_with('-') && !any.iter().any(|one| one.starts_with('-'));
                    return if is_option && self.comes_later(at, words) { Hit::Maybe } else { Hit::No };
                }
            }
        }
        let excused = |word: &Word| word.known().is_some_and(|word| self.without.iter().any(|option| is_same(word, option)));
        if given.any(excused) { Hit::No } else { Hit::Yes }
    }

    /// Whether the words from `at` on come somewhere later, in order.
    fn comes_later(&self, at: usize, words: &[Word]) -> bool {
        let mut rest = words.iter().skip(at);
        let matches = |any: &Vec<String>, word: &Word| word.known().is_none_or(|word| any.iter().any(|one| one == word));
        self.argv.iter().skip(at).all(|any| rest.any(|word| matches(any, word)))
    }

    fn is_program(&self, words: &[&str], programs: Option<&Programs>) -> bool {
        let (Some(wanted), Some(word)) = (&self.program, words.first()) else { return true };
        match (wanted, programs) {
            (Program::Toolchain, None) => !word.contains('/'),
            (Program::Path(path), None) => !word.contains('/') || Path::new(word) == path,
            (Program::Toolchain, Some(programs)) => programs.find(word).is_some_and(|found| programs.is_outside(&found)),
            (Program::Path(path), Some(programs)) => {
                let real = path.canonicalize();
                real.is_ok_and(|real| programs.find(word).is_some_and(|found| found == real))
            }
        }
    }
}

/// Whether a word is an option, for a rule that would allow: what might be it counts.
fn is_near(word: &str, option: &str) -> bool {
    let short = option.strip_prefix('-').filter(|letter| !letter.starts_with('-') && letter.chars().count() == 1);
    let clustered = short.is_some_and(|letter| word.starts_with('-') && !word.starts_with("--") && word.contains(letter));
    // Many programs take `--conf` for `--config`.
    let cut = option.starts_with("--") && word.len() > 2 && option.starts_with(word.split('=').next().unwrap_or(word));
    clustered || cut || word.starts_with(option)
}

fn is_same(word: &str, option: &str) -> bool {
    word == option || word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
}

impl Programs {
    /// From the value of PATH.
    #[must_use]
    pub fn of(path: &str, workspace: Vec<PathBuf>) -> Self {
        Self { path: path.split(':').map(PathBuf::from).collect(), workspace }
    }

    /// What a first word would start, links followed; `None` when nobody can say.
    fn find(&self, word: &str) -> Option<PathBuf> {
        if word.contains('/') {
            return Path::new(word).is_absolute().then(|| Path::new(word).canonicalize().ok()).flatten();
        }
        for dir in &self.path {
            if !dir.is_absolute() {
                // Where a relative one leads depends on where the command stands.
                return None;
            }
            let file = dir.join(word);
            if file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0) {
                return if self.is_outside(&file) { file.canonicalize().ok() } else { None };
            }
        }
        None
    }

    fn is_outside(&self, path: &Path) -> bool {
        !self.workspace.iter().any(|root| path.starts_with(root) || root.canonicalize().is_ok_and(|root| path.starts_with(root)))
    }
}

/// A pattern of paths, matched without regard to case, as protected names are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The protected set.
    Protected,
    /// Names from the root; `**` is any number of them, `*` within one is any text.
    Names(Vec<String>),
}

impl Pattern {
    /// Reads a pattern; one without `/` holds at every depth.
    ///
    /// # Errors
    /// Why it can never match.
    pub fn read(text: &str) -> Result<Self, String> {
        if text == "@protected" {
            return Ok(Self::Protected);
        }
        let names: Vec<String> = text.split('/').filter(|name| !matches!(*name, "" | ".")).map(|name| name.to_ascii_lowercase()).collect();
        if text.starts_with('/') || names.is_empty() || names.iter().any(|name| name == "..") {
            return Err(format!("`{text}` can never match: paths are relative to the worktree's root"));
        }
        let floats = !text.trim_end_matches('/').contains('/');
        Ok(Self::Names(if floats { [vec!["**".to_owned()], names].concat() } else { names }))
    }

    /// How many names a path may have to be held against.
    #[must_use]
    pub const fn size(&self) -> usize {
        match self {
            Self::Protected => 1,
            Self::Names(names) => 1 + names.len(),
        }
    }

    /// Whether a path, or a directory above it, fits.
    #[must_use]
    pub fn matches(&self, path: &Target<'_>) -> bool {
        match self {
            Self::Protected => path.is_protected,
            Self::Names(names) => fits(names, &path.parts),
        }
    }
}

/// A path with what every pattern asks of it, found out once.
#[derive(Debug)]
pub struct Target<'a> {
    /// As it was given.
    pub path: &'a str,
    /// Its names in lower case, `.` and `..` resolved.
    parts: Vec<String>,
    is_protected: bool,
}

impl<'a> Target<'a> {
    /// How many names a pattern may have to be held against.
    #[must_use]
    pub const fn size(&self) -> usize {
        1 + self.parts.len()
    }

    /// Looks at a path.
    #[must_use]
    pub fn of(path: &'a str) -> Self {
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part.to_ascii_lowercase()),
            }
        }
        Self { path, parts, is_protected: is_protected_file(path) }
    }
}

/// Whether the names fit a beginning of the parts. Name by name, with all places where the names so far
/// may end: a repository writes patterns, and trying every way through several `**` would take for ever.
fn fits(names: &[String], parts: &[String]) -> bool {
    let mut ends = vec![false; parts.len() + 1];
    if let Some(first) = ends.first_mut() {
        *first = true;
    }
    for name in names {
        if !ends.contains(&true) {
            return false;
        }
        if name == "**" {
            let mut open = false;
            for end in &mut ends {
                open |= *end;
                *end = open;
            }
            continue;
        }
        // From behind, so that each place is still that of the names before.
        for at in (0..parts.len()).rev() {
            let is_end = ends.get(at).is_some_and(|end| *end) && parts.get(at).is_some_and(|part| fits_name(name, part));
            if let Some(end) = ends.get_mut(at + 1) {
                *end = is_end;
            }
        }
        if let Some(first) = ends.first_mut() {
            *first = false;
        }
    }
    ends.contains(&true)
}

fn fits_name(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(before) = last.replace(piece) {
            let Some((_, after)) = str::split_once(rest, before) else { return false };
            rest = after;
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
#[test]
fn many_stars_take_no_longer_than_few() {
    let names: Vec<String> = "**/a".split('/').cycle().take(64).chain(["z"]).map(str::to_owned).collect();
    let parts = vec!["a".to_owned(); 60];
    assert!(!fits(&names, &parts));
    let words = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    for (pattern, path, want) in [
        ("db/**", "db", true),
        ("db/**", "db/a/b", true),
        ("**/x", "a/b/x/y", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/c/d/b", true),
        ("a/**/b", "a/c", false),
        ("a/b", "a", false),
        ("a/*.sql", "a/7.sql", true),
        ("**/a/**/b/**", "x/a/y/b", true),
    ] {
        assert_eq!(fits(&words(pattern), &words(path)), want, "{pattern} {path}");
    }
}
