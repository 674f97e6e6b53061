//! Asking on the terminal: a choice, a line, yes or no.
//!
//! The only place that reads a person's keys. Blocks, so callers in a runtime use a blocking
//! thread. Invariants: a question that was interrupted leaves the cursor visible and no answer; keys that were typed
//! before a person can have seen the question answer nothing.

use dialoguer::Input;
use dialoguer::console::{Key, Term, measure_text_width};
use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use std::io;
use std::time::Duration;

/// So long keys are no answer to what has just appeared: the simplest reaction to what is seen takes people about a
/// fifth of a second (Luce, Response Times, 1986), and a question has to be read besides.
const UNSEEN: Duration = Duration::from_millis(300);

/// How to ask: with a list that moves, or with numbered lines for terminals (and readers) that
/// only take lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Whether the cursor may move.
    pub moves: bool,
}

impl Asker {
    /// The number of the chosen item; `None` when nothing was chosen.
    ///
    /// # Errors
    /// When the terminal is lost or the question was interrupted.
    pub fn choose(self, question: &str, items: &[String], default: usize) -> io::Result<Option<usize>> {
        let term = Term::stderr();
        if self.moves {
            let chosen = pick(&term, question, items, default);
            // Without a terminal there is no cursor to show.
            term.show_cursor().ok();
            return chosen;
        }
        term.write_line(question)?;
        for (at, item) in items.iter().enumerate() {
            term.write_line(&format!("  {}. {item}", at + 1))?;
        }
        let given = line(&format!("(1-{}, empty: {})", items.len(), default + 1))?;
        Ok(number(&given, items.len(), default))
    }

    /// A line, beginning with a suggestion that can be changed.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub fn text(self, question: &str, suggested: &str) -> io::Result<String> {
        let term = Term::stderr();
        if self.moves {
            term.write_line(question)?;
            unseen();
            term.clear_last_lines(rows_of(&term, question))?;
            let input = Input::new().with_prompt(question).allow_empty(true).with_initial_text(suggested);
            return input.interact_text_on(&term).map_err(shown);
        }
        term.write_line(question)?;
        let given = line(&if suggested.is_empty() { "answer".to_owned() } else { format!("answer (empty: {suggested})") })?;
        Ok(if given.trim().is_empty() { suggested.to_owned() } else { given.trim_end().to_owned() })
    }

    /// Yes or no.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub fn confirm(self, question: &str, default: bool) -> io::Result<Option<bool>> {
        let choices = ["yes", "no"].map(str::to_owned);
        Ok(self.choose(question, &choices, usize::from(!default))?.map(|choice| choice == 0))
    }
}

/// Lets the time pass in which a question can not have been read, and forgets what was typed until then. The terminal
/// keeps its modes, so that a signal finds nothing to put back; what is typed shows, and counts for nothing.
fn unseen() {
    let stdin = rustix::stdio::stdin();
    // No terminal: whoever wrote that down before meant it as an answer.
    if tcgetattr(stdin).is_ok() {
        std::thread::sleep(UNSEEN);
        tcflush(stdin, QueueSelector::IFlush).ok();
    }
}

/// A list in which the arrows move and Enter chooses. No letter and no blank does anything: they are what people type
/// who think that they are elsewhere.
fn pick(term: &Term, question: &str, items: &[String], default: usize) -> io::Result<Option<usize>> {
    let (mut at, hint) = (default, "(arrows, then Enter)");
    let mut drawn = draw(term, question, items, at)?;
    unseen();
    // Only now: who reads it may answer.
    term.write_line(hint)?;
    term.hide_cursor()?;
    let chosen = loop {
        // Raw: the cursor is shown before an interruption ends us.
        match term.read_key_raw()? {
            Key::ArrowDown => at = (at + 1) % items.len().max(1),
            Key::ArrowUp => at = at.checked_sub(1).unwrap_or(items.len().saturating_sub(1)),
            Key::Enter => break Some(at),
            Key::Escape => break None,
            Key::CtrlC => {
                term.show_cursor()?;
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)?;
                return Err(io::ErrorKind::Interrupted.into());
            }
            _ => continue,
        }
        term.clear_last_lines(drawn + 1)?;
        drawn = draw(term, question, items, at)?;
        term.write_line(hint)?;
    };
    term.clear_last_lines(drawn + 1)?;
    if let Some(item) = chosen.and_then(|at| items.get(at)) {
        term.write_line(&format!("{question}: {item}"))?;
    }
    Ok(chosen)
}

