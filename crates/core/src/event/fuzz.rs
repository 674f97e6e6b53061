//! What any bytes must not do to the reader of journal payloads; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks.

use super::{Event, Placed, decode, encode};
use crate::lifecycle::Task;
use crate::words::{Lsn, TaskId};

/// Decodes a payload: what is understood is written and read again as the same, and folding it into a task
/// ends whatever it says.
pub fn payload(data: &[u8]) {
    let Ok((at_ms, event)) = decode(Lsn(1), data) else { return };
    let bytes = encode(event.clone(), at_ms);
    let again = decode(Lsn(1), &bytes).map(|(at_ms, event)| encode(event, at_ms));
    // By bytes: a number that is none is unequal to itself.
    assert_eq!(again.ok(), Some(bytes));
    let mut task = Task::new(TaskId(1), Lsn(0), 0, super::Submitted::default());
    for lsn in [1, 2] {
        task.apply(&Placed { lsn: Lsn(lsn), at_ms, task: TaskId(1), event: event.clone() });
    }
    let (_, _) = (task.status.word().len(), task.held_total());
    let _open = matches!(event, Event::Intent(_)) && task.open.is_none();
}
