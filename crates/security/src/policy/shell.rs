//! Shell text, split into the commands that it would run, as far as that can be known from text.
//!
//! Not a shell: it expands nothing and runs nothing. What it does not know it says so of: a word is
//! unknown, a segment is doubtful, or the whole text is opaque. Invariants: it never panics, and every
//! command that `/bin/sh` would run from the text itself is one of the segments, or the text is opaque.

use std::iter::Peekable;
use std::str::Chars;

/// Substitutions within substitutions beyond which nothing is known any more.
const DEEPEST: u32 = 16;
/// Longest text that is looked at, in bytes.
const LONGEST: usize = 64 * 1024;
/// Built-ins that change what later words mean, or run what they are given.
const STATE: [&str; 27] = [
    ".",
    "alias",
    "builtin",
    "command",
    "declare",
    "enable",
    "eval",
    "exec",
    "export",
    "getopts",
    "hash",
    "let",
    "local",
    "mapfile",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "set",
    "shopt",
    "source",
    "trap",
    "typeset",
    "ulimit",
    "unalias",
    "unset",
];
/// Of those, the ones whose arguments are commands or hold some.
const RUNS: [&str; 8] = [".", "builtin", "command", "eval", "exec", "source", "trap", "alias"];
/// Variables whose value is a text that some program runs, or names one.
const TEXTS: [&str; 22] = [
    "BASH_ENV",
    "EDITOR",
    "ENV",
    "GIT_ASKPASS",
    "GIT_EDITOR",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "LD_PRELOAD",
    "LESSOPEN",
    "NODE_OPTIONS",
    "PAGER",
    "PERL5DB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONSTARTUP",
    "RUBYOPT",
    "SHELL",
    "VISUAL",
];
/// Words that only give structure where a command could begin.
const STRUCTURE: [&str; 12] = ["!", "{", "}", "if", "then", "else", "elif", "fi", "while", "until", "do", "done"];
/// Words that begin something which is not looked into. What is reserved in one shell only counts,
/// too, because nobody knows which shell `/bin/sh` is.
const DARK: [&str; 9] = ["case", "select", "function", "coproc", "[[", "]]", "esac", "in", "time"];

/// A word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Exactly this text.
    Known(String),
    /// One or more words, or none, that only the shell will know.
    Unknown,
}

/// One command of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its words, without redirections and assignments.
    pub words: Vec<Word>,
    /// Why no rule may allow it, although its words may be known.
    pub doubt: Option<&'static str>,
    /// Its arguments are commands themselves.
    pub launches: bool,
}

/// A text, split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Its commands in order; those of substitutions stand before the command that uses them.
    pub segments: Vec<Segment>,
    /// Why there may be commands that are no segment.
    pub opaque: Option<&'static str>,
}

impl Segment {
    /// The words, when all are known and nothing else is done.
    #[must_use]
    pub fn plain(&self) -> Option<Vec<&str>> {
        if self.doubt.is_some() {
            return None;
        }
        self.words.iter().map(Word::known).collect()
    }
}

impl Word {
    /// The text, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Unknown => None,
        }
    }
}

/// Splits a text.
#[must_use]
pub fn split(text: &str) -> Split {
    let odd = |c: char| (c.is_control() && c != '\n' && c != '\t') || (c.is_whitespace() && !c.is_ascii());
    if text.len() > LONGEST {
        return dark("it is too long to be read");
    }
    if text.chars().any(odd) {
        return dark("it holds control characters or odd blanks");
    }
    if text.starts_with(['-', '+']) {
        return dark("the shell would take it for an option");
    }
    let mut reader = Reader {
        rest: text.chars().peekable(),
        segments: Vec::new(),
        changed: None,
        is_armed: false,
        bodies: Vec::new(),
        depth: 0,
        is_compound: false,
    };
    let opaque = reader.list(false).err();
    let opaque = opaque.or_else(|| (!reader.bodies.is_empty()).then_some("it ends before a here-document"));
    if reader.is_compound {
        // Whether it is whole, and what of it runs, only a shell knows.
        reader.doubt_from(0, "it stands in a compound command");
    }
    let opaque = opaque.or_else(|| (reader.is_compound && reader.segments.is_empty()).then_some("it is only the frame of a command"));
    Split { segments: reader.segments, opaque }
}

fn dark(why: &'static str) -> Split {
    Split { segments: Vec::new(), opaque: Some(why) }
}

