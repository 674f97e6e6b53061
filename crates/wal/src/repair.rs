//! Mending a damaged journal, for `tinkerbell wal repair`.
//!
//! It plans on an overlay of the directory: each choice is tried there by reading the whole journal
//! again, and only a plan that ends without damage is ever carried out. Invariant: looking changes
//! nothing; before a file is replaced, its bytes lie durable in a copy beside it, and what replaces
//! it gets its name whole.

mod overlay;

use crate::checkpoint;
use crate::compact::format::{Kept, Range};
use crate::compact::scan::{first_of, in_force};
use crate::disk::{Disk, Lock, Mode, RealDisk, read_full, write_full};
use crate::error::Error;
use crate::format::{HEADER_BYTES, Header, SLOTS, Slot, watermark};
use crate::scan::{Evidence, evidence};
use crate::survey::{NEW_SUFFIX, Survey, segment_name, segment_names, survey};
use overlay::{Fresh, Overlay};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_core::words::Lsn;

/// Most segments that one plan mends.
const STEPS: usize = 10_000;

/// A damage, in the journal's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first record that can not be trusted.
    pub lsn: Lsn,
    /// The segment's name.
    pub file: String,
    /// Where in the segment.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
}

/// What mends one damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The newest segment ends behind its last good batch.
    Cut {
        /// Where it ends then; the length of a header when nothing of it stands.
        at: u64,
    },
    /// A whole copy of a segment takes its place.
    Take {
        /// The copy's directory.
        from: PathBuf,
        /// The segment's name; another one than the damaged file's when a whole segment is missing.
        name: String,
        /// Its size.
        size_bytes: u64,
    },
}

/// One damage and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is wrong.
    pub damage: Damage,
    /// What mends it.
    pub act: Act,
    /// First and last number, trailers included, that are known to have been acknowledged and are
    /// gone afterwards. There may have been later ones that left no trace.
    pub loses: Option<(Lsn, Lsn)>,
    /// Of what is cut, records that are whole and can be read in the copy that is put aside.
    pub whole: u64,
}

/// What a repair would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What is done, in order; empty when the journal is whole.
    pub steps: Vec<Step>,
    /// What nothing mends, and why; then nothing at all is done.
    pub stuck: Option<(Damage, String)>,
    /// Copies that were looked at and do not fit, one line each.
    pub refused: Vec<String>,
    /// The newest record that stands today before the first damage.
    pub stands: Lsn,
    /// The newest record afterwards.
    pub tip: Lsn,
    /// Whether the checkpoint stands for records that would be lost, and is put aside.
    pub checkpoint: bool,
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Where the damaged files lie now, by name.
    pub aside: Vec<String>,
    /// The newest record that stands.
    pub tip: Lsn,
}

/// A planned repair, which holds the journal's lock.
pub struct Repair {
    disk: Arc<dyn Disk>,
    plan: Plan,
    fresh: Fresh,
    _held: Box<dyn Send + Sync>,
}

/// The damage in hand and where the journal ends before it.
struct Case<'a> {
    found: &'a Survey,
    damage: &'a Damage,
    /// The damaged file as it is; `None` when it can not be read.
    bytes: Option<Vec<u8>>,
    evidence: Evidence,
}

impl Repair {
    /// Plans what would mend the journal in `dir`, with copies of segments in `from` if there are any.
    /// Changes nothing.
    ///
    /// # Errors
    /// When another process holds the journal, or when a directory or segment can not be read.
    pub fn look(dir: &Path, from: Option<&Path>) -> Result<Self, Error> {
        let from = from.map(|from| RealDisk::existing(from.to_owned()));
        Self::look_on(Arc::new(RealDisk::existing(dir.to_owned())), from.as_ref().map(|from| from as &dyn Disk))
    }

