//! Words about the policy.
//!
//! Only the grammar. Invariant: none of these commands changes anything but `grants revoke`.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// Commands about the policy.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum PolicyCommand {
    /// Check the files of all layers, or one file; exit 78 when one is wrong
    Check {
        /// A file that need not be in place yet
        file: Option<PathBuf>,
    },
    /// Try the examples of all rules and count them
    Test {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what would become of a command, and by which rules; nothing is run
    Explain {
        /// The command, as the shell would read it
        command: String,
        /// The sandbox level that it would get
        #[arg(long, default_value = "full", value_parser = PossibleValuesParser::new(["full", "landlock", "none"]))]
        level: String,
        /// The words of a task: they say whether its user asked for the command
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        goal: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the built-in file
    Show,
    /// List what you allowed for more than one time (`approve --for`), or take it back
    #[command(args_conflicts_with_subcommands = true)]
    Grants {
        /// What to do instead of listing
        #[command(subcommand)]
        what: Option<GrantsCommand>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Commands about what was allowed for more than one time.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum GrantsCommand {
    /// Take a grant back; what it allowed is asked for again
    Revoke {
        /// Its name, as the list shows it
        id: String,
    },
}
