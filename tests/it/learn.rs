//! What the cache learns from the answers that are bought anyway, and what it does with it.

use std::time::Duration;

use promptkeep::{
    config::{Config, Mode, StoreKind, TenantConfig},
    grpc::proto::{
        CacheControl, CompleteResponse, Completion, FeedbackRequest, Keep, Outcome, StoreRequest, Verdict,
    },
    tenant::ApiKeyHash,
    tune::{self, Protocol, Row},
};
use tonic::Code;

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{
        Client, TestServer, ask, ask_with, complete, lookup, prompt, semantic_config, stats, text, until,
    },
};

const RESET: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";
/// The same but for the surface: what a namespace serves before it has learned anything.
const SURFACE: &str = "how do i reset my password";
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";

fn bounded_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = semantic_config(upstreams);
    config.cache.mode = Mode::Bounded;
    config
}

async fn bounded(upstream: &FakeUpstream) -> (TestServer, Client) {
    let server = TestServer::start(bounded_config(&[upstream])).await;
    let client = server.client().await;
    (server, client)
}

async fn judge(client: &mut Client, served: &CompleteResponse, verdict: Verdict) -> bool {
    let request_id = served.request_id.clone();
    let request = FeedbackRequest { request_id, verdict: verdict.into(), ..FeedbackRequest::default() };
    client.feedback(request).await.unwrap().into_inner().recorded
}

async fn metric(server: &TestServer, line: &str) -> Option<f64> {
    let (_, page) = server.get("/metrics").await;
    page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

async fn until_metric(server: &TestServer, line: &str, least: f64) {
    until(async || metric(server, line).await.is_some_and(|value| value >= least)).await;
}

const COMPARED: &str = "promptkeep_labels_total{origin=\"miss\",says=\"same\"}";
const CHECKED_SAME: &str = "promptkeep_labels_total{origin=\"audit\",says=\"same\"}";

/// Asks the question and its paraphrase, whose answers are the same, until the latter is served the former's.
async fn ask_until_it_is_another_name(client: &Client) {
    complete(&mut client.clone(), RESET).await;
    assert_eq!(complete(&mut client.clone(), PARAPHRASE).await.reason, "learning");
    until(async || {
        let hit = complete(&mut client.clone(), PARAPHRASE).await;
        hit.r#match.unwrap().matched_text == RESET
    })
    .await;
}

#[tokio::test]
async fn a_new_namespace_serves_surface_variants_only_and_checks_them() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, RESET).await;
    let other = complete(&mut client, "How do I delete my password history?").await;
    assert_eq!((other.outcome(), other.reason.as_str()), (Outcome::Upstream, "learning"));
    let variant = complete(&mut client, SURFACE).await;
    assert_eq!(variant.outcome(), Outcome::Semantic, "{}", variant.reason);
    assert!(variant.r#match.as_ref().unwrap().confidence > 0.5);
    // The first hits are all checked, by a call that nobody waits for.
    until_metric(&server, CHECKED_SAME, 1.0).await;
    assert_eq!(upstream.calls(), 3);
    let measured = stats(&mut client).await.wrong_hits.unwrap();
    assert_eq!((measured.checked, measured.rate), (1, 0.0));
    assert!(measured.high < 1.0);
}

#[tokio::test]
async fn a_paraphrase_whose_answer_was_the_same_becomes_another_name_of_the_entry() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (_server, mut client) = bounded(&upstream).await;
    ask_until_it_is_another_name(&client).await;
    let hit = complete(&mut client, PARAPHRASE).await;
    assert_eq!(hit.outcome(), Outcome::Exact);
    let own = complete(&mut client, RESET).await;
    assert_eq!(hit.r#match.as_ref().unwrap().entry_id, own.r#match.unwrap().entry_id);
    assert_eq!(text(hit), ANSWER);
}

#[tokio::test]
async fn an_answer_that_differs_makes_an_entry_of_its_own() {
    let upstream = FakeUpstream::start().await;
    upstream
        .script([Reply::text(ANSWER), Reply::text("Passwords cannot be changed here, ask your employer.")]);
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, RESET).await;
    let bought = complete(&mut client, PARAPHRASE).await;
    until_metric(&server, "promptkeep_labels_total{origin=\"miss\",says=\"different\"}", 1.0).await;
    let again = complete(&mut client, PARAPHRASE).await;
    assert_eq!(again.r#match.as_ref().unwrap().matched_text, PARAPHRASE);
    assert_eq!(text(again), text(bought));
}

