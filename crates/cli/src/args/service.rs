//! `tinkerbell daemon`: what may be said to the daemon's process.
//!
//! Shapes only. Invariant: every word here has its help.

use crate::units;
use clap::Subcommand;
use std::path::PathBuf;
use std::time::Duration;

/// Commands about the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DaemonCommand {
    /// Start it; a running one is left alone
    Start {
        /// Stay in the foreground
        #[arg(long)]
        foreground: bool,
    },
    /// Stop it; commands of tasks keep running and are found again
    Stop,
    /// Show how it stands; exit 69 when it does not run
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show its log
    Logs {
        /// Go on showing
        #[arg(short, long)]
        follow: bool,
        /// Lines from the end
        #[arg(short = 'n', long, default_value_t = 200, value_name = "N")]
        lines: usize,
    },
    /// Let another binary take the daemon's place; tasks, commands and clients notice nothing
    #[command(long_about = UPGRADE)]
    Upgrade {
        /// The new binary; without one, this very program
        binary: Option<PathBuf>,
        /// Wait for model calls under way for this long; the courier carries the rest on
        #[arg(long, default_value = "0s", value_parser = units::duration, value_name = "DURATION")]
        drain: Duration,
        /// The new binary must serve within this time, or the old one takes over again
        #[arg(long, default_value = "10s", value_parser = units::duration, value_name = "DURATION")]
        health: Duration,
        /// Only look whether the new binary could take over
        #[arg(long)]
        dry_run: bool,
    },
    /// Let the service manager start the daemon, at login or at boot
    Install {
        /// For the whole machine instead of for you; needs root
        #[arg(long)]
        system: bool,
        /// Only print what would be written and run
        #[arg(long)]
        dry_run: bool,
    },
    /// Take back what `daemon install` did; data stays
    Uninstall {
        /// For the whole machine instead of for you; needs root
        #[arg(long)]
        system: bool,
        /// Only print what would be removed and run
        #[arg(long)]
        dry_run: bool,
    },
    /// Read the configuration again; a mistake leaves the old values in force
    Reload,
}

const UPGRADE: &str = "Let another binary take the daemon's place.

The new binary first looks at the journal; if it can not read all of it, nothing is touched. Commands
run on under their keepers and model calls in the courier; then the journal is closed and the socket changes
hands: clients that connect meanwhile wait a moment, none is refused. If the new binary does not serve
in time, the old one takes over again by itself.";
