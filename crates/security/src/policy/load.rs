//! A policy file's text becomes rules, or a fault with file and line.
//!
//! Invariant: a set of rules exists only if every line was understood, no rule was refused by the
//! lint, and every example did through the real matcher what it says.

use super::judge::Layer;
use super::lint;
use super::options::{Decision, PolicyFile, RuleOptions, Unmatched, Words};
use super::rule::{Call, CommandRule, Hit, Look, Pattern, Program, Rule, Scope, Subject, Target};
use super::shell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::Level;
use toml::Spanned;

/// Most rules of one file.
const MOST_RULES: usize = 10_000;

/// The rules of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Whose they are.
    pub layer: Layer,
    /// The file.
    pub name: String,
    /// The rules in order.
    pub rules: Vec<Rule>,
    /// What becomes of commands that no rule of words settles.
    pub unmatched: Option<Unmatched>,
    /// What is no mistake but hardly meant.
    pub warnings: Vec<String>,
    /// Examples that were tried.
    pub examples: usize,
    /// Words of the rules about commands, and names of those about paths: what a call is held against.
    pub size: (usize, usize),
}

/// Words of a rule about commands, names of one about paths.
fn size(rule: &Rule) -> (usize, usize) {
    match &rule.subject {
        Subject::Call => (0, 0),
        Subject::Command(rule) => (1 + rule.without.len() + rule.argv.iter().map(Vec::len).sum::<usize>(), 0),
        Subject::Paths(patterns) => (0, patterns.iter().map(Pattern::size).sum()),
    }
}

/// Where mistakes are, and how they are told.
pub(super) struct Page<'a> {
    pub layer: Layer,
    pub name: &'a str,
    /// Where the line ends stand.
    ends: Vec<usize>,
}

