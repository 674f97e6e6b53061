//! `policy grants`: what a person allowed for more than one time, listed, filed and taken back.
//!
//! The file is the user's own and lies beside the policy. Invariant: it is read and written by the same code
//! as in the daemon, lint included.

use super::Shop;
use crate::clock::SystemClock;
use crate::policy;
use serde_json::json;
use std::path::PathBuf;
use tinkerbell_cli::{Granting, Output, visible};
use tinkerbell_core::approval::{Grant, told};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_security::grants::{self, Filed};

/// `policy grants`.
///
/// # Errors
/// A file that can not be trusted or holds a mistake.
pub fn list(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let places = policy::places(shop.sources);
    let (all, now_ms) = (grants::read(&places.grants(), places.uid)?, SystemClock.now().wall_ms);
    if json {
        let one = |filed: &Filed| {
            json!({
                "id": filed.grant.id, "argv": filed.grant.argv, "options": filed.grant.options, "example": filed.grant.example,
                "expires": expires(filed), "expired": !filed.grant.holds(now_ms), "project": filed.project, "asked": filed.asked,
            })
        };
        out.data(&json!(all.iter().map(one).collect::<Vec<_>>()).to_string());
        return Ok(exit::DONE);
    }
    if all.is_empty() {
        out.talk("nothing is allowed beyond one time; grants for a task end with it");
    }
    for filed in &all {
        let whose = filed.project.as_ref().map_or_else(|| "all projects".to_owned(), |project| project.display().to_string());
        let over = if filed.grant.holds(now_ms) { "until" } else { "expired" };
        let allowed = told(&filed.grant.argv, &filed.grant.options);
        let line = format!("{}  {allowed}  {whose}  {over} {}", filed.grant.id, expires(filed));
        out.data(&visible(&line));
    }
    Ok(exit::DONE)
}

fn expires(filed: &Filed) -> String {
    tinkerbell_api::wire::timestamp(filed.grant.expires_ms)
}

/// `policy grants revoke`.
///
/// # Errors
/// As for [`list`]; a name that no grant has.
pub fn revoke(shop: &Shop<'_>, id: &str, out: &Output) -> Result<u8, Fault> {
    let places = policy::places(shop.sources);
    match grants::revoke(&places.grants(), places.uid, id)? {
        0 => Err(Fault::new("TB-CLI-008", exit::USAGE, format!("there is no grant `{}`", visible(id))).hint("tinkerbell policy grants")),
        _ => {
            out.talk(&format!("revoked {}; what it allowed is asked for again", visible(id)));
            Ok(exit::DONE)
        }
    }
}

/// Files what a person answered a question with.
///
/// # Errors
/// As for [`list`]; what would allow anything.
pub fn add(shop: &Shop<'_>, wish: &Granting, out: &Output) -> Result<u8, Fault> {
    let places = policy::places(shop.sources);
    let project = match wish.project.as_deref() {
        // By the name that the guard compares: links resolved.
        Some(project) => Some(PathBuf::from(project).canonicalize().map_err(|error| {
            Fault::new("TB-APPROVE-006", exit::CONFIG, format!("the repository `{}` can not be found: {error}", visible(project)))
        })?),
        None => None,
    };
    let Granting { id, argv, options, example, expires_ms, project: _, asked } = wish.clone();
    let filed = Filed { grant: Grant { id, argv, options, example, expires_ms }, project, asked };
    grants::add(&places.grants(), (places.uid, SystemClock.now().wall_ms), filed)?;
    out.talk(&format!("filed as {}; tinkerbell policy grants revoke {} takes it back", visible(&wish.id), visible(&wish.id)));
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chores::bench::{Bench, Heard};

    #[test]
    fn grants_are_filed_listed_and_taken_back() {
        let (bench, heard) = (Bench::new(), Heard::new());
        let wish = Granting {
            id: "g-1".to_owned(),
            argv: vec!["git".to_owned(), "push".to_owned()],
            options: vec!["--tags".to_owned()],
            example: "git push --tags".to_owned(),
            expires_ms: 4_000_000_000_000,
            project: Some(bench.cwd.display().to_string()),
            asked: "7f3a/1".to_owned(),
        };
        assert_eq!(add(&bench.shop(), &wish, &heard.out), Ok(exit::DONE));
        assert_eq!(list(&bench.shop(), false, &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains("g-1  `git push …` with --tags (too wide: it answers nothing any more)  "), "{}", heard.data());
        let heard = Heard::new();
        assert_eq!(list(&bench.shop(), true, &heard.out), Ok(exit::DONE));
        assert!(heard.data().contains("\"expired\":false"), "{}", heard.data());
        let bad = Granting { argv: vec!["sudo".to_owned()], example: "sudo x".to_owned(), ..wish };
        assert_eq!(add(&bench.shop(), &bad, &heard.out).unwrap_err().code.0, "TB-APPROVE-006");
        assert_eq!(revoke(&bench.shop(), "g-1", &heard.out), Ok(exit::DONE));
        assert_eq!(revoke(&bench.shop(), "g-1", &heard.out).unwrap_err().code.0, "TB-CLI-008");
    }
}
