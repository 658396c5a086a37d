//! Recorded traffic through an offline pipeline: what the cache would have answered, why it would not have answered
//! the rest, and what it would have saved. Time is not replayed: requests come one after the other, so none coalesce
//! and nothing expires.

mod recorded;
mod savings_report;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use indicatif::ProgressIterator as _;

use crate::{
    config::Config,
    key::CacheKey,
    model::{AUTO, LOCAL, Tier},
    offline::{self, OfflineError, OfflinePipeline},
    outcome::{MissReason, Outcome},
    pipeline::Reply,
};

pub use self::{
    recorded::{AnswerSource, RecordedRequest, read},
    savings_report::Report,
};

/// Tokens assumed of an answer when the traffic has neither the answer nor its usage.
pub const ANSWER_TOKENS: usize = 200;

/// Result of one line of the traffic.
#[derive(Clone, Debug)]
pub struct LineResult {
    pub line: usize,
    pub namespace: String,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    /// Line whose answer was served, or was the best candidate.
    pub matched: Option<usize>,
    /// Cosine similarity of the two texts.
    pub similarity: f32,
    /// Price of a model call for this request, in US dollars.
    pub usd: f64,
    /// Why the request failed.
    pub error: Option<String>,
}

/// A run in progress.
struct Run {
    pipeline: OfflinePipeline,
    default_model: String,
    source: AnswerSource,
    /// Line that an entry's answer came with.
    line_of_entry: HashMap<CacheKey, usize>,
}

/// Replays the file at `path`, with the decision, routing and prices of `config`.
///
/// # Errors
/// When a line is malformed, naming it, or the pipeline does not start.
pub async fn run_file(path: &Path, config: Config) -> anyhow::Result<Report> {
    let requests = read(path)?;
    if !config.models.is_empty() {
        recorded::check_models(path, &requests, &config)?;
    }
    // Boxed because a configuration is large, and so are the futures that hold one.
    Ok(Box::pin(run(&requests, config)).await?)
}

/// Replays `requests` in their order.
///
/// # Errors
/// [`OfflineError`]. A request that fails is part of the report.
pub async fn run(requests: &[RecordedRequest], config: Config) -> Result<Report, OfflineError> {
    let has_prices = !config.models.is_empty();
    let lacks_answers = requests.iter().any(RecordedRequest::lacks_answer);
    let source = if lacks_answers { AnswerSource::StandIn } else { AnswerSource::Recorded };
    let default_model = config.routing.default.clone();
    let pipeline = OfflinePipeline::start(configure(config, requests, source), None).await?;
    let mut run = Run { pipeline, default_model, source, line_of_entry: HashMap::new() };
    let mut results = Vec::with_capacity(requests.len());
    for request in requests.iter().progress() {
        results.push(run.replay(request).await);
    }
    let stats = run.pipeline.pipeline().statistics.of_server(None, None);
    let report = Report::new(requests, results, run.pipeline.calls(), &stats, has_prices);
    run.pipeline.stop().await?;
    Ok(report)
}

fn configure(mut config: Config, requests: &[RecordedRequest], source: AnswerSource) -> Config {
    if source == AnswerSource::StandIn {
        // All stand-ins are equal, so comparing them would teach the cache that every pair matches.
        config.cache.learning.max_comparisons = 0;
    }
    LOCAL.clone_into(&mut config.routing.classifier);
    if config.models.is_empty() {
        let named: BTreeSet<_> = requests.iter().filter_map(RecordedRequest::model).collect();
        let is_id = |name: &&str| *name != AUTO && Tier::parse(name).is_none();
        offline::use_free_models(&mut config, named.into_iter().filter(is_id));
    }
    config
}

impl Run {
    async fn replay(&mut self, request: &RecordedRequest) -> LineResult {
        let mut result = LineResult {
            line: request.line,
            namespace: request.namespace.clone(),
            outcome: Outcome::Bypass,
            reason: None,
            matched: None,
            similarity: 0.0,
            usd: 0.0,
            error: None,
        };
        let Some(mut prompt) = request.prompt.clone() else { return result };
        if prompt.model.is_empty() {
            prompt.model.clone_from(&self.default_model);
        }
        let key = self.pipeline.key_of(&prompt);
        match self.pipeline.complete(prompt, request.model_answer(self.source)).await {
            Ok(reply) => self.add_reply(&mut result, key, &reply),
            Err(error) => {
                result.outcome = Outcome::Error;
                result.error = Some(error.to_string());
            }
        }
        result
    }

    fn add_reply(&mut self, result: &mut LineResult, key: CacheKey, reply: &Reply) {
        if let Some(matched) = &reply.matched {
            result.similarity = matched.similarity;
            result.matched = self.line_of_entry.get(&matched.entry.key).copied();
        }
        result.outcome = reply.outcome;
        result.reason = reply.reason;
        result.usd = if reply.outcome.is_hit() { reply.saved_usd } else { reply.completion().usage.cost_usd };
        // An audited semantic hit may have stored an entry for its own prompt.
        if reply.outcome != Outcome::Exact {
            self.line_of_entry.insert(key, result.line);
        }
    }
}
