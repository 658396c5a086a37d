//! Admission and canonicalisation: from what a caller sent to a question with its keys.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Pipeline, Settings};
use crate::{
    cache::Epoch,
    config::{CacheConfig, Mode},
    decide::{Bounds, Policy, keep::Bound},
    embed::Embedding,
    entry::Entry,
    error::Error,
    feedback::{RequestId, Served},
    key::{self, CacheKey, Owner, Scope},
    learn::Pair,
    metrics::Shed,
    model::Difficulty,
    outcome::Outcome,
    prompt::{CacheControl, Completion, Keep, Prompt},
    tenant::Tenant,
    trace::Trace,
};

/// The namespace of prompts that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Above it a caller wants answers that differ. The default of the OpenAI dialect, which many clients send
/// without meaning anything by it.
const VARIETY_TEMPERATURE: f32 = 1.0;

/// What a shed caller is told to wait.
const SHED_RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a door hands over.
#[derive(Clone, Debug)]
pub struct Request {
    pub tenant: Arc<Tenant>,
    /// Empty namespace or model: the default.
    pub prompt: Prompt,
    pub cache: CacheControl,
    /// The caller's own deadline.
    pub deadline: Option<Instant>,
    /// The caller's trace.
    pub trace: Trace,
}

/// An admitted request.
#[derive(Debug)]
pub struct Asked {
    pub id: RequestId,
    pub tenant: Arc<Tenant>,
    pub owner: Owner,
    pub prompt: Prompt,
    pub cache: CacheControl,
    pub deadline: Instant,
    pub key: CacheKey,
    pub scope: Scope,
    pub trace: Trace,
    /// When it was asked, in invalidations.
    pub(super) epoch: Epoch,
    /// The configuration at that time: a reload does not change it half-way.
    pub(super) settings: Arc<Settings>,
    /// Counts it as under way for as long as it lives.
    _place: Place,
}

/// An answer, and what is known of its prompt.
pub(super) struct ToKeep {
    pub completion: Completion,
    /// Of the last user text, when it was embedded.
    pub embedding: Option<Embedding>,
    /// As the router judged it, when it did.
    pub difficulty: Option<Difficulty>,
}

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Admission {
    under_way: Arc<AtomicUsize>,
}

/// One request's place among those under way, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

// === impl Pipeline ===

impl Pipeline {
    /// Checks limits and fields, fills in defaults and computes the keys.
    pub(super) fn admit(&self, request: Request) -> Result<Asked, Error> {
        let Request { tenant, mut prompt, cache, deadline, trace } = request;
        let settings = self.settings();
        let place = self.enter(&tenant, &settings)?;
        prompt.validate()?;
        cache.validate()?;
        fill_defaults(&settings, &mut prompt);
        let owner = tenant.owner(&prompt.namespace);
        let (key, scope) = key::of(&owner, &prompt);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + settings.timeout);
        let (id, epoch) = (RequestId::random(), self.cache.epoch());
        Ok(Asked {
            id,
            tenant,
            owner,
            prompt,
            cache,
            deadline,
            key,
            scope,
            trace,
            epoch,
            settings,
            _place: place,
        })
    }

    /// A place among the requests under way, within the tenant's rate.
    pub(super) fn enter(&self, tenant: &Tenant, settings: &Settings) -> Result<Place, Error> {
        let place = self.admission.enter(settings.max_in_flight);
        let place = place.inspect_err(|_| self.metrics.shed(Shed::InFlight))?;
        tenant.check_rate(std::time::Instant::now()).inspect_err(|_| self.metrics.shed(Shed::Rate))?;
        Ok(place)
    }

    /// Stops a tenant that has spent its day's money before the next model call.
    pub(super) fn check_budget(&self, asked: &Asked) -> Result<(), Error> {
        asked.tenant.check_budget(SystemTime::now()).inspect_err(|_| self.metrics.shed(Shed::Budget))
    }
}

pub(super) fn fill_defaults(settings: &Settings, prompt: &mut Prompt) {
    if prompt.namespace.is_empty() {
        DEFAULT_NAMESPACE.clone_into(&mut prompt.namespace);
    }
    if prompt.model.is_empty() {
        prompt.model.clone_from(&settings.default_model);
    }
}

// === impl Request ===

impl Request {
    /// The namespace it will count in.
    pub fn namespace(&self) -> &str {
        let namespace = self.prompt.namespace.as_str();
        if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
    }
}

// === impl Asked ===

impl Asked {
    /// Whether the caller takes an entry of this age.
    pub(super) fn accepts(&self, entry: &Entry) -> bool {
        let now = SystemTime::now();
        entry.is_live(now) && self.takes_age(entry, now)
    }

    /// Whether the caller's own `max_age` lets it pass.
    pub(super) fn takes_age(&self, entry: &Entry, now: SystemTime) -> bool {
        self.cache.max_age.is_none_or(|max_age| entry.age(now) <= max_age)
    }

    /// How long past its expiry this caller takes an answer. One that sets a TTL means it.
    pub(super) fn stale_for(&self) -> Duration {
        match self.cache.ttl {
            Some(_) => Duration::ZERO,
            None => self.settings.cache.stale_while_revalidate(&self.prompt.namespace),
        }
    }

