//! Policy: rules of several files, judged together, behind the guard's port.
//!
//! Files are read in `source` and checked in `load`; text of commands is split in `shell`. Invariants:
//! a call that no rule settles is asked for, and a file with a mistake changes nothing.

#[doc(hidden)]
pub mod fuzz;
mod grant;
mod judge;
mod launch;
mod lint;
mod load;
mod options;
mod place;
mod provenance;
mod risk;
mod rule;
mod settle;
mod shell;
mod source;
#[cfg(test)]
mod tests;

pub use grant::{Around, Held, LASTS_MS as GRANT_LASTS_MS, lint as lint_grant, offer, relax};
pub use judge::{Judged, Layer, Reason, Source, Verdict, judge};
pub use load::{RuleSet, parse};
pub use options::Decision;
pub use risk::{Authorisation, Risk, Weighing, Weight, weigh};
pub use rule::{Call, Programs};
pub use settle::{settle, title};
pub use source::{MOST_BYTES, PolicyPlaces, project_file, read_file, read_owned};

use crate::digest::{deed_digest, digest_of};
use crate::git::GitFiles;
use crate::grants::{self, Filed};
use settle::Unasked;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tinkerbell_core::approval::Grant;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::EffectClass;
use tinkerbell_core::port::{Deed, Grounds, Guard, Judgement};
use tinkerbell_secret::Known;

/// The file that is built in.
pub const BUILT_IN: &str = include_str!("policy/default.toml");
/// Its name where a place is told.
const BUILT_IN_NAME: &str = "(built-in policy)";
/// Tools that run or feed commands.
const RUNNERS: [&str; 2] = ["exec", "exec_send"];
/// Most projects whose rules are kept.
const MOST_PROJECTS: usize = 1_000;

/// A project's rules, or why they can not be read.
type Project = Arc<Result<Option<RuleSet>, Fault>>;

/// Reads the built-in file.
///
/// # Errors
/// None in a release: a test reads it.
pub fn built_in() -> Result<RuleSet, Fault> {
    parse(Layer::BuiltIn, BUILT_IN_NAME, BUILT_IN)
}

/// The rules in force, and the secrets that are redacted.
pub struct PolicyGuard {
    git: GitFiles,
    known: Arc<Known>,
    /// Built-in, organisation, user. Without the first everything would be asked for.
    sets: RwLock<Arc<Vec<RuleSet>>>,
    /// By root: the rules, or why they can not be read.
    projects: RwLock<BTreeMap<PathBuf, Project>>,
    /// The value of PATH that commands get.
    path: RwLock<String>,
    /// What the user allowed for more than one time.
    grants: RwLock<Arc<Vec<Filed>>>,
    /// Whether commands can reach others from where they run.
    reaches: AtomicBool,
}

impl Default for PolicyGuard {
    fn default() -> Self {
        let sets = RwLock::new(Arc::new(built_in().into_iter().collect()));
        Self {
            known: Arc::default(),
            git: GitFiles::default(),
            sets,
            projects: RwLock::default(),
            path: RwLock::default(),
            grants: RwLock::default(),
            reaches: AtomicBool::default(),
        }
    }
}

