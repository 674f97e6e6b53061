//! Judging a call by all rules: the strictest that matches wins.
//!
//! The floor stands here and in no file. Invariant: a call that no rule settles is asked for, and
//! more rules never make a verdict milder, except an `allow` against `unmatched_commands`.

use super::load::RuleSet;
use super::options::{Decision, Unmatched};
use super::rule::{Call, Hit, Look, Programs, Rule, Subject, Target};
use super::shell::{self, Segment, Split, Word};
use std::collections::BTreeSet;
use std::fmt;
use tinkerbell_core::port::Level;

/// What a reason of the table of risk is called where a rule's name would stand.
const BY_RISK: &str = "risk";
/// What a reason is called that says what becomes of commands that no `allow` covers.
const UNMATCHED: &str = "unmatched_commands";
/// What a reason is called that is about where a deed comes from.
pub(super) const PROVENANCE: &str = "provenance";
/// What the names of a project's rules begin with, wherever they are told.
pub(super) const PROJECT_PREFIX: &str = "project:";
/// Names that no rule may have: they stand where a rule's name would.
pub(super) const RESERVED: [&str; 3] = [BY_RISK, UNMATCHED, PROVENANCE];
/// Most of a project's own words that a person is shown, in characters: they must push nothing else away.
const MOST_SAID: usize = 80;
/// How much of one set's rules is held against a call: the words of its commands times those of the rules about
/// commands, and names of its paths times those of patterns. A repository writes rules, and a model commands.
const MOST_COMPARED: usize = 8_000_000;
/// Reasons from one set beyond which a rule that matches is told of by one question for all.
const MOST_REASONS: usize = 1_000;
/// Most paths that one reason names.
const MOST_PATHS: usize = 20;
/// Most different reasons that are told in one line.
const MOST_LINES: usize = 20;

/// Whose rules they are, from the strongest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Compiled in as code.
    Floor,
    /// The file that is built in.
    BuiltIn,
    /// The machine's file.
    Organisation,
    /// The user's file.
    User,
    /// The repository's file, which may only tighten.
    Project,
    /// What a person allowed for more than one time; it answers an `ask` and nothing stricter.
    Grant,
}

impl Layer {
    /// Its name in messages and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::BuiltIn => "built-in",
            Self::Organisation => "organisation",
            Self::User => "user",
            Self::Project => "project",
            Self::Grant => "grant",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a reason rests on. What becomes of it later follows from this and never from a name: whoever
/// writes a file chooses the names of its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The program itself, and no rule.
    House,
    /// A rule that matches.
    Rule,
    /// Rules that might be meant, because the text alone does not say it.
    Doubt {
        /// Whether one of them forbids.
        forbids: bool,
    },
    /// What a file says of commands that no `allow` covers.
    Unmatched,
    /// The table of risk, which says it later; until then it is asked for.
    Risk,
    /// What a person allowed for more than one time.
    Grant,
}

/// One reason of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Whose rule.
    pub layer: Layer,
    /// What it rests on.
    pub source: Source,
    /// Which; empty where no rule is the reason.
    pub rule: String,
    /// File and line of the rule; empty where no file says it.
    pub place: String,
    /// What follows from it here.
    pub decision: Decision,
    /// Why, in one line.
    pub why: String,
}

impl Reason {
    /// A reason to ask that no rule is behind.
    pub(super) const fn of_house(layer: Layer, why: String) -> Self {
        Self { layer, source: Source::House, rule: String::new(), place: String::new(), decision: Decision::Ask, why }
    }

    /// The name by which people call its rule; empty where there is none. A repository names its rules as it
    /// likes, so each of them is called `project:…`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.rule.is_empty() { String::new() } else { name(self.layer, &self.rule) }
    }
}

fn name(layer: Layer, id: &str) -> String {
    if layer == Layer::Project { format!("{PROJECT_PREFIX}{id}") } else { id.to_owned() }
}

/// One command of a text, with what was found about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Its words; what only the shell knows is `…`.
    pub text: String,
    /// Why no rule can allow it, if so.
    pub doubt: Option<&'static str>,
    /// The rules that matched.
    pub reasons: Vec<Reason>,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The strictest of all reasons.
    pub decision: Decision,
    /// The reasons that are about the call as a whole and its paths.
    pub reasons: Vec<Reason>,
    /// The commands of its text.
    pub commands: Vec<Judged>,
    /// Why there may be more commands than these.
    pub opaque: Option<&'static str>,
}

