//! The server's numbers, and who may see which.

use std::time::Duration;

use super::Pipeline;
use crate::{
    decide::learner::WrongHits,
    feedback::RecentHit,
    key::Owner,
    learn::NamespaceId,
    stats::{Ledger, Sizes, Stats},
    tenant::Tenant,
};

// === impl Pipeline ===

impl Pipeline {
    /// The live estimate of the share of wrong answers among semantic hits, of all namespaces or those of one
    /// name.
    pub fn wrong_hits(&self, namespace: Option<&str>) -> WrongHits {
        self.learning.wrong_hits(|id| namespace.is_none_or(|name| id.name == name))
    }

    /// The server's numbers, since the start or of the last `window`, of one namespace or all.
    pub fn stats(&self, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        let (entries, index_vectors) = self.cache.sizes();
        let sizes = Sizes { entries, index_vectors: index_vectors as u64 };
        Stats { wrong_hits: self.wrong_hits(namespace), ..self.ledger.stats(window, namespace, sizes) }
    }

    /// The ledger behind [`Pipeline::stats`], for what changes with time.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The last semantic hits, newest first.
    pub fn recent_semantic(&self) -> Vec<RecentHit> {
        self.replies.semantic()
    }

    /// What this tenant may see of them: everything where no tenants are told apart, else its own.
    pub fn stats_for(&self, tenant: &Tenant, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        match self.settings().tenants.anyone() {
            Some(_) => self.stats(window, namespace),
            None => {
                let owner = Owner::Tenant(tenant.name().to_owned());
                let is_own =
                    |id: &NamespaceId| id.owner == owner && namespace.is_none_or(|name| id.name == name);
                let wrong_hits = self.learning.wrong_hits(is_own);
                Stats { wrong_hits, ..self.ledger.stats_of(tenant.name(), window, namespace) }
            }
        }
    }
}
