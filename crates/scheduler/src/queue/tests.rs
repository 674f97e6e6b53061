//! What the queue promises, against chance: order, shares, ages, tokens, and that nobody is lost.

use super::*;
use proptest::prelude::*;

/// Jain's index of fairness (1984): 1 where all have the same, 1/n where one has everything.
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// A queue whose running members take turns; what each tenant was served, in cost.
struct Play {
    queue: Queue,
    tenant: BTreeMap<Key, usize>,
    running: Vec<Key>,
    served: Vec<u64>,
    now_ms: u64,
}

impl Play {
    /// `tenants` holds, for each tenant, how many tasks it has that are always ready.
    fn new(slots: usize, tenants: &[usize]) -> Self {
        let mut play =
            Self { queue: Queue::new(slots), tenant: BTreeMap::new(), running: Vec::new(), served: vec![0; tenants.len()], now_ms: 1 };
        for (at, tasks) in tenants.iter().enumerate() {
            for _ in 0..*tasks {
                let key = play.queue.join(at as u32, Priority::Normal, &[]);
                play.tenant.insert(key, at);
                play.queue.ready(key, play.now_ms);
            }
        }
        while let Some(key) = play.queue.next(play.now_ms) {
            play.running.push(key);
        }
        play
    }

    /// Each running member ends a step of this cost and length.
    fn round(&mut self, ms: u64, cost: impl Fn(usize) -> u64) {
        self.now_ms += ms;
        for key in std::mem::take(&mut self.running) {
            let tenant = self.tenant[&key];
            self.served[tenant] += cost(tenant);
            self.running.extend(self.queue.turn(key, cost(tenant), self.now_ms));
        }
        while let Some(key) = self.queue.next(self.now_ms) {
            self.running.push(key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("TINKERBELL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tenants_with_equal_demand_get_equal_shares(
        slots in 1_usize..9, tenants in 2_usize..7, tasks in 4_usize..12, ms in 1_u64..400,
        costs in prop::collection::vec(500_u64..60_000, 7),
    ) {
        let tasks = tasks.max(slots);
        let mut play = Play::new(slots, &vec![tasks; tenants]);
        for _ in 0..3_000 {
            play.round(ms, |tenant| costs[tenant]);
        }
        prop_assert!(jain(&play.served) >= 0.95, "{:?}", play.served);
    }

    #[test]
    fn nobody_who_is_ready_starves(
        slots in 1_usize..5, sizes in prop::collection::vec(1_usize..20, 1..5), cost in prop_oneof![Just(0), 0_u64..200_000],
    ) {
        let mut play = Play::new(slots, &sizes);
        let mut left: std::collections::BTreeSet<Key> = play.tenant.keys().copied().collect();
        for _ in 0..5_000 {
            play.running.iter().for_each(|key| { left.remove(key); });
            if left.is_empty() { break; }
            play.round(50, |_| cost);
        }
        prop_assert!(left.is_empty(), "{} of {sizes:?} never ran", left.len());
    }

    #[test]
    fn a_lower_priority_waits_at_most_ten_seconds(
        slots in 1_usize..5, ms in 1_u64..400, level in 1_usize..4, loud in 5_usize..40,
    ) {
        let mut queue = Queue::new(slots);
        let keys: Vec<Key> = (0..loud).map(|at| queue.join(at as u32 % 3, Priority::Interactive, &[])).collect();
        keys.iter().for_each(|key| queue.ready(*key, 0));
        let quiet = queue.join(9, Priority::ALL[level], &[]);
        queue.ready(quiet, 0);
        let mut running: Vec<Key> = std::iter::from_fn(|| queue.next(0)).collect();
        let mut now = 0;
        while !running.contains(&quiet) {
            now += ms;
            prop_assert!(now <= 10_000, "not served in time");
            running = std::mem::take(&mut running).into_iter().filter_map(|key| queue.turn(key, 1_000, now)).collect();
        }
        prop_assert!(now >= AGE_MS.min(now + ms), "served before its time at {now}");
    }

    #[test]
    fn slots_and_tokens_are_never_exceeded_and_never_lost(ops in prop::collection::vec((0_u8..7, any::<u16>()), 1..400)) {
        let mut queue = Queue::new(3);
        let (mut members, mut running): (Vec<(Key, Vec<Claim>)>, Vec<Key>) = (Vec::new(), Vec::new());
        for (at, (what, pick)) in ops.into_iter().enumerate() {
            let now = at as u64 * 97;
            let chosen = members.get(usize::from(pick) % members.len().max(1)).map(|(key, _)| *key);
            match (what, chosen) {
                (0 | 1, _) | (_, None) => {
                    let claims: Vec<Claim> = (0..pick % 3).map(|n| Claim { name: format!("t{}", (pick + n) % 4), limit: u32::from(1 + n) }).collect();
                    let key = queue.join(u32::from(pick % 3), Priority::ALL[usize::from(pick % 4)], &claims);
                    members.push((key, claims));
                    queue.ready(key, now);
                }
                (2 | 3, _) => running.extend(queue.next(now)),
                (4, Some(_)) if !running.is_empty() => {
                    let key = running.swap_remove(usize::from(pick) % running.len());
                    running.extend(queue.turn(key, u64::from(pick), now));
                }
                (5, Some(key)) => queue.reprioritise(key, Priority::ALL[usize::from(pick % 4)]),
                (_, Some(key)) => {
                    queue.leave(key);
                    members.retain(|(other, _)| *other != key);
                    running.retain(|other| *other != key);
                }
            }
            prop_assert!(running.len() <= 3);
            prop_assert_eq!(running.len(), queue.running());
            for token in &queue.tokens {
                let users = members.iter().filter(|(key, claims)| running.contains(key) && claims.iter().any(|claim| claim.name == token.name));
                if token.members > 0 {
                    prop_assert_eq!(users.count(), token.used as usize);
                }
            }
        }
        // Whoever is left is served, one after the other.
        let mut left: std::collections::BTreeSet<Key> = members.iter().map(|(key, _)| *key).collect();
        for turn in 0..2_000 {
            while let Some(key) = queue.next(1_000_000 + turn) { running.push(key); }
            let Some(key) = running.pop() else { break };
            left.remove(&key);
            queue.leave(key);
        }
        prop_assert!(left.is_empty(), "{} were lost", left.len());
    }
}

/// Found by the property above: who is woken for a token and leaves without it must pass the word on.
#[test]
fn a_token_that_a_leaving_member_was_woken_for_reaches_the_next() {
    let mut queue = Queue::new(3);
    let one = Claim { name: "t".into(), limit: 1 };
    let join = |queue: &mut Queue| {
        let key = queue.join(0, Priority::Normal, std::slice::from_ref(&one));
        queue.ready(key, 0);
        key
    };
    let (first, second, third) = (join(&mut queue), join(&mut queue), join(&mut queue));
    assert_eq!((queue.next(0), queue.next(0)), (Some(first), None));
    queue.leave(first);
    queue.leave(second);
    assert_eq!(queue.next(1), Some(third));
    let fourth = join(&mut queue);
    assert_eq!(queue.next(2), None);
    queue.join(0, Priority::Normal, &[Claim { limit: 2, ..one.clone() }]);
    assert_eq!(queue.next(3), Some(fourth), "a limit that was raised counts at once");
}

#[test]
fn a_more_urgent_task_goes_first_and_takes_the_slot_after_a_step() {
    let mut queue = Queue::new(1);
    let mut join = |priority| {
        let key = queue.join(0, priority, &[]);
        queue.ready(key, 0);
        key
    };
    let (batch, normal, maintenance) = (join(Priority::Batch), join(Priority::Normal), join(Priority::Maintenance));
    assert_eq!(queue.next(0), Some(normal));
    let urgent = queue.join(0, Priority::Interactive, &[]);
    queue.ready(urgent, 1);
    assert_eq!((queue.next(1), queue.turn(normal, 1, 1)), (None, Some(urgent)));
    queue.leave(urgent);
    assert_eq!(queue.next(2), Some(normal));
    assert_eq!(queue.turn(normal, 1, 3), Some(normal));
    queue.leave(normal);
    assert_eq!(queue.next(4), Some(batch));
    queue.reprioritise(maintenance, Priority::Interactive);
    assert_eq!(queue.turn(batch, 1, 5), Some(maintenance));
}

#[test]
fn age_gives_one_slot_in_four() {
    let mut queue = Queue::new(1);
    let keys: Vec<Key> = (0..40).map(|_| queue.join(1, Priority::Batch, &[])).collect();
    keys.iter().for_each(|key| queue.ready(*key, 0));
    let urgent: Vec<Key> = (0..40).map(|_| queue.join(2, Priority::Interactive, &[])).collect();
    urgent.iter().for_each(|key| queue.ready(*key, 9_990));
    let mut aged = 0;
    for _ in 0..20 {
        let key = queue.next(10_000).unwrap();
        aged += usize::from(keys.contains(&key));
        queue.leave(key);
    }
    assert_eq!(aged, 5);
}

#[test]
fn who_lacks_a_token_holds_no_slot_and_gets_it_in_turn() {
    let mut queue = Queue::new(2);
    let one = [Claim { name: "host".into(), limit: 1 }];
    let (a, b) = (queue.join(1, Priority::Normal, &one), queue.join(1, Priority::Normal, &one));
    let free = queue.join(1, Priority::Batch, &[]);
    [a, b, free].into_iter().for_each(|key| queue.ready(key, 0));
    assert_eq!((queue.next(0), queue.next(0), queue.next(0)), (Some(a), Some(free), None));
    queue.leave(a);
    assert_eq!(queue.next(1), Some(b));
    queue.leave(b);
    assert!(queue.token_of.is_empty());
}

#[test]
fn a_tenant_with_many_tasks_gets_no_more_than_one_with_few() {
    let mut play = Play::new(2, &[1_000, 4]);
    // Below the age at which turns are given by age too.
    for _ in 0..2_000 {
        play.round(1, |_| 1_000);
    }
    assert!(jain(&play.served) >= 0.99, "{:?}", play.served);
}
