//! Names of keys: which exist, and which one somebody meant.
//!
//! Pure. Invariant: a key that no type reads is never accepted silently.

use super::options::KEYS;

/// Whether a dotted path is a key of the file.
#[must_use]
pub fn is_known(path: &[String]) -> bool {
    KEYS.iter().any(|key| matches(key.path, path))
}

/// Whether a dotted path is the beginning of a key, so that a table may stand there.
#[must_use]
pub fn is_table(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let parts: Vec<&str> = key.path.split('.').collect();
        parts.len() > path.len() && parts.iter().zip(path).all(|(part, given)| *part == "*" || part == given)
    })
}

/// What a key means, in one line.
#[must_use]
pub fn meaning(path: &str) -> Option<&'static str> {
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    KEYS.iter().find(|key| matches(key.path, &parts)).map(|key| key.meaning)
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    parts.len() == path.len() && parts.iter().zip(path).all(|(part, given)| *part == "*" || part == given)
}

/// The key that was probably meant, with the given names in the places of `*`.
#[must_use]
pub fn meant(path: &[String]) -> Option<String> {
    let given = path.join(".");
    let candidates = KEYS.iter().filter_map(|key| {
        let parts: Vec<&str> = key.path.split('.').collect();
        let filled: Vec<&str> = parts
            .iter()
            .enumerate()
            .map(|(at, part)| if *part == "*" { path.get(at).map_or("*", String::as_str) } else { *part })
            .collect();
        let full = filled.join(".");
        let same_depth = parts.len() == path.len();
        let leaf = distance(parts.last()?, path.last()?);
        let whole = distance(&full, &given);
        Some((if same_depth { whole } else { whole.min(leaf + 2) }, full))
    });
    candidates.min().filter(|(far, _)| *far <= 3.max(given.len() / 4)).map(|(_, full)| full)
}

/// Edit distance (Levenshtein), over characters.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = std::mem::replace(row.first_mut().unwrap_or(&mut 0), i + 1);
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let left = row.get(j).copied().unwrap_or(usize::MAX);
            let best = (corner + usize::from(from != *to)).min(above + 1).min(left + 1);
            corner = above;
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = best;
            }
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn slips_are_understood() {
        for (given, wanted) in [
            ("modle", "model"),
            ("sandbox.levl", "sandbox.level"),
            ("providers.local.base-url", "providers.local.base_url"),
            ("verify.comand", "verify.command"),
            ("limits.max_step", "limits.max_steps"),
            ("budget", "limits.budget"),
        ] {
            assert_eq!(meant(&path(given)).as_deref(), Some(wanted), "{given}");
        }
        assert_eq!(meant(&path("completely.other.thing")), None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, far) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!(distance(a, b), far);
        }
    }
}
