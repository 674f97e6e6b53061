//! `rescue`: sessions of other agents whose files were damaged, read as far as they stand.
//!
//! The files are only read; a repair is a new file. Invariant: what is told adds up to the file's
//! length, so that nobody believes a loss to be smaller than it is.

mod scan;
mod shape;
#[cfg(test)]
mod tests;

use super::Shop;
use super::text::size;
use scan::Scan;
use serde_json::json;
use shape::{Agent, Turn};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_cli::{Output, Rescue};
use tinkerbell_core::code::{Fault, exit};

/// Larger files are refused; the largest that was reported anywhere had 909 MB.
const MAX_FILE: u64 = 2 << 30;
/// Sessions that are listed, newest first.
const LISTED: usize = 20;
/// Directories that are looked into at most.
const MAX_DIRS: usize = 20_000;
/// Longest text of one tool's result in a transcript, in bytes.
const RESULT_BYTES: usize = 2_000;

/// A session as far as it stands.
struct Session {
    agent: Agent,
    path: PathBuf,
    bytes: Vec<u8>,
    scan: Scan,
    id: String,
    cwd: String,
}

/// Lists sessions, or rescues the given files.
///
/// # Errors
/// When a file can not be read or holds no session, or the repaired one can not be written.
pub fn rescue(shop: &Shop<'_>, wish: &Rescue, out: &Output) -> Result<u8, Fault> {
    if wish.files.is_empty() {
        return list(shop, wish.json, out);
    }
    if wish.repair.is_some() && wish.files.len() > 1 {
        return Err(Fault::new("TB-RESCUE-003", exit::USAGE, "--repair writes one file, and several were given")
            .hint("rescue them one after another"));
    }
    for file in &wish.files {
        let session = open(file)?;
        if let Some(to) = &wish.repair {
            repair(&session, to)?;
            out.talk(&format!("{} records written to {}", session.scan.records.len(), to.display()));
        }
        if wish.transcript {
            out.data(&transcript(&session, wish.max_bytes));
        } else if wish.json {
            out.data(&as_json(&session).to_string());
        } else {
            report(&session, out);
        }
    }
    Ok(exit::DONE)
}

