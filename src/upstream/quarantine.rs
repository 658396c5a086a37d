//! Quarantine of what a provider refused for reasons that have nothing to do with the request: the server's key, its
//! account, or a model that the provider does not have. Whatever is in quarantine is tried last, so that the only
//! provider of a model is still called, and leaves it with its first success.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::catalog::Model;

/// Quarantine of one provider, or of one model at a provider.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// End, and the status that caused it. A std mutex, held for a copy.
    until: Mutex<Option<(Instant, u16)>>,
}

/// Whether this status is about the provider or the model, and not about the request.
pub(super) fn is_cause(status: u16) -> bool {
    matches!(status, 401..=404)
}

impl Quarantine {
    /// The status that caused the quarantine; `None` if there is none.
    pub fn cause(&self) -> Option<u16> {
        let (until, status) = (*self.lock())?;
        (Instant::now() < until).then_some(status)
    }

    /// Begins or prolongs the quarantine. Returns whether it is new.
    fn begin(&self, status: u16, lasts: Duration) -> bool {
        let now = Instant::now();
        let before = self.lock().replace((now + lasts, status));
        before.is_none_or(|(until, _)| until <= now)
    }

    /// Ends the quarantine. Returns whether there was one.
    fn end(&self) -> bool {
        self.lock().take().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, u16)>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    /// Puts the model (404) or its whole provider (401, 402, 403) into quarantine. Does nothing for other statuses.
    pub fn quarantine(&self, status: u16, lasts: Duration) {
        if !is_cause(status) {
            return;
        }
        let (provider, model, seconds) = (&self.provider.name, &self.config.id, lasts.as_secs_f64());
        if status == 404 {
            if self.state.quarantine.begin(status, lasts) {
                tracing::error!(provider, model, status, seconds, "model_quarantined");
            }
        } else if self.provider.quarantine.begin(status, lasts) {
            tracing::error!(provider, model, status, seconds, "provider_quarantined");
        }
    }

    /// Ends the quarantine of a model that has answered, and of its provider.
    pub fn release(&self) {
        let (provider, model) = (&self.provider.name, &self.config.id);
        if self.state.quarantine.end() {
            tracing::info!(provider, model, "model_released");
        }
        if self.provider.quarantine.end() {
            tracing::info!(provider, "provider_released");
        }
    }

    /// Whether the model should be tried before others: its provider is up, and neither is in quarantine.
    pub fn is_available(&self) -> bool {
        let provider = &self.provider;
        let quarantines = [&self.state.quarantine, &provider.quarantine];
        provider.health.is_up() && quarantines.iter().all(|quarantine| quarantine.cause().is_none())
    }
}
