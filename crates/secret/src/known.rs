//! All values that are known now, for everybody who writes texts.
//!
//! Values are learned and never forgotten while the process lives: after a key was changed, texts may
//! still hold the old one. Invariant: a text that is redacted after `learn` returned holds none of the
//! values learned by then.

use crate::forms;
use crate::redactor::{Redactor, SHORTEST};
use crate::secret::Named;
use crate::stream::Stream;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Most values that are kept; beyond it the oldest goes of the name that has most. A key changed each hour
/// takes six weeks.
pub const MOST_VALUES: usize = 1_024;
/// The name of values that a repository's git configuration taught. Whoever writes that file chooses them,
/// so they share a budget of their own and change no command that is executed.
pub const OF_REPOSITORY: &str = "git credential";
/// Most bytes of the forms of all values of repositories: about 700 usual tokens. The oldest go.
const REPOSITORY_BYTES: usize = 512 << 10;
/// Bytes of all forms beyond which values go that a newer one of the same name took the place of.
const MOST_BYTES: usize = 16 << 20;

/// The values that are known, shared by all parts of a process.
#[derive(Debug, Default)]
pub struct Known {
    now: RwLock<Now>,
    is_plain: AtomicBool,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Now {
    /// Oldest first.
    values: Vec<Named>,
    redactor: Arc<Redactor>,
}

impl Known {
    /// Nothing known yet; patterns are on.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds values by name; tells whether one of them was new. Values that are too short to be looked
    /// for are left out. Of those of repositories, what is taught again counts as the newest.
    pub fn learn(&self, values: impl IntoIterator<Item = Named>) -> bool {
        let taught: Vec<Named> = values.into_iter().filter(|(_, value)| value.expose().trim().len() >= SHORTEST).collect();
        let is_fresh = |value: &&Named, known: &[Named]| !known.contains(*value);
        if !taught.iter().any(|value| is_fresh(&value, &self.now.read().unwrap_or_else(PoisonError::into_inner).values)) {
            return false;
        }
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let is_again = |value: &Named| value.0 == OF_REPOSITORY && taught.contains(value);
        let mut values: Vec<Named> = now.values.iter().filter(|value| !is_again(value)).cloned().collect();
        values.extend(taught.iter().filter(|value| is_again(value) || is_fresh(value, &now.values)).cloned());
        let values = within_bytes(within_limit(values), REPOSITORY_BYTES, MOST_BYTES);
        let forgotten = now.values.iter().filter(|value| !values.contains(value) && !taught.contains(value)).count();
        self.forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
        let is_new = values.iter().any(|value| is_fresh(&value, &now.values));
        if is_new || values.len() != now.values.len() {
            now.redactor = Arc::new(Redactor::new(&values));
        }
        now.values = values;
        is_new
    }

    /// What is known, for a process that redacts by itself.
    #[must_use]
    pub fn values(&self) -> Vec<Named> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).values.clone()
    }

    /// How many values were forgotten so far, because others were learned; those that never had a place do
    /// not count.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Whether a text holds a value that the user gave us; what a repository taught does not count.
    #[must_use]
    pub fn is_own_in(&self, text: &str) -> bool {
        matches!(self.own().redact(text), Cow::Owned(_))
    }

    /// The redactor of this moment.
    #[must_use]
    pub fn redactor(&self) -> Arc<Redactor> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).redactor.clone()
    }

    /// A stream that begins now.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(self.redactor())
    }

    /// The text with known values replaced by their names.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.redactor().redact(text)
    }

    /// The same for texts that leave the machine, and for our own log: what looks like a secret goes,
    /// too, unless that is switched off.
    #[must_use]
    pub fn redact_leaving<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let clean = self.redact(text);
        if self.is_plain.load(Ordering::Relaxed) {
            return clean;
        }
        match clean {
            Cow::Borrowed(text) => crate::patterns::hide(text),
            Cow::Owned(text) => Cow::Owned(crate::patterns::hide(&text).into_owned()),
        }
    }

    /// The text without the values that the user gave us, and with those that a repository taught: for what
    /// somebody approves, because whoever writes that file would choose what they do not see.
    #[must_use]
    pub fn redact_own<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.own().redact(text) {
            Cow::Owned(clean) => Cow::Owned(clean),
            Cow::Borrowed(_) => Cow::Borrowed(text),
        }
    }

    fn own(&self) -> Redactor {
        Redactor::new(self.values().iter().filter(|(name, _)| name != OF_REPOSITORY))
    }

    /// Switches the rules about looks on or off.
    pub fn set_patterns(&self, on: bool) {
        self.is_plain.store(!on, Ordering::Relaxed);
    }
}

