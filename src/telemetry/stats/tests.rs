//! Compares the ledger with sums made by hand.

use super::*;
use crate::model::{AttemptReason, AttemptResult, FittingSet, Usage};

fn hit(elapsed_ms: u64) -> Observation<'static> {
    Observation {
        tenant: "acme",
        namespace: "support",
        outcome: Outcome::Exact,
        reason: None,
        elapsed: Duration::from_millis(elapsed_ms),
        first_token: None,
        saved_usd: 0.25,
        gross_usd: 0.25,
        approval: None,
        hot_tier_usd: 1.0,
        is_stale: false,
    }
}

fn call(reason: AttemptReason, cost_usd: f64) -> Attempt {
    Attempt {
        model: "m".to_owned(),
        tier: "hot".to_owned(),
        provider: "p".to_owned(),
        result: AttemptResult::Ok,
        reason,
        elapsed: Duration::from_secs(1),
        first_token: None,
        usage: Usage { prompt_tokens: 10, completion_tokens: 5, cost_usd, ..Usage::default() },
        finish_reason: String::new(),
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
        gross_usd: 0.0,
        ..hit(7)
    };
    ledger.request(&miss);
    ledger.attempt("acme", "support", &call(AttemptReason::Fallback, 0.5), CallPurpose::Answer);
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

#[test]
fn verifications_are_counted_for_their_tenant_namespace_and_window() {
    let ledger = Ledger::new(Duration::from_millis(90));
    let fits = VerifierReply::Fits([0].into_iter().collect());
    let replies = [
        fits,
        fits,
        VerifierReply::Fits(FittingSet::default()),
        VerifierReply::Nonsense,
        VerifierReply::Unavailable,
        VerifierReply::TimedOut,
        VerifierReply::Skipped,
    ];
    for reply in replies {
        ledger.verification("acme", "support", reply);
    }
    ledger.attempt("acme", "support", &call(AttemptReason::Verify, 0.25), CallPurpose::Check);
    ledger.attempt("acme", "support", &call(AttemptReason::Fallback, 1.5), CallPurpose::Answer);
    let approved = Observation { outcome: Outcome::Semantic, gross_usd: 0.5, ..hit(1) };
    ledger.request(&Observation { approval: Some(Approval::Verified), ..approved });
    ledger.request(&Observation { approval: Some(Approval::Learned), ..approved });
    let expected = VerificationStats {
        asked: 6,
        yes: 2,
        no: 1,
        nonsense: 1,
        unavailable: 1,
        timeouts: 1,
        skipped: 1,
        cost_usd: 0.25,
        // Without a cache: a call, and two hits. Nobody would have verified.
        share_of_spend: 0.1,
        hits: 1,
        saved_usd: 0.5,
    };
    let minute = Some(Duration::from_secs(60));
    for (window, namespace) in [(None, None), (minute, None), (None, Some("support"))] {
        let all = ledger.stats(window, namespace, Sizes::default()).sums;
        assert_eq!((all.verification, all.cost_usd, all.saved_usd), (expected, 1.75, 0.5));
        assert_eq!(ledger.stats_of("acme", window, namespace).sums.verification, expected);
        assert_eq!(
            ledger.stats_of("other", window, namespace).sums.verification,
            VerificationStats::default()
        );
    }
    let elsewhere = ledger.stats(None, Some("sales"), Sizes::default()).sums.verification;
    assert_eq!(elsewhere, VerificationStats::default());
}
