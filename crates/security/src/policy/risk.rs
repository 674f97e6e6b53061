//! Risk of a deed, and whether the user's own words ask for it: the table for what no rule settles.
//!
//! Pure: facts of the plan, words of the command, words of the user. No model is asked. Invariants: a
//! rule is never made milder by it, and only the user's own words authorise.

use super::options::Decision;
use super::place;
use super::provenance::{self, Taint};
use super::rule::Call;
use super::shell::{self, Split, Word};
use std::collections::BTreeSet;
use tinkerbell_core::port::{Grounds, Level};
use tinkerbell_core::protected::is_protected_file;

/// Deletions from which on a call is of high risk.
const MANY: u32 = 50;
/// Words that are looked at again for others; a command that needs more names program behind program and little else.
const MOST_STEPS: usize = 400_000;
/// Words before one in which a `not` takes it back.
pub(super) const NEGATION: usize = 4;

/// How bad it may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// It can be undone, and reaches nobody.
    Low,
    /// It may hurt the task, or its effects are not known.
    Medium,
    /// It reaches others, or what steers us.
    High,
    /// It destroys what nobody here can bring back.
    Critical,
}

/// Whether the user asked for it, in his own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authorisation {
    /// Nothing of it.
    None,
    /// The kind of thing.
    Implied,
    /// This very thing.
    Explicit,
}

impl Risk {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl Authorisation {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Implied => "implied",
            Self::Explicit => "explicit",
        }
    }
}

/// What is weighed.
#[derive(Debug, Clone, Copy)]
pub struct Weighing<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// The text of its command, where it has one.
    pub command: Option<&'a str>,
    /// Its arguments as the model wrote them.
    pub args: &'a str,
    /// Whether it changes nothing, by the word of whoever made the tool ours.
    pub is_pure: bool,
    /// Whether a command can reach others from where it runs.
    pub reaches: bool,
    /// What it rests on.
    pub grounds: &'a Grounds,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// How bad it may become.
    pub risk: Risk,
    /// Why, in one line.
    pub because: String,
    /// Whether the user asked for it.
    pub authorisation: Authorisation,
    /// What of it was read somewhere and never said by the user.
    pub tainted: Option<Taint>,
    /// A push that would overwrite a protected branch, and can reach one.
    pub overwrites: bool,
}

impl Weight {
    /// What the table says.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        use Authorisation as Asked;
        match (self.risk, self.authorisation) {
            (Risk::Low, _) | (Risk::Medium, Asked::Explicit | Asked::Implied) | (Risk::High, Asked::Explicit) => Decision::Allow,
            (Risk::Medium, Asked::None) | (Risk::High, Asked::Implied) | (Risk::Critical, Asked::Explicit) => Decision::Ask,
            (Risk::High, Asked::None) | (Risk::Critical, Asked::Implied | Asked::None) => Decision::Forbid,
        }
    }

    /// Both, for whoever is asked.
    #[must_use]
    pub fn told(&self) -> String {
        let asked = match self.authorisation {
            Authorisation::Explicit => "you asked for exactly this",
            Authorisation::Implied => "you asked for something like it",
            Authorisation::None => "you did not ask for it",
        };
        let tainted = self.tainted.as_ref().map(|taint| format!("; {taint}")).unwrap_or_default();
        format!("{} risk: {}; {asked}{tainted}", self.risk.name(), self.because)
    }
}

