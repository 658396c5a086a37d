//! Asks a model whether a cached answer fits a new prompt too, after the reply (`cache.verify.mode`): two answers can
//! share their words and still differ.

use std::sync::Arc;

use super::{Admission, AdmittedRequest, Recording};
use crate::{
    learn::{Compared, Learning},
    model::VerifierReply,
    prompt::Completion,
    telemetry::metrics::Metrics,
    upstream::{KeptAnswer, TimeLimit, Upstreams, VerificationQuestion, cut_answer},
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
        let config = &request.settings.cache.verify;
        let answer = cut_answer(&entry.completion.content, config.max_answer_bytes);
        let kept = [KeptAnswer { question, answer: &answer }];
        let asked = VerificationQuestion {
            instructions: config.instructions(),
            new_question: other,
            kept: &kept,
            context: None,
        };
        let is_short = question.len().max(other.len()) <= config.max_question_bytes;
        let is_text = completion.tool_calls.is_none() && entry.completion.tool_calls.is_none();
        if !is_text || !is_short || self.admission.check_budget(&request.tenant).is_err() {
            return;
        }
        let Some(_permit) = self.learning.verification_permit(request.key) else { return };
        let Some(verifier) = self.upstreams.verifier(&config.model) else { return };
        let limit = TimeLimit { timeout: config.timeout, deadline: None };
        let attempts = Arc::new(self.recording.audit_listener(request));
        let reply = self.upstreams.verify(&verifier, asked, limit, attempts).await;
        self.metrics.verification(reply);
        if let VerifierReply::Fits(fitting) = reply {
            compared.set_verified(index, fitting.contains(0));
        }
    }
}