impl Verdict {
    /// The names of the rules that say what was decided, each once; not of those that only might: whoever answers all
    /// that a rule is about has not thought of what can not be read.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        let all = self.reasons.iter().chain(self.commands.iter().flat_map(|command| &command.reasons));
        let is_sure = |reason: &Reason| !matches!(reason.source, Source::Doubt { .. });
        let named = all.filter(|reason| reason.decision == self.decision && !reason.rule.is_empty() && is_sure(reason));
        named.map(Reason::name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The reasons of what was decided, as one line without repetitions; a project's come last, so that they push
    /// nothing away.
    #[must_use]
    pub fn why(&self) -> String {
        let all = || self.reasons.iter().chain(self.commands.iter().flat_map(|command| &command.reasons));
        let telling = |is_project: bool| {
            all().filter(move |reason| reason.decision == self.decision && (reason.layer == Layer::Project) == is_project)
        };
        let mut seen = BTreeSet::new();
        let mut lines: Vec<&str> =
            telling(false).chain(telling(true)).map(|reason| reason.why.as_str()).filter(|why| seen.insert(*why)).collect();
        let left = lines.len().saturating_sub(MOST_LINES);
        lines.truncate(MOST_LINES);
        if left == 0 { lines.join("; ") } else { format!("{}; and {left} more", lines.join("; ")) }
    }
}

/// Judges a call; `command` is the text of a shell command, where it has one.
#[must_use]
pub fn judge(call: &Call<'_>, command: Option<&str>, sets: &[&RuleSet], programs: Option<&Programs>) -> Verdict {
    let split = command.map(shell::split).unwrap_or_default();
    let mut bench = Bench {
        reasons: floor(call),
        commands: split.segments.iter().map(|segment| (Look::of(segment), Judged::new(segment))).collect(),
        opaque: split.opaque,
        targets: call.writes.iter().map(|path| Target::of(path)).collect(),
        call,
        programs,
    };
    let mut is_settled = bench.reasons.iter().any(|reason| reason.decision == Decision::Forbid);
    for set in sets {
        is_settled |= bench.hear(set);
    }
    let Bench { mut reasons, commands, .. } = bench;
    let mut commands: Vec<Judged> = commands.into_iter().map(|(_, judged)| judged).collect();
    if !is_settled {
        let why = match call.mcp {
            Some(_) => format!("`{}` belongs to an MCP server, and no rule allows it", call.tool),
            None => format!("no policy names the tool `{}`", call.tool),
        };
        let (layer, source, rule) = (Layer::BuiltIn, Source::Risk, BY_RISK.to_owned());
        reasons.push(Reason { layer, source, rule, place: String::new(), decision: Decision::Ask, why });
    }
    if call.runs {
        unmatched(sets, &split, command.is_some(), (&mut reasons, &mut commands));
    }
    let all = reasons.iter().chain(commands.iter().flat_map(|command| &command.reasons));
    let decision = all.map(|reason| reason.decision).max().unwrap_or(Decision::Ask);
    Verdict { decision, reasons, commands, opaque: split.opaque }
}

/// A call before all rules.
struct Bench<'a> {
    call: &'a Call<'a>,
    programs: Option<&'a Programs>,
    reasons: Vec<Reason>,
    commands: Vec<(Look<'a>, Judged)>,
    opaque: Option<&'static str>,
    targets: Vec<Target<'a>>,
}

/// Rules of one set that might match: the first of the strictest, and how many more. One question is enough
/// for all.
#[derive(Clone, Copy, Default)]
struct Doubts<'a> {
    first: Option<&'a Rule>,
    more: u32,
}

impl<'a> Doubts<'a> {
    fn add(&mut self, rule: &'a Rule) {
        match self.first {
            None => self.first = Some(rule),
            Some(first) => {
                self.more += 1;
                self.first = Some(if rule.decision > first.decision { rule } else { first });
            }
        }
    }

    fn reason(self, set: &RuleSet, cause: &str) -> Option<Reason> {
        let rule = self.first?;
        let more = if self.more == 0 { String::new() } else { format!(" and {} more", self.more) };
        let why = format!("{cause}, and rule `{}`{more} of the {} policy might concern it", name(set.layer, &rule.id), set.layer);
        let source = Source::Doubt { forbids: rule.decision == Decision::Forbid };
        Some(Reason { layer: set.layer, source, rule: rule.id.clone(), place: place(set, rule), decision: Decision::Ask, why })
    }
}

