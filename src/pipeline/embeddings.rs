//! Embeddings, kept exactly and per input: a request gets what is kept, and a provider is asked for the rest.

mod provider_reply;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::HeaderValue;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value};
use tokio::{task::spawn_blocking, time::Instant};

use self::provider_reply::ProviderReply;
use super::{
    Admission, Recording, Request, Settings, admission::Permit, recording::Recorder, replies::RequestId,
    request::fill_defaults, within,
};
use crate::{
    cache::{Cache, Epoch},
    entry::Entry,
    error::Error,
    key::{self, CacheKey, Owner, Scope},
    model::Usage,
    outcome::{MissReason, Outcome},
    prompt::{CacheControl, Completion, NAMESPACE_BYTES_MAX, Prompt},
    store::Durability,
    telemetry::metrics::{Metrics, Rpc},
    tenant::Tenant,
    upstream::{Endpoint, ForwardRequest, Forwarded, Upstreams},
};

/// Maximum inputs of one request, as at OpenAI. A request with more is passed on.
pub const INPUTS_MAX: usize = 2048;
/// Maximum size of a provider's reply: 2048 vectors of 1536 numbers in base64 have 17 MiB.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Reads of the store at one time for one request.
const READS_MAX: usize = 32;

/// Answers requests for embeddings.
pub struct Embeddings {
    admission: Arc<Admission>,
    cache: Arc<Cache>,
    upstreams: Upstreams,
    recording: Arc<Recording>,
    metrics: Arc<Metrics>,
}

/// A request for embeddings.
pub struct EmbeddingRequest {
    /// The caller, and in its prompt the model that it names.
    pub request: Request,
    /// The body as it came.
    pub body: Map<String, Value>,
    /// The body's inputs, one to [`INPUTS_MAX`].
    pub inputs: Vec<Value>,
    pub only_if_cached: bool,
}

/// The answer to a request for embeddings.
#[derive(Debug)]
pub enum Embedded {
    Vectors(Vectors),
    /// A provider's refusal, or a reply that is none of the dialect.
    Passed(PassedReply),
    /// Something is not kept, and the caller wants no provider to be asked.
    NotCached,
}

/// A vector for each input.
#[derive(Debug)]
pub struct Vectors {
    pub id: RequestId,
    /// [`Outcome::Exact`] if every vector was kept, else [`Outcome::Upstream`].
    pub outcome: Outcome,
    /// JSON of each vector, as the provider sent it, in the order of the inputs.
    pub vectors: Vec<Arc<Entry>>,
    /// Inputs whose vectors were kept.
    pub hits: usize,
    /// Tokens of the other inputs.
    pub new_tokens: u64,
    /// Tokens of the inputs whose vectors were kept.
    pub kept_tokens: u64,
    pub saved_usd: f64,
}

/// A reply that is returned as it came.
#[derive(Debug)]
pub struct PassedReply {
    pub id: RequestId,
    pub status: u16,
    pub content_type: Option<HeaderValue>,
    pub retry_after: Option<HeaderValue>,
    pub body: Bytes,
}

/// An admitted request.
struct Admitted {
    id: RequestId,
    tenant: Arc<Tenant>,
    owner: Owner,
    prompt: Prompt,
    cache: CacheControl,
    deadline: Instant,
    epoch: Epoch,
    settings: Arc<Settings>,
    /// The key and scope of each input.
    keys: Vec<(CacheKey, Scope)>,
    _permit: Permit,
}

/// What a provider replied to the missing inputs.
enum Called {
    /// The new entries, and the tokens of the call.
    Entries(Vec<Arc<Entry>>, u64),
    Passed(PassedReply),
}

