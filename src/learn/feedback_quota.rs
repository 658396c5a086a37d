//! Limits how much each tenant teaches by feedback. A tenant that rates many answers, by mistake or on purpose, must not
//! decide alone what a namespace serves.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{NamespaceId, namespace::lock};

/// Time in which a tenant's verdicts count against its quota.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// Namespaces in which one tenant may teach within an hour. Its feedback in further ones teaches nothing.
const NAMESPACES_MAX: usize = 1000;

/// Times of the verdicts that a tenant taught a namespace, oldest first; at most the quota.
type Taught = VecDeque<Instant>;

/// The quota of each tenant in each namespace. It holds per process: three replicas admit three times as much.
pub(super) struct FeedbackQuota {
    per_hour: usize,
    /// By the tenant's name; the names come from the configuration, which bounds the map. A std mutex: held for one
    /// look, never across an await.
    tenants: Mutex<HashMap<String, HashMap<NamespaceId, Taught>>>,
}

impl FeedbackQuota {
    pub(super) fn new(per_hour: usize) -> Self {
        Self { per_hour, tenants: Mutex::default() }
    }

    /// Whether the tenant may teach the namespace one more verdict at `now`; counts the verdict if so.
    pub(super) fn admit(&self, tenant: &str, namespace: &NamespaceId, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= PERIOD;
        let mut tenants = lock(&self.tenants);
        let namespaces = tenants.entry(tenant.to_owned()).or_default();
        if namespaces.len() >= NAMESPACES_MAX && !namespaces.contains_key(namespace) {
            namespaces.retain(|_, taught| taught.back().is_some_and(|last| !is_old(last)));
            if namespaces.len() >= NAMESPACES_MAX {
                return false;
            }
        }
        let taught = namespaces.entry(namespace.clone()).or_default();
        while taught.front().is_some_and(is_old) {
            taught.pop_front();
        }
        let is_admitted = taught.len() < self.per_hour;
        if is_admitted {
            taught.push_back(now);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Owner;

    fn namespace(name: &str) -> NamespaceId {
        NamespaceId { owner: Owner::Shared, name: name.to_owned() }
    }

    #[test]
    fn a_tenant_teaches_no_more_than_its_quota_in_any_hour() {
        let (quota, start) = (FeedbackQuota::new(2), Instant::now());
        let admit = |tenant: &str, name: &str, minute: u64| {
            quota.admit(tenant, &namespace(name), start + Duration::from_secs(60 * minute))
        };
        assert_eq!([0, 30, 59].map(|minute| admit("acme", "docs", minute)), [true, true, false]);
        assert!(admit("globex", "docs", 59), "each tenant has a quota of its own");
        assert!(admit("acme", "faq", 59), "each namespace has a quota of its own");
        assert_eq!([60, 61, 90].map(|minute| admit("acme", "docs", minute)), [true, false, true]);
    }

    /// Dropping the oldest namespace instead would let a tenant reset its quota by rating answers in many others.
    #[test]
    fn a_tenant_cannot_reset_its_quota_by_feedback_in_many_namespaces() {
        let (quota, start) = (FeedbackQuota::new(1), Instant::now());
        for n in 0..NAMESPACES_MAX {
            assert!(quota.admit("acme", &namespace(&n.to_string()), start));
        }
        assert!(!quota.admit("acme", &namespace("one more"), start));
        assert!(!quota.admit("acme", &namespace("0"), start));
        assert!(quota.admit("globex", &namespace("one more"), start));
        assert!(quota.admit("acme", &namespace("one more"), start + PERIOD));
        assert_eq!(lock(&quota.tenants)["acme"].len(), 1);
    }
}
