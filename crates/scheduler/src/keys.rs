//! Keys of submissions: so that a repeated request is the same task, also after a restart.
//!
//! Only a hash and the task's id are kept, and only of the newest [`KEPT`] keys; the whole key stands
//! in the task's submission and is compared there. Invariant: a key is forgotten by age alone.

use std::collections::{HashMap, VecDeque};
use tinkerbell_core::words::TaskId;

/// Keys that are remembered; older ones are free again.
pub(crate) const KEPT: usize = 65_536;

/// The newest keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    tasks: HashMap<u128, TaskId>,
    /// Oldest first; a hash that was given anew stands here twice, and its older place is passed over.
    order: VecDeque<(u128, TaskId)>,
}

impl Keys {
    pub(crate) fn insert(&mut self, key: &str, task: TaskId) {
        self.restore(hash(key), task);
    }

    /// Takes in a key of a checkpoint, or a new one.
    pub(crate) fn restore(&mut self, hash: u128, task: TaskId) {
        if self.tasks.insert(hash, task) == Some(task) {
            return;
        }
        self.order.push_back((hash, task));
        while self.order.len() > KEPT {
            if let Some((old, task)) = self.order.pop_front()
                && self.tasks.get(&old) == Some(&task)
            {
                self.tasks.remove(&old);
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<TaskId> {
        self.tasks.get(&hash(key)).copied()
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u128, TaskId)> {
        self.order.iter().copied().filter(|(hash, task)| self.tasks.get(hash) == Some(task))
    }
}

/// Half of the key's BLAKE3: the same in every release, and not to be met by chance.
fn hash(key: &str) -> u128 {
    blake3::hash(key.as_bytes()).as_bytes().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_remembered() {
        let mut keys = Keys::default();
        for n in 0..KEPT as u128 + 10 {
            keys.insert(&n.to_string(), TaskId(n));
        }
        keys.insert("20", TaskId(7));
        assert_eq!((keys.get("9"), keys.get("12"), keys.get("20")), (None, Some(TaskId(12)), Some(TaskId(7))));
        assert!(keys.all().count() <= KEPT);
        let mut again = Keys::default();
        keys.all().for_each(|(hash, task)| again.restore(hash, task));
        assert_eq!(again.get("20"), Some(TaskId(7)));
    }
}
