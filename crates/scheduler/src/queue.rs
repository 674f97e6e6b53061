//! The ready queue: which task gets the next slot.
//!
//! Four levels of priority; within one, deficit round robin by tenant and then by task, paid for
//! after each step; a level on which somebody has waited long gets a share whatever is above it.
//! Tokens bound how many tasks use one provider, host or workspace at once; who lacks one waits
//! beside the queue and holds no slot. Pure: no lock, no clock, no map that is walked in chance order. Invariant: each
//! member is idle, ready, blocked or running, and only the running ones hold a slot and tokens.

mod ring;
#[cfg(test)]
mod tests;

use ring::{Account, Links, List, NONE, Ring};
use std::collections::BTreeMap;
use tinkerbell_core::words::Priority;

/// A task may use this much before the next task of its tenant is served. One unit is a token.
pub const TASK_QUANTUM: u64 = 20_000;
/// What a step costs at least: it holds a slot, and whose steps cost nothing would never give theirs up.
const STEP_LEAST: u64 = 500;
/// A tenant likewise, before the next tenant.
pub const TENANT_QUANTUM: u64 = 100_000;
/// A level on which somebody has waited this long in milliseconds gets slots whatever is above it.
/// Four seconds before the ten that are promised, because slots have to come free.
pub const AGE_MS: u64 = 6_000;
/// At most one of so many slots is given by age. If all were, a flood of old work would undo the
/// priorities. Age chooses the level only: within it the shares hold as ever, else a tenant's own
/// backlog would buy it more than the others get.
const AGED_EVERY: u32 = 4;
/// How far a member that gets its token back is sorted in by age.
const SORT_STEPS: usize = 64;

/// A member's number, for as long as it has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u32);

impl Key {
    /// The number as an index; freed numbers are used again.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something of which only so many may be used at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What.
    pub name: String,
    /// How many tasks at once; 0 is taken for 1.
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Idle,
    Ready,
    Blocked(u32),
    Running,
}

#[derive(Debug, Clone)]
struct Member {
    state: State,
    group: u32,
    account: Account,
    ready_ms: u64,
    claims: [u32; 3],
}

/// The members of one tenant on one level.
#[derive(Debug, Default)]
struct Group {
    level: usize,
    tenant: u32,
    ring: Ring,
    account: Account,
}

#[derive(Debug)]
struct Level {
    /// Its groups that have ready members.
    ring: Ring,
    /// Its ready members, oldest first.
    age: List,
}

#[derive(Debug)]
struct Token {
    name: String,
    limit: u32,
    used: u32,
    members: u32,
    waiting: List,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    slots: usize,
    running: usize,
    members: Vec<Member>,
    free: Vec<u32>,
    /// Places in a group's ring or in a token's list.
    places: Links,
    ages: Links,
    levels: [Level; 4],
    groups: Vec<Group>,
    group_places: Links,
    group_of: BTreeMap<(usize, u32), u32>,
    tokens: Vec<Token>,
    free_tokens: Vec<u32>,
    token_of: BTreeMap<String, u32>,
    /// Slots given since the last that was given by age.
    since_aged: u32,
    /// The level that was last given one by age.
    last_aged: usize,
}

