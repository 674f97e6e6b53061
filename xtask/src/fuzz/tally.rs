//! What a target did, out of libFuzzer's own words.
//!
//! Pure. Invariant: a number that libFuzzer did not say is shown as none.

use std::fmt;

/// One target's pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The target.
    pub name: String,
    /// Whether it ended by itself and found nothing.
    pub is_clean: bool,
    runs: Option<u64>,
    per_second: Option<u64>,
    new: Option<u64>,
    cov: Option<u64>,
    slowest_s: Option<u64>,
    peak_mib: Option<u64>,
    finding: Option<String>,
}

impl Tally {
    /// Reads what it said.
    pub fn read(name: &str, is_clean: bool, said: &str) -> Self {
        let stat = |name: &str| {
            said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        let cov = said.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next()?.parse().ok());
        let finding = said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.to_owned());
        Self {
            name: name.to_owned(),
            is_clean,
            runs: stat("number_of_executed_units"),
            per_second: stat("average_exec_per_sec"),
            new: stat("new_units_added"),
            cov,
            slowest_s: stat("slowest_unit_time_sec"),
            peak_mib: stat("peak_rss_mb"),
            finding,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        write!(
            f,
            "{:<9} {:>10} runs, {:>6}/s, {:>5} new inputs, {:>6} edges, slowest {} s, {:>4} MiB",
            self.name,
            shown(self.runs),
            shown(self.per_second),
            shown(self.new),
            shown(self.cov),
            shown(self.slowest_s),
            shown(self.peak_mib),
        )?;
        match &self.finding {
            Some(path) => write!(f, "  FOUND {path}"),
            None if !self.is_clean => write!(f, "  FAILED"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn numbers_are_read_out_of_what_was_said() {
        let said = "#9\tINITED cov: 40 ft: 50 corp: 3/9b exec/s: 0 rss: 30Mb\n#99\tNEW    cov: 812 ft: 900 corp: 4/9b\nDone 99 runs\n\
            stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     9\nstat::new_units_added:          1\n\
            stat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              44\n";
        let text = Tally::read("shell", true, said).to_string();
        assert_eq!(text, "shell             99 runs,      9/s,     1 new inputs,    812 edges, slowest 0 s,   44 MiB");
        let found = "==1== ERROR: libFuzzer: deadly signal\nartifact_prefix='x/'; Test unit written to x/crash-1\n";
        assert!(Tally::read("shell", false, found).to_string().ends_with("- MiB  FOUND x/crash-1"));
        assert!(Tally::read("shell", false, "").to_string().ends_with("FAILED"));
    }
}
