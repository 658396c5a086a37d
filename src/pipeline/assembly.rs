//! Puts the steps of the pipeline together.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{
    Admission, Coalescing, Eligibility, Embeddings, Entries, ExactLookup, FeedbackIntake, FollowUps,
    Forwarder, Keeping, ModelCalls, Parts, Pipeline, Recording, SemanticLookup, Statistics, Verification,
};

impl Pipeline {
    /// A pipeline over `parts`.
    pub fn new(parts: Parts) -> Self {
        let Parts { settings, cache, embedder, learning, upstreams, metrics, ledger, tracing, log } = parts;
        let admission = Arc::new(Admission::new(settings, cache.clone(), metrics.clone()));
        let recording = Recording::new(metrics.clone(), ledger.clone(), tracing, log, upstreams.clone());
        let eligibility = Eligibility::new(upstreams.clone());
        let keeping = Arc::new(Keeping::new(cache.clone(), embedder.as_deref()));
        let model_calls = Arc::new(ModelCalls {
            admission: admission.clone(),
            cache: cache.clone(),
            eligibility: eligibility.clone(),
            upstreams: upstreams.clone(),
            recording: recording.clone(),
        });
        let tasks = TaskTracker::new();
        let verification = Arc::new(Verification::new(
            learning.clone(),
            upstreams.clone(),
            recording.clone(),
            tasks.clone(),
        ));
        let semantic = Arc::new(SemanticLookup {
            embedder,
            cache: cache.clone(),
            learning: learning.clone(),
            eligibility: eligibility.clone(),
            verification: verification.clone(),
            metrics: metrics.clone(),
        });
        let follow_ups = FollowUps::new(&learning, &cache, &model_calls, &keeping, &verification);
        let entries = Entries {
            admission: admission.clone(),
            cache: cache.clone(),
            semantic: semantic.clone(),
            keeping: keeping.clone(),
            follow_ups: follow_ups.clone(),
            upstreams: upstreams.clone(),
            recording: recording.clone(),
            tasks: tasks.clone(),
        };
        let feedback = FeedbackIntake {
            admission: admission.clone(),
            learning: learning.clone(),
            cache: cache.clone(),
            upstreams: upstreams.clone(),
            recording: recording.clone(),
            metrics: metrics.clone(),
            ledger: ledger.clone(),
        };
        Self {
            exact: ExactLookup::new(cache.clone(), eligibility),
            coalescing: Coalescing::new(cache.clone(), upstreams.clone()),
            embeddings: Embeddings::new(&admission, &cache, &upstreams, &recording, metrics),
            forwarder: Forwarder { admission: admission.clone(), upstreams, recording: recording.clone() },
            statistics: Statistics::new(admission.clone(), learning, cache, ledger),
            admission,
            semantic,
            verification,
            model_calls,
            keeping,
            follow_ups,
            recording,
            entries,
            feedback,
            tasks,
        }
    }
}