    /// As [`Repair::look`], on any [`Disk`].
    ///
    /// # Errors
    /// As [`Repair::look`].
    pub fn look_on(disk: Arc<dyn Disk>, from: Option<&dyn Disk>) -> Result<Self, Error> {
        let held = match disk.lock().map_err(|e| Error::io("lock", disk.path().join("lock"), e))? {
            Lock::Held(guard) => guard,
            Lock::Taken { pid } => return Err(Error::Locked { dir: disk.path().to_owned(), pid }),
        };
        let copies = from.map(|from| segment_names(from).map(|names| (from, names))).transpose()?;
        let (mut plan, mut fresh) = (Plan::default(), Fresh::new());
        for step in 0..STEPS {
            let found = read(&*disk, &fresh)?;
            plan.tip = Lsn(found.tip);
            if step == 0 {
                plan.stands = plan.tip;
            }
            let Some((damage, is_final)) = found.damage.as_ref().map(damage_of).transpose()? else { break };
            let mended = if is_final { None } else { mend(&*disk, copies.as_ref(), (&found, &damage), &mut fresh, &mut plan.refused)? };
            let Some(step) = mended else {
                let why = if is_final { "a newer release wrote it" } else { why_stuck(&*disk, from.is_some(), &damage)? };
                plan.stuck = Some((damage, why.to_owned()));
                break;
            };
            plan.steps.push(step);
        }
        plan.checkpoint =
            plan.stuck.is_none() && !plan.steps.is_empty() && checkpoint::read(&*disk)?.is_some_and(|(through, _)| through > plan.tip.0);
        Ok(Self { disk, plan, fresh, _held: held })
    }

    /// What would be done.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Does what [`Repair::plan`] tells, segment by segment. A crash on the way leaves segments that
    /// are mended and segments that are as they were; planning again goes on with those.
    ///
    /// # Errors
    /// When the plan is stuck, and when the file system refuses.
    pub fn apply(self) -> Result<Repaired, Error> {
        let disk = &*self.disk;
        if let Some((damage, why)) = self.plan.stuck {
            return Err(Error::Unrepairable { lsn: damage.lsn.0, file: damage.file, why });
        }
        let mut done = Repaired { aside: Vec::new(), tip: self.plan.tip };
        for (name, bytes) in &self.fresh {
            let failed = |e| Error::io("repair", disk.path().join(name), e);
            if let Some(old) = whole_file(disk, name).map_err(failed)? {
                done.aside.push(put_aside(disk, name, &old).map_err(failed)?);
            }
            place(disk, name, bytes).map_err(failed)?;
        }
        if self.plan.checkpoint {
            let failed = |e| Error::io("put aside", disk.path().join(checkpoint::NAME), e);
            let aside = free_name(disk, checkpoint::NAME).map_err(failed)?;
            disk.rename(checkpoint::NAME, &aside).and_then(|()| disk.sync_dir()).map_err(failed)?;
            done.aside.push(aside);
        }
        // What was planned on an overlay is checked once more as it lies there.
        match survey(disk, &mut |_, _, _| {})?.damage {
            Some(damage) => Err(damage),
            None => Ok(done),
        }
    }
}

fn read(disk: &dyn Disk, fresh: &Fresh) -> Result<Survey, Error> {
    survey(&Overlay { disk, fresh }, &mut |_, _, _| {})
}

/// The damage, and whether it is none that can be mended at all.
fn damage_of(damage: &Error) -> Result<(Damage, bool), Error> {
    match damage {
        Error::Corrupt { lsn, file, offset, why } => {
            Ok((Damage { lsn: Lsn(*lsn), file: file.clone(), offset: *offset, why: why.clone() }, false))
        }
        Error::Unreadable { file, offset, what } => {
            Ok((Damage { lsn: Lsn(0), file: file.clone(), offset: *offset, why: what.clone() }, true))
        }
        other => Err(Error::Unrepairable { lsn: 0, file: String::new(), why: other.to_string() }),
    }
}

