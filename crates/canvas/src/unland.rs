//! Taking a landing back: the reference moves back, or a new commit takes the change out.
//!
//! It uses the same plan as landing, backwards. Invariant: what the user did after the landing stays.

use crate::commit::tree_of;
use crate::desk::Desk;
use crate::error::{Error, Result};
use crate::land::{Step, Target};
use crate::merge::{Merged, merge};
use crate::store::{Pin, git_id};
use crate::sync::tree_or_empty;
use crate::trees::{self, Leaves};
use crate::user::{self, NewCommit};
use gix::ObjectId;
use gix::bstr::ByteSlice;
use tinkerbell_core::event::OpDone;
use tinkerbell_core::port::Landed;

/// Takes a landing back, or names the paths in the way and changes nothing.
pub fn unland(desk: &mut Desk<'_>, landed: &OpDone, time_s: u64) -> Result<Landed> {
    let commit = parse(&landed.commit)?;
    let previous = if landed.previous.is_empty() { None } else { Some(parse(&landed.previous)?) };
    let target = Target::find(desk, Some(&landed.reference))?;
    let (from_leaves, to_leaves) = sides(desk, &landed.commit)?;
    // Backwards: what the task made is where we start, what it started from is where we go.
    let step = |to, why: &'static str| Step { to, from_leaves: &to_leaves, to_leaves: &from_leaves, why, time_s };
    let Some(tip) = target.tip.filter(|_| Some(commit) != previous) else {
        return Ok(target.tip.map_or_else(Landed::default, |tip| target.nothing(tip)));
    };
    if tip == commit {
        return target.step(&step(previous, "tinkerbell undo: land"));
    }
    if Some(tip) == previous {
        let again = Target { tip: Some(commit), ..target };
        return again.finish_back(&step(previous, ""));
    }
    let message = revert_message(&target.repo, commit)?;
    if let Some(done) = target.landed_before(&message, time_s)? {
        let again = Target { tip: done.parent, ..target };
        return again.finish_back(&step(Some(done.commit), ""));
    }
    let (base, theirs) = (user::tree_of(&target.repo, commit)?, tree_or_empty(&target.repo, previous)?);
    let ours = user::tree_of(&target.repo, tip)?;
    let tree = match merge(&target.repo, base, ours, theirs)? {
        Merged::Tree(tree) => tree,
        Merged::Conflicts(paths) => return Ok(target.conflict(paths)),
    };
    if tree == ours {
        return Ok(target.nothing(tip));
    }
    let revert = user::write_commit(&target.repo, &NewCommit { tree, parents: vec![tip], message: &message, time_s })?;
    target.step(&step(Some(revert), "tinkerbell undo: revert of land"))
}

fn parse(text: &str) -> Result<ObjectId> {
    ObjectId::from_hex(text.as_bytes()).map_err(|_| Error::NoSuchRevision(text.to_owned()))
}

/// The task's own two trees of a landing; empty where they are not recorded any more.
fn sides(desk: &mut Desk<'_>, commit: &str) -> Result<(Leaves, Leaves)> {
    let from = desk.store.pinned(desk.ws.task, Pin::LandedFrom(commit))?;
    let to = desk.store.pinned(desk.ws.task, Pin::LandedTo(commit))?;
    let mut leaves = |id: Option<ObjectId>| match id {
        Some(id) => {
            let tree = tree_of(desk, &git_id(id)?)?;
            trees::flatten(&desk.user, tree)
        }
        None => Ok(Leaves::new()),
    };
    Ok((leaves(from)?, leaves(to)?))
}

fn revert_message(repo: &gix::Repository, commit: ObjectId) -> Result<String> {
    let object = repo.find_commit(commit).map_err(Error::git("read commit"))?;
    let message = object.message_raw().map_err(Error::git("read commit"))?.to_str_lossy().into_owned();
    let subject = message.lines().next().unwrap_or_default();
    Ok(format!("Revert \"{subject}\"\n\nThis takes back commit {commit}."))
}
