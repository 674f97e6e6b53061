//! Words about trust in what a repository brings.
//!
//! Only the grammar. Invariant: nothing is trusted without `--yes` or an answer on a terminal.

use crate::house::TrustWish;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// What to do about a repository's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub struct TrustArgs {
    /// A directory in the repository
    pub dir: Option<PathBuf>,
    /// Only show what the repository brings, and whether it is trusted
    #[arg(long)]
    pub show: bool,
    /// Take trust back
    #[arg(long, conflicts_with = "show")]
    pub revoke: bool,
}

impl TrustArgs {
    /// What is wanted.
    #[must_use]
    pub const fn wish(&self) -> TrustWish {
        match (self.show, self.revoke) {
            (true, _) => TrustWish::Show,
            (_, true) => TrustWish::Revoke,
            _ => TrustWish::Ask,
        }
    }
}
