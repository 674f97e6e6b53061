//! A question as its reader sees it before deciding: marked where it misleads, cut nowhere without a word.
//!
//! Pure. Invariant: the pages of a question hold all of its body, and a first page that is not all says
//! how much is missing and where it stands.

use tinkerbell_api::wire::ApprovalRequested;
use tinkerbell_core::approval;
use tinkerbell_core::marks;

/// Rows of one page.
const PAGE: usize = 120;
/// Characters of one row; longer lines go on in the next one.
const ROW: usize = 1_000;
/// What a row begins with that goes on with the line before it.
const ON: &str = "  ┆ ";
/// What is bound and worth a line of its own.
const TOLD: [&str; 5] = ["program", "first word", "directory", "sandbox", "file"];

/// One visible line of a question's title or options: marked, whole up to its limit, and saying so beyond.
#[must_use]
pub fn line(text: &str, limit: usize) -> String {
    let shown = marks::visible(text.trim()).replace(['\n', '\t'], " ");
    let count = shown.chars().count();
    if count <= limit {
        return shown;
    }
    let cut: String = shown.chars().take(limit).collect();
    format!("{cut}… ({} more characters)", count - limit)
}

/// The body, page by page.
#[must_use]
pub fn pages(asked: &ApprovalRequested) -> Vec<Vec<String>> {
    let shown = marks::visible(&asked.body);
    let rows: Vec<String> = shown.lines().flat_map(rows).collect();
    rows.chunks(PAGE).map(<[String]>::to_vec).collect()
}

fn rows(line: &str) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    if letters.len() <= ROW {
        return vec![line.to_owned()];
    }
    let row = |(at, piece): (usize, &[char])| {
        let piece: String = piece.iter().collect();
        if at == 0 { piece } else { format!("{ON}{piece}") }
    };
    letters.chunks(ROW).enumerate().map(row).collect()
}

/// What else is to be known: marks, what is bound, until when, what may be allowed beyond once.
#[must_use]
pub fn notes(asked: &ApprovalRequested) -> Vec<String> {
    let mut notes: Vec<String> = marks_of(asked).into_iter().map(|mark| format!("! {mark}")).collect();
    let told = asked.facts.iter().filter(|fact| TOLD.contains(&fact.name.as_str()));
    notes.extend(told.map(|fact| format!("{:<11} {}", fact.name, marks::visible(&fact.value))));
    notes.extend(asked.expires.iter().map(|expires| format!("{:<11} {}", "expires", super::table::minute(expires))));
    if let Some(offer) = &asked.offer {
        let allowed = line(&approval::told(&offer.argv, &offer.options), 200);
        notes.push(format!("{:<11} {allowed} for the task, project or user: approve ID --for task|project|user", "may allow"));
    }
    notes
}

/// What misleads in it; asked of the text itself, whatever the other side says.
fn marks_of(asked: &ApprovalRequested) -> Vec<String> {
    let all = [asked.title.as_str(), &asked.body].into_iter().chain(asked.options.iter().map(String::as_str));
    marks::marks(&all.collect::<Vec<_>>().join("\n"))
}

/// What a first page says that is not all; nothing where it is.
#[must_use]
pub fn missing(pages: &[Vec<String>], task: &str) -> Option<String> {
    let rows: usize = pages.iter().skip(1).map(Vec::len).sum();
    (rows > 0).then(|| format!("… {rows} more lines: tinkerbell inspect {task}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> ApprovalRequested {
        ApprovalRequested { kind: "approval".to_owned(), body: body.to_owned(), ..ApprovalRequested::default() }
    }

    #[test]
    fn nothing_of_a_long_body_is_left_out() {
        let body: String = (0..500).map(|at| format!("line {at}\n")).collect();
        let shown = pages(&asked(&body));
        assert_eq!((shown.len(), shown.concat().join("\n") + "\n"), (5, body));
        assert_eq!(missing(&shown, "7f3a").as_deref(), Some("… 380 more lines: tinkerbell inspect 7f3a"));
        let wide = "x".repeat(1 << 20) + "end";
        let shown = pages(&asked(&wide)).concat();
        assert_eq!(shown.len(), (1 << 20) / ROW + 1);
        assert_eq!(shown.iter().map(|row| row.strip_prefix(ON).unwrap_or(row)).collect::<String>(), wide);
        assert_eq!(missing(&pages(&asked("short")), "t"), None);
    }

    #[test]
    fn what_misleads_is_marked_and_told() {
        let asked = asked("curl p\u{430}ypal.com\x1b[2K\r\u{202e}\n");
        assert_eq!(pages(&asked), [["curl p<U+0430>ypal.com\\x1b[2K\\x0d<U+202E>"]]);
        assert_eq!(
            notes(&asked),
            [
                "! contains control characters: U+000D, U+001B",
                "! contains characters that change the direction of text: U+202E",
                "! contains look-alike letters: U+0430 in `p\u{430}ypal`"
            ]
        );
    }

    #[test]
    fn a_line_that_is_cut_says_so() {
        assert_eq!(line("abc\ndef", 20), "abc def");
        assert_eq!(line("abcdefgh", 5), "abcde… (3 more characters)");
    }
}
