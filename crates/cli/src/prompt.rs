//! Asking on the terminal: a choice, a line, yes or no.
//!
//! The only place that reads a person's keys. Blocks, so callers in a runtime use a blocking
//! thread. Invariant: a question that was interrupted leaves the cursor visible and no answer.

use dialoguer::console::Term;
use dialoguer::{Input, Select};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io;

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
        if self.moves {
            let select = Select::new().with_prompt(question).items(items).default(default);
            return select.interact_on_opt(&Term::stderr()).map_err(shown);
        }
        let term = Term::stderr();
        for (at, item) in items.iter().enumerate() {
            term.write_line(&format!("  {}. {item}", at + 1))?;
        }
        let given = line(&format!("{question} (1-{}, empty: {})", items.len(), default + 1))?;
        Ok(number(&given, items.len(), default))
    }

    /// A line, beginning with a suggestion that can be changed.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub fn text(self, question: &str, suggested: &str) -> io::Result<String> {
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
