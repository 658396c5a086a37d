//! Tenants: API keys, rate limits, budgets and shared namespaces.
//!
//! Knows no transport: callers pass the bearer token and the time, so that nothing here reads a clock except to
//! start a rate limit. Limits hold per process: three replicas admit three times the rate and spend three budgets.

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

use self::{budget::Budget, rate::RateLimit};
pub use crate::config::ApiKeyHash;
use crate::{config::TenantConfig, error::Error, key::Owner};

/// Name of the only tenant of a server without `[[tenants]]`.
pub const DEFAULT_TENANT: &str = "default";

/// All tenants of the configuration.
pub struct Tenants {
    /// Tenants by the hash of their key. The time of a lookup depends on the hash only, and nobody can choose the
    /// SHA-256 of a key bit by bit, so the time reveals nothing useful for guessing.
    by_key: HashMap<ApiKeyHash, Arc<Tenant>>,
    /// Tenant of every caller when none is configured.
    anyone: Option<Arc<Tenant>>,
}

/// One tenant, its limits and its usage.
pub struct Tenant {
    name: String,
    shared_namespaces: HashSet<String>,
    rate: Option<Arc<RateLimit>>,
    budget: Budget,
}

// === impl Tenants ===

impl Tenants {
    /// Builds the tenants of `configs` with no usage.
    pub fn new(configs: &[TenantConfig]) -> Self {
        Self::with_tenants(configs, |config| Tenant::new(config, None))
    }

    /// Builds the tenants of a reloaded configuration. A tenant of an unchanged name keeps its spending of today,
    /// and the state of its rate limit if the limit did not change.
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
        // Loading refuses a tenant without a key; here nobody can authenticate as it.
        let with_key = |config: &TenantConfig| Some((config.api_key_sha256?, Arc::new(make(config))));
        Self { by_key: configs.iter().filter_map(with_key).collect(), anyone: None }
    }

    /// Returns the tenant with the API key `bearer`, which is the token without the word `Bearer`.
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

    /// Whether callers need API keys.
    pub fn have_keys(&self) -> bool {
        self.anyone.is_none()
    }

    /// The tenant of every caller, if no tenants are configured.
    pub fn anyone(&self) -> Option<&Arc<Tenant>> {
        self.anyone.as_ref()
    }

    /// All tenants, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_key.values().chain(&self.anyone)
    }
}

/// Writes names only: keys, even hashed, stay out of logs.
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

    /// The owner of the entries that this tenant's requests in `namespace` use.
    pub fn owner(&self, namespace: &str) -> Owner {
        if self.shared_namespaces.contains(namespace) {
            Owner::Shared
        } else {
            Owner::Tenant(self.name.clone())
        }
    }

    /// Whether this tenant may read, rate and remove entries of `owner` in `namespace`.
    pub fn can_access(&self, owner: &Owner, namespace: &str) -> bool {
        match owner {
            Owner::Tenant(name) => *name == self.name,
            Owner::Shared => self.shared_namespaces.contains(namespace),
        }
    }

    /// The owners whose entries this tenant may remove. Shared entries are included only for a namespace that the
    /// tenant lists: without a namespace, entries of namespaces that it does not list would be removed too.
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
    /// [`Error::Exhausted`] for `rate`, with the time after which the next request is admitted.
    pub fn check_rate(&self, now: Instant) -> Result<(), Error> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.admit(now).map_err(|retry_after| Error::Exhausted { limit: "rate", retry_after })
    }

    /// Checks whether a model may be called for this tenant. Needed before each call that costs money, never before
    /// a hit. Calls in flight are not counted, so they can overrun the budget by their own cost.
    ///
    /// # Errors
    /// [`Error::Exhausted`] for `budget`, with the time until the next UTC day.
    pub fn check_budget(&self, now: SystemTime) -> Result<(), Error> {
        self.budget.check(now).map_err(|retry_after| Error::Exhausted { limit: "budget", retry_after })
    }

    /// Adds the cost of a call, in US dollars, to the spending of the UTC day of `now`.
    pub fn spend(&self, now: SystemTime, usd: f64) {
        self.budget.spend(now, usd);
    }

    /// `budget_usd_per_day` of this tenant.
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

/// The API key in the value of an `authorization` header: `Bearer <key>`, with a case-insensitive scheme.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, key) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
