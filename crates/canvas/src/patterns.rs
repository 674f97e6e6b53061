//! What matching a repository's patterns may cost.
//!
//! Git tries every way through the `**` of a pattern, which takes exponential time for a few dozens of
//! them, and anybody may write such a pattern. Here several `**` are matched name by name, and what all
//! patterns of one walk cost is counted. Invariant: an answer is git's own, or there is none.

use crate::error::{Error, Result};
use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};
use gix::glob::Pattern;
use gix::glob::pattern::{Case, Mode as Kind};
use gix::glob::wildmatch::Mode;
use gix::objs::FindExt as _;
use std::path::PathBuf;

/// Steps that a walk may take before it has seen anything, and more for each path: some seconds of one
/// processor, and thousands of patterns for each path of a large tree.
const STEPS: (u64, u64) = (2_000_000_000, 200_000);
/// Steps that attributes of a whole tree may take where the library matches them.
const ATTRIBUTE_STEPS: u64 = 20_000_000_000;
/// Largest attribute file that git reads, too.
const FILE_BYTES: u64 = 100 << 20;
/// More `**` than this count alike: what they cost is out of reach long before.
const DEEPEST: usize = 12;

/// What is left for matching.
#[derive(Debug, Clone, Copy)]
pub struct Steps(u64);

impl Default for Steps {
    fn default() -> Self {
        Self(STEPS.0)
    }
}

impl Steps {
    /// Begins with the next path.
    pub fn path(&mut self) {
        self.0 = self.0.saturating_add(STEPS.1);
    }

    /// Takes what matching a pattern costs at most.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn take(&mut self, pattern: &Pattern, path: &BStr) -> Result<()> {
        self.0 = self.0.checked_sub(cost(pattern, path)).ok_or_else(|| too_slow(path, "ignore patterns"))?;
        Ok(())
    }

    /// So many that a test can wait for their end.
    #[cfg(test)]
    pub const fn few(steps: u64) -> Self {
        Self(steps)
    }

    #[cfg(test)]
    fn taken(self) -> u64 {
        STEPS.0 - self.0
    }
}

fn too_slow(path: &BStr, what: &str) -> Error {
    Error::TooMuch(
        PathBuf::from(path.to_str_lossy().into_owned()),
        format!("its {what} take too long to match; make them fewer and simpler"),
    )
}

fn cost(pattern: &Pattern, path: &BStr) -> u64 {
    let both = (pattern.text.len() + path.len()) as u64;
    match pattern.first_wildcard_pos {
        Some(at) if pattern.text.get(..at) == path.get(..at) || pattern.mode.contains(Kind::NO_SUB_DIR) => {
            let deep = pattern.text.find(b"**").is_some();
            both * if deep { 1 + slashes(path) as u64 } else { 1 }
        }
        _ => 1,
    }
}

fn slashes(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'/').count()
}

/// Whether a name of a pattern stands for any number of names.
fn is_deep(name: &[u8]) -> bool {
    name.len() > 1 && name.iter().all(|byte| *byte == b'*')
}

/// Whether a pattern names this path, whose last name begins at `basename`.
pub fn fits(pattern: &Pattern, path: &BStr, basename: Option<usize>, (is_dir, case): (bool, Case)) -> bool {
    let deep = pattern.text.split(|byte| *byte == b'/').filter(|name| is_deep(name)).take(2).count();
    if deep < 2 {
        return pattern.matches_repo_relative_path(path, basename, Some(is_dir), case, Mode::NO_MATCH_SLASH_LITERAL);
    }
    // A slash that is escaped or stands in brackets can not be told from one between names.
    let is_odd = pattern.text.find(b"\\/").is_some() || pattern.text.split(|byte| *byte == b'/').any(has_open_bracket);
    let is_out = pattern.mode.contains(Kind::MUST_BE_DIR) && !is_dir;
    !is_odd && !is_out && names_fit(pattern.text.as_bstr(), path, case)
}

