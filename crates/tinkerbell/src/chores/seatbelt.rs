//! `sandbox seatbelt`: the profile for macOS' own sandbox that a command in this repository would get.
//!
//! The executor writes it from the plan that Linux uses. Invariant: it is printed and never applied, and
//! whoever reads it is told so.

use super::{Shop, repository};
use crate::{config, wire};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};

/// Prints the profile, and on stderr that nothing uses it here.
///
/// # Errors
/// `TB-SANDBOX-005` outside a repository and for paths that a profile can not spell; mistakes in the
/// configuration.
pub async fn show(shop: &Shop<'_>, out: &Output) -> Result<u8, Fault> {
    let config = config::load(shop.sources, shop.env)?.config;
    crate::egress::check(&config)?;
    let Some(root) = shop.cwd.and_then(repository::root) else {
        return Err(Fault::new("TB-SANDBOX-005", exit::USAGE, "no Seatbelt profile can be written: this is no git repository")
            .hint("cd into the repository that a task would work on"));
    };
    let (own, common) = git_dirs(&root).await;
    let options = wire::sandbox_options(&config, shop.places, shop.env, Arc::default());
    let text = tinkerbell_executor::seatbelt(&options, &root, (&own, &common))?;
    out.data(text.trim_end());
    out.talk(&format!("not applied: this is a profile for macOS, and nothing on this system ({}) uses it", std::env::consts::OS));
    Ok(exit::DONE)
}

/// The repository's own git directory and the one that all its worktrees share.
async fn git_dirs(root: &Path) -> (PathBuf, PathBuf) {
    let one = async |name| repository::git(root, &["rev-parse", "--path-format=absolute", name]).await;
    let found = |text: Option<String>| text.map_or_else(|| root.join(".git"), |text| PathBuf::from(text.trim_end_matches('\n')));
    (found(one("--git-dir").await), found(one("--git-common-dir").await))
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;

    #[tokio::test]
    async fn the_profile_of_a_repository_is_printed_and_said_not_to_be_applied() {
        let bench = Bench::new();
        let heard = Heard::new();
        assert_eq!(show(&bench.shop(), &heard.out).await.unwrap_err().code.0, "TB-SANDBOX-005");
        repository::git(&bench.cwd, &["init", "-q"]).await.unwrap();
        for (settings, wanted, unwanted) in [
            ("", "(deny network*)", "network-outbound"),
            ("[egress]\npresets = [\"cargo\"]\n", "(allow network-outbound (remote tcp \"localhost:3128\"))", "(remote ip)"),
        ] {
            bench.write(&bench.places.config, settings);
            let heard = Heard::new();
            assert_eq!(show(&bench.shop(), &heard.out).await.unwrap(), exit::DONE);
            let text = heard.data();
            assert!(text.starts_with("(version 1)\n") && text.contains("\n(deny default)\n"), "{text}");
            assert!(text.contains(wanted) && !text.contains(unwanted), "{text}");
            let tree = bench.cwd.canonicalize().unwrap();
            assert!(text.contains(&format!("(allow file-write*\n  (subpath \"{}\")", tree.display())), "{text}");
            assert!(heard.talk().starts_with("not applied: ") && heard.talk().lines().count() == 1, "{}", heard.talk());
        }
        assert!(!bench.places.data.join("homes").exists(), "nothing is made");
    }
}
