//! Finding whole JSON records in the damaged files that other agents leave behind.
//!
//! Pure, over bytes. Known damage: a torn last line, a torn line with the next record glued to it,
//! runs of NUL bytes where the file was extended but never written, raw line breaks inside strings,
//! half a surrogate pair, bytes that are not UTF-8. Invariant: every record that stands whole in the
//! file is handed out once, in order; every other byte is accounted for as lost or as padding.

use serde_json::Value;

/// Lines that one record with raw line breaks may span.
const SPAN_LINES: usize = 4_096;

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it begins.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
    /// What it says.
    pub value: Value,
    /// Its text, where that had to be mended.
    pub mended: Option<String>,
}

/// Bytes of which nothing whole is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Where they begin.
    pub from: usize,
    /// Where they end.
    pub to: usize,
}

/// All that a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// Records in order.
    pub records: Vec<Record>,
    /// Fragments.
    pub lost: Vec<Lost>,
    /// NUL bytes that stand where nothing was written.
    pub nul_bytes: usize,
}

/// Scans lines of JSON. `is_record` tells a record of its own from an object inside another one; it
/// is asked only about objects that follow a torn one on the same line.
pub fn lines(bytes: &[u8], is_record: &dyn Fn(&Value) -> bool) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while at < bytes.len() {
        at = padding(bytes, at, &mut scan);
        if at >= bytes.len() {
            break;
        }
        let end = end_of_line(bytes, at);
        at = match whole(bytes, at, end).or_else(|| glued(bytes, at, end, is_record)).or_else(|| broken(bytes, at, is_record)) {
            Some(record) => {
                if record.from > at {
                    scan.lost.push(Lost { from: at, to: record.from });
                }
                let next = record.to;
                scan.records.push(record);
                next
            }
            None => {
                scan.lost.push(Lost { from: at, to: end });
                end
            }
        };
    }
    scan
}

/// Scans the elements of an array that begins at `at`, behind its bracket.
pub fn elements(bytes: &[u8], mut at: usize) -> Scan {
    let mut scan = Scan::default();
    loop {
        at = padding(bytes, at, &mut scan);
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return scan,
            None => return scan,
            Some(_) => match balanced(bytes, at, usize::MAX).and_then(|to| record(bytes, at, to)) {
                Some(record) => {
                    at = record.to;
                    scan.records.push(record);
                }
                None => {
                    scan.lost.push(Lost { from: at, to: bytes.len() });
                    return scan;
                }
            },
        }
    }
}

/// Passes over blanks and NUL bytes.
fn padding(bytes: &[u8], mut at: usize, scan: &mut Scan) -> usize {
    while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_whitespace() || **byte == 0) {
        scan.nul_bytes += usize::from(*byte == 0);
        at += 1;
    }
    // A byte order mark is nobody's record.
    if bytes.get(at..).is_some_and(|rest| rest.starts_with(b"\xef\xbb\xbf")) { padding(bytes, at + 3, scan) } else { at }
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |len| at + len)
}

/// A line that is one object, with NUL bytes behind it at most.
fn whole(bytes: &[u8], from: usize, end: usize) -> Option<Record> {
    let line = bytes.get(from..end)?;
    let len = line.iter().rposition(|byte| *byte != 0 && !byte.is_ascii_whitespace())? + 1;
    record(bytes, from, from + len)
}

/// An object that stands at the end of a line, or before NUL bytes, behind a torn one.
fn glued(bytes: &[u8], from: usize, end: usize, is_record: &dyn Fn(&Value) -> bool) -> Option<Record> {
    let starts = (from..end).filter(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(b"{\"")));
    // The first is the torn one itself, unless only what follows it is damaged.
    starts.filter_map(|at| balanced(bytes.get(..end)?, at, 1).and_then(|to| record(bytes, at, to))).find(|found| is_record(&found.value))
}

/// An object whose strings hold raw line breaks.
fn broken(bytes: &[u8], from: usize, is_record: &dyn Fn(&Value) -> bool) -> Option<Record> {
    let to = balanced(bytes, from, SPAN_LINES)?;
    // A torn line must not swallow the whole ones that follow it.
    let inside = bytes.get(end_of_line(bytes, from)..to)?;
    if inside.split(|byte| *byte == b'\n').any(|line| serde_json::from_slice(line).is_ok_and(|value: Value| is_record(&value))) {
        return None;
    }
    record(bytes, from, to).filter(|found| is_record(&found.value))
}

/// Where the object or array that begins at `from` closes, counting brackets outside strings.
fn balanced(bytes: &[u8], from: usize, lines: usize) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped, mut breaks) = (0_usize, false, false, 0_usize);
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'\n' => {
                breaks += 1;
                if breaks >= lines {
                    return None;
                }
            }
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            0 => return None,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The object in these bytes, mended where JSON's own rules refuse it.
fn record(bytes: &[u8], from: usize, to: usize) -> Option<Record> {
    let slice = bytes.get(from..to)?;
    if let Ok(value) = serde_json::from_slice::<Value>(slice) {
        return value.is_object().then_some(Record { from, to, value, mended: None });
    }
    let text = mend(&String::from_utf8_lossy(slice));
    let value = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object)?;
    Some(Record { from, to, value, mended: Some(text) })
}

/// Escapes raw control characters inside strings and replaces halves of surrogate pairs.
fn mend(text: &str) -> String {
    let (mut out, mut quoted) = (String::with_capacity(text.len() + 16), false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            '\\' if quoted => out.push_str(&escape(&mut rest)),
            c if quoted && c.is_ascii_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// One escape sequence, its backslash taken already.
fn escape(rest: &mut std::str::Chars<'_>) -> String {
    let Some(kind) = rest.next() else { return "\\\\".to_owned() };
    let Some(unit) = (kind == 'u').then(|| unit(rest.as_str())).flatten() else { return format!("\\{kind}") };
    rest.nth(3);
    match unit {
        0xd800..=0xdbff => match rest.as_str().strip_prefix("\\u").and_then(self::unit) {
            Some(low @ 0xdc00..=0xdfff) => {
                rest.nth(5);
                format!("\\u{unit:04x}\\u{low:04x}")
            }
            _ => "\\ufffd".to_owned(),
        },
        0xdc00..=0xdfff => "\\ufffd".to_owned(),
        _ => format!("\\u{unit:04x}"),
    }
}

fn unit(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}