impl PolicyGuard {
    /// A guard with the built-in rules that knows no secrets yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guard that takes these values out of texts, and adds to them what repositories hold.
    #[must_use]
    pub fn knowing(known: Arc<Known>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Learns the credentials in a repository's own git configuration, which commands can read.
    pub fn look_at(&self, git_dir: &Path) {
        self.git.learn(&self.known, &git_dir.join("config"));
    }

    /// Where commands find programs, as PATH writes it.
    pub fn set_path(&self, path: &str) {
        path.clone_into(&mut self.path.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether commands can reach others from where they run; what can not is of less risk.
    pub fn set_reach(&self, reaches: bool) {
        self.reaches.store(reaches, Ordering::Relaxed);
    }

    /// Reads the files of organisation and user again; whether anything changed.
    ///
    /// # Errors
    /// What is wrong with a file; then the rules that were read before stay in force.
    pub fn reload(&self, places: &PolicyPlaces) -> Result<bool, Fault> {
        let (fresh, granted) = (places.read()?, grants::read(&places.grants(), places.uid)?);
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(granted);
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = **sets != fresh;
        *sets = Arc::new(fresh);
        Ok(is_new)
    }

    /// Reads a project's file again.
    ///
    /// # Errors
    /// What is wrong with it; then the rules that were read before stay in force, and where there are
    /// none, everything in that project is asked for.
    pub fn reload_project(&self, root: &Path) -> Result<(), Fault> {
        let root = named(root);
        let root = root.as_path();
        let fresh = project_file(root);
        let mut projects = self.projects.write().unwrap_or_else(PoisonError::into_inner);
        if projects.len() >= MOST_PROJECTS && !projects.contains_key(root) {
            // They are read again when they are needed.
            projects.clear();
        }
        let told = fresh.as_ref().err().cloned();
        if told.is_none() || !projects.get(root).is_some_and(|known| known.is_ok()) {
            projects.insert(root.to_owned(), Arc::new(fresh));
        }
        told.map_or(Ok(()), Err)
    }

    fn project(&self, root: &Path) -> Project {
        let root = named(root);
        let root = root.as_path();
        let known = || self.projects.read().unwrap_or_else(PoisonError::into_inner).get(root).cloned();
        known().unwrap_or_else(|| {
            // After a restart nobody has read it yet. A mistake is kept with the rest.
            let _mistake = self.reload_project(root).is_err();
            known().unwrap_or_else(|| Arc::new(Ok(None)))
        })
    }

    fn verdict(&self, deed: &Deed) -> (Verdict, Option<Grant>) {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let project = self.project(&deed.workspace.repo);
        let served = deed.plan.mcp.as_ref().map(tinkerbell_core::tool::McpCall::name);
        let tool = served.as_deref().unwrap_or(deed.call.name.as_str());
        let call = Call {
            tool,
            mcp: deed.plan.mcp.as_ref().map(|call| call.read_only),
            runs: deed.plan.command.is_some() || RUNNERS.contains(&tool),
            level: deed.level,
            writes: &deed.plan.writes,
            deletes: deed.plan.deletes,
        };
        let all: Vec<&RuleSet> = sets.iter().chain(project.as_ref().as_ref().ok().and_then(Option::as_ref)).collect();
        let path = self.path.read().unwrap_or_else(PoisonError::into_inner).clone();
        let programs = Programs::of(&path, vec![deed.workspace.tree.clone(), deed.workspace.repo.clone()]);
        let mut verdict = judge(&call, deed.plan.command.as_deref(), &all, Some(&programs));
        let mut offered = None;
        if let Some(command) = &deed.plan.command {
            // Who asked for it makes no deed less bad, so nothing is looked up for this.
            let risk = self.weighed(deed, &Grounds::default()).risk;
            let around = Around { programs: Some(&programs), risk, now_ms: deed.grounds.now_ms };
            relax(&mut verdict, command, (&self.held(deed), &all), around);
            offered = offer(&verdict, command, &all, around);
        }
        if let (Err(fault), true) = (project.as_ref(), call.runs || !call.writes.is_empty()) {
            let why = format!("the project's policy can not be used: {}", fault.message);
            verdict.reasons.push(Reason::of_house(Layer::Project, why));
            verdict.decision = verdict.decision.max(Decision::Ask);
            offered = None;
        }
        if deed.grounds.is_users {
            authorised(&mut verdict);
            offered = None;
        }
        (verdict, offered)
    }

    /// What was allowed for more than one time and is about this deed's task or repository.
    fn held(&self, deed: &Deed) -> Vec<Held> {
        let filed = self.grants.read().unwrap_or_else(PoisonError::into_inner).clone();
        let repository = named(&deed.workspace.repo);
        let filed = filed.iter().filter_map(|one| one.held(&repository));
        deed.grounds.grants.iter().map(|grant| ("task", grant.clone())).chain(filed).collect()
    }
}

impl PolicyGuard {
    /// SHA-256 over all rules under which a deed stands.
    fn version(&self, deed: &Deed) -> String {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner).clone();
        // What a rule is to a reader is all that it is: two that print alike decide alike.
        digest_of(&[&format!("{sets:?}"), &format!("{:?}", self.project(&deed.workspace.repo))])
    }

    /// The grounds, with what a person saw when he allowed the like for longer.
    fn grounds(&self, deed: &Deed, verdict: &Verdict) -> Grounds {
        let used =
            |grant: &Grant| verdict.commands.iter().flat_map(|one| &one.reasons).any(|r| r.source == Source::Grant && r.rule == grant.id);
        let examples = self.held(deed).into_iter().filter(|(_, grant)| used(grant)).map(|(_, grant)| grant.example);
        let words: Vec<String> = deed.grounds.words.iter().cloned().chain(examples).collect();
        Grounds { words: words.into(), ..deed.grounds.clone() }
    }

    fn weight(&self, deed: &Deed, verdict: &Verdict) -> Weight {
        self.weighed(deed, &self.grounds(deed, verdict))
    }

    fn weighed(&self, deed: &Deed, grounds: &Grounds) -> Weight {
        let served = deed.plan.mcp.as_ref().map(tinkerbell_core::tool::McpCall::name);
        let tool = served.as_deref().unwrap_or(deed.call.name.as_str());
        let call = Call {
            tool,
            mcp: deed.plan.mcp.as_ref().map(|call| call.read_only),
            runs: deed.plan.command.is_some() || RUNNERS.contains(&tool),
            level: deed.level,
            writes: &deed.plan.writes,
            deletes: deed.plan.deletes,
        };
        weigh(&Weighing {
            call: &call,
            command: deed.plan.command.as_deref(),
            args: &deed.call.args,
            is_pure: deed.plan.class == EffectClass::Pure,
            reaches: self.reaches.load(Ordering::Relaxed),
            grounds,
        })
    }
}

/// What the user typed is what the user wants: only a rule that names it can forbid it.
fn authorised(verdict: &mut Verdict) {
    let all = verdict.reasons.iter().chain(verdict.commands.iter().flat_map(|command| &command.reasons));
    let is_forbidden = all.filter(|reason| reason.source != Source::Unmatched).any(|reason| reason.decision == Decision::Forbid);
    verdict.decision = if is_forbidden { Decision::Forbid } else { Decision::Allow };
}

/// One name per directory, whatever links lead to it.
fn named(root: &Path) -> PathBuf {
    root.canonicalize().unwrap_or_else(|_| root.to_owned())
}

impl Guard for PolicyGuard {
    fn judge(&self, deed: &Deed) -> Judgement {
        // Before each call: the daemon may have been started anew, and the file may have changed.
        self.look_at(&deed.workspace.common_dir);
        let (mut verdict, offer) = self.verdict(deed);
        let weight = self.weight(deed, &verdict);
        if !deed.grounds.is_users {
            settle(&mut verdict, &weight, deed.plan.mcp.is_some());
        }
        // What is not about one command alone can not be allowed for longer.
        let offer = offer.filter(|_| !verdict.reasons.iter().any(|reason| reason.decision == Decision::Ask));
        let ask =
            |why: String, rules: Vec<String>| Judgement::Ask { why, digest: deed_digest(deed), policy: self.version(deed), rules, offer };
        match verdict.decision {
            Decision::Allow => Judgement::Allow,
            Decision::Forbid => Judgement::Refuse { why: verdict.why() },
            Decision::Ask if deed.grounds.is_unasked => match settle::unasked(&verdict, &weight) {
                Unasked::Done => Judgement::Waived { why: title(&verdict, &weight) },
                Unasked::Asked => ask(title(&verdict, &weight), verdict.rules()),
                Unasked::Refused(why) => Judgement::Refuse { why },
            },
            Decision::Ask => ask(title(&verdict, &weight), verdict.rules()),
        }
    }

    fn weighs(&self, deed: &Deed) -> bool {
        let verdict = self.verdict(deed).0;
        let decision = verdict.decision;
        // A tool that only reads is asked about where what was read sends it somewhere.
        let goes = || deed.plan.mcp.is_some() && !place::hosts(&deed.call.args).is_empty();
        decision == Decision::Ask || (decision == Decision::Allow && (self.weight(deed, &verdict).risk >= Risk::High || goes()))
    }

    fn redact(&self, text: &str) -> String {
        self.known.redact(text).into_owned()
    }
}
