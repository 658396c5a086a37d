//! The path of a request: admit, exact, join, semantic, verification, paraphrase, lease, model call, keep, follow up. Each step is a
//! type that owns the parts it needs; [`Pipeline`] calls them in order. Knows no server: gRPC and HTTP
//! decode a [`Request`], call the pipeline and encode its answer.

mod admission;
mod answer_stream;
mod assembly;
mod coalescing;
mod eligibility;
mod embeddings;
mod entries;
mod exact;
mod explain;
mod feedback;
mod flight;
mod follow_up;
mod forward;
mod fresh_scopes;
mod keeping;
mod model_calls;
mod recording;
mod refresh;
mod replies;
mod reply;
mod request;
mod semantic;
mod statistics;
mod verification;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use self::{
    admission::Admission,
    answer_stream::Joined,
    coalescing::{Coalescing, FlightLeader, FlightResult, Join},
    eligibility::Eligibility,
    exact::{Exact, ExactLookup},
    follow_up::{FollowUp, FollowUps},
    keeping::{Keeping, NewAnswer},
    model_calls::{LeaseOutcome, ModelCalls},
    recording::Recording,
    request::AdmittedRequest,
    semantic::{Decision, Looked, Pending, SemanticLookup, Verifying},
    verification::Verification,
};
use crate::{
    cache::Cache,
    config::CacheConfig,
    embed::Embedder,
    error::Error,
    learn::Learning,
    outcome::Outcome,
    store::Durability,
    telemetry::{
        metrics::{Metrics, Rpc},
        request_log::RequestLog,
        stats::Ledger,
        trace::Tracing,
    },
    tenant::Tenants,
    upstream::{self, Upstreams},
};

pub use self::{
    answer_stream::{AnswerStream, deltas},
    embeddings::{Embedded, EmbeddingRequest, Embeddings, INPUTS_MAX, PassedReply, Vectors},
    entries::Entries,
    explain::Explanation,
    feedback::FeedbackIntake,
    forward::{Forward, Forwarder, Forwarding},
    fresh_scopes::{DifferingField, FreshScope},
    replies::{RecentHit, RequestId, Subject},
    reply::{Chunk, Hit, Match, Missed, Reply, Source, Started, UpstreamCompletion},
    request::{DEFAULT_NAMESPACE, Request},
    statistics::Statistics,
};

/// The steps of a request's path.
pub struct Pipeline {
    admission: Arc<Admission>,
    exact: ExactLookup,
    coalescing: Coalescing,
    semantic: Arc<SemanticLookup>,
    verification: Arc<Verification>,
    model_calls: Arc<ModelCalls>,
    keeping: Arc<Keeping>,
    follow_ups: Arc<FollowUps>,
    recording: Arc<Recording>,
    /// Flights and changes of entries: work that goes on when its caller leaves.
    tasks: TaskTracker,
    /// Storing and invalidating entries.
    pub entries: Entries,
    /// What callers say of the answers they were served.
    pub feedback: FeedbackIntake,
    /// Requests for embeddings.
    pub embeddings: Embeddings,
    /// Requests that the cache cannot hold.
    pub forwarder: Forwarder,
    /// Statistics, limited to what a tenant may see.
    pub statistics: Statistics,
}

/// The parts that a pipeline is made of.
pub struct Parts {
    pub settings: Settings,
    pub cache: Arc<Cache>,
    /// `None`: only exact repeats are served.
    pub embedder: Option<Arc<dyn Embedder>>,
    pub learning: Arc<Learning>,
    pub upstreams: Upstreams,
    pub metrics: Arc<Metrics>,
    pub ledger: Arc<Ledger>,
    /// `None`: no spans are made.
    pub tracing: Option<Tracing>,
    pub log: RequestLog,
}

/// Settings that a reload can change. A request keeps those it was admitted with.
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

// === impl Pipeline: the path ===