impl Queue {
    /// A queue that lets `slots` members run at once.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(1),
            running: 0,
            members: Vec::new(),
            free: Vec::new(),
            places: Links::default(),
            ages: Links::default(),
            levels: std::array::from_fn(|_| Level { ring: Ring::default(), age: List::EMPTY }),
            groups: Vec::new(),
            group_places: Links::default(),
            group_of: BTreeMap::new(),
            tokens: Vec::new(),
            free_tokens: Vec::new(),
            token_of: BTreeMap::new(),
            since_aged: AGED_EVERY,
            last_aged: 0,
        }
    }

    /// Members that hold a slot.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Takes a member in, idle; of its claims the first three count.
    pub fn join(&mut self, tenant: u32, priority: Priority, claims: &[Claim]) -> Key {
        let group = self.group(tenant, priority);
        let mut held = [NONE; 3];
        for (place, claim) in held.iter_mut().zip(claims) {
            *place = self.token(claim);
        }
        let member = Member { state: State::Idle, group, account: Account::default(), ready_ms: 0, claims: held };
        let key = match self.free.pop() {
            Some(key) => {
                if let Some(slot) = self.members.get_mut(key as usize) {
                    *slot = member;
                }
                key
            }
            None => {
                self.members.push(member);
                u32::try_from(self.members.len() - 1).unwrap_or(NONE)
            }
        };
        self.places.grow(key);
        self.ages.grow(key);
        Key(key)
    }

    /// Says that an idle member wants a slot.
    pub fn ready(&mut self, key: Key, now_ms: u64) {
        if self.state(key) == State::Idle {
            if let Some(member) = self.members.get_mut(key.index()) {
                // Behind the round that is under way: else an endless stream of new ones would
                // keep it going for ever, and who owes a round would starve.
                member.account.enter(self.groups.get(member.group as usize).map_or(0, |group| group.ring.now));
            }
            self.enqueue(key.0, now_ms, false);
        }
    }

    /// Gives a slot to whoever is next; `None` when none is free or nobody can use one.
    pub fn next(&mut self, now_ms: u64) -> Option<Key> {
        if self.running >= self.slots {
            return None;
        }
        loop {
            let (at, by_age) = self.pick(now_ms)?;
            if let Some(token) = self.lacking(at) {
                self.block(at, token);
                continue;
            }
            self.since_aged = if by_age { 1 } else { self.since_aged.saturating_add(1) };
            for token in self.claims(at) {
                if let Some(token) = self.tokens.get_mut(token as usize) {
                    token.used += 1;
                }
            }
            self.set(at, State::Running);
            self.running += 1;
            return Some(Key(at));
        }
    }

    /// Ends a member's step: it pays, and wants the next one. Gives the slot to whoever is next,
    /// which is the same member where nobody is more urgent.
    pub fn turn(&mut self, key: Key, cost: u64, now_ms: u64) -> Option<Key> {
        self.charge(key, cost.max(STEP_LEAST));
        if self.state(key) == State::Running {
            if self.levels.iter().all(|level| level.ring.is_empty()) && self.claims(key.0).next().is_none() {
                return Some(key);
            }
            self.release(key.0);
            let goes_on = self.members.get(key.index()).is_some_and(|member| {
                let round = self.groups.get(member.group as usize).map_or(0, |group| group.ring.now);
                member.account.has_left(round)
            });
            self.enqueue(key.0, now_ms, goes_on);
        }
        self.next(now_ms)
    }

    /// Charges a member and its tenant.
    pub fn charge(&mut self, key: Key, cost: u64) {
        let Some(member) = self.members.get_mut(key.index()) else { return };
        let Some(group) = self.groups.get_mut(member.group as usize) else { return };
        member.account.charge(cost, TASK_QUANTUM, group.ring.now);
        let round = self.levels.get(group.level).map_or(0, |level| level.ring.now);
        group.account.charge(cost, TENANT_QUANTUM, round);
    }

    /// Changes a member's priority; a waiting one keeps its age.
    pub fn reprioritise(&mut self, key: Key, priority: Priority) {
        let Some(member) = self.members.get(key.index()) else { return };
        let (state, ready_ms) = (member.state, member.ready_ms);
        let Some(tenant) = self.groups.get(member.group as usize).map(|group| group.tenant) else { return };
        if state == State::Ready {
            self.dequeue(key.0);
        }
        let group = self.group(tenant, priority);
        if let Some(member) = self.members.get_mut(key.index()) {
            (member.group, member.account) = (group, Account::default());
            member.account.enter(self.groups.get(group as usize).map_or(0, |group| group.ring.now));
        }
        if state == State::Ready {
            self.enqueue(key.0, ready_ms, false);
        }
    }

    /// Lets a member go, with all it holds.
    pub fn leave(&mut self, key: Key) {
        match self.state(key) {
            State::Free => return,
            State::Idle => {}
            State::Ready => self.dequeue(key.0),
            State::Blocked(token) => {
                if let Some(token) = self.tokens.get_mut(token as usize) {
                    self.places.unlink(&mut token.waiting, key.0);
                }
            }
            State::Running => self.release(key.0),
        }
        for at in self.claims(key.0) {
            // It may have been woken for a token that it takes no more: the next one must hear of it.
            self.wake(at);
            self.forget_token(at);
        }
        self.set(key.0, State::Free);
        self.free.push(key.0);
    }

    fn state(&self, key: Key) -> State {
        self.members.get(key.index()).map_or(State::Free, |member| member.state)
    }

    fn set(&mut self, at: u32, state: State) {
        if let Some(member) = self.members.get_mut(at as usize) {
            member.state = state;
        }
    }

    fn claims(&self, at: u32) -> impl Iterator<Item = u32> + use<> {
        let claims = self.members.get(at as usize).map_or([NONE; 3], |member| member.claims);
        claims.into_iter().filter(|token| *token != NONE)
    }

    fn group(&mut self, tenant: u32, priority: Priority) -> u32 {
        let level = Priority::ALL.iter().position(|known| *known == priority).unwrap_or(1);
        if let Some(known) = self.group_of.get(&(level, tenant)) {
            return *known;
        }
        let at = u32::try_from(self.groups.len()).unwrap_or(NONE);
        self.groups.push(Group { level, tenant, ..Group::default() });
        self.group_places.grow(at);
        self.group_of.insert((level, tenant), at);
        at
    }

    fn token(&mut self, claim: &Claim) -> u32 {
        let limit = claim.limit.max(1);
        if let Some(known) = self.token_of.get(&claim.name) {
            let known = *known;
            let more = self.tokens.get_mut(known as usize).map_or(0, |token| {
                let more = limit.saturating_sub(token.limit);
                (token.limit, token.members) = (limit, token.members + 1);
                more
            });
            // A limit that was raised lets so many more try; none of them would hear of it otherwise.
            for _ in 0..more {
                self.wake(known);
            }
            return known;
        }
        let token = Token { name: claim.name.clone(), limit, used: 0, members: 1, waiting: List::EMPTY };
        let at = self.free_tokens.pop().unwrap_or_else(|| u32::try_from(self.tokens.len()).unwrap_or(NONE));
        match self.tokens.get_mut(at as usize) {
            Some(slot) => *slot = token,
            None => self.tokens.push(token),
        }
        self.token_of.insert(claim.name.clone(), at);
        at
    }

    fn forget_token(&mut self, at: u32) {
        let Some(token) = self.tokens.get_mut(at as usize) else { return };
        token.members = token.members.saturating_sub(1);
        if token.members == 0 {
            self.token_of.remove(&token.name);
            self.free_tokens.push(at);
        }
    }

    fn enqueue(&mut self, at: u32, ready_ms: u64, front: bool) {
        let Some(member) = self.members.get_mut(at as usize) else { return };
        (member.state, member.ready_ms) = (State::Ready, ready_ms);
        let Some(group) = self.groups.get_mut(member.group as usize) else { return };
        group.ring.push(&mut self.places, at, member.account, front);
        let Some(level) = self.levels.get_mut(group.level) else { return };
        let index = member.group;
        if !self.group_places.is_in(index) {
            let goes_on = front && group.account.has_left(level.ring.now);
            level.ring.push(&mut self.group_places, index, group.account, goes_on);
        }
        // Nearly always the newest: only who waited for a token comes with an older age.
        let newest = level.age.newest().and_then(|last| self.members.get(last as usize)).map_or(0, |last| last.ready_ms);
        if newest <= ready_ms {
            self.ages.push_back(&mut level.age, at);
            return;
        }
        let mut before = level.age.head;
        for _ in 0..SORT_STEPS {
            if self.members.get(before as usize).is_none_or(|other| other.ready_ms > ready_ms) {
                break;
            }
            before = self.ages.after(before);
        }
        self.ages.put_before(&mut level.age, at, before);
    }

    /// Takes a ready member out of its group's ring and its level's ages.
    fn dequeue(&mut self, at: u32) {
        let Some(member) = self.members.get(at as usize) else { return };
        let Some(group) = self.groups.get_mut(member.group as usize) else { return };
        let Some(level) = self.levels.get_mut(group.level) else { return };
        group.ring.remove(&mut self.places, at);
        if group.ring.is_empty() {
            level.ring.remove(&mut self.group_places, member.group);
        }
        self.ages.unlink(&mut level.age, at);
    }

    /// Takes out whoever is next, and says whether its age decided.
    fn pick(&mut self, now_ms: u64) -> Option<(u32, bool)> {
        let top = self.levels.iter().position(|level| !level.ring.is_empty())?;
        let aged = if self.since_aged >= AGED_EVERY { self.aged(top, now_ms) } else { None };
        self.last_aged = aged.unwrap_or(self.last_aged);
        let level = self.levels.get_mut(aged.unwrap_or(top))?;
        let index = level.ring.pop(&mut self.group_places)?;
        let group = self.groups.get_mut(index as usize)?;
        let at = group.ring.pop(&mut self.places)?;
        if !group.ring.is_empty() {
            level.ring.push(&mut self.group_places, index, group.account, false);
        }
        self.ages.unlink(&mut level.age, at);
        Some((at, aged.is_some()))
    }

    /// The level below `top` on which somebody has waited too long; if there are several, in turn.
    fn aged(&self, top: usize, now_ms: u64) -> Option<usize> {
        let is_old = |at: u32| self.members.get(at as usize).is_some_and(|member| now_ms.saturating_sub(member.ready_ms) >= AGE_MS);
        let mut below = self.levels.iter().enumerate().skip(top + 1).filter(|(_, level)| is_old(level.age.head)).map(|(at, _)| at);
        let first = below.next()?;
        Some(if first > self.last_aged { first } else { below.find(|at| *at > self.last_aged).unwrap_or(first) })
    }

    /// A token that the member lacks.
    fn lacking(&self, at: u32) -> Option<u32> {
        self.claims(at).find(|token| self.tokens.get(*token as usize).is_some_and(|token| token.used >= token.limit))
    }

    /// Lets a member wait for a token; others may use what else it would have taken.
    fn block(&mut self, at: u32, lacking: u32) {
        self.set(at, State::Blocked(lacking));
        let age = |at: u32| self.members.get(at as usize).map_or(u64::MAX, |member| member.ready_ms);
        if let Some(token) = self.tokens.get_mut(lacking as usize) {
            // Whom a newcomer forestalled does not queue up again behind all others.
            if age(at) < age(token.waiting.head) {
                self.places.push_front(&mut token.waiting, at);
            } else {
                self.places.push_back(&mut token.waiting, at);
            }
        }
        for token in self.claims(at).filter(|token| *token != lacking) {
            self.wake(token);
        }
    }

    /// Takes a running member's slot and tokens.
    fn release(&mut self, at: u32) {
        self.running = self.running.saturating_sub(1);
        self.set(at, State::Idle);
        for index in self.claims(at) {
            if let Some(token) = self.tokens.get_mut(index as usize) {
                token.used = token.used.saturating_sub(1);
            }
            self.wake(index);
        }
    }

    /// Lets the first that waits for a token try again, if there is one to have.
    fn wake(&mut self, index: u32) {
        let Some(token) = self.tokens.get_mut(index as usize).filter(|token| token.used < token.limit) else { return };
        let at = token.waiting.head;
        if at == NONE {
            return;
        }
        self.places.unlink(&mut token.waiting, at);
        let ready_ms = self.members.get(at as usize).map_or(0, |member| member.ready_ms);
        self.enqueue(at, ready_ms, false);
    }
}
