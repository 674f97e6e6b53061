//! Reading and layering: files in, one configuration with origins out.
//!
//! Each layer is checked on its own, so that a mistake is shown where it was made. Invariant:
//! layers are merged key by key; a later layer replaces values, never whole tables.

use super::keys::{is_known, is_table, meaning, meant};
use super::options::Config;
use crate::environment::Environment;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_security::owner;
use toml_edit::{Document, Item, TableLike};

/// Where layers are read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Directory of the system's files.
    pub system: PathBuf,
    /// The user's file.
    pub user: PathBuf,
    /// `--set key=value`, in order.
    pub set: Vec<String>,
    /// Whether unknown keys are only warned of.
    pub lenient: bool,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File and line, variable, or option.
    pub place: String,
    /// The value as TOML.
    pub value: String,
    /// Places of lower layers that it replaced.
    pub over: Vec<String>,
}

/// One layer: a text with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The file, variable or option.
    pub name: String,
    /// Its text as TOML.
    pub text: String,
    /// Whether lines of the text mean anything to a reader.
    pub is_file: bool,
}

/// The configuration in force.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each came from, by dotted path.
    pub origins: BTreeMap<String, Origin>,
    /// Unknown keys that were let pass.
    pub warnings: Vec<String>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads all layers.
///
/// # Errors
/// `TB-CONFIG-001` to `003`: an unreadable file, a mistake in one, or a bad `--set`; `TB-CONFIG-007` for a
/// file that others could have written; `TB-EGRESS-002` and `003` for hosts that
/// are not understood, or missing.
pub fn load(sources: &Sources, env: &Environment) -> Result<Loaded, Fault> {
    let mut layers = Vec::new();
    let mut files = Vec::new();
    for path in paths(sources) {
        if let Some(text) = read(&path)? {
            layers.push(Layer { name: path.display().to_string(), text, is_file: true });
            files.push(path);
        }
    }
    layers.extend(variables(env));
    for set in &sources.set {
        layers.push(option(set)?);
    }
    let mut loaded = merge(&layers, sources.lenient)?;
    loaded.files = files;
    crate::egress::check(&loaded.config)?;
    Ok(loaded)
}

fn paths(sources: &Sources) -> Vec<PathBuf> {
    let mut found = vec![sources.system.join("config.toml")];
    let mut parts: Vec<PathBuf> = std::fs::read_dir(sources.system.join("conf.d"))
        .map(|dir| dir.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect())
        .unwrap_or_default();
    parts.sort();
    found.extend(parts);
    found.push(sources.user.clone());
    found
}