/// Weighs a call.
#[must_use]
pub fn weigh(look: &Weighing<'_>) -> Weight {
    let split = look.command.map(shell::split).unwrap_or_default();
    let commands = commands(&split, look.command);
    let because = "it can be undone, and reaches nobody".to_owned();
    let mut found = Found { risk: Risk::Low, because, keys: BTreeSet::new(), phrases: BTreeSet::new(), steps: 0 };
    plan(look, &mut found);
    let can_reach = look.reaches || look.call.level == Some(Level::None);
    let mut overwrites = false;
    for command in &commands {
        known(command, can_reach, &mut found);
        overwrites |= can_reach && forces(command);
    }
    if overwrites {
        found.raise(Risk::Critical, "it overwrites a branch that others use");
    }
    if split.opaque.is_some() {
        found.raise(Risk::Medium, "the command can not be read");
    }
    let served = look.call.mcp.map(|_| place::texts(look.args));
    let text = look.command.or(served.as_deref()).unwrap_or(look.args);
    let lower = look.command.map(str::to_lowercase).unwrap_or_default();
    if CREDENTIALS.iter().any(|mark| lower.contains(mark)) {
        found.raise(if can_reach { Risk::High } else { Risk::Medium }, "it names credentials");
    }
    if found.steps > MOST_STEPS {
        found.raise(Risk::Critical, "it is made so that it can not be looked through");
    }
    let said = asked(look, &commands, &found.keys);
    let goes = look.call.mcp.filter(|reads| *reads).and_then(|_| place::tainted(look.args, look.grounds));
    if goes.is_some() {
        found.raise(Risk::High, "it goes to a place on the network");
    }
    let tainted = goes.or_else(|| match said {
        Authorisation::Explicit => None,
        Authorisation::Implied => provenance::tainted(text, &[], look.grounds),
        Authorisation::None => provenance::tainted(text, &found.phrases.into_iter().collect::<Vec<_>>(), look.grounds),
    });
    // What somebody else wrote is no wish of the user, however well it fits.
    let authorisation = if tainted.is_some() { Authorisation::None } else { said };
    Weight { risk: found.risk, because: found.because, authorisation, tainted, overwrites }
}

struct Found {
    risk: Risk,
    because: String,
    /// Words by which a user would ask for it.
    keys: BTreeSet<String>,
    /// Commands that count as one part of the deed.
    phrases: BTreeSet<String>,
    /// Words that were looked at because others stand before or behind them.
    steps: usize,
}

impl Found {
    fn raise(&mut self, risk: Risk, because: &str) {
        if risk > self.risk {
            (self.risk, self.because) = (risk, because.to_owned());
        }
    }
}

/// What the plan alone says.
fn plan(look: &Weighing<'_>, found: &mut Found) {
    let call = look.call;
    if call.runs && call.level == Some(Level::None) {
        found.raise(Risk::High, "it runs without a sandbox");
    }
    if call.writes.iter().any(|path| is_protected_file(path)) {
        found.raise(Risk::High, "it changes what steers agents, editors or build servers");
    }
    match call.deletes {
        0 => {}
        1..=MANY => found.raise(Risk::Medium, "it deletes files"),
        _ => found.raise(Risk::High, "it deletes many files"),
    }
    let is_ours = call.runs || !call.writes.is_empty();
    if !is_ours && !look.is_pure {
        found.raise(Risk::Medium, "what it changes is not known");
    }
}

/// The commands of a text as bare words; a text that is a word of another command is taken apart, too.
fn commands(split: &Split, text: Option<&str>) -> Vec<Vec<String>> {
    let bare = |text: &str| -> Vec<String> {
        let is_edge = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ')' | '$');
        text.split(is_edge).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let known = |word: &Word| word.known().map_or_else(|| vec!["…".to_owned()], bare);
    // `git-push` is git's.
    let undashed = |mut words: Vec<String>| {
        let sub = words.first().and_then(|word| word.rsplit('/').next()?.strip_prefix("git-").map(str::to_owned));
        if let Some(sub) = sub.filter(|sub| !sub.is_empty()) {
            words.splice(..1, ["git".to_owned(), sub]);
        }
        words
    };
    let mut all: Vec<Vec<String>> = split.segments.iter().map(|segment| undashed(segment.words.iter().flat_map(known).collect())).collect();
    if split.opaque.is_some() {
        all.extend(
            text.map(|text| text.split([';', '|', '&', '\n']).map(|piece| undashed(bare(piece))).collect::<Vec<_>>()).unwrap_or_default(),
        );
    }
    all
}

/// A program, its subcommands (none: all of them), how bad, and why.
type Entry = (&'static [&'static str], &'static [&'static str], Risk, &'static str);

const PUBLISHES: &str = "it publishes or deploys";
const DESTROYS: &str = "it destroys what others use";
const FETCHES: &str = "it reaches the network";
const DISCARDS: &str = "it discards work";

