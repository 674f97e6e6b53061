//! Words about limits of a task.
//!
//! Only the grammar. Invariant: an amount that is not understood is refused with an example.

use crate::units;
use clap::Args as ClapArgs;
use std::time::Duration;
use tinkerbell_core::amount::parse_bytes;
use tinkerbell_core::money::NanoUsd;

/// Limits of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Most money, e.g. `2usd`
    #[arg(long, visible_alias = "max-budget-usd", value_parser = NanoUsd::parse, value_name = "USD", allow_negative_numbers = true)]
    pub budget: Option<NanoUsd>,
    /// Most model calls
    #[arg(long, visible_alias = "max-session-turns", value_name = "N", allow_negative_numbers = true)]
    pub max_steps: Option<u32>,
    /// Most tokens in and out, e.g. `20M`
    #[arg(long, value_parser = units::count, value_name = "N")]
    pub max_tokens: Option<u64>,
    /// Longest working time, e.g. `4h`
    #[arg(long, value_parser = units::duration, value_name = "DURATION")]
    pub max_wall_time: Option<Duration>,
    /// Most CPU time of all commands together, e.g. `2h`
    #[arg(long, value_parser = units::duration, value_name = "DURATION")]
    pub max_cpu: Option<Duration>,
    /// Most disk that commands may take, e.g. `5GiB`
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub max_disk: Option<u64>,
    /// Most processes and threads of a command at once
    #[arg(long, value_parser = units::count, value_name = "N")]
    pub max_processes: Option<u64>,
    /// Most memory of a command at once, e.g. `4GiB`
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub max_memory: Option<u64>,
}
