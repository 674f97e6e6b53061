//! When a task begins, how urgent it is, and what a busy daemon is to mean.
//!
//! Words and their checks only. Invariant: what is not given leaves the choice to the command.

use crate::units;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use std::time::Duration;

/// Priorities that people may give.
pub const PRIORITIES: [&str; 3] = ["interactive", "normal", "batch"];

/// When and how urgently.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
#[command(next_help_heading = "When")]
pub struct When {
    /// How urgent; else interactive on a terminal, and normal otherwise
    #[arg(long, value_parser = PossibleValuesParser::new(PRIORITIES), value_name = "interactive|normal|batch", hide_possible_values = true)]
    pub priority: Option<String>,
    /// Begin after this long, e.g. `2h`; survives restarts
    #[arg(long, value_parser = units::duration, value_name = "DURATION", conflicts_with = "not_before")]
    pub after: Option<Duration>,
    /// Begin not before this time, e.g. `2026-12-01T07:00:00Z`, or after a duration
    #[arg(long, value_name = "TIME|DURATION")]
    pub not_before: Option<String>,
    /// Wait for room when the daemon takes no more tasks, at most this long [1h]
    #[arg(long, value_parser = units::duration, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1h")]
    pub wait: Option<Duration>,
}
