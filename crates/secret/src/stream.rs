//! Redaction of what comes in pieces.
//!
//! Only the end of the input that may still become a form is held back: never more than the longest
//! form, and nothing at all where no form begins. Invariant: all pieces together give what the whole
//! text gives, whatever the cuts.

use crate::redactor::{Reading, Redactor};
use std::sync::Arc;
use zeroize::Zeroize as _;

/// One stream of bytes on its way through a redactor.
#[derive(Debug)]
pub struct Stream {
    redactor: Arc<Redactor>,
    /// What was taken and not given yet.
    held: Vec<u8>,
    reading: Reading,
}

impl Stream {
    /// A stream that has taken nothing yet.
    #[must_use]
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new(), reading: Reading::default() }
    }

    /// Takes a piece, and gives what is certain now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.redactor.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        self.redactor.read(&self.held, false, &mut self.reading);
        let end = self.redactor.certain(&self.reading);
        self.give(end)
    }

    /// Gives the rest: nothing follows.
    pub fn finish(&mut self) -> Vec<u8> {
        self.redactor.read(&self.held, true, &mut self.reading);
        self.reading.end();
        self.give(self.held.len())
    }

    /// As [`Stream::push`], for text.
    pub fn push_text(&mut self, piece: &str) -> String {
        text(self.push(piece.as_bytes()))
    }

    /// As [`Stream::finish`], for text.
    pub fn finish_text(&mut self) -> String {
        text(self.finish())
    }

    /// Goes on with another redactor, which knows all that the old one knew.
    pub fn renew(&mut self, redactor: &Arc<Redactor>) {
        if !Arc::ptr_eq(&self.redactor, redactor) {
            self.redactor = redactor.clone();
            self.reading.again();
        }
    }

    /// How many bytes wait for what follows.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.len()
    }

    fn give(&mut self, end: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(end);
        self.redactor.give(&self.held, end, &mut self.reading, &mut out);
        let rest = self.held.split_off(end);
        // It may have held a secret in plain.
        self.held.zeroize();
        self.held = rest;
        out
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// Forms begin and end at signs, so text stays text.
pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests;