    /// The same question, asked once more for the cache. Only a model may answer it: a near-duplicate may be
    /// as old.
    pub(super) fn again(&self, deadline: Instant, place: Place) -> Self {
        Self {
            id: RequestId::random(),
            tenant: Arc::clone(&self.tenant),
            owner: self.owner.clone(),
            prompt: self.prompt.clone(),
            cache: CacheControl { exact_only: true, ..self.cache.clone() },
            deadline,
            key: self.key,
            scope: self.scope,
            trace: self.trace.clone(),
            epoch: self.epoch,
            settings: Arc::clone(&self.settings),
            _place: place,
        }
    }

    /// Tells apart callers of one prompt that allow the cache different things. One that wants no
    /// cached answer joins nobody.
    pub(super) fn flight_salt(&self) -> u64 {
        let CacheControl {
            no_cache,
            no_store,
            exact_only,
            min_similarity,
            max_error_rate,
            ttl,
            max_age,
            tags,
            keep,
        } = &self.cache;
        let mut hasher = DefaultHasher::new();
        let bits = |share: Option<f32>| share.map(f32::to_bits);
        (no_store, exact_only, bits(*min_similarity), bits(*max_error_rate), ttl, max_age, tags, keep)
            .hash(&mut hasher);
        no_cache.then_some(self.id).hash(&mut hasher);
        hasher.finish()
    }

    /// Of the namespace.
    pub(super) fn mode(&self) -> Mode {
        self.settings.cache.mode(&self.prompt.namespace)
    }

    /// Whether paraphrases may share an entry, for this caller.
    pub(super) fn may_alias(&self) -> bool {
        matches!(self.policy(), Policy::Bounded(Bounds { shadow: false, .. }))
    }

    /// How near-duplicates are judged for this caller.
    pub(super) fn policy(&self) -> Policy {
        self.settings.cache.policy(&self.prompt.namespace, &self.cache)
    }

    /// What the prompt is bound to, if that matters here.
    pub(super) fn bound(&self) -> Option<Bound> {
        let configured = self.settings.cache.keep(&self.prompt.namespace);
        let careful = self.cache.keep.unwrap_or(configured) == Keep::Careful;
        let asks_for_variety = self.prompt.temperature.is_some_and(|t| t > VARIETY_TEMPERATURE);
        careful.then_some(())?;
        if asks_for_variety {
            return Some(Bound::Variety);
        }
        self.prompt.fuzzy_text().and_then(Bound::of)
    }

    /// The entry that keeps `answer`, its embedding made by `embedder`; `None` when it should not be kept. One
    /// that is kept with care has no text, so that it is found by exact repeats only.
    pub(super) fn entry(&self, answer: ToKeep, embedder: &str) -> Option<Entry> {
        let ToKeep { completion, embedding, difficulty } = answer;
        let created = SystemTime::now();
        let bound = self.bound();
        if bound == Some(Bound::Variety) {
            return None;
        }
        let ttl = self.ttl(&self.settings.cache);
        let ttl = if bound.is_some() { ttl.min(self.settings.cache.careful_ttl) } else { ttl };
        let embedding = embedding.filter(|_| bound.is_none());
        Some(Entry {
            key: self.key,
            scope: self.scope,
            owner: self.owner.clone(),
            namespace: self.prompt.namespace.clone(),
            requested_model: self.prompt.model.clone(),
            text: self.prompt.fuzzy_text().filter(|_| bound.is_none()).map(str::to_owned),
            embedding,
            embedder: embedder.to_owned(),
            completion,
            tags: self.cache.tags.clone(),
            created,
            expires: created + ttl,
            stale_for: self.stale_for(),
            difficulty,
            alias_of: None,
        })
    }

    /// The entry that makes the prompt another name of `target`, whose answer was found to be right for it.
    pub(super) fn alias(
        &self,
        target: &Entry,
        embedding: Option<Embedding>,
        embedder: &str,
    ) -> Option<Entry> {
        let answer = &target.completion;
        let elsewhere = Completion { content: String::new(), tool_calls: None, ..answer.clone() };
        let own =
            self.entry(ToKeep { completion: elsewhere, embedding, difficulty: target.difficulty }, embedder)?;
        let expires = own.expires.min(target.expires);
        // Whoever invalidates by a tag of either means both.
        let further = target.tags.iter().filter(|tag| !own.tags.contains(tag));
        let tags = own.tags.iter().chain(further).cloned().collect();
        Some(Entry { expires, tags, alias_of: Some(target.key), ..own })
    }

    /// What feedback on the answer will be about.
    pub(super) fn served(
        &self,
        outcome: Outcome,
        answer: &Completion,
        entry: Option<CacheKey>,
        pair: Option<Pair>,
    ) -> Served {
        Served {
            owner: self.owner.clone(),
            namespace: self.prompt.namespace.clone(),
            outcome: Some(outcome),
            model: answer.model.clone(),
            tier: answer.tier.clone(),
            prompt: Some(self.key),
            entry,
            pair,
        }
    }

    /// The caller may shorten the life of an entry, not lengthen it; jitter shortens it too. It comes from
    /// the key, so that every replica keeps the answer as long.
    fn ttl(&self, config: &CacheConfig) -> Duration {
        let whole = self.cache.ttl.map_or(config.ttl, |ttl| ttl.min(config.ttl));
        whole.mul_f64(1.0 - config.ttl_jitter * self.key.share())
    }
}

// === impl Admission ===

impl Admission {
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, max: usize) -> Result<Place, Error> {
        let place = Place(Arc::clone(&self.under_way));
        if self.under_way.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(place);
        }
        Err(Error::Exhausted { limit: "requests in flight", retry_after: SHED_RETRY_AFTER })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
