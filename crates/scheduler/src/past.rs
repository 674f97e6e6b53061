//! A task's past as its coroutine reads it: the newest part of the history index, record by record.
//!
//! The part begins at a fixed step, so that what was rendered once is rendered the same for a long
//! while. Invariant: what is left out is said, once, at the front.

use crate::engine::Deps;
use crate::record::unpack;
use crate::slot::History;
use std::collections::VecDeque;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::Past;
use tinkerbell_core::event::{Action, Event, Placed};
use tinkerbell_core::lifecycle::format;
use tinkerbell_core::port::Record;
use tinkerbell_core::words::{Lsn, Seq};

/// History records that a reader gets at most: more than any model's window holds.
const MOST: u64 = 12_288;
/// The reader's part begins at a multiple of this.
const STEP: u64 = 4_096;
/// Records read at once: of a task that works alone, most of them are its own.
const AHEAD: usize = 64;

/// What was read of the past.
#[derive(Default)]
pub(crate) struct ReadPast {
    items: Vec<Past>,
    /// How many history records were taken or passed over.
    cursor: u64,
    /// Intents whose observation has not been met yet.
    open: Vec<(Lsn, Seq, Action)>,
    /// Records that were read along.
    ahead: VecDeque<Record>,
    ahead_from: Lsn,
    /// Whether it was said that the beginning is missing.
    told: bool,
}

impl ReadPast {
    /// The history records to take next.
    pub(crate) async fn wanted(&mut self, deps: &Deps, history: &History) -> Result<Vec<Lsn>, Fault> {
        let count = history.count();
        if self.cursor == 0 && count > MOST {
            self.cursor = (count - MOST).next_multiple_of(STEP).min(count);
            self.say_cut(Lsn(0));
        }
        let mut wanted: VecDeque<Lsn> = VecDeque::new();
        let (mut page, mut before) = (history.page, history.paged);
        while before > self.cursor {
            let Some(Placed { event: Event::Page(found), .. }) = crate::rest::read(deps, page).await? else {
                // The oldest pages are not kept any more.
                self.say_cut(Lsn(0));
                break;
            };
            before = found.before;
            let skip = usize::try_from(self.cursor.saturating_sub(before)).unwrap_or(usize::MAX);
            for lsn in format::unpack(&found.records).into_iter().skip(skip).rev() {
                wanted.push_front(lsn);
            }
            page = Lsn(found.previous);
        }
        let skip = usize::try_from(self.cursor.saturating_sub(history.paged)).unwrap_or(usize::MAX);
        wanted.extend(history.tail.iter().skip(skip));
        self.cursor = count;
        Ok(wanted.into())
    }

    /// An event of the past; `None` when its record is not kept any more.
    pub(crate) async fn event(&mut self, deps: &Deps, lsn: Lsn) -> Result<Option<Event>, Fault> {
        self.ahead.retain(|record| record.lsn >= lsn);
        // What was read along is whole from `ahead_from` on: a number that is not in it is gone.
        if lsn < self.ahead_from || self.ahead.is_empty() {
            self.ahead_from = lsn;
            self.ahead = deps.journal.read(lsn, AHEAD).await?.into();
        }
        let Some(record) = self.ahead.pop_front_if(|record| record.lsn == lsn) else { return Ok(None) };
        Ok(unpack(&*deps.blobs, record).await?.map(|placed| placed.event))
    }

    /// Adds one event, in journal order.
    pub(crate) fn take(&mut self, lsn: Lsn, event: Option<Event>) {
        match event {
            Some(Event::Intent(intent)) => self.open.extend(intent.action.map(|action| (lsn, intent.seq, action))),
            Some(Event::Observed(observed)) => {
                let at = self.open.iter().position(|(_, seq, _)| *seq == observed.seq);
                if let (Some(at), Some(observation)) = (at, observed.observation) {
                    let (intent_lsn, seq, action) = self.open.swap_remove(at);
                    self.items.push(Past::Effect { lsn, intent_lsn, seq, action, observation });
                }
            }
            Some(Event::Signal(signal)) => {
                self.items.push(Past::Note { lsn, text: signal.text, from_user: signal.kind == "tell" });
            }
            Some(_) => {}
            None => self.say_cut(lsn),
        }
    }

    fn say_cut(&mut self, lsn: Lsn) {
        if !std::mem::replace(&mut self.told, true) {
            self.items.push(Past::Note { lsn, text: Past::CUT.to_owned(), from_user: false });
        }
    }

    /// What stands after `after`.
    pub(crate) fn after(&self, after: Lsn) -> Vec<Past> {
        // The note about a cut stands before everything, and so at 0.
        self.items.iter().filter(|past| after == Lsn(0) || place(past) > after).cloned().collect()
    }
}

fn place(past: &Past) -> Lsn {
    match past {
        Past::Effect { lsn, .. } | Past::Note { lsn, .. } => *lsn,
    }
}