fn has_open_bracket(name: &[u8]) -> bool {
    name.rfind_byte(b'[').is_some_and(|at| name.get(at..).is_some_and(|rest| rest.find_byte(b']').is_none()))
}

/// Name by name, with all places where the names so far may end.
fn names_fit(pattern: &BStr, path: &BStr, case: Case) -> bool {
    let fold = if case == Case::Fold { Mode::IGNORE_CASE } else { Mode::empty() };
    let parts: Vec<&BStr> = path.split(|byte| *byte == b'/').map(BStr::new).collect();
    let mut ends = vec![false; parts.len() + 1];
    if let Some(first) = ends.first_mut() {
        *first = true;
    }
    let mut names = pattern.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        if is_deep(name) {
            let (mut open, is_last) = (false, names.peek().is_none());
            for end in &mut ends {
                // At the end of a pattern it is at least one name, elsewhere also none.
                let before = open;
                open |= *end;
                *end = if is_last { before } else { open };
            }
            continue;
        }
        let name = BStr::new(name);
        let one = |part: &BStr| gix::glob::wildmatch(name, part, Mode::NO_MATCH_SLASH_LITERAL | fold);
        ends = std::iter::once(false).chain(ends.iter().zip(&parts).map(|(end, part)| *end && one(part))).collect();
    }
    ends.last() == Some(&true)
}

/// Refuses a tree whose attribute files would take too long: they are matched by the library alone, for
/// each path of the tree. `files` are all its paths with their objects, to be found in `objects`; `user` says
/// which other files of attributes count.
///
/// # Errors
/// When they would, with the file that costs most, or one can not be read.
pub fn check_attributes<'p>(
    (user, objects): (&gix::Repository, &gix::Repository),
    files: impl Iterator<Item = (&'p BStr, ObjectId)>,
) -> Result<()> {
    let mut ways = [0_u64; DEEPEST + 1];
    let mut found = Vec::new();
    for (path, id) in files {
        if path == ".gitattributes" || path.ends_with(b"/.gitattributes") {
            found.push((path, id));
        }
        // So many ways lead through a path, where each `**` may end at each name.
        let names = slashes(path) as u64 + 2;
        let mut all = 1_u64;
        for way in &mut ways {
            *way = way.saturating_add(all);
            all = all.saturating_mul(names);
        }
    }
    let cost = |bytes: &[u8]| {
        let steps = bytes.lines().map(|line| ways.get(stars(line).min(DEEPEST)).copied().unwrap_or(u64::MAX));
        steps.fold(0, u64::saturating_add)
    };
    let (mut total, mut worst) = (0_u64, (0, BStr::new("")));
    let configured = user.config_snapshot().trusted_path("core.attributesFile").ok().flatten();
    for path in [Some(user.common_dir().join("info/attributes")), configured].into_iter().flatten() {
        let outer = path.canonicalize().ok().and_then(|path| crate::gitdir::small(&path, FILE_BYTES).ok()?);
        total = total.saturating_add(cost(&outer.unwrap_or_default()));
        worst.1 = BStr::new("info/attributes");
    }
    let mut bytes = Vec::new();
    for (path, id) in found {
        let size = objects.find_header(id).map_err(Error::git("read attributes"))?.size();
        if size > FILE_BYTES {
            return Err(too_slow(path, "attributes"));
        }
        let blob = objects.objects.find_blob(&id, &mut bytes).map_err(|e| Error::Git { what: "read attributes", why: e.to_string() })?;
        let steps = cost(blob.data);
        total = total.saturating_add(steps);
        worst = worst.max((steps, path));
    }
    if total > ATTRIBUTE_STEPS { Err(too_slow(worst.1, "attributes")) } else { Ok(()) }
}