impl Bench<'_> {
    /// Hears one set; whether a rule of it is about this kind of call.
    fn hear(&mut self, set: &RuleSet) -> bool {
        let call = self.call;
        let mut is_settled = false;
        let (most_commands, most_targets) = self.measure(set);
        let mut doubts = vec![Doubts::default(); self.commands.len().min(most_commands)];
        let mut heard = Heard { left: MOST_REASONS, ..Heard::default() };
        for rule in set.rules.iter().filter(|rule| rule.scope.holds(call)) {
            match &rule.subject {
                Subject::Call => {
                    is_settled |= rule.scope.names_tools();
                    heard.take(&mut self.reasons, set, rule, || reason(set, rule, call, &[]));
                }
                Subject::Paths(patterns) => {
                    let hit = |target: &&Target<'_>| patterns.iter().any(|pattern| pattern.matches(target));
                    let paths: Vec<&str> = self.targets.iter().take(most_targets).filter(hit).map(|target| target.path).collect();
                    if !paths.is_empty() {
                        heard.take(&mut self.reasons, set, rule, || reason(set, rule, call, &paths));
                    }
                    heard.pass_over(rule, self.targets.len() > most_targets);
                }
                Subject::Command(words) => {
                    for ((look, judged), doubts) in self.commands.iter_mut().zip(&mut doubts) {
                        let hit = match rule.decision {
                            Decision::Allow if words.allows(look, self.programs) => Hit::Yes,
                            Decision::Allow => Hit::No,
                            Decision::Ask | Decision::Forbid => words.tightens(look),
                        };
                        match hit {
                            Hit::No => {}
                            Hit::Maybe => doubts.add(rule),
                            Hit::Yes => heard.take(&mut judged.reasons, set, rule, || reason(set, rule, call, &[])),
                        }
                    }
                    heard.pass_over(rule, self.commands.len() > most_commands);
                    if self.opaque.is_some() && rule.decision != Decision::Allow {
                        heard.unread.add(rule);
                    }
                }
            }
        }
        for ((_, judged), doubts) in self.commands.iter_mut().zip(doubts) {
            judged.reasons.extend(doubts.reason(set, "the text alone does not say what would run"));
        }
        if let Some(opaque) = self.opaque {
            self.reasons.extend(heard.unread.reason(set, &format!("the command can not be read ({opaque})")));
        }
        self.reasons.extend(heard.unseen.reason(set, "there is more of it than rules can be held against"));
        is_settled
    }

    /// How many commands and paths the rules of a set are held against.
    fn measure(&self, set: &RuleSet) -> (usize, usize) {
        let (words, names) = set.size;
        let commands = self.commands.iter().map(|(look, _)| look.size());
        (within(commands, words), within(self.targets.iter().map(Target::size), names))
    }
}

/// How many of these sizes, from the first on, may be multiplied by `times`.
fn within(sizes: impl Iterator<Item = usize>, times: usize) -> usize {
    let most = MOST_COMPARED / times.max(1);
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= most).count()
}

/// What one set has said so far.
#[derive(Default)]
struct Heard<'a> {
    /// Reasons that may still be put down one by one.
    left: usize,
    /// Rules that might be about what can not be read.
    unread: Doubts<'a>,
    /// Rules that were not held against all there is, or whose reasons are too many.
    unseen: Doubts<'a>,
}

impl<'a> Heard<'a> {
    /// Puts a reason down. Where there are too many, only what decides is: a `forbid` and an `allow` once for each
    /// command, and one question for all rules that ask.
    fn take(&mut self, into: &mut Vec<Reason>, set: &RuleSet, rule: &'a Rule, told: impl FnOnce() -> Reason) {
        if self.left > 0 {
            self.left -= 1;
            into.push(told());
        } else if rule.decision == Decision::Ask {
            self.unseen.add(rule);
        } else if !into.iter().rev().any(|reason| reason.decision == rule.decision && reason.layer == set.layer) {
            into.push(told());
        }
    }

    /// Notes a rule that was not held against all there is.
    fn pass_over(&mut self, rule: &'a Rule, is_cut: bool) {
        if is_cut && rule.decision != Decision::Allow {
            self.unseen.add(rule);
        }
    }
}

