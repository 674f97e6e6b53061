//! `wal stat | verify | dump | explain`: the journal from outside.
//!
//! Reads without the lock, beside a daemon that may be writing. Invariant: nothing is changed, and
//! damage is named with what to do, never passed over.

pub mod archive;
pub mod compact;
pub mod export;
pub mod repair;

use super::text::{brief, moment, size};
use super::{Shop, keys};
use serde_json::json;
use tinkerbell_cli::Output;
use tinkerbell_core::approval::told;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{self, Action, Event, Observation};
use tinkerbell_core::port::Keyring;
use tinkerbell_core::words::{BlobRef, Lsn};
use tinkerbell_wal::inspect::{self, Entry, Filter, Stat};

/// Digits of a task id in a dump.
const SHORT: usize = 8;
/// Longest details of a record in a dump.
const DETAILS: usize = 100;

/// Counts segments and records.
///
/// # Errors
/// When the directory can not be read.
pub fn stat(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        if json {
            out.data(&json!({"segments": [], "records": 0, "tip": 0, "clean": true}).to_string());
        }
        return Ok(exit::DONE);
    }
    let stat = inspect::stat(&shop.places.journal())?;
    if json {
        out.data(&as_json(&stat).to_string());
    } else {
        lines(&stat).iter().for_each(|line| out.data(line));
    }
    if let Some(damage) = &stat.damage {
        out.error(&format!("{damage}\n  tinkerbell wal repair   says what mends it; the daemon must be stopped"));
        return Ok(exit::FAILED);
    }
    Ok(exit::DONE)
}

/// Checks every checksum, number and chain link.
///
/// # Errors
/// The damage, with exit code 1, or why the directory can not be read.
pub fn verify(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    let found = inspect::verify(&shop.places.journal())?;
    found.notes.iter().for_each(|note| out.talk(&format!("note: {note}")));
    if let Some((bytes, why)) = &found.torn {
        out.talk(&format!(
            "note: {bytes} bytes at the end were never acknowledged ({why}); a running daemon may be writing them, the next start cuts them"
        ));
    }
    out.data(&format!("{} records in {} batches stand, up to record {}; chain {}", found.records, found.batches, found.tip, found.head));
    match found.damage {
        None => Ok(exit::DONE),
        Some(damage) => Err(Fault { exit: exit::FAILED, ..Fault::from(damage) }),
    }
}

/// Prints records, one a line.
///
/// # Errors
/// The damage that ended the list early, with exit code 1, or why the directory can not be read.
pub fn dump(shop: &Shop<'_>, from: u64, limit: usize, task: Option<&str>, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    let filter = Filter { from: Lsn(from), limit, task: task.map(str::to_ascii_lowercase), own: false };
    // Without its keys the journal can be shown still; what is sealed says so.
    let keyring = keys::open(shop).inspect_err(|fault| out.talk(&format!("note: {fault}"))).ok();
    let entries = inspect::dump(&shop.places.journal(), &filter, keyring.as_deref().map(|keys| keys as &dyn Keyring))?;
    for entry in &entries {
        out.data(&line(entry));
        if out.is_closed() {
            return Ok(exit::DONE);
        }
    }
    match inspect::verify(&shop.places.journal())?.damage {
        None => Ok(exit::DONE),
        Some(damage) => Err(Fault { exit: exit::FAILED, ..Fault::from(damage) }),
    }
}

