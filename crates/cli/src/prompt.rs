//! Asking on the terminal: a choice, a line, yes or no.
//!
//! The only place that reads a person's keys. Blocks, so callers in a runtime use a blocking
//! thread. Invariants: a question that was interrupted leaves the cursor visible and no answer; keys that were typed
//! before a person can have seen the question answer nothing.

use dialoguer::Input;
use dialoguer::console::{Key, Term, measure_text_width};
use rustix::termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use std::io;
use std::time::Duration;

/// So long nobody's keys can be an answer to what has just appeared: people need a quarter of a second at least to react
/// to what they see (a simple reaction to a picture takes about that; Luce, Response Times, 1986).
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
        for (at, item) in items.iter().enumerate() {
            term.write_line(&format!("  {}. {item}", at + 1))?;
        }
        unseen();
        let given = line(&format!("{question} (1-{}, empty: {})", items.len(), default + 1))?;
        Ok(number(&given, items.len(), default))
    }

    /// A line, beginning with a suggestion that can be changed.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub fn text(self, question: &str, suggested: &str) -> io::Result<String> {
        unseen();
        if self.moves {
            let input = Input::new().with_prompt(question).allow_empty(true).with_initial_text(suggested);
            return input.interact_text_on(&Term::stderr()).map_err(shown);
        }
        let lead = if suggested.is_empty() { question.to_owned() } else { format!("{question} [{suggested}]") };
        let given = line(&lead)?;
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

/// Lets the time pass in which a question can not have been read, and forgets what was typed until then.
fn unseen() {
    let stdin = rustix::stdio::stdin();
    // No terminal: whoever wrote that down before meant it as an answer.
    let Ok(modes) = tcgetattr(stdin) else { return };
    let mut silent = modes.clone();
    silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
    // A terminal that refuses shows the keys, which is ugly and no more.
    tcsetattr(stdin, OptionalActions::Now, &silent).ok();
    std::thread::sleep(UNSEEN);
    tcflush(stdin, QueueSelector::IFlush).ok();
    tcsetattr(stdin, OptionalActions::Now, &modes).ok();
}

/// A list in which the arrows move and Enter chooses. No letter and no blank does anything: they are what people type
/// who think that they are elsewhere.
fn pick(term: &Term, question: &str, items: &[String], default: usize) -> io::Result<Option<usize>> {
    let columns = usize::from(term.size().1).max(1);
    let mut at = default;
    let draw = |at: usize| -> io::Result<usize> {
        let mut rows = 0;
        for (index, item) in items.iter().enumerate() {
            let text = format!("{} {item}", if index == at { ">" } else { " " });
            term.write_line(&text)?;
            rows += measure_text_width(&text).div_ceil(columns).max(1);
        }
        Ok(rows)
    };
    term.hide_cursor()?;
    let mut rows = draw(at)?;
    unseen();
    // Below the list, and only now: who reads it may answer.
    let asked = format!("{question} (arrows, then Enter)");
    let below = measure_text_width(&asked).div_ceil(columns).max(1);
    term.write_line(&asked)?;
    let chosen = loop {
        match term.read_key()? {
            Key::ArrowDown => at = (at + 1) % items.len().max(1),
            Key::ArrowUp => at = at.checked_sub(1).unwrap_or(items.len().saturating_sub(1)),
            Key::Enter => break Some(at),
            Key::Escape => break None,
            _ => continue,
        }
        term.clear_last_lines(rows + below)?;
        rows = draw(at)?;
        term.write_line(&asked)?;
    };
    term.clear_last_lines(rows + below)?;
    if let Some(item) = chosen.and_then(|at| items.get(at)) {
        term.write_line(&format!("{question}: {item}"))?;
    }
    Ok(chosen)
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

/// One line from standard input; its end without a line is no answer.
fn line(question: &str) -> io::Result<String> {
    Term::stderr().write_str(&format!("{question}: "))?;
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
