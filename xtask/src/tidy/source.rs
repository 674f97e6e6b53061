//! Rust source as the rules see it: comments and literals told apart from code.
//!
//! A scanner by hand, not a parser: rules need lines, braces and words, and a parser would cost
//! more build time than the rest of the chores. Invariant: masked text has the same characters per
//! line as the original, so positions found in one hold in the other.

use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Literal,
    Comment,
}

/// A scanned source file.
#[derive(Debug)]
pub struct Source {
    chars: Vec<char>,
    kinds: Vec<Kind>,
}

impl Source {
    /// Scans a file.
    pub fn scan(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut scanner = Scanner { chars: &chars, kinds: Vec::with_capacity(chars.len()) };
        while scanner.kinds.len() < chars.len() {
            scanner.step();
        }
        let mut kinds = scanner.kinds;
        kinds.truncate(chars.len());
        Self { chars, kinds }
    }

    /// Returns the text with comments and the insides of literals replaced by spaces.
    pub fn code(&self) -> String {
        self.keep(Kind::Code)
    }

    /// Returns the text with everything but literals replaced by spaces.
    pub fn literals(&self) -> String {
        self.keep(Kind::Literal)
    }

    fn keep(&self, wanted: Kind) -> String {
        let masked = |(&sign, &kind)| if kind == wanted || sign == '\n' { sign } else { ' ' };
        self.chars.iter().zip(&self.kinds).map(masked).collect()
    }
}

/// Returns the ranges of lines (from 0) that `#[cfg(test)] mod … { … }` blocks take in code.
pub fn test_blocks(code: &str) -> Vec<Range<usize>> {
    inline_modules(code).into_iter().filter(|module| module.is_test).map(|module| module.lines).collect()
}

/// Returns the lines of code without those of its test blocks; their numbers start at 1.
pub fn without_tests(code: &str) -> Vec<(usize, &str)> {
    let blocks = test_blocks(code);
    let lines = code.lines().enumerate();
    lines.filter(|(index, _)| !blocks.iter().any(|block| block.contains(index))).map(|(index, line)| (index + 1, line)).collect()
}

/// Returns the numbered lines of a Markdown page that stand outside of fenced code.
pub fn outside_fences(page: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut outside = Vec::new();
    for (index, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            outside.push((index + 1, line));
        }
    }
    outside
}

/// A module with its body in the same file.
#[derive(Debug, PartialEq, Eq)]
pub struct Inline {
    /// Its name.
    pub name: String,
    /// Whether `#[cfg(test)]` stands before it.
    pub is_test: bool,
    /// Lines from its attributes to its closing brace, from 0.
    pub lines: Range<usize>,
}

/// Finds inline modules in masked code.
pub fn inline_modules(code: &str) -> Vec<Inline> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = module_opened(line) else { continue };
        let mut first = index;
        let mut is_test = line.contains("cfg(test)");
        while let Some(above) = first.checked_sub(1).and_then(|above| lines.get(above)) {
            if !above.trim_start().starts_with("#[") {
                break;
            }
            is_test |= above.contains("cfg(test)");
            first -= 1;
        }
        let last = closing_line(&lines, index);
        found.push(Inline { name: name.to_owned(), is_test, lines: first..last + 1 });
    }
    found
}

/// Returns the name where a line opens a module with a body.
fn module_opened(line: &str) -> Option<&str> {
    let head = line.split_once('{')?.0;
    let mut words = head.split_whitespace().rev();
    let name = words.next()?;
    (words.next()? == "mod").then_some(name)
}

/// Returns the line on which the first brace after the start of `from` is closed again.
fn closing_line(lines: &[&str], from: usize) -> usize {
    let mut depth = 0_i32;
    for (index, line) in lines.iter().enumerate().skip(from) {
        for sign in line.chars() {
            match sign {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return index;
                    }
                }
                _ => {}
            }
        }
    }
    lines.len().saturating_sub(1)
}

struct Scanner<'a> {
    chars: &'a [char],
    kinds: Vec<Kind>,
}