fn read(path: &Path) -> Result<Option<String>, Fault> {
    let failed = |error: std::io::Error| {
        Fault::new("TB-CONFIG-001", exit::CONFIG, format!("{} can not be read: {error}", path.display()))
            .hint("make it readable, or move it away")
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    whose(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Refuses a file that somebody else could have written: it says where models are and which sandbox there is.
fn whose(path: &Path, meta: &Metadata) -> Result<(), Fault> {
    let owners = [0, rustix::process::getuid().as_raw()];
    let dir = path.parent().unwrap_or(Path::new("/"));
    let above = || owner::shared_beyond_own_group(&dir.metadata().ok()?, &owners).or_else(|| owner::shared_above(dir, &owners));
    let Some(why) = owner::shared_beyond_own_group(meta, &owners).or_else(above) else { return Ok(()) };
    Err(Fault::new("TB-CONFIG-007", exit::CONFIG, format!("{} can not be trusted as configuration: {why}", path.display()))
        .hint(format!("ls -ld {} {}", dir.display(), path.display()))
        .hint(format!("if it is yours: chmod go-w {} {}", dir.display(), path.display())))
}

/// `TINKERBELL_SANDBOX__LEVEL=full` is `sandbox.level = "full"`.
fn variables(env: &Environment) -> Vec<Layer> {
    env.iter()
        .filter_map(|(name, value)| {
            let path = name.strip_prefix("TINKERBELL_").filter(|rest| rest.contains("__"))?.to_ascii_lowercase().replace("__", ".");
            Some(Layer { name: name.to_owned(), text: assign(&path, value), is_file: false })
        })
        .collect()
}

fn option(set: &str) -> Result<Layer, Fault> {
    let (path, value) = set.split_once('=').ok_or_else(|| {
        Fault::new("TB-CONFIG-003", exit::USAGE, format!("`--set {set}` has no value")).hint("write it like: --set sandbox.level=landlock")
    })?;
    Ok(Layer { name: format!("--set {path}"), text: assign(path.trim(), value.trim()), is_file: false })
}

/// A dotted path and a value as TOML; what is no TOML value is a string.
fn assign(path: &str, value: &str) -> String {
    let literal = format!("v = {value}");
    if literal.parse::<toml_edit::DocumentMut>().is_ok() {
        return format!("{path} = {value}");
    }
    format!("{path} = {}", toml_edit::Value::from(value))
}

/// Merges layers, lowest first.
pub(super) fn merge(layers: &[Layer], lenient: bool) -> Result<Loaded, Fault> {
    let mut loaded = Loaded::default();
    let mut merged = toml::Table::new();
    for layer in layers {
        let leaves = check(layer, lenient, &mut loaded.warnings)?;
        // Types are checked per layer, where the mistake still has a line.
        toml::from_str::<Config>(&layer.text).map_err(|error| mistake(layer, error.span(), error.message(), None))?;
        let table: toml::Table = toml::from_str(&layer.text).map_err(|error| mistake(layer, error.span(), error.message(), None))?;
        overlay(&mut merged, table);
        for (path, place, value) in leaves {
            let over = loaded.origins.remove(&path).map(|old| [vec![old.place], old.over].concat()).unwrap_or_default();
            loaded.origins.insert(path, Origin { place, value, over });
        }
    }
    loaded.config = merged.try_into().map_err(|error: toml::de::Error| {
        Fault::new("TB-CONFIG-002", exit::CONFIG, format!("the layers contradict each other: {}", error.message()))
    })?;
    Ok(loaded)
}

fn overlay(low: &mut toml::Table, high: toml::Table) {
    for (key, value) in high {
        match (low.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                low.insert(key, value);
            }
        }
    }
}

type Leaf = (String, String, String);

/// Checks the names in one layer; gives its values with their places.
pub(super) fn check(layer: &Layer, lenient: bool, warnings: &mut Vec<String>) -> Result<Vec<Leaf>, Fault> {
    let document = Document::parse(layer.text.clone()).map_err(|error| mistake(layer, error.span(), error.message(), None))?;
    let mut walk = Walk { layer, lenient, warnings, leaves: Vec::new() };
    walk.table(document.as_table(), &[])?;
    Ok(walk.leaves)
}

struct Walk<'a> {
    layer: &'a Layer,
    lenient: bool,
    warnings: &'a mut Vec<String>,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    fn table(&mut self, table: &dyn TableLike, above: &[String]) -> Result<(), Fault> {
        for (name, item) in table.iter() {
            let path = [above, &[name.to_owned()]].concat();
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            self.item(item, &path, span)?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item, path: &[String], span: Option<Range<usize>>) -> Result<(), Fault> {
        if let Some(table) = item.as_table_like().filter(|_| is_table(path)) {
            return self.table(table, path);
        }
        if is_known(path) {
            let place = if self.layer.is_file {
                format!("{}:{}", self.layer.name, line_of(&self.layer.text, span.map_or(0, |span| span.start)).0)
            } else {
                self.layer.name.clone()
            };
            self.leaves.push((path.join("."), place, item.to_string().trim().to_owned()));
            return Ok(());
        }
        let message = format!("there is no key `{}`", path.join("."));
        if self.lenient {
            self.warnings.push(format!("{}: {message}", self.layer.name));
            return Ok(());
        }
        Err(mistake(self.layer, span, &message, meant(path)))
    }
}

/// Line and column, both from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// A mistake in a layer, shown with its line underlined.
pub(super) fn mistake(layer: &Layer, span: Option<Range<usize>>, what: &str, meant: Option<String>) -> Fault {
    let (line, column) = line_of(&layer.text, span.as_ref().map_or(0, |span| span.start));
    let place = if layer.is_file { format!("{}:{line}:{column}", layer.name) } else { layer.name.clone() };
    let label = meant.as_ref().map(|key| format!("did you mean `{key}`?")).unwrap_or_default();
    let mut message = format!("{place}: {}", what.trim());
    if let Some(span) = span.filter(|span| layer.is_file && span.end <= layer.text.len()) {
        let snippet = Snippet::source(layer.text.as_str())
            .line_start(1)
            .path(layer.name.as_str())
            .annotation(AnnotationKind::Primary.span(span).label(label.as_str()));
        let report = [Level::ERROR.primary_title("here").element(snippet)];
        let drawn = Renderer::plain().render(&report);
        // The first line only repeats what the message has said.
        message = format!("{message}\n{}", drawn.lines().skip(1).collect::<Vec<_>>().join("\n"));
    }
    let fault = Fault::new("TB-CONFIG-002", exit::CONFIG, message);
    let fault = match meant {
        Some(key) => fault.hint(format!("did you mean `{key}`?  ({})", meaning(&key).unwrap_or_default())),
        None => fault,
    };
    fault.hint("tinkerbell config validate   checks the file; tinkerbell config schema lists all keys")
}
