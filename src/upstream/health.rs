//! Active health checks: a provider that is down is moved behind the others before a request reaches it, and
//! back once it answers again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Upstreams, catalog::Provider};

/// Health of one provider, up until checks fail.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failed checks since the last good one.
    failures: AtomicU32,
}

/// Failed checks in a row that mark a provider as down: one lost packet is no outage.
const FAILURES_MAX: u32 = 2;
/// Longest time between checks while a provider fails them, so that the start and the end of an outage are
/// seen within seconds.
const RECHECK: Duration = Duration::from_secs(1);

impl Health {
    pub fn is_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES_MAX
    }

    fn has_failed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    fn record(&self, provider: &str, ok: bool) {
        let was_up = self.is_up();
        // One task checks, so load and store cannot race; the bound keeps the counter from wrapping.
        let failures = if ok { 0 } else { (self.failures.load(Ordering::Relaxed) + 1).min(FAILURES_MAX) };
        self.failures.store(failures, Ordering::Relaxed);
        match (was_up, self.is_up()) {
            (true, false) => warn!(provider, "provider_down"),
            (false, true) => info!(provider, "provider_up"),
            _ => {}
        }
    }
}

/// Checks every provider periodically, with the settings of the latest reload, until the future is dropped.
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
        let has_failures = catalog.providers.iter().any(|provider| provider.health.has_failed());
        let pause = if has_failures { interval.min(RECHECK) } else { interval };
        sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Requests the list of models, which every server of the dialect has and none bills. Any reply but a server
/// error counts as healthy, even a 404.
async fn check(client: &reqwest::Client, provider: &Provider) -> bool {
    let request = provider.get_models(client);
    request.send().await.is_ok_and(|response| !response.status().is_server_error())
}
