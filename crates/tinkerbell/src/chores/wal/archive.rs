//! `wal archive | restore`: copies of the journal's segments, and a journal built from them.
//!
//! Archiving opens the journal and so needs its lock, which a daemon holds. Invariant: neither changes
//! what an archive already holds, and a restore writes only into a new or empty directory.

use super::super::Shop;
use super::super::text::size;
use super::is_missing;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::Journal as _;
use tinkerbell_wal::archive::Directory;
use tinkerbell_wal::{Options, Wal};

/// Copies everything that the journal holds now and the archive does not.
///
/// # Errors
/// When no archive is named, when a daemon runs, or when journal or archive can not be used.
pub async fn archive(shop: &Shop<'_>, to: Option<&Path>, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    let dir = match to {
        Some(dir) => dir.to_owned(),
        None => configured(shop)?,
    };
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    // Opening begins a new segment, so everything that was written before is sealed.
    let journal = Wal::open(Options::new(shop.places.journal()), clock, entropy).map_err(|fault| {
        let is_held = fault.code.0 == "TB-WAL-001";
        let hint = "stop the daemon first: tinkerbell daemon stop; with `[journal] archive` set it archives by itself before it compacts";
        if is_held { fault.hint(hint) } else { fault }
    })?;
    journal.archive_to(Directory::create(dir.clone())?);
    let done = journal.archive_sealed().await;
    journal.close().await?;
    let done = done?;
    out.data(&format!(
        "{} segments, {}, copied to {}; it holds everything up to record {}",
        done.segments,
        size(done.size_bytes),
        dir.display(),
        done.through
    ));
    out.talk("note: large payloads lie in blobs, which an archive of the journal does not hold; back up the data directory for them");
    Ok(exit::DONE)
}

fn configured(shop: &Shop<'_>) -> Result<PathBuf, Fault> {
    let loaded = config::load(shop.sources, shop.env)?;
    loaded.config.journal.archive.ok_or_else(|| {
        Fault::new("TB-WAL-021", exit::CONFIG, "no archive is named".to_owned())
            .hint("set it in the configuration: [journal] archive = \"/path\"")
            .hint("or name it once: tinkerbell wal archive --to DIR")
    })
}

/// Builds a journal in `to` from the archive in `from`.
///
/// # Errors
/// When the archive is empty, incomplete or damaged, or when `to` holds something.
pub async fn restore(from: &Path, to: &Path, out: &Output) -> Result<u8, Fault> {
    let done = tinkerbell_wal::archive::restore(&*Directory::existing(from), to).await?;
    out.data(&format!(
        "{} records in {} segments, {}, restored to {}; up to record {}",
        done.records,
        done.segments,
        size(done.size_bytes),
        to.display(),
        done.through
    ));
    out.talk("every checksum and the whole chain were checked; move the directory to `journal` in a data directory to use it");
    Ok(exit::DONE)
}
