//! A learner as bytes, so that a restart or another replica continues from it. Only the labels are stored; the model
//! and the threshold are fitted again from them.

use std::sync::Arc;

use promptkeep_core::codec::{Malformed, Reader, ensure};

use super::{Audits, EXAMPLES_MAX, Example, FIT_AFTER, LabelId, Learner, RECENT_MAX, Recent};
use crate::{
    features,
    table::{Bins, Table},
};

const MAGIC: &[u8; 8] = b"pklearn\0";
/// Changes with the encoding and with the features.
const VERSION: u32 = 6;

impl Learner {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.table.fingerprint().to_le_bytes());
        bytes.extend(self.requests.to_le_bytes());
        bytes.extend(self.obvious.to_le_bytes());
        bytes.extend((self.examples.len() as u32).to_le_bytes());
        self.examples.iter().for_each(|e| e.encode(&mut bytes));
        bytes.extend((self.recent.len() as u32).to_le_bytes());
        for recent in &self.recent {
            bytes.push(recent.map_or(0, |r| 1 + u8::from(r.english)));
            bytes.extend(recent.map_or([0; features::COUNT], |r| r.bins));
            bytes.extend(recent.map_or(0, |r| r.scope).to_le_bytes());
            bytes.extend(recent.and_then(|r| r.price).unwrap_or(f32::MAX).to_le_bytes());
        }
        self.audits.encode(&mut bytes);
        bytes
    }

    /// Reads what [`Learner::encode`] wrote with the same table, and fits the model.
    ///
    /// # Errors
    /// [`Malformed`], also for another version or table.
    pub fn decode(bytes: &[u8], table: Arc<Table>, seed: u64) -> Result<Self, Malformed> {
        let mut learner = Self::decode_unfitted(bytes, table, seed)?;
        if learner.labelled() >= FIT_AFTER {
            let fitted = learner.start_fit().run();
            learner.install(fitted);
        }
        Ok(learner)
    }

    /// Reads a learner that is only to be merged into another, so its model is not fitted.
    ///
    /// # Errors
    /// As [`Learner::decode`].
    pub fn decode_unfitted(bytes: &[u8], table: Arc<Table>, seed: u64) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        from.expect(MAGIC, "magic")?;
        ensure(from.u32()? == VERSION, "version")?;
        ensure(from.u64()? == table.fingerprint(), "table")?;
        let mut learner = Self::new(table, seed);
        let table = &learner.table;
        learner.requests = from.u64()?;
        learner.obvious = from.u64()?;
        let count = from.count(EXAMPLES_MAX)?;
        learner.examples = from.repeat(count, |from| Example::decode(from, table))?;
        let count = from.count(RECENT_MAX)?;
        learner.recent = from.repeat(count, |from| recent(from, table))?;
        learner.audits = Audits::decode(from, seed)?;
        ensure(learner.examples.iter().all(|e| e.at <= learner.requests), "request")?;
        from.end()?;
        learner.count_wrong_variants();
        Ok(learner)
    }
}

impl Example {
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        self.id.encode(to);
        to.extend(self.bins);
        to.extend(self.scope.to_le_bytes());
        let verdict = self.verdict.map_or(0, |fits| 1 + u8::from(fits));
        to.push(
            u8::from(self.english)
                | u8::from(self.compared) << 1
                | u8::from(self.surface) << 2
                | verdict << 3
                | u8::from(self.review) << 5,
        );
        to.extend(self.evidence.to_le_bytes());
        to.extend(self.weight.to_le_bytes());
        to.extend(self.at.to_le_bytes());
        let (logit, weight) = self.predicted.unwrap_or((0.0, 0.0));
        to.extend(logit.to_le_bytes());
        to.extend(weight.to_le_bytes());
    }

    pub(super) fn decode(from: &mut Reader<'_>, table: &Table) -> Result<Self, Malformed> {
        let id = LabelId::decode(from)?;
        let bins = bins(from, table)?;
        let scope = from.u32()?;
        let flags = from.byte()?;
        let (english, compared, surface) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
        let review = flags & 32 > 0;
        let verdict = (flags & 24 > 0).then_some(flags & 16 > 0);
        let (evidence, weight, at) = (from.f32()?, from.f32()?, from.u64()?);
        let predicted = (from.f32()?, from.f32()?);
        let valid = evidence.is_finite() && weight >= 0.0 && predicted.1 >= 0.0;
        ensure(valid, "label")?;
        let (forest, predicted) = (table.forest.logit(&bins), (predicted.1 > 0.0).then_some(predicted));
        Ok(Self {
            id,
            bins,
            forest,
            scope,
            english,
            evidence,
            verdict,
            compared,
            review,
            surface,
            weight,
            at,
            predicted,
        })
    }
}

/// Reads the best candidate of a request: 0 for none, 1 for one, 2 for one in English.
fn recent(from: &mut Reader<'_>, table: &Table) -> Result<Option<Recent>, Malformed> {
    let kind = from.byte()?;
    let bins = bins(from, table)?;
    let (forest, scope, price) = (table.forest.logit(&bins), from.u32()?, from.f32()?);
    let recent =
        Recent { bins, forest, scope, english: kind > 1, price: (price < f32::MAX).then_some(price) };
    Ok((kind > 0).then_some(recent))
}

/// Reads bins and verifies that the table has them.
fn bins(from: &mut Reader<'_>, table: &Table) -> Result<Bins, Malformed> {
    let bins: Bins = from.array()?;
    let known = bins.iter().zip(&table.means).all(|(bin, means)| usize::from(*bin) < means.len());
    ensure(known, "bin").map(|()| bins)
}
