//! Compares the ledger with sums made by hand.

use super::*;
use crate::model::{AttemptResult, Usage};

fn hit(elapsed_ms: u64) -> Observation<'static> {
    Observation {
        tenant: "acme",
        namespace: "support",
        outcome: Outcome::Exact,
        reason: None,
        elapsed: Duration::from_millis(elapsed_ms),
        first_token: None,
        saved_usd: 0.25,
        hot_tier_usd: 1.0,
        is_stale: false,
    }
}

#[test]
fn sums_agree_between_total_window_namespace_and_tenant() {
    let ledger = Ledger::new(Duration::from_millis(90));
    for ms in 1..=100 {
        ledger.request(&hit(ms));
    }
    let miss = Observation {
        outcome: Outcome::Upstream,
        reason: Some(MissReason::ScopeEmpty),
        saved_usd: 0.0,
        ..hit(7)
    };
    ledger.request(&miss);
    let usage = Usage { prompt_tokens: 10, completion_tokens: 5, cost_usd: 0.5, estimated: false };
    let attempt = Attempt {
        model: "m".to_owned(),
        tier: "hot".to_owned(),
        provider: "p".to_owned(),
        result: AttemptResult::Ok,
        reason: crate::model::AttemptReason::Fallback,
        elapsed: Duration::from_secs(1),
        first_token: None,
        usage,
    };
    ledger.attempt("acme", "support", &attempt);
    ledger.at_hot_tier("acme", "support", 2.0);
    let minute = Duration::from_secs(60);
    for (window, namespace) in [(None, None), (Some(minute), None), (None, Some("support"))] {
        let all = ledger.stats(window, namespace, Sizes::default());
        let own = ledger.stats_of("acme", window, namespace);
        let none = ledger.stats_of("other", window, namespace);
        assert_eq!((own.models, own.sums.requests), (all.models.clone(), all.sums.requests.clone()));
        assert_eq!(own.sums.cost_usd.to_bits(), all.sums.cost_usd.to_bits());
        assert_eq!((none.models.len(), none.sums.requests), (0, Sums::from(&Counters::default()).requests));
        assert_eq!((all.models[0].model.as_str(), all.models[0].prompt_tokens), ("m", 10));
        assert_eq!(all.misses_by_reason["scope_empty"], 1);
        let sums = all.sums;
        assert_eq!(sums.requests["exact"], 100);
        assert_eq!(sums.answered(), 101);
        assert!((sums.hit_ratio - 100.0 / 101.0).abs() < 1e-9);
        assert!((sums.saved_usd - 25.0).abs() < 1e-9);
        assert!((sums.cost_usd - 0.5).abs() < 1e-9);
        let p50 = sums.latency["exact"].p50_ms;
        assert_eq!(sums.late_answers, 10, "those above 90 ms");
        assert!((sums.hot_tier_usd - 103.0).abs() < 1e-9);
        assert!((46.0..=54.0).contains(&p50), "{p50}");
    }
}

#[test]
fn namespaces_beyond_the_limit_count_in_the_total_only() {
    let ledger = Ledger::new(Duration::from_millis(90));
    for n in 0..NAMESPACES_MAX + 10 {
        let name = n.to_string();
        ledger.request(&Observation { namespace: &name, ..hit(1) });
    }
    let requests = |namespace| ledger.stats(None, namespace, Sizes::default()).sums.requests["exact"];
    assert_eq!(requests(None), NAMESPACES_MAX as u64 + 10);
    assert_eq!(requests(Some("1")), 1);
    assert_eq!(requests(Some(&(NAMESPACES_MAX + 5).to_string())), 0);
}
