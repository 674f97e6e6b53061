//! Where words go: data to stdout, talk to stderr, and who may be asked.
//!
//! Knows streams and manners, not tasks. Invariant: a closed stream is remembered and never a
//! panic.

use crate::args::{Color, Manners};
use crate::prompt::Asker;
use anstyle::{AnsiColor, Style};
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tinkerbell_core::code::Fault;

/// Sink of a stream.
type Sink = Mutex<Box<dyn Write + Send>>;

/// The streams of this process with the manners that hold for them.
pub struct Output {
    data: Sink,
    talk: Sink,
    has_data_color: bool,
    has_talk_color: bool,
    is_data_terminal: bool,
    is_talk_terminal: bool,
    can_ask: bool,
    has_progress: bool,
    is_quiet: bool,
    verbosity: u8,
    is_ascii: bool,
    is_closed: AtomicBool,
    trouble: Mutex<Option<String>>,
}

/// Meanings that have a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// No colour.
    Plain,
    /// It went well.
    Good,
    /// It failed.
    Bad,
    /// A person should look.
    Look,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
}

impl Tone {
    const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Good => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green))),
            Self::Bad => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))).bold(),
            Self::Look => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
            Self::Dim => style.dimmed(),
            Self::Strong => style.bold(),
        }
    }

    /// The text in this tone's colour, if colours are wanted.
    #[must_use]
    pub fn paint(self, text: &str, has_color: bool) -> String {
        if !has_color || self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

impl Output {
    /// The streams of the process.
    #[must_use]
    pub fn process(manners: &Manners) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let is_talk_terminal = stderr.is_terminal();
        let found = anstream::AutoStream::choice(&stderr);
        // A terminal without colours may be a dumb one that can not move its cursor: lines do there.
        let is_dumb = found == anstream::ColorChoice::Never && manners.color != Color::Always;
        let has_talk_color = has_color(manners.color, found);
        Self {
            has_data_color: has_color(manners.color, anstream::AutoStream::choice(&stdout)),
            is_data_terminal: stdout.is_terminal(),
            can_ask: io::stdin().is_terminal() && is_talk_terminal && !manners.no_input,
            has_progress: is_talk_terminal && !is_dumb && !manners.no_progress && !manners.quiet,
            data: Mutex::new(Box::new(stdout)),
            talk: Mutex::new(Box::new(stderr)),
            has_talk_color,
            is_talk_terminal,
            is_quiet: manners.quiet,
            verbosity: manners.verbose,
            is_ascii: manners.ascii,
            is_closed: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// Plain streams into given sinks: no terminal, no colour, nobody to ask.
    #[must_use]
    pub fn plain(data: Box<dyn Write + Send>, talk: Box<dyn Write + Send>) -> Self {
        Self {
            data: Mutex::new(data),
            talk: Mutex::new(talk),
            has_data_color: false,
            has_talk_color: false,
            is_data_terminal: false,
            is_talk_terminal: false,
            can_ask: false,
            has_progress: false,
            is_quiet: false,
            verbosity: 0,
            is_ascii: false,
            is_closed: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// One line of data on stdout.
    pub fn data(&self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    /// Bytes of data on stdout, as they are.
    pub fn raw(&self, bytes: &[u8]) {
        let Err(error) = write(&self.data, bytes) else { return };
        // A reader that had enough is no trouble; a full disk is.
        if error.kind() != io::ErrorKind::BrokenPipe {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Why data could not be written to stdout, if it was not just a reader that left.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One line of talk on stderr; nothing when quiet.
    pub fn talk(&self, line: &str) {
        if !self.is_quiet {
            self.error(line);
        }
    }

    /// One line on stderr, even when quiet.
    pub fn error(&self, line: &str) {
        // A closed stderr leaves nobody to tell; the exit code still says it.
        write(&self.talk, format!("{line}\n").as_bytes()).ok();
    }

    /// Sends a sequence that calls a person, where a terminal would show it and somebody may be asked.
    pub fn call(&self, sequence: &str) {
        if self.can_ask && !self.is_quiet && !sequence.is_empty() {
            // A terminal that is gone calls nobody.
            write(&self.talk, sequence.as_bytes()).ok();
        }
    }

    /// Whether stdout was closed by its reader: there is no point in going on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Whether a person can be asked.
    #[must_use]
    pub const fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// How to ask a person here.
    pub(crate) const fn asker(&self) -> Asker {
        Asker { moves: self.has_progress }
    }

    /// Asks yes or no; `None` when nobody can be asked or the question was interrupted. Blocks.
    #[must_use]
    pub fn confirm(&self, question: &str, default: bool) -> Option<bool> {
        if !self.can_ask {
            return None;
        }
        self.asker().confirm(&crate::render::one_line(question, 200), default).ok().flatten()
    }

    /// Asks for a line, beginning with a suggestion; `None` as for [`Self::confirm`]. Blocks.
    #[must_use]
    pub fn ask_line(&self, question: &str, suggested: &str) -> Option<String> {
        if !self.can_ask {
            return None;
        }
        self.asker()
            .text(&crate::render::one_line(question, 200), &crate::render::one_line(suggested, 200))
            .ok()
            .map(|line| line.trim().to_owned())
    }

    /// Shows a fault on stderr as the command line does; returns its exit code.
    pub fn fail(&self, fault: &Fault) -> u8 {
        self.error(&crate::render::fault::fault(fault, self.has_talk_color));
        fault.exit
    }

    /// Whether spinners are wanted.
    #[must_use]
    pub const fn has_progress(&self) -> bool {
        self.has_progress
    }

    /// Whether stdout is a terminal.
    #[must_use]
    pub const fn is_data_terminal(&self) -> bool {
        self.is_data_terminal
    }

    /// Whether stderr is a terminal.
    #[must_use]
    pub const fn is_talk_terminal(&self) -> bool {
        self.is_talk_terminal
    }

    /// Whether only errors are wanted.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// How often `-v` was given.
    #[must_use]
    pub const fn verbosity(&self) -> u8 {
        self.verbosity
    }

    /// Whether signs must be ASCII.
    #[must_use]
    pub const fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// The text in a tone, for stdout.
    #[must_use]
    pub fn on_data(&self, tone: Tone, text: &str) -> String {
        tone.paint(text, self.has_data_color)
    }

    /// The text in a tone, for stderr.
    #[must_use]
    pub fn on_talk(&self, tone: Tone, text: &str) -> String {
        tone.paint(text, self.has_talk_color)
    }
}

fn has_color(wish: Color, found: anstream::ColorChoice) -> bool {
    match wish {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => found != anstream::ColorChoice::Never,
    }
}

fn write(sink: &Sink, bytes: &[u8]) -> io::Result<()> {
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    sink.write_all(bytes)?;
    sink.flush()
}
