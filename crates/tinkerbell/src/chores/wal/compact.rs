//! `wal compact`: gives the disk back what nobody needs any more, while no daemon runs.
//!
//! The rules are those of the journal's newest checkpoint; what a daemon archives before it compacts is
//! archived here as well. Invariant: without a checkpoint that can be read nothing is given away.

use super::super::Shop;
use super::super::text::size;
use super::is_missing;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config;
use std::sync::Arc;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Compaction, Journal as _};
use tinkerbell_scheduler::Rules;
use tinkerbell_wal::archive::Directory;
use tinkerbell_wal::{Options, Wal};

/// Compacts the journal until there is nothing left that is worth it.
///
/// # Errors
/// When a daemon runs, when the configuration or the archive that it names can not be used, or when
/// the journal can not be opened, read or written.
pub async fn compact(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    // Before the lock: a broken configuration must not lose what it wants archived.
    let archive = config::load(shop.sources, shop.env)?.config.journal.archive;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let journal = Wal::open(Options::new(shop.places.journal()), clock, entropy).map_err(|fault| {
        let is_held = fault.code.0 == "TB-WAL-001";
        if is_held { fault.hint("stop the daemon first: tinkerbell daemon stop; while it runs it compacts by itself") } else { fault }
    })?;
    if let Some(dir) = archive {
        journal.archive_to(Directory::create(dir)?);
    }
    let before = journal.state().bytes;
    let done = all(&journal).await;
    let after = journal.state().bytes;
    journal.close().await?;
    let Some(done) = done? else {
        out.data("nothing was compacted");
        out.talk(
            "note: there is no checkpoint that says what is needed; a daemon writes one when it ends: tinkerbell daemon start, then stop",
        );
        return Ok(exit::DONE);
    };
    out.data(&format!(
        "{} segments compacted, {} records dropped, {} freed; the journal was {} and is {}",
        done.segments,
        done.dropped,
        size(done.freed_bytes),
        size(before),
        size(after)
    ));
    Ok(exit::DONE)
}

/// One call writes a bounded amount, so there may be several; `None` without a checkpoint.
async fn all(journal: &Wal) -> Result<Option<Compaction>, Fault> {
    let Some(rules) = Rules::of(journal).await? else { return Ok(None) };
    let (needed, mut sum) = (rules.needed(), Compaction::default());
    loop {
        let done = journal.compact(needed.clone()).await?;
        sum.segments = sum.segments.saturating_add(done.segments);
        sum.dropped = sum.dropped.saturating_add(done.dropped);
        sum.freed_bytes = sum.freed_bytes.saturating_add(done.freed_bytes);
        if done.segments == 0 {
            return Ok(Some(sum));
        }
    }
}