/// At most [`MOST_VALUES`]. A name that comes with many, as a repository's file may, pays with its own: it
/// must not make us forget another's.
fn within_limit(values: Vec<Named>) -> Vec<Named> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in &values {
        *counts.entry(name.clone()).or_default() += 1;
    }
    let mut over = values.len().saturating_sub(MOST_VALUES);
    // What each name may keep: the largest number for all at which everything fits.
    let mut most = counts.values().copied().max().unwrap_or_default();
    while over > 0 && most > 1 {
        let above = counts.values().filter(|count| **count >= most).count();
        most -= 1;
        over = over.saturating_sub(above);
    }
    counts.values_mut().for_each(|count| *count = count.saturating_sub(most));
    let is_kept = |value: &Named| match counts.get_mut(&value.0) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    let kept: Vec<Named> = values.into_iter().filter(is_kept).collect();
    let over = kept.len().saturating_sub(MOST_VALUES);
    kept.into_iter().skip(over).collect()
}

/// At most as many bytes of forms as may be looked for: those of repositories share a budget, and of the
/// others no name loses its newest value.
fn within_bytes(values: Vec<Named>, of_repository: usize, of_all: usize) -> Vec<Named> {
    let mut all: Vec<(Named, usize)> =
        values.into_iter().map(|value| (forms::bytes(value.1.expose()), value)).map(|(b, v)| (v, b)).collect();
    let is_of_repository = |value: &Named| value.0 == OF_REPOSITORY;
    let mut left = of_repository;
    let mut is_over = false;
    // The newest first, until one does not fit.
    let fits: Vec<bool> = all
        .iter()
        .rev()
        .map(|(value, bytes)| {
            !is_of_repository(value) || {
                is_over = is_over || *bytes > left;
                left = left.saturating_sub(*bytes);
                !is_over
            }
        })
        .collect();
    let mut fits = fits.into_iter().rev();
    all.retain(|_| fits.next().unwrap_or(true));
    while all.iter().map(|(_, bytes)| bytes).sum::<usize>() > of_all {
        let mut heaviest: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (value, bytes) in &all {
            let (count, sum) = heaviest.entry(value.0.as_str()).or_default();
            (*count, *sum) = (*count + 1, *sum + bytes);
        }
        let several = heaviest.into_iter().filter(|(_, (count, _))| *count > 1);
        let Some(name) = several.max_by_key(|(_, (_, sum))| *sum).map(|(name, _)| name.to_owned()) else { break };
        if let Some(oldest) = all.iter().position(|(value, _)| value.0 == name) {
            all.remove(oldest);
        }
    }
    all.into_iter().map(|(value, _)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn named(name: &str, value: &str) -> Named {
        (name.to_owned(), Secret::shared(value))
    }

    #[test]
    fn old_and_new_values_stay_known() {
        let known = Known::new();
        assert!(known.learn([named("KEY", "old-value-1")]));
        assert!(known.learn([named("KEY", "new-value-2"), named("SHORT", "x")]));
        assert!(!known.learn([named("KEY", "old-value-1"), named("KEY", "new-value-2")]));
        assert_eq!(known.redact("old-value-1 new-value-2 x"), "[secret KEY] [secret KEY] x");
        assert_eq!(known.values().len(), 2);
    }

    #[test]
    fn the_oldest_value_goes_at_the_limit() {
        let known = Known::new();
        known.learn((0..MOST_VALUES).map(|at| named("KEY", &format!("value-number-{at:04}"))));
        assert_eq!(known.redact("value-number-0000"), "[secret KEY]");
        known.learn([named("KEY", "one-value-more")]);
        assert_eq!(known.redact("value-number-0000 value-number-0001 one-value-more"), "value-number-0000 [secret KEY] [secret KEY]");
    }

    #[test]
    fn a_name_with_many_values_makes_nobody_forget_the_others() {
        let known = Known::new();
        known.learn([named("KEY", "the-users-key"), named("OTHER", "another-key")]);
        known.learn((0..3 * MOST_VALUES).map(|at| named("MANY", &format!("value-number-{at:04}"))));
        known.learn([named("LATE", "the-last-key")]);
        assert_eq!(known.redact("the-users-key another-key the-last-key"), "[secret KEY] [secret OTHER] [secret LATE]");
        assert_eq!(known.redact("value-number-3071"), "[secret MANY]");
        assert_eq!(known.values().len(), MOST_VALUES);
    }

    #[test]
    fn a_repository_has_a_budget_of_bytes_and_the_users_values_stay() {
        let known = Known::new();
        known.learn([named("KEY", "the-users-key"), named(OF_REPOSITORY, "its-first-password")]);
        assert_eq!((known.redact("its-first-password").as_ref(), known.forgotten()), ("[secret git credential]", 0));
        known.learn((0..20).map(|at| named(OF_REPOSITORY, &format!("{at}{}", "one \"odd\" password/".repeat(100)))));
        assert_eq!(known.redact("the-users-key its-first-password"), "[secret KEY] its-first-password");
        let bytes: usize = known.values().iter().map(|(_, value)| forms::bytes(value.expose())).sum();
        assert!(bytes <= REPOSITORY_BYTES + forms::bytes("the-users-key") && known.forgotten() > 0, "{bytes}");
        assert!(known.redactor().memory() < 32 << 20, "{}", known.redactor().memory());
    }

    #[test]
    fn what_is_taught_again_is_the_newest_and_drives_out_nothing_of_its_own() {
        let known = Known::new();
        let file = || (0..20).rev().map(|at| named(OF_REPOSITORY, &format!("{at:02}{}", "one \"odd\" password/".repeat(100))));
        known.learn(file());
        let first = known.values();
        assert!(first.len() < 20 && first.last().unwrap().1.expose().starts_with("00") && known.forgotten() == 0);
        assert!(!known.learn(file()) && known.values() == first && known.forgotten() == 0, "the same again changes nothing");
    }

    #[test]
    fn many_bytes_cost_a_name_its_old_values_and_no_name_its_newest() {
        let long = |at: usize| format!("{at}{}", "x".repeat(600));
        let values = (0..20).flat_map(|at| [named("CHANGED", &long(at)), named(&format!("KEY{at}"), &format!("value-number-{at}"))]);
        let left = within_bytes(values.collect(), 0, 40_000);
        let bytes: usize = left.iter().map(|(_, value)| forms::bytes(value.expose())).sum();
        assert!(bytes <= 40_000 && left.iter().filter(|(name, _)| name.starts_with("KEY")).count() == 20, "{bytes}");
        assert!(left.iter().any(|(_, value)| *value.expose() == long(19)) && !left.iter().any(|(_, value)| *value.expose() == long(0)));
        let single = vec![named("A", &long(1)), named("B", &long(2))];
        assert_eq!(within_bytes(single, 0, 10).len(), 2, "each is the newest of its name");
    }

    #[test]
    fn what_a_repository_taught_is_not_the_users_own() {
        let known = Known::new();
        known.learn([named("KEY", "the-users-key"), named(OF_REPOSITORY, "--strict")]);
        assert!(known.is_own_in("test the-users-key") && !known.is_own_in("check --strict"));
        assert_eq!(known.redact("check --strict"), "check [secret git credential]");
        assert_eq!(known.redact_own("check --strict the-users-key"), "check --strict [secret KEY]");
    }

    #[test]
    fn looks_count_where_they_are_wanted() {
        let known = Known::new();
        let text = "AKIAIOSFODNN7EXAMPLE";
        assert_eq!((known.redact(text).as_ref(), known.redact_leaving(text).as_ref()), (text, "[hidden: AWS key]"));
        known.set_patterns(false);
        assert_eq!(known.redact_leaving(text), text);
    }
}