/// Writes the question and as much of a list around the chosen item as the window has room for; gives the rows that it
/// took.
fn draw(term: &Term, question: &str, items: &[String], at: usize) -> io::Result<usize> {
    let shown = |index: usize| items.get(index).map(|item| format!("{} {item}", if index == at { ">" } else { " " }));
    let height = |index: usize| shown(index).map_or(usize::MAX, |text| rows_of(term, &text));
    let asked = rows_of(term, question);
    // The hint, and the row below it in which the cursor stands.
    let room = usize::from(term.size().0).saturating_sub(asked + 2);
    let (mut first, mut end, mut used) = (at, at + 1, height(at));
    loop {
        let before = first.checked_sub(1).filter(|above| used.saturating_add(height(*above)) <= room);
        if let Some(above) = before {
            (first, used) = (above, used + height(above));
        }
        let has_next = end < items.len() && used.saturating_add(height(end)) <= room;
        if has_next {
            (end, used) = (end + 1, used + height(end));
        }
        if before.is_none() && !has_next {
            break;
        }
    }
    term.write_line(question)?;
    (first..end).filter_map(shown).try_for_each(|text| term.write_line(&text))?;
    Ok(used.saturating_add(asked))
}

/// Rows that a line takes in this window.
fn rows_of(term: &Term, text: &str) -> usize {
    measure_text_width(text).div_ceil(usize::from(term.size().1).max(1)).max(1)
}

/// The terminal as it was before a question, for one that a signal cut off.
#[derive(Debug)]
pub struct Before {
    modes: Termios,
    moves: bool,
}

impl Before {
    /// As it is now; `None` when standard input is no terminal.
    pub fn now(asker: Asker) -> Option<Self> {
        let modes = tcgetattr(rustix::stdio::stdin()).ok()?;
        Some(Self { modes, moves: asker.moves })
    }

    /// Puts the modes and the cursor back. A terminal that is gone has none.
    pub fn restore(&self) {
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.modes).ok();
        if self.moves {
            Term::stderr().show_cursor().ok();
        }
    }
}

/// The index that a typed number means.
fn number(given: &str, count: usize, default: usize) -> Option<usize> {
    if given.trim().is_empty() {
        return Some(default);
    }
    let number: usize = given.trim().parse().ok()?;
    number.checked_sub(1).filter(|at| *at < count)
}

/// One line from standard input, for a question that stands on the screen; its end without a line is no answer.
fn line(hint: &str) -> io::Result<String> {
    unseen();
    Term::stderr().write_str(&format!("{hint}: "))?;
    let mut text = String::new();
    if io::stdin().read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text)
}

/// An interrupted prompt leaves the cursor hidden; it is shown again.
fn shown(error: dialoguer::Error) -> io::Error {
    // Without a terminal there is no cursor to show.
    Term::stderr().show_cursor().ok();
    let dialoguer::Error::IO(error) = error;
    error
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn only_a_number_of_the_list_chooses() {
        for (given, chosen) in
            [("", Some(2)), ("\n", Some(2)), ("1\n", Some(0)), (" 3 ", Some(2)), ("0", None), ("4", None), ("y", None), ("-1", None)]
        {
            assert_eq!(number(given, 3, 2), chosen, "{given:?}");
        }
    }
}
