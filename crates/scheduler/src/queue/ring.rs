//! Rings: deficit round robin in constant time, as linked lists over indices.
//!
//! A ring is a calendar of rounds: a member that owes three quanta stands three rounds ahead, and
//! whoever stands in the nearest round is next. Nothing is known of tasks here. Invariant: a member
//! is in at most one list of its links at a time, and `full` has a bit for each list that is not empty.

/// No member.
pub(super) const NONE: u32 = u32::MAX;
/// Rounds that a ring looks ahead; a deeper debt is forgiven down to this.
const ROUNDS: u64 = 64;

/// A list's two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// The member that came last.
    pub(super) const fn newest(&self) -> Option<u32> {
        if self.tail == NONE { None } else { Some(self.tail) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    /// The round's list within a ring.
    list: u8,
    is_in: bool,
}

/// The links of all members that may stand in one kind of list.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    /// Makes room for member `at`.
    pub(super) fn grow(&mut self, at: u32) {
        let most = at as usize + 1;
        if self.0.len() < most {
            self.0.resize(most, Link { prev: NONE, next: NONE, list: 0, is_in: false });
        }
    }

    fn at(&mut self, at: u32) -> Option<&mut Link> {
        self.0.get_mut(at as usize)
    }

    /// Whether the member stands in a list.
    pub(super) fn is_in(&self, at: u32) -> bool {
        self.0.get(at as usize).is_some_and(|link| link.is_in)
    }

    /// Who stands behind the member.
    pub(super) fn after(&self, at: u32) -> u32 {
        self.0.get(at as usize).map_or(NONE, |link| link.next)
    }

    /// Puts a member between two neighbours.
    fn put(&mut self, list: &mut List, at: u32, between: (u32, u32)) {
        let (prev, next) = between;
        if let Some(link) = self.at(at) {
            (link.prev, link.next, link.is_in) = (prev, next, true);
        }
        match self.at(prev) {
            Some(link) => link.next = at,
            None => list.head = at,
        }
        match self.at(next) {
            Some(link) => link.prev = at,
            None => list.tail = at,
        }
    }

    pub(super) fn push_back(&mut self, list: &mut List, at: u32) {
        self.put(list, at, (list.tail, NONE));
    }

    pub(super) fn push_front(&mut self, list: &mut List, at: u32) {
        self.put(list, at, (NONE, list.head));
    }

    pub(super) fn put_before(&mut self, list: &mut List, at: u32, next: u32) {
        let prev = self.0.get(next as usize).map_or(list.tail, |link| link.prev);
        self.put(list, at, (prev, next));
    }

    pub(super) fn unlink(&mut self, list: &mut List, at: u32) {
        let Some(link) = self.at(at).filter(|link| link.is_in) else { return };
        let (prev, next) = (link.prev, link.next);
        link.is_in = false;
        match self.at(prev) {
            Some(link) => link.next = next,
            None => list.head = next,
        }
        match self.at(next) {
            Some(link) => link.prev = prev,
            None => list.tail = prev,
        }
    }
}

/// What a member has used: the round in which it is due, and how much of that round's quantum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    due: u64,
    used: u64,
}

impl Account {
    /// Charges a cost; each whole quantum is a round to wait. What lies before `now` is forgotten:
    /// who was away neither owes nor is owed.
    pub(super) fn charge(&mut self, cost: u64, quantum: u64, now: u64) {
        if self.due < now {
            *self = Self { due: now, used: 0 };
        }
        let used = self.used.saturating_add(cost);
        self.due = self.due.saturating_add(used / quantum).min(now + ROUNDS - 1);
        self.used = used % quantum;
    }

    /// Comes to the ring anew, for the round after `now` or a later one.
    pub(super) fn enter(&mut self, now: u64) {
        if self.due <= now {
            *self = Self { due: now + 1, used: 0 };
        }
    }

    /// Whether something of the present round's quantum is left.
    pub(super) const fn has_left(&self, now: u64) -> bool {
        self.due <= now
    }
}

/// A calendar of rounds.
#[derive(Debug)]
pub(super) struct Ring {
    lists: [List; ROUNDS as usize],
    full: u64,
    pub(super) now: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { lists: [List::EMPTY; ROUNDS as usize], full: 0, now: 0 }
    }
}

impl Ring {
    pub(super) const fn is_empty(&self) -> bool {
        self.full == 0
    }

    /// Lets a member wait for its round; at the front of it if it only goes on with its quantum.
    pub(super) fn push(&mut self, links: &mut Links, at: u32, account: Account, front: bool) {
        let round = account.due.clamp(self.now, self.now + ROUNDS - 1) % ROUNDS;
        let Some(list) = self.lists.get_mut(round as usize) else { return };
        if front {
            links.push_front(list, at)
        } else {
            links.push_back(list, at)
        }
        if let Some(link) = links.at(at) {
            // Below 64, so nothing is cut off.
            link.list = round as u8;
        }
        self.full |= 1 << round;
    }

    /// Takes the next member out.
    pub(super) fn pop(&mut self, links: &mut Links) -> Option<u32> {
        if self.full == 0 {
            return None;
        }
        let turned = self.full.rotate_right((self.now % ROUNDS) as u32);
        self.now += u64::from(turned.trailing_zeros());
        let at = self.lists.get((self.now % ROUNDS) as usize)?.head;
        self.remove(links, at);
        Some(at)
    }

    /// Takes a member out of the middle.
    pub(super) fn remove(&mut self, links: &mut Links, at: u32) {
        let Some(round) = links.at(at).filter(|link| link.is_in).map(|link| link.list) else { return };
        let Some(list) = self.lists.get_mut(usize::from(round)) else { return };
        links.unlink(list, at);
        if list.head == NONE {
            self.full &= !(1 << round);
        }
    }
}