impl Pipeline {
    /// Answers from the cache alone. The id names a hit in feedback.
    ///
    /// # Errors
    /// Only for an invalid request, an exceeded limit or the caller's deadline; a miss is a reply.
    pub async fn lookup(&self, mut request: Request) -> Result<(RequestId, Result<Hit, Missed>), Error> {
        let mut record = self.recording.start(Rpc::Lookup, &mut request);
        let request = Arc::new(self.admission.admit(request)?);
        let decision = within(request.deadline, async {
            match self.exact.get(&request).await {
                Some(hit) => Decision::serve(hit),
                None => {
                    self.statistics.fresh_scopes.note(&request);
                    self.decide_lookup(&request).await
                }
            }
        });
        let decision = decision.await?;
        record.verified(request.verified.get().copied());
        let found = match self.follow_ups.ask_caller_to_audit(&request, decision) {
            Decision::Serve { hit, .. } => {
                self.recording.finish_lookup(&mut record, &request, &hit);
                Ok(hit)
            }
            Decision::Miss { missed, .. } => {
                record.finish(Outcome::Miss, Some(missed.reason), 0.0);
                Err(missed)
            }
        };
        Ok((request.id, found))
    }

    async fn decide_lookup(&self, request: &Arc<AdmittedRequest>) -> Decision {
        let may_verify = request.settings.cache.verify.lookup;
        let verifying = if may_verify { Verifying::Allowed } else { Verifying::Forbidden };
        match self.semantic.decide(request, verifying).await {
            Looked::Decided(decision) => decision,
            Looked::Verify(pending) => self.verification.decide(request, pending).await,
        }
    }

    /// Answers from the cache, else from a model. The answer comes piece by piece or, through
    /// [`AnswerStream::whole`], at once. Dropping it cancels the model call unless others wait for it too.
    ///
    /// # Errors
    /// For an invalid request, an exceeded limit or the caller's deadline; later failures come from [`AnswerStream`].
    pub async fn complete(self: &Arc<Self>, rpc: Rpc, mut request: Request) -> Result<AnswerStream, Error> {
        let record = self.recording.start(rpc, &mut request);
        let request = Arc::new(self.admission.admit(request)?);
        let hit = match within(request.deadline, self.exact.get_or_stale(&request)).await? {
            Exact::Fresh(hit) => Some(hit),
            Exact::Stale(entry) => self.refresh(&request, &entry).then(|| Hit::stale(entry)),
            Exact::Miss => None,
        };
        if let Some(hit) = hit {
            return Ok(AnswerStream::of_hit(Arc::clone(self), request, record, hit));
        }
        self.statistics.fresh_scopes.note(&request);
        let joined = self.join(&request);
        Ok(AnswerStream::of_flight(Arc::clone(self), request, record, joined))
    }

    /// Follows the flight of an identical prompt, or opens one and leads it in a task of its own.
    fn join(self: &Arc<Self>, request: &Arc<AdmittedRequest>) -> Joined {
        match self.coalescing.join(request) {
            Join::Follow(follower) => Joined { follower, led: false },
            Join::Lead(leader, follower) => {
                self.tasks.spawn(Arc::clone(self).lead(Arc::clone(request), leader));
                Joined { follower, led: true }
            }
        }
    }

    /// Answers for everyone who joined the flight. Stops when all have left, unless
    /// `upstream.finish_abandoned` says otherwise.
    async fn lead(self: Arc<Self>, request: Arc<AdmittedRequest>, leader: FlightLeader) {
        let (result, follow_up) = tokio::select! {
            answered = self.answer(&request, &leader) => match answered {
                Ok((result, follow_up)) => (Ok(result), follow_up),
                Err(error) => (Err(error), FollowUp::Nothing),
            },
            () = leader.abandoned(), if !request.settings.finish_abandoned => return,
        };
        leader.end(result);
        self.follow_ups.run(&request, follow_up).await;
    }

