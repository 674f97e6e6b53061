//! Canaries: values that must turn up nowhere, and the forms in which tools write them.
//!
//! Written without a look at what the redactor looks for, so that what one of the two forgets the other
//! finds. Invariant: a number gives the same values, text and cuts for ever, and each form holds the
//! whole value.

use std::fmt::Write as _;

/// Where values come from, by the names under which they are known.
pub const CHANNELS: [&str; 4] = ["LOCAL_KEY", "variable", "file", "git credential"];

/// Runs in a row that have the same values: what looks for them is dear to make.
pub const SAME: usize = 10;

/// Shortest piece of a form that counts as found: shorter ones tell little, and are the edges that a
/// form shares with its neighbours.
const PIECE: usize = 12;

/// A way of writing a value, beginning after what its neighbours have written.
type Form = fn(&str, &mut Dice) -> Written;

/// The forms by name: those that `docs/secrets.md` promises.
pub const FORMS: [(&str, Form); 19] = [
    ("plain", |value, _| Written::all(value.to_owned())),
    ("plain, in a word", |value, dice| Written::within(&dice.word(6), value, &dice.word(6))),
    ("Base64", |value, _| Written::cut(&base64(value.as_bytes(), STANDARD), (0, 2))),
    ("Base64 within more", |value, dice| in_base64(value, dice, STANDARD)),
    ("Base64 for URLs within more", |value, dice| in_base64(value, dice, FOR_URLS)),
    ("Base64 in lines", |value, _| {
        let text = base64(value.as_bytes(), STANDARD);
        let lines: Vec<&str> = text.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Written::cut(&lines.join("\n"), (0, 2))
    }),
    ("hexadecimal", |value, dice| Written::within(&dice.hex(), &hex(value, false), &dice.hex())),
    ("hexadecimal, upper case", |value, dice| Written::within(&dice.hex(), &hex(value, true), &dice.hex())),
    ("URL", |value, dice| Written::within(&dice.word(4), &percent(value, "-._~", true), "&x=1")),
    ("URL, lower case", |value, _| Written::within("?k=", &percent(value, "-._~", false), "")),
    ("URL, as Python quotes a path", |value, _| Written::within("/", &percent(value, "-._~/", true), "/")),
    ("URL, of a form", |value, _| Written::within("a=b&c=", &percent(value, "-._*", true).replace("%20", "+"), "&d=")),
    ("JSON", |value, _| Written::within("{\"k\":\"", &json(value, &Json::default()), "\"}")),
    ("JSON, as Python writes it", |value, _| Written::within("[\"", &json(value, &Json { ascii: true, ..Json::default() }), "\"]")),
    ("JSON, as PHP writes it", |value, _| Written::within("[\"", &json(value, &Json { ascii: true, slash: true, html: false }), "\"]")),
    ("JSON, as Go writes it", |value, _| Written::within("[\"", &json(value, &Json { html: true, ..Json::default() }), "\"]")),
    ("JSON within JSON", |value, _| {
        let inner = format!("{{\"k\":\"{}\"}}", json(value, &Json::default()));
        let whole = json(&inner, &Json::default());
        let core = whole.get(9..whole.len().saturating_sub(3)).unwrap_or_default().to_owned();
        Written { core, text: format!("\"{whole}\"") }
    }),
    ("shell, single quotes", |value, _| Written::within("'", &value.replace('\'', "'\\''"), "'")),
    ("shell, double quotes", |value, _| Written::within("\"", &escaped(value, "\"\\$`"), "\"")),
];

/// A form of a value within what stands around it.
#[derive(Debug, Clone)]
pub struct Written {
    /// All of it.
    pub text: String,
    /// The part that nothing but the value gives.
    pub core: String,
}

impl Written {
    fn all(text: String) -> Self {
        Self { core: text.clone(), text }
    }

    fn within(before: &str, core: &str, after: &str) -> Self {
        Self { text: format!("{before}{core}{after}"), core: core.to_owned() }
    }

