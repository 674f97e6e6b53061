//! What every provider of secrets keeps.
//!
//! Knows nothing of files or variables: a hand of the test's fills the places. Invariant checked above
//! all: a look gives what the place holds now, whole, or nothing.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use tinkerbell_secret::SecretProvider;

/// Changes that are made one after the other, faster than clocks of file systems tick.
const CHANGES: usize = 300;

/// A provider and the hand that fills its places.
pub trait Hand: Sync {
    /// The provider over the places that this hand fills.
    fn provider(&self) -> Arc<dyn SecretProvider>;
    /// The place that a short name of lower-case letters stands for.
    fn place(&self, name: &str) -> OsString;
    /// Puts a value there in one step, or takes it away.
    fn put(&self, place: &OsStr, value: Option<&str>);
}

/// Runs the whole suite.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub fn suite(hand: &impl Hand) {
    a_place_without_a_value_gives_none(hand);
    what_is_put_there_is_given_whole(hand);
    a_change_counts_at_the_next_look(hand);
    many_look_at_once_and_none_sees_a_half(hand);
    words_about_a_place_hold_no_value(hand);
}

fn look(provider: &dyn SecretProvider, place: &OsStr) -> Option<String> {
    provider.value(place).expect("is not refused").map(|value| value.expose().clone())
}

fn a_place_without_a_value_gives_none(hand: &impl Hand) {
    let (provider, place) = (hand.provider(), hand.place("nothing"));
    assert_eq!(look(&*provider, &place), None);
    assert_eq!(look(&*provider, OsStr::new("")), None, "no place at all");
    hand.put(&place, Some(""));
    assert_eq!(look(&*provider, &place), None, "an empty value is none");
    assert!(!provider.remedy(&place).is_empty(), "it says how to give one");
}

fn what_is_put_there_is_given_whole(hand: &impl Hand) {
    let (provider, place) = (hand.provider(), hand.place("whole"));
    let long = "0123456789abcdef".repeat(4_000);
    for value in ["x", " spaces around ", "ünï-cödé-🔑", "two\nlines of\r\na key", "equals=and\\\"quotes'", &long] {
        hand.put(&place, Some(value));
        for _ in 0..2 {
            assert_eq!(look(&*provider, &place).as_deref(), Some(value));
            assert_eq!(look(&*hand.provider(), &place).as_deref(), Some(value), "another provider over the same places");
        }
    }
    hand.put(&place, None);
    assert_eq!(look(&*provider, &place), None, "what was taken away is not remembered");
}

fn a_change_counts_at_the_next_look(hand: &impl Hand) {
    let (provider, place) = (hand.provider(), hand.place("changes"));
    for number in 0..CHANGES {
        // All of one length.
        let value = format!("value-{number:04}");
        hand.put(&place, Some(&value));
        assert_eq!(look(&*provider, &place), Some(value));
    }
}

fn many_look_at_once_and_none_sees_a_half(hand: &impl Hand) {
    let (provider, place) = (hand.provider(), hand.place("shared"));
    let values = ["a".repeat(3_000), "b".repeat(3_000)];
    hand.put(&place, Some(&values[0]));
    std::thread::scope(|scope| {
        let looked: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..CHANGES {
                        let seen = look(&*provider, &place);
                        assert!(seen.is_some_and(|seen| values.contains(&seen)), "a look gives one of the values, whole");
                    }
                })
            })
            .collect();
        for number in 0..CHANGES {
            hand.put(&place, values.get(number % 2).map(String::as_str));
        }
        looked.into_iter().for_each(|thread| thread.join().expect("thread ends"));
    });
}

fn words_about_a_place_hold_no_value(hand: &impl Hand) {
    let (provider, place) = (hand.provider(), hand.place("quiet"));
    hand.put(&place, Some("a-value-that-nobody-prints"));
    let words = format!("{} {:?} {:?}", provider.remedy(&place), provider.changed_s(&place), provider.value(&place));
    assert!(!words.contains("a-value-that-nobody-prints"), "{words}");
}
