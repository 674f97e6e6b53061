//! Questions to a person: which of those that stand is this one, and what its answer is worth now.
//!
//! Pure. An approval is bound to facts, a moment and a nonce, and its digest is computed again from what
//! is about to happen whenever it is looked for. Invariant: an answer is given back only for the same
//! effect and the same bytes, within its time, and only until its effect was intended; after that only
//! for the recovery of that very intent.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use tinkerbell_core::approval::{Fact, canonical};
use tinkerbell_core::effect::{Answer, Question, QuestionKind};
use tinkerbell_core::event::{self, ApprovalAsked, ApprovalGiven, Event};
use tinkerbell_core::lifecycle::{Approval, Task};

/// How long a question may wait, and its approval be unused, where the asking side says nothing: a day.
pub(crate) const LASTS_MS: u64 = 86_400_000;

/// How a question stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was answered.
    Answered(Answer),
    /// It waits, under this number.
    Waiting(u32),
    /// Nobody answered question so-and-so in time.
    Expired(u32),
    /// It is not asked yet, or what was answered does not count any more.
    New,
}

/// Finds a question among those of its task.
///
/// `is_observed` says whether its effect's outcome is recorded: a coroutine that is resumed asks once more
/// for what already happened, and then nothing is acted.
pub(crate) fn find(task: &Task, question: &Question, (generation, is_observed): (u64, bool), now_ms: u64) -> Standing {
    let same = |approval: &&Approval| is_same(task, question, &approval.asked);
    // The newest of its kind: an answer that is used up is followed by another question.
    let Some(known) = task.approvals.values().rev().find(same).filter(|known| known.lapsed != "replaced") else { return Standing::New };
    let Some((yes, text)) = &known.answer else {
        return if known.has_expired(now_ms) { Standing::Expired(known.asked.id) } else { Standing::Waiting(known.asked.id) };
    };
    let is_used = known.used && !is_observed && !task.is_in_use(known);
    // What was begun under an approval may be brought to its end after it.
    let is_late = known.is_yes() && !known.used && question.kind == QuestionKind::Approval && known.has_expired(now_ms);
    if known.is_used_up(generation) || (*yes && is_used) || is_late {
        return Standing::New;
    }
    Standing::Answered(Answer { yes: *yes, text: text.clone(), expired: known.lapsed == "expired", approved: known.approved() })
}

fn is_same(task: &Task, question: &Question, asked: &ApprovalAsked) -> bool {
    if asked.seq != question.seq || asked.kind != question.kind.code() {
        return false;
    }
    if asked.nonce.is_empty() {
        // As releases before the nonce asked: nothing but the deed was bound.
        return asked.digest == question.digest;
    }
    asked.digest == digest(&facts(task, question), asked.expires_ms, &asked.nonce)
}

/// All that an approval of this question is bound to.
fn facts(task: &Task, question: &Question) -> Vec<Fact> {
    let own = [("task", task.id.to_string()), ("effect", question.seq.to_string()), ("asked", question.digest.clone())];
    own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(question.facts.iter().cloned()).collect()
}

