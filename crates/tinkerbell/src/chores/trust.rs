//! `trust`: what a repository brings that steers tasks, shown whole, and a person's word on it.
//!
//! What is shown, hashed and approved are the same bytes, read once. Invariant: nothing is approved that
//! was not shown, and control characters in it are shown as text.

use super::{Shop, repository};
use crate::project;
use std::path::{Path, PathBuf};
use tinkerbell_cli::{Output, Tone, TrustWish, visible};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_security::trust::{Bundle, Standing, TrustStore};

/// Exit code of a question that was answered with no, or not at all.
const NO: u8 = exit::NEEDS_PERSON;

/// Shows, asks, trusts, or takes trust back. `yes` is an answer, but never for a task that is about to begin.
///
/// # Errors
/// `TB-TRUST-001` for the store, `TB-TRUST-002` and `TB-CONFIG-…` for the repository's files,
/// `TB-TRUST-003` when nobody can be asked.
pub fn trust(shop: &Shop<'_>, dir: Option<&Path>, (wish, yes): (TrustWish, bool), out: &Output) -> Result<u8, Fault> {
    let root = root(shop, dir)?;
    let store = project::store(shop.places);
    if wish == TrustWish::Revoke {
        let gone = store.revoke(&root)?;
        out.talk(&visible(&format!("{gone} approvals for {} were taken back", root.display())));
        return Ok(exit::DONE);
    }
    let bundle = project::read(&root)?.bundle;
    let standing = store.standing(&root, &bundle)?;
    let is_settled = matches!(standing, Standing::Empty | Standing::Trusted);
    if wish == TrustWish::BeforeRun && is_settled {
        return Ok(exit::DONE);
    }
    show(&root, &bundle, &standing, out);
    match wish {
        TrustWish::Show => Ok(exit::DONE),
        _ if is_settled => Ok(exit::DONE),
        TrustWish::Ask if yes => approve(&store, &root, &bundle, out),
        _ => match out.confirm("Trust these files, as they are shown here", false) {
            Some(true) => approve(&store, &root, &bundle, out),
            None if wish == TrustWish::Ask && !out.can_ask() => {
                Err(Fault::new("TB-TRUST-003", exit::NEEDS_PERSON, "nobody can be asked whether these files are trusted")
                    .hint("read them above; then: tinkerbell trust --yes"))
            }
            _ => {
                out.talk("not trusted: tasks here do without these files");
                Ok(if wish == TrustWish::BeforeRun { exit::DONE } else { NO })
            }
        },
    }
}

fn root(shop: &Shop<'_>, dir: Option<&Path>) -> Result<PathBuf, Fault> {
    let given = match (shop.cwd, dir) {
        (_, Some(dir)) if dir.is_absolute() => dir.to_owned(),
        (Some(cwd), Some(dir)) => cwd.join(dir),
        (Some(cwd), None) => cwd.to_owned(),
        (None, _) => return Err(Fault::new("TB-TRUST-002", exit::USAGE, "the current directory is gone").hint("name one: trust DIR")),
    };
    let real = given.canonicalize().map_err(|error| {
        Fault::new("TB-TRUST-002", exit::USAGE, format!("the directory {} can not be used: {error}", given.display()))
            .hint("name a directory in the repository")
    })?;
    Ok(repository::root(&real).unwrap_or(real))
}

fn show(root: &Path, bundle: &Bundle, standing: &Standing, out: &Output) {
    let said = match standing {
        Standing::Empty => "brings nothing that needs trust",
        Standing::Trusted => "is trusted with these files",
        Standing::Changed(_) => "brings files that changed since they were trusted; until they are trusted again, they do not count",
        Standing::New => "brings files that steer tasks; until they are trusted, they do not count",
    };
    let tone = if matches!(standing, Standing::Changed(_) | Standing::New) { Tone::Look } else { Tone::Plain };
    out.error(&out.on_talk(tone, &visible(&format!("{} {said}", root.display()))));
    for part in bundle.parts() {
        out.error(&out.on_talk(Tone::Strong, &visible(&format!("  {}", part.name))));
        // Bytes that are no text are shown as their replacement; the digest is over the bytes.
        visible(&String::from_utf8_lossy(&part.bytes)).lines().for_each(|line| out.error(&format!("    {line}")));
    }
    if !bundle.parts().is_empty() {
        out.error(&out.on_talk(Tone::Dim, &format!("  sha256 {}", bundle.digest())));
    }
}

fn approve(store: &TrustStore, root: &Path, bundle: &Bundle, out: &Output) -> Result<u8, Fault> {
    store.approve(root, bundle, crate::clock::SystemClock.now().wall_ms)?;
    out.talk("trusted; any change of these files asks again (take it back: tinkerbell trust --revoke)");
    Ok(exit::DONE)
}

/// Trusts what the user's own command has just written.
///
/// # Errors
/// As [`trust`].
pub fn trust_own(shop: &Shop<'_>, root: &Path) -> Result<(), Fault> {
    let bundle = project::read(root)?.bundle;
    if bundle.parts().is_empty() {
        return Ok(());
    }
    project::store(shop.places).approve(root, &bundle, crate::clock::SystemClock.now().wall_ms)
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;

    #[test]
    fn files_are_shown_escaped_and_trusted_only_with_a_word() {
        let (bench, heard) = (Bench::new(), Heard::new());
        let run = |wish, yes, heard: &Heard| trust(&bench.shop(), None, (wish, yes), &heard.out);
        std::fs::create_dir(bench.cwd.join(".git")).unwrap();
        assert_eq!(run(TrustWish::Ask, false, &heard), Ok(exit::DONE));
        assert!(heard.talk().contains("brings nothing that needs trust"), "{}", heard.talk());
        bench.write("work/.tinkerbell/config.toml", "# \u{202e}\n[verify]\ncommand = \"make test\"\n");
        bench.write("work/.mcp.json", "\u{1b}[2K{}\n");
        let heard = Heard::new();
        let fault = run(TrustWish::Ask, false, &heard).unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-TRUST-003", 4));
        assert!(heard.talk().contains("    # <U+202E>\n    [verify]\n") && heard.talk().contains("    \\x1b[2K{}\n"), "{}", heard.talk());
        // A task that is about to begin is no reason to trust, whatever `--yes` says.
        assert_eq!(run(TrustWish::BeforeRun, true, &heard), Ok(exit::DONE));
        assert!(heard.talk().contains("not trusted: tasks here do without"), "{}", heard.talk());
        let heard = Heard::new();
        assert_eq!(run(TrustWish::Ask, true, &heard), Ok(exit::DONE));
        let heard = Heard::new();
        assert_eq!((run(TrustWish::BeforeRun, false, &heard), heard.talk().as_str()), (Ok(exit::DONE), ""));
        bench.write("work/.tinkerbell/config.toml", "[verify]\ncommand = \"make tests\"\n");
        assert_eq!(run(TrustWish::Show, true, &heard), Ok(exit::DONE));
        assert!(heard.talk().contains("changed since they were trusted"), "{}", heard.talk());
        assert_eq!(run(TrustWish::Revoke, false, &heard), Ok(exit::DONE));
        assert!(heard.talk().contains("1 approvals for"), "{}", heard.talk());
    }
}
