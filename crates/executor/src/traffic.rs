//! What a command did on the network, read from the file that its proxy keeps.
//!
//! Lines of JSON, each a connection that has ended. Invariant: a line is told by one effect, and by that
//! one again when it is done again; half a line waits for its other half.

use crate::error::Error;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use tinkerbell_core::event::Connection;

/// The file in a run's directory.
pub const FILE: &str = "connections";
/// Most bytes that are read at once; the proxy writes fewer in a whole run.
const BYTES: u64 = 8 << 20;
/// Most different connections that one effect tells.
const MOST: usize = 100;
/// Most refusals that a model is told of.
const REFUSALS: usize = 4;
/// Most characters of one of them.
const REFUSAL_CHARS: usize = 160;

/// Reads from an offset on; gives connections, those alike as one, and where to go on.
///
/// # Errors
/// When the file exists and can not be read.
pub fn read(dir: &Path, from: u64) -> Result<(Vec<Connection>, u64), Error> {
    let path = dir.join(FILE);
    let mut file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
        other => other.map_err(Error::files(&path))?,
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).and_then(|_| file.take(BYTES).read_to_end(&mut bytes)).map_err(Error::files(&path))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    // A damaged line tells nothing, and must not hide the others.
    let found = lines.filter_map(|line| serde_json::from_slice::<Connection>(line).ok());
    Ok((merged(found), from + whole as u64))
}

/// Those that differ in nothing but size and time as one, in order of the first.
fn merged(all: impl Iterator<Item = Connection>) -> Vec<Connection> {
    let mut found: Vec<Connection> = Vec::new();
    for one in all {
        let key = |c: &Connection| (c.scheme.clone(), c.host.clone(), c.port, c.address.clone(), c.allowed, c.why.clone());
        if let Some(known) = found.iter_mut().find(|known| key(known) == key(&one)) {
            add(known, &one);
        } else if found.len() < MOST {
            found.push(one);
        } else if let Some(last) = found.last_mut() {
            // The last place stands for all that did not fit.
            if last.scheme != "more" {
                let count = last.count;
                *last = Connection { scheme: "more".into(), why: "not told one by one".into(), count, ..Connection::default() };
            }
            add(last, &one);
        }
    }
    found
}

fn add(sum: &mut Connection, one: &Connection) {
    sum.count = sum.count.saturating_add(one.count);
    sum.up_bytes = sum.up_bytes.saturating_add(one.up_bytes);
    sum.down_bytes = sum.down_bytes.saturating_add(one.down_bytes);
    sum.open_ms = sum.open_ms.saturating_add(one.open_ms);
    let mut methods: BTreeMap<String, u64> = BTreeMap::new();
    for text in sum.methods.iter().chain(&one.methods) {
        if let Some((name, count)) = text.split_once(' ') {
            let sum = methods.entry(name.to_owned()).or_default();
            *sum = sum.saturating_add(count.parse().unwrap_or(0));
        }
    }
    sum.methods = methods.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
}

/// One line for the model about what was refused; `None` when nothing was.
#[must_use]
pub fn refusals(connections: &[Connection]) -> Option<String> {
    let refused: Vec<&Connection> = connections.iter().filter(|connection| !connection.allowed).collect();
    if refused.is_empty() {
        return None;
    }
    let told: Vec<String> = refused.iter().take(REFUSALS).map(|one| told(one)).collect();
    let rest = refused.len().saturating_sub(REFUSALS);
    let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    Some(format!("[network: {}{rest}. Only the user can allow more; do not try to work around it]", told.join("; ")))
}

fn told(one: &Connection) -> String {
    let text = if one.host.is_empty() { format!("refused: {}", one.why) } else { format!("{}:{}: {}", one.host, one.port, one.why) };
    // The host is a text that the command chose.
    text.chars().flat_map(char::escape_debug).take(REFUSAL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(host: &str, allowed: bool) -> Connection {
        let why = if allowed { "egress.host a" } else { "no rule allows this host" };
        let methods = vec!["GET 2".to_owned()];
        Connection { host: host.into(), port: 443, allowed, why: why.into(), methods, up_bytes: 5, count: 1, ..Connection::default() }
    }

    #[test]
    fn lines_are_told_once_and_alike_ones_together() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 0).unwrap(), (Vec::new(), 0));
        let line = |host| serde_json::to_string(&one(host, true)).unwrap() + "\n";
        let text = format!("{}{}damaged\n{}{{\"half\":", line("a"), line("a"), line("b"));
        std::fs::write(dir.path().join(FILE), &text).unwrap();
        let (found, next) = read(dir.path(), 0).unwrap();
        assert_eq!(found.iter().map(|c| (c.host.as_str(), c.count, c.up_bytes)).collect::<Vec<_>>(), [("a", 2, 10), ("b", 1, 5)]);
        assert_eq!((found[0].methods.as_slice(), next as usize), (&["GET 4".to_owned()][..], text.rfind('{').unwrap()));
        assert_eq!(read(dir.path(), next).unwrap(), (Vec::new(), next));
    }

    #[test]
    fn many_different_ones_do_not_grow_without_bound() {
        let found = merged((0..500).map(|at| one(&format!("h{at}"), false)));
        assert_eq!((found.len(), found[MOST - 1].count), (MOST, 401));
    }

    #[test]
    fn a_model_is_told_in_one_line() {
        assert_eq!(refusals(&[one("a", true)]), None);
        let line = refusals(&[one("a", true), one("b\n\u{1b}[2J", false)]).unwrap();
        assert!(line.starts_with("[network: b") && line.contains("no rule allows") && !line.contains('\n') && !line.contains('\u{1b}'));
        let many: Vec<_> = (0..9).map(|at| one(&format!("{at}"), false)).collect();
        assert!(refusals(&many).unwrap().contains("and 5 more"));
    }
}
