//! Words about the keys.
//!
//! Only the grammar. Invariant: no option here takes or shows a secret.

use clap::Subcommand;

/// Commands about the keys.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum KeysCommand {
    /// List them: number, user, age; never secrets
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Wrap all keys under a new root key, and discard the old one
    RotateRoot,
}