impl Embeddings {
    pub(super) fn new(
        admission: &Arc<Admission>,
        cache: &Arc<Cache>,
        upstreams: &Upstreams,
        recording: &Arc<Recording>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            admission: Arc::clone(admission),
            cache: Arc::clone(cache),
            upstreams: upstreams.clone(),
            recording: Arc::clone(recording),
            metrics,
        }
    }

    /// Answers from the cache what it can, and asks a provider for the rest. Dropping the future cancels the call.
    ///
    /// # Errors
    /// For an exceeded limit, a spent budget, the caller's deadline, or a provider that failed.
    pub async fn embed(&self, ask: EmbeddingRequest) -> Result<Embedded, Error> {
        let EmbeddingRequest { mut request, body, inputs, only_if_cached } = ask;
        let mut record = self.recording.start(Rpc::Embed, &mut request);
        let headers = request.trace.headers();
        let listener = self.recording.attempt_listener(&request.tenant, request.namespace(), &request.trace);
        let (admitted, body, inputs) = self.admit(request, body, inputs).await?;
        let kept = within(admitted.deadline, self.kept(&admitted)).await?;
        let missing = missing(&admitted.keys, &kept);
        if missing.is_empty() {
            return Ok(Embedded::Vectors(self.answer(&mut record, &admitted, &kept, 0)?));
        }
        if only_if_cached {
            record.finish(Outcome::Miss, Some(MissReason::Disabled), 0.0);
            return Ok(Embedded::NotCached);
        }
        self.admission.check_budget(&admitted.tenant)?;
        let wanted: Vec<Value> = missing.iter().map(|n| inputs[*n].clone()).collect();
        let passed = ForwardRequest {
            endpoint: Endpoint::Embeddings,
            route: &admitted.prompt,
            body: with_inputs(body, &wanted, inputs.len()),
            headers,
            deadline: admitted.deadline,
            on_attempt: Some(Arc::new(listener)),
        };
        let reply = self.upstreams.forward(passed).await?;
        match read(&admitted, reply, &missing, wanted).await? {
            Called::Passed(_) if missing.len() < inputs.len() => {
                Err(Error::Unavailable { message: "the provider sent no embeddings", attempts: Vec::new() })
            }
            Called::Passed(reply) => {
                record.finish(Outcome::Bypass, Some(MissReason::NotReusable), 0.0);
                Ok(Embedded::Passed(reply))
            }
            Called::Entries(entries, tokens) => {
                self.keep(&admitted, &entries).await;
                let mut found = kept;
                found.extend(entries.into_iter().map(|entry| (entry.key, (entry, Found::New))));
                Ok(Embedded::Vectors(self.answer(&mut record, &admitted, &found, tokens)?))
            }
        }
    }

    /// Checks the limits and computes the key of each input, on a blocking thread: a request may have megabytes.
    async fn admit(
        &self,
        request: Request,
        body: Map<String, Value>,
        inputs: Vec<Value>,
    ) -> Result<(Admitted, Map<String, Value>, Vec<Value>), Error> {
        let Request { tenant, mut prompt, cache, deadline, trace: _ } = request;
        let settings = self.admission.settings();
        let permit = self.admission.enter(&tenant, &settings)?;
        cache.validate()?;
        if prompt.namespace.len() > NAMESPACE_BYTES_MAX {
            let message = format!("must not be longer than {NAMESPACE_BYTES_MAX} bytes");
            return Err(Error::invalid("namespace", message));
        }
        prompt.extra =
            body.iter().filter(|(name, _)| is_keyed(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        fill_defaults(&settings, &mut prompt);
        let owner = tenant.owner(&prompt.namespace);
        let (of_owner, of_prompt) = (owner.clone(), prompt.clone());
        let hashed = spawn_blocking(move || (keys(&of_owner, of_prompt, &inputs), inputs)).await;
        let (keys, inputs) = hashed.map_err(|_| Error::internal("hashing inputs panicked"))?;
        let admitted = Admitted {
            id: RequestId::random(),
            tenant,
            owner,
            prompt,
            cache,
            deadline: deadline.unwrap_or_else(|| Instant::now() + settings.timeout),
            epoch: self.cache.tiers.epoch(),
            settings,
            keys,
            _permit: permit,
        };
        Ok((admitted, body, inputs))
    }

    /// The kept vectors, by key.
    async fn kept(&self, admitted: &Admitted) -> HashMap<CacheKey, (Arc<Entry>, Found)> {
        if admitted.cache.no_cache {
            return HashMap::new();
        }
        let now = SystemTime::now();
        let is_accepted = |entry: &Entry| {
            entry.is_live(now) && admitted.cache.max_age.is_none_or(|max_age| entry.age(now) <= max_age)
        };
        let keys: Vec<CacheKey> = admitted.keys.iter().map(|(key, _)| *key).collect();
        let reads = stream::iter(keys).map(|key| self.cache.get(key));
        let found: Vec<_> = reads.buffer_unordered(READS_MAX).collect().await;
        let accepted = found.into_iter().flatten().filter(|entry| is_accepted(entry));
        accepted.map(|entry| (entry.key, (entry, Found::Kept))).collect()
    }

    /// Keeps new vectors. A fault of the store costs nothing but time: it is counted in the cache.
    async fn keep(&self, admitted: &Admitted, entries: &[Arc<Entry>]) {
        if admitted.cache.no_store {
            return;
        }
        let puts = stream::iter(entries.to_vec())
            .map(|entry| self.cache.keep(Entry::clone(&entry), Durability::Queued, admitted.epoch));
        puts.buffer_unordered(READS_MAX).for_each(|_| std::future::ready(())).await;
    }

    /// Puts the vectors into the order of the inputs, and counts them.
    fn answer(
        &self,
        record: &mut Recorder,
        admitted: &Admitted,
        found: &HashMap<CacheKey, (Arc<Entry>, Found)>,
        new_tokens: u64,
    ) -> Result<Vectors, Error> {
        let in_order: Option<Vec<_>> = admitted.keys.iter().map(|(key, _)| found.get(key).cloned()).collect();
        let in_order = in_order.ok_or_else(|| Error::internal("an input without a vector"))?;
        let kept: Vec<_> = in_order.iter().filter(|(_, found)| *found == Found::Kept).collect();
        let kept_tokens: u64 = kept.iter().map(|(entry, _)| entry.completion.usage.prompt_tokens).sum();
        let usage = Usage { prompt_tokens: kept_tokens, ..Usage::default() };
        let saved_usd =
            self.upstreams.price(&admitted.prompt.model, usage).map_or(0.0, |usage| usage.cost_usd);
        let hits = kept.len();
        let outcome = if hits == in_order.len() { Outcome::Exact } else { Outcome::Upstream };
        self.metrics.embedded(hits, in_order.len() - hits, saved_usd);
        record.answered(&admitted.prompt.model, 0.0);
        record.finish(outcome, None, saved_usd);
        let vectors = in_order.into_iter().map(|(entry, _)| entry).collect();
        Ok(Vectors { id: admitted.id, outcome, vectors, hits, new_tokens, kept_tokens, saved_usd })
    }
}

/// Where a vector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Kept,
    New,
}