fn digest(facts: &[Fact], expires_ms: u64, nonce: &str) -> String {
    let hash = Sha256::digest(canonical(facts, expires_ms, nonce));
    hash.iter().fold(String::with_capacity(64), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

/// The record of a question, and those that end older ones of the same effect: what they asked for is
/// not what would happen now.
pub(crate) fn ask(task: &Task, question: Question, now_ms: u64, nonce: u128) -> (u32, Vec<Event>) {
    let id = task.approvals.keys().next_back().copied().unwrap_or(0).saturating_add(1);
    let (facts, nonce) = (facts(task, &question), format!("{nonce:032x}"));
    let expires_ms = now_ms.saturating_add(question.lasts_ms.unwrap_or(LASTS_MS));
    let replaced = task.approvals.values().filter(|old| old.answer.is_none() && old.asked.seq == question.seq);
    let ended: Vec<Event> = replaced.map(|old| lapse(old.asked.id, "replaced")).collect();
    let asked = ApprovalAsked {
        id,
        seq: question.seq,
        kind: question.kind.code(),
        digest: digest(&facts, expires_ms, &nonce),
        facts: facts.into_iter().map(|(name, value)| event::Fact { name, value }).collect(),
        title: question.title,
        body: question.body,
        options: question.options,
        expires_ms,
        nonce,
        like: question.digest,
        rules: question.rules,
        offer: question.offer.map(event::Granted::from),
    };
    // The new one first: a task with an open question does not go on when an older one ends.
    (id, std::iter::once(Event::ApprovalAsked(asked)).chain(ended).collect())
}

/// The end of a question that no person answered.
pub(crate) fn lapse(id: u32, why: &str) -> Event {
    Event::ApprovalGiven(ApprovalGiven { id, lapsed: why.to_owned(), ..ApprovalGiven::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinkerbell_core::event::{Intent, Placed, Submitted};
    use tinkerbell_core::words::{Lsn, TaskId};

    const DAY: u64 = LASTS_MS;

    struct Story(Task, u64);

    impl Story {
        fn new() -> Self {
            Self(Task::new(TaskId(7), Lsn(1), 0, Submitted::default()), 1)
        }

        fn happens(&mut self, events: Vec<Event>) {
            for event in events {
                self.1 += 1;
                self.0.apply(&Placed { lsn: Lsn(self.1), at_ms: self.1, task: TaskId(7), event });
            }
        }

        fn asks(&mut self, question: &Question, now_ms: u64) -> u32 {
            let (id, events) = ask(&self.0, question.clone(), now_ms, u128::from(self.1));
            self.happens(events);
            id
        }

        fn answers(&mut self, id: u32, yes: bool) {
            self.happens(vec![Event::ApprovalGiven(ApprovalGiven { id, yes, ..ApprovalGiven::default() })]);
        }

        fn intends(&mut self, seq: u32) {
            self.happens(vec![Event::Intent(Intent { seq, ..Intent::default() })]);
        }

        fn find(&self, question: &Question, now_ms: u64) -> Standing {
            find(&self.0, question, (1, false), now_ms)
        }
    }

    fn question(seq: u32) -> Question {
        let facts = vec![("argv".to_owned(), "make".to_owned()), ("cwd".to_owned(), "/w".to_owned())];
        Question { seq, digest: "d".into(), facts, ..Question::default() }
    }

    fn approved(standing: Standing) -> bool {
        matches!(standing, Standing::Answered(Answer { yes: true, approved: Some(_), .. }))
    }

    #[test]
    fn an_approval_holds_for_the_same_bytes_only() {
        let mut story = Story::new();
        let id = story.asks(&question(4), 0);
        assert_eq!(story.find(&question(4), 1), Standing::Waiting(id));
        story.answers(id, true);
        assert!(approved(story.find(&question(4), 1)));
        let change: [&dyn Fn(&mut Question); 7] = [
            &|q| q.seq = 5,
            &|q| q.digest = "e".into(),
            &|q| q.kind = QuestionKind::Unknown,
            &|q| q.facts[0].1 = "make x".into(),
            &|q| q.facts[1].0 = "cwb".into(),
            &|q| q.facts.swap(0, 1),
            &|q| q.facts.push((String::new(), String::new())),
        ];
        for (at, change) in change.iter().enumerate() {
            let mut other = question(4);
            change(&mut other);
            assert_eq!(story.find(&other, 1), Standing::New, "change {at}");
        }
        let mut other = Story(Task::new(TaskId(8), Lsn(1), 0, Submitted::default()), 1);
        let asked = Event::ApprovalAsked(story.0.approvals[&id].asked.clone());
        other.happens(vec![asked]);
        other.answers(id, true);
        assert_eq!(other.find(&question(4), 1), Standing::New, "the same record in another task");
    }

    #[test]
    fn an_approval_is_used_once_and_recovered_by_its_own_intent() {
        let mut story = Story::new();
        let id = story.asks(&question(4), 0);
        story.answers(id, true);
        story.intends(4);
        assert!(approved(story.find(&question(4), 1)), "a crash between intent and act");
        assert!(approved(story.find(&question(4), 2 * DAY)), "what was begun in time is brought to its end");
        story.intends(5);
        assert_eq!(story.find(&question(4), 1), Standing::New, "used up");
        assert!(approved(find(&story.0, &question(4), (1, true), 1)), "what happened is read again, not done again");
    }

    #[test]
    fn what_nobody_answered_or_used_in_time_is_void() {
        let mut story = Story::new();
        let id = story.asks(&question(4), 100);
        assert_eq!(story.find(&question(4), 99 + DAY), Standing::Waiting(id));
        assert_eq!(story.find(&question(4), 100 + DAY), Standing::Expired(id));
        story.happens(vec![lapse(id, "expired")]);
        let told = Answer { expired: true, ..Answer::default() };
        assert_eq!(story.find(&question(4), 200 + DAY), Standing::Answered(told));
        let second = story.asks(&Question { lasts_ms: Some(50), ..question(5) }, 0);
        story.answers(second, true);
        assert!(approved(story.find(&question(5), 49)));
        assert_eq!(story.find(&question(5), 50), Standing::New, "an approval that was not used in time");
        let third = story.asks(&question(5), 60);
        assert_eq!(story.find(&question(5), 61), Standing::Waiting(third));
    }

    #[test]
    fn a_question_whose_deed_changed_ends_with_the_new_one() {
        let mut story = Story::new();
        let id = story.asks(&question(4), 0);
        let changed = Question { digest: "e".into(), ..question(4) };
        assert_eq!(story.find(&changed, 1), Standing::New);
        let second = story.asks(&changed, 1);
        assert_eq!(story.0.waiting_for().map(|open| open.asked.id), Some(second));
        assert_eq!(story.0.approvals[&id].lapsed, "replaced");
        story.answers(second, true);
        assert_eq!(story.find(&question(4), 2), Standing::New, "going back is another question again");
    }

    #[test]
    fn two_questions_of_the_same_deed_have_different_digests() {
        let mut story = Story::new();
        let first = story.asks(&question(4), 0);
        story.happens(vec![lapse(first, "replaced")]);
        let second = story.asks(&question(4), 0);
        assert_ne!(story.0.approvals[&first].asked.digest, story.0.approvals[&second].asked.digest);
        assert_eq!(story.0.approvals[&first].asked.like, story.0.approvals[&second].asked.like);
    }
}
