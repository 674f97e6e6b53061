//! Chance by seed, asked by topic and not in order.
//!
//! A draw depends on the seed and on what it is asked about, never on what was drawn before: a
//! history from which one task or one fault is taken away keeps all other luck. Invariant: the same
//! question to the same dice has the same answer.

/// What is asked about; the first part of every question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The order of things that are due in the same millisecond.
    Order = 1,
    /// What a power cut leaves of a file.
    Tear,
    /// What a power cut leaves of names.
    Names,
    /// How long the disk takes.
    Disk,
    /// How long an act takes.
    Act,
    /// What the network does to a message.
    Net,
    /// What a model call costs.
    Cost,
    /// How long a keeper takes.
    Keeper,
    /// What a person does.
    Person,
    /// The ids that the engine draws.
    Ids,
    /// The runtime's own chance.
    Runtime,
    /// How long it takes until the daemon is started again.
    Start,
    /// What a power cut leaves of a run's directory.
    Runs,
    /// The plan of a history.
    Plan,
}

/// The dice of one history.
#[derive(Debug, Clone, Copy)]
pub struct Dice(u64);

const fn mix(mut z: u64) -> u64 {
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// Dice for this seed.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// 64 bits about this topic.
    pub fn roll(self, topic: Topic, about: &[u64]) -> u64 {
        about.iter().fold(mix(self.0 ^ mix(topic as u64)), |state, part| mix(state ^ mix(*part)))
    }

    /// A number from `low` up to and with `high`.
    pub fn between(self, low: u64, high: u64, topic: Topic, about: &[u64]) -> u64 {
        low + self.roll(topic, about) % (high.saturating_sub(low) + 1)
    }

    /// Whether something that happens `permille` times in a thousand happens.
    pub fn hits(self, permille: u64, topic: Topic, about: &[u64]) -> bool {
        self.roll(topic, about) % 1_000 < permille
    }

    /// Draws in order, for making plans.
    pub const fn stream(self) -> Stream {
        Stream { dice: self, drawn: 0 }
    }
}

/// Draws in order.
#[derive(Debug, Clone)]
pub struct Stream {
    dice: Dice,
    drawn: u64,
}

impl Stream {
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        self.dice.roll(Topic::Plan, &[self.drawn])
    }

    /// A number from `low` up to and with `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// Whether something that happens `permille` times in a thousand happens.
    pub fn hits(&mut self, permille: u64) -> bool {
        self.next() % 1_000 < permille
    }

    /// A number from `low` to `high` whose logarithm is even: small ones are as frequent as large.
    pub fn scaled(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (low.max(1).ilog2(), high.max(2).ilog2());
        let top = 1_u64 << self.between(u64::from(from), u64::from(to));
        self.between(top, top.saturating_mul(2).saturating_sub(1)).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer() {
        let (a, b, c) = (Dice::new(7), Dice::new(7), Dice::new(8));
        assert_eq!(a.roll(Topic::Act, &[1, 2]), b.roll(Topic::Act, &[1, 2]));
        assert_ne!(a.roll(Topic::Act, &[1, 2]), c.roll(Topic::Act, &[1, 2]));
        assert_ne!(a.roll(Topic::Act, &[1, 2]), a.roll(Topic::Act, &[2, 1]));
        let mut stream = a.stream();
        assert!((0..1_000).all(|_| (3..=700).contains(&stream.scaled(3, 700))));
    }
}
