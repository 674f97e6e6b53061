//! Words about the sandbox.
//!
//! Only the grammar. Invariant: none of these commands changes anything.

use clap::Subcommand;

/// Commands about the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum SandboxCommand {
    /// Print the AppArmor profile that lets this program make its sandbox, and how to install it
    Apparmor,
    /// Print the profile that a command in this repository would get on macOS; it is not applied
    Seatbelt,
}
