//! The path of a request, top-down: admit, canonicalise, exact, join, embed, search, decide, upstream,
//! keep. Knows no transport: the gRPC and HTTP doors call it and encode what it answers.

mod answering;
mod asked;
mod entries;
mod explain;
mod forward;
mod judged;
mod learn;
mod numbers;
mod paraphrase;
mod purchase;
mod record;
mod reply;
mod revalidate;
mod second_opinion;
mod servable;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::{
    asked::{Admission, ToKeep},
    entries::within,
    judged::{Judged, Known},
    learn::Rest,
    paraphrase::UnderWay,
    purchase::Reserved,
    record::{Recorder, Savings},
    revalidate::ServedStale,
};
use crate::{
    cache::Cache,
    config::{CacheConfig, Mode},
    decide::Policy,
    embed::{Embedded, Embedder, Embedding},
    entry::Candidate,
    error::Error,
    feedback::{Replies, RequestId},
    flight::{self, Flights, Leader},
    key::CacheKey,
    learn::Learning,
    metrics::{Metrics, Rpc},
    outcome::{MissReason, Outcome},
    prompt::Delta,
    request_log::RequestLog,
    stats::Ledger,
    store::{Durability, StoreError},
    tenant::Tenants,
    trace::Tracing,
    upstream::{Answer, Ask, Upstreams},
};

pub use self::{
    answering::{Answering, deltas},
    asked::{Asked, DEFAULT_NAMESPACE, Request},
    explain::Explanation,
    forward::{Forward, Forwarding},
    reply::{Bought, Chunk, Hit, Match, Missed, Reply, Source, Started},
};

/// Entries of a scope that mode `static` looks at, nearest first.
const CANDIDATES_STATIC: usize = 8;
/// Those of mode `bounded`: what it learned, it learned of so many.
const CANDIDATES_BOUNDED: usize = 4;

/// Everything a request needs.
pub struct Pipeline {
    settings: ArcSwap<Settings>,
    cache: Arc<Cache>,
    embedder: Option<Arc<dyn Embedder>>,
    learning: Arc<Learning>,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    tracing: Option<Tracing>,
    log: Arc<RequestLog>,
    savings: Savings,
    flights: Arc<Flights<FlightKey, Piece, Landing>>,
    under_way: UnderWay,
    replies: Replies,
    served_stale: ServedStale,
    admission: Admission,
    /// Flights, and changes of entries: what goes on when its caller leaves.
    tasks: TaskTracker,
}

/// The parts a pipeline is made of.
pub struct Parts {
    pub settings: Settings,
    pub cache: Arc<Cache>,
    /// `None`: only exact repeats are answered.
    pub embedder: Option<Arc<dyn Embedder>>,
    pub learning: Arc<Learning>,
    pub upstreams: Upstreams,
    pub metrics: Arc<Metrics>,
    pub ledger: Arc<Ledger>,
    /// `None`: no spans are made.
    pub tracing: Option<Tracing>,
    pub log: RequestLog,
}

/// What a reload can change. A request keeps those it was admitted with.
#[derive(Debug)]
pub struct Settings {
    pub tenants: Tenants,
    pub cache: CacheConfig,
    /// `routing.default`
    pub default_model: String,
    /// `upstream.timeout`
    pub timeout: Duration,
    /// `upstream.finish_abandoned`
    pub finish_abandoned: bool,
    /// `server.max_in_flight`
    pub max_in_flight: usize,
    /// `dashboard.show_prompts`
    pub show_prompts: bool,
}

/// What makes two misses one: the prompt, and what the callers allow the cache to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlightKey(CacheKey, u64);

/// A piece of an answer being produced.
#[derive(Clone, Debug)]
enum Piece {
    Started {
        model: String,
        tier: &'static str,
        /// A paraphrase's answer is being shared.
        is_shared: bool,
    },
    Delta(Delta),
}

