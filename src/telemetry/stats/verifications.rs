//! Sums over verifications: how often a verifier was asked, what it said and cost, and what the hits that it approved
//! saved.

use serde::Serialize;

use super::Counters;
use crate::{
    decide::learner::{ErrorRate, MeasuredErrors, SourceErrors},
    model::VerifierReply,
};

/// Sums over verifications and the hits that they approved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verifications {
    /// By [`VerifierReply::LABELS`].
    replies: [u64; VerifierReply::LABELS.len()],
    pub cost_usd: f64,
    /// Hits that a verifier approved.
    hits: u64,
    /// What they saved, before any cost of verification is taken off.
    saved_usd: f64,
}

/// Verifications of a window, as reports show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct VerificationStats {
    /// Verifications, except skipped ones.
    pub asked: u64,
    pub yes: u64,
    pub no: u64,
    pub nonsense: u64,
    pub unavailable: u64,
    pub timeouts: u64,
    pub skipped: u64,
    pub cost_usd: f64,
    /// Cost as a share of what the requests would have cost without a cache; 0 if they would have cost nothing.
    pub share_of_spend: f64,
    /// Hits that a verifier approved.
    pub hits: u64,
    /// What they saved, before any cost of verification is taken off.
    pub saved_usd: f64,
}

/// Estimated error rates of the verifier, over all time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VerifierErrors {
    /// Share of wrong answers that the verifier approves.
    pub false_yes: Rate,
    /// Share of right answers that the verifier rejects.
    pub false_no: Rate,
    /// Verdicts behind the estimate. With none, the rates are those assumed of a new verifier.
    pub verdicts: u64,
}

/// An estimated rate and the interval that holds it with 90 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    pub rate: f32,
    pub low: f32,
    pub high: f32,
}

impl Verifications {
    /// Counts a verification.
    pub(super) fn count(&mut self, reply: VerifierReply) {
        let label = VerifierReply::LABELS.iter().position(|label| *label == reply.as_str());
        label.into_iter().for_each(|label| self.replies[label] += 1);
    }

    /// Counts a hit that a verifier approved.
    pub(super) fn hit(&mut self, saved_usd: f64) {
        self.hits += 1;
        self.saved_usd += saved_usd;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.replies.iter_mut().zip(other.replies) {
            *count += more;
        }
        self.cost_usd += other.cost_usd;
        self.hits += other.hits;
        self.saved_usd += other.saved_usd;
    }
}

impl From<&Counters> for VerificationStats {
    fn from(counters: &Counters) -> Self {
        let Verifications { replies, cost_usd, hits, saved_usd } = counters.verifications;
        let [yes, no, nonsense, unavailable, timeouts, skipped] = replies;
        let share = cost_usd / counters.without_cache_usd;
        Self {
            asked: yes + no + nonsense + unavailable + timeouts,
            yes,
            no,
            nonsense,
            unavailable,
            timeouts,
            skipped,
            cost_usd,
            share_of_spend: if counters.without_cache_usd > 0.0 { share } else { 0.0 },
            hits,
            saved_usd,
        }
    }
}

impl VerifierErrors {
    /// What is assumed of a new verifier.
    pub fn unmeasured() -> Self {
        MeasuredErrors { errors: SourceErrors::of_new_verifier(), verdicts: 0 }.into()
    }
}

impl From<MeasuredErrors> for VerifierErrors {
    fn from(MeasuredErrors { errors, verdicts }: MeasuredErrors) -> Self {
        Self { false_yes: errors.false_same.into(), false_no: errors.false_different.into(), verdicts }
    }
}

impl From<ErrorRate> for Rate {
    fn from(ErrorRate { rate, low, high }: ErrorRate) -> Self {
        Self { rate, low, high }
    }
}
