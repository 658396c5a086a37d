//! What verifications are counted as: `GetStats`, `/metrics` and the budget of a tenant agree, and a tenant sees only its
//! own.

use promptkeep::{
    config::{Config, VerifyMode},
    grpc::proto::{CompleteResponse, GetStatsRequest, GetStatsResponse, Outcome, VerificationStats},
};

use super::{ANSWER, PARAPHRASE, RESET, config};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, ask, complete, stats, tenant, with_key},
};

/// A third wording of the question.
const AGAIN: &str = "How could I reset my password?";
/// Usage of each answer, and its cost at $1 and $10 per million tokens.
const ANSWERED: (u64, u64) = (1000, 1000);
const ANSWER_USD: f64 = 0.011;
/// Usage of each verification, and its cost at the same prices.
const VERIFIED: (u64, u64) = (100, 1);
const VERDICT_USD: f64 = 0.000_11;

fn metered(text: &str, (input, output): (u64, u64)) -> Reply {
    Reply::text(text).without("\"usage\"").without("[DONE]").usage(input, output).done()
}

fn verdict(reply: &str) -> Reply {
    metered(reply, VERIFIED)
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

async fn upstreams() -> (FakeUpstream, FakeUpstream) {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(metered(ANSWER, ANSWERED));
    (answers, verifier)
}

/// A configuration that asks before it serves, and makes no other calls than answers and verifications.
fn asking(answers: &FakeUpstream, verifier: &FakeUpstream) -> Config {
    let mut config = config(answers, verifier);
    config.cache.verify.mode = VerifyMode::Before;
    config.cache.audit_rate = 0.0;
    config.cache.verify.audit_rate = 0.0;
    config
}

async fn ask_as(client: &mut Client, tenant: &str, text: &str) -> CompleteResponse {
    client.complete(with_key(tenant, ask(text))).await.unwrap().into_inner()
}

async fn stats_of(client: &mut Client, tenant: &str, namespace: &str) -> GetStatsResponse {
    let request = GetStatsRequest { namespace: namespace.to_owned(), window: None };
    client.get_stats(with_key(tenant, request)).await.unwrap().into_inner()
}

fn verification(stats: &GetStatsResponse) -> &VerificationStats {
    stats.verification.as_ref().expect("verification statistics")
}

#[tokio::test]
async fn stats_and_metrics_count_verifications_alike() {
    let (answers, verifier) = upstreams().await;
    verifier.script([verdict("1"), verdict("0"), verdict("no idea")]);
    let (server, mut client) = TestServer::with_client(config(&answers, &verifier)).await;
    complete(&mut client, RESET).await;
    for (n, text) in [PARAPHRASE, AGAIN, "How might I reset my password?"].into_iter().enumerate() {
        complete(&mut client, text).await;
        server.wait_for_metric("promptkeep_verifications_total", &[], n as f64 + 1.0).await;
    }
    let all = stats(&mut client).await;
    let seen = verification(&all);
    assert_eq!((seen.asked, seen.yes, seen.no, seen.nonsense, seen.skipped), (3, 1, 1, 1, 0));
    assert!(near(seen.cost_usd, 3.0 * VERDICT_USD), "{}", seen.cost_usd);
    assert!(near(seen.share_of_spend, 3.0 * VERDICT_USD / (4.0 * ANSWER_USD)), "{}", seen.share_of_spend);
    for (label, n) in [("yes", seen.yes), ("no", seen.no), ("nonsense", seen.nonsense)] {
        let label = format!("verdict=\"{label}\"");
        assert_eq!(server.metric("promptkeep_verifications_total", &[&label]).await, n as f64, "{label}");
    }
    assert!(near(server.metric("promptkeep_verification_cost_usd_total", &[]).await, seen.cost_usd));
    // Nothing is known of the verifier yet but what is assumed, and that says so.
    assert_eq!(seen.verdicts, 0);
    for (name, rate) in [
        ("promptkeep_verifier_false_yes", seen.false_yes),
        ("promptkeep_verifier_false_yes_high", seen.false_yes_high),
        ("promptkeep_verifier_false_no_low", seen.false_no_low),
    ] {
        assert!(near(server.metric(name, &[]).await, rate), "{name}");
    }
}

#[tokio::test]
async fn a_hit_that_a_verifier_approved_is_counted_with_what_it_saved() {
    let (answers, verifier) = upstreams().await;
    verifier.always(verdict("1"));
    let mut config = asking(&answers, &verifier);
    config.tenants = ["acme", "globex"].map(tenant).to_vec();
    config.tenants[0].budget_usd_per_day = Some(1.0);
    let (server, mut client) = TestServer::with_client(config).await;
    ask_as(&mut client, "acme", RESET).await;
    let hit = ask_as(&mut client, "acme", PARAPHRASE).await;
    assert_eq!((hit.outcome(), hit.r#match.unwrap().approved_by.as_str()), (Outcome::Semantic, "verified"));
    assert!(near(hit.saved_usd, ANSWER_USD), "a reply says what the hit saved");
    let own = stats_of(&mut client, "acme", "default").await;
    let seen = verification(&own);
    assert_eq!((seen.yes, seen.hits), (1, 1));
    assert!(near(seen.saved_usd, ANSWER_USD), "{}", seen.saved_usd);
    assert!(near(own.saved_usd, ANSWER_USD - VERDICT_USD), "net of the verification: {}", own.saved_usd);
    let spent = server.metric("promptkeep_tenant_spent_today_usd", &["tenant=\"acme\""]).await;
    assert!(near(spent, ANSWER_USD + VERDICT_USD), "the budget counts the verification: {spent}");
    assert_eq!(server.metric("promptkeep_verified_hits_total", &[]).await, 1.0);
    assert!(near(server.metric("promptkeep_verified_saved_usd_total", &[]).await, ANSWER_USD));
    for (tenant, namespace) in [("globex", ""), ("globex", "default"), ("acme", "other")] {
        let other = stats_of(&mut client, tenant, namespace).await;
        let seen = verification(&other);
        assert_eq!(
            (seen.asked, seen.hits, seen.cost_usd, seen.verdicts),
            (0, 0, 0.0, 0),
            "{tenant} {namespace}"
        );
    }
}
