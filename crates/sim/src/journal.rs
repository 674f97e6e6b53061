//! The real journal in the hands of one simulated daemon.
//!
//! It adds nothing but ears: what a living daemon hears to be durable goes to the oracle in the same
//! moment. Planted bugs of the log stand here too. Invariant: a dead daemon appends nothing and
//! hears nothing.

use crate::dice::Topic;
use crate::life::Life;
use crate::plant::Plant;
use crate::stats::Count;
use crate::time::SimClock;
use crate::world::World;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{Event, Placed, decode};
use tinkerbell_core::port::{Appended, Compaction, Journal, JournalState, Needed, NewRecord, Record, Room};
use tinkerbell_core::words::{BlobRef, Lsn};
use tinkerbell_wal::Wal;
use tokio::sync::Notify;

/// After this long without work the flusher is asked to keep house.
const IDLE: Duration = Duration::from_millis(6);
/// How often it looks for space on a full disk.
const LOOK: Duration = Duration::from_secs(1);
/// Rounds of keeping house until it must have nothing left to do.
const IDLE_ROUNDS: u32 = 3;

/// The journal port of one daemon.
pub struct SimJournal {
    /// The real one.
    pub wal: Arc<Wal>,
    /// The world.
    pub world: Arc<World>,
    /// The daemon.
    pub life: Arc<Life>,
    /// Told when something waits for the disk.
    pub work: Arc<Notify>,
}

/// Reads what a record tells.
pub fn read(world: &World, record: &Record) -> Option<Placed> {
    let payload = if record.blob { world.blobs.find(BlobRef::from_bytes(&record.payload)?)? } else { record.payload.clone() };
    let (at_ms, event) = decode(record.lsn, &payload).ok()?;
    Some(Placed { lsn: record.lsn, at_ms, task: record.task?, event })
}

impl SimJournal {
    fn heard(&self, first: Lsn, records: &[NewRecord]) -> Vec<(Record, Option<Placed>)> {
        let numbered = |(lsn, new): (u64, &NewRecord)| {
            let NewRecord { kind, schema, task, blob, payload, .. } = new.clone();
            let record = Record { lsn: Lsn(lsn), kind, schema, task, blob, payload };
            let placed = read(&self.world, &record);
            (record, placed)
        };
        (first.0..).zip(records).map(numbered).collect()
    }

    /// Whether a planted bug records these twice; the oracle hears of each event on its way.
    fn hear(&self, records: &[NewRecord]) -> bool {
        let (now, boot) = (self.world.time.stamp(), u128::from(self.world.host.boot()) + 1);
        let mut again = false;
        for record in records.iter().filter(|record| !record.blob) {
            let (Ok((_, event)), Some(task)) = (decode(Lsn(0), &record.payload), record.task) else { continue };
            self.world.oracle.queued(task, &event, now, boot);
            again |= match self.world.plant {
                Some(Plant::DoubleDelivery) => matches!(event, Event::Observed(_)),
                Some(Plant::DoubleTimer) => matches!(event, Event::TimerFired(_)),
                _ => false,
            };
        }
        again
    }

    fn append_once(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        let heard = records.clone();
        let appended = self.wal.append(records)?;
        self.work.notify_one();
        let heard = self.heard(appended.first, &heard);
        let (world, life, durable) = (self.world.clone(), self.life.clone(), appended.durable);
        let durable = async move {
            let result = durable.await;
            if !life.is_alive() {
                std::future::pending::<()>().await;
            }
            if result.is_ok() {
                for (_, placed) in &heard {
                    let is_snapshot = placed.as_ref().is_some_and(|placed| matches!(placed.event, Event::Snapshot(_)));
                    world.count(if is_snapshot { Count::Snapshot } else { Count::Record });
                }
                world.oracle.durable(heard);
            }
            result
        };
        Ok(Appended { first: appended.first, last: appended.last, durable: durable.boxed() })
    }
}

impl Journal for SimJournal {
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        if !self.life.touch() {
            return Err(Fault::new("TB-SCHED-002", exit::UNAVAILABLE, "the daemon is dead").transient());
        }
        let again = self.hear(&records).then(|| records.clone());
        let mut appended = self.append_once(records)?;
        if let Some(again) = again
            && self.world.dice.hits(50, Topic::Disk, &[appended.first.0])
        {
            let (first, second) = (appended.durable, self.append_once(again)?.durable);
            appended.durable = async move { first.await.and(second.await) }.boxed();
        }
        if self.world.plant == Some(Plant::EarlyAct) {
            return Ok(Appended { durable: async { Ok(()) }.boxed(), ..appended });
        }
        Ok(appended)
    }

    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        async move {
            self.life.pass().await;
            self.wal.read(from, limit).await
        }
        .boxed()
    }

    fn state(&self) -> JournalState {
        self.wal.state()
    }

    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.life.pass().await;
            self.world.count(Count::Checkpoint);
            self.wal.checkpoint(through, image).await
        }
        .boxed()
    }

    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        async move {
            self.life.pass().await;
            self.wal.restore().await
        }
        .boxed()
    }

    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        async move {
            self.life.pass().await;
            // From here on the records may be gone, whatever becomes of this daemon.
            self.world.oracle.given_away(|record| !needed(record.lsn, record.kind, record.task));
            let done = self.wal.compact(needed).await;
            self.life.pass().await;
            if done.as_ref().is_ok_and(|done| done.dropped > 0) {
                self.world.count(Count::Compacted);
            }
            done
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let closed = self.wal.close();
        self.work.notify_one();
        closed
    }
}

/// Takes the flusher's place: writes what waits, after the time that the disk takes.
pub async fn flush(journal: Arc<SimJournal>, clock: Arc<SimClock>) {
    let (world, mut rounds, mut at) = (journal.world.clone(), 0, 0);
    loop {
        if rounds == IDLE_ROUNDS {
            // On a full disk the flusher looks for space by itself.
            let room = journal.wal.state().room;
            tokio::select! {
                biased;
                () = journal.work.notified() => {}
                () = clock.sleep(LOOK), if room == Room::Reserve => {}
            }
            rounds = 0;
        }
        let took = world.disk.slow_ms().unwrap_or_else(|| world.dice.between(0, 4, Topic::Disk, &[u64::from(journal.life.number), at]));
        at += 1;
        if took > 0 {
            clock.sleep(Duration::from_millis(took)).await;
        }
        if !journal.life.is_alive() {
            return;
        }
        if journal.wal.step() {
            rounds = 0;
        } else {
            rounds += 1;
            tokio::select! {
                biased;
                () = journal.work.notified() => rounds = 0,
                () = clock.sleep(IDLE) => {}
            }
        }
    }
}