/// Why reading stopped.
type Stop = &'static str;

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    segments: Vec<Segment>,
    /// What an earlier command may have changed for later ones.
    changed: Option<&'static str>,
    /// A variable was set whose text some program runs.
    is_armed: bool,
    /// Here-documents whose text begins at the next line: end, and whether tabs before it go.
    bodies: Vec<Body>,
    depth: u32,
    /// Some of it is structure.
    is_compound: bool,
}

struct Body {
    end: String,
    tabs: bool,
    is_quoted: bool,
}

/// A word as it is written: its text, and what is known of it.
#[derive(Default)]
struct Raw {
    text: String,
    is_unknown: bool,
    is_quoted: bool,
    /// Where the first quote or expansion stands in the text.
    bare: Option<usize>,
}

impl Raw {
    fn quote(&mut self) {
        self.is_quoted = true;
        self.bare.get_or_insert(self.text.len());
    }

    fn expand(&mut self) {
        self.is_unknown = true;
        self.bare.get_or_insert(self.text.len());
    }

    const fn is_bare(&self) -> bool {
        !self.is_quoted && !self.is_unknown
    }
}

/// The command that is being read.
#[derive(Default)]
struct Open {
    segment: Segment,
    has_any: bool,
    /// An assignment or redirection came, so that no structure can.
    is_begun: bool,
    /// An operator before it needs a command.
    is_awaited: bool,
    /// The words of `for x in …` are no command.
    is_head: bool,
}