/// Prints what is known of one record: its words, its place, its sync, and its task's neighbours.
///
/// # Errors
/// When the record does not stand, or why the directory can not be read.
pub fn explain(shop: &Shop<'_>, lsn: u64, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::FAILED);
    }
    let keyring = keys::open(shop).inspect_err(|fault| out.talk(&format!("note: {fault}"))).ok();
    let found = inspect::explain(&shop.places.journal(), Lsn(lsn), keyring.as_deref().map(|keys| keys as &dyn Keyring))?;
    let (entry, (first, last), (offset, len)) = (&found.entry, found.together, found.stretch);
    out.data(own_words(entry.kind).map_or_else(|| line(entry), |words| format!("{:>8}  {words}", entry.lsn.0)).trim_start());
    out.data(&format!("type      {}, version {}", entry.kind, entry.schema));
    out.data(&format!("segment   {}, byte {}", entry.file, entry.offset));
    match &found.sync {
        Some(sync) => {
            out.data(&format!("batch     records {first}..{last} in one sync, {len} bytes from byte {offset}"));
            out.data(&format!("clock     {}, {} ms on the clock of boot {}", moment(sync.wall_ms), sync.mono_ms, sync.boot));
            out.data(&format!("before    everything up to {} was durable", sync.acked));
            out.data(&format!("chain     {}", sync.head));
        }
        None => out.data(&format!("stretch   records {first}..{last}, {len} bytes from byte {offset}; compaction dropped the others")),
    }
    for (name, neighbour) in [("previous", &found.before), ("next", &found.after)] {
        out.data(&format!(
            "{name:<8}  {}",
            neighbour.as_ref().map_or_else(|| "none of this task".to_owned(), |n| line(n).trim_start().to_owned())
        ));
    }
    Ok(exit::DONE)
}

/// What records of the journal itself are.
const fn own_words(kind: u16) -> Option<&'static str> {
    match kind {
        1 => Some("the trailer of a batch: it ends what one sync makes durable"),
        2 => Some("the mark of a clean shutdown"),
        4 => Some("a retirement: it vouches for a compacted segment"),
        5 => Some("a note on what the archive holds"),
        0..16 => Some("a record of the journal itself that this release does not know"),
        _ => None,
    }
}

