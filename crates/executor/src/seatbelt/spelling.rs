//! Paths as a Seatbelt profile spells them: quoted, both ways round `/private`, and as patterns.
//!
//! Patterns hold printable ASCII only, and neither quotes nor backslashes, so they need no escapes.
//! Invariant: a pattern matches at least what [`protected::is_protected`] does; where it can not be
//! exact it matches more.

use crate::error::Error;
use std::path::Path;
use tinkerbell_core::protected;

/// Links of macOS' root directory that lead to `/private`.
pub const LINKS: &[&str] = &["/etc", "/tmp", "/var"];
/// Any run of signs that are no printable ASCII: other letters, and signs that nobody sees.
const OTHERS: &str = "[^ -~]";
/// What some file systems cut off at the end of a name: dots, spaces, unseen signs, a stream.
const TAIL: &str = "[^!--/-~]*(:[^/]*)?";
/// Short names that NTFS gives to git's own.
const SHORT: &[&str] = &["git~", "gitmod~", "gi7eba~"];

/// An absolute path, ready to stand between quotes.
pub struct Spelt(String);

impl Spelt {
    /// Every spelling of a path: `/tmp/a` is `/private/tmp/a`, too.
    ///
    /// # Errors
    /// For a path that is not absolute, not UTF-8, has `..`, or holds control characters other than
    /// line ends and tabs.
    pub fn all(path: &Path) -> Result<Vec<Self>, Error> {
        let text = plain(path)?;
        let bare = text.strip_prefix("/private").filter(|rest| is_linked(rest)).unwrap_or(text);
        if !is_linked(bare) {
            return Ok(vec![Self(escaped(text))]);
        }
        Ok(vec![Self(escaped(bare)), Self(escaped(&format!("/private{bare}")))])
    }
}

/// The path and everything below it.
pub fn subpath(path: &Spelt) -> String {
    format!("(subpath \"{}\")", path.0)
}

/// The path alone.
pub fn literal(path: &Spelt) -> String {
    format!("(literal \"{}\")", path.0)
}

/// Protected names below a root that [`root`] gave, at any depth.
pub fn names(root: &str) -> impl Iterator<Item = String> {
    let short = SHORT.iter().map(|name| format!("{}[^ -/:-~]*", blind(name)));
    let all = protected::NAMES.iter().map(|name| blind(name)).chain(short);
    all.map(move |name| format!("(regex #\"^{root}/(.*/)?{name}{TAIL}(/|$)\")"))
}

/// Protected paths of a root.
pub fn paths(root: &str) -> impl Iterator<Item = String> {
    protected::PATHS.iter().map(move |path| format!("(regex #\"^{root}/{}(/|$)\")", components(path)))
}

/// The directories that protected paths stand in.
pub fn parents(root: &str) -> impl Iterator<Item = String> {
    let mut parents: Vec<&str> = protected::PATHS.iter().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
    parents.dedup();
    parents.into_iter().map(move |path| format!("(regex #\"^{root}/{}$\")", components(path)))
}

/// A directory as the beginning of a pattern. Signs that mean something there stand as "any sign", which
/// matches its neighbours, too.
///
/// # Errors
/// As [`Spelt::all`].
pub fn root(path: &Path) -> Result<String, Error> {
    let text = plain(path)?;
    let bare = text.strip_prefix("/private").filter(|rest| is_linked(rest)).unwrap_or(text);
    let mut pattern = if is_linked(bare) { "(/private)?".to_owned() } else { String::new() };
    let mut is_other = false;
    for sign in bare.chars() {
        match sign {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '_' | '-' | ' ' | '~' => pattern.push(sign),
            ' '..='~' if !"\"\\[]^".contains(sign) => pattern.extend(['[', sign, ']']),
            ' '..='~' => pattern.push_str("[^/]"),
            _ if is_other => {}
            _ => pattern.push_str("[^ -~]+"),
        }
        is_other = !matches!(sign, ' '..='~');
    }
    Ok(pattern)
}

fn components(path: &str) -> String {
    let each: Vec<String> = path.split('/').map(|name| format!("{}{TAIL}", blind(name))).collect();
    each.join("/")
}

/// A name in either case, with unseen signs anywhere. Some letters have forms beyond ASCII that fold to
/// them: `ı`, `K`, `ſ`, and `ﬁ`.
fn blind(name: &str) -> String {
    let mut pattern = format!("{OTHERS}*");
    for sign in name.chars() {
        let (lower, upper) = (sign.to_ascii_lowercase(), sign.to_ascii_uppercase());
        pattern.push_str(&match lower {
            'f' | 'i' | 'k' | 's' => except(upper, lower),
            'a'..='z' => format!("[{lower}{upper}]"),
            '0'..='9' | '-' | '_' | '~' => sign.to_string(),
            _ => format!("[{sign}]"),
        });
        pattern.push_str(OTHERS);
        pattern.push('*');
    }
    pattern
}

/// Both letters, and what is no printable ASCII: all signs but the others of ASCII.
fn except(upper: char, lower: char) -> String {
    let beside = |sign: char, step: i8| char::from((sign as u8).wrapping_add_signed(step));
    format!("[^ -{}{}-{}{}-~]", beside(upper, -1), beside(upper, 1), beside(lower, -1), beside(lower, 1))
}

fn is_linked(path: &str) -> bool {
    LINKS.iter().any(|link| Path::new(path).starts_with(link))
}

fn plain(path: &Path) -> Result<&str, Error> {
    let refused = |why: &str| Error::Seatbelt(format!("`{}` {why}", path.to_string_lossy().escape_debug()));
    let text = path.to_str().ok_or_else(|| refused("is not UTF-8"))?;
    if !path.is_absolute() || text.split('/').any(|part| part == "..") {
        return Err(refused("is no absolute path without `..`"));
    }
    if text.chars().any(|sign| sign.is_control() && !"\n\r\t".contains(sign)) {
        return Err(refused("holds control characters"));
    }
    // A pattern with a slash at its end would miss what it is for.
    Ok(if text == "/" { text } else { text.trim_end_matches('/') })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '"' | '\\' => out.extend(['\\', sign]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(sign),
        }
    }
    out
}
