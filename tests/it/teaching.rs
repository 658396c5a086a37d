//! Who may teach a namespace, and how much: the feedback of callers.

use promptkeep::{
    config::{Config, Mode},
    grpc::proto::{
        CompleteRequest, CompleteResponse, FeedbackRequest, LookupRequest, Outcome, Prompt, Verdict,
    },
};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, complete, lookup, prompt, semantic_config, stats, tenant, with_key},
};

const RESET: &str = "How do I reset my password?";
/// Differ from [`RESET`] only on the surface, so a namespace serves them before it has learned anything.
const SURFACE: [&str; 4] = [
    "how do i reset my password",
    "How do I reset my password",
    "how do i reset my password?",
    "How do I reset my password ?",
];
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";

const SAME: &[&str] = &["origin=\"feedback\"", "says=\"same\""];
const DIFFERENT: &[&str] = &["origin=\"feedback\"", "says=\"different\""];
const OVER_QUOTA: &[&str] = &["reason=\"feedback_quota\""];

/// Learns, and audits nothing: an audit would store its answer under the prompt's own key.
fn unaudited(upstream: &FakeUpstream) -> Config {
    upstream.always(Reply::text(ANSWER));
    let mut config = semantic_config(&[upstream]);
    config.cache.mode = Mode::Bounded;
    config.cache.audit_rate = 0.0;
    config
}

/// Labels from feedback: "same", "different", and the verdicts that were not learned from.
async fn learned(server: &TestServer) -> [f64; 3] {
    let labels = "promptkeep_labels_total";
    [
        server.metric(labels, SAME).await,
        server.metric(labels, DIFFERENT).await,
        server.metric("promptkeep_labels_dropped_total", OVER_QUOTA).await,
    ]
}

fn feedback(served: &CompleteResponse, verdict: Verdict) -> FeedbackRequest {
    let request_id = served.request_id.clone();
    FeedbackRequest { request_id, verdict: verdict.into(), ..FeedbackRequest::default() }
}

async fn send(client: &mut Client, served: &CompleteResponse, verdict: Verdict) {
    assert!(client.feedback(feedback(served, verdict)).await.unwrap().into_inner().recorded);
}

/// A semantic hit in the namespace `public`, as a tenant.
async fn public_hit(client: &mut Client, tenant: &str, text: &str) -> CompleteResponse {
    let hit = client.complete(with_key(tenant, ask_public(text))).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Semantic, "{text}: {}", hit.reason);
    hit
}

fn ask_public(text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(public(text)), cache: None }
}

fn public(text: &str) -> Prompt {
    Prompt { namespace: "public".to_owned(), ..prompt(text) }
}

/// One caller that rated every answer decided alone what a namespace served: each verdict counts as much as eight
/// comparisons, and their number had no limit.
#[tokio::test]
async fn a_tenant_teaches_a_namespace_a_limited_number_of_verdicts() {
    let upstream = FakeUpstream::start().await;
    let mut config = unaudited(&upstream);
    config.cache.learning.feedback_per_hour = 2;
    config.tenants = ["acme", "globex"].map(tenant).to_vec();
    for tenant in &mut config.tenants {
        tenant.shared_namespaces = vec!["public".to_owned()];
    }
    let (server, mut client) = TestServer::with_client(config).await;
    client.complete(with_key("acme", ask_public(RESET))).await.unwrap();
    let mut rate = async |tenant: &str, text: &str, verdict| {
        let hit = public_hit(&mut client, tenant, text).await;
        client.feedback(with_key(tenant, feedback(&hit, verdict))).await.unwrap().into_inner().recorded
    };
    for (text, expected) in SURFACE[..3].iter().zip([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 1.0]]) {
        assert!(rate("acme", text, Verdict::Up).await);
        assert_eq!(learned(&server).await, expected, "{text}");
    }
    // A report above the quota still takes the pair out of service.
    assert!(rate("acme", SURFACE[3], Verdict::WrongHit).await);
    assert_eq!(learned(&server).await, [2.0, 0.0, 2.0]);
    // The other tenant's quota is its own.
    assert!(rate("globex", SURFACE[0], Verdict::Up).await);
    assert_eq!(learned(&server).await, [3.0, 0.0, 2.0]);
    assert_eq!(server.metric("promptkeep_feedback_total", &[]).await, 5.0, "all of it is counted");
    for tenant in ["acme", "globex"] {
        let look = LookupRequest { prompt: Some(public(SURFACE[3])), cache: None };
        let found = client.lookup(with_key(tenant, look)).await.unwrap().into_inner();
        assert_eq!(found.outcome(), Outcome::Miss, "{}", found.reason);
    }
}

/// Thumbs down on a semantic hit took the pair out of service and taught the namespace that its prompts differ, although
/// the answer may be as bad for the question that it was given to first.
#[tokio::test]
async fn thumbs_down_are_counted_and_say_nothing_about_the_pair() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(unaudited(&upstream)).await;
    complete(&mut client, RESET).await;
    let hit = complete(&mut client, SURFACE[0]).await;
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
    send(&mut client, &hit, Verdict::Down).await;
    assert_eq!(learned(&server).await, [0.0; 3]);
    assert_eq!(lookup(&mut client, SURFACE[0]).await.outcome(), Outcome::Semantic);
    // A report of a wrong hit does both.
    send(&mut client, &hit, Verdict::WrongHit).await;
    assert_eq!(learned(&server).await, [0.0, 1.0, 0.0]);
    assert_eq!(lookup(&mut client, SURFACE[0]).await.outcome(), Outcome::Miss);
    let given = stats(&mut client).await.feedback;
    assert_eq!((given["down"], given["wrong_hit"]), (1, 1));
}

#[tokio::test]
async fn thumbs_on_an_exact_hit_teach_nothing() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(unaudited(&upstream)).await;
    for verdict in [Verdict::Up, Verdict::Down] {
        complete(&mut client, RESET).await;
        let hit = complete(&mut client, RESET).await;
        assert_eq!(hit.outcome(), Outcome::Exact);
        send(&mut client, &hit, verdict).await;
    }
    assert_eq!(learned(&server).await, [0.0; 3]);
    assert_eq!(lookup(&mut client, RESET).await.outcome(), Outcome::Exact);
}
