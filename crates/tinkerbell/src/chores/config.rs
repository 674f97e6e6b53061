//! `config show | validate | schema | path`: the configuration in force, and where it comes from.
//!
//! Reading and layering are the configuration's own work; here it is only told. Invariant: values of
//! headers, and passwords in addresses, are never printed.

use super::Shop;
use super::repository;
use crate::config::{self, Config, Loaded, Origin};
use crate::project;
use crate::wire;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_cli::{Output, Tone, render_fault};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::Caps;
use tinkerbell_router::Router;
use tinkerbell_security::trust::Standing;

/// Longest wait for a running daemon, which knows what it uses.
const PATIENCE: Duration = Duration::from_secs(2);
/// What holds where nobody said anything; as TOML.
const BUILT_IN: [(&str, &str); 17] = [
    ("limits.budget", "\"5usd\""),
    ("limits.max_steps", "300"),
    ("limits.max_tokens", "20000000"),
    ("limits.max_wall_time", "\"4h\""),
    ("sandbox.disk", "\"20GiB\""),
    ("sandbox.level", "\"auto\""),
    ("sandbox.memory", "\"75%\""),
    ("sandbox.network", "\"none\""),
    ("sandbox.processes", "4096"),
    ("sandbox.workspace", "\"auto\""),
    ("scheduler.open", "1000000"),
    ("scheduler.per_host", "0"),
    ("scheduler.per_provider", "0"),
    ("scheduler.per_tenant", "1000000"),
    ("scheduler.per_workspace", "0"),
    ("scheduler.running", "8"),
    ("workspace.ignored", "\"skip\""),
];

/// Prints the values in force, as TOML with dotted keys or as JSON.
///
/// # Errors
/// The first mistake in a layer or in the project's file.
pub async fn show(shop: &Shop<'_>, origin: bool, json: bool, out: &Output) -> Result<u8, Fault> {
    print(shop, (origin, json), &pending(shop).await, out)
}

fn print(shop: &Shop<'_>, (origin, json): (bool, bool), pending: &BTreeSet<String>, out: &Output) -> Result<u8, Fault> {
    let loaded = config::load(shop.sources, shop.env)?;
    loaded.warnings.iter().for_each(|warning| out.talk(&format!("warning: {warning}")));
    let values = values(shop, &loaded)?;
    if json {
        let object: serde_json::Map<_, _> = values.iter().map(|(key, value)| (key.clone(), as_json(value, origin))).collect();
        out.data(&serde_json::Value::Object(object).to_string());
        return Ok(exit::DONE);
    }
    let width = values.iter().map(|(key, value)| key.len() + value.value.len() + 3).filter(|len| *len < 60).max().unwrap_or(0);
    for (key, value) in &values {
        let line = tinkerbell_cli::visible(&format!("{key} = {}", value.value));
        let waits = if pending.contains(key) { "  # counts after a restart of the daemon" } else { "" };
        if origin {
            let over = if value.over.is_empty() { String::new() } else { format!(" (over {})", value.over.join(", ")) };
            let place = out.on_data(Tone::Dim, &tinkerbell_cli::visible(&format!("# {}{over}", value.place)));
            out.data(&format!("{line:<width$}  {place}{waits}"));
        } else {
            out.data(&format!("{line}{waits}"));
        }
    }
    Ok(exit::DONE)
}

/// Keys whose values the running daemon does not use yet; none where no daemon answers.
async fn pending(shop: &Shop<'_>) -> BTreeSet<String> {
    let asked = async { Client::connect(shop.places.socket()).await?.daemon().await };
    let view = tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok);
    view.map(|view| view.pending.iter().map(|key| spelled(key)).collect()).unwrap_or_default()
}

fn as_json(value: &Origin, with_origin: bool) -> serde_json::Value {
    let plain = format!("v = {}", value.value).parse::<toml::Table>().ok().and_then(|table| serde_json::to_value(table.get("v")?).ok());
    let plain = plain.unwrap_or_else(|| json!(value.value));
    if with_origin { json!({"value": plain, "origin": value.place, "over": value.over}) } else { plain }
}

/// All values in force by key: the built-in ones, the layers', and the project's where it may rule.
fn values(shop: &Shop<'_>, loaded: &Loaded) -> Result<BTreeMap<String, Origin>, Fault> {
    let built_in = |value: &str| Origin { place: "built-in".to_owned(), value: value.to_owned(), over: Vec::new() };
    let mut values: BTreeMap<String, Origin> = BUILT_IN.iter().map(|(key, value)| ((*key).to_owned(), built_in(value))).collect();
    values.extend(loaded.origins.iter().map(|(key, origin)| (spelled(key), redacted(key, origin))));
    for (key, mine) in project_values(shop)? {
        match values.get_mut(&key) {
            Some(user) if !rules(&key, &mine.value, &user.value)? => {}
            Some(user) => {
                let over = [vec![user.place.clone()], std::mem::take(&mut user.over)].concat();
                *user = Origin { over, ..mine };
            }
            None => {
                values.insert(key, mine);
            }
        }
    }
    Ok(values)
}

/// `models."local/qwen".tools`: names with other signs than a bare key's are quoted.
fn spelled(path: &str) -> String {
    let is_bare = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let Some((section, rest)) = path.split_once('.').filter(|(section, _)| matches!(*section, "models" | "providers")) else {
        return path.to_owned();
    };
    let leaf = if section == "providers" { rest.find(".headers.").or_else(|| rest.rfind('.')) } else { rest.rfind('.') };
    match leaf.map(|at| rest.split_at(at)) {
        Some((name, leaf)) if !is_bare(name) => format!("{section}.\"{name}\"{leaf}"),
        _ => path.to_owned(),
    }
}

