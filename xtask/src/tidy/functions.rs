//! Walls of functions: 70 lines, 5 parameters besides `self`; tests do not count.
//!
//! Works on masked code with brackets alone. Function pointers, closures and macro patterns have no
//! name after `fn` and are left out.

use super::source::{Source, test_blocks};
use super::{File, Finding, is_own_rust, is_test_file};

const LINES: usize = 70;
const PARAMETERS: usize = 5;

/// A function with its size.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Line of `fn`, from 1.
    line: usize,
    /// From `fn` to the closing brace; 0 without a body.
    lines: usize,
    parameters: usize,
}

/// Checks every function of the house.
pub fn check(files: &[File]) -> Vec<Finding> {
    let own = files.iter().filter(|file| is_own_rust(&file.path) && !is_test_file(&file.path));
    own.flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let code = Source::scan(&file.text).code();
    let tests = test_blocks(&code);
    let mut found = Vec::new();
    for function in functions(&code) {
        let Function { name, line, lines, parameters } = function;
        if tests.iter().any(|block| block.contains(&(line - 1))) {
            continue;
        }
        if lines > LINES {
            let message = format!("`{name}` has {lines} lines; {LINES} is the wall: one decides, helpers compute");
            found.push(Finding::new("function-length", &file.path, line, message));
        }
        if parameters > PARAMETERS {
            let message = format!("`{name}` takes {parameters} parameters; {PARAMETERS} is the most: name a type");
            found.push(Finding::new("parameters", &file.path, line, message));
        }
    }
    found
}

fn functions(code: &str) -> Vec<Function> {
    let signs: Vec<char> = code.chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    for (at, sign) in signs.iter().enumerate() {
        if *sign == '\n' {
            line += 1;
        }
        if let Some(function) = function_at(&signs, at, line) {
            found.push(function);
        }
    }
    found
}

fn sign(signs: &[char], at: usize) -> char {
    signs.get(at).copied().unwrap_or('\0')
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// Reads a function whose keyword `fn` stands at this place.
fn function_at(signs: &[char], at: usize, line: usize) -> Option<Function> {
    let keyword = sign(signs, at) == 'f' && sign(signs, at + 1) == 'n' && sign(signs, at + 2).is_whitespace();
    if !keyword || at.checked_sub(1).is_some_and(|before| is_word(sign(signs, before))) {
        return None;
    }
    let mut cursor = skip_space(signs, at + 2);
    let start = cursor;
    while is_word(sign(signs, cursor)) {
        cursor += 1;
    }
    if cursor == start {
        return None;
    }
    let name: String = signs.get(start..cursor)?.iter().collect();
    cursor = skip_space(signs, cursor);
    if sign(signs, cursor) == '<' {
        cursor = skip_space(signs, after_angles(signs, cursor));
    }
    if sign(signs, cursor) != '(' {
        return None;
    }
    let close = matching(signs, cursor);
    let parameters = count_parameters(signs.get(cursor + 1..close)?);
    let lines =
        body_end(signs, close).map_or(0, |end| 1 + signs.get(at..end).map_or(0, |body| body.iter().filter(|sign| **sign == '\n').count()));
    Some(Function { name, line, lines, parameters })
}

fn skip_space(signs: &[char], mut at: usize) -> usize {
    while sign(signs, at).is_whitespace() {
        at += 1;
    }
    at
}

/// Returns the place behind the `>` that closes the `<` at this place; `->` closes nothing.
fn after_angles(signs: &[char], mut at: usize) -> usize {
    let mut depth = 0_i32;
    while at < signs.len() {
        match sign(signs, at) {
            '<' => depth += 1,
            '>' if sign(signs, at - 1) != '-' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// Returns the place of the bracket that closes the one at this place.
fn matching(signs: &[char], mut at: usize) -> usize {
    let mut depth = 0_i32;
    while at < signs.len() {
        match sign(signs, at) {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// Returns the closing brace of the body that follows a parameter list; `None` without a body.
fn body_end(signs: &[char], close: usize) -> Option<usize> {
    let mut at = close + 1;
    while at < signs.len() {
        match sign(signs, at) {
            ';' => return None,
            '{' => return Some(matching(signs, at)),
            '(' | '[' => at = matching(signs, at) + 1,
            _ => at += 1,
        }
    }
    None
}

fn count_parameters(list: &[char]) -> usize {
    let mut depth = 0_i32;
    let mut parts = vec![String::new()];
    for (at, sign) in list.iter().enumerate() {
        match sign {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if at > 0 && list.get(at - 1) == Some(&'-') => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(*sign);
        }
    }
    parts.iter().filter(|part| !part.trim().is_empty() && !is_self(part)).count()
}

fn is_self(parameter: &str) -> bool {
    let name = parameter.split(':').next().unwrap_or_default();
    name.split(|sign: char| !is_word(sign)).any(|word| word == "self")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, lines};
    use super::{check, functions};

    #[test]
    fn signatures_are_measured() {
        let check = |code: &str, expected: &[(&str, usize, usize)]| {
            let found = functions(code);
            let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines, f.parameters)).collect();
            assert_eq!(found, expected, "{code}");
        };
        check("fn a() {}", &[("a", 1, 0)]);
        check("pub async fn a(&self, b: u8, c: [u8; 3]) -> X {\n}", &[("a", 2, 2)]);
        check("fn a<F: Fn(u8) -> u8>(f: F, g: impl Fn(u8, u8) -> (u8, u8)) where F: Copy { f(1) }", &[("a", 1, 2)]);
        check("fn a<'a>(self: Box<Self>, m: Map<K, V>,) -> [u8; 2];", &[("a", 0, 1)]);
        check("let f: fn(u8) = g; macro! { fn $name() {} }", &[]);
        check("fn a() {\n  fn b(x: u8) {\n  }\n}", &[("a", 4, 0), ("b", 2, 1)]);
        check("defn a() {}", &[]);
    }

    #[test]
    fn long_and_wide_functions_are_found_outside_tests() {
        let long = format!("fn long() {{\n{}}}\n", "    a();\n".repeat(69));
        let fits = format!("fn fits() {{\n{}}}\n", "    a();\n".repeat(68));
        let wide = "fn wide(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {}\n";
        let text = format!("{fits}{wide}{long}#[cfg(test)]\nmod tests {{\n{long}{wide}}}\n");
        let found = check(&[file("crates/wal/src/a.rs", &text), file("crates/wal/tests/it.rs", &long)]);
        assert_eq!(lines(&found), ["crates/wal/src/a.rs:71 parameters", "crates/wal/src/a.rs:72 function-length"]);
    }
}
