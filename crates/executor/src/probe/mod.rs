//! The self-test: attacks the sandbox from inside and believes only errors.
//!
//! Each attack runs through the same keeper and cell as any command. Invariant: a level is proven
//! only if every attack failed and every permitted act worked.

mod attacks;
mod cache;
pub mod format;
mod stage;

pub use attacks::main;
pub use cache::{load, store};
pub use format::{Check, Report};
pub use stage::{Extent, run};

use crate::error::Error;
use crate::options::{LevelChoice, WorkspaceChoice};
use tinkerbell_core::port::Level;

impl Report {
    /// The level that the operator's choice and the proofs give together.
    ///
    /// # Errors
    /// When the chosen level, or with `auto` every level, failed.
    pub fn choose(&self, choice: LevelChoice) -> Result<Level, Error> {
        let pinned = |level: Level, checks: &[Check]| match failure(checks) {
            None => Ok(level),
            Some(why) => Err(Error::Pinned { level: level.name(), why }),
        };
        match choice {
            LevelChoice::None => Ok(Level::None),
            LevelChoice::Full => pinned(Level::Full, &self.full),
            LevelChoice::Landlock => pinned(Level::Landlock, &self.landlock),
            LevelChoice::Auto => match (failure(&self.full), failure(&self.landlock)) {
                (None, _) => Ok(Level::Full),
                (_, None) => Ok(Level::Landlock),
                (Some(full), Some(landlock)) => Err(Error::NoLevel(format!("full: {full}; landlock: {landlock}"))),
            },
        }
    }

    /// Whether commands at this level may be given layers over the workspace.
    ///
    /// # Errors
    /// When the operator demands layers and they can not be had.
    pub fn overlay(&self, level: Level, choice: WorkspaceChoice) -> Result<bool, Error> {
        let why = match (choice, level) {
            (WorkspaceChoice::Direct, _) => return Ok(false),
            (_, Level::Full) => failure(&self.overlay),
            (_, other) => Some(format!("it needs level `full`, and commands get `{}`", other.name())),
        };
        match (why, choice) {
            (None, _) => Ok(true),
            (Some(why), WorkspaceChoice::Overlay) => Err(Error::Overlay(why)),
            (Some(_), _) => Ok(false),
        }
    }
}

/// The first failed check in words; `None` when all passed. No checks at all prove nothing.
fn failure(checks: &[Check]) -> Option<String> {
    if checks.is_empty() {
        return Some("it was not tested".to_owned());
    }
    checks.iter().find(|check| !check.passed).map(|check| format!("{}: {}", check.name, check.text))
}