fn redacted(key: &str, origin: &Origin) -> Origin {
    let holds_values = |section: &str, table: &str| key.starts_with(section) && key.contains(table);
    let value = if holds_values("providers.", ".headers.") || holds_values("mcp_servers.", ".env.") {
        "\"(hidden)\"".to_owned()
    } else if key.starts_with("providers.") && key.ends_with(".base_url") {
        without_password(&origin.value)
    } else {
        origin.value.clone()
    };
    Origin { value, ..origin.clone() }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://(hidden)@{host}{path}"),
        None => url.to_owned(),
    }
}

/// The project's own values with their lines.
fn project_values(shop: &Shop<'_>) -> Result<Vec<(String, Origin)>, Fault> {
    let Some(root) = shop.cwd.map(|cwd| repository::root(cwd).unwrap_or_else(|| cwd.to_owned())) else { return Ok(Vec::new()) };
    let project::Brought { file, bundle } = project::read(&root)?;
    let Some(part) = file.part else { return Ok(Vec::new()) };
    let is_trusted = project::store(shop.places).standing(&root, &bundle)? == Standing::Trusted;
    let path = root.join(config::PROJECT_FILE);
    let text = String::from_utf8_lossy(&part.bytes);
    let Ok(document) = toml_edit::Document::parse(text.as_ref()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for key in config::options::PROJECT_KEYS {
        if key == "verify.command" && !is_trusted {
            continue;
        }
        let Some((table, leaf)) = key.split_once('.') else { continue };
        let Some(item) = document.get(table).and_then(|table| table.get(leaf)) else { continue };
        let line = text.get(..item.span().map_or(0, |span| span.start)).unwrap_or_default().matches('\n').count() + 1;
        let place = format!("{}:{line}", path.display());
        found.push((key.to_owned(), Origin { place, value: item.to_string().trim().to_owned(), over: Vec::new() }));
    }
    Ok(found)
}

/// Whether the project's value rules: its trusted check always does, its limits only where they are lower.
fn rules(key: &str, project: &str, user: &str) -> Result<bool, Fault> {
    let bare = |value: &str| value.trim_matches(['"', '\'']).to_owned();
    let lower = match key {
        "limits.budget" => config::lower_budget(Some(bare(user)), Some(bare(project)))?,
        "limits.max_wall_time" => config::lower_duration(Some(bare(user)), Some(bare(project)), None)?,
        "verify.command" => return Ok(true),
        _ => {
            let number = |value: &str| value.replace('_', "").parse::<u64>().unwrap_or(u64::MAX);
            return Ok(number(project) < number(user));
        }
    };
    Ok(lower.as_deref() == Some(bare(project).as_str()) && bare(project) != bare(user))
}

/// Checks all layers, the project's file, and that names in them mean something.
///
/// # Errors
/// The last mistake; those before it are printed.
pub fn validate(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    let mut faults = Vec::new();
    let root = shop.cwd.map(|cwd| repository::root(cwd).unwrap_or_else(|| cwd.to_owned()));
    let project = root.map(|root| config::read_project(&root)).transpose();
    let has_project = match project {
        Ok(file) => file.is_some_and(|file| file.part.is_some()),
        Err(fault) => {
            faults.push(fault);
            true
        }
    };
    match config::load(shop.sources, shop.env) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| out.talk(&format!("warning: {warning}")));
            faults.extend(meanings(shop, &loaded.config));
            let files = loaded.files.len() + usize::from(has_project);
            if faults.is_empty() {
                out.data(&format!("no mistakes in {files} files and {} values", loaded.origins.len()));
            }
        }
        Err(fault) => faults.push(fault),
    }
    let Some(last) = faults.pop() else { return Ok(exit::DONE) };
    faults.iter().for_each(|fault| out.error(&render_fault(fault, false)));
    Err(last)
}

/// Mistakes that no single line shows: limits that can not be read, models that no provider has.
pub fn meanings(shop: &Shop<'_>, config: &Config) -> Vec<Fault> {
    let limits = config::caps(config, &Caps::default(), true, "").err();
    let env = shop.env.clone();
    let lookup: tinkerbell_router::Environment = Arc::new(move |name| env.secret(name));
    let router = Router::new(wire::router_options(config, shop.places), lookup, Arc::new(crate::clock::SystemClock));
    let names = config.model.iter().chain(config.models.keys());
    let unknown = names.filter_map(|name| router.target(name).err()).map(|fault| Fault { exit: exit::CONFIG, ..fault });
    let secrets = crate::secrets::sources(config, shop.places).err();
    limits.into_iter().chain(secrets).chain(unknown).collect()
}

/// Prints the JSON Schema of the configuration file.
///
/// # Errors
/// None.
pub fn schema(out: &Output) -> Result<u8, Fault> {
    out.data(&format!("{:#}", schemars::schema_for!(Config).as_value()));
    Ok(exit::DONE)
}

/// Prints where files are looked for, lowest layer first.
///
/// # Errors
/// None.
pub fn path(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    let mut places: Vec<(&str, PathBuf)> = vec![
        ("system", shop.sources.system.join("config.toml")),
        ("system", shop.sources.system.join("conf.d/*.toml")),
        ("user", shop.sources.user.clone()),
    ];
    if let Some(cwd) = shop.cwd {
        let root = repository::root(cwd).unwrap_or_else(|| cwd.to_owned());
        places.push(("project", root.join(".tinkerbell/config.toml")));
    }
    for (layer, path) in places {
        let is_there = if path.ends_with("*.toml") { path.parent().is_some_and(std::path::Path::is_dir) } else { path.is_file() };
        let state = if is_there { "" } else { "  (not there)" };
        out.data(&tinkerbell_cli::visible(&format!("{layer:<8} {}{state}", path.display())));
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests;