fn is_missing(shop: &Shop<'_>, out: &Output) -> bool {
    let dir = shop.places.journal();
    let is_missing = std::fs::symlink_metadata(&dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if is_missing {
        out.talk(&format!("there is no journal yet: {}; the first task makes it", dir.display()));
    }
    is_missing
}

fn lines(stat: &Stat) -> Vec<String> {
    let state = match (&stat.damage, stat.clean, stat.torn_bytes) {
        (Some(_), ..) => "damaged".to_owned(),
        (None, true, _) => "closed in order".to_owned(),
        (None, false, 0) => "open, or not closed in order".to_owned(),
        (None, false, torn) => format!("open, or not closed in order; {torn} bytes at the end were never acknowledged"),
    };
    let mut lines = vec![
        format!("records   {} in {} batches, up to {}", stat.records, stat.batches, stat.tip),
        format!("size      {} in {} segments", size(stat.size_bytes), stat.segments.len()),
        format!("opened    {} times", stat.epoch),
        format!("watermark {}", if stat.watermark.0 == 0 { "none yet".to_owned() } else { format!("up to {}", stat.watermark) }),
        format!(
            "syncs     {}",
            if stat.preallocates { "in space filled ahead" } else { "as the file grows: this file system gains nothing by filling ahead" }
        ),
        format!("spares    {}", stat.spares),
        format!("room      {}", room(stat)),
        format!("dropped   {}", dropped(stat)),
        format!("reserve   {}", reserve(stat)),
        format!("state     {state}"),
    ];
    lines.extend(stat.segments.iter().map(|segment| {
        format!(
            "{}  {:>9}  {:>7} records  {}..{}  {}",
            segment.file,
            size(segment.size_bytes),
            segment.records,
            segment.first,
            segment.last,
            moment(segment.created_ms)
        )
    }));
    lines
}

/// What a full disk would meet; whether a daemon uses its reserve up can not be seen from outside.
fn room(stat: &Stat) -> String {
    let ready = if stat.reserve_bytes.is_some() { "ample" } else { "without a reserve" };
    format!("{ready}, {} free", size(stat.free_bytes))
}

/// Records that compaction dropped, and all that the compacted segments once held.
fn dropped_of(stat: &Stat) -> (u64, u64) {
    let compacted = || stat.segments.iter().filter_map(|segment| Some((segment.dropped?, segment.records)));
    let dropped = compacted().map(|(dropped, _)| dropped).sum();
    (dropped, compacted().map(|(_, records)| records).sum::<u64>().saturating_add(dropped))
}

/// How many records of what is not compacted yet are dead only the daemon knows, because it knows
/// what is needed.
fn dropped(stat: &Stat) -> String {
    match dropped_of(stat) {
        (_, 0) => "nothing was compacted yet".to_owned(),
        (dropped, of) => {
            format!("{dropped} of {of} records of compacted segments, {} percent", dropped.saturating_mul(100).checked_div(of).unwrap_or(0))
        }
    }
}

fn reserve(stat: &Stat) -> String {
    let free = size(stat.free_bytes);
    match stat.reserve_bytes {
        Some(bytes) => format!("{} stand ready for a full disk, which has {free} free", size(bytes)),
        None => format!("none: the disk has {free} free, a daemon takes one when there is four times its size, or is using it up"),
    }
}

fn as_json(stat: &Stat) -> serde_json::Value {
    let segments: Vec<_> = stat
        .segments
        .iter()
        .map(|segment| {
            json!({"file": segment.file, "epoch": segment.epoch, "first": segment.first.0, "last": segment.last.0, "batches": segment.batches,
                "records": segment.records, "dropped": segment.dropped, "size_bytes": segment.size_bytes, "created": moment(segment.created_ms)})
        })
        .collect();
    json!({"tip": stat.tip.0, "next": stat.next.0, "epoch": stat.epoch, "batches": stat.batches, "records": stat.records,
        "size_bytes": stat.size_bytes, "clean": stat.clean, "torn_bytes": stat.torn_bytes, "dropped": dropped_of(stat).0, "compacted_of": dropped_of(stat).1,
        "room": if stat.reserve_bytes.is_some() { "ample" } else { "no-reserve" }, "watermark": stat.watermark.0,
        "spares": stat.spares, "reserve_bytes": stat.reserve_bytes, "free_bytes": stat.free_bytes, "preallocates": stat.preallocates,
        "damage": stat.damage, "segments": segments})
}

/// One record: number, time, task, event, details.
fn line(entry: &Entry) -> String {
    let task = entry.task.map_or_else(|| "-".repeat(SHORT), |task| task.short(SHORT));
    let head = |at_ms: u64, name: &str| format!("{:>8}  {}  {task}  {name:<14}", entry.lsn.0, moment(at_ms));
    if let Some(why) = &entry.sealed {
        return format!("{}  {why}", head(entry.batch_wall_ms, kind_name(entry.kind)));
    }
    if entry.blob {
        let place = BlobRef::from_bytes(&entry.payload).map_or_else(|| "a damaged reference".to_owned(), |blob| blob.to_string());
        return format!("{}  payload in blob {}", head(entry.batch_wall_ms, kind_name(entry.kind)), brief(&place, DETAILS));
    }
    match event::decode(entry.lsn, &entry.payload) {
        Ok((at_ms, event)) => format!("{}  {}", head(at_ms, event.name()), brief(&details(&event), DETAILS)).trim_end().to_owned(),
        Err(error) => {
            format!("{}  {} bytes, unreadable: {}", head(entry.batch_wall_ms, kind_name(entry.kind)), entry.payload.len(), error.why)
        }
    }
}

/// Names of event types by number, for payloads that are not at hand.
const NAMES: [&str; 19] = [
    "submitted",
    "started",
    "intent",
    "observed",
    "reserved",
    "settled",
    "released",
    "state-saved",
    "signal",
    "approval-asked",
    "approval-given",
    "op-done",
    "paused",
    "finished",
    "orphan-reaped",
    "timer-fired",
    "snapshot",
    "page",
    "granted",
];

fn kind_name(kind: u16) -> &'static str {
    usize::from(kind).checked_sub(17).and_then(|at| NAMES.get(at)).copied().unwrap_or("unknown")
}

