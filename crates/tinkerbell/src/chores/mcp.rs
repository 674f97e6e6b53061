//! `mcp add | list | get | remove | tools | approve`: the servers of your configuration.
//!
//! Edits the user's own file and keeps its comments; a server is only ever started in its sandbox.
//! Invariant: what a server says is shown with every hidden sign written out.

use super::{Shop, repository};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config};
use crate::environment::Received;
use crate::secrets::Secrets;
use crate::{mcp, wire};
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_cli::{McpAdd, Output, visible};
use tinkerbell_core::clock::Entropy as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Attempt, Fence};
use tinkerbell_core::port::Sandbox;
use tinkerbell_core::tool::{Sink, ToolContext};
use tinkerbell_core::words::{TaskId, Workspace};
use tinkerbell_executor::HostSandbox;
use tinkerbell_plugins::options::McpServer;
use tinkerbell_plugins::{Approvals, Desks, Inspected, Server};
use tinkerbell_secret::{Known, Lookup};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

fn loaded(shop: &Shop<'_>) -> Result<Config, Fault> {
    Ok(config::load(shop.sources, shop.env)?.config)
}

fn unknown(name: &str, config: &Config) -> Fault {
    let known: Vec<&str> = config.mcp_servers.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {}", known.join(", ")) };
    Fault::new("TB-MCP-001", exit::USAGE, format!("there is no MCP server `{}`; {}", visible(name), visible(&known)))
        .hint("tinkerbell mcp add NAME -- PROGRAM ARGUMENTS")
}

fn approvals(shop: &Shop<'_>) -> Approvals {
    Approvals::new(shop.places.data.join("mcp"))
}

/// Adds a server to the user's file, or replaces it. Who types its command agrees to its program.
///
/// # Errors
/// `TB-MCP-002` for what can not be a server, and what is wrong with the file.
pub async fn add(shop: &Shop<'_>, wish: &McpAdd, out: &Output) -> Result<u8, Fault> {
    let path = &shop.sources.user;
    let mut document = read(path)?;
    let servers = document.entry("mcp_servers").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let bad = |why: String| Fault::new("TB-MCP-002", exit::CONFIG, why).hint("tinkerbell mcp add NAME -- PROGRAM ARGUMENTS");
    if let Some(why) = Server::refuse_name(&wish.name) {
        return Err(bad(why));
    }
    let Some(table) = servers.as_table_like_mut() else { return Err(bad("`mcp_servers` of your file is no table".to_owned())) };
    let was_there = table.contains_key(&wish.name);
    table.insert(&wish.name, Item::Table(written(wish)));
    let text = document.to_string();
    // Read as it will be read, before it is in place.
    let server: Config = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
    let server = server.mcp_servers.get(&wish.name).map(|server| mcp::server_of(&wish.name, server, None));
    let Some(server) = server else { return Err(bad("the entry could not be read back".to_owned())) };
    if let Some(why) = &server.fault {
        return Err(bad(why.clone()));
    }
    write(path, &text)?;
    out.talk(&visible(&format!("{} {} in {}", if was_there { "replaced" } else { "added" }, wish.name, path.display())));
    let looker = Looker::new(shop)?;
    match looker.desks.agree_to_launch(&looker.context, &server).await {
        Ok(()) => out.talk(&format!("next     tinkerbell mcp approve {}   starts it in its sandbox and shows what it says", wish.name)),
        Err(error) => out.talk(&visible(&format!("but      {error}"))),
    }
    Ok(exit::DONE)
}

fn written(wish: &McpAdd) -> Table {
    let list = |items: &[String]| Item::Value(Value::Array(items.iter().collect::<Array>()));
    let mut table = Table::new();
    table.insert("command", list(&wish.command));
    if !wish.env.is_empty() {
        let mut env = InlineTable::new();
        wish.env.iter().for_each(|(name, value)| drop(env.insert(name, value.as_str().into())));
        table.insert("env", Item::Value(Value::InlineTable(env)));
    }
    if let Some(network) = &wish.network {
        table.insert("network", toml_edit::value(network.as_str()));
    }
    if wish.no_reads {
        table.insert("reads", toml_edit::value(false));
    }
    if wish.writes {
        table.insert("writes", toml_edit::value(true));
    }
    for (key, items) in [("read", &wish.read), ("tools", &wish.tools), ("read_only", &wish.read_only)] {
        if !items.is_empty() {
            table.insert(key, list(items));
        }
    }
    if let Some(timeout) = &wish.timeout {
        table.insert("timeout", toml_edit::value(timeout.as_str()));
    }
    table
}

