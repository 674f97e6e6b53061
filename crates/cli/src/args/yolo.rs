//! Words by which a user says that nobody is to be asked for approvals.
//!
//! Only the grammar. Invariant: it is said for one task, and ends by itself.

use crate::units;
use clap::Args as ClapArgs;
use std::time::Duration;

/// Whether anybody is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
#[command(next_help_heading = "Approvals")]
pub struct Yolo {
    /// Ask nobody for approvals: do it, within floor, sandbox and limits; critical risk is refused
    #[arg(long)]
    pub yolo: bool,
    /// Why nobody is asked; kept in the journal
    #[arg(long, value_name = "TEXT", requires = "yolo")]
    pub reason: Option<String>,
    /// For how long nobody is asked [24h], at most 7d; after that the task asks again
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "yolo")]
    pub yolo_for: Option<Duration>,
}
