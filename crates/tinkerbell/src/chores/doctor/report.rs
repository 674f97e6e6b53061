//! The report: findings in groups, as lines or as JSON.
//!
//! Plain values. Invariant: a finding that is not good carries one line that says how to repair it;
//! there is no way to make one without.

use serde_json::{Value, json};
use std::path::Path;
use tinkerbell_cli::{Tone, visible};
use tinkerbell_core::code::exit;

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
}

impl Finding {
    /// In order.
    pub fn good(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { mark: Mark::Good, name: name.into(), text: text.into(), fix: None, details: Vec::new() }
    }

    /// Works, but somebody should look.
    pub fn look(name: impl Into<String>, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Look, fix: Some(fix.into()), ..Self::good(name, text) }
    }

    /// Broken.
    pub fn bad(name: impl Into<String>, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, fix: Some(fix.into()), ..Self::good(name, text) }
    }

    /// Adds lines of detail.
    #[must_use]
    pub fn with(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
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
    /// Colours a text, where colours are wanted.
    pub paint: &'a dyn Fn(Tone, &str) -> String,
}

impl Style<'_> {
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
            for finding in &group.findings {
                lines.push(format!("  {} {:<width$}  {}", style.sign(finding.mark), finding.name, visible(&finding.text).replace('\n', " ")));
                let deeper = " ".repeat(width + 6);
                lines.extend(finding.details.iter().map(|line| (style.paint)(Tone::Dim, &format!("{deeper}{}", visible(line)))));
                lines.extend(finding.fix.iter().map(|fix| format!("{deeper}fix: {}", visible(fix).replace('\n', " "))));
            }
        }
        let total = |mark| format!("{} {}", self.count(mark), style.sign(mark));
        lines.push(format!("{}   {}   {}", total(Mark::Good), total(Mark::Look), total(Mark::Bad)));
        lines
    }

    /// The report as JSON.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let word = |mark| match mark {
            Mark::Good => "ok",
            Mark::Look => "warning",
            Mark::Bad => "error",
        };
        let finding = |finding: &Finding| {
            json!({"status": word(finding.mark), "name": finding.name, "text": finding.text, "fix": finding.fix, "details": finding.details})
        };
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| json!({"name": group.name, "findings": group.findings.iter().map(finding).collect::<Vec<_>>()}))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "ok": self.exit() == exit::DONE,
            "counts": {"ok": self.count(Mark::Good), "warning": self.count(Mark::Look), "error": self.count(Mark::Bad)}, "groups": groups,
        })
    }

    /// The report without the values of secrets, and with `~` for the home.
    #[must_use]
    pub fn redacted(mut self, secrets: &[(String, String)], home: Option<&Path>) -> Self {
        let home = home.and_then(Path::to_str).filter(|home| home.len() > 1).map(|home| format!("{}/", home.trim_end_matches('/')));
        let clean = |text: &mut String| {
            for (name, value) in secrets.iter().filter(|(_, value)| value.len() >= 4) {
                *text = text.replace(value.as_str(), &format!("({name})"));
            }
            if let Some(home) = &home {
                *text = text.replace(home.as_str(), "~/");
            }
        };
        for finding in self.groups.iter_mut().flat_map(|group| &mut group.findings) {
            clean(&mut finding.name);
            clean(&mut finding.text);
            finding.fix.iter_mut().for_each(clean);
            finding.details.iter_mut().for_each(clean);
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
