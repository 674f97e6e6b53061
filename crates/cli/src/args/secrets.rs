//! Words about secrets.
//!
//! Only the grammar. Invariant: no option here takes or shows a value.

use clap::Subcommand;

/// Commands about secrets.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum SecretsCommand {
    /// List the configured ones: name, where it comes from, whether it is there; never values
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}