/// Invalidating a paraphrase must not leave the answer behind that it was served.
#[tokio::test]
async fn invalidating_another_name_removes_the_entry_too() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (_server, mut client) = bounded(&upstream).await;
    ask_until_it_is_another_name(&client).await;
    let request =
        promptkeep::grpc::proto::InvalidateRequest { prompt: Some(prompt(PARAPHRASE)), ..Default::default() };
    assert_eq!(client.invalidate(request).await.unwrap().into_inner().entries, 2);
    assert_eq!(lookup(&mut client, RESET).await.outcome(), Outcome::Miss);
    assert_eq!(lookup(&mut client, PARAPHRASE).await.outcome(), Outcome::Miss);
}

#[tokio::test]
async fn a_wrong_hit_is_not_served_again_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.store.kind = StoreKind::Embedded;
    config.store.path = folder.path().to_owned();
    // No check whose answer would be kept under the prompt's own key.
    config.cache.audit_rate = 0.0;
    let server = TestServer::start(config.clone()).await;
    let mut client = server.client().await;
    complete(&mut client, RESET).await;
    let hit = complete(&mut client, SURFACE).await;
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
    assert!(judge(&mut client, &hit, Verdict::WrongHit).await);
    assert!(!judge(&mut client, &hit, Verdict::WrongHit).await, "saying it again changes nothing");
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    assert_eq!(lookup(&mut client, RESET).await.outcome(), Outcome::Exact, "its own question keeps it");
    server.stop().await;
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    until(async || server.server.is_ready()).await;
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    assert_eq!(
        metric(&server, "promptkeep_feedback_total{verdict=\"wrong_hit\"").await,
        None,
        "a new process"
    );
}

#[tokio::test]
async fn a_wrong_hit_on_another_name_takes_the_name_away() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (_server, mut client) = bounded(&upstream).await;
    ask_until_it_is_another_name(&client).await;
    let hit = complete(&mut client, PARAPHRASE).await;
    judge(&mut client, &hit, Verdict::Down).await;
    assert_eq!(lookup(&mut client, PARAPHRASE).await.outcome(), Outcome::Miss);
    assert_eq!(lookup(&mut client, RESET).await.outcome(), Outcome::Exact);
}

/// The name was taken away, but nothing stood against a semantic hit on the same entry.
#[tokio::test]
async fn a_wrong_hit_on_another_name_parts_the_pair_too() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, RESET).await;
    complete(&mut client, SURFACE).await;
    // The first hit is checked, and what the check bought says the same.
    until_metric(&server, CHECKED_SAME, 1.0).await;
    until(async || complete(&mut client.clone(), SURFACE).await.outcome() == Outcome::Exact).await;
    until(async || {
        let hit = complete(&mut client.clone(), SURFACE).await;
        hit.r#match.unwrap().matched_text == RESET
    })
    .await;
    let hit = complete(&mut client, SURFACE).await;
    judge(&mut client, &hit, Verdict::WrongHit).await;
    let found = lookup(&mut client, SURFACE).await;
    assert_eq!(found.outcome(), Outcome::Miss, "{}", found.reason);
}

fn to_store(question: &str, answer: &str) -> StoreRequest {
    let content = answer.to_owned();
    let completion = Completion { content, finish_reason: "stop".to_owned(), ..Completion::default() };
    StoreRequest { prompt: Some(prompt(question)), completion: Some(completion), cache: None }
}

/// An entry whose other name was near it could become another name of itself: its answer was lost, and an
/// empty one served.
#[tokio::test]
async fn an_entry_that_is_stored_again_stays_one() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = bounded(&upstream).await;
    for (question, compared) in [(RESET, 0.0), (PARAPHRASE, 1.0), (RESET, 2.0), (RESET, 2.0)] {
        client.store(to_store(question, ANSWER)).await.unwrap();
        if compared > 0.0 {
            until_metric(&server, COMPARED, compared).await;
        }
    }
    server.server.pipeline().settled().await;
    for question in [RESET, PARAPHRASE] {
        let found = lookup(&mut client, question).await;
        assert_eq!((found.outcome(), found.completion.unwrap().content), (Outcome::Exact, ANSWER.to_owned()));
    }
}

#[tokio::test]
async fn what_a_caller_stores_is_given_back_word_for_word() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = bounded(&upstream).await;
    let corrected = format!("{ANSWER} It is valid for one hour.");
    client.store(to_store(RESET, ANSWER)).await.unwrap();
    client.store(to_store(PARAPHRASE, &corrected)).await.unwrap();
    server.server.pipeline().settled().await;
    assert_eq!(lookup(&mut client, PARAPHRASE).await.completion.unwrap().content, corrected);
}

