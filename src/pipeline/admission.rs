//! The first step: checks limits and fields, fills in defaults and computes the keys of a request.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{AdmittedRequest, Request, Settings, replies::RequestId, request::fill_defaults};
use crate::{
    cache::Cache,
    error::Error,
    key,
    telemetry::metrics::{Metrics, Shed},
    tenant::Tenant,
};

/// Retry delay that a shed caller is given.
const SHED_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Admits requests within the limits of the server and of their tenants.
pub(super) struct Admission {
    settings: ArcSwap<Settings>,
    in_flight: Arc<AtomicUsize>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Admission {
    pub(super) fn new(settings: Settings, cache: Arc<Cache>, metrics: Arc<Metrics>) -> Self {
        Self { settings: ArcSwap::from_pointee(settings), in_flight: Arc::default(), cache, metrics }
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(super) fn reload(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Number of permits given out.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Admits one request.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field, or [`Error::Exhausted`] naming the limit.
    pub(super) fn admit(&self, request: Request) -> Result<AdmittedRequest, Error> {
        let Request { tenant, mut prompt, cache, deadline, trace } = request;
        let settings = self.settings();
        let permit = self.enter(&tenant, &settings)?;
        prompt.validate()?;
        cache.validate()?;
        fill_defaults(&settings, &mut prompt);
        let owner = tenant.owner(&prompt.namespace);
        let (key, scope) = key::of(&owner, &prompt);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + settings.timeout);
        let (id, epoch) = (RequestId::random(), self.cache.tiers.epoch());
        Ok(AdmittedRequest {
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
            verified: OnceLock::new(),
            _permit: permit,
        })
    }

    /// A permit for one request of `tenant`, within its rate limit.
    pub(super) fn enter(&self, tenant: &Tenant, settings: &Settings) -> Result<Permit, Error> {
        let permit = self.permit(settings).inspect_err(|_| self.metrics.shed(Shed::InFlight))?;
        self.check_rate(tenant)?;
        Ok(permit)
    }

    /// A permit within `server.max_in_flight`.
    pub(super) fn permit(&self, settings: &Settings) -> Result<Permit, Error> {
        let permit = Permit(Arc::clone(&self.in_flight));
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < settings.max_in_flight {
            return Ok(permit);
        }
        Err(Error::Exhausted { limit: "requests in flight", retry_after: SHED_RETRY_AFTER })
    }

    /// Counts one request against the tenant's rate limit.
    pub(super) fn check_rate(&self, tenant: &Tenant) -> Result<(), Error> {
        tenant.check_rate(std::time::Instant::now()).inspect_err(|_| self.metrics.shed(Shed::Rate))
    }

    /// Refuses a model call for a tenant that has spent its daily budget.
    pub(super) fn check_budget(&self, tenant: &Tenant) -> Result<(), Error> {
        tenant.check_budget(SystemTime::now()).inspect_err(|_| self.metrics.shed(Shed::Budget))
    }

    /// The caller's deadline, or the one of `upstream.timeout`.
    pub(super) fn deadline(&self, of_caller: Option<Instant>) -> Instant {
        of_caller.unwrap_or_else(|| Instant::now() + self.settings().timeout)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