/// What no file can change.
fn floor(call: &Call<'_>) -> Vec<Reason> {
    let refuse = |why: String| Reason { decision: Decision::Forbid, ..Reason::of_house(Layer::Floor, why) };
    if let Some(path) = call.writes.iter().find(|path| leaves(path)) {
        return vec![refuse(format!("`{path}` lies outside the worktree; use a path below its root"))];
    }
    if call.runs && call.level.is_none() {
        return vec![refuse("no complete sandbox level works on this host, so no command may run".to_owned())];
    }
    let ask = |why: &str| Reason { decision: Decision::Ask, ..refuse(why.to_owned()) };
    let mut held = Vec::new();
    if call.runs && call.level == Some(Level::None) {
        held.push(ask("it would run without a sandbox"));
    }
    if call.writes.iter().any(|path| is_settings(path)) {
        held.push(ask("it changes the project's own settings or policy"));
    }
    held
}

/// Whether a path lies in the directory from which a project steers tasks.
fn is_settings(path: &str) -> bool {
    path.split('/').any(|part| part.eq_ignore_ascii_case(".tinkerbell"))
}

/// Whether a path, taken literally, points out of the worktree.
fn leaves(path: &str) -> bool {
    let mut depth = 0_i64;
    let climbs = path.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    });
    path.starts_with('/') || climbs
}

/// Only an `allow` counts here: an `ask` of a project must not soften a user's `forbid`.
fn is_allowed(command: &Judged) -> bool {
    command.reasons.iter().any(|reason| reason.decision == Decision::Allow)
}

/// Commands that no `allow` covers, where a file says what becomes of them.
fn unmatched(sets: &[&RuleSet], split: &Split, has_text: bool, (reasons, commands): (&mut Vec<Reason>, &mut [Judged])) {
    let strictest = sets.iter().filter_map(|set| Some((set.unmatched?, set))).max_by_key(|(decision, _)| *decision);
    let Some((unmatched, set)) = strictest else { return };
    let (layer, name) = (set.layer, set.name.as_str());
    let (decision, source, rule) = match unmatched {
        Unmatched::Risk => (Decision::Ask, Source::Risk, BY_RISK),
        Unmatched::Allow | Unmatched::Ask => (Decision::Ask, Source::Unmatched, UNMATCHED),
        Unmatched::Forbid => (Decision::Forbid, Source::Unmatched, UNMATCHED),
    };
    let reason = |why: String| Reason { layer, source, rule: rule.to_owned(), place: name.to_owned(), decision, why };
    if !has_text {
        reasons.push(reason("no rule can allow what is sent to a running command".to_owned()));
    }
    if let Some(opaque) = split.opaque {
        reasons.push(reason(format!("no rule can allow a command that can not be read ({opaque})")));
    }
    for command in commands.iter_mut().filter(|command| !is_allowed(command)) {
        let doubt = command.doubt.map(|doubt| format!(": {doubt}")).unwrap_or_default();
        command.reasons.push(reason(format!("no rule allows `{}`{doubt}", command.text)));
    }
}

fn place(set: &RuleSet, rule: &Rule) -> String {
    format!("{}:{}", set.name, rule.line)
}

fn reason(set: &RuleSet, rule: &Rule, call: &Call<'_>, paths: &[&str]) -> Reason {
    let said = rule.why.as_deref().unwrap_or_default().replace("{paths}", &listed(paths)).replace("{deletes}", &call.deletes.to_string());
    let named = name(set.layer, &rule.id);
    let why = match (set.layer, said.is_empty()) {
        (Layer::BuiltIn, _) => said,
        (layer, true) => format!("rule `{named}` of the {layer} policy"),
        (Layer::Project, false) => format!("{} (rule `{named}` of the project policy)", cut(&said)),
        (layer, false) => format!("{said} (rule `{named}` of the {layer} policy)"),
    };
    Reason { layer: set.layer, source: Source::Rule, rule: rule.id.clone(), place: place(set, rule), decision: rule.decision, why }
}

fn listed(paths: &[&str]) -> String {
    let shown = paths.iter().take(MOST_PATHS).copied().collect::<Vec<_>>().join(", ");
    let left = paths.len().saturating_sub(MOST_PATHS);
    if left == 0 { shown } else { format!("{shown} and {left} more") }
}

/// The beginning of what somebody else chose the length of.
pub(super) fn cut(said: &str) -> String {
    match said.char_indices().nth(MOST_SAID) {
        Some((at, _)) => format!("{}…", said.get(..at).unwrap_or_default()),
        None => said.to_owned(),
    }
}

impl Judged {
    fn new(segment: &Segment) -> Self {
        let words: Vec<&str> = segment.words.iter().map(|word| word.known().unwrap_or("…")).collect();
        debug_assert!(segment.words.iter().all(|word| !matches!(word, Word::Unknown)) || segment.doubt.is_some());
        Self { text: words.join(" "), doubt: segment.doubt, reasons: Vec::new() }
    }
}