/// How a flight ends well.
#[derive(Clone, Debug)]
enum Landing {
    /// The cache answers after all: a near-duplicate, or an exact repeat kept a moment ago.
    Hit(Hit),
    /// A model answered: this prompt, or a paraphrase of it whose answer is shared.
    Bought { bought: Arc<Bought>, shared_with: Option<CacheKey> },
}

// === impl Pipeline: the calls ===

impl Pipeline {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { settings, cache, embedder, learning, upstreams, metrics, ledger, tracing, log } = parts;
        Self {
            settings: ArcSwap::from_pointee(settings),
            cache,
            embedder,
            learning,
            upstreams,
            metrics,
            ledger,
            tracing,
            log: Arc::new(log),
            savings: Savings::default(),
            flights: Arc::default(),
            under_way: UnderWay::default(),
            replies: Replies::default(),
            served_stale: ServedStale::default(),
            admission: Admission::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Answers from the cache alone. The id names a hit in feedback.
    ///
    /// # Errors
    /// Only for what is wrong with the request or over a limit; a miss is a reply.
    pub async fn lookup(&self, mut request: Request) -> Result<(RequestId, Result<Hit, Missed>), Error> {
        let mut record = Recorder::start(self, Rpc::Lookup, &mut request);
        let asked = self.admit(request)?;
        let judging = async {
            match self.exact(&asked).await {
                Some(hit) => Judged::Hit(hit, None),
                None => self.judge(&asked).await,
            }
        };
        let found = match self.for_lookup(&asked, within(asked.deadline, judging).await?) {
            Judged::Hit(hit, _) => {
                let saved_usd = self.saved(&asked, &hit);
                self.note_semantic(&asked, &hit, saved_usd);
                record.answered(&self.upstreams, &hit.entry.completion);
                record.finish(hit.outcome, None, saved_usd);
                let served =
                    asked.served(hit.outcome, &hit.entry.completion, Some(hit.entry.key), hit.pair.clone());
                self.replies.remember(asked.id, served);
                Ok(hit)
            }
            Judged::Miss(missed, _) => {
                record.finish(Outcome::Miss, Some(missed.reason), 0.0);
                Err(missed)
            }
        };
        Ok((asked.id, found))
    }

    /// Answers from the cache, else from a model. The answer comes piece by piece or, through
    /// [`Answering::whole`], at once. Dropping it stops the model call unless others wait for it too.
    ///
    /// # Errors
    /// For what is wrong with the request or over a limit; what goes wrong later comes from
    /// [`Answering`].
    pub async fn complete(self: &Arc<Self>, rpc: Rpc, mut request: Request) -> Result<Answering, Error> {
        let record = Recorder::start(self, rpc, &mut request);
        let asked = Arc::new(self.admit(request)?);
        if let Some(hit) = within(asked.deadline, self.exact_or_stale(&asked)).await? {
            return Ok(Answering::of_hit(Arc::clone(self), asked, record, hit));
        }
        let joined = self.join(&asked);
        Ok(Answering::of_flight(Arc::clone(self), asked, record, joined))
    }

    /// Takes a reloaded configuration for the requests that come from here on.
    pub fn reload(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Requests that were admitted and are not done.
    pub fn requests_under_way(&self) -> usize {
        self.admission.under_way()
    }

    /// Writes the last lines of requests and sends their spans.
    pub async fn end_tracing(&self) {
        let log = Arc::clone(&self.log);
        // It fails only by a panic, which has been logged.
        let _ = tokio::task::spawn_blocking(move || log.shutdown()).await;
        if let Some(tracing) = &self.tracing {
            tracing.shutdown().await;
        }
    }

    /// Waits until everything that goes on without a caller is done. New requests must have ended before.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Keeps what was learned and is not yet kept, at the end.
    pub async fn save_learned(&self) {
        self.learning.save_all().await;
    }

    /// Waits until what was served so far is learned from, as a replay must before its next request.
    pub async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// The configuration in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }
}

// === impl Pipeline: the steps, in order ===

impl Pipeline {
    /// An identical prompt answered before, still fresh enough.
    async fn exact(&self, asked: &Asked) -> Option<Hit> {
        if asked.cache.no_cache {
            return None;
        }
        let entry = self.cache.get(asked.key).await?;
        self.serves(asked, &entry).then(|| Hit::exact(entry))
    }

    /// Follows the identical prompt that is being answered, or starts answering this one.
    fn join(self: &Arc<Self>, asked: &Arc<Asked>) -> answering::Joined {
        match self.flights.join(FlightKey(asked.key, asked.flight_salt())) {
            flight::Joined::Follow(follower) => answering::Joined { follower, led: false },
            flight::Joined::Lead(leader, follower) => {
                self.tasks.spawn(Arc::clone(self).lead(Arc::clone(asked), leader));
                answering::Joined { follower, led: true }
            }
        }
    }

    /// Answers for everyone who joined, and for nobody when all have left.
    async fn lead(self: Arc<Self>, asked: Arc<Asked>, leader: Leader<FlightKey, Piece, Landing>) {
        let (landed, rest) = tokio::select! {
            landed = self.land(&asked, &leader) => match landed {
                Ok((landing, rest)) => (Ok(landing), rest),
                Err(error) => (Err(error), Rest::Nothing),
            },
            () = leader.abandoned(), if !asked.settings.finish_abandoned => return,
        };
        leader.end(landed);
        self.do_rest(&asked, rest).await;
    }

    /// The part of the path that identical concurrent prompts share.
    async fn land(
        &self,
        asked: &Asked,
        leader: &Leader<FlightKey, Piece, Landing>,
    ) -> Result<(Landing, Rest), Error> {
        // The flight before this one may have landed between our exact check and our joining.
        if let Some(entry) =
            self.cache.peek(asked.key).filter(|entry| !asked.cache.no_cache && self.serves(asked, entry))
        {
            return Ok((Landing::Hit(Hit::exact(entry)), Rest::Nothing));
        }
        let (missed, known) = match self.judge(asked).await {
            Judged::Hit(hit, check) => return Ok((Landing::Hit(hit), Rest::of_hit(check))),
            Judged::Miss(missed, known) => (missed, known),
        };
        if let Some(paraphrase) = self.paraphrase(asked, &known)
            && let Some(landed) = Self::share(paraphrase, leader).await
        {
            return Ok((landed?, Rest::Nothing));
        }
        // Held until the answer was kept, or the purchase failed.
        let _lease = match self.reserve(asked).await {
            Reserved::Kept(entry) => return Ok((Landing::Hit(Hit::exact(entry)), Rest::Nothing)),
            Reserved::Buy(lease) => lease,
        };
        let _place = self.let_join(asked, &known);
        let Known { embedding, near } = known;
        let answer = self.open(asked, embedding.as_ref()).await?;
        let bought = Self::relay(asked, answer, missed, leader).await?;
        if !asked.cache.no_store && bought.completion.is_complete() {
            // A store that does not take it costs the next caller time, not this one its answer.
            let _ = self.keep(asked, bought.to_keep(embedding.clone()), Durability::Queued).await;
        }
        let bought = Arc::new(bought);
        let landing = Landing::Bought { bought: Arc::clone(&bought), shared_with: None };
        Ok((landing, Rest::of_purchase(near, embedding, bought)))
    }

    /// Embeds, searches and decides.
    async fn judge(&self, asked: &Asked) -> Judged {
        let embedding = match self.embed(asked).await {
            Ok(embedding) => embedding,
            Err(reason) => return Judged::Miss(Missed::without_candidate(reason), Known::default()),
        };
        let policy = if asked.cache.no_cache { Policy::Exact } else { asked.policy() };
        match policy {
            Policy::Exact => Judged::miss(MissReason::Disabled, embedding),
            Policy::Static { min_similarity } => {
                match self.search(asked, &embedding, CANDIDATES_STATIC).await {
                    Ok(candidates) => Self::decide_by_guards(asked, min_similarity, &candidates, embedding),
                    Err(reason) => Judged::miss(reason, embedding),
                }
            }
            Policy::Bounded(bounds) => {
                let found = self.search(asked, &embedding, CANDIDATES_BOUNDED).await;
                self.decide_by_learning(asked, bounds, found, embedding).await
            }
        }
    }

    /// The vector of the last user text.
    async fn embed(&self, asked: &Asked) -> Result<Embedding, MissReason> {
        let enabled = self.embedder.as_ref().filter(|_| asked.mode() != Mode::Exact);
        let embedder = enabled.ok_or(MissReason::Disabled)?;
        let text = asked.prompt.fuzzy_text().ok_or(MissReason::NotText)?;
        if let Some(bound) = asked.bound() {
            self.metrics.bound(bound);
            return Err(MissReason::NotKept);
        }
        let started = std::time::Instant::now();
        let embedded = embedder.embed(text).await;
        self.metrics.embed(started);
        asked.trace.step("embed", started);
        match embedded {
            Ok(Embedded::Vector { embedding, .. }) => Ok(embedding),
            Ok(Embedded::OverWindow { .. }) => Err(MissReason::OverWindow),
            Err(error) => {
                tracing::warn!(%error, "embedding failed");
                Err(MissReason::EmbeddingUnavailable)
            }
        }
    }

    /// The nearest entries of the same scope that this caller would accept.
    async fn search(
        &self,
        asked: &Asked,
        embedding: &Embedding,
        count: usize,
    ) -> Result<Vec<Candidate>, MissReason> {
        if !self.cache.knows(asked.scope) {
            return Err(MissReason::ScopeEmpty);
        }
        let started = std::time::Instant::now();
        let mut nearest = self.cache.nearest(asked.scope, embedding, count).await;
        asked.trace.step("search", started);
        nearest.retain(|candidate| candidate.key() != asked.key);
        self.servable(asked, embedding, nearest)
    }

    /// Calls the models until one begins to answer.
    async fn open(&self, asked: &Asked, embedding: Option<&Embedding>) -> Result<Answer, Error> {
        self.check_budget(asked)?;
        let ask = Ask::new(&asked.prompt, asked.deadline)
            .embedding(embedding)
            .headers(asked.trace.headers())
            .on_attempt(self.bookkeeper(&asked.tenant, &asked.prompt.namespace, &asked.trace));
        self.upstreams.open(ask).await
    }

    /// Hands the answer on as it comes. The first token is on its way before anything else is done.
    async fn relay(
        asked: &Asked,
        mut answer: Answer,
        missed: Missed,
        leader: &Leader<FlightKey, Piece, Landing>,
    ) -> Result<Bought, Error> {
        // Those who follow by now may have more time than the one who asked first. Each minds its own
        // deadline, and when all have left the call is cancelled.
        answer.extend_deadline(Instant::now() + asked.settings.timeout);
        let (model, tier) = (answer.model().to_owned(), answer.tier().as_str());
        leader.push(Piece::Started { model, tier, is_shared: false });
        while let Some(delta) = answer.next().await? {
            leader.push(Piece::Delta(delta));
        }
        let (completion, attempts) = answer.finish();
        Ok(Bought { completion, attempts, missed })
    }

    /// Memory, index and store; other callers find it from here on.
    async fn keep(&self, asked: &Asked, answer: ToKeep, durability: Durability) -> Result<(), StoreError> {
        match asked.entry(answer, self.embedder_name()) {
            Some(entry) => self.cache.keep(entry, durability, asked.epoch).await,
            None => Ok(()),
        }
    }

    /// Empty when there is none.
    fn embedder_name(&self) -> &str {
        self.embedder.as_ref().map_or("", |embedder| embedder.name())
    }
}