fn open(path: &Path) -> Result<Session, Fault> {
    let failed = |why: String| {
        Fault::new("TB-RESCUE-001", exit::FAILED, format!("{} can not be read: {why}", path.display()))
            .hint("`tinkerbell rescue` without a file lists the sessions that it finds")
    };
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let meta = file.metadata().map_err(|e| failed(e.to_string()))?;
    if !meta.is_file() {
        return Err(failed("it is not a file".to_owned()));
    }
    if meta.len() > MAX_FILE {
        return Err(failed(format!("{} are more than {}", size(meta.len()), size(MAX_FILE))));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    read(path, bytes).ok_or_else(|| {
        Fault::new("TB-RESCUE-002", exit::FAILED, format!("{} holds no session of a known agent", path.display()))
            .hint("known are codex (rollout-*.jsonl), claude (*.jsonl), copilot (events.jsonl) and gemini (session-*.json)")
    })
}

fn read(path: &Path, bytes: Vec<u8>) -> Option<Session> {
    let scan = shape::read(&bytes);
    let agent = if shape::messages(&bytes).is_some() { Agent::Gemini } else { Agent::of(&scan.records)? };
    let (mut id, mut cwd) = (String::new(), String::new());
    for record in &scan.records {
        let (its_id, its_cwd) = agent.session(&record.value);
        if let Some(found) = its_id.filter(|_| id.is_empty()) {
            found.clone_into(&mut id);
        }
        if let Some(found) = its_cwd {
            found.clone_into(&mut cwd);
        }
    }
    Some(Session { agent, path: path.to_owned(), bytes, scan, id, cwd })
}

fn turns(session: &Session) -> impl Iterator<Item = Turn> {
    session.scan.records.iter().flat_map(|record| session.agent.turns(&record.value))
}

fn lost_bytes(session: &Session) -> usize {
    session.scan.lost.iter().map(|lost| lost.to - lost.from).sum()
}

fn mended(session: &Session) -> usize {
    session.scan.records.iter().filter(|record| record.mended.is_some()).count()
}

fn report(session: &Session, out: &Output) {
    let scan = &session.scan;
    out.data(&format!("{}  {}", session.agent.name(), session.path.display()));
    if !session.cwd.is_empty() {
        out.data(&format!("  worked in   {}", session.cwd));
    }
    out.data(&format!("  records     {} whole, {} of them mended", scan.records.len(), mended(session)));
    if scan.nul_bytes > 0 {
        out.data(&format!("  never written  {} NUL bytes passed over", scan.nul_bytes));
    }
    for lost in scan.lost.iter().take(LISTED) {
        out.data(&format!("  lost        {} at byte {}: {}", size((lost.to - lost.from) as u64), lost.from, shown(session, lost)));
    }
    if scan.lost.len() > LISTED {
        out.data(&format!("  lost        {} more fragments, {} in all", scan.lost.len() - LISTED, size(lost_bytes(session) as u64)));
    }
    let user: Vec<String> = turns(session).filter_map(|turn| if let Turn::User(text) = turn { Some(text) } else { None }).collect();
    if let (Some(first), Some(last)) = (user.first(), user.last()) {
        out.data(&format!("  first words {}", line(first)));
        out.data(&format!("  last words  {}", line(last)));
    }
    let here = if session.cwd.is_empty() { String::new() } else { format!(" -C '{}'", session.cwd) };
    let file = session.path.display();
    out.talk(&format!("go on with it here:   tinkerbell rescue --transcript '{file}' | tinkerbell run{here} -p \"go on with this work\""));
    if !scan.lost.is_empty() || scan.nul_bytes > 0 || mended(session) > 0 {
        out.talk(&format!("or mend the file:     tinkerbell rescue --repair NEW '{file}'"));
    }
}

/// The beginning of a fragment, on one line.
fn shown(session: &Session, lost: &scan::Lost) -> String {
    let bytes = session.bytes.get(lost.from..lost.to.min(lost.from + 200)).unwrap_or_default();
    line(&String::from_utf8_lossy(bytes))
}

fn line(text: &str) -> String {
    const WIDTH: usize = 90;
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH + 1).collect();
    if clean.chars().count() > WIDTH {
        clean.pop();
        clean.push('…');
    }
    clean.trim().to_owned()
}

fn as_json(session: &Session) -> serde_json::Value {
    json!({
        "agent": session.agent.name(),
        "path": session.path.display().to_string(),
        "id": session.id,
        "cwd": session.cwd,
        "bytes": session.bytes.len(),
        "records": session.scan.records.len(),
        "mended": mended(session),
        "nul_bytes": session.scan.nul_bytes,
        "lost": session.scan.lost.iter().map(|lost| json!({"from": lost.from, "to": lost.to})).collect::<Vec<_>>(),
        "turns": turns(session).count(),
    })
}

/// The session as text for a model or a person: its end, at most `max` bytes of it.
fn transcript(session: &Session, max: usize) -> String {
    let mut pieces: Vec<String> = turns(session).filter_map(piece).collect();
    let mut kept = Vec::new();
    let mut room = max;
    while let Some(piece) = pieces.pop() {
        if piece.len() > room {
            pieces.push(piece);
            break;
        }
        room -= piece.len();
        kept.push(piece);
    }
    let mut text = format!("# A session of {} in {}\n", session.agent.name(), if session.cwd.is_empty() { "?" } else { &session.cwd });
    if !pieces.is_empty() {
        text.push_str(&format!("\n[{} earlier pieces are left out]\n", pieces.len()));
    }
    if !session.scan.lost.is_empty() {
        text.push_str(&format!("\n[{} damaged pieces of its file could not be read]\n", session.scan.lost.len()));
    }
    kept.iter().rev().for_each(|piece| text.push_str(piece));
    text
}