impl Scanner<'_> {
    fn at(&self, offset: usize) -> char {
        self.chars.get(self.kinds.len() + offset).copied().unwrap_or('\0')
    }

    fn take(&mut self, count: usize, kind: Kind) {
        self.kinds.extend(std::iter::repeat_n(kind, count));
    }

    fn at_end(&self) -> bool {
        self.kinds.len() >= self.chars.len()
    }

    /// Whether the sign before belongs to a word: then `r"` is no raw string but the end of a name.
    fn inside_word(&self) -> bool {
        let before = self.kinds.len().checked_sub(1).and_then(|index| self.chars.get(index));
        before.is_some_and(|sign| sign.is_alphanumeric() || *sign == '_')
    }

    fn step(&mut self) {
        match (self.at(0), self.at(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.inside_word() && self.raw_hashes(1).is_some() => self.raw_string(1),
            ('b' | 'c', 'r') if !self.inside_word() && self.raw_hashes(2).is_some() => self.raw_string(2),
            ('\'', _) => self.quote(),
            _ => self.take(1, Kind::Code),
        }
    }

    fn line_comment(&mut self) {
        while !self.at_end() && self.at(0) != '\n' {
            self.take(1, Kind::Comment);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while !self.at_end() {
            match (self.at(0), self.at(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.take(2, Kind::Comment);
                }
                ('*', '/') => {
                    depth -= 1;
                    self.take(2, Kind::Comment);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.take(1, Kind::Comment),
            }
        }
    }

    fn string(&mut self) {
        self.take(1, Kind::Code);
        while !self.at_end() {
            match self.at(0) {
                '\\' => self.take(2, Kind::Literal),
                '"' => {
                    self.take(1, Kind::Code);
                    return;
                }
                _ => self.take(1, Kind::Literal),
            }
        }
    }

    /// Counts the hashes of a raw string's opening, `prefix` signs further on.
    fn raw_hashes(&self, prefix: usize) -> Option<usize> {
        let mut hashes = 0;
        while self.at(prefix + hashes) == '#' {
            hashes += 1;
        }
        (self.at(prefix + hashes) == '"').then_some(hashes)
    }

    fn raw_string(&mut self, prefix: usize) {
        let hashes = self.raw_hashes(prefix).unwrap_or(0);
        self.take(prefix + hashes + 1, Kind::Code);
        while !self.at_end() {
            let closes = self.at(0) == '"' && (1..=hashes).all(|offset| self.at(offset) == '#');
            if closes {
                self.take(1 + hashes, Kind::Code);
                return;
            }
            self.take(1, Kind::Literal);
        }
    }

    /// A character, or the tick of a lifetime.
    fn quote(&mut self) {
        if self.at(1) == '\\' {
            self.take(1, Kind::Code);
            self.take(2, Kind::Literal);
            while !self.at_end() && self.at(0) != '\'' {
                self.take(1, Kind::Literal);
            }
            self.take(1, Kind::Code);
        } else if self.at(2) == '\'' {
            self.take(1, Kind::Code);
            self.take(1, Kind::Literal);
            self.take(1, Kind::Code);
        } else {
            self.take(1, Kind::Code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, inline_modules, test_blocks, without_tests};

    #[test]
    fn comments_and_literals_are_no_code() {
        let check = |text: &str, code: &str| assert_eq!(Source::scan(text).code().trim_end(), code, "{text}");
        check("let a = 1; // {", "let a = 1;");
        check("a /* { /* } */ { */ b", "a                   b");
        check(r#"f("{", x)"#, r#"f(" ", x)"#);
        check(r#"f("\"{", x)"#, r#"f("   ", x)"#);
        check("f('{', '\\'', '\"')", "f(' ', '  ', ' ')");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("r#\"}\"#.len()", "r#\" \"#.len()");
        check("br\"}\" + for\"{\"", "br\" \" + for\" \"");
        check("'\\u{7b}' {", "'      ' {");
    }

    #[test]
    fn literals_are_found_without_the_rest() {
        let literals = Source::scan("x(\"TB-A-001\") // TB-B-002\n").literals();
        assert!(literals.contains("TB-A-001") && !literals.contains("TB-B-002"), "{literals}");
    }

    #[test]
    fn test_modules_are_found_to_their_closing_brace() {
        let code = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        assert_eq!(test_blocks(code).first(), Some(&(1..6)));
        let left: Vec<usize> = without_tests(code).into_iter().map(|(line, _)| line).collect();
        assert_eq!(left, [1, 7]);
    }

    #[test]
    fn inline_modules_have_names() {
        let modules = inline_modules("pub(crate) mod format {\n    struct A;\n}\nmod other;\n");
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["format"]);
        assert!(modules.iter().all(|module| !module.is_test && module.lines == (0..3)));
    }
}
