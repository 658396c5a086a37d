//! The server's statistics, limited to what a tenant may see.

use std::{sync::Arc, time::Duration};

use super::{Admission, FreshScope, fresh_scopes::FreshScopes};
use crate::{
    cache::Cache,
    decide::learner::WrongHits,
    key::Owner,
    learn::{Learning, NamespaceId},
    telemetry::stats::{Ledger, Sizes, Stats, VerifierErrors},
    tenant::Tenant,
};

/// Reads the ledger, the learners' estimates and the sizes of the cache.
pub struct Statistics {
    pub(super) admission: Arc<Admission>,
    pub(super) learning: Arc<Learning>,
    pub(super) cache: Arc<Cache>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) fresh_scopes: FreshScopes,
}

impl Statistics {
    pub(super) fn new(
        admission: Arc<Admission>,
        learning: Arc<Learning>,
        cache: Arc<Cache>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { admission, learning, cache, ledger, fresh_scopes: FreshScopes::new() }
    }

    /// The estimated share of wrong answers among semantic hits, of all namespaces or of those with this name.
    pub fn wrong_hits(&self, namespace: Option<&str>) -> WrongHits {
        self.learning.wrong_hits(|id| namespace.is_none_or(|name| id.name == name))
    }

    /// The statistics of the whole server, since its start or of the last `window`, of one namespace or all.
    pub fn of_server(&self, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        let (entries, index_vectors) = self.cache.sizes();
        let sizes = Sizes { entries, index_vectors: index_vectors as u64 };
        let is_meant = |id: &NamespaceId| namespace.is_none_or(|name| id.name == name);
        let verifier_errors = self.verifier_errors(is_meant);
        Stats {
            wrong_hits: self.wrong_hits(namespace),
            verifier_errors,
            ..self.ledger.stats(window, namespace, sizes)
        }
    }

    /// The statistics that this tenant may see: its own, or those of the server where no tenants are configured.
    pub fn of_tenant(&self, tenant: &Tenant, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        if self.admission.settings().tenants.anyone().is_some() {
            return self.of_server(window, namespace);
        }
        let owner = Owner::Tenant(tenant.name().to_owned());
        let is_own = |id: &NamespaceId| id.owner == owner && namespace.is_none_or(|name| id.name == name);
        let wrong_hits = self.learning.wrong_hits(is_own);
        let verifier_errors = self.verifier_errors(is_own);
        Stats { wrong_hits, verifier_errors, ..self.ledger.stats_of(tenant.name(), window, namespace) }
    }

    /// Error rates of the verifier, over the loaded namespaces that `counts` selects.
    fn verifier_errors(&self, counts: impl Fn(&NamespaceId) -> bool) -> VerifierErrors {
        self.learning.verifier_errors(counts).into()
    }

    /// Namespaces in which every conversation opens a scope of its own.
    pub fn fresh_scopes(&self) -> Vec<FreshScope> {
        self.fresh_scopes.reported()
    }

    /// The ledger itself, for the charts over time.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