/// Removes a server from the user's file, and what was agreed to about it.
///
/// # Errors
/// `TB-MCP-001` when the file has no such server.
pub fn remove(shop: &Shop<'_>, name: &str, out: &Output) -> Result<u8, Fault> {
    let path = &shop.sources.user;
    let mut document = read(path)?;
    let removed = document.get_mut("mcp_servers").and_then(Item::as_table_like_mut).and_then(|table| table.remove(name));
    if removed.is_none() {
        return Err(unknown(name, &loaded(shop)?));
    }
    write(path, &document.to_string())?;
    approvals(shop).forget(name)?;
    out.talk(&visible(&format!("removed {name}; nothing about it is agreed to any more")));
    Ok(exit::DONE)
}

fn read(path: &std::path::Path) -> Result<DocumentMut, Fault> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|error| unusable(path, &error.to_string()))?,
    };
    text.parse().map_err(|error: toml_edit::TomlError| unusable(path, error.message()))
}

fn unusable(path: &std::path::Path, why: &str) -> Fault {
    Fault::new("TB-CONFIG-001", exit::CONFIG, format!("{} can not be used: {why}", path.display())).hint("tinkerbell config validate")
}

/// The file is replaced whole, and stays as private as it was; it may hold values of variables.
fn write(path: &std::path::Path, text: &str) -> Result<(), Fault> {
    let write = || -> std::io::Result<()> {
        // A link to a file elsewhere stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let new = path.with_extension("toml.new");
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(new, path)
    };
    write().map_err(|error| unusable(path, &error.to_string()))
}

/// Lists the servers, those of the repository included, which are never started.
///
/// # Errors
/// A mistake in the configuration.
pub fn list(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let config = loaded(shop)?;
    let root = shop.cwd.and_then(repository::root);
    let project = root.as_deref().map(mcp::of_project).unwrap_or_default();
    let approvals = approvals(shop);
    let mut rows = Vec::new();
    for (name, server) in &config.mcp_servers {
        let state = state(&approvals, name, server)?;
        if json {
            rows.push(json!({"name": name, "command": server.command, "origin": "user", "state": state}));
        } else {
            out.data(&visible(&format!("{name:<16} {state:<28} {}", server.command.join(" "))));
        }
    }
    for (path, name) in &project {
        if json {
            rows.push(json!({"name": name, "origin": path.display().to_string(), "state": "not trusted, not started"}));
        } else {
            out.data(&visible(&format!("{name:<16} {:<28} {}", "not trusted, not started", path.display())));
        }
    }
    if json {
        out.data(&json!({ "servers": rows }).to_string());
    } else if config.mcp_servers.is_empty() && project.is_empty() {
        out.talk("no MCP server is configured: tinkerbell mcp add NAME -- PROGRAM ARGUMENTS");
    }
    Ok(exit::DONE)
}

fn state(approvals: &Approvals, name: &str, server: &McpServer) -> Result<String, Fault> {
    if !server.enabled.unwrap_or(true) {
        return Ok("off".to_owned());
    }
    if let Some(why) = mcp::server_of(name, server, None).fault {
        return Ok(why);
    }
    let known = approvals.of(name)?;
    Ok(match (known.launch, known.tools) {
        (Some(_), Some(tools)) => format!("agreed to, {} tools", tools.tools.len()),
        (Some(_), None) => "program agreed to".to_owned(),
        (None, _) => "not agreed to yet".to_owned(),
    })
}

