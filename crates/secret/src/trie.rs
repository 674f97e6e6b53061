//! All known forms as one tree of bytes, read in a single pass.
//!
//! Each place of a text is read once, whatever was found before it: a node knows the longest form that
//! ends where it stands, so forms that lie within others cost nothing. Nodes are numbered level by level,
//! which makes the children of a node neighbours. Invariant: reading takes time in proportion to the
//! text, and the tree memory in proportion to the forms, for any forms and any text.

use std::ops::Range;
use zeroize::Zeroizing;

/// The node at which nothing of a form was read.
pub const ROOT: u32 = 0;

/// One place within forms.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// The first of its children.
    first: u32,
    children: u16,
    /// Bytes from the root.
    depth: u32,
    /// The node of the longest end of what was read that is a beginning, too.
    fail: u32,
    /// The node of the longest form that ends here; the root for none.
    best: u32,
    /// Bytes of the longest end of what was read that may still become a form.
    open: u32,
}

/// The tree.
#[derive(Default)]
pub struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads to each node.
    labels: Zeroizing<Vec<u8>>,
    /// Nodes at which a form ends, and its number; in the order of nodes.
    ends: Vec<(u32, u32)>,
}

impl Trie {
    /// A tree of forms that are sorted, different, and together shorter than 4 GiB.
    pub fn new<T: AsRef<[u8]>>(forms: &[T]) -> Self {
        let mut trie = Self::default();
        trie.push(0, 0);
        // Which forms go through a node.
        let mut through: Vec<Range<usize>> = std::iter::once(0..forms.len()).collect();
        let mut at = 0;
        while let Some(range) = through.get(at).cloned() {
            trie.grow(at, forms, range, &mut through);
            at += 1;
        }
        trie.link();
        trie
    }

    fn push(&mut self, label: u8, depth: u32) {
        self.labels.push(label);
        self.nodes.push(Node { depth, ..Node::default() });
    }

    /// Adds the children of a node.
    fn grow<T: AsRef<[u8]>>(&mut self, at: usize, forms: &[T], range: Range<usize>, through: &mut Vec<Range<usize>>) {
        let first = narrow(self.nodes.len());
        let Some(depth) = self.nodes.get_mut(at).map(|node| {
            node.first = first;
            node.depth
        }) else {
            return;
        };
        let mut begin = range.start;
        let mut last = None;
        for (number, form) in forms.iter().enumerate().take(range.end).skip(range.start) {
            let byte = form.as_ref().get(depth as usize).copied();
            if byte.is_none() {
                self.ends.push((narrow(at), narrow(number)));
                begin = number + 1;
                continue;
            }
            if last != byte {
                through.extend(last.map(|_| begin..number));
                begin = number;
                last = byte;
                self.push(byte.unwrap_or_default(), depth + 1);
            }
        }
        through.extend(last.map(|_| begin..range.end));
        let count = self.nodes.len() - first as usize;
        if let Some(node) = self.nodes.get_mut(at) {
            // There are 256 bytes.
            node.children = u16::try_from(count).unwrap_or(u16::MAX);
        }
    }

    /// Where to go on when the next byte does not fit, level by level.
    fn link(&mut self) {
        let ends: Vec<u32> = self.ends.iter().map(|(node, _)| *node).collect();
        let mut ends = ends.into_iter().peekable();
        for at in 0..narrow(self.nodes.len()) {
            let node = self.node(at);
            let from = self.node(node.fail);
            let best = if ends.next_if_eq(&at).is_some() { at } else { from.best };
            let open = if node.children > 0 { node.depth } else { from.open };
            if let Some(node) = self.nodes.get_mut(at as usize) {
                (node.best, node.open) = (best, open);
            }
            for child in node.first..node.first + u32::from(node.children) {
                let byte = self.labels.get(child as usize).copied().unwrap_or_default();
                let fail = if at == ROOT { ROOT } else { self.step(node.fail, byte) };
                if let Some(child) = self.nodes.get_mut(child as usize) {
                    child.fail = fail;
                }
            }
        }
    }

    fn node(&self, at: u32) -> Node {
        self.nodes.get(at as usize).copied().unwrap_or_default()
    }

    /// The node after one more byte. Takes a step back for each that was taken forward, at most.
    pub fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            let node = self.node(at);
            let labels = self.labels.get(node.first as usize..node.first as usize + usize::from(node.children)).unwrap_or_default();
            if let Ok(found) = labels.binary_search(&byte) {
                return node.first + narrow(found);
            }
            if at == ROOT {
                return ROOT;
            }
            at = node.fail;
        }
    }

    /// The longest form that ends at a node: its length and number.
    pub fn ended(&self, at: u32) -> Option<(usize, usize)> {
        let best = self.node(at).best;
        let found = self.ends.binary_search_by_key(&best, |(node, _)| *node).ok()?;
        let (_, number) = self.ends.get(found)?;
        Some((self.node(best).depth as usize, *number as usize))
    }

    /// How many of the last bytes may still become a form with what follows.
    pub fn open(&self, at: u32) -> usize {
        self.node(at).open as usize
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.labels.capacity() + self.ends.capacity() * size_of::<(u32, u32)>()
    }
}

/// Numbers of nodes and forms: the caller keeps them below 4 GiB.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_knows_the_longest_form_that_ends_there() {
        let trie = Trie::new(&["abab", "ababab", "b", "bc"]);
        let mut at = ROOT;
        let found: Vec<_> = b"xabababc"
            .iter()
            .map(|byte| {
                at = trie.step(at, *byte);
                (trie.ended(at).map(|(len, _)| len), trie.open(at))
            })
            .collect();
        assert_eq!(
            found,
            [(None, 0), (None, 1), (Some(1), 2), (None, 3), (Some(4), 4), (None, 5), (Some(6), 4), (Some(2), 0)],
            "the end of `ababab` may become another one"
        );
        assert_eq!(Trie::new::<&str>(&[]).step(ROOT, b'x'), ROOT);
    }
}
