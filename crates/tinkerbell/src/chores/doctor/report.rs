//! The report: findings in groups, as lines or as JSON.
//!
//! Plain values. Invariant: a finding that is not good carries one line that says how to repair it;
//! there is no way to make one without.

use serde_json::{Value, json};
use std::path::Path;
use tinkerbell_cli::{Tone, visible};
use tinkerbell_core::code::exit;
use tinkerbell_secret::{Named, Redactor};

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// In order.
    Good,
    /// Works, but a person should look.
    Look,
    /// Broken.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    mark: Mark,
    name: String,
    text: String,
    fix: Option<String>,
    details: Vec<String>,
    more: Vec<String>,
}

impl Finding {
    /// In order.
    pub fn good(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { mark: Mark::Good, name: name.into(), text: text.into(), fix: None, details: Vec::new(), more: Vec::new() }
    }

    /// Works, but somebody should look.
    pub fn look(name: impl Into<String>, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Look, fix: Some(fix.into()), ..Self::good(name, text) }
    }

    /// Broken.
    pub fn bad(name: impl Into<String>, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, fix: Some(fix.into()), ..Self::good(name, text) }
    }

    /// What a person should look at becomes broken: all depends on it here.
    #[must_use]
    pub fn worse(mut self) -> Self {
        if self.mark == Mark::Look {
            self.mark = Mark::Bad;
        }
        self
    }

    /// Adds lines of detail.
    #[must_use]
    pub fn with(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// Adds lines for those who want to see all.
    #[must_use]
    pub fn with_more(mut self, more: Vec<String>) -> Self {
        self.more = more;
        self
    }
}

impl Finding {
    fn lines(&self, width: usize, style: &Style<'_>) -> Vec<String> {
        let deeper = " ".repeat(width + 6);
        let mut lines = vec![format!("  {} {:<width$}  {}", style.sign(self.mark), self.name, style.plain(&self.text))];
        let hidden = (!style.is_verbose && !self.more.is_empty()).then(|| format!("({} lines more with -v)", self.more.len()));
        let more = self.more.iter().filter(|_| style.is_verbose);
        let details = self.details.iter().chain(more).chain(&hidden);
        lines.extend(details.map(|line| format!("{deeper}{}", (style.paint)(Tone::Dim, &style.plain(line)))));
        lines.extend(self.fix.iter().map(|fix| format!("{deeper}fix: {}", style.plain(fix))));
        lines
    }

    fn as_json(&self) -> Value {
        let status = match self.mark {
            Mark::Good => "ok",
            Mark::Look => "warning",
            Mark::Bad => "error",
        };
        let details: Vec<&String> = self.details.iter().chain(&self.more).collect();
        json!({"status": status, "name": self.name, "text": self.text, "fix": self.fix, "details": details})
    }
}

/// Findings of one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The area.
    pub name: &'static str,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// By area, in order.
    pub groups: Vec<Group>,
}

/// How lines are drawn.
pub struct Style<'a> {
    /// Whether signs must be ASCII.
    pub is_ascii: bool,
    /// Whether all details are wanted.
    pub is_verbose: bool,
    /// Colours a text, where colours are wanted.
    pub paint: &'a dyn Fn(Tone, &str) -> String,
}

impl Style<'_> {
    /// Safe for a terminal, and in its letters as far as they are ours.
    fn plain(&self, text: &str) -> String {
        let text = visible(text).replace('\n', " ");
        if self.is_ascii { text.replace('…', "...").replace('·', "-") } else { text }
    }

    fn sign(&self, mark: Mark) -> String {
        let (tone, sign, ascii) = match mark {
            Mark::Good => (Tone::Good, "✓", "+"),
            Mark::Look => (Tone::Look, "⚠", "!"),
            Mark::Bad => (Tone::Bad, "✗", "x"),
        };
        (self.paint)(tone, if self.is_ascii { ascii } else { sign })
    }
}

impl Report {
    fn count(&self, mark: Mark) -> usize {
        self.groups.iter().flat_map(|group| &group.findings).filter(|finding| finding.mark == mark).count()
    }

    /// 1 when something is broken, else 0.
    #[must_use]
    pub fn exit(&self) -> u8 {
        if self.count(Mark::Bad) > 0 { exit::FAILED } else { exit::DONE }
    }

    /// The report as lines.
    #[must_use]
    pub fn lines(&self, style: &Style<'_>) -> Vec<String> {
        let width = self.groups.iter().flat_map(|group| &group.findings).map(|finding| finding.name.chars().count()).max().unwrap_or(0);
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push((style.paint)(Tone::Strong, group.name));
            group.findings.iter().for_each(|finding| lines.extend(finding.lines(width, style)));
        }
        let total = |mark| format!("{} {}", self.count(mark), style.sign(mark));
        lines.push(format!("{}   {}   {}", total(Mark::Good), total(Mark::Look), total(Mark::Bad)));
        lines
    }

    /// The report as JSON.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| json!({"name": group.name, "findings": group.findings.iter().map(Finding::as_json).collect::<Vec<_>>()}))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "ok": self.exit() == exit::DONE,
            "counts": {"ok": self.count(Mark::Good), "warning": self.count(Mark::Look), "error": self.count(Mark::Bad)}, "groups": groups,
        })
    }

    /// The report without the values of secrets, and with `~` for the home.
    #[must_use]
    pub fn redacted(mut self, secrets: &[Named], home: Option<&Path>) -> Self {
        let home = home.and_then(Path::to_str).filter(|home| home.len() > 1).map(|home| format!("{}/", home.trim_end_matches('/')));
        // In all forms; then plainly those that are too short to be looked for elsewhere.
        let redactor = Redactor::new(secrets);
        let clean = |text: &mut String| {
            *text = redactor.redact(text).into_owned();
            for (name, value) in secrets.iter().filter(|(_, value)| value.expose().len() >= 4) {
                *text = text.replace(value.expose().as_str(), &format!("({name})"));
            }
            if let Some(home) = &home {
                *text = text.replace(home.as_str(), "~/");
            }
        };
        for finding in self.groups.iter_mut().flat_map(|group| &mut group.findings) {
            clean(&mut finding.name);
            clean(&mut finding.text);
            finding.fix.iter_mut().for_each(clean);
            finding.details.iter_mut().chain(&mut finding.more).for_each(clean);
        }
        self
    }
}

/// A fault as a broken finding: its first line, and its first hint as the repair.
pub fn broken(name: impl Into<String>, fault: &tinkerbell_core::code::Fault) -> Finding {
    // Further lines quote the file, which may hold what nobody should see.
    let text = fault.message.lines().next().unwrap_or_default();
    let hint = fault.hints.iter().flat_map(|hint| hint.lines()).map(str::trim).find(|line| !line.is_empty() && !line.ends_with(':'));
    let fix = hint.map_or_else(|| format!("tinkerbell explain {}", fault.code), str::to_owned);
    Finding::bad(name, format!("{text} [{}]", fault.code), fix)
}