/// Whether a field of the body is part of every input's key besides the model.
fn is_keyed(name: &str) -> bool {
    !matches!(name, "input" | "model")
}

/// A prompt for embedding has no messages, which no other prompt may lack, so the keys of both never meet.
fn keys(owner: &Owner, mut prompt: Prompt, inputs: &[Value]) -> Vec<(CacheKey, Scope)> {
    let key = |input: &Value| {
        prompt.extra.insert("input".to_owned(), input.clone());
        key::of(owner, &prompt)
    };
    inputs.iter().map(key).collect()
}

/// The first position of each input that is not kept.
fn missing(keys: &[(CacheKey, Scope)], kept: &HashMap<CacheKey, (Arc<Entry>, Found)>) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut positions = Vec::new();
    for (n, (key, _)) in keys.iter().enumerate() {
        if !kept.contains_key(key) && seen.insert(*key) {
            positions.push(n);
        }
    }
    positions
}

/// The body with the inputs that are wanted. A body whose inputs are all wanted stays as it came.
fn with_inputs(mut body: Map<String, Value>, wanted: &[Value], inputs: usize) -> Map<String, Value> {
    if wanted.len() < inputs {
        body.insert("input".to_owned(), Value::Array(wanted.to_vec()));
    }
    body
}

/// Reads a provider's reply and makes the entries of the missing inputs of it.
async fn read(
    admitted: &Admitted,
    mut reply: Forwarded,
    missing: &[usize],
    wanted: Vec<Value>,
) -> Result<Called, Error> {
    let mut bytes = BytesMut::new();
    while let Some(more) = reply.next().await? {
        if bytes.len() + more.len() > REPLY_BYTES_MAX {
            return Err(Error::Unavailable {
                message: "the provider's reply is too large",
                attempts: Vec::new(),
            });
        }
        bytes.extend_from_slice(&more);
    }
    let body = bytes.freeze();
    let of_reply = body.clone();
    let is_success = reply.status == 200;
    let decoded =
        spawn_blocking(move || is_success.then(|| ProviderReply::decode(&of_reply, &wanted)).flatten()).await;
    let Some(decoded) = decoded.map_err(|_| Error::internal("decoding embeddings panicked"))? else {
        let (content_type, retry_after) = (reply.content_type.take(), reply.retry_after.take());
        return Ok(Called::Passed(PassedReply {
            id: admitted.id,
            status: reply.status,
            content_type,
            retry_after,
            body,
        }));
    };
    let entries = missing
        .iter()
        .zip(decoded.vectors)
        .map(|(n, (vector, tokens))| Arc::new(entry(admitted, admitted.keys[*n], vector, tokens)));
    Ok(Called::Entries(entries.collect(), decoded.tokens))
}

fn entry(admitted: &Admitted, (key, scope): (CacheKey, Scope), vector: String, tokens: u64) -> Entry {
    let config = &admitted.settings.cache;
    let ttl = admitted.cache.ttl.map_or(config.ttl, |ttl| ttl.min(config.ttl));
    let created = SystemTime::now();
    Entry {
        key,
        scope,
        owner: admitted.owner.clone(),
        namespace: admitted.prompt.namespace.clone(),
        requested_model: admitted.prompt.model.clone(),
        text: None,
        embedding: None,
        embedder: String::new(),
        completion: Completion {
            content: vector,
            model: admitted.prompt.model.clone(),
            usage: Usage { prompt_tokens: tokens, ..Usage::default() },
            ..Completion::default()
        },
        tags: admitted.cache.tags.clone(),
        created,
        expires: created + ttl.mul_f64(1.0 - config.ttl_jitter * key.share()),
        stale_for: Duration::ZERO,
        difficulty: None,
    }
}