    /// The part of the path that identical concurrent prompts share: semantic, verification, paraphrase, lease, model call,
    /// keep.
    async fn answer(
        &self,
        request: &Arc<AdmittedRequest>,
        leader: &FlightLeader,
    ) -> Result<(FlightResult, FollowUp), Error> {
        // The flight before this one may have ended between the exact lookup and joining.
        if let Some(hit) = self.exact.peek(request) {
            return Ok((FlightResult::Hit(hit), FollowUp::Nothing));
        }
        let (decision, started) = match self.semantic.decide(request, Verifying::Allowed).await {
            Looked::Decided(decision) => (decision, None),
            Looked::Verify(pending) if request.settings.cache.verify.race => {
                self.race(request, pending).await?
            }
            Looked::Verify(pending) => (self.verification.decide(request, pending).await, None),
        };
        let (missed, context) = match decision {
            Decision::Serve { hit, audit } => {
                return Ok((FlightResult::Hit(hit), FollowUp::of_hit(audit)));
            }
            Decision::Miss { missed, context } => (missed, context),
        };
        if started.is_none()
            && let Some(paraphrase) = self.coalescing.find_paraphrase(request, &context)
            && let Some(result) = paraphrase.relay_to(leader).await
        {
            return Ok((result?, FollowUp::Nothing));
        }
        let (upstream, _lease, _announced);
        if let Some(started) = started {
            upstream = started;
        } else {
            // Held until the answer is kept or the call has failed.
            _lease = match self.model_calls.lease(request).await {
                LeaseOutcome::AlreadyAnswered(hit) => return Ok((FlightResult::Hit(hit), FollowUp::Nothing)),
                LeaseOutcome::Granted(lease) => lease,
            };
            _announced = self.coalescing.announce(request, &context);
            upstream = self.model_calls.open(request, context.embedding.as_ref()).await?;
        }
        let completed = Arc::new(self.model_calls.relay(request, upstream, missed, leader).await?);
        if !request.cache.no_store && completed.completion.is_complete() {
            let answer = NewAnswer::of(&completed, context.embedding.clone());
            // A store failure is counted in the cache; it must not cost this caller the answer.
            let _ = self.keeping.keep(request, answer, Durability::Queued).await;
        }
        let result = FlightResult::Completed { completed: Arc::clone(&completed), shared_with: None };
        Ok((result, FollowUp::of_completion(context, completed)))
    }

    /// Asks a verifier and a model at the same time (`cache.verify.race`). The model's call is cancelled when a yes comes
    /// before its first token. Once that is there the verdict comes too late, and only teaches.
    async fn race(
        &self,
        request: &Arc<AdmittedRequest>,
        pending: Pending,
    ) -> Result<(Decision, Option<upstream::Answer>), Error> {
        let (embedding, is_lost) = (pending.embedding.clone(), Arc::new(AtomicBool::new(false)));
        let mut model = pin!(self.model_calls.open_racing(request, &embedding, Arc::clone(&is_lost)));
        let mut verdict = pin!(self.verification.decide(request, pending.clone()));
        tokio::select! {
            decision = &mut verdict => match decision {
                Decision::Serve { .. } => {
                    is_lost.store(true, Ordering::Relaxed);
                    Ok((decision, None))
                }
                Decision::Miss { .. } => Ok((decision, Some(model.await?))),
            },
            answer = &mut model => match answer {
                Ok(answer) => Ok((pending.give_up(), Some(answer))),
                Err(error) => match verdict.await {
                    decision @ Decision::Serve { .. } => Ok((decision, None)),
                    Decision::Miss { .. } => Err(error),
                },
            },
        }
    }
}

// === impl Pipeline: life cycle ===

impl Pipeline {
    /// Takes a reloaded configuration for the requests that come from here on.
    pub fn reload(&self, settings: Settings) {
        self.admission.reload(settings);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.admission.settings()
    }

    /// Number of admitted requests that are not finished.
    pub fn requests_in_flight(&self) -> usize {
        self.admission.in_flight()
    }

    /// Waits for all work that goes on without a caller. New requests must have ended before.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until everything served so far has been learned from, as a replay must before its next request.
    pub async fn wait_until_idle(&self) {
        self.drained().await;
        self.tasks.reopen();
    }

    /// Saves the learners' snapshots at shutdown.
    pub async fn save_learners(&self) {
        self.follow_ups.learning.save_all().await;
    }

    /// Writes the last lines of the request log and sends the last spans.
    pub async fn flush_telemetry(&self) {
        self.recording.shutdown().await;
    }
}

/// Waits for `work` until the caller's deadline.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline, work).await.map_err(|_| Error::DeadlineExceeded { attempts: Vec::new() })
}