impl Reader<'_> {
    /// Reads commands to the end, or to the `)` that closes a substitution.
    fn list(&mut self, nested: bool) -> Result<(), Stop> {
        let mut open = Open::default();
        while let Some(c) = self.rest.peek().copied() {
            match c {
                ' ' | '\t' => {
                    self.rest.next();
                }
                '\n' => {
                    self.rest.next();
                    let awaited = open.is_awaited && !open.has_any;
                    self.close(&mut open);
                    open.is_awaited = awaited;
                    self.skip_bodies()?;
                }
                ';' | '&' | '|' => self.operator(c, &mut open)?,
                '#' => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '(' => self.subshell(&mut open)?,
                ')' if nested => {
                    self.rest.next();
                    return self.finish(&mut open);
                }
                ')' => return Err("it holds a `)` without beginning"),
                '<' | '>' => self.redirection(&mut open)?,
                _ => self.word_of(&mut open)?,
            }
        }
        if nested {
            return Err("it ends within a substitution");
        }
        self.finish(&mut open)
    }

    fn finish(&mut self, open: &mut Open) -> Result<(), Stop> {
        if open.is_awaited && !open.has_any {
            return Err("it ends after an operator");
        }
        self.close(open);
        Ok(())
    }

    fn operator(&mut self, c: char, open: &mut Open) -> Result<(), Stop> {
        self.rest.next();
        let doubled = self.rest.next_if_eq(&c).is_some();
        match (c, doubled, self.rest.peek()) {
            (';', true, _) => return Err("it holds `;;`"),
            ('&', false, Some('>')) | ('|', false, Some('&')) => return Err("shells differ in what this operator means"),
            _ => {}
        }
        if !open.has_any {
            return Err("an operator stands where a command should begin");
        }
        self.close(open);
        open.is_awaited = doubled || c == '|';
        Ok(())
    }

    fn subshell(&mut self, open: &mut Open) -> Result<(), Stop> {
        if open.has_any {
            return Err("it holds a `(` within a command");
        }
        self.rest.next();
        let before = self.segments.len();
        self.nested()?;
        self.doubt_from(before, "it runs in a subshell");
        // What follows, a redirection say, belongs to the subshell.
        open.has_any = true;
        open.segment.doubt = Some("it runs in a subshell");
        Ok(())
    }

    fn nested(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("its substitutions are too deep");
        }
        self.list(true)?;
        self.depth -= 1;
        Ok(())
    }

    fn doubt_from(&mut self, first: usize, why: &'static str) {
        self.segments.iter_mut().skip(first).for_each(|segment| segment.doubt = segment.doubt.or(Some(why)));
    }

    /// A redirection with its target; the target is no word of the command.
    fn redirection(&mut self, open: &mut Open) -> Result<(), Stop> {
        (open.has_any, open.is_begun) = (true, true);
        let mut sign = String::new();
        while let Some(c) = self.rest.next_if(|c| matches!(c, '<' | '>' | '&' | '|')) {
            sign.push(c);
            if sign.len() == 3 {
                break;
            }
        }
        if sign == "<<" && self.rest.next_if_eq(&'-').is_some() {
            sign.push('-');
        }
        if !matches!(sign.as_str(), "<" | ">" | ">>" | "<&" | ">&" | ">|" | "<>" | "<<" | "<<-") {
            return Err("it holds an unknown redirection");
        }
        while self.rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        let target = self.word()?;
        if target.text.is_empty() && target.is_bare() {
            return Err("a redirection has no target");
        }
        open.segment.doubt = open.segment.doubt.or(Some("it redirects"));
        if sign.starts_with("<<") {
            if target.is_unknown {
                return Err("the end of a here-document is not plain text");
            }
            self.bodies.push(Body { end: target.text, tabs: sign.ends_with('-'), is_quoted: target.is_quoted });
        }
        Ok(())
    }

    /// Skips the here-documents that begin here.
    fn skip_bodies(&mut self) -> Result<(), Stop> {
        if self.bodies.is_empty() {
            return Ok(());
        }
        if self.depth > 0 {
            return Err("a here-document stands in a substitution");
        }
        for body in std::mem::take(&mut self.bodies) {
            loop {
                let mut line = String::new();
                let mut ended = false;
                for c in self.rest.by_ref() {
                    ended = c == '\n';
                    if ended {
                        break;
                    }
                    line.push(c);
                }
                let shown = if body.tabs { line.trim_start_matches('\t') } else { &line };
                if shown == body.end {
                    break;
                }
                if !ended {
                    return Err("it ends within a here-document");
                }
                if !body.is_quoted && line.contains(['`', '$', '\\']) {
                    return Err("a here-document is expanded");
                }
            }
        }
        Ok(())
    }

    /// A word in its place: structure, assignment, or part of the command.
    fn word_of(&mut self, open: &mut Open) -> Result<(), Stop> {
        let raw = self.word()?;
        if raw.text.is_empty() && raw.is_bare() {
            // Only a line that goes on.
            return Ok(());
        }
        let redirects = matches!(self.rest.peek(), Some('<' | '>'));
        if redirects && raw.is_bare() && raw.text.bytes().all(|b| b.is_ascii_digit()) {
            // The number of a descriptor, `2>`.
            return Ok(());
        }
        let begins = open.segment.words.is_empty();
        open.has_any = true;
        if open.is_head {
            // `for x do …` needs no line end before its body.
            open.is_head = raw.text != "do" || !raw.is_bare();
            return Ok(());
        }
        if begins && raw.is_bare() && !open.is_begun && self.structure(&raw.text, open)? {
            return Ok(());
        }
        if begins && let Some(why) = assignment(&raw) {
            open.segment.doubt = open.segment.doubt.or(Some(why));
            open.is_begun = true;
            // Another PATH makes another program of the same name.
            self.changed = self.changed.or(Some(why));
            self.is_armed |= arms(&raw);
            return Ok(());
        }
        // `export` and its like take the same.
        self.is_armed |= arms(&raw);
        open.segment.words.push(if raw.is_unknown { Word::Unknown } else { Word::Known(raw.text) });
        Ok(())
    }

    /// Whether a first word is one of the shell's own, which only give structure.
    fn structure(&mut self, word: &str, open: &mut Open) -> Result<bool, Stop> {
        if DARK.contains(&word) {
            return Err("it holds a compound command");
        }
        let found = word == "for" || STRUCTURE.contains(&word);
        if found {
            self.is_compound = true;
            open.is_head = word == "for";
        }
        Ok(found)
    }

    /// Ends the command that is being read.
    fn close(&mut self, open: &mut Open) {
        let Open { mut segment, is_begun, .. } = std::mem::take(open);
        if segment.words.is_empty() && !is_begun {
            return;
        }
        segment.doubt = segment.doubt.or(self.changed);
        segment.launches |= self.is_armed;
        match segment.words.first() {
            Some(Word::Known(name)) if STATE.contains(&name.as_str()) || sets(name, segment.words.get(1)) => {
                segment.doubt = segment.doubt.or(Some("it changes the shell itself"));
                segment.launches |= RUNS.contains(&name.as_str());
                self.changed = self.changed.or(Some("an earlier command changed the shell itself"));
            }
            Some(Word::Unknown) => self.changed = self.changed.or(Some("an earlier command is not known")),
            _ => {}
        }
        if segment.words.contains(&Word::Unknown) {
            segment.doubt = segment.doubt.or(Some("the shell expands its words"));
        }
        self.segments.push(segment);
    }

    /// One word, to the next blank or operator.
    fn word(&mut self) -> Result<Raw, Stop> {
        let mut raw = Raw::default();
        while let Some(c) = self.rest.next_if(|c| !matches!(c, ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')')) {
            match c {
                '\\' => match self.rest.next() {
                    // What follows may be a comment, so it is looked at afresh.
                    Some('\n') if raw.text.is_empty() && raw.is_bare() => return Ok(raw),
                    Some('\n') => {}
                    Some(c) => {
                        raw.quote();
                        raw.text.push(c);
                    }
                    None => return Err("it ends with a backslash"),
                },
                '\'' => self.single(&mut raw)?,
                '"' => self.double(&mut raw)?,
                '$' => self.dollar(&mut raw)?,
                '`' => return Err("it holds backquotes"),
                // `[` alone is a command, and a brace alone is structure.
                '[' | '{' if raw.text.is_empty() && self.ends_here() => raw.text.push(c),
                '*' | '?' | '[' | '{' | '~' => {
                    raw.expand();
                    raw.text.push(c);
                }
                c => raw.text.push(c),
            }
        }
        Ok(raw)
    }

    /// Whether the word ends before the next sign.
    fn ends_here(&mut self) -> bool {
        self.rest.peek().is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')'))
    }

    fn single(&mut self, raw: &mut Raw) -> Result<(), Stop> {
        raw.quote();
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(c) => raw.text.push(c),
                None => return Err("a quote is not closed"),
            }
        }
    }

    fn double(&mut self, raw: &mut Raw) -> Result<(), Stop> {
        raw.quote();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('\\') => match self.rest.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => raw.text.push(c),
                    Some(c) => raw.text.extend(['\\', c]),
                    None => return Err("a quote is not closed"),
                },
                Some('$') => self.dollar(raw)?,
                Some('`') => return Err("it holds backquotes"),
                Some(c) => raw.text.push(c),
                None => return Err("a quote is not closed"),
            }
        }
    }

    /// An expansion; commands within it are segments of their own.
    fn dollar(&mut self, raw: &mut Raw) -> Result<(), Stop> {
        raw.expand();
        match self.rest.peek() {
            Some('(') => {
                self.rest.next();
                if self.rest.peek() == Some(&'(') {
                    return Err("it holds arithmetic");
                }
                let before = self.segments.len();
                let changed = self.changed;
                let bodies = std::mem::take(&mut self.bodies);
                self.nested()?;
                if !self.bodies.is_empty() {
                    return Err("a here-document stands in a substitution");
                }
                self.bodies = bodies;
                // A substitution is a shell of its own: what it changes stays there.
                self.changed = changed;
                self.doubt_from(before, "it runs in a substitution");
            }
            Some('{') => {
                self.rest.next();
                loop {
                    match self.rest.next() {
                        Some('}') => break,
                        Some('$' | '`' | '\'' | '"' | '\\' | '{') | None => return Err("an expansion holds more than a name"),
                        Some(_) => {}
                    }
                }
            }
            Some('\'' | '"') => return Err("shells differ in what a dollar before a quote means"),
            // A name follows and is read as part of the unknown word.
            _ => {}
        }
        Ok(())
    }
}

/// `printf -v` sets a variable in some shells.
fn sets(name: &str, first: Option<&Word>) -> bool {
    name == "printf" && first.is_some_and(|word| word.known().is_none_or(|text| text.starts_with("-v")))
}

/// Whether a word before the command sets a variable: its name and `=` are neither quoted nor expanded.
fn assignment(raw: &Raw) -> Option<&'static str> {
    let at = raw.text.find('=').filter(|at| raw.bare.is_none_or(|bare| *at < bare))?;
    let name = raw.text.get(..at)?;
    // Some shells append with `+=`; for the others it is a command of that name, which nobody has.
    let name = name.strip_suffix('+').unwrap_or(name);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.bytes().all(is_name_byte);
    is_name.then_some("it sets a variable")
}

/// Whether a word sets a variable whose text some program runs, and to more than what shows or says nothing.
fn arms(raw: &Raw) -> bool {
    let Some((name, value)) = raw.text.split_once('=') else { return false };
    let is_idle = !raw.is_unknown && matches!(value, "cat" | "true" | ":");
    !is_idle && TEXTS.contains(&name.strip_suffix('+').unwrap_or(name))
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests;