/// Finds what mends the first damage: a copy that fits, or a cut. Puts it into `fresh`.
fn mend(
    disk: &dyn Disk,
    copies: Option<&(&dyn Disk, Vec<String>)>,
    (found, damage): (&Survey, &Damage),
    fresh: &mut Fresh,
    refused: &mut Vec<String>,
) -> Result<Option<Step>, Error> {
    let bytes = whole_file(&Overlay { disk, fresh }, &damage.file).map_err(|e| Error::io("read", disk.path().join(&damage.file), e))?;
    let seen = bytes.as_deref().and_then(|bytes| {
        let incarnation = incarnation(bytes)?;
        let rest = evidence(bytes.get(HEADER_BYTES..)?, incarnation);
        Some(Evidence { acked: rest.acked.max(watermark(bytes, incarnation)), ..rest })
    });
    let case = Case { found, damage, bytes, evidence: seen.unwrap_or_default() };
    if let Some((from, names)) = copies
        && let Some(step) = take(disk, (*from, names), &case, fresh, refused)?
    {
        return Ok(Some(step));
    }
    cut(disk, &case, fresh)
}

/// The random number of a segment whose header may be damaged.
fn incarnation(bytes: &[u8]) -> Option<u64> {
    bytes.get(32..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn take(
    disk: &dyn Disk,
    (from, names): (&dyn Disk, &[String]),
    case: &Case<'_>,
    fresh: &mut Fresh,
    refused: &mut Vec<String>,
) -> Result<Option<Step>, Error> {
    let (file, lsn) = (&case.damage.file, case.damage.lsn.0);
    let here = segment_names(&Overlay { disk, fresh })?;
    // The damaged file itself, or a file that is missing altogether.
    let fits = |name: &&String| *name == file || (first_of(name) == Some(lsn) && !here.contains(name));
    for name in names.iter().filter(fits) {
        let bytes = whole_file(from, name).map_err(|e| Error::io("read", from.path().join(name), e))?.unwrap_or_default();
        let size_bytes = bytes.len() as u64;
        let old = fresh.insert(name.clone(), Arc::new(bytes));
        let after = read(disk, fresh)?;
        let same = name != file || case.bytes.as_deref().zip(fresh.get(name)).is_none_or(|(old, new)| same_header(file, old, new));
        let why = match (same, is_further(case.found, &after)) {
            (true, true) => {
                let act = Act::Take { from: from.path().to_owned(), name: name.clone(), size_bytes };
                return Ok(Some(Step { damage: case.damage.clone(), act, loses: case.loses(&after), whole: 0 }));
            }
            (false, _) => "it is a copy of another segment: its header tells other numbers".to_owned(),
            (true, false) => after.damage.map_or_else(|| "it ends before the damage".to_owned(), |damage| damage.to_string()),
        };
        refused.push(format!("{}: {why}", from.path().join(name).display()));
        match old {
            Some(old) => drop(fresh.insert(name.clone(), old)),
            None => drop(fresh.remove(name)),
        }
    }
    Ok(None)
}

/// Whether two files are the same segment, as far as the first one's header can still be read.
fn same_header(name: &str, old: &[u8], new: &[u8]) -> bool {
    match (Header::decode(old), Kept::decode(old)) {
        (Ok(header), _) if segment_name(header.epoch, header.first_lsn) == name => Header::decode(new) == Ok(header),
        (_, Ok(kept)) if kept.range.name() == name => Kept::decode(new) == Ok(kept),
        // A damaged header, or another file under this name. What a header must say also stands in the name and in the chain, which reading checks.
        _ => true,
    }
}

/// Whether more of the journal stands than before, or all of it.
fn is_further(before: &Survey, after: &Survey) -> bool {
    let at = |survey: &Survey| match &survey.damage {
        Some(Error::Corrupt { lsn, .. }) => *lsn,
        Some(_) => 0,
        None => u64::MAX,
    };
    after.next >= before.next && (after.next, at(after)) > (before.next, at(before))
}

/// Ends the newest segment behind its last good batch, when it is the newest that is damaged.
fn cut(disk: &dyn Disk, case: &Case<'_>, fresh: &mut Fresh) -> Result<Option<Step>, Error> {
    let file = &case.damage.file;
    let (names, _) = in_force(segment_names(&Overlay { disk, fresh })?);
    let (Some(bytes), true) = (case.bytes.as_deref(), names.last() == Some(file) && Range::of_name(file).is_none()) else {
        return Ok(None);
    };
    let stands = case.found.segments.last().filter(|segment| segment.name == *file);
    let ended = match stands {
        Some(segment) => shortened(bytes, segment.end_offset, segment.last.map_or(0, |span| span.last)),
        None => begun_anew(file, bytes, case.found),
    };
    let Some(ended) = ended else { return Ok(None) };
    let at = ended.len() as u64;
    fresh.insert(file.clone(), Arc::new(ended));
    let after = read(disk, fresh)?;
    if after.damage.is_some() {
        // A cut that does not end all damage gives records away for nothing.
        fresh.remove(file);
        return Ok(None);
    }
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    let whole = incarnation(bytes).zip(bytes.get(start..)).map_or(0, |(incarnation, rest)| evidence(rest, incarnation).records);
    Ok(Some(Step { damage: case.damage.clone(), act: Act::Cut { at }, loses: case.loses(&after), whole }))
}

impl Case<'_> {
    /// What had been acknowledged and is not there afterwards.
    fn loses(&self, after: &Survey) -> Option<(Lsn, Lsn)> {
        let is_last = after.segments.last().is_none_or(|segment| segment.name == self.damage.file);
        (is_last && self.evidence.acked >= after.next).then_some((Lsn(after.next), Lsn(self.evidence.acked)))
    }
}

/// The segment up to `end`, with a watermark that tells of nothing behind `last`.
fn shortened(bytes: &[u8], end: u64, last: u64) -> Option<Vec<u8>> {
    let mut out = bytes.get(..usize::try_from(end).ok()?)?.to_vec();
    let header = Header::decode(&out).ok()?;
    out.get_mut(SLOTS)?.fill(0);
    if last > 0 {
        let slot = Slot { sequence: 1, acked: last, incarnation: header.incarnation };
        let at = usize::try_from(slot.offset()).ok()?;
        let encoded = slot.encode();
        out.get_mut(at..at.checked_add(encoded.len())?)?.copy_from_slice(&encoded);
    }
    Some(out)
}

/// An empty segment in place of one whose header is damaged; it keeps the number of its opening, so
/// that no later opening uses that again.
fn begun_anew(name: &str, bytes: &[u8], found: &Survey) -> Option<Vec<u8>> {
    let epoch = u64::from_str_radix(name.get(..16)?, 16).ok()?;
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let incarnation = u64::from_le_bytes(*digest.first_chunk()?);
    let header = Header { epoch, first_lsn: found.next, incarnation, chain: found.head, created_ms: 0, boot_id: [0; 16], seals: None };
    (segment_name(epoch, found.next) == name && epoch >= found.epoch).then(|| header.encode())
}

fn why_stuck(disk: &dyn Disk, had_copies: bool, damage: &Damage) -> Result<&'static str, Error> {
    let (names, _) = in_force(segment_names(disk)?);
    Ok(match (names.last() == Some(&damage.file), had_copies) {
        (true, _) => "nothing can be cut there without leaving other damage; a whole copy of the segment would mend it",
        (false, true) => "later records stand on it, so nothing can be cut, and no copy that was given fits",
        (false, false) => "later records stand on it, so nothing can be cut; a whole copy of the segment would mend it",
    })
}

/// A file's bytes; `None` when it is missing.
fn whole_file(disk: &dyn Disk, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name, Mode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    read_full(&*file, 0, size).map(Some)
}

/// The first name `NAME.damaged-<n>` that is free.
fn free_name(disk: &dyn Disk, name: &str) -> io::Result<String> {
    let taken = disk.list()?;
    let free = (1..=u32::MAX).map(|n| format!("{name}.damaged-{n}")).find(|name| !taken.contains(name));
    free.ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

fn put_aside(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<String> {
    let aside = free_name(disk, name)?;
    place(disk, &aside, bytes)?;
    Ok(aside)
}

/// Writes a file that gets its name once it is whole and durable.
fn place(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}{NEW_SUFFIX}");
    let file = disk.open(&new, Mode::Create)?;
    write_full(&*file, 0, bytes)?;
    file.sync()?;
    disk.rename(&new, name)?;
    disk.sync_dir()
}
