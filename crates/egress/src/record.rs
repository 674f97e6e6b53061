//! Records of connections: one line of JSON each, written when it has ended.
//!
//! A record is written when the last who works for the connection lets go of it, however that ends.
//! Invariant: the file is bounded; what does not fit is counted in its last line. No text in it was chosen
//! by the command but hosts.

use crate::rules::known_method;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::event::Connection;

/// Lines of one run.
const LINES: u32 = 4000;
/// Longest host or reason that is written, in characters.
const TEXT_CHARS: usize = 256;

/// The file of one run.
pub struct Log {
    file: Mutex<Written>,
    clock: Arc<dyn Clock>,
}

struct Written {
    file: File,
    lines: u32,
    dropped: u32,
}

impl Log {
    /// Opens the file; nobody but its owner may read it.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> std::io::Result<Arc<Self>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        Ok(Arc::new(Self { file: Mutex::new(Written { file, lines: 0, dropped: 0 }), clock }))
    }

    /// Begins a record.
    pub fn begin(self: &Arc<Self>, scheme: &str, host: &str, port: u16) -> Arc<Record> {
        let connection = Connection {
            scheme: scheme.to_owned(),
            host: shown(host),
            port: port.into(),
            allowed: true,
            count: 1,
            ..Connection::default()
        };
        let state = State { connection, methods: BTreeMap::new() };
        Arc::new(Record {
            log: self.clone(),
            begin: self.clock.now(),
            state: Mutex::new(state),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        })
    }

    fn write(&self, connection: &Connection) {
        let mut written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if written.lines >= LINES {
            written.dropped = written.dropped.saturating_add(1);
            return;
        }
        written.lines += 1;
        append(&mut written.file, connection);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let written = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        if written.dropped > 0 {
            let more =
                Connection { scheme: "more".into(), why: "not told one by one".into(), count: written.dropped, ..Connection::default() };
            append(&mut written.file, &more);
        }
    }
}

fn append(file: &mut File, connection: &Connection) {
    let mut line = serde_json::to_vec(connection).unwrap_or_default();
    line.push(b'\n');
    // A full disk costs the line. The connection is over, and there is nobody else to tell.
    drop(file.write_all(&line));
}

/// A text that the command chose, as it may stand in a record.
fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(TEXT_CHARS).collect()
}

/// One connection.
pub struct Record {
    log: Arc<Log>,
    begin: Stamp,
    state: Mutex<State>,
    up: AtomicU64,
    down: AtomicU64,
}

struct State {
    connection: Connection,
    methods: BTreeMap<&'static str, u64>,
}

impl Record {
    /// Which rule allowed it.
    pub fn allow(&self, rule: &str) {
        self.with(|state| {
            if state.connection.why.is_empty() {
                rule.clone_into(&mut state.connection.why)
            }
        });
    }

    /// It is refused, whatever was said before.
    pub fn refuse(&self, why: &str) {
        self.with(|state| {
            state.connection.allowed = false;
            state.connection.why = shown(why);
        });
    }

    /// It was allowed and could not be carried out.
    pub fn fail(&self, why: &str) {
        self.with(|state| {
            let rule = std::mem::take(&mut state.connection.why);
            state.connection.why = shown(&if rule.is_empty() { why.to_owned() } else { format!("{rule}; {why}") });
        });
    }

    /// The address that was dialled.
    pub fn dialled(&self, address: std::net::SocketAddr) {
        self.with(|state| state.connection.address = address.ip().to_string());
    }

    /// A request. A method that no standard knows is counted and not named: the command wrote it.
    pub fn method(&self, name: &str) {
        self.with(|state| *state.methods.entry(known_method(name).unwrap_or("other")).or_default() += 1);
    }

    /// Bytes from the command.
    pub fn up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes to the command.
    pub fn down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All bytes so far.
    pub fn total(&self) -> u64 {
        self.up.load(Ordering::Relaxed).saturating_add(self.down.load(Ordering::Relaxed))
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = self.log.clock.now();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut connection = std::mem::take(&mut state.connection);
        connection.at_ms = self.begin.wall_ms;
        connection.open_ms = now.mono_ms.saturating_sub(self.begin.mono_ms);
        connection.methods = state.methods.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if connection.allowed && connection.why.is_empty() {
            // A tunnel in which nothing was asked for, or nothing that is allowed.
            connection.why = "nothing was passed".to_owned();
        }
        connection.up_bytes = *self.up.get_mut();
        connection.down_bytes = *self.down.get_mut();
        self.log.write(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::house::Still;

    const GOLDEN: &str = include_str!("../tests/golden/v1/connections");

    /// Version 1 is written as it was, and can be read for ever.
    #[test]
    fn the_file_has_its_golden_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connections");
        let log = Log::open(&path, Arc::new(Still)).unwrap();
        let allowed = log.begin("connect", "packages.example", 443);
        allowed.allow("preset cargo");
        allowed.dialled("151.101.2.132:443".parse().unwrap());
        for _ in 0..2 {
            allowed.method("GET");
        }
        allowed.up(7);
        allowed.down(9);
        drop(allowed);
        log.begin("socks", "evil.net\0example.com", 80).refuse("the host holds a byte that no host may hold");
        log.file.lock().unwrap().lines = LINES;
        drop((log.begin("http", "a", 80), log.begin("http", "b", 80)));
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap(), GOLDEN);
        for line in GOLDEN.lines() {
            let newer = line.replacen('{', r#"{"of_a_later_release":1,"#, 1);
            let read: Connection = serde_json::from_str(&newer).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), line, "unknown fields are ignored");
        }
    }
}
