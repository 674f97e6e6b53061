//! What a rule must not say, and what is hardly meant.
//!
//! Refused are rules that can never match and `allow` rules that would allow anything. Invariant: an
//! `allow` that reaches the matcher says how the command begins, and its beginning is no launcher.

use super::judge::{Layer, PROJECT_PREFIX, RESERVED};
use super::launch;
use super::load::{Page, RuleSet, alternatives};
use super::options::{Decision, RuleOptions};
use super::rule::{CommandRule, Rule, Subject};
use tinkerbell_core::code::Fault;
use toml::Spanned;

/// Longest name of a project's rule, in characters: it stands in what a person is asked.
const LONGEST_ID: usize = 80;
/// Most beginnings that a rule's alternatives may stand for.
const MOST_BEGINNINGS: usize = 4_096;

/// Refuses a rule that can never match, or allows too much.
pub(super) fn refuse(page: &Page<'_>, options: &RuleOptions) -> Result<(), Fault> {
    let decision = *options.decision.get_ref();
    id(page, &options.id)?;
    if options.argv.is_some() && options.paths.is_some() {
        return Err(page.mistake(options.id.span(), "a rule has either `argv` or `paths`: make two rules"));
    }
    if decision == Decision::Allow && options.paths.is_some() && options.argv.is_none() {
        return Err(page.mistake(
            options.decision.span(),
            "files of the worktree are allowed already, and a stricter rule would win: leave this one out",
        ));
    }
    let only_commands = options.program.as_ref().map(Spanned::span).or_else(|| options.without.first().map(Spanned::span));
    if let Some(span) = only_commands.filter(|_| options.argv.is_none()) {
        return Err(page.mistake(span, "`without` and `program` need `argv`"));
    }
    if let Some(program) = options.program.as_ref().filter(|_| decision != Decision::Allow) {
        return Err(
            page.mistake(program.span(), "`program` is for `allow` only: what is asked or forbidden must not depend on where it lies")
        );
    }
    if options.runs == Some(false) && options.argv.is_some() {
        return Err(page.mistake(options.id.span(), "a rule with `argv` that is about no commands can never match"));
    }
    words(page, options)
}

/// Refuses a name that a person would take for something else, or that could fill a screen.
fn id(page: &Page<'_>, id: &Spanned<String>) -> Result<(), Fault> {
    let lower = id.get_ref().trim().to_lowercase();
    if lower.is_empty() {
        return Err(page.mistake(id.span(), "a rule needs a name, by which people are told of it"));
    }
    if let Some(name) = RESERVED.iter().find(|name| **name == lower) {
        return Err(
            page.mistake(id.span(), &format!("no rule can be called `{name}`, because reasons of our own are; choose another name"))
        );
    }
    if lower.starts_with(PROJECT_PREFIX) {
        let what = format!("a rule's name can not begin with `{PROJECT_PREFIX}`, which stands before the names of a repository's rules");
        return Err(page.mistake(id.span(), &what));
    }
    if page.layer == Layer::Project && id.get_ref().chars().count() > LONGEST_ID {
        return Err(page.mistake(id.span(), &format!("the name of a project's rule has at most {LONGEST_ID} characters")));
    }
    Ok(())
}

fn words(page: &Page<'_>, options: &RuleOptions) -> Result<(), Fault> {
    let Some(argv) = &options.argv else { return Ok(()) };
    if argv.is_empty() {
        return Err(page.mistake(options.id.span(), "`argv` is empty; to concern all commands leave it out and write `runs = true`"));
    }
    let mut beginnings: Vec<Vec<String>> = vec![Vec::new()];
    for words in argv {
        let any = alternatives(words.get_ref());
        if any.is_empty() {
            return Err(page.mistake(words.span(), "an empty list of alternatives can never match"));
        }
        if let Some(word) = any.iter().find(|word| word.is_empty() || word.contains(char::is_whitespace)) {
            return Err(page.mistake(words.span(), &format!("`{word}` can hardly match: give each word its own element")));
        }
        if let Some(word) = options.without.iter().find(|word| any.iter().all(|one| one == word.get_ref())) {
            return Err(page.mistake(word.span(), &format!("the rule can never match: `{}` is part of its own `argv`", word.get_ref())));
        }
        beginnings = beginnings
            .iter()
            .flat_map(|begun| any.iter().map(move |word| [begun.as_slice(), std::slice::from_ref(word)].concat()))
            .collect();
        if beginnings.len() > MOST_BEGINNINGS {
            return Err(page.mistake(words.span(), "the rule has too many alternatives: make several rules"));
        }
    }
    if *options.decision.get_ref() != Decision::Allow {
        return Ok(());
    }
    let without: Vec<&str> = options.without.iter().map(|word| word.get_ref().as_str()).collect();
    for begun in &beginnings {
        let begun: Vec<&str> = begun.iter().map(String::as_str).collect();
        if let Some(why) = launch::opens(&begun, &without) {
            let span = argv.first().map_or(0..0, Spanned::span);
            return Err(page.mistake(span, &format!("rule `{}` would allow anything: {why}", options.id.get_ref())));
        }
    }
    Ok(())
}

