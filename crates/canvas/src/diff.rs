//! What changed between two checkpoints, for people and for the record.
//!
//! Reads the store only. Invariant: the text never passes its cap, and says when it was cut.

use crate::error::Result;
use crate::store::Store;
use crate::trees::{self, Change, Leaf, shown};
use gix::bstr::{BStr, ByteSlice};
use gix::objs::tree::EntryKind;
use similar::{ChangeTag, TextDiff};
use std::time::Duration;
use tinkerbell_core::event::FileChange;
use tinkerbell_core::port::Difference;
use tinkerbell_core::words::GitId;

/// Most bytes of diff text.
const TEXT_BYTES: usize = 1 << 20;
/// Files beyond this size are named, not compared.
const FILE_BYTES: u64 = 8 << 20;
/// Git's own rule: a zero byte this early makes a file binary.
const SNIFF_BYTES: usize = 8000;
/// One file's comparison becomes coarser after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The difference between two checkpoints. Of ignored files only those that steer are part of it: protected ones, and
/// ignore files.
///
/// # Errors
/// When a checkpoint can not be read.
pub fn difference(store: &Store, from: &GitId, to: &GitId, text: bool) -> Result<Difference> {
    let (was, is) = (store.get(from)?, store.get(to)?);
    let mut out = Difference::default();
    let mut cut = 0_usize;
    for change in trees::diff(&store.repo, was.files, is.files)? {
        let hidden = was.ignored.contains(&change.path) || is.ignored.contains(&change.path);
        if hidden && !is_told(change.path.as_bstr()) {
            continue;
        }
        let (file, hunks) = one(store, &change, text && out.text.len() < TEXT_BYTES)?;
        out.files.push(file);
        if out.text.len() + hunks.len() <= TEXT_BYTES && (!text || !hunks.is_empty()) {
            out.text.push_str(&hunks);
        } else if text {
            cut += 1;
        }
    }
    if cut > 0 {
        out.text.push_str(&format!("\\ cut at {TEXT_BYTES} bytes: the changes of {cut} more file(s) are not shown\n"));
    }
    Ok(out)
}

/// What is told although git ignores it: what steers tools, and the files that hide others, be it themselves.
fn is_told(path: &BStr) -> bool {
    crate::snapshot::is_protected_file(path) || crate::ignored::is_pattern_file(path)
}

fn one(store: &Store, change: &Change, text: bool) -> Result<(FileChange, String)> {
    let kind = match (change.old, change.new) {
        (None, _) => "added",
        (_, None) => "deleted",
        _ => "changed",
    };
    let mut file = FileChange { path: shown(change.path.as_bstr()), kind: kind.to_owned(), plus: 0, minus: 0 };
    let read = |leaf: Option<Leaf>| leaf.filter(|l| l.kind != EntryKind::Commit).map_or_else(|| Ok(Vec::new()), |leaf| store.read(leaf.id));
    let mut out = if text { header(change, &file.path) } else { String::new() };
    if change.old.map(|leaf| leaf.id) == change.new.map(|leaf| leaf.id) {
        return Ok((file, out));
    }
    let size = |leaf: Option<Leaf>| leaf.filter(|leaf| leaf.kind != EntryKind::Commit).map_or(Ok(0), |leaf| store.size(leaf.id));
    let is_large = size(change.old)?.max(size(change.new)?) > FILE_BYTES;
    let (old, new) = if is_large { (Vec::new(), Vec::new()) } else { (read(change.old)?, read(change.new)?) };
    if is_large || is_binary(&old) || is_binary(&new) {
        if text {
            out.push_str(&binary(change, &file.path));
        }
        return Ok((file, out));
    }
    let (old, new) = (old.to_str_lossy(), new.to_str_lossy());
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old.as_ref(), new.as_ref());
    for change in diff.iter_all_changes() {
        match change.tag() {
            ChangeTag::Insert => file.plus += 1,
            ChangeTag::Delete => file.minus += 1,
            ChangeTag::Equal => {}
        }
    }
    if text {
        let (a, b) = sides(change, &file.path);
        out.push_str(&diff.unified_diff().header(&a, &b).to_string());
    }
    Ok((file, out))
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(SNIFF_BYTES).any(|b| *b == 0)
}

fn sides(change: &Change, path: &str) -> (String, String) {
    let side = |leaf: Option<Leaf>, letter: &str| leaf.map_or_else(|| "/dev/null".to_owned(), |_| named(letter, path));
    (side(change.old, "a"), side(change.new, "b"))
}

fn binary(change: &Change, path: &str) -> String {
    let (a, b) = sides(change, path);
    format!("Binary files {a} and {b} differ\n")
}

fn header(change: &Change, path: &str) -> String {
    let modes = match (change.old, change.new) {
        (None, Some(new)) => format!("new file mode {}\n", mode(new)),
        (Some(old), None) => format!("deleted file mode {}\n", mode(old)),
        (Some(old), Some(new)) if old.kind != new.kind => format!("old mode {}\nnew mode {}\n", mode(old), mode(new)),
        _ => String::new(),
    };
    format!("diff --git {} {}\n{modes}", named("a", path), named("b", path))
}

/// One side's name as git writes it: quoted where a line end or its kind would make other lines of it.
fn named(side: &str, path: &str) -> String {
    if !path.chars().any(|sign| sign.is_control() || matches!(sign, '"' | '\\')) {
        return format!("{side}/{path}");
    }
    let inner = path.chars().fold(String::new(), |mut out, sign| {
        match sign {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' => out.extend(['\\', sign]),
            sign if sign.is_control() => {
                let mut bytes = [0; 4];
                out.extend(sign.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\{byte:03o}")));
            }
            other => out.push(other),
        }
        out
    });
    format!("\"{side}/{inner}\"")
}

const fn mode(leaf: Leaf) -> &'static str {
    match leaf.kind {
        EntryKind::BlobExecutable => "100755",
        EntryKind::Link => "120000",
        EntryKind::Commit => "160000",
        EntryKind::Blob | EntryKind::Tree => "100644",
    }
}

#[cfg(test)]
#[test]
fn a_name_makes_no_other_lines() {
    assert_eq!(named("b", "src/a b.rs"), "b/src/a b.rs");
    assert_eq!(named("b", "x\n+++ b/\"y\"\t\u{1b}é\\"), "\"b/x\\n+++ b/\\\"y\\\"\\t\\033é\\\\\"");
}
