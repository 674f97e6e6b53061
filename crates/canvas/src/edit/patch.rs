//! Reads V4A patches: `*** Begin Patch` … `*** End Patch`.
//!
//! Lenient where nothing can be misread (fences, a here-document around it, a first hunk without
//! `@@`, CRLF), strict elsewhere: a patch without its end may have been cut off. Invariant: never
//! panics, and whatever it accepts holds every line that was sent.

use super::Refusal;
use super::op::{Edit, Hunk, HunkLine, Sign};

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const ADD: &str = "*** Add File:";
const DELETE: &str = "*** Delete File:";
const UPDATE: &str = "*** Update File:";
const MOVE: &str = "*** Move to:";
const END_OF_FILE: &str = "*** End of File";

/// The edits of a patch, with paths as they were sent.
///
/// # Errors
/// When it is not in the format; the refusal names the line.
pub fn parse(patch: &str) -> Result<Vec<Edit>, Refusal> {
    let lines = unwrap(patch);
    let mut reader = Reader { lines: &lines, at: 0 };
    reader.skip_blank();
    if reader.peek().is_some_and(|l| l.trim_end() == BEGIN) {
        reader.at += 1;
    } else if !reader.peek().is_some_and(is_header) {
        return Err(reader.refuse(&format!("a patch starts with `{BEGIN}`, then `{UPDATE} path`; unified diffs are not read")));
    }
    let mut edits = Vec::new();
    loop {
        reader.skip_blank();
        match reader.next() {
            None => return Err(reader.refuse(&format!("the patch ends without `{END}`, it may be cut off; send it whole"))),
            Some(line) if line.trim_end() == END => break,
            Some(line) => edits.push(reader.section(line)?),
        }
    }
    reader.skip_blank();
    if reader.peek().is_some() {
        return Err(reader.refuse(&format!("there is text after `{END}`; send one patch with all files in it")));
    }
    if edits.is_empty() {
        return Err(reader.refuse("the patch has no file in it"));
    }
    Ok(edits)
}

/// The patch's lines with their numbers, without a fence or here-document around them.
fn unwrap(patch: &str) -> Vec<(usize, &str)> {
    let mut lines: Vec<(usize, &str)> = patch.lines().enumerate().map(|(at, l)| (at + 1, l)).collect();
    let blank = |l: &(usize, &str)| l.1.trim().is_empty();
    while lines.last().is_some_and(blank) {
        lines.pop();
    }
    let first = lines.iter().position(|l| !blank(l)).unwrap_or(0);
    lines.drain(..first);
    let opener = lines.first().map_or("", |l| l.1.trim());
    let closer = lines.last().map_or("", |l| l.1.trim());
    let fenced = opener.starts_with("```") && closer == "```";
    let here = opener.split_once("<<").is_some_and(|(_, tag)| tag.trim().trim_matches(['\'', '"']) == closer && !closer.is_empty());
    if (fenced || here) && lines.len() >= 2 {
        lines.pop();
        lines.remove(0);
    }
    lines
}

fn is_header(line: &str) -> bool {
    [ADD, DELETE, UPDATE].iter().any(|h| line.starts_with(h)) || line.trim_end() == END
}