#[tokio::test]
async fn feedback_that_contradicts_itself_parts_the_pair_and_teaches_nothing_more() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.cache.audit_rate = 0.0;
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    complete(&mut client, RESET).await;
    let hit = complete(&mut client, SURFACE).await;
    judge(&mut client, &hit, Verdict::Up).await;
    judge(&mut client, &hit, Verdict::WrongHit).await;
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    let taught = |says| format!("promptkeep_labels_total{{origin=\"feedback\",says=\"{says}\"}}");
    assert_eq!(metric(&server, &taught("same")).await, Some(1.0));
    assert_eq!(metric(&server, &taught("different")).await, None);
}

#[tokio::test]
async fn a_flood_of_feedback_meets_the_rate_limit() {
    let upstream = FakeUpstream::start().await;
    let mut config = bounded_config(&[&upstream]);
    config.tenants.push(TenantConfig {
        name: "acme".to_owned(),
        api_key_sha256: Some(ApiKeyHash::of("acme-key")),
        rate_limit: Some(2.0),
        ..TenantConfig::default()
    });
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    let mut feedback = async || {
        let request_id = "0".repeat(32);
        let mut request = tonic::Request::new(FeedbackRequest {
            request_id,
            verdict: Verdict::Up.into(),
            ..FeedbackRequest::default()
        });
        request.metadata_mut().insert("authorization", "Bearer acme-key".parse().unwrap());
        client.feedback(request).await.unwrap_err().code()
    };
    assert_eq!([feedback().await, feedback().await], [Code::NotFound; 2]);
    assert_eq!(feedback().await, Code::ResourceExhausted);
}

/// A lookup's caller buys its own answers, so it is asked to buy one to check a hit, and to bring it.
#[tokio::test]
async fn a_lookup_that_is_to_be_checked_is_a_miss_and_the_stored_answer_is_the_check() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = bounded(&upstream).await;
    client.store(to_store(RESET, ANSWER)).await.unwrap();
    let found = lookup(&mut client, SURFACE).await;
    assert_eq!((found.outcome(), found.reason.as_str()), (Outcome::Miss, "audit"));
    client.store(to_store(SURFACE, ANSWER)).await.unwrap();
    until_metric(&server, CHECKED_SAME, 1.0).await;
    assert_eq!(stats(&mut client).await.wrong_hits.unwrap().checked, 1);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn shadow_learns_and_measures_but_serves_exact_repeats_only() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.cache.mode = Mode::Shadow;
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    complete(&mut client, RESET).await;
    let missed = complete(&mut client, SURFACE).await;
    assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Upstream, "disabled"));
    until_metric(&server, CHECKED_SAME, 1.0).await;
    server.server.pipeline().settled().await;
    // It was bought by itself, and that is what its repeat gets.
    let again = complete(&mut client, SURFACE).await;
    assert_eq!(again.r#match.unwrap().matched_text, SURFACE);
}

#[tokio::test]
async fn prompts_bound_to_a_moment_or_a_person_are_kept_for_exact_repeats() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (server, mut client) = bounded(&upstream).await;
    for (reason, question, variant) in [
        ("moment", "What's the weather in Paris today?", "whats the weather in paris today"),
        ("person", "Where is my order 4711?", "where is my order 4711"),
    ] {
        assert_eq!(complete(&mut client, question).await.reason, "not_kept");
        assert_eq!(complete(&mut client, question).await.outcome(), Outcome::Exact);
        let other = complete(&mut client, variant).await;
        assert_eq!((other.outcome(), other.reason.as_str()), (Outcome::Upstream, "not_kept"));
        let counted = format!("promptkeep_bound_prompts_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(&server, &counted).await, Some(2.0));
    }
    assert_eq!(stats(&mut client).await.index_vectors, 0);
    // A caller that knows better says so.
    let all = || CacheControl { keep: Keep::All.into(), ..CacheControl::default() };
    client.complete(ask_with("What is on today's menu?", all())).await.unwrap();
    let hit = client.complete(ask_with("what is on today's menu", all())).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
}

