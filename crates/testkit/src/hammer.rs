//! Hammering a reader with bytes: seeds bent in the ways in which files and sockets bend them.
//!
//! The little sister of a fuzzer, for every machine and every test run. Invariant: the same seeds and
//! rounds give the same inputs, so a finding can be repeated.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest input, so that a round is quick.
const MOST: usize = 16 << 10;

/// Gives `entry` each seed, and then `rounds` inputs that are made of them. The input that breaks it is
/// told in hexadecimal.
pub fn hammer(seeds: &[&[u8]], rounds: u32, entry: impl Fn(&[u8])) {
    let mut dice = Dice(0x7133_4B0B ^ u64::from(rounds));
    let tried = |input: &[u8]| {
        let hex = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(catch_unwind(AssertUnwindSafe(|| entry(input))).is_ok(), "the input was: {}", hex());
    };
    tried(b"");
    seeds.iter().for_each(|seed| tried(seed));
    for _ in 0..rounds {
        let mut input = dice.seed(seeds);
        for _ in 0..=dice.below(4) {
            dice.bend(&mut input, seeds);
        }
        input.truncate(MOST);
        tried(&input);
    }
}

/// Chance that can be repeated (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(wide).unwrap_or_default() % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"', b'\\', b'{', b'$', b'-'];
        let at = self.below(256 + TELLING.len());
        u8::try_from(at).unwrap_or_else(|_| TELLING.get(at - 256).copied().unwrap_or_default())
    }

    fn seed(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        // One of eight is made of nothing.
        match seeds.get(self.below(seeds.len())).filter(|_| self.below(8) > 0) {
            Some(seed) => seed.iter().take(MOST).copied().collect(),
            None => (0..self.below(200)).map(|_| self.byte()).collect(),
        }
    }

    /// One thing that happens to bytes.
    fn bend(&mut self, input: &mut Vec<u8>, seeds: &[&[u8]]) {
        let (from, to) = (self.below(input.len() + 1), self.below(input.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        match self.below(6) {
            0 => input.truncate(to),
            1 => drop(input.drain(from..to.min(from + 16))),
            2 => {
                let piece: Vec<u8> = input.get(from..to.min(from + 64)).unwrap_or_default().to_vec();
                input.splice(to..to, piece);
            }
            3 => {
                let other = self.seed(seeds);
                let begin = self.below(other.len() + 1);
                input.splice(from..to, other.into_iter().skip(begin).take(256));
            }
            4 => {
                let bit = 1_u8 << self.below(8);
                input.get_mut(from).into_iter().for_each(|byte| *byte ^= bit);
            }
            _ => {
                let byte = self.byte();
                input.insert(from, byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hammer;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    #[test]
    fn inputs_are_many_bounded_and_the_same_each_time() {
        let all = || {
            let seen = RefCell::new(Vec::new());
            hammer(&[b"one seed", &[7; 20_000]], 500, |input| seen.borrow_mut().push(input.to_vec()));
            seen.into_inner()
        };
        let first = all();
        assert_eq!(first, all());
        assert!(first.iter().skip(3).all(|input| input.len() <= 16 << 10));
        assert!(first.iter().collect::<BTreeSet<_>>().len() > 400, "inputs differ");
    }

    /// Here, because the language knows no tests of others.
    #[test]
    fn payloads_of_the_journal_survive_any_bytes() {
        let golden = include_str!("../../core/tests/golden/v1/events.txt");
        let bytes = |line: &str| {
            let word = line.split_whitespace().next_back()?;
            (0..word.len() / 2).map(|at| u8::from_str_radix(word.get(2 * at..2 * at + 2)?, 16).ok()).collect::<Option<Vec<u8>>>()
        };
        let seeds: Vec<Vec<u8>> = golden.lines().filter_map(bytes).collect();
        assert!(seeds.len() > 10, "the golden file is hexadecimal");
        let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
        hammer(&seeds, 10_000, tinkerbell_core::event::fuzz::payload);
    }

    #[test]
    fn texts_of_commands_survive_any_bytes() {
        let seeds: [&[u8]; 3] = [
            include_bytes!("../../core/tests/seeds/output"),
            include_bytes!("../../core/tests/seeds/facts"),
            b"a/./../.VSCode/settings.json:stream",
        ];
        hammer(&seeds, 10_000, tinkerbell_core::text::fuzz::text);
    }
}
