//! MCP servers: how each is configured, and what was agreed to.
//!
//! Starts none. Invariant: no value of a variable is told.

use super::super::{Shop, repository};
use super::report::{Finding, Group, broken};
use crate::config::Config;
use crate::mcp;
use tinkerbell_plugins::Approvals;

/// Looks at the configured servers and at those of the repository.
pub fn look(shop: &Shop<'_>, config: &Config) -> Group {
    let approvals = Approvals::new(shop.places.data.join("mcp"));
    let mut findings = Vec::new();
    for server in mcp::servers(config, None) {
        let name = server.name.clone();
        if let Some(why) = server.fault {
            findings.push(Finding::bad(name, why, "tinkerbell config show --origin   names the file and line"));
            continue;
        }
        let rights: Vec<&str> = [(server.writes, "writes the worktree"), (server.network == Some(true), "the host's network")]
            .into_iter()
            .filter_map(|(has, right)| has.then_some(right))
            .collect();
        let rights = if rights.is_empty() { String::new() } else { format!("; may: {}", rights.join(", ")) };
        let fix = format!("tinkerbell mcp approve {name}");
        findings.push(match approvals.of(&name) {
            Err(error) => broken(&name, &error.into()),
            Ok(known) => match (known.launch, known.tools) {
                (Some(_), Some(tools)) => Finding::good(name, format!("agreed to, {} tools{rights}", tools.tools.len())),
                (Some(_), None) => Finding::look(name, format!("its tools are not agreed to yet{rights}"), fix),
                (None, _) => Finding::look(name, format!("not agreed to yet{rights}"), fix),
            },
        });
    }
    if findings.is_empty() {
        findings.push(Finding::good("servers", "none configured"));
    }
    let project = shop.cwd.and_then(repository::root).map(|root| mcp::of_project(&root)).unwrap_or_default();
    for (path, name) in project {
        findings.push(Finding::good(name, format!("not trusted, not started: {}", path.display())));
    }
    Group { name: "MCP", findings }
}