#[tokio::test]
async fn careful_answers_live_shorter() {
    let upstream = FakeUpstream::start().await;
    let mut config = bounded_config(&[&upstream]);
    config.cache.careful_ttl = Duration::from_nanos(1);
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    complete(&mut client, "Who is winning right now?").await;
    assert_eq!(complete(&mut client, "Who is winning right now?").await.outcome(), Outcome::Upstream);
    complete(&mut client, RESET).await;
    assert_eq!(complete(&mut client, RESET).await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn a_temperature_that_asks_for_variety_is_not_answered_twice_alike() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = bounded(&upstream).await;
    let varied = |temperature| {
        let mut request = ask("Write a limerick about caches.");
        request.prompt.as_mut().unwrap().temperature = Some(temperature);
        request
    };
    for (temperature, again) in [(1.5, Outcome::Upstream), (1.0, Outcome::Exact)] {
        client.complete(varied(temperature)).await.unwrap();
        let reply = client.complete(varied(temperature)).await.unwrap().into_inner();
        assert_eq!(reply.outcome(), again, "at {temperature}");
    }
}

const CITIES: [&str; 12] = [
    "Paris", "London", "Berlin", "Madrid", "Vienna", "Prague", "Dublin", "Lisbon", "Athens", "Oslo",
    "Warsaw", "Zagreb",
];
const THINGS: [&str; 8] = ["museum", "hotel", "restaurant", "bakery", "park", "theatre", "market", "school"];
const FORMS: [&str; 4] = [
    "What is the best {thing} in {city}?",
    "Which {thing} in {city} is the best one?",
    "best {thing} in {city} please",
    "Can you tell me the best {thing} of {city}?",
];

/// Questions of which those about one thing in one city have one answer, with one label in thirty wrong.
fn rows(count: usize) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(3);
    let row = |n: usize| {
        let (thing, city) = (THINGS[random.usize(..THINGS.len())], CITIES[random.usize(..CITIES.len())]);
        let text = FORMS[random.usize(..FORMS.len())].replace("{thing}", thing).replace("{city}", city);
        let class = format!("{thing}/{city}");
        let said = if random.u8(..30) == 0 { n.to_string() } else { class.clone() };
        let mut words =
            fastrand::Rng::with_seed(said.bytes().fold(7, |seed, b| seed.wrapping_mul(31) + u64::from(b)));
        let answer: Vec<String> = (0..25).map(|_| format!("word{}", words.u16(..300))).collect();
        serde_json::from_value(serde_json::json!({
            "id": format!("row-{n}"), "text": text, "class": class, "answer": answer.join(" "),
        }))
        .unwrap()
    };
    (0..count).map(row).collect()
}

#[tokio::test]
async fn a_namespace_opens_as_it_learns_and_keeps_its_budgets() {
    let rows = rows(1200);
    let report = tune::run(&rows, Protocol::Online, Config::default()).await.unwrap();
    assert!(report.correct > 600, "{report}");
    assert!(report.wrong <= 12, "{report}");
    assert!(report.extra_calls <= 60, "{report}");
    let mut written = Vec::new();
    report.write_rows(&mut written).unwrap();
    let lines: Vec<serde_json::Value> =
        written.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), rows.len());
    let class = |id: &serde_json::Value| rows.iter().find(|row| row.id == *id).map(|row| &row.class);
    let hits = || lines.iter().filter(|line| line["hit"] == true);
    let right = hits().filter(|line| class(&line["id"]) == class(&line["match"])).count();
    assert_eq!((right, hits().count()), (report.correct, report.correct + report.wrong));
}

#[tokio::test]
async fn a_score_only_run_buys_every_row_and_learns_nothing() {
    let rows = rows(60);
    let report = tune::run(&rows, Protocol::ScoreOnly, Config::default()).await.unwrap();
    assert_eq!((report.correct, report.wrong, report.measured_high), (0, 0, 1.0));
    assert!(report.hindsight.iter().any(|point| point.correct > 0), "{report}");
}

#[tokio::test]
async fn a_paraphrase_of_an_answer_still_being_produced_joins_its_stream() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate)]);
    let (_server, mut client) = bounded(&upstream).await;
    let mut first = Events::open(&mut client, ask(RESET)).await;
    assert_eq!(first.started().await.outcome(), Outcome::Upstream);
    let mut variant = Events::open(&mut client, ask(SURFACE)).await;
    assert_eq!(variant.started().await.outcome(), Outcome::Coalesced);
    // What asks something else is bought beside it.
    assert_eq!(complete(&mut client, "How do I delete my account?").await.outcome(), Outcome::Upstream);
    gate.open();
    let (first, variant) = (first.rest().await, variant.rest().await);
    assert_eq!((first.text.as_str(), variant.text.as_str()), (ANSWER, ANSWER));
    let finished = variant.finished.unwrap();
    assert!(finished.saved_usd > 0.0 && finished.attempts.is_empty());
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_paraphrase_buys_its_own_answer_when_the_one_it_joined_fails() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::status(400).hold(&gate), Reply::text(ANSWER)]);
    let (server, mut client) = bounded(&upstream).await;
    let first = tokio::spawn({
        let mut client = client.clone();
        async move { client.complete(ask(RESET)).await }
    });
    upstream.wait_for_calls(1).await;
    let mut other = client.clone();
    let variant = tokio::spawn(async move { complete(&mut other, SURFACE).await });
    server.wait_for_requests(2).await;
    gate.open();
    assert_eq!(first.await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let variant = variant.await.unwrap();
    assert_eq!((variant.outcome(), text(variant)), (Outcome::Upstream, ANSWER.to_owned()));
    assert_eq!(complete(&mut client, SURFACE).await.outcome(), Outcome::Exact);
}