fn usd(nano: u64) -> String {
    format!("{}.{:06} usd", nano / 1_000_000_000, nano % 1_000_000_000 / 1_000)
}

fn details(event: &Event) -> String {
    match event {
        Event::Submitted(it) => format!("{}: {}", it.model, it.goal),
        Event::Started(it) => format!("lease {}.{}", it.epoch, it.generation),
        Event::Intent(it) => format!("#{} {}", it.seq, it.action.as_ref().map_or_else(String::new, action)),
        Event::Observed(it) => format!("#{} {}", it.seq, it.observation.as_ref().map_or_else(String::new, observation)),
        Event::Reserved(it) => format!("#{} {} {} tokens", it.seq, usd(it.nano_usd), it.tokens),
        Event::Settled(it) => format!("#{} {} {} in {} out", it.seq, usd(it.nano_usd), it.input_tokens, it.output_tokens),
        Event::Released(it) => format!("#{} {}", it.seq, it.why),
        Event::StateSaved(it) => format!("#{} {} bytes", it.seq, it.state.len()),
        Event::Signal(it) => format!("{} {}", it.kind, it.text),
        Event::ApprovalAsked(it) => format!("?{} for #{}: {}", it.id, it.seq, it.title),
        Event::ApprovalGiven(it) if !it.lapsed.is_empty() => format!("?{} {}", it.id, it.lapsed),
        Event::ApprovalGiven(it) => format!("?{} {} by user {} {}", it.id, if it.yes { "yes" } else { "no" }, it.uid, it.text),
        Event::Granted(it) => format!("?{} for the {}: {} by user {}", it.approval, it.scope, told(&it.argv, &it.options), it.uid),
        Event::OpDone(it) => format!("#{} {}: {}", it.seq, it.kind, it.summary),
        Event::Paused(it) => format!("{}: {}", it.why, it.text),
        Event::Finished(it) => format!("{} (exit {}) {} {}", it.status, it.exit, it.code, it.text),
        Event::TimerFired(it) => format!("timer {}", it.id),
        Event::OrphanReaped(it) => format!("{}: {}", it.run, it.text),
        Event::Snapshot(it) => {
            let state = it.task.as_ref().map_or("", |task| match task.status {
                1 => "queued",
                2 => "running",
                4 => "finished",
                5 => "removed",
                _ => "paused",
            });
            format!("stands for {} records from {} on, {state}", it.folded, it.first)
        }
        Event::Page(it) => format!("history {}..{}", it.before + 1, it.before + it.records.len() as u64),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Prepare(_) => "prepare".to_owned(),
        Action::Ask(it) => format!("ask, step {}", it.step),
        Action::Call(it) => format!("call {} {}", it.tool, it.args),
        Action::Verify(it) => format!("verify, round {}: {}", it.round, it.command),
        Action::Commit(it) => format!("commit {}", it.subject),
        Action::Op(it) => format!("op {} {}", it.kind, it.target),
    }
}

fn observation(observation: &Observation) -> String {
    match observation {
        Observation::Prepared(it) => format!("prepared {} on {}", it.branch, it.base),
        Observation::Reply(it) => {
            format!("reply, {} parts, {} in {} out, stop {}", it.parts.len(), it.input_tokens, it.output_tokens, it.stop)
        }
        Observation::Result(it) => format!("result {} {}", it.status, it.summary),
        Observation::Verdict(it) => format!("verdict {} (exit {})", if it.passed { "passed" } else { "failed" }, it.exit),
        Observation::Committed(it) => format!("committed {}", it.commit),
        Observation::Operated(it) => format!("operated {}", it.text),
        Observation::Failed(it) => format!("failed {}: {}", it.code, it.message),
    }
}

#[cfg(test)]
mod tests;
