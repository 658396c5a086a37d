//! Who is calling, and what they may do: API keys, rate limits, budgets, shared namespaces.
//!
//! Knows no transport: the caller hands in the bearer token, and the time, so that nothing here reads a
//! clock. Limits hold per process: three replicas admit three times the rate and spend three budgets.

mod api_key;
mod budget;
mod rate;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

pub use self::api_key::ApiKeyHash;
use self::{budget::Budget, rate::RateLimit};
use crate::{config::TenantConfig, error::Error, key::Owner};

/// Name of the one tenant of a server without `[[tenants]]`.
pub const DEFAULT_TENANT: &str = "default";

/// The callers that the server knows.
pub struct Tenants {
    /// By the hash of their key. Looking a hash up takes a time that depends on the hash alone, and nobody
    /// can choose a key's SHA-256 bit by bit, so the lookup tells a guesser nothing.
    by_key: HashMap<ApiKeyHash, Arc<Tenant>>,
    /// Whoever calls, when no tenants are configured.
    anyone: Option<Arc<Tenant>>,
}

/// One caller, its limits and what it has used of them.
pub struct Tenant {
    name: String,
    shared_namespaces: HashSet<String>,
    rate: Option<Arc<RateLimit>>,
    budget: Budget,
}

// === impl Tenants ===

impl Tenants {
    /// The tenants of `configs`, with nothing used yet.
    pub fn new(configs: &[TenantConfig]) -> Self {
        Self::with_tenants(configs, |config| Tenant::new(config, None))
    }

    /// The tenants of a reloaded configuration. Those that stay keep what they have spent today, and their
    /// place in the rate limit when that did not change.
    pub fn reconfigured(&self, configs: &[TenantConfig]) -> Self {
        let old: HashMap<_, _> = self.iter().map(|tenant| (tenant.name.as_str(), tenant)).collect();
        Self::with_tenants(configs, |config| {
            Tenant::new(config, old.get(config.name.as_str()).map(|old| &***old))
        })
    }

    fn with_tenants(configs: &[TenantConfig], make: impl Fn(&TenantConfig) -> Tenant) -> Self {
        if configs.is_empty() {
            let anyone = make(&TenantConfig::unlimited(DEFAULT_TENANT));
            return Self { by_key: HashMap::new(), anyone: Some(Arc::new(anyone)) };
        }
        // A tenant without a key, which loading refuses, cannot be authenticated.
        let with_key = |config: &TenantConfig| Some((config.api_key_sha256?, Arc::new(make(config))));
        Self { by_key: configs.iter().filter_map(with_key).collect(), anyone: None }
    }

    /// The tenant whose API key `bearer` is: the token itself, without the word `Bearer`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the key is missing or unknown.
    pub fn authenticate(&self, bearer: Option<&str>) -> Result<Arc<Tenant>, Error> {
        if let Some(anyone) = &self.anyone {
            return Ok(Arc::clone(anyone));
        }
        let key = bearer.ok_or(Error::Unauthenticated)?;
        self.by_key.get(&ApiKeyHash::of(key)).cloned().ok_or(Error::Unauthenticated)
    }

    /// Whether callers are told apart by keys.
    pub fn have_keys(&self) -> bool {
        self.anyone.is_none()
    }

    /// Whoever calls, where no tenants are configured.
    pub fn anyone(&self) -> Option<&Arc<Tenant>> {
        self.anyone.as_ref()
    }

    /// Every tenant, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_key.values().chain(&self.anyone)
    }
}

/// Names only: keys, even hashed, stay out of logs.
impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|tenant| &tenant.name)).finish()
    }
}

// === impl Tenant ===

impl Tenant {
    fn new(config: &TenantConfig, old: Option<&Self>) -> Self {
        let rate = config.rate_limit.map(|per_second| {
            let kept = old.and_then(|old| old.rate.clone()).filter(|rate| rate.per_second() == per_second);
            kept.unwrap_or_else(|| Arc::new(RateLimit::new(per_second)))
        });
        let limit = config.budget_usd_per_day;
        let budget = old.map_or_else(|| Budget::new(limit), |old| old.budget.with_limit(limit));
        Self {
            name: config.name.clone(),
            shared_namespaces: config.shared_namespaces.iter().cloned().collect(),
            rate,
            budget,
        }
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To whom entries of `namespace` belong when this tenant asks.
    pub fn owner(&self, namespace: &str) -> Owner {
        if self.shared_namespaces.contains(namespace) {
            Owner::Shared
        } else {
            Owner::Tenant(self.name.clone())
        }
    }

    /// Whether this tenant may see, judge and remove an entry of `owner` in `namespace`.
    pub fn sees(&self, owner: &Owner, namespace: &str) -> bool {
        match owner {
            Owner::Tenant(name) => *name == self.name,
            Owner::Shared => self.shared_namespaces.contains(namespace),
        }
    }

    /// The owners whose entries this tenant may remove. Shared ones only where it names a namespace that
    /// it lists: without a namespace, those of namespaces it does not list would go too.
    pub fn owners_visible(&self, namespace: Option<&str>) -> Vec<Owner> {
        let own = Owner::Tenant(self.name.clone());
        match namespace {
            Some(namespace) if self.shared_namespaces.contains(namespace) => vec![own, Owner::Shared],
            _ => vec![own],
        }
    }

    /// Counts one request against the rate limit.
    ///
    /// # Errors
    /// [`Error::Exhausted`] of `rate`, with the time after which one more request is admitted.
    pub fn check_rate(&self, now: Instant) -> Result<(), Error> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.admit(now).map_err(|retry_after| Error::Exhausted { limit: "rate", retry_after })
    }

    /// Whether a model may be called for this tenant: asked before each call that costs money, never
    /// before a hit. Calls under way are not counted, so they can overrun the budget by their own cost.
    ///
    /// # Errors
    /// [`Error::Exhausted`] of `budget`, with the time until the next UTC day.
    pub fn check_budget(&self, now: SystemTime) -> Result<(), Error> {
        self.budget.check(now).map_err(|retry_after| Error::Exhausted { limit: "budget", retry_after })
    }

    /// Adds the cost of a call, in US dollars, to the day of `now`.
    pub fn spend(&self, now: SystemTime, usd: f64) {
        self.budget.spend(now, usd);
    }

    /// `budget_usd_per_day`
    pub fn budget_usd_per_day(&self) -> Option<f64> {
        self.budget.usd_per_day()
    }

    /// US dollars spent on the UTC day of `now`.
    pub fn spent_today(&self, now: SystemTime) -> f64 {
        self.budget.spent_on_day_of(now)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TenantConfig {
    fn unlimited(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
