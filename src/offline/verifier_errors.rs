//! Labelled pairs of questions to the configured verifier: how often does it err, before a server trusts it? Asks as a
//! server does, and costs what the calls cost.

mod labelled_pair;
mod report;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use tokio::task::JoinSet;

use crate::{
    config::{Config, ModelConfig, RoutingConfig, UpstreamConfig, VerifyConfig},
    model::{Attempt, VerifierReply},
    upstream::{
        self, KEPT_MAX, KeptAnswer, TimeLimit, UpstreamSettings, Upstreams, VerificationQuestion, Verifier,
        cut_answer,
    },
};

pub use self::{
    labelled_pair::{BadLine, LabelledPair, PairsFile},
    report::{PairResult, Report, Says},
};

/// Time until a call is given up, in multiples of `cache.verify.timeout`. A server learns from such late verdicts too.
const GIVE_UP: u32 = 4;

/// How pairs are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Maximum number of kept answers in one call, up to [`KEPT_MAX`].
    pub batch: usize,
    /// Maximum number of calls in flight.
    pub concurrency: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error("{path}: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("{path}: has no pairs{}", bad.first().map_or_else(String::new, |bad| format!("; {bad}")))]
    NoPairs { path: String, bad: Vec<BadLine> },
    #[error("cache.verify.model: the catalog has no `{0}`")]
    NoVerifier(String),
    #[error("cache.verify.prompt_file: {0} is not there")]
    NoPromptFile(String),
    #[error(transparent)]
    Catalog(#[from] upstream::StartError),
}

/// A run in progress.
struct Run {
    pairs: Vec<LabelledPair>,
    upstreams: Upstreams,
    verifier: Verifier,
    config: VerifyConfig,
    /// Cost of the calls in US dollars. A std mutex: held for an addition, never across an await.
    usd: Arc<Mutex<f64>>,
}

/// One call and its result.
struct Call {
    /// Indices of the pairs that it asked about.
    asked: Vec<usize>,
    reply: VerifierReply,
    time: Duration,
}

/// Asks about the pairs of a file.
///
/// # Errors
/// [`MeasureError`]. Bad lines are part of the report, if others are good.
pub async fn run_file(path: &Path, config: &Config, options: Options) -> Result<Report, MeasureError> {
    let file = PairsFile::read(path)?;
    let (upstreams, verifier) = start(config)?;
    let run = Arc::new(Run {
        pairs: file.pairs,
        upstreams,
        verifier,
        config: config.cache.verify.clone(),
        usd: Arc::default(),
    });
    let (batches, too_long) = run.batches(options.batch.clamp(1, KEPT_MAX));
    let calls = Run::ask_all(&run, batches, options.concurrency).await;
    Ok(run.report(&calls, &too_long, file.bad_lines, config))
}

/// Builds a catalog of the models that may verify. Their breaker never opens, so that each pair is asked about.
fn start(config: &Config) -> Result<(Upstreams, Verifier), MeasureError> {
    let verify = &config.cache.verify;
    if let Some(file) = verify.prompt_file.as_ref().filter(|file| !file.path.exists()) {
        return Err(MeasureError::NoPromptFile(file.path.display().to_string()));
    }
    let is_verifier = |model: &&ModelConfig| model.id == verify.model || model.tier.as_str() == verify.model;
    let models: Vec<ModelConfig> = config.models.iter().filter(is_verifier).cloned().collect();
    let mut providers = config.providers.clone();
    providers.retain(|provider| models.iter().any(|model| model.provider == provider.name));
    let upstreams = Upstreams::new(UpstreamSettings {
        providers: &providers,
        models: &models,
        routing: &RoutingConfig::default(),
        upstream: &UpstreamConfig { breaker_failures: u32::MAX, ..config.upstream.clone() },
        region: &config.server.region,
        embedder: "",
    })?;
    let verifier = upstreams.verifier(&verify.model);
    let verifier = verifier.ok_or_else(|| MeasureError::NoVerifier(verify.model.clone()))?;
    Ok((upstreams, verifier))
}

impl Run {
    /// Groups the pairs into calls: up to `size` pairs with equal new questions and contexts. Also returns the pairs
    /// that a server would not ask about, because a question is too long.
    fn batches(&self, size: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
        let max = self.config.max_question_bytes;
        let (mut batches, mut too_long) = (Vec::<Vec<usize>>::new(), Vec::new());
        let mut open: HashMap<(&str, Option<&str>), usize> = HashMap::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            if pair.question.len() > max || pair.new_question.len() > max {
                too_long.push(index);
                continue;
            }
            let asks = (pair.new_question.as_str(), pair.context.as_deref());
            match open.get(&asks).filter(|batch| batches[**batch].len() < size) {
                Some(batch) => batches[*batch].push(index),
                None => {
                    open.insert(asks, batches.len());
                    batches.push(vec![index]);
                }
            }
        }
        (batches, too_long)
    }

    async fn ask_all(run: &Arc<Self>, batches: Vec<Vec<usize>>, concurrency: usize) -> Vec<Call> {
        let bar = ProgressBar::new(batches.len() as u64);
        let (mut in_flight, mut done) = (JoinSet::new(), Vec::with_capacity(batches.len()));
        for batch in batches {
            while in_flight.len() >= concurrency.max(1) {
                done.extend(in_flight.join_next().await);
                bar.inc(1);
            }
            in_flight.spawn(Arc::clone(run).ask(batch));
        }
        while let Some(call) = in_flight.join_next().await {
            done.push(call);
            bar.inc(1);
        }
        bar.finish_and_clear();
        done.into_iter().map(|call| call.expect("a call neither panics nor is aborted")).collect()
    }

    async fn ask(self: Arc<Self>, asked: Vec<usize>) -> Call {
        let kept = |index: &usize| {
            let LabelledPair { question, answer, .. } = &self.pairs[*index];
            (question.as_str(), cut_answer(answer, self.config.max_answer_bytes))
        };
        let kept: Vec<_> = asked.iter().map(kept).collect();
        let kept: Vec<_> = kept.iter().map(|(question, answer)| KeptAnswer { question, answer }).collect();
        let pair = &self.pairs[asked[0]];
        let question = VerificationQuestion {
            instructions: self.config.instructions(),
            new_question: &pair.new_question,
            kept: &kept,
            context: pair.context.as_deref(),
        };
        let limit = TimeLimit { timeout: self.config.timeout * GIVE_UP, deadline: None };
        let usd = Arc::clone(&self.usd);
        let count = move |attempt: &Attempt| {
            *usd.lock().unwrap_or_else(PoisonError::into_inner) += attempt.usage.cost_usd;
        };
        let started = Instant::now();
        let reply = self.upstreams.verify(&self.verifier, question, limit, Arc::new(count)).await;
        Call { asked, reply, time: started.elapsed() }
    }

    fn report(&self, calls: &[Call], too_long: &[usize], bad_lines: Vec<BadLine>, config: &Config) -> Report {
        let mut rows: Vec<PairResult> =
            too_long.iter().map(|index| self.row(*index, Says::TooLong)).collect();
        for Call { asked, reply, time } in calls {
            for (nth, index) in asked.iter().enumerate() {
                let says = Says::of(*reply, nth);
                rows.push(PairResult { milliseconds: Some(time.as_millis()), ..self.row(*index, says) });
            }
        }
        rows.sort_by_key(|row| row.line);
        let times = calls.iter().filter(|call| call.reply != VerifierReply::Skipped).map(|call| call.time);
        Report::new(report::Measured {
            model: self.verifier.id(),
            provider: self.verifier.provider(),
            rows,
            bad_lines,
            times: times.collect(),
            usd: *self.usd.lock().unwrap_or_else(PoisonError::into_inner),
            cache: &config.cache,
        })
    }

    fn row(&self, index: usize, says: Says) -> PairResult {
        let LabelledPair { line, same, .. } = self.pairs[index];
        PairResult { line, same, says, milliseconds: None }
    }
}