    /// All but so many signs at both ends.
    fn cut(text: &str, (first, last): (usize, usize)) -> Self {
        let trimmed = text.trim_end_matches('=');
        Self { core: trimmed.get(first..trimmed.len().saturating_sub(last)).unwrap_or_default().to_owned(), text: text.to_owned() }
    }
}

/// Chance that can be repeated (xorshift64*).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a number.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % end
    }

    /// Letters and digits, fewer than `end`.
    pub fn word(&mut self, end: usize) -> String {
        let count = self.below(end);
        self.signs(count, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    }

    fn hex(&mut self) -> String {
        let count = self.below(4) * 2;
        self.signs(count, "0123456789abcdef")
    }

    /// So many signs of these.
    pub fn signs(&mut self, count: usize, of: &str) -> String {
        let of: Vec<char> = of.chars().collect();
        (0..count).filter_map(|_| of.get(self.below(of.len())).copied()).collect()
    }
}

/// A value of its own for this number and channel: tokens, keys with signs that encodings change,
/// sentences, letters of other scripts, long ones.
#[must_use]
pub fn value(dice: &mut Dice) -> String {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let length = 16 + dice.below(40);
    let middle = match dice.below(5) {
        0 => dice.signs(length, LETTERS),
        1 => dice.signs(length, &format!("{LETTERS}+/=-_")),
        2 => dice.signs(length, &format!("{LETTERS} !\"#$%&'()*+,-./:;<=>?@[\\]^_`{{|}}~")),
        3 => dice.signs(length, &format!("{LETTERS}/<&éßжλ€中😀")),
        _ => dice.signs(100 + length, &format!("{LETTERS}._-")),
    };
    // White space at the ends does not count as part of a value.
    format!("k{middle}z")
}

/// One run: values that are known, and texts in which they stand.
#[derive(Debug)]
pub struct Run {
    /// A value for each of [`CHANNELS`].
    pub values: Vec<(String, String)>,
    /// What stands in the text: the name of channel and form, and what of the form must not be seen.
    pub leaks: Vec<(&'static str, &'static str, String)>,
    /// The text.
    pub text: String,
    /// The same in the pieces in which it comes.
    pub pieces: Vec<Vec<u8>>,
}

impl Run {
    /// The run of a number. As numbers grow the first leak goes through all channels and forms; the rest
    /// is chance.
    #[must_use]
    pub fn of(number: usize) -> Self {
        let mut dice = Dice::new((number / SAME) as u64);
        let values: Vec<(String, String)> = CHANNELS.iter().map(|name| ((*name).to_owned(), value(&mut dice))).collect();
        let mut dice = Dice::new(!(number as u64));
        let (mut text, mut leaks) = (String::new(), Vec::new());
        let cell = |at: usize| (at / FORMS.len() % CHANNELS.len(), at % FORMS.len());
        for leak in 0..=dice.below(4) {
            let (channel, form) = if leak == 0 { cell(number) } else { cell(dice.below(CHANNELS.len() * FORMS.len())) };
            let (Some((_, value)), Some((name, write))) = (values.get(channel), FORMS.get(form)) else { continue };
            let written = write(value, &mut dice);
            // A piece of a value says nothing, and must not confuse who looks for all of it.
            let noise = value.chars().take(dice.below(6)).collect::<String>();
            let _infallible = write!(text, "{} {noise}\n{} ", dice.word(30), written.text);
            leaks.push((CHANNELS.get(channel).copied().unwrap_or_default(), *name, written.core));
        }
        text.push_str(&dice.word(20));
        let pieces = cut(text.as_bytes(), &mut dice);
        Self { values, leaks, text, pieces }
    }

    /// What of this run's leaks stands in `bytes`: channel, form, and the piece that was found.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        self.leaks.iter().find_map(|(channel, form, core)| {
            let seen = piece_in(core, &text)?;
            Some(format!("`{seen}` of `{core}`, {form}, {channel}"))
        })
    }
}

