//! A request before and after admission.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Settings,
    admission::Permit,
    replies::{RequestId, Served},
};
use crate::{
    cache::Epoch,
    config::Mode,
    decide::{
        Policy,
        reuse::{self, NoReuse},
    },
    entry::Entry,
    key::{CacheKey, Owner, Scope},
    learn::Pair,
    model::VerifierReply,
    outcome::Outcome,
    prompt::{CacheControl, Completion, Keep, Prompt},
    telemetry::trace::Trace,
    tenant::Tenant,
};

/// The namespace of prompts that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Sampling temperature above which a caller wants answers that differ. It is the default of the OpenAI API, which
/// many clients send without a reason.
const VARIETY_TEMPERATURE: f32 = 1.0;

/// A decoded request.
#[derive(Clone, Debug)]
pub struct Request {
    pub tenant: Arc<Tenant>,
    /// An empty namespace or model stands for the default.
    pub prompt: Prompt,
    pub cache: CacheControl,
    /// The caller's own deadline.
    pub deadline: Option<Instant>,
    /// The caller's trace.
    pub trace: Trace,
}

/// An admitted request: valid, within all limits, with its keys.
#[derive(Debug)]
pub(super) struct AdmittedRequest {
    pub id: RequestId,
    pub tenant: Arc<Tenant>,
    pub owner: Owner,
    pub prompt: Prompt,
    pub cache: CacheControl,
    pub deadline: Instant,
    pub key: CacheKey,
    pub scope: Scope,
    pub trace: Trace,
    /// Invalidations after this point also concern the answer to this request.
    pub epoch: Epoch,
    /// The settings at admission: a reload does not change a request half-way.
    pub settings: Arc<Settings>,
    /// What a verifier replied before the answer, for the request log; empty if none was asked.
    pub verified: OnceLock<VerifierReply>,
    pub _permit: Permit,
}

/// Fills in the default namespace and model, and takes what `cache.ignore_fields` names out of the key.
pub(super) fn fill_defaults(settings: &Settings, prompt: &mut Prompt) {
    prompt.ignore(&settings.cache.ignore_fields);
    if prompt.namespace.is_empty() {
        DEFAULT_NAMESPACE.clone_into(&mut prompt.namespace);
    }
    if prompt.model.is_empty() {
        prompt.model.clone_from(&settings.default_model);
    }
}

impl Request {
    /// The namespace that the request counts in.
    pub fn namespace(&self) -> &str {
        let namespace = self.prompt.namespace.as_str();
        if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
    }
}

impl AdmittedRequest {
    /// Whether the caller accepts an entry of this age.
    pub fn accepts(&self, entry: &Entry) -> bool {
        let now = SystemTime::now();
        entry.is_live(now) && self.accepts_age(entry, now)
    }

    /// Whether the entry is within the caller's `max_age`.
    pub fn accepts_age(&self, entry: &Entry, now: SystemTime) -> bool {
        self.cache.max_age.is_none_or(|max_age| entry.age(now) <= max_age)
    }

    /// Time past its expiry for which this caller accepts an answer; zero for a caller that sets its own TTL.
    pub fn stale_for(&self) -> Duration {
        match self.cache.ttl {
            Some(_) => Duration::ZERO,
            None => self.settings.cache.stale_while_revalidate(&self.prompt.namespace),
        }
    }

    /// The request that replaces a stale entry. Only a model may answer it, since a near entry may be as old.
    pub fn refresh(&self, deadline: Instant, permit: Permit) -> Self {
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
            verified: OnceLock::new(),
            _permit: permit,
        }
    }

    /// Notes what a verifier replied. Later replies change nothing.
    pub fn set_verified(&self, reply: VerifierReply) {
        let _ = self.verified.set(reply);
    }

    /// Separates callers with different cache directives; `no_cache` never joins.
    pub fn flight_salt(&self) -> u64 {
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
            verify,
        } = &self.cache;
        let mut hasher = DefaultHasher::new();
        let bits = |share: Option<f32>| share.map(f32::to_bits);
        (
            no_store,
            exact_only,
            bits(*min_similarity),
            bits(*max_error_rate),
            ttl,
            max_age,
            tags,
            keep,
            verify,
        )
            .hash(&mut hasher);
        no_cache.then_some(self.id).hash(&mut hasher);
        hasher.finish()
    }

    /// The namespace's mode.
    pub fn mode(&self) -> Mode {
        self.settings.cache.mode(&self.prompt.namespace)
    }

    /// How near entries are decided on for this caller.
    pub fn policy(&self) -> Policy {
        self.settings.cache.policy(&self.prompt.namespace, &self.cache)
    }

    /// [`Self::policy`] for a lookup, which `no_cache` forbids.
    pub fn lookup_policy(&self) -> Policy {
        if self.cache.no_cache { Policy::Exact } else { self.policy() }
    }

    /// Whether personal and time-dependent prompts are treated like others.
    pub fn keep(&self) -> Keep {
        self.cache.keep.unwrap_or_else(|| self.settings.cache.keep(&self.prompt.namespace))
    }

    /// What an entry must have in common with the prompt to be served to it, unless `cache.keep` is `all`.
    pub fn particulars(&self) -> Option<Vec<String>> {
        let own = || reuse::particulars(self.prompt.fuzzy_text().unwrap_or_default());
        (self.keep() == Keep::Careful).then(own)
    }

    /// The reason to reuse the answer for a short time only, or never.
    pub fn no_reuse(&self) -> Option<NoReuse> {
        if self.keep() == Keep::All {
            return None;
        }
        if self.prompt.temperature.is_some_and(|t| t > VARIETY_TEMPERATURE) {
            return Some(NoReuse::Variety);
        }
        self.prompt.fuzzy_text().and_then(NoReuse::of)
    }

    /// The record that feedback on the answer refers to.
    pub fn served(
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
}