fn piece(turn: Turn) -> Option<String> {
    let (head, body) = match turn {
        Turn::User(text) => ("User", text),
        Turn::Assistant(text) => ("Assistant", text),
        Turn::Call(name, args) => ("Tool call", format!("{name} {args}")),
        Turn::Result(text) => ("Tool result", text),
    };
    let body = body.trim();
    let cap = if matches!(head, "Tool result" | "Tool call") { RESULT_BYTES } else { usize::MAX };
    let cut = body.floor_char_boundary(cap.min(body.len()));
    let tail = if cut < body.len() { "\n[…]" } else { "" };
    (!body.is_empty()).then(|| format!("\n## {head}\n{}{tail}\n", body.get(..cut).unwrap_or_default()))
}

/// Writes every record that stands into a new file of the same format.
fn repair(session: &Session, to: &Path) -> Result<(), Fault> {
    let failed = |e: std::io::Error| {
        Fault::new("TB-RESCUE-004", exit::FAILED, format!("{} can not be written: {e}", to.display()))
            .hint("name a new file: an existing one is never overwritten")
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let text = |record: &scan::Record| match &record.mended {
        Some(text) => text.clone().into_bytes(),
        None => session.bytes.get(record.from..record.to).unwrap_or_default().to_vec(),
    };
    let mut bytes = Vec::with_capacity(session.bytes.len());
    if let Some(open) = shape::messages(&session.bytes) {
        bytes.extend_from_slice(session.bytes.get(..open).unwrap_or_default());
        let all: Vec<Vec<u8>> = session.scan.records.iter().map(text).collect();
        bytes.extend_from_slice(&all.join(&b",\n"[..]));
        bytes.extend_from_slice(b"]}\n");
    } else {
        for record in &session.scan.records {
            bytes.extend_from_slice(&text(record));
            bytes.push(b'\n');
        }
    }
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)
}

fn list(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for root in roots(shop) {
        walk(&root, &mut found);
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    let sessions: Vec<Session> = found.iter().take(LISTED).filter_map(|(_, path)| open(path).ok()).collect();
    if json {
        out.data(&serde_json::Value::Array(sessions.iter().map(as_json).collect()).to_string());
        return Ok(exit::DONE);
    }
    for session in &sessions {
        let damage = lost_bytes(session) + session.scan.nul_bytes;
        let state =
            if damage > 0 || mended(session) > 0 { format!("damaged, {} unreadable", size(damage as u64)) } else { "whole".to_owned() };
        let name = session.agent.name();
        out.data(&format!("{name:8} {:>6} records  {state}  {}", session.scan.records.len(), session.path.display()));
    }
    if sessions.is_empty() {
        out.talk("no session of codex, claude, copilot or gemini was found; name a file: tinkerbell rescue FILE");
    } else if found.len() > LISTED {
        out.talk(&format!("{} older ones are not shown", found.len() - LISTED));
    }
    Ok(exit::DONE)
}

/// Where the agents keep their sessions.
fn roots(shop: &Shop<'_>) -> Vec<PathBuf> {
    let home = shop.env.path("HOME");
    let at = |variable: &str, folder: &str| shop.env.path(variable).or_else(|| Some(home.as_ref()?.join(folder)));
    let dirs = [
        at("CODEX_HOME", ".codex").map(|dir| dir.join("sessions")),
        at("CLAUDE_CONFIG_DIR", ".claude").map(|dir| dir.join("projects")),
        at("COPILOT_HOME", ".copilot").map(|dir| dir.join("session-state")),
        at("GEMINI_CLI_HOME", ".gemini").map(|dir| dir.join("tmp")),
    ];
    dirs.into_iter().flatten().collect()
}

fn walk(root: &Path, found: &mut Vec<(std::time::SystemTime, PathBuf)>) {
    let mut todo = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(dir) = todo.pop().filter(|_| seen < MAX_DIRS) {
        seen += 1;
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(path);
            } else if is_session(&path) {
                found.push((meta.modified().unwrap_or(std::time::UNIX_EPOCH), path));
            }
        }
    }
}

fn is_session(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".jsonl") || (name.starts_with("session-") && name.ends_with(".json"))
}