/// Shows one server: its configuration, without values of variables, and what was agreed to.
///
/// # Errors
/// `TB-MCP-001` when there is none.
pub fn get(shop: &Shop<'_>, name: &str, json: bool, out: &Output) -> Result<u8, Fault> {
    let config = loaded(shop)?;
    let server = config.mcp_servers.get(name).ok_or_else(|| unknown(name, &config))?;
    let known = approvals(shop).of(name)?;
    let state = state(&approvals(shop), name, server)?;
    if json {
        let tools: Vec<&String> = known.tools.iter().flat_map(|pin| pin.tools.keys()).collect();
        let network = format!("{:?}", server.network).to_lowercase();
        out.data(
            &json!({"name": name, "command": server.command, "env": server.env.keys().collect::<Vec<_>>(), "network": network,
                "reads": server.reads.unwrap_or(true), "writes": server.writes, "read": server.read, "tools": server.tools,
                "read_only": server.read_only, "timeout": server.timeout, "enabled": server.enabled.unwrap_or(true), "state": state,
                "agreed": {"launch": known.launch.map(|pin| pin.digest), "descriptions": known.tools.as_ref().map(|pin| &pin.digest), "tools": tools}})
            .to_string(),
        );
        return Ok(exit::DONE);
    }
    let line = |name: &str, value: String| out.data(&visible(&format!("{name:<10} {value}")));
    line("server", name.to_owned());
    line("state", state);
    line("command", server.command.join(" "));
    server.env.keys().for_each(|name| line("variable", name.clone()));
    line("network", format!("{:?}", server.network).to_lowercase());
    line(
        "worktree",
        if server.writes {
            "read and written"
        } else if server.reads.unwrap_or(true) {
            "read"
        } else {
            "not seen"
        }
        .to_owned(),
    );
    server.read.iter().for_each(|path| line("reads", path.display().to_string()));
    server.tools.iter().for_each(|tools| line("tools", tools.join(", ")));
    line("read-only", if server.read_only.is_empty() { "none".to_owned() } else { server.read_only.join(", ") });
    if let Some(pin) = known.launch {
        out.data(&visible(&format!("agreed to start:\n{}", pin.text.trim_end())));
    }
    Ok(exit::DONE)
}

/// Starts a server in its sandbox, shows what it offers, and ends it.
///
/// # Errors
/// `TB-MCP-001` to `003`.
pub async fn tools(shop: &Shop<'_>, name: &str, json: bool, out: &Output) -> Result<u8, Fault> {
    let looker = Looker::new(shop)?;
    let seen = looker.look(name).await?.1;
    if json {
        let tools: serde_json::Map<String, serde_json::Value> = seen.tools.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        out.data(
            &json!({"server": name, "agreed": seen.is_agreed && seen.is_launch_agreed, "tools": tools, "notes": seen.notes}).to_string(),
        );
        return Ok(exit::DONE);
    }
    for (tool, text) in &seen.tools {
        out.data(&visible(&format!("{name}.{tool}")));
        text.lines().for_each(|line| out.data(&visible(&format!("  {line}"))));
    }
    seen.notes.iter().for_each(|note| out.talk(&visible(note)));
    let is_agreed = seen.is_agreed && seen.is_launch_agreed;
    out.talk(if is_agreed { "agreed to as it is" } else { "not agreed to as it is now: tinkerbell mcp approve NAME" });
    Ok(exit::DONE)
}

/// Shows what a server is and says, and remembers that you agree to it.
///
/// # Errors
/// `TB-MCP-001` to `004`; exit 4 where nobody can be asked.
pub async fn approve(shop: &Shop<'_>, name: &str, yes: bool, out: &Output) -> Result<u8, Fault> {
    let looker = Looker::new(shop)?;
    let (server, seen) = looker.look(name).await?;
    if seen.is_agreed && seen.is_launch_agreed {
        out.talk("agreed to already, as it is");
        return Ok(exit::DONE);
    }
    let mut shown = vec![seen.launch.trim_end()];
    if !seen.is_agreed {
        shown.extend([seen.question.0.as_str(), seen.question.1.trim_end()]);
    }
    shown.iter().flat_map(|text| text.lines()).for_each(|line| out.data(&visible(line)));
    let answer = if yes { Some(true) } else { out.confirm("Agree to this program and these descriptions", false) };
    match answer {
        Some(true) => {
            looker.desks.agree(&server, &seen)?;
            out.talk("agreed; it is asked for again when anything of this changes");
            Ok(exit::DONE)
        }
        Some(false) => Ok(exit::FAILED),
        None => Err(Fault::new("TB-MCP-002", exit::NEEDS_PERSON, "nobody can be asked here; nothing was agreed to")
            .hint(format!("read it above, then: tinkerbell mcp approve --yes {name}"))),
    }
}

/// A place from which a server can be looked at outside of a task.
struct Looker {
    desks: Arc<Desks>,
    context: ToolContext,
    tree: PathBuf,
    config: Config,
    lookup: Lookup,
}

