//! Active health checks: a dead provider is put behind the others before a caller meets it, and brought
//! back once it answers again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::header::AUTHORIZATION;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Upstreams, catalog::Provider};

/// What the checks of one provider found.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failed checks since the last good one.
    failures: AtomicU32,
}

/// One lost packet is no outage.
const FAILURES_MAX: u32 = 2;
/// A provider in doubt is looked at again this soon, so that an outage is known after seconds and over
/// as soon.
const RECHECK: Duration = Duration::from_secs(1);

// === impl Health ===

impl Health {
    /// Before the first check a provider counts as up.
    pub fn is_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES_MAX
    }

    fn is_in_doubt(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    fn record(&self, provider: &str, ok: bool) {
        let was_up = self.is_up();
        if ok {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            // One task checks, so this cannot race; the bound keeps it from wrapping.
            let failures = self.failures.load(Ordering::Relaxed);
            self.failures.store(failures.saturating_add(1).min(FAILURES_MAX), Ordering::Relaxed);
        }
        match (was_up, self.is_up()) {
            (true, false) => warn!(provider, "provider_down"),
            (false, true) => info!(provider, "provider_up"),
            _ => {}
        }
    }
}

/// Checks every provider, again and again, until it is dropped. Follows reloads.
pub(super) async fn watch(upstreams: &Upstreams) {
    loop {
        let catalog = upstreams.catalog.load_full();
        let interval = catalog.limits.health_interval;
        if interval.is_zero() {
            // Switched off; a reload may switch it on.
            sleep(RECHECK).await;
            continue;
        }
        let mut checks = JoinSet::new();
        for provider in &catalog.providers {
            let (client, provider) = (catalog.client.clone(), Arc::clone(provider));
            let longest = catalog.limits.health_timeout;
            checks.spawn(async move {
                let ok = timeout(longest, check(&client, &provider)).await.unwrap_or(false);
                provider.health.record(&provider.name, ok);
            });
        }
        while checks.join_next().await.is_some() {}
        let in_doubt = catalog.providers.iter().any(|provider| provider.health.is_in_doubt());
        let pause = if in_doubt { interval.min(RECHECK) } else { interval };
        sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Asks for the list of models: every server of the dialect has it, it costs nothing, and any answer
/// but a server error shows that somebody is there, even that there is no such page.
async fn check(client: &reqwest::Client, provider: &Provider) -> bool {
    let mut request = client.get(provider.models_url.clone());
    if let Some(authorization) = &provider.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    request.send().await.is_ok_and(|response| !response.status().is_server_error())
}
