//! Recorded traffic through the real pipeline, in process and from nothing: what the cache would have answered,
//! why not more, and what that would have saved. Time is not replayed: requests come one after the other, so none
//! joins another and nothing expires.

mod report;
mod traffic;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use indicatif::ProgressBar;

use crate::{
    config::{Config, ModelConfig, ProviderConfig},
    key::CacheKey,
    model::{AUTO, LOCAL, Tier},
    offline::{Offline, OfflineError},
    outcome::{MissReason, Outcome},
    pipeline::Reply,
};

pub use self::{
    report::Report,
    traffic::{Answers, Line, read},
};

/// The model, and the provider, of a configuration without any: their price is nothing.
const FREE: &str = "replayed";

/// Tokens assumed of an answer where the traffic has neither answer nor usage.
pub const ANSWER_TOKENS: usize = 200;

/// What became of one line.
#[derive(Clone, Debug)]
pub struct Replayed {
    pub line: usize,
    pub namespace: String,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    /// The line whose answer was served, or came nearest.
    pub of: Option<usize>,
    /// Cosine similarity of the two texts.
    pub similarity: f32,
    /// What a model call for it costs, in US dollars.
    pub usd: f64,
    /// Why the request failed.
    pub error: Option<String>,
}

/// One run over some traffic.
struct Run {
    offline: Offline,
    default_model: String,
    answers: Answers,
    /// By what its entry is kept under: the line that an answer was bought for.
    bought_for: HashMap<CacheKey, usize>,
}

/// Replays the file at `path`, with `config` to decide, route and price.
///
/// # Errors
/// When the file is no such traffic, naming the line, or there is no pipeline.
pub async fn run_file(path: &Path, config: Config) -> anyhow::Result<Report> {
    let lines = read(path)?;
    if !config.models.is_empty() {
        traffic::check_models(path, &lines, &config)?;
    }
    Ok(run(&lines, config).await?)
}

/// Replays `lines` in their order.
///
/// # Errors
/// [`OfflineError`]; a request that fails is part of the report.
pub async fn run(lines: &[Line], config: Config) -> Result<Report, OfflineError> {
    let has_prices = !config.models.is_empty();
    let answers = if lines.iter().any(Line::lacks_answer) { Answers::StandIn } else { Answers::Theirs };
    let default_model = config.routing.default.clone();
    let offline = Offline::start(configure(config, lines, answers)).await?;
    let mut run = Run { offline, default_model, answers, bought_for: HashMap::new() };
    let progress = ProgressBar::new(lines.len() as u64);
    let mut replayed = Vec::with_capacity(lines.len());
    for line in lines {
        replayed.push(run.ask(line).await);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let stats = run.offline.pipeline().statistics.of_server(None, None);
    let report = Report::new(lines, replayed, run.offline.calls(), &stats, has_prices);
    run.offline.stop().await?;
    Ok(report)
}

/// Stand-ins teach nothing: they are all the same.
fn configure(mut config: Config, lines: &[Line], answers: Answers) -> Config {
    if answers == Answers::StandIn {
        config.cache.learning.max_comparisons = 0;
    }
    LOCAL.clone_into(&mut config.routing.classifier);
    if config.models.is_empty() {
        let provider = ProviderConfig {
            name: FREE.to_owned(),
            base_url: String::new(),
            api_key_env: String::new(),
            region: String::new(),
        };
        config.providers = vec![provider];
        config.models = free_models(lines);
    }
    config
}

/// One for each name that the traffic asks for, and one for whoever names none.
fn free_models(lines: &[Line]) -> Vec<ModelConfig> {
    let asked = lines.iter().filter_map(Line::model);
    let named: BTreeSet<&str> = asked.filter(|name| *name != AUTO && Tier::parse(name).is_none()).collect();
    let model = |id: &str| ModelConfig {
        id: id.to_owned(),
        provider: FREE.to_owned(),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 0.0,
        output_usd_per_mtok: 0.0,
        context_window: 10_000_000,
    };
    [FREE].into_iter().chain(named).map(model).collect()
}

// === impl Run ===

impl Run {
    async fn ask(&mut self, line: &Line) -> Replayed {
        let (number, namespace) = (line.number, line.namespace.clone());
        let mut replayed = Replayed {
            line: number,
            namespace,
            outcome: Outcome::Bypass,
            reason: None,
            of: None,
            similarity: 0.0,
            usd: 0.0,
            error: None,
        };
        let Some(mut prompt) = line.prompt.clone() else { return replayed };
        if prompt.model.is_empty() {
            prompt.model.clone_from(&self.default_model);
        }
        let key = self.offline.key_of(&prompt);
        match self.offline.ask(prompt, line.said(self.answers)).await {
            Ok(reply) => self.note(&mut replayed, key, &reply),
            Err(error) => {
                replayed.outcome = Outcome::Error;
                replayed.error = Some(error.to_string());
            }
        }
        replayed
    }

    fn note(&mut self, replayed: &mut Replayed, key: CacheKey, reply: &Reply) {
        if let Some(matched) = &reply.matched {
            replayed.similarity = matched.similarity;
            replayed.of = self.bought_for.get(&matched.entry.key).copied();
        }
        replayed.outcome = reply.outcome;
        replayed.reason = reply.reason;
        replayed.usd =
            if reply.outcome.is_hit() { reply.saved_usd } else { reply.completion().usage.cost_usd };
        // A hit that was checked may have an entry of its own from now on.
        if reply.outcome != Outcome::Exact {
            self.bought_for.insert(key, replayed.line);
        }
    }
}