/// What is known to reach others. It names what is common, not all there is.
const REACHING: [Entry; 17] = [
    (&["git"], &["push", "send-email"], Risk::High, PUBLISHES),
    (
        &["npm", "pnpm", "yarn", "bun", "cargo", "poetry", "uv", "hatch", "flit", "gradle", "gradlew"],
        &["publish", "yank", "owner", "deprecate"],
        Risk::High,
        PUBLISHES,
    ),
    (&["npm", "pnpm"], &["unpublish"], Risk::Critical, DESTROYS),
    (&["gem", "docker", "podman", "buildah", "skopeo"], &["push", "copy"], Risk::High, PUBLISHES),
    (&["twine"], &["upload"], Risk::High, PUBLISHES),
    (&["mvn"], &["deploy"], Risk::High, PUBLISHES),
    (
        &["kubectl", "oc"],
        &["apply", "create", "patch", "replace", "scale", "rollout", "exec", "set", "cordon", "edit", "run"],
        Risk::High,
        PUBLISHES,
    ),
    (&["kubectl", "oc"], &["delete", "drain"], Risk::Critical, DESTROYS),
    (&["helm"], &["install", "upgrade", "rollback"], Risk::High, PUBLISHES),
    (&["helm"], &["uninstall", "delete"], Risk::Critical, DESTROYS),
    (&["terraform", "tofu", "terragrunt", "pulumi"], &["apply", "import", "state", "up"], Risk::High, PUBLISHES),
    (&["terraform", "tofu", "terragrunt", "pulumi"], &["destroy"], Risk::Critical, DESTROYS),
    (&["gh", "glab"], &["release", "pr", "mr", "api", "repo", "workflow", "secret", "gist", "issue"], Risk::High, PUBLISHES),
    (
        &[
            "aws",
            "gcloud",
            "az",
            "doctl",
            "fly",
            "flyctl",
            "vercel",
            "netlify",
            "heroku",
            "railway",
            "wrangler",
            "firebase",
            "goreleaser",
            "ansible",
            "ansible-playbook",
            "ssh",
            "scp",
            "sftp",
            "rsync",
            "sendmail",
            "mail",
        ],
        &[],
        Risk::High,
        "it acts on other machines",
    ),
    (&["curl", "wget", "nc", "ncat", "socat", "telnet", "ftp"], &[], Risk::Medium, FETCHES),
    (
        &["pip", "pip3", "npm", "pnpm", "yarn", "bun", "cargo", "go", "gem", "apt", "apt-get", "brew"],
        &["install", "add", "i", "ci", "get", "update", "upgrade"],
        Risk::Medium,
        FETCHES,
    ),
    (&["dropdb", "mysqladmin", "redis-cli"], &[], Risk::Critical, DESTROYS),
];
/// What hurts where it runs; the worktree can be brought back.
const LOCAL: [Entry; 4] = [
    (&["git"], &["reset", "clean", "checkout", "restore", "stash", "rebase", "filter-branch", "gc", "prune"], Risk::Medium, DISCARDS),
    (&["rm", "shred", "truncate", "dd"], &[], Risk::Medium, DISCARDS),
    (&["chmod", "chown", "setfacl", "crontab", "at"], &[], Risk::Medium, "it changes rights or schedules"),
    (&["kill", "pkill", "killall"], &[], Risk::Medium, "it ends processes"),
];
/// Options by which a fetcher sends.
const SENDS: [&str; 9] = ["-d", "--data", "-F", "--form", "-T", "--upload-file", "--post-file", "--post-data", "--json"];
/// Places and names of credentials.
const CREDENTIALS: [&str; 14] = [
    ".ssh/",
    "id_rsa",
    "id_ed25519",
    ".aws/",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".docker/config.json",
    ".kube/config",
    "/etc/shadow",
    "_token",
    "_api_key",
    "_secret",
];

