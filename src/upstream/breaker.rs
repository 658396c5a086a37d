//! Circuit breaker of a model at a provider: it opens after failures, and single probes find out when the
//! model is back. The rules are a pure state machine that takes the time as an argument.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::BreakerState;

/// Breaker of one model at one provider. The mutex is held for a few assignments.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<Rules>);

/// Permit for one call. Dropping it unsettled says nothing about the model.
#[derive(Debug)]
pub(super) struct Permit {
    breaker: Arc<Breaker>,
    is_probe: bool,
    settled: bool,
}

#[derive(Debug)]
struct Rules {
    failures_max: u32,
    cooldown_min: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed {
        /// Recent calls, the newest in the lowest bit; 1 is a failure.
        recent: u16,
    },
    Open {
        until: Instant,
        cooldown: Duration,
    },
    /// A probe is in flight.
    Probing {
        cooldown: Duration,
    },
}

/// Mask of the ten most recent calls.
const RECENT_MASK: u16 = (1 << 10) - 1;
/// Longest cooldown, so that a recovery is seen within a minute.
const COOLDOWN_MAX: Duration = Duration::from_secs(60);

// === impl Breaker ===

impl Breaker {
    pub fn new(failures_max: u32, cooldown_min: Duration) -> Self {
        Self(Mutex::new(Rules { failures_max, cooldown_min, phase: Phase::Closed { recent: 0 } }))
    }

    /// A permit for one call; `None` while the breaker is open or a probe is in flight.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let is_probe = self.rules().admit(Instant::now())?;
        Some(Permit { breaker: Arc::clone(self), is_probe, settled: false })
    }

    /// Counts a failure after the permit was settled, such as an answer that broke off.
    pub fn record_failure(&self) {
        self.rules().failed(Instant::now(), false);
    }

    pub fn state(&self) -> BreakerState {
        self.rules().state(Instant::now())
    }

    /// Applies the settings of a reload.
    pub fn configure(&self, failures_max: u32, cooldown_min: Duration) {
        let mut rules = self.rules();
        rules.failures_max = failures_max;
        rules.cooldown_min = cooldown_min;
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// === impl Permit ===

impl Permit {
    pub fn succeeded(mut self) {
        self.settled = true;
        self.breaker.rules().succeeded();
    }

    pub fn failed(mut self) {
        self.settled = true;
        self.breaker.rules().failed(Instant::now(), self.is_probe);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe && !self.settled {
            self.breaker.rules().abandoned(Instant::now());
        }
    }
}

// === impl Rules ===

impl Rules {
    /// Whether the call is a probe; `None` when it is not allowed.
    fn admit(&mut self, now: Instant) -> Option<bool> {
        match self.phase {
            Phase::Closed { .. } => Some(false),
            Phase::Open { until, cooldown } if now >= until => {
                self.phase = Phase::Probing { cooldown };
                Some(true)
            }
            Phase::Open { .. } | Phase::Probing { .. } => None,
        }
    }

    /// Any success closes the breaker, even of a call that began before it opened.
    fn succeeded(&mut self) {
        match &mut self.phase {
            Phase::Closed { recent } => *recent = (*recent << 1) & RECENT_MASK,
            Phase::Open { .. } | Phase::Probing { .. } => self.phase = Phase::Closed { recent: 0 },
        }
    }

    /// While a probe is in flight, failures of older calls say nothing new.
    fn failed(&mut self, now: Instant, is_probe: bool) {
        match &mut self.phase {
            Phase::Closed { recent } => {
                *recent = (*recent << 1 | 1) & RECENT_MASK;
                if recent.count_ones() >= self.failures_max {
                    self.open(now, self.cooldown_min);
                }
            }
            Phase::Probing { cooldown } if is_probe => {
                let cooldown = cooldown.saturating_mul(2).min(COOLDOWN_MAX);
                self.open(now, cooldown);
            }
            Phase::Open { .. } | Phase::Probing { .. } => {}
        }
    }

    /// The probe was dropped unsettled, so the next call is a probe.
    fn abandoned(&mut self, now: Instant) {
        if let Phase::Probing { cooldown } = self.phase {
            self.phase = Phase::Open { until: now, cooldown };
        }
    }

    /// Opens the breaker. The jitter spreads the probes of many replicas.
    fn open(&mut self, now: Instant, cooldown: Duration) {
        let jitter = 0.8 + 0.4 * fastrand::f64();
        self.phase = Phase::Open { until: now + cooldown.mul_f64(jitter), cooldown };
    }

    fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until, .. } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::Probing { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(5);

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new(3, COOLDOWN))
    }

    fn fail(breaker: &Arc<Breaker>, times: usize) {
        for _ in 0..times {
            breaker.admit().expect("admitted").failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_at_the_configured_failures_and_not_before() {
        let breaker = breaker();
        fail(&breaker, 2);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_after_ten_calls() {
        let breaker = breaker();
        fail(&breaker, 2);
        (0..9).for_each(|_| breaker.admit().expect("admitted").succeeded());
        fail(&breaker, 1);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn alternating_failures_open_the_breaker() {
        let breaker = breaker();
        for _ in 0..2 {
            fail(&breaker, 1);
            breaker.admit().expect("admitted").succeeded();
        }
        fail(&breaker, 1);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_is_admitted_and_its_success_closes_the_breaker() {
        let breaker = breaker();
        fail(&breaker, 3);
        advance(COOLDOWN.mul_f64(1.21)).await;
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let probe = breaker.admit().expect("the probe");
        assert!(breaker.admit().is_none(), "only one");
        probe.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_doubles_the_cooldown_up_to_a_minute() {
        let breaker = breaker();
        fail(&breaker, 3);
        let mut cooldown = COOLDOWN;
        for _ in 0..6 {
            advance(cooldown.mul_f64(0.79)).await;
            assert!(breaker.admit().is_none(), "too early for {cooldown:?}");
            advance(cooldown.mul_f64(0.42)).await;
            fail(&breaker, 1);
            cooldown = (cooldown * 2).min(COOLDOWN_MAX);
        }
        assert_eq!(cooldown, COOLDOWN_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_lets_the_next_one_in() {
        let breaker = breaker();
        fail(&breaker, 3);
        advance(COOLDOWN * 2).await;
        drop(breaker.admit().expect("the probe"));
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_began_before_do_not_disturb_the_probe() {
        let breaker = breaker();
        let before = [breaker.admit(), breaker.admit()].map(|permit| permit.expect("admitted"));
        fail(&breaker, 3);
        advance(COOLDOWN * 2).await;
        let probe = breaker.admit().expect("the probe");
        let [dropped, failed] = before;
        drop(dropped);
        failed.failed();
        assert!(breaker.admit().is_none(), "the probe is still in flight");
        probe.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
