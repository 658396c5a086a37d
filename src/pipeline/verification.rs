//! Asks a model whether a cached answer fits a new prompt too, on a share of the comparisons
//! (`cache.learning.judge_rate`): two answers can share their words and still differ.

use std::sync::Arc;

use super::{Admission, AdmittedRequest, Recording};
use crate::{
    learn::{Compared, Learning},
    model::VerifierReply,
    prompt::Completion,
    telemetry::metrics::Metrics,
    upstream::{ReuseQuestion, Upstreams},
};

/// Replaces a comparison of two answers by a model's verdict.
pub(super) struct Verification {
    pub admission: Arc<Admission>,
    pub learning: Arc<Learning>,
    pub upstreams: Upstreams,
    pub recording: Arc<Recording>,
    pub metrics: Arc<Metrics>,
}

impl Verification {
    /// Verifies the decisive comparison, if it is sampled for verification and a reply comes. Answers with tool calls are left to the
    /// comparison, where every argument counts.
    pub(super) async fn verify(
        &self,
        request: &AdmittedRequest,
        completion: &Completion,
        compared: &mut Compared,
    ) {
        let Some((index, candidate)) = compared.decisive() else { return };
        let (entry, other) = (&candidate.entry, request.prompt.fuzzy_text());
        let (Some(question), Some(other)) = (entry.text.as_deref(), other) else { return };
        let reuse = ReuseQuestion { question, answer: &entry.completion.content, other };
        let is_text = completion.tool_calls.is_none() && entry.completion.tool_calls.is_none();
        if !is_text || !reuse.is_short() || self.admission.check_budget(&request.tenant).is_err() {
            return;
        }
        let Some(_permit) = self.learning.verification_permit(request.key) else { return };
        let config = &request.settings.cache.learning;
        let attempts = Arc::new(self.recording.audit_listener(request));
        let reply = self.upstreams.verify(reuse, &config.judge, config.judge_timeout, attempts).await;
        self.metrics.verification(reply);
        match reply {
            VerifierReply::Fits => compared.set_verified(index, true),
            VerifierReply::Differs => compared.set_verified(index, false),
            VerifierReply::Nonsense | VerifierReply::Unavailable | VerifierReply::Skipped => {}
        }
    }
}
