//! A project's own limits, which only lower those of its user.
//!
//! Invariant: what a repository says never lets a task have more than it would have without that; also where the user
//! said nothing, and the built-in value counts.

use super::{BUDGET, STEPS, TOKENS, WALL_MS, bad, duration_ms, options::Limits};
use tinkerbell_core::amount::parse_bytes;
use tinkerbell_core::code::Fault;
use tinkerbell_core::money::NanoUsd;

/// Lowers the user's limits where the project asks for less. `is_priced` tells whether the model's price is known: where
/// it is not, tokens are limited by default.
///
/// # Errors
/// `TB-CONFIG-004` when an amount can not be read.
pub fn tighten(limits: &mut Limits, project: Limits, is_priced: bool) -> Result<(), Fault> {
    let steps = least(limits.max_steps.map(u64::from), project.max_steps.map(u64::from), Some(STEPS.into()));
    limits.max_steps = steps.and_then(|steps| u32::try_from(steps).ok());
    limits.max_tokens = least(limits.max_tokens, project.max_tokens, (!is_priced).then_some(TOKENS));
    limits.max_processes = least(limits.max_processes, project.max_processes, None);
    limits.budget = lower_budget(limits.budget.take(), project.budget)?;
    limits.max_wall_time = lower_duration(limits.max_wall_time.take(), project.max_wall_time, Some(WALL_MS))?;
    limits.max_cpu = lower_duration(limits.max_cpu.take(), project.max_cpu, None)?;
    limits.max_disk = lower(limits.max_disk.take(), project.max_disk, None, parse_bytes)?;
    limits.max_memory = lower(limits.max_memory.take(), project.max_memory, None, parse_bytes)?;
    Ok(())
}

/// The smaller of two money caps as written; where the user set none, the project's if it is below the built-in one.
///
/// # Errors
/// `TB-CONFIG-004` when one of them can not be read.
pub fn lower_budget(own: Option<String>, project: Option<String>) -> Result<Option<String>, Fault> {
    lower(own, project, Some(BUDGET.0), |text| NanoUsd::parse(text).map(|usd| usd.0))
}

/// The shorter of two durations as written; where the user set none, the project's if it is below `usual` milliseconds.
///
/// # Errors
/// `TB-CONFIG-004` when one of them can not be read.
pub fn lower_duration(own: Option<String>, project: Option<String>, usual: Option<u64>) -> Result<Option<String>, Fault> {
    lower(own, project, usual, duration_ms)
}

/// The smaller of two limits; where the user set none, the project's if it is below what counts then.
fn least(own: Option<u64>, project: Option<u64>, usual: Option<u64>) -> Option<u64> {
    let is_less = |project: &u64| own.or(usual).is_none_or(|most| *project < most);
    project.filter(is_less).or(own)
}

/// As [`least`], of amounts as written.
fn lower(
    own: Option<String>,
    project: Option<String>,
    usual: Option<u64>,
    read: impl Fn(&str) -> Result<u64, String>,
) -> Result<Option<String>, Fault> {
    let Some(project) = project else { return Ok(own) };
    let value = |text: &str| read(text).map_err(bad);
    let asked = value(&project)?;
    let own_value = own.as_deref().map(value).transpose()?;
    Ok(if least(own_value, Some(asked), usual) == Some(asked) && own_value != Some(asked) { Some(project) } else { own })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, caps};
    use tinkerbell_core::event::Caps;

    fn limits(text: &str) -> Limits {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_project_lowers_and_never_raises() {
        // The user's limits, the project's, and what a task then has: steps, nano dollars, tokens, milliseconds.
        let none = Caps::default();
        let usual = (Some(STEPS), Some(BUDGET.0), None, Some(WALL_MS));
        let rows = [
            ("", "", usual),
            ("", "max_steps = 99999999\nbudget = \"900000usd\"\nmax_wall_time = \"9999d\"", usual),
            (
                "",
                "max_steps = 3\nbudget = \"1usd\"\nmax_wall_time = \"1m\"\nmax_tokens = 9",
                (Some(3), Some(1_000_000_000), Some(9), Some(60_000)),
            ),
            ("max_steps = 5\nmax_tokens = 5", "max_steps = 4\nmax_tokens = 6", (Some(4), Some(BUDGET.0), Some(5), Some(WALL_MS))),
            (
                "max_steps = 999\nbudget = \"8usd\"",
                "max_steps = 400\nbudget = \"7usd\"",
                (Some(400), Some(7_000_000_000), None, Some(WALL_MS)),
            ),
        ];
        for (own, project, wanted) in rows {
            let mut config = Config { limits: limits(own), ..Config::default() };
            tighten(&mut config.limits, limits(project), true).unwrap();
            let caps = caps(&config, &none, true, "m").unwrap();
            assert_eq!((caps.steps, caps.nano_usd, caps.tokens, caps.wall_ms), wanted, "{own} | {project}");
        }
        // Without a price, tokens have a limit by default.
        let mut config = Config::default();
        tighten(&mut config.limits, limits("max_tokens = 99999999999"), false).unwrap();
        assert_eq!(caps(&config, &none, false, "m").unwrap().tokens, Some(TOKENS));
        assert!(tighten(&mut config.limits, limits("budget = \"much\""), true).is_err());
    }

    #[test]
    fn what_commands_use_is_lowered_too() {
        let mut own = limits("max_memory = \"1GiB\"\nmax_cpu = \"1h\"\nmax_processes = 10");
        let project = limits("max_memory = \"2GiB\"\nmax_cpu = \"1m\"\nmax_processes = 9\nmax_disk = \"1GiB\"");
        tighten(&mut own, project, true).unwrap();
        assert_eq!((own.max_memory.as_deref(), own.max_cpu.as_deref()), (Some("1GiB"), Some("1m")));
        assert_eq!((own.max_processes, own.max_disk.as_deref()), (Some(9), Some("1GiB")));
    }
}