/// What is known of a command's words.
fn known(words: &[String], can_reach: bool, found: &mut Found) {
    for (at, word) in words.iter().enumerate() {
        if found.steps > MOST_STEPS {
            return;
        }
        let program = word.rsplit('/').next().unwrap_or(word).to_lowercase();
        let rest = words.get(at + 1..).unwrap_or_default();
        for (entry, reaching) in REACHING.iter().map(|entry| (entry, true)).chain(LOCAL.iter().map(|entry| (entry, false))) {
            let (programs, subs, risk, because) = entry;
            if !programs.contains(&program.as_str()) || (at > 0 && subs.is_empty() && !is_start(words, at, &mut found.steps)) {
                continue;
            }
            let Some(sub) = matching(subs, rest, &mut found.steps) else { continue };
            let risk = if reaching && !can_reach { (*risk).min(Risk::Medium) } else { *risk };
            let because = if reaching && !can_reach { format!("{because}, but reaches nobody from here") } else { (*because).to_owned() };
            found.raise(risk, &because);
            found.keys.insert(if sub.is_empty() { program.clone() } else { sub.to_owned() });
            found.phrases.extend((!sub.is_empty()).then(|| format!("{program} {sub}")));
        }
        let sends = |word: &String| SENDS.iter().any(|option| word.starts_with(option));
        if can_reach && matches!(program.as_str(), "curl" | "wget") && any(rest, sends, &mut found.steps) {
            found.raise(Risk::High, "it sends data away");
        }
        if program.starts_with("mkfs") {
            found.raise(Risk::Critical, DESTROYS);
        }
        let destroys = |word: &String| ["delete", "terminate", "destroy", "remove"].iter().any(|verb| word.starts_with(verb));
        if can_reach && matches!(program.as_str(), "gh" | "glab" | "aws" | "gcloud" | "az") && any(rest, destroys, &mut found.steps) {
            found.raise(Risk::Critical, DESTROYS);
        }
    }
}

/// Whether a command may begin at this word, behind launchers and their options.
fn is_start(words: &[String], at: usize, steps: &mut usize) -> bool {
    let ends = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or(word);
        !(word.starts_with('-') || word.contains('=') || super::launch::opens(&[name], &[]).is_some())
    };
    !any(words.get(..at).unwrap_or_default(), ends, steps)
}

/// Whether it holds for any of the words, which are counted.
fn any(words: &[String], test: impl Fn(&String) -> bool, steps: &mut usize) -> bool {
    let found = words.iter().position(test);
    *steps += found.unwrap_or(words.len());
    found.is_some()
}

/// The subcommand, `""` where any will do. Options before it are passed over, with what may be their values.
fn matching<'a>(subs: &[&'a str], rest: &[String], steps: &mut usize) -> Option<&'a str> {
    if subs.is_empty() {
        return Some("");
    }
    let mut is_value = false;
    for word in rest {
        *steps += 1;
        if let Some(sub) = subs.iter().find(|sub| **sub == word.as_str()) {
            return Some(sub);
        }
        let is_option = word.starts_with('-');
        if !is_option && !is_value {
            return None;
        }
        is_value = is_option;
    }
    None
}

/// Branches that others build upon.
const PROTECTED: [&str; 8] = ["main", "master", "trunk", "develop", "stable", "production", "prod", "release"];

/// Whether a push overwrites or deletes a protected branch, or one that is not named.
fn forces(words: &[String]) -> bool {
    let Some(at) = words.iter().position(|word| word == "push") else { return false };
    if !words.get(..at).unwrap_or_default().iter().any(|word| word == "git" || word.ends_with("/git")) {
        return false;
    }
    let rest = words.get(at + 1..).unwrap_or_default();
    let cluster = |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains(['f', 'd']);
    let option = |word: &str| ["--force", "--mirror", "--delete", "--prune"].iter().any(|option| word.starts_with(option)) || cluster(word);
    let refs: Vec<&str> = rest.iter().map(String::as_str).filter(|word| !word.starts_with('-')).skip(1).collect();
    let pushed =
        |spec: &str| spec.trim_start_matches('+').rsplit(':').next().unwrap_or_default().trim_start_matches("refs/heads/").to_owned();
    let is_protected = |spec: &&str| {
        let branch = pushed(spec);
        PROTECTED.iter().any(|name| branch == *name || branch.starts_with(&format!("{name}/")))
            || matches!(branch.as_str(), "HEAD" | "…" | "")
    };
    if rest.iter().any(|word| option(word)) {
        return refs.is_empty() || refs.iter().any(is_protected);
    }
    refs.iter().filter(|spec| spec.starts_with(['+', ':'])).any(is_protected)
}

