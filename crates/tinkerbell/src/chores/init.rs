//! `init`: what a project says to Tinkerbell, written once.
//!
//! Writes the check, and where there are no rules for agents, a short file of facts. Invariant: an
//! existing file is never changed, and nothing is written outside the repository.

mod detect;

use super::{Shop, doctor, repository};
use crate::config;
use detect::{Project, detect};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tinkerbell_cli::{Output, Tone};
use tinkerbell_core::code::{Fault, exit};

/// Exit code of a command that its user interrupted.
const INTERRUPTED: u8 = 130;

/// Writes `.tinkerbell/` and, if wanted, `AGENTS.md`. At most three questions, none with `yes`.
///
/// # Errors
/// `TB-INIT-001` outside a repository, `TB-INIT-002` when a file can not be written.
pub async fn init(shop: &Shop<'_>, yes: bool, out: &Output) -> Result<u8, Fault> {
    let root = find_root(shop, yes, out).await?;
    let project = detect(&root);
    let asks = !yes && out.can_ask();
    say(&project, out);
    let dir = root.join(".tinkerbell");
    let has_config = is_there(&dir.join("config.toml"));
    let command = match &project.test {
        _ if has_config => None,
        found if asks => {
            let suggested = found.as_ref().map_or("", |(command, _)| command.as_str());
            let Some(answer) = out.ask_line("Command that proves that the project works (empty: none)", suggested) else {
                out.talk("left at the question; nothing was written");
                return Ok(INTERRUPTED);
            };
            Some(answer.trim().to_owned()).filter(|command| !command.is_empty())
        }
        found => found.as_ref().map(|(command, _)| command.clone()),
    };
    make_dir(&dir)?;
    write(&root, &dir.join("config.toml"), &config_text(command.as_deref()), out)?;
    if !has_config && !is_there(&root.join(crate::project::SERVERS)) {
        // The user has just written it; files that were there before are asked about.
        super::trust::trust_own(shop, &root)?;
    }
    write(&root, &dir.join(".gitignore"), "config.local.toml\n", out)?;
    match &project.rules {
        Some(name) => out.talk(&format!("kept     {name} (it is given to the model with each task)")),
        None => {
            let wanted = yes || (asks && out.confirm("Write an AGENTS.md with these facts", true).unwrap_or(false));
            if wanted {
                write(&root, &root.join("AGENTS.md"), &rules_text(&project, command.as_deref()), out)?;
            } else {
                out.talk("hint     there is no AGENTS.md; `tinkerbell init --yes` writes one with these facts");
            }
        }
    }
    next_step(shop, out).await;
    Ok(exit::DONE)
}

async fn find_root(shop: &Shop<'_>, yes: bool, out: &Output) -> Result<PathBuf, Fault> {
    let Some(cwd) = shop.cwd else {
        return Err(Fault::new("TB-INIT-002", exit::USAGE, "the current directory is gone").hint("cd into a directory that exists"));
    };
    if let Some(root) = repository::root(cwd) {
        return Ok(root);
    }
    let question = format!("{} is in no git repository; make one here with git init", cwd.display());
    if !yes && out.confirm(&question, true) == Some(true) && repository::git(cwd, &["init", "-q"]).await.is_some() {
        out.talk("made     .git (nothing is committed yet)");
        return Ok(cwd.to_owned());
    }
    Err(Fault::new("TB-INIT-001", exit::USAGE, format!("{} is in no git repository", cwd.display()))
        .hint("make one here:  git init && git add -A && git commit -m start")
        .hint("then again:     tinkerbell init"))
}

fn say(project: &Project, out: &Output) {
    let languages: Vec<String> = project.languages.iter().map(|(language, file)| format!("{language} ({file})")).collect();
    let languages = if languages.is_empty() { "no known manifest".to_owned() } else { languages.join(", ") };
    out.talk(&format!("found    {languages}"));
    match &project.test {
        Some((command, file)) => out.talk(&format!("found    tests: {command} ({file})")),
        None => out.talk("found    no command that runs tests"),
    }
}

fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// A link in the place of the directory would lead the writing outside.
fn make_dir(dir: &Path) -> Result<(), Fault> {
    match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(unwritable(dir, "it is not a directory")),
        Err(_) => std::fs::create_dir(dir).map_err(|error| unwritable(dir, &error.to_string())),
    }
}

fn unwritable(path: &Path, why: &str) -> Fault {
    Fault::new("TB-INIT-002", exit::FAILED, format!("{} can not be written: {why}", path.display()))
        .hint(format!("look at what stands there: ls -ld {}", path.display()))
        .hint("make it writable, or move it away, then again: tinkerbell init")
}

fn write(root: &Path, path: &Path, text: &str, out: &Output) -> Result<(), Fault> {
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(|error| unwritable(path, &error.to_string()))?;
            out.talk(&format!("wrote    {name}"));
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            out.talk(&format!("kept     {name} (it was there)"));
            Ok(())
        }
        Err(error) => Err(unwritable(path, &error.to_string())),
    }
}

fn config_text(command: Option<&str>) -> String {
    let command = match command {
        Some(command) => format!("command = {}", toml_edit::Value::from(command)),
        None => "# command = \"make test\"".to_owned(),
    };
    format!(
        "# What this project tells Tinkerbell. Commit this file.\n\
         # A project may name its check and lower the limits; models, keys and the sandbox are each\n\
         # user's own: `tinkerbell config path` says where.\n\n\
         [verify]\n\
         # Run by /bin/sh at the repository's root before a task is reported as verified; exit code 0 means good.\n\
         {command}\n\n\
         # [limits]\n\
         # budget = \"2usd\"\n\
         # max_steps = 100\n\
         # max_wall_time = \"1h\"\n"
    )
}

/// Facts that were seen, in well under 60 lines.
fn rules_text(project: &Project, command: Option<&str>) -> String {
    let mut text = format!("# {}\n\nFacts for agents that work in this repository. Keep it short and true.\n", one_line(&project.name));
    if !project.languages.is_empty() {
        text.push_str("\n## Languages\n\n");
        project.languages.iter().for_each(|(language, file)| text.push_str(&format!("- {language} (`{file}`)\n")));
    }
    let test = command.map(|command| ("test".to_owned(), command.to_owned()));
    let commands: Vec<_> = test.iter().chain(&project.commands).collect();
    if !commands.is_empty() {
        text.push_str("\n## Commands\n\n");
        commands.iter().for_each(|(what, command)| text.push_str(&format!("- {what}: `{}`\n", one_line(command))));
    }
    if !project.dirs.is_empty() {
        text.push_str("\n## Directories\n\n");
        project.dirs.iter().for_each(|dir| text.push_str(&format!("- `{}/`\n", one_line(dir))));
    }
    if !project.documents.is_empty() {
        text.push_str("\n## Read first\n\n");
        project.documents.iter().for_each(|name| text.push_str(&format!("- {name}\n")));
    }
    text
}

/// A name from the file system must not start a new line, or a heading, in a text for models.
fn one_line(text: &str) -> String {
    tinkerbell_cli::visible(text).replace(['\n', '\t'], " ")
}

async fn next_step(shop: &Shop<'_>, out: &Output) {
    let next = match config::load(shop.sources, shop.env) {
        Ok(loaded) => doctor::chosen_model(shop, &loaded.config, false)
            .await
            .map(|(model, why)| format!("next     tinkerbell run \"what shall be done\"   (with {model}: {why})")),
        Err(fault) => Err(fault),
    };
    match next {
        Ok(line) => out.talk(&out.on_talk(Tone::Good, &line)),
        Err(fault) => {
            out.talk(&format!("next     first a model: {}", fault.message.lines().next().unwrap_or_default()));
            fault.hints.iter().flat_map(|hint| hint.lines()).for_each(|line| out.talk(&format!("         {line}")));
        }
    }
}

#[cfg(test)]
mod tests;