impl<'a> Page<'a> {
    fn new(layer: Layer, name: &'a str, text: &str) -> Self {
        Self { layer, name, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    pub fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    pub fn mistake(&self, span: Range<usize>, what: &str) -> Fault {
        self.fault("TB-POLICY-003", span, what)
            .hint("tinkerbell policy check   checks all files; tinkerbell explain TB-POLICY-003 shows a rule")
    }

    fn fault(&self, code: &'static str, span: Range<usize>, what: &str) -> Fault {
        Fault::new(code, exit::CONFIG, format!("{}:{}: {}", self.name, self.line(span.start), what.trim()))
    }
}

/// Reads a file's text.
///
/// # Errors
/// `TB-POLICY-003` for a mistake, `TB-POLICY-004` for an example that fails, `TB-POLICY-005` for what a
/// project must not say; each with file and line.
pub fn parse(layer: Layer, name: &str, text: &str) -> Result<RuleSet, Fault> {
    let page = Page::new(layer, name, text);
    let file: PolicyFile = toml::from_str(text).map_err(|error| page.mistake(error.span().unwrap_or(0..0), error.message()))?;
    if let Some(rule) = file.rule.get(MOST_RULES) {
        return Err(page.mistake(rule.span(), &format!("more than {MOST_RULES} rules")));
    }
    if let Some(unmatched) = file.unmatched_commands.as_ref().filter(|decision| *decision.get_ref() == Unmatched::Allow) {
        return Err(page.mistake(
            unmatched.span(),
            "`unmatched_commands` can only be \"risk\", \"ask\" or \"forbid\": leave it out to let the sandbox contain them",
        ));
    }
    let mut set = RuleSet {
        layer,
        name: name.to_owned(),
        rules: Vec::with_capacity(file.rule.len()),
        unmatched: file.unmatched_commands.map(Spanned::into_inner),
        warnings: Vec::new(),
        examples: 0,
        size: (0, 0),
    };
    let mut ids = BTreeSet::new();
    for options in &file.rule {
        let options = options.get_ref();
        if !ids.insert(options.id.get_ref().as_str()) {
            return Err(page.mistake(options.id.span(), &format!("there are two rules `{}`", options.id.get_ref())));
        }
        let rule = compile(&page, options)?;
        set.examples += try_examples(&page, options, &rule)?;
        let (words, names) = size(&rule);
        set.size = (set.size.0 + words, set.size.1 + names);
        set.rules.push(rule);
    }
    set.warnings = lint::warnings(&set);
    Ok(set)
}

fn compile(page: &Page<'_>, options: &RuleOptions) -> Result<Rule, Fault> {
    let decision = *options.decision.get_ref();
    if page.layer == Layer::Project && decision == Decision::Allow {
        let what = format!("a project's policy may only ask and forbid; rule `{}` allows", options.id.get_ref());
        return Err(page
            .fault("TB-POLICY-005", options.decision.span(), &what)
            .hint("move the rule to your own policy: tinkerbell policy check   names the file"));
    }
    lint::refuse(page, options)?;
    let scope = Scope {
        tools: options.tools.clone(),
        mcp: options.mcp,
        read_only: options.read_only,
        levels: options.level.iter().map(|level| read_level(page, level)).collect::<Result<_, _>>()?,
        runs: options.runs,
        writes: options.writes,
        deletes_over: options.deletes_over,
    };
    let subject = match (&options.argv, &options.paths) {
        (Some(argv), None) => Subject::Command(CommandRule {
            argv: argv.iter().map(|words| alternatives(words.get_ref())).collect(),
            without: options.without.iter().map(|word| word.get_ref().clone()).collect(),
            program: options.program.as_ref().map(|program| read_program(page, program)).transpose()?,
        }),
        (None, Some(paths)) => Subject::Paths(
            paths
                .iter()
                .map(|path| Pattern::read(path.get_ref()).map_err(|why| page.mistake(path.span(), &why)))
                .collect::<Result<_, _>>()?,
        ),
        _ => Subject::Call,
    };
    let line = page.line(options.id.span().start);
    Ok(Rule { id: options.id.get_ref().clone(), line, decision, why: options.why.clone(), scope, subject })
}

pub(super) fn alternatives(words: &Words) -> Vec<String> {
    match words {
        Words::One(word) => vec![word.clone()],
        Words::Any(words) => words.clone(),
    }
}

fn level_of(name: &str) -> Option<Level> {
    [Level::Full, Level::Landlock, Level::None].into_iter().find(|level| level.name() == name)
}

fn read_level(page: &Page<'_>, name: &Spanned<String>) -> Result<Level, Fault> {
    level_of(name.get_ref())
        .ok_or_else(|| page.mistake(name.span(), &format!("there is no level `{}`: full, landlock or none", name.get_ref())))
}

fn read_program(page: &Page<'_>, program: &Spanned<String>) -> Result<Program, Fault> {
    match program.get_ref().as_str() {
        "toolchain" => Ok(Program::Toolchain),
        path if path.starts_with('/') => Ok(Program::Path(PathBuf::from(path))),
        other => Err(page.mistake(program.span(), &format!("`{other}` is no program: write \"toolchain\" or a whole path"))),
    }
}

/// Tries all examples of a rule; gives their number.
fn try_examples(page: &Page<'_>, options: &RuleOptions, rule: &Rule) -> Result<usize, Fault> {
    let wanted = options.matches.iter().map(|example| (example, true)).chain(options.not_match.iter().map(|example| (example, false)));
    let mut tried = 0;
    for (example, should) in wanted {
        let text = example.get_ref();
        let does = matches_example(rule, text).map_err(|why| page.mistake(example.span(), &why))?;
        if does != should {
            let what = if should { "does not match its example" } else { "matches what it must not" };
            return Err(page
                .fault("TB-POLICY-004", example.span(), &format!("rule `{}` {what} `{text}`", rule.id))
                .hint("mend the rule or the example; the whole file is refused until they agree"));
        }
        tried += 1;
    }
    Ok(tried)
}

/// Whether a rule matches an example: a command, a path, or a call like `exec level=full writes=a`.
fn matches_example(rule: &Rule, text: &str) -> Result<bool, String> {
    match &rule.subject {
        Subject::Command(words) => {
            let split = shell::split(text);
            if rule.decision == Decision::Allow {
                return Ok(split.opaque.is_none()
                    && !split.segments.is_empty()
                    && split.segments.iter().all(|segment| words.allows(&Look::of(segment), None)));
            }
            Ok(split.opaque.is_some() || split.segments.iter().any(|segment| words.tightens(&Look::of(segment)) != Hit::No))
        }
        Subject::Paths(patterns) => Ok(patterns.iter().any(|pattern| pattern.matches(&Target::of(text)))),
        Subject::Call => call_example(rule, text),
    }
}

fn call_example(rule: &Rule, text: &str) -> Result<bool, String> {
    let mut words = text.split_whitespace();
    let tool = words.next().ok_or("an example of a call begins with the tool's name")?;
    let (mut level, mut writes, mut deletes) = (Some(Level::Full), Vec::new(), 0);
    // Only tools of servers have a dot in their names.
    let mut mcp = tool.contains('.').then_some(false);
    for word in words {
        match word.split_once('=') {
            Some(("level", name)) => level = Some(level_of(name).ok_or_else(|| format!("there is no level `{name}`"))?),
            Some(("writes", path)) => writes.push(path.to_owned()),
            None if word == "read-only" && mcp.is_some() => mcp = Some(true),
            Some(("deletes", count)) => deletes = count.parse().map_err(|_| format!("`{count}` is no number"))?,
            _ => return Err(format!("`{word}` in an example is none of level=, writes=, deletes=, read-only")),
        }
    }
    let runs = super::RUNNERS.contains(&tool);
    Ok(rule.scope.holds(&Call { tool, mcp, runs, level, writes: &writes, deletes }))
}
