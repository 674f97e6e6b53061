//! One life of the daemon: from its start until it ends or is killed.
//!
//! Everything that a daemon does to the world passes here. A fuse counts these touches; when it has
//! burnt, the daemon is dead: what still runs of it until its memory is dropped can neither change
//! nor learn anything. Invariant: after its death a life touches nothing.

use crate::hold;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// `kill -9`: what was written stays in the page cache.
    Killed,
    /// The machine dies with it: what was not synced may be lost.
    PowerCut,
    /// It ends by itself, in order or because the journal is broken.
    Left,
}

/// One life.
pub struct Life {
    /// Counts the daemons of a history.
    pub number: u32,
    alive: AtomicBool,
    fuse: AtomicU64,
    death: Mutex<Option<Death>>,
}

impl Life {
    /// A daemon that begins.
    pub const fn new(number: u32) -> Self {
        Self { number, alive: AtomicBool::new(true), fuse: AtomicU64::new(u64::MAX), death: Mutex::new(None) }
    }

    /// It dies after this many further touches, unless it is going to die sooner.
    pub fn arm(&self, touches: u64, death: Death) {
        if touches < self.fuse.load(Ordering::Relaxed) {
            self.fuse.store(touches, Ordering::Relaxed);
            *hold(&self.death) = Some(death);
        }
    }

    /// It ends now.
    pub fn end(&self, death: Death) {
        if self.alive.swap(false, Ordering::Relaxed) {
            *hold(&self.death) = Some(death);
        }
    }

    /// Counts one touch; says whether it may happen.
    pub fn touch(&self) -> bool {
        if !self.is_alive() {
            return false;
        }
        let left = self.fuse.load(Ordering::Relaxed);
        if left == 0 {
            self.alive.store(false, Ordering::Relaxed);
            return false;
        }
        if left != u64::MAX {
            self.fuse.store(left - 1, Ordering::Relaxed);
        }
        true
    }

    /// Goes on only if it lives.
    pub async fn pass(&self) {
        if !self.touch() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// How it died, if it did.
    pub fn death(&self) -> Option<Death> {
        if self.is_alive() { None } else { *hold(&self.death) }
    }
}
