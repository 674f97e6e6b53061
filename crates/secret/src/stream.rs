//! Redaction of what comes in pieces.
//!
//! Only the end of the input that may still become a form is held back: never more than the longest
//! form, and nothing at all where no form begins. Invariant: all pieces together give what the whole
//! text gives, whatever the cuts.

use crate::redactor::Redactor;
use std::sync::Arc;
use zeroize::Zeroize as _;

/// One stream of bytes on its way through a redactor.
#[derive(Debug)]
pub struct Stream {
    redactor: Arc<Redactor>,
    /// What was taken and not given yet.
    held: Vec<u8>,
    /// How many bytes of it belong to a form whose name was given.
    covered: usize,
}

impl Stream {
    /// A stream that has taken nothing yet.
    #[must_use]
    pub const fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new(), covered: 0 }
    }

    /// Takes a piece, and gives what is certain now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.redactor.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        let end = self.redactor.pending(&self.held);
        self.give(end)
    }

    /// Gives the rest: nothing follows.
    pub fn finish(&mut self) -> Vec<u8> {
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
        }
    }

    /// How many bytes wait for what follows.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.len()
    }

    fn give(&mut self, end: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(end);
        let covered = self.redactor.cover(&self.held, end, self.covered, &mut out);
        self.covered = covered.saturating_sub(end);
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
