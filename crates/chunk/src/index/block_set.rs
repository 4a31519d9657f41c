//! A set of blocks of one chunk.

/// Which of a chunk's blocks; a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: usize,
}

impl BlockSet {
    /// None of `blocks`.
    #[must_use]
    pub fn none(blocks: usize) -> Self {
        Self { words: vec![0; blocks.div_ceil(64)], blocks }
    }

    /// All of `blocks`.
    #[must_use]
    pub fn all(blocks: usize) -> Self {
        let mut all = Self::none(blocks);
        (0..blocks).for_each(|block| all.insert(block));
        all
    }

    /// Adds a block; one that there is not is passed over.
    pub fn insert(&mut self, block: usize) {
        if block < self.blocks
            && let Some(word) = self.words.get_mut(block / 64)
        {
            *word |= 1 << (block % 64);
        }
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn contains(&self, block: usize) -> bool {
        self.words.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// Leaves what is in both.
    pub fn intersect(&mut self, other: &Self) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or(0);
        }
    }

    /// Adds what is in the other.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// How many blocks are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The blocks in it, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (0..self.blocks).filter(|block| self.contains(*block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sets() {
        let of = |blocks: &[usize]| {
            let mut set = BlockSet::none(70);
            blocks.iter().for_each(|block| set.insert(*block));
            set
        };
        let (mut a, b) = (of(&[0, 5, 64, 69, 70, 500]), of(&[5, 69]));
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 5, 64, 69]);
        assert!(a.contains(64) && !a.contains(70) && !a.contains(999));
        a.intersect(&b);
        assert_eq!(a, b);
        a.union(&of(&[1]));
        assert_eq!(a.iter().rev().collect::<Vec<_>>(), [69, 5, 1]);
        assert_eq!((BlockSet::all(70).count(), BlockSet::none(70).count()), (70, 0));
        assert!(BlockSet::none(0).is_empty() && BlockSet::all(0).is_empty());
    }
}