/// What is no mistake but hardly meant: rules that another one makes useless.
pub(super) fn warnings(set: &RuleSet) -> Vec<String> {
    let mut found: Vec<String> = idle_allow(set).into_iter().collect();
    found.extend(set.rules.iter().filter_map(|rule| any_script(set, rule)));
    // Pairs of pairs: beyond this the answer is not worth the wait.
    for (at, rule) in set.rules.iter().enumerate().take(1_000) {
        let covers =
            |(other_at, other): &(usize, &Rule)| *other_at != at && covers(other, rule) && (!covers(rule, other) || *other_at < at);
        if let Some((_, other)) = set.rules.iter().enumerate().take(1_000).find(covers) {
            found.push(format!("{}:{}: rule `{}` changes nothing: `{}` covers it", set.name, rule.line, rule.id, other.id));
        }
    }
    found
}

/// An `allow` whose beginning is one of a runner allows all that the project's files say, also what a task
/// writes into them.
fn any_script(set: &RuleSet, rule: &Rule) -> Option<String> {
    let Subject::Command(command) = &rule.subject else { return None };
    if rule.decision != Decision::Allow {
        return None;
    }
    let mut beginnings: Vec<Vec<&str>> = vec![Vec::new()];
    for any in &command.argv {
        beginnings = beginnings.iter().flat_map(|begun| any.iter().map(|word| [begun.as_slice(), &[word.as_str()]].concat())).collect();
    }
    let why = beginnings.iter().find_map(|begun| launch::runs_any(begun))?;
    Some(format!("{}:{}: rule `{}` allows more than one script: {why}", set.name, rule.line, rule.id))
}

/// An `allow` only counts against `unmatched_commands`.
fn idle_allow(set: &RuleSet) -> Option<String> {
    let allows = |rule: &&Rule| rule.decision == Decision::Allow && matches!(rule.subject, Subject::Command(_));
    let rule = set.rules.iter().find(allows).filter(|_| set.unmatched.is_none())?;
    let cause = "commands in a sandbox are allowed anyway unless some file sets `unmatched_commands`";
    Some(format!("{}:{}: rule `{}` may change nothing: {cause}", set.name, rule.line, rule.id))
}

/// Whether `wide` matches all that `narrow` matches and is not milder.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    if wide.decision < narrow.decision || wide.scope != narrow.scope {
        return false;
    }
    match (&wide.subject, &narrow.subject) {
        (Subject::Call, Subject::Call) => true,
        (Subject::Command(wide_words), Subject::Command(words)) => begins(wide_words, words, wide.decision),
        (Subject::Paths(wide), Subject::Paths(paths)) => paths.iter().all(|path| wide.contains(path)),
        _ => false,
    }
}

fn begins(wide: &CommandRule, narrow: &CommandRule, decision: Decision) -> bool {
    let prefix = wide.argv.len() <= narrow.argv.len()
        && wide.argv.iter().zip(&narrow.argv).all(|(wide, narrow)| narrow.iter().all(|word| wide.contains(word)));
    let without = wide.without.iter().all(|word| narrow.without.contains(word));
    let program = wide.program.is_none() || wide.program == narrow.program;
    prefix && without && (program || decision != Decision::Allow)
}
