//! Watching a command while the model waits for it: its lines are shown as they come.
//!
//! What is shown is not recorded; the report reads the spool anew. Invariant: only whole lines are
//! shown, so that what must not be seen is never cut in two where nobody recognises it.

use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Unit, UnitState, Until};
use tinkerbell_core::text::fold_output;
use tinkerbell_core::tool::Sink;

/// How long a line may wait to be shown.
const SLICE: Duration = Duration::from_millis(200);
/// Shown of one slice at the most; a flood is nothing to read anyway.
const PIECE: usize = 16 << 10;

/// Waits for the end or the timeout, and shows lines meanwhile. Cancel safe.
pub(super) async fn watch(unit: &dyn Unit, timeout: Duration, sink: &Sink) -> Result<UnitState, Fault> {
    let mut left = timeout;
    let mut from = 0;
    loop {
        let slice = left.min(SLICE);
        let state = unit.wait(Until { timeout: slice, line: None, from: 0 }).await?;
        from = show(unit, from, sink).await?;
        left = left.saturating_sub(slice);
        if state != UnitState::Running || left.is_zero() {
            return Ok(state);
        }
    }
}

/// Shows the whole lines after `from`; gives where the next one begins.
async fn show(unit: &dyn Unit, from: u64, sink: &Sink) -> Result<u64, Fault> {
    let chunk = unit.output(from, PIECE).await?;
    let end = match chunk.bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        // A line longer than a piece is shown in pieces.
        None if chunk.bytes.len() >= PIECE => chunk.bytes.len(),
        None => return Ok(from),
    };
    sink.show(&fold_output(&chunk.bytes.slice(..end)));
    Ok(chunk.offset.saturating_add(end as u64))
}
