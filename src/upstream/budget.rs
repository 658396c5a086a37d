//! Budget for extra attempts as a share of the requests, so that retries and hedges cannot multiply load when
//! every provider is slow at once.

use std::sync::Mutex;

/// Token bucket filled by requests and emptied by extra attempts. The mutex is held for a few additions.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    tokens: Mutex<f64>,
}

/// Largest number of extra attempts in a row after a quiet time.
const BURST: f64 = 10.0;

impl Budget {
    /// A budget of `share` extra attempts per request. It starts with one attempt, so that the first request
    /// can be retried; a share of zero allows none.
    pub fn new(share: f64) -> Self {
        let start = if share > 0.0 { 1.0 } else { 0.0 };
        Self { share, tokens: Mutex::new(start) }
    }

    /// Counts one request.
    pub fn earn(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *tokens = (*tokens + self.share).min(BURST);
    }

    /// Takes one extra attempt from the budget; false when the budget is spent.
    pub fn spend(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_attempts_stay_within_their_share() {
        let budget = Budget::new(0.05);
        let spent = (0..10_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert!((499..=502).contains(&spent.count()));
    }

    #[test]
    fn a_quiet_time_saves_no_more_than_one_burst() {
        let budget = Budget::new(0.05);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), BURST as usize);
    }

    #[test]
    fn a_share_of_zero_allows_no_attempt() {
        let budget = Budget::new(0.0);
        budget.earn();
        assert!(!budget.spend());
    }
}
