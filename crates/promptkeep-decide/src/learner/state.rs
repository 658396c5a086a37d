//! A learner as bytes, so that a restart or another replica goes on where it was. The labels are the
//! truth; model and threshold are fitted again from them.

use std::{collections::VecDeque, sync::Arc};

use super::{Audits, EXAMPLES_MAX, Example, LabelId, Learner, RECENT_MAX, Recent};
use crate::{
    features,
    table::{Bins, Reader, Table},
};

const MAGIC: &[u8; 8] = b"pklearn\0";
/// Changes with the encoding and with the features.
const VERSION: u32 = 4;

// === impl Learner ===

impl Learner {
    /// Little-endian; see [`Learner::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.table.fingerprint().to_le_bytes());
        bytes.extend(self.requests.to_le_bytes());
        bytes.extend(self.plain.to_le_bytes());
        bytes.extend((self.examples.len() as u32).to_le_bytes());
        self.examples.iter().for_each(|e| e.encode(&mut bytes));
        bytes.extend((self.recent.len() as u32).to_le_bytes());
        for recent in &self.recent {
            bytes.push(recent.map_or(0, |r| 1 + u8::from(r.english)));
            bytes.extend(recent.map_or([0; features::COUNT], |r| r.bins));
            bytes.extend(recent.map_or(0, |r| r.scope).to_le_bytes());
        }
        self.audits.encode(&mut bytes);
        bytes
    }

    /// Reads what [`Learner::encode`] wrote with the same table, and fits the model. `None` for anything
    /// else: the namespace then learns anew.
    pub fn decode(bytes: &[u8], table: Arc<Table>, seed: u64) -> Option<Self> {
        let mut learner = Self::decode_unfitted(bytes, table, seed)?;
        let fitted = learner.snapshot().fit();
        learner.install(fitted);
        Some(learner)
    }

    /// The same with the model of a new namespace, to be joined to another.
    pub fn decode_unfitted(bytes: &[u8], table: Arc<Table>, seed: u64) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len())? != MAGIC || reader.u32()? != VERSION {
            return None;
        }
        if reader.u64()? != table.fingerprint() {
            return None;
        }
        let mut learner = Self::new(table, seed);
        learner.requests = reader.u64()?;
        learner.plain = reader.u64()?;
        let count = bounded(&mut reader, EXAMPLES_MAX)?;
        learner.examples = (0..count)
            .map(|_| Example::decode(&mut reader, &learner.table))
            .collect::<Option<VecDeque<_>>>()?;
        let count = bounded(&mut reader, RECENT_MAX)?;
        for _ in 0..count {
            let kind = reader.take(1)?[0];
            let bins = bins(&mut reader, &learner.table)?;
            let scope = reader.u32()?;
            let forest = learner.table.forest.logit(&bins);
            let recent = Recent { bins, forest, scope, english: kind > 1 };
            learner.recent.push_back((kind > 0).then_some(recent));
        }
        learner.audits = Audits::decode(&mut reader, seed)?;
        if !reader.is_empty() || learner.examples.iter().any(|e| e.at > learner.requests) {
            return None;
        }
        Some(learner)
    }
}

// === impl Example ===

impl Example {
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        self.id.encode(to);
        to.extend(self.bins);
        to.extend(self.scope.to_le_bytes());
        to.push(self.english.into());
        to.extend(self.same.to_le_bytes());
        to.extend(self.weight.to_le_bytes());
        to.extend(self.at.to_le_bytes());
        let (logit, weight) = self.foreseen.unwrap_or((0.0, 0.0));
        to.extend(logit.to_le_bytes());
        to.extend(weight.to_le_bytes());
    }

    pub(super) fn decode(from: &mut Reader<'_>, table: &Table) -> Option<Self> {
        let id = LabelId::decode(from)?;
        let bins = bins(from, table)?;
        let scope = from.u32()?;
        let english = from.take(1)?[0] == 1;
        let (same, weight, at) = (from.f32()?, from.f32()?, from.u64()?);
        let foreseen = (from.f32()?, from.f32()?);
        let valid = (0.0..=1.0).contains(&same) && weight >= 0.0 && foreseen.1 >= 0.0;
        valid.then(|| Self {
            id,
            bins,
            forest: table.forest.logit(&bins),
            scope,
            english,
            same,
            weight,
            at,
            foreseen: (foreseen.1 > 0.0).then_some(foreseen),
        })
    }
}

/// A count of at most `max`.
fn bounded(from: &mut Reader<'_>, max: usize) -> Option<usize> {
    Some(from.u32()? as usize).filter(|n| *n <= max)
}

/// Bins that the table has.
fn bins(from: &mut Reader<'_>, table: &Table) -> Option<Bins> {
    let bins: Bins = from.take(features::COUNT)?.try_into().ok()?;
    let known = bins.iter().zip(&table.means).all(|(bin, means)| (*bin as usize) < means.len());
    known.then_some(bins)
}
