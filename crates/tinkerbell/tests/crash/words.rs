//! The words on the command line of the crash matrix.
//!
//! Invariant: what the test harness of cargo passes on its own (`--test-threads`, a filter) never
//! fails the run.

use std::path::PathBuf;

pub const USAGE: &str = "usage: crash [--kills N] [--seed N] [--parallel N] [--layers none|half|all] [--peers DIR [--trials N]]";

/// Which tasks' commands write to layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// No task's.
    None,
    /// Those of every second seed.
    Half,
    /// Every task's.
    All,
}

impl Layers {
    /// None where the host gives none.
    pub fn filter_by(self, gives: bool) -> Self {
        if gives { self } else { Self::None }
    }

    /// Whether the task of this seed is one.
    pub fn of(self, seed: u64) -> bool {
        self == Self::All || (self == Self::Half && seed % 2 == 1)
    }
}

/// What to run.
#[derive(Debug)]
pub struct Words {
    /// Kills to spread over as many tasks as it takes; 0 for none.
    pub kills: u64,
    /// The first task's seed; the others follow.
    pub seed: u64,
    /// Homes at the same time.
    pub parallel: usize,
    /// Which tasks' commands write to layers.
    pub layers: Layers,
    /// Where the peers' packages are installed.
    pub peers: Option<PathBuf>,
    /// Trials per peer.
    pub trials: u32,
}

impl Words {
    /// `None` when there is nothing to run: cargo only lists tests.
    pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = Self { kills: 12, seed: fresh(), parallel: 3, layers: Layers::Half, peers: None, trials: 5 };
        while let Some(word) = given.next() {
            let mut number = || given.next().and_then(|text| text.parse().ok()).ok_or(format!("{word} wants a number"));
            match word.as_str() {
                "--kills" => words.kills = number()?,
                "--seed" => words.seed = number()?,
                "--parallel" => words.parallel = usize::try_from(number()?.clamp(1, 16)).unwrap_or(1),
                "--trials" => words.trials = u32::try_from(number()?.min(1_000)).unwrap_or(1),
                "--layers" => {
                    words.layers = match given.next().as_deref() {
                        Some("none") => Layers::None,
                        Some("half") => Layers::Half,
                        Some("all") => Layers::All,
                        _ => return Err("--layers wants none, half or all".to_owned()),
                    }
                }
                "--peers" => words.peers = Some(given.next().ok_or("--peers wants a directory")?.into()),
                "--list" => return Ok(None),
                "--test-threads" | "--format" | "--color" => drop(given.next()),
                "--nocapture" | "--no-capture" | "--quiet" | "-q" => {}
                filter if !filter.starts_with('-') => return Ok("crash".contains(filter).then_some(words)),
                other => return Err(format!("there is no option `{other}`")),
            }
        }
        Ok(Some(words))
    }
}

/// A seed that no run has had; it is printed.
fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap_or(1) & 0xffff_ffff
}
