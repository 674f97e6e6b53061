//! Paths as a model writes them, made relative and clean.
//!
//! Decides by the text alone; symbolic links are the business of whoever opens the file.
//! Invariant: a path that comes out never leaves the tree by `..` and never names anything in `.git`.

use super::Refusal;
use std::path::{Component, Path};

/// The path relative to `root`, `/`-separated, without `.`; empty for the root itself.
///
/// # Errors
/// When it is absolute and outside `root`, climbs by `..`, enters `.git`, or is no path at all.
pub fn relative(root: &Path, text: &str) -> Result<String, Refusal> {
    let refuse = |why: &'static str| Refusal::Path { path: text.to_owned(), why };
    if text.is_empty() || text.contains(['\0', '\n']) {
        return Err(refuse("it is empty or holds a line break; give a path relative to the workspace"));
    }
    let given = Path::new(text);
    let inner = if given.is_absolute() {
        given.strip_prefix(root).map_err(|_| refuse("it is outside the workspace; give a path relative to the workspace"))?
    } else {
        given
    };
    let mut parts = Vec::new();
    for part in inner.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refuse("`..` is not followed; give a path relative to the workspace"));
            }
        }
    }
    // Case does not matter here because on some file systems `.GIT` is the same directory.
    if parts.iter().any(|p| p.eq_ignore_ascii_case(".git")) {
        return Err(refuse("`.git` is never read or written by file tools; the runtime commits for you"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_clean_or_are_refused() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(relative(Path::new("/w/tree"), text).ok().as_deref(), want, "{text}");
        };
        check("src/a.rs", Some("src/a.rs"));
        check("./src//a.rs", Some("src/a.rs"));
        check("/w/tree/src/a.rs", Some("src/a.rs"));
        check("/w/tree", Some(""));
        check(".", Some(""));
        check(".gitignore", Some(".gitignore"));
        check("/w/tree2/a", None);
        check("/etc/passwd", None);
        check("../a", None);
        check("src/../../a", None);
        check("/w/tree/../x", None);
        check(".git/config", None);
        check("sub/.GIT/hooks/x", None);
        check("", None);
        check("a\0b", None);
    }
}
