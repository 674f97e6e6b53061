//! The moving row of a terminal, and the lines that scroll above it.
//!
//! Finished lines are printed once, into the terminal's own history; only the last row is redrawn.
//! Off a terminal there is no row, only lines. Invariant: what was printed is never redrawn.

use super::lines::{Depth, Line, lines};
use super::{one_line, visible};
use crate::output::{Output, Tone};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::wire::{Body, Delta, Envelope, ItemKind, ItemUpdated};

/// Characters of a text that the moving row can use.
const ROW: usize = 200;
/// Frames a second stay below ten.
const TICK: Duration = Duration::from_millis(120);
/// A message without line ends is printed in pieces no longer than this.
const LONG_LINE: usize = 4_000;

/// Where a followed task is shown.
pub struct Screen {
    out: Arc<Output>,
    row: Option<ProgressBar>,
    may_move: bool,
    depth: Depth,
    /// What the item is that runs.
    title: String,
    /// Streamed text that has no line end yet.
    pending: String,
    /// All text streamed for the message that is being written.
    streamed: String,
    has_sign: bool,
}

impl Screen {
    /// A screen on stderr; without a moving row where data is printed meanwhile.
    #[must_use]
    pub fn new(out: Arc<Output>, may_move: bool) -> Self {
        let may_move = may_move && out.has_progress();
        let row = may_move.then(|| row(out.is_ascii()));
        let depth = Depth { messages: row.is_some() || out.verbosity() > 0, outputs: out.verbosity() > 1, is_ascii: out.is_ascii() };
        Self { out, row, may_move, depth, title: String::new(), pending: String::new(), streamed: String::new(), has_sign: false }
    }

    /// Shows an event.
    pub fn show(&mut self, envelope: &Envelope) {
        match &envelope.body {
            Body::ItemStarted(item) => {
                self.settle();
                self.title = if item.kind == ItemKind::Message { "thinking".to_owned() } else { one_line(&item.title, ROW) };
                self.begin();
            }
            Body::ItemUpdated(update) => self.update(update),
            Body::ItemCompleted(item) if item.kind == ItemKind::Message && self.unseen(&item.text).is_empty() => self.settle(),
            _ => {
                self.settle();
                // Whoever wants no words wants these.
                let is_fault = matches!(&envelope.body, Body::Result(result) if result.error.is_some());
                for line in lines(envelope, self.depth) {
                    self.print(&line, is_fault);
                }
                self.title.clear();
                self.row.iter().for_each(|row| row.set_message(""));
            }
        }
    }

    /// Prints one line of talk above the row.
    pub fn say(&self, tone: Tone, text: &str) {
        self.above(&self.out.on_talk(tone, text));
    }

    /// What of a text has not streamed past already.
    #[must_use]
    pub fn unseen<'a>(&self, text: &'a str) -> &'a str {
        let streamed = self.streamed.trim();
        if self.row.is_none() || streamed.is_empty() {
            return text.trim();
        }
        text.trim().strip_prefix(streamed).unwrap_or(text).trim()
    }

    /// Hides the row while somebody is asked something.
    pub fn rest(&mut self) {
        self.settle();
        if let Some(row) = self.row.take() {
            row.finish_and_clear();
        }
    }

    /// Shows the row again after [`Self::rest`].
    pub fn resume(&mut self) {
        if self.row.is_none() && self.may_move {
            self.row = Some(row(self.out.is_ascii()));
        }
    }

    fn begin(&mut self) {
        self.streamed.clear();
        self.has_sign = false;
        if let Some(row) = &self.row {
            row.reset_elapsed();
            row.set_message(self.title.clone());
        }
    }

    fn update(&mut self, update: &ItemUpdated) {
        match update.delta {
            Delta::Text => self.stream(&update.text),
            Delta::Reasoning => self.hint(&update.text),
            Delta::Output => self.hint(last_line(&update.text)),
            Delta::Retrying => {
                self.settle();
                self.streamed.clear();
                let wait = crate::units::brief(update.wait_ms.unwrap_or(0));
                self.say(Tone::Look, &format!("the provider failed, asking again in {wait}: {}", one_line(&update.text, ROW)));
            }
        }
    }

    /// Whole lines scroll; the rest waits in the row. Off a terminal nothing streams: the whole
    /// message follows as one event.
    fn stream(&mut self, text: &str) {
        if self.row.is_none() {
            return;
        }
        self.streamed.push_str(text);
        self.pending.push_str(text);
        while let Some(end) = self.pending.find('\n') {
            let line: String = self.pending.drain(..=end).collect();
            self.flow(line.trim_end());
        }
        if self.pending.len() > LONG_LINE {
            self.settle();
        }
        if let Some(row) = &self.row {
            row.set_message(one_line(&self.pending, ROW));
        }
    }

    /// Prints one line of a message; its first line with the sign.
    fn flow(&mut self, line: &str) {
        if !self.has_sign && line.trim().is_empty() {
            return;
        }
        let sign = super::lines::signs(self.depth.is_ascii).says;
        let lead = if self.has_sign { "    ".to_owned() } else { format!("{sign} ") };
        self.has_sign = true;
        self.above(&format!("{lead}{}", visible(line)));
    }

    /// Prints what has no line end yet.
    fn settle(&mut self) {
        if !self.pending.trim().is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.flow(rest.trim_end());
        }
        self.pending.clear();
    }

    fn hint(&self, text: &str) {
        if let Some(row) = &self.row {
            let text = one_line(text, ROW);
            if !text.is_empty() {
                row.set_message(format!("{}  {text}", self.title));
            }
        }
    }

    fn print(&self, line: &Line, is_fault: bool) {
        let text = self.out.on_talk(line.tone, &line.plain());
        if is_fault && self.out.is_quiet() {
            self.out.error(&text);
        } else {
            self.above(&text);
        }
    }

    fn above(&self, line: &str) {
        if self.out.is_quiet() {
            return;
        }
        match &self.row {
            // Not the row's own `println`: it pads with blanks to the width, which end up in copies.
            Some(row) => row.suspend(|| self.out.talk(line)),
            None => self.out.talk(line),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.rest();
    }
}

fn row(is_ascii: bool) -> ProgressBar {
    let row = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    row.set_style(style.tick_chars(if is_ascii { "|/-\\ " } else { "⠋⠙⠹⠸⠼⠴⠦⠧ " }));
    row.enable_steady_tick(TICK);
    row
}

fn last_line(text: &str) -> &str {
    text.rsplit(['\n', '\r']).find(|line| !line.trim().is_empty()).unwrap_or_default()
}