struct Reader<'a> {
    lines: &'a [(usize, &'a str)],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).map(|l| l.1)
    }

    fn next(&mut self) -> Option<&'a str> {
        let line = self.peek();
        self.at += usize::from(line.is_some());
        line
    }

    fn skip_blank(&mut self) {
        while self.peek().is_some_and(|l| l.trim().is_empty()) {
            self.at += 1;
        }
    }

    /// A refusal that names the current line (the last one at the end).
    fn refuse(&self, what: &str) -> Refusal {
        let line = self.lines.get(self.at).or_else(|| self.lines.last()).map_or(1, |l| l.0);
        Refusal::Patch { line, what: what.to_owned() }
    }

    /// As `refuse`, for the line that was just taken.
    fn refuse_last(&mut self, what: &str) -> Refusal {
        self.at = self.at.saturating_sub(1);
        self.refuse(what)
    }

    fn section(&mut self, header: &str) -> Result<Edit, Refusal> {
        if let Some(path) = header.strip_prefix(ADD) {
            let path = self.path(path)?;
            self.added().map(|content| Edit::Add { path, content })
        } else if let Some(path) = header.strip_prefix(DELETE) {
            self.path(path).map(|path| Edit::Delete { path })
        } else if let Some(path) = header.strip_prefix(UPDATE) {
            let path = self.path(path)?;
            self.updated(path)
        } else {
            let shown = super::refusal::clip(header);
            Err(self
                .refuse_last(&format!("{shown:?} is not expected here; begin a file with `{ADD}`, `{UPDATE}` or `{DELETE}` and its path")))
        }
    }

    fn path(&mut self, text: &str) -> Result<String, Refusal> {
        match text.trim() {
            "" => Err(self.refuse_last("the path is missing")),
            path => Ok(path.to_owned()),
        }
    }

    fn added(&mut self) -> Result<String, Refusal> {
        let mut content = String::new();
        let mut blanks = 0;
        while let Some(line) = self.peek().filter(|l| !l.starts_with("***")) {
            if let Some(text) = line.strip_prefix('+') {
                // A blank line without `+` counts only once more of the file follows it.
                content.push_str(&"\n".repeat(std::mem::take(&mut blanks)));
                content.push_str(text);
                content.push('\n');
            } else if line.trim().is_empty() {
                blanks += 1;
            } else {
                return Err(self.refuse("each line of an added file begins with `+`"));
            }
            self.at += 1;
        }
        Ok(content)
    }

    fn updated(&mut self, path: String) -> Result<Edit, Refusal> {
        let header = self.at.saturating_sub(1);
        let mut move_to = None;
        if let Some(to) = self.peek().and_then(|l| l.strip_prefix(MOVE)) {
            self.at += 1;
            move_to = Some(self.path(to)?);
        }
        let mut hunks = Vec::new();
        self.skip_blank();
        while self.peek().is_some_and(|l| !is_header(l)) {
            hunks.push(self.hunk(hunks.is_empty())?);
            self.skip_blank();
        }
        if hunks.is_empty() && move_to.is_none() {
            self.at = header;
            return Err(self.refuse("the file has no hunk; add `@@` and lines that begin with a space, `-` or `+`"));
        }
        Ok(Edit::Update { path, move_to, hunks })
    }

    fn hunk(&mut self, is_first: bool) -> Result<Hunk, Refusal> {
        let mut hunk = Hunk::default();
        let start = self.at;
        while let Some(rest) = self.peek().and_then(|l| l.strip_prefix("@@")) {
            self.at += 1;
            let (near, anchor) = read_anchor(rest);
            hunk.near_line = near.or(hunk.near_line);
            hunk.anchors.extend(anchor);
        }
        if start == self.at && !is_first {
            return Err(self.refuse("a further hunk begins with `@@`"));
        }
        // Wholly empty lines at a hunk's end separate it from the next header; they are no context.
        let mut trailing = 0;
        while let Some(line) = self.peek().filter(|l| !is_header(l) && !l.starts_with("@@")) {
            if line.trim_end() == END_OF_FILE {
                hunk.at_end = true;
                self.at += 1;
                break;
            }
            hunk.lines.push(self.hunk_line(line)?);
            trailing = if line.is_empty() { trailing + 1 } else { 0 };
            self.at += 1;
        }
        hunk.lines.truncate(hunk.lines.len() - trailing);
        if !hunk.lines.iter().any(|l| l.sign != Sign::Keep) {
            self.at = start;
            return Err(self.refuse("the hunk has no line that begins with `-` or `+`"));
        }
        Ok(hunk)
    }

    fn hunk_line(&self, line: &str) -> Result<HunkLine, Refusal> {
        let mut chars = line.chars();
        let sign = match chars.next() {
            // An empty line is an empty line of context whose space an editor has stripped.
            None | Some(' ') => Sign::Keep,
            Some('-') => Sign::Remove,
            Some('+') => Sign::Add,
            Some(_) if line.trim().is_empty() => Sign::Keep,
            Some(_) => {
                let shown = super::refusal::clip(line);
                return Err(self.refuse(&format!("{shown:?} must begin with a space (stays), `-` (goes) or `+` (comes)")));
            }
        };
        Ok(HunkLine { sign, text: chars.as_str().to_owned() })
    }
}

/// Reads what follows `@@`: an anchor line, or the line numbers of a unified diff.
fn read_anchor(rest: &str) -> (Option<usize>, Option<String>) {
    let text = rest.trim();
    let some = |t: &str| (!t.trim().is_empty()).then(|| t.trim().to_owned());
    if let Some((numbers, after)) = text.strip_prefix('-').and_then(|t| t.split_once("@@"))
        && let Some(line) = numbers.split([',', ' ']).next().and_then(|n| n.parse().ok())
    {
        return (Some(line), some(after));
    }
    (None, some(text))
}
