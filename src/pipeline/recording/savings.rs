//! Net savings: the cost of audits and verifications comes off what hits save.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Costs not yet taken off the savings. Counters cannot fall, so a cost comes off the savings that follow it.
#[derive(Clone, Debug, Default)]
pub(super) struct Savings {
    /// US dollars by tenant.
    owed: Arc<Mutex<HashMap<String, f64>>>,
}

impl Savings {
    /// Adds a cost of `usd`.
    pub(super) fn spend(&self, tenant: &str, usd: f64) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        *owed.entry(tenant.to_owned()).or_default() += usd;
    }

    /// The part of a saving of `usd` that is left after the costs owed.
    pub(super) fn net(&self, tenant: &str, usd: f64) -> f64 {
        if usd <= 0.0 {
            return 0.0;
        }
        let mut all = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owed) = all.get_mut(tenant) else { return usd };
        let paid = owed.min(usd);
        *owed -= paid;
        usd - paid
    }
}
