//! Calling a person back to the terminal: the bell, and a notice where the terminal shows them.
//!
//! Pure: what the terminal is was found out by the roof. Invariant: nothing of a task's text leaves the
//! sequence that carries it.

use crate::render::question;

/// How this terminal calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Call {
    /// Not at all.
    #[default]
    Off,
    /// The bell.
    Bell,
    /// The bell, and OSC 9 (iTerm2, WezTerm, Ghostty, kitty).
    Osc9,
    /// The bell, and OSC 777 (foot, rxvt, terminals on VTE).
    Osc777,
}

/// A terminal, as far as calling goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// How it calls.
    pub call: Call,
    /// Whether tmux stands between, which passes on what is wrapped.
    pub is_tmux: bool,
}

/// Most characters of a notice.
const MOST: usize = 120;

impl Notify {
    /// From the variables of the terminal; `get` gives those that are set and not empty.
    #[must_use]
    pub fn of(get: impl Fn(&str) -> Option<String>) -> Self {
        let term = get("TERM").unwrap_or_default();
        let is_tmux = get("TMUX").is_some();
        let program = get("TERM_PROGRAM").or_else(|| get("LC_TERMINAL")).unwrap_or_default().to_ascii_lowercase();
        let is = |names: &[&str]| names.iter().any(|name| program.contains(name) || term.contains(name));
        let call = if term.is_empty() || term == "dumb" || term == "linux" {
            if term == "linux" { Call::Bell } else { Call::Off }
        } else if is(&["iterm", "wezterm", "ghostty", "kitty"]) || get("KITTY_WINDOW_ID").is_some() {
            Call::Osc9
        } else if is(&["foot", "rxvt"]) || get("VTE_VERSION").is_some() {
            Call::Osc777
        } else {
            Call::Bell
        };
        Self { call, is_tmux }
    }

    /// The bytes that call with this text; empty where nothing is wanted.
    #[must_use]
    pub fn bytes(self, text: &str) -> String {
        // A semicolon would begin the next field of the sequence.
        let text = question::line(text, MOST).replace(';', ",");
        let notice = match self.call {
            Call::Off => return String::new(),
            Call::Bell => return "\x07".to_owned(),
            Call::Osc9 => format!("\x1b]9;{text}\x07"),
            Call::Osc777 => format!("\x1b]777;notify;tinkerbell;{text}\x07"),
        };
        // Within tmux an escape is doubled, and the whole wrapped; the bell is tmux's own to pass on.
        let notice = if self.is_tmux { format!("\x1bPtmux;{}\x1b\\", notice.replace('\x1b', "\x1b\x1b")) } else { notice };
        format!("\x07{notice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Notify {
        Notify::of(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_terminal_is_called_in_its_way() {
        for (set, call, is_tmux) in [
            (&[][..], Call::Off, false),
            (&[("TERM", "dumb")], Call::Off, false),
            (&[("TERM", "linux")], Call::Bell, false),
            (&[("TERM", "xterm-256color")], Call::Bell, false),
            (&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")], Call::Osc9, false),
            (&[("TERM", "xterm-kitty")], Call::Osc9, false),
            (&[("TERM", "foot")], Call::Osc777, false),
            (&[("TERM", "xterm-256color"), ("VTE_VERSION", "7600")], Call::Osc777, false),
            (&[("TERM", "tmux-256color"), ("TMUX", "/tmp/t,1,0"), ("LC_TERMINAL", "iTerm2"), ("TERM_PROGRAM", "")], Call::Bell, true),
            (&[("TERM", "tmux-256color"), ("TMUX", "/tmp/t,1,0"), ("LC_TERMINAL", "iTerm2")], Call::Osc9, true),
        ] {
            assert_eq!(of(set), Notify { call, is_tmux }, "{set:?}");
        }
    }

    #[test]
    fn a_text_stays_within_its_sequence() {
        let bytes = |call, is_tmux, text: &str| Notify { call, is_tmux }.bytes(text);
        assert_eq!(bytes(Call::Off, false, "x"), "");
        assert_eq!(bytes(Call::Bell, true, "x"), "\x07");
        assert_eq!(bytes(Call::Osc9, false, "a;b\x07\x1b]52;c\u{202e}"), "\x07\x1b]9;a,b\\x07\\x1b]52,c<U+202E>\x07");
        assert_eq!(bytes(Call::Osc777, true, "a"), "\x07\x1bPtmux;\x1b\x1b]777;notify;tinkerbell;a\x07\x1b\\");
    }
}
