//! The arguments of `wal`.
//!
//! Invariant: what a script may stand on is read in `args/tests.rs`, and never changes its meaning.

use clap::Subcommand;
use std::path::PathBuf;

/// Commands about the journal.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum WalCommand {
    /// Count segments and records
    Stat {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every record
    Verify,
    /// Print records
    Dump {
        /// First number
        #[arg(long, default_value_t = 1, value_name = "LSN")]
        from: u64,
        /// At most so many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
        /// Only of this task
        #[arg(long, value_name = "TASK")]
        task: Option<String>,
    },
    /// Copy what is sealed to the archive; the daemon must be stopped
    Archive {
        /// Another directory than `[journal] archive`
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Give the disk back what nobody needs; the daemon must be stopped
    Compact,
    /// Build a journal from an archive
    Restore {
        /// The archive
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// New or empty directory for the journal
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Print every record as a line of JSON
    Export {
        /// Only of this task
        #[arg(long, value_name = "TASK")]
        task: Option<String>,
        /// The form of the lines
        #[arg(long, default_value = "jsonl", value_parser = ["jsonl"])]
        format: String,
        /// With large payloads in place of references; the daemon must be stopped
        #[arg(long)]
        blobs: bool,
    },
    /// Say what mends a damaged journal; the daemon must be stopped
    Repair {
        /// Do it, after copying what is damaged aside
        #[arg(long)]
        apply: bool,
        /// A backup of the journal's directory
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Tell everything about one record
    Explain {
        /// Its number
        #[arg(value_name = "LSN")]
        lsn: u64,
    },
}
