//! Pairs of a prompt and an entry whose answer is wrong for it, by the feedback of callers. They are not served again.

use std::{collections::VecDeque, sync::Mutex};

use promptkeep_core::codec::{Malformed, Reader};

use super::namespace::lock;
use crate::key::CacheKey;

/// Maximum rejected pairs; the oldest are dropped. By then their prompts have entries of their own.
pub(super) const REJECTED_MAX: usize = 256;

/// A prompt, and an entry whose answer is wrong for it.
pub(super) type RejectedPair = (CacheKey, CacheKey);

/// The rejected pairs of a namespace.
#[derive(Default)]
pub(super) struct RejectedPairs {
    /// Std mutexes: held for one look, never across an await.
    pairs: Mutex<VecDeque<RejectedPair>>,
    /// Pairs that other processes do not know yet.
    unpublished: Mutex<VecDeque<RejectedPair>>,
}

impl RejectedPairs {
    /// Adds a pair that callers of this process rejected. Returns whether it is new.
    pub(super) fn reject(&self, pair: RejectedPair) -> bool {
        let is_new = self.add(pair);
        if is_new {
            add(&mut lock(&self.unpublished), pair);
        }
        is_new
    }

    /// Adds a pair that other processes know. Returns whether it is new here.
    pub(super) fn add(&self, pair: RejectedPair) -> bool {
        add(&mut lock(&self.pairs), pair)
    }

    pub(super) fn contains(&self, prompt: CacheKey, entry: CacheKey) -> bool {
        lock(&self.pairs).contains(&(prompt, entry))
    }

    /// Takes the pairs to publish.
    pub(super) fn take_unpublished(&self) -> Vec<RejectedPair> {
        std::mem::take(&mut *lock(&self.unpublished)).into()
    }

    /// Puts back pairs that could not be published.
    pub(super) fn restore_unpublished(&self, pairs: Vec<RejectedPair>) {
        let mut unpublished = lock(&self.unpublished);
        let since = std::mem::replace(&mut *unpublished, pairs.into());
        for pair in since {
            add(&mut unpublished, pair);
        }
    }

    /// Writes all pairs, as [`read_pairs`] reads them.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        write_pairs(to, lock(&self.pairs).iter());
    }
}

impl From<VecDeque<RejectedPair>> for RejectedPairs {
    fn from(pairs: VecDeque<RejectedPair>) -> Self {
        Self { pairs: pairs.into(), ..Self::default() }
    }
}

/// Adds the pair unless it is there; returns whether it was added.
fn add(pairs: &mut VecDeque<RejectedPair>, pair: RejectedPair) -> bool {
    if pairs.contains(&pair) {
        return false;
    }
    if pairs.len() == REJECTED_MAX {
        pairs.pop_front();
    }
    pairs.push_back(pair);
    true
}

/// Writes the number of pairs, then each.
pub(super) fn write_pairs<'a>(to: &mut Vec<u8>, pairs: impl ExactSizeIterator<Item = &'a RejectedPair>) {
    to.extend((pairs.len() as u32).to_le_bytes());
    for (prompt, entry) in pairs {
        to.extend(prompt.as_bytes());
        to.extend(entry.as_bytes());
    }
}

/// Reads what [`write_pairs`] wrote.
pub(super) fn read_pairs<C: FromIterator<RejectedPair>>(
    from: &mut Reader<'_>,
    max: usize,
) -> Result<C, Malformed> {
    let count = from.count(max)?;
    let key = |from: &mut Reader<'_>| from.array().map(CacheKey::from_bytes);
    from.repeat(count, |from| Ok((key(from)?, key(from)?)))
}