/// Whether the user's words ask for the deed.
fn asked(look: &Weighing<'_>, commands: &[Vec<String>], keys: &BTreeSet<String>) -> Authorisation {
    let said: Vec<Vec<String>> = look.grounds.words.iter().map(|text| plain(text)).collect();
    let says = |wanted: &[String]| !wanted.is_empty() && said.iter().any(|words| is_said(words, wanted));
    if let Some(command) = look.command {
        let whole = plain(command);
        if whole.len() >= 2 && says(&whole) {
            return Authorisation::Explicit;
        }
        let all_keys = !keys.is_empty() && keys.iter().all(|key| synonyms(key).iter().any(|word| says(&[(*word).to_owned()])));
        // Where nothing of it is known by name, the programs are what a user would name.
        let programs = || {
            let names: BTreeSet<&String> = commands.iter().filter_map(|words| words.first()).collect();
            keys.is_empty() && !names.is_empty() && names.iter().all(|name| says(&plain(name)))
        };
        return if all_keys || programs() { Authorisation::Implied } else { Authorisation::None };
    }
    if !look.call.writes.is_empty() {
        let whole = look.call.writes.iter().all(|path| says(&plain(path)));
        let by_name = look.call.writes.iter().all(|path| says(&plain(path.rsplit('/').next().unwrap_or(path))));
        return match (whole, by_name) {
            (true, _) => Authorisation::Explicit,
            (false, true) => Authorisation::Implied,
            _ => Authorisation::None,
        };
    }
    let name = look.call.tool.rsplit('.').next().unwrap_or(look.call.tool);
    let parts: Vec<String> = name.split(['_', '-']).filter(|part| part.len() > 2).map(str::to_lowercase).collect();
    if !parts.is_empty() && parts.iter().all(|part| says(std::slice::from_ref(part))) {
        Authorisation::Implied
    } else {
        Authorisation::None
    }
}

/// Other words by which a user asks for the same.
fn synonyms(key: &str) -> Vec<&str> {
    match key {
        "publish" | "release" | "upload" => vec![key, "publish", "release"],
        "apply" | "upgrade" | "rollout" | "deploy" | "up" => vec![key, "deploy", "roll"],
        "rm" | "delete" | "uninstall" | "unpublish" | "destroy" => vec![key, "delete", "remove"],
        "install" | "add" | "i" | "ci" | "get" => vec![key, "install", "dependency", "dependencies"],
        "curl" | "wget" => vec![key, "download", "fetch"],
        _ => vec![key],
    }
}

/// Lower-case words without punctuation; a sentence's end is a word of its own.
fn plain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let lower = word.to_lowercase().replace('\u{2019}', "'");
        let bare = lower.trim_matches(|c: char| !(c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '@' | '+')));
        if !bare.is_empty() {
            out.push(bare.to_owned());
        }
        if word.ends_with(['.', ';', '!', '?']) {
            out.push(".".to_owned());
        }
    }
    if out.last().is_some_and(|word| word == ".") {
        out.pop();
    }
    out
}

/// Whether words are said in this order, and not taken back by a `not` just before.
fn is_said(words: &[String], wanted: &[String]) -> bool {
    words.windows(wanted.len().max(1)).enumerate().any(|(at, window)| {
        let before = words.get(at.saturating_sub(NEGATION)..at).unwrap_or_default();
        let sentence = before.rsplit(|word| word == ".").next().unwrap_or_default();
        window == wanted && !sentence.iter().any(|word| is_negation(word))
    })
}

/// Whether a word, in lower case, turns what follows into its opposite.
pub(super) fn is_negation(word: &str) -> bool {
    let is_listed = matches!(
        word,
        "not" | "never" | "no" | "without" | "avoid" | "nor" | "dont" | "cannot" | "stop" | "refuse" | "forbid" | "except" | "neither"
    );
    is_listed || word.ends_with("n't") || word.ends_with("n’t")
}

#[cfg(test)]
mod tests;