/// How many `**` a line of an attribute file has, at most.
fn stars(line: &[u8]) -> usize {
    line.split(|byte| *byte == b'/').filter(|name| name.find(b"**").is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str, is_dir: bool) -> bool {
        let pattern = gix::glob::parse(pattern).unwrap();
        fits(&pattern, BStr::new(path), path.rfind('/').map(|at| at + 1), (is_dir, Case::Sensitive))
    }

    /// Where the library's own matcher is quick it must say the same.
    #[test]
    fn several_stars_match_as_the_library_does() {
        let patterns = [
            "**/a/**",
            "**/a/**/b",
            "a/**/b/**/c",
            "**/**",
            "a/**/**",
            "**/**/a",
            "a/**/**/b",
            "/**/a/**/*.c",
            "**/[ab]/**/c?",
            "**/a**/**/b",
            "a/***/b/**",
            "**/a/**/b/",
            "**/\\a/**/b",
            "**/[!a]/**/b",
            "**/a*/**/b*/**",
        ];
        let names = ["a", "b", "c", "ab", "x.c"];
        let mut paths: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for _ in 0..3 {
            let longer = paths.iter().flat_map(|path| names.iter().map(move |name| format!("{path}/{name}")));
            let all: Vec<String> = paths.iter().cloned().chain(longer).collect();
            paths = all;
            paths.sort();
            paths.dedup();
        }
        assert!(paths.len() > 500, "{}", paths.len());
        for text in patterns {
            let pattern = gix::glob::parse(text).unwrap();
            for path in &paths {
                for is_dir in [false, true] {
                    let basename = path.rfind('/').map(|at| at + 1);
                    let theirs = pattern.matches_repo_relative_path(
                        BStr::new(path),
                        basename,
                        Some(is_dir),
                        Case::Sensitive,
                        Mode::NO_MATCH_SLASH_LITERAL,
                    );
                    assert_eq!(check(text, path, is_dir), theirs, "{text} {path} {is_dir}");
                }
            }
        }
    }

    /// Sixty `**` over sixty names: 2^60 ways, were they tried one by one.
    #[test]
    fn dozens_of_stars_are_matched_in_few_steps() {
        let pattern = format!("{}z", "**/a/".repeat(60));
        let path = vec!["a"; 60].join("/");
        assert!(!check(&pattern, &path, false));
        assert!(check(&format!("{}a", "**/".repeat(60)), &path, false));
        let mut steps = Steps::default();
        steps.take(&gix::glob::parse(pattern.as_str()).unwrap(), BStr::new(&path)).unwrap();
        assert!(steps.taken() < 50_000, "{}", steps.taken());
    }

    #[test]
    fn a_walk_has_a_budget_that_many_patterns_use_up() {
        let pattern = gix::glob::parse(format!("{}z", "**/a/".repeat(200))).unwrap();
        let path = vec!["a"; 200].join("/");
        let mut steps = Steps::default();
        let taken = (0..100_000).take_while(|_| steps.take(&pattern, BStr::new(&path)).is_ok()).count();
        assert!((1_000..20_000).contains(&taken), "{taken}");
        let error = steps.take(&pattern, BStr::new(&path)).unwrap_err().to_string();
        assert!(error.contains("its ignore patterns take too long to match"), "{error}");
        // A large tree with many usual patterns stays far below.
        let usual = gix::glob::parse("**/build-*/out").unwrap();
        let mut steps = Steps::default();
        for _ in 0..1_000_000 {
            steps.path();
            steps.take(&usual, BStr::new("crates/tinkerbell/src/main.rs")).unwrap();
        }
        assert!(steps.0 > STEPS.0, "{}", steps.0);
    }

    #[test]
    fn lines_of_attributes_are_weighed() {
        for (line, count) in
            [("*.c text", 0), ("**/x text", 1), ("**/a/**/b/** text", 3), ("\"**/a b/**\" -text", 2), ("# **/", 1), ("", 0)]
        {
            assert_eq!(stars(line.as_bytes()), count, "{line}");
        }
    }
}