/// A piece of a form that stands in a text: of twelve signs, or the whole where that is shorter.
#[must_use]
pub fn piece_in<'a>(core: &'a str, text: &str) -> Option<&'a str> {
    let signs: Vec<usize> = core.char_indices().map(|(at, _)| at).chain([core.len()]).collect();
    let last = signs.len().saturating_sub(1);
    let length = PIECE.min(last);
    let starts = (0..=last - length).step_by(2);
    starts
        .filter_map(|from| core.get(*signs.get(from)?..*signs.get(from + length)?))
        .find(|piece| !piece.is_empty() && text.contains(piece))
}

/// All at once, sign by sign, or in pieces of some size.
fn cut(bytes: &[u8], dice: &mut Dice) -> Vec<Vec<u8>> {
    let most = match dice.below(4) {
        0 => return vec![bytes.to_vec()],
        1 => 1,
        2 => 7,
        _ => 64,
    };
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + dice.below(most)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with its filling.
fn base64(bytes: &[u8], signs: &[u8; 64]) -> String {
    let group = |part: &[u8]| {
        let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        let sign = |at: usize| signs.get((bits >> (18 - 6 * at) & 63) as usize).map_or('=', |sign| char::from(*sign));
        (0..4).map(|at| if at <= part.len() { sign(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A value between other bytes, and of that the signs whose bits are all the value's.
fn in_base64(value: &str, dice: &mut Dice, signs: &[u8; 64]) -> Written {
    let (before, after) = (dice.word(8), dice.word(8));
    let text = base64(format!("{before}{value}{after}").as_bytes(), signs);
    let (first, end) = ((before.len() * 8).div_ceil(6), (before.len() + value.len()) * 8 / 6);
    Written { core: text.get(first..end).unwrap_or_default().to_owned(), text }
}

fn hex(value: &str, upper: bool) -> String {
    value.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
}

fn percent(value: &str, kept: &str, upper: bool) -> String {
    let one = |byte: u8| match (char::from(byte), upper) {
        (sign, _) if byte.is_ascii_alphanumeric() || (byte.is_ascii() && kept.contains(sign)) => sign.to_string(),
        (_, true) => format!("%{byte:02X}"),
        (_, false) => format!("%{byte:02x}"),
    };
    value.bytes().map(one).collect()
}

/// What a writer of JSON escapes beyond what it must.
#[derive(Debug, Clone, Copy, Default)]
struct Json {
    ascii: bool,
    slash: bool,
    html: bool,
}

fn json(value: &str, how: &Json) -> String {
    let mut out = String::new();
    for sign in value.chars() {
        match sign {
            '"' | '\\' => out.extend(['\\', sign]),
            '\n' => out.push_str("\\n"),
            '/' if how.slash => out.push_str("\\/"),
            '<' | '>' | '&' if how.html => out.push_str(&format!("\\u{:04x}", sign as u32)),
            sign if how.ascii && !sign.is_ascii() => {
                sign.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
            sign => out.push(sign),
        }
    }
    out
}

fn escaped(value: &str, special: &str) -> String {
    value.chars().flat_map(|sign| special.contains(sign).then_some('\\').into_iter().chain([sign])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn each_form_holds_its_value_and_is_found_in_itself() {
        assert_eq!(base64(b"canary!", STANDARD), "Y2FuYXJ5IQ==");
        for number in 0..CHANNELS.len() * FORMS.len() {
            let run = Run::of(number);
            assert_eq!(run.pieces.concat(), run.text.as_bytes());
            assert_eq!(Run::of(number).text, run.text, "a number gives the same again");
            for (channel, form, core) in &run.leaks {
                assert!(core.chars().count() >= PIECE && run.text.contains(core.as_str()), "{number}: {form} of {channel}: {core}");
            }
            assert!(run.found_in(run.text.as_bytes()).is_some());
            assert!(run.found_in(b"nothing of it").is_none());
        }
        let written = FORMS[16].1("a\"b\\c/defghijkl", &mut Dice::new(1));
        assert_eq!(written.core, r#"a\\\"b\\\\c/defghijkl"#);
    }
}