impl Looker {
    fn new(shop: &Shop<'_>) -> Result<Self, Fault> {
        let config = loaded(shop)?;
        shop.places.make(rustix::process::getuid().as_raw())?;
        let clock = Arc::new(SystemClock);
        let known = Known::new();
        let secrets = Secrets::new(known.clone(), Arc::new(Received::new(shop.env.clone())));
        secrets.refresh(&config, shop.places)?;
        let sandbox: Arc<dyn Sandbox> =
            HostSandbox::new(wire::sandbox_options(&config, shop.places, shop.env, known.clone()), clock.clone(), Arc::new(SystemEntropy));
        let all = config.clone();
        let desks = mcp::desks(sandbox, clock, shop.places, Arc::new(move || mcp::servers(&all, None)));
        let task = TaskId(SystemEntropy.id());
        let tree = shop.places.cache.join(format!("mcp-{task}"));
        std::fs::create_dir_all(&tree).map_err(|error| unusable(&tree, &error.to_string()))?;
        let none = tree.join(".git");
        let base = "0".repeat(40).parse().map_err(|_| Fault::new("TB-BUG-001", exit::INTERNAL, "no object id"))?;
        let workspace = Workspace {
            task,
            repo: tree.clone(),
            tree: tree.clone(),
            git_dir: none.clone(),
            common_dir: none,
            branch: String::new(),
            base,
        };
        let path = shop.env.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin").to_owned();
        let context = ToolContext {
            task,
            seq: 1,
            workspace,
            fence: Fence::default(),
            attempt: Attempt::First,
            max_output_tokens: 10_000,
            env: vec![("PATH".to_owned(), path)],
            live: Sink::default(),
            limits: tinkerbell_core::port::Limits::default(),
            approved: None,
        };
        Ok(Self { desks, context, tree, config, lookup: secrets.lookup() })
    }

    /// Looks at a server in an empty worktree of its own.
    async fn look(&self, name: &str) -> Result<(Server, Inspected), Fault> {
        let server = self.config.mcp_servers.get(name).ok_or_else(|| unknown(name, &self.config))?;
        let server = mcp::server_of(name, server, Some(&self.lookup));
        if let Some(why) = server.fault {
            return Err(Fault::new("TB-MCP-002", exit::CONFIG, why).hint("tinkerbell mcp get NAME"));
        }
        let seen = self.desks.inspect(&self.context, &server).await?;
        Ok((server, seen))
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        // An empty directory that stays in the cache harms nobody.
        drop(std::fs::remove_dir_all(&self.tree));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;

    fn wish(name: &str, command: &[&str]) -> McpAdd {
        McpAdd { name: name.to_owned(), command: command.iter().map(|word| (*word).to_owned()).collect(), ..McpAdd::default() }
    }

    #[tokio::test]
    async fn servers_are_added_listed_shown_and_removed_and_comments_stay() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("home/config.toml", "# mine\nmodel = \"a/b\" # this one\n");
        let more = McpAdd {
            env: vec![("TOKEN".into(), "abcdefgh".into())],
            writes: true,
            read_only: vec!["read".into()],
            ..wish("files", &["/bin/sh", "-c", "x"])
        };
        assert_eq!(add(&bench.shop(), &more, &heard.out).await, Ok(exit::DONE));
        let text = std::fs::read_to_string(&bench.places.config).unwrap();
        assert!(text.starts_with("# mine\nmodel = \"a/b\" # this one\n"), "{text}");
        assert!(text.contains("[mcp_servers.files]\ncommand = [\"/bin/sh\", \"-c\", \"x\"]"), "{text}");
        assert_eq!(list(&bench.shop(), false, &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains("files            program agreed to"), "{}", heard.data());
        let heard = Heard::new();
        assert_eq!(get(&bench.shop(), "files", false, &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains("variable   TOKEN") && !heard.data().contains("abcdefgh"), "{}", heard.data());
        for name in ["a.b", "", "ä"] {
            assert_eq!(add(&bench.shop(), &wish(name, &["x"]), &heard.out).await.unwrap_err().code.0, "TB-MCP-002", "{name}");
        }
        assert_eq!(remove(&bench.shop(), "files", &heard.out), Ok(exit::DONE));
        assert_eq!(remove(&bench.shop(), "files", &heard.out).unwrap_err().code.0, "TB-MCP-001");
        assert_eq!(std::fs::read_to_string(&bench.places.config).unwrap().trim_end(), "# mine\nmodel = \"a/b\" # this one");
    }

    #[test]
    fn servers_of_a_repository_are_listed_as_not_trusted() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("work/.git/HEAD", "ref: refs/heads/main\n");
        bench.write("work/.mcp.json", r#"{"mcpServers":{"evil":{"command":"sh"}}}"#);
        assert_eq!(list(&bench.shop(), false, &heard.out), Ok(exit::DONE));
        assert!(bench.plain(&heard.data()).contains("evil             not trusted, not started     /t/work/.mcp.json"), "{}", heard.data());
        assert_eq!(get(&bench.shop(), "evil", false, &heard.out).unwrap_err().code.0, "TB-MCP-001");
    }
}
