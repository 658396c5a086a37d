//! Learning from answers that are produced anyway, and its effect on later requests.

use std::time::Duration;

use promptkeep::{
    config::{Config, Mode, StoreKind, TenantConfig},
    grpc::proto::{CacheControl, CompleteResponse, FeedbackRequest, Keep, Outcome, Verdict},
    offline::tune::{self, Protocol, Row},
};
use tonic::Code;

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{
        Client, TestServer, ask, ask_with, complete, look, lookup, semantic_config, spawn_complete, stats,
        store_request, tenant, text, until, with_key,
    },
};

const RESET: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";
/// Differs from [`RESET`] only on the surface, so a namespace serves it before it has learned anything.
const SURFACE: &str = "how do i reset my password";
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";

fn bounded_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = semantic_config(upstreams);
    config.cache.mode = Mode::Bounded;
    config
}

async fn bounded(upstream: &FakeUpstream) -> (TestServer, Client) {
    TestServer::with_client(bounded_config(&[upstream])).await
}

async fn send_feedback(client: &mut Client, served: &CompleteResponse, verdict: Verdict) -> bool {
    let request_id = served.request_id.clone();
    let request = FeedbackRequest { request_id, verdict: verdict.into(), ..FeedbackRequest::default() };
    client.feedback(request).await.unwrap().into_inner().recorded
}

const LABELS: &str = "promptkeep_labels_total";
/// Labels from the audit of a hit.
const AUDIT_SAME: &[&str] = &["origin=\"audit\"", "says=\"same\""];

#[tokio::test]
async fn a_new_namespace_serves_only_surface_variants_and_audits_them() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, RESET).await;
    let other = complete(&mut client, "How do I delete my password history?").await;
    assert_eq!((other.outcome(), other.reason.as_str()), (Outcome::Upstream, "learning"));
    let variant = complete(&mut client, SURFACE).await;
    assert_eq!(variant.outcome(), Outcome::Semantic, "{}", variant.reason);
    assert!(variant.r#match.as_ref().unwrap().confidence > 0.5);
    // Every early hit is audited, in the background.
    server.wait_for_metric(LABELS, AUDIT_SAME, 1.0).await;
    assert_eq!(upstream.calls(), 3);
    let measured = stats(&mut client).await.wrong_hits.unwrap();
    // One comparison of two answers says next to nothing about the rate.
    assert_eq!((measured.checked, measured.compared, measured.low), (1, 1, 0.0));
    assert!(measured.high > 0.9);
}

#[tokio::test]
async fn a_paraphrase_with_a_different_answer_gets_its_own_entry() {
    let upstream = FakeUpstream::start().await;
    upstream
        .script([Reply::text(ANSWER), Reply::text("Passwords cannot be changed here, ask your employer.")]);
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, RESET).await;
    let completed = complete(&mut client, PARAPHRASE).await;
    server.wait_for_metric(LABELS, &["origin=\"miss\"", "says=\"different\""], 1.0).await;
    let again = complete(&mut client, PARAPHRASE).await;
    assert_eq!(again.r#match.as_ref().unwrap().matched_text, PARAPHRASE);
    assert_eq!(text(again), text(completed));
}

#[tokio::test]
async fn a_wrong_hit_is_not_served_again_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.store.kind = StoreKind::Embedded;
    config.store.path = folder.path().to_owned();
    // An audit would store its answer under the prompt's own key.
    config.cache.audit_rate = 0.0;
    let (server, mut client) = TestServer::with_client(config.clone()).await;
    complete(&mut client, RESET).await;
    let hit = complete(&mut client, SURFACE).await;
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
    assert!(send_feedback(&mut client, &hit, Verdict::WrongHit).await);
    assert!(!send_feedback(&mut client, &hit, Verdict::WrongHit).await, "a repeated report changes nothing");
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    assert_eq!(lookup(&mut client, RESET).await.outcome(), Outcome::Exact, "its own question still hits");
    server.stop().await;
    let (server, mut client) = TestServer::with_client(config).await;
    until(async || server.server.is_ready()).await;
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    let reported = server.metric("promptkeep_feedback_total", &["verdict=\"wrong_hit\""]).await;
    assert_eq!(reported, 0.0, "a new process");
}

/// The answers to both questions share most of their words, so the second became an alias of the first: its repeat was
/// told how to turn two-factor authentication off, with the outcome `exact`.
#[tokio::test]
async fn the_answer_that_was_produced_for_a_prompt_is_kept_for_it() {
    let upstream = FakeUpstream::start().await;
    let steps = |what: &str| {
        format!(
            "Open the settings, choose security, and set two-factor authentication to {what}. Then confirm with a code."
        )
    };
    upstream.script([Reply::text(&steps("off")), Reply::text(&steps("on"))]);
    let (server, mut client) = bounded(&upstream).await;
    complete(&mut client, "Steps to disable two-factor authentication").await;
    let first = complete(&mut client, "How can I turn on two-factor authentication?").await;
    assert_eq!(text(first), steps("on"));
    server.server.pipeline().wait_until_idle().await;
    let second = complete(&mut client, "How can I turn on two-factor authentication?").await;
    assert_eq!((second.outcome(), text(second)), (Outcome::Exact, steps("on")));
}

/// A young namespace served "Is 5 < 3?" with the answer to "Is 5 > 3?": the encoder drops such marks.
#[tokio::test]
async fn texts_that_differ_in_a_mark_do_not_answer_each_other() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = bounded(&upstream).await;
    for (a, b) in [
        ("Is 5 > 3?", "Is 5 < 3?"),
        ("What is 7 + 2?", "What is 7 - 2?"),
        ("What does \u{1f600} mean?", "What does \u{1f622} mean?"),
        ("Is it -5 degrees outside?", "Is it 5 degrees outside?"),
        ("What does grep -v do?", "What does grep -V do?"),
        ("How much is $5 in yen?", "How much is £5 in yen?"),
    ] {
        complete(&mut client, a).await;
        let other = lookup(&mut client, b).await;
        assert_eq!(other.outcome(), Outcome::Miss, "{a} / {b}");
    }
}

#[tokio::test]
async fn a_stored_answer_is_served_word_for_word() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = bounded(&upstream).await;
    let corrected = format!("{ANSWER} It is valid for one hour.");
    client.store(store_request(RESET, ANSWER)).await.unwrap();
    client.store(store_request(PARAPHRASE, &corrected)).await.unwrap();
    server.server.pipeline().wait_until_idle().await;
    assert_eq!(lookup(&mut client, PARAPHRASE).await.completion.unwrap().content, corrected);
}

#[tokio::test]
async fn contradictory_feedback_rejects_the_pair_and_adds_no_label() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.cache.audit_rate = 0.0;
    let (server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, RESET).await;
    let hit = complete(&mut client, SURFACE).await;
    send_feedback(&mut client, &hit, Verdict::Up).await;
    send_feedback(&mut client, &hit, Verdict::WrongHit).await;
    assert_eq!(lookup(&mut client, SURFACE).await.outcome(), Outcome::Miss);
    assert_eq!(server.metric(LABELS, &["origin=\"feedback\"", "says=\"same\""]).await, 1.0);
    assert_eq!(server.metric(LABELS, &["origin=\"feedback\"", "says=\"different\""]).await, 0.0);
}

#[tokio::test]
async fn feedback_is_rate_limited() {
    let upstream = FakeUpstream::start().await;
    let mut config = bounded_config(&[&upstream]);
    config.tenants.push(TenantConfig { rate_limit: Some(2.0), ..tenant("acme") });
    let (_server, mut client) = TestServer::with_client(config).await;
    let mut feedback = async || {
        let request_id = "0".repeat(32);
        let request =
            FeedbackRequest { request_id, verdict: Verdict::Up.into(), ..FeedbackRequest::default() };
        client.feedback(with_key("acme", request)).await.unwrap_err().code()
    };
    assert_eq!([feedback().await, feedback().await], [Code::NotFound; 2]);
    assert_eq!(feedback().await, Code::ResourceExhausted);
}

/// Callers of `Lookup` get answers from models themselves. A hit to be audited is therefore reported as a miss, and the
/// caller stores an answer next. That answer alone does not judge the audit: a caller may store anything.
#[tokio::test]
async fn an_audited_lookup_is_a_miss_and_the_stored_answer_alone_judges_nothing() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = bounded(&upstream).await;
    client.store(store_request(RESET, ANSWER)).await.unwrap();
    let found = lookup(&mut client, SURFACE).await;
    assert_eq!((found.outcome(), found.reason.as_str()), (Outcome::Miss, "audit"));
    client.store(store_request(SURFACE, ANSWER)).await.unwrap();
    server.server.pipeline().wait_until_idle().await;
    let measured = stats(&mut client).await.wrong_hits.unwrap();
    assert_eq!((measured.checked, measured.compared, measured.high), (1, 0, 1.0));
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn shadow_mode_learns_and_measures_but_serves_exact_repeats_only() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.cache.mode = Mode::Shadow;
    let (server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, RESET).await;
    let missed = complete(&mut client, SURFACE).await;
    assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Upstream, "disabled"));
    server.wait_for_metric(LABELS, AUDIT_SAME, 1.0).await;
    server.server.pipeline().wait_until_idle().await;
    // The prompt got an answer of its own, which its repeat is served.
    let again = complete(&mut client, SURFACE).await;
    assert_eq!(again.r#match.unwrap().matched_text, SURFACE);
}

/// `Explain` gave a reason of the learner, such as `below_threshold`, for a candidate that mode `shadow` accepts and only
/// does not serve.
#[tokio::test]
async fn explain_in_shadow_mode_gives_the_reason_of_the_lookup() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let mut config = bounded_config(&[&upstream]);
    config.cache.mode = Mode::Shadow;
    let (_server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, RESET).await;
    let explained = client.explain(look(SURFACE)).await.unwrap().into_inner();
    assert!(explained.candidates[0].accepted, "{explained:?}");
    assert_eq!((explained.outcome(), explained.reason.as_str()), (Outcome::Miss, "disabled"));
    assert_eq!(lookup(&mut client, SURFACE).await.reason, "disabled");
}

#[tokio::test]
async fn answers_about_a_person_or_moment_are_not_served_for_another() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::text(ANSWER));
    let (server, mut client) = bounded(&upstream).await;
    for (reason, question, variant, other) in [
        (
            "moment",
            "What's the weather in Paris today?",
            "whats the weather in paris today",
            "What's the weather in Paris tomorrow?",
        ),
        ("person", "Where is my order 4711?", "where is my order 4711", "Where is my order 4712?"),
    ] {
        assert_eq!(complete(&mut client, question).await.outcome(), Outcome::Upstream);
        assert_eq!(complete(&mut client, question).await.outcome(), Outcome::Exact);
        assert_eq!(complete(&mut client, variant).await.outcome(), Outcome::Semantic);
        let explained = client.explain(look(other)).await.unwrap().into_inner();
        assert!(explained.candidates.is_empty(), "{explained:?}");
        assert_eq!(complete(&mut client, other).await.outcome(), Outcome::Upstream);
        let label = format!("reason=\"{reason}\"");
        assert_eq!(server.metric("promptkeep_bound_prompts_total", &[&label]).await, 3.0);
    }
    // A caller may override the detection.
    let all = || CacheControl { keep: Keep::All.into(), ..CacheControl::default() };
    client.complete(ask_with("What is on today's menu?", all())).await.unwrap();
    let hit = client.complete(ask_with("what is on today's menu", all())).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
}

#[tokio::test]
async fn answers_kept_with_care_expire_sooner() {
    let upstream = FakeUpstream::start().await;
    let mut config = bounded_config(&[&upstream]);
    config.cache.careful_ttl = Duration::from_nanos(1);
    let (_server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, "Who is winning right now?").await;
    assert_eq!(complete(&mut client, "Who is winning right now?").await.outcome(), Outcome::Upstream);
    complete(&mut client, RESET).await;
    assert_eq!(complete(&mut client, RESET).await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn a_high_temperature_is_not_answered_from_the_cache() {
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

/// Random questions. Those about one thing in one city share an answer, except for one row in thirty.
fn rows(count: usize) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(3);
    let row = |n: usize| {
        let (thing, city) = (THINGS[random.usize(..THINGS.len())], CITIES[random.usize(..CITIES.len())]);
        let text = FORMS[random.usize(..FORMS.len())].replace("{thing}", thing).replace("{city}", city);
        let class = format!("{thing}/{city}");
        let answer_class = if random.u8(..30) == 0 { n.to_string() } else { class.clone() };
        let mut words = fastrand::Rng::with_seed(
            answer_class.bytes().fold(7, |seed, b| seed.wrapping_mul(31) + u64::from(b)),
        );
        let answer: Vec<String> = (0..25).map(|_| format!("word{}", words.u16(..300))).collect();
        serde_json::from_value(serde_json::json!({
            "id": format!("row-{n}"), "text": text, "class": class, "answer": answer.join(" "),
        }))
        .unwrap()
    };
    (0..count).map(row).collect()
}

#[tokio::test]
async fn a_namespace_serves_more_as_it_learns_and_stays_within_its_budgets() {
    let rows = rows(1200);
    let report = tune::run(&rows, Protocol::Online, Config::default(), None).await.unwrap();
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

/// The curve with a verifier against the one without, at equal budgets.
#[tokio::test]
async fn a_simulated_verifier_opens_a_young_namespace_within_the_budgets() {
    let rows = rows(300);
    let errors = "0.02,0.05".parse().unwrap();
    let without = tune::run(&rows, Protocol::Online, Config::default(), None).await.unwrap();
    let with = tune::run(&rows, Protocol::Online, Config::default(), Some(errors)).await.unwrap();
    let verified = with.verifier.unwrap();
    assert!(verified.verifications > 20 && verified.correct > 10, "{with}");
    assert!(with.correct >= without.correct + 10, "{with}\n{without}");
    assert!(with.wrong <= 3 + without.wrong, "{with}");
    assert!(with.calls_per_request < without.calls_per_request, "{with}\n{without}");
    assert_eq!(with.last_fifth.requests, 60);
    assert!(without.verifier.is_none() && !without.to_string().contains("verifier"), "{without}");
    let unlabelled = tune::run(&rows, Protocol::ScoreOnly, Config::default(), Some(errors)).await;
    assert!(matches!(unlabelled, Err(tune::TuneError::NoAnswers)));
}

#[tokio::test]
async fn a_score_only_run_serves_nothing_and_learns_nothing() {
    let rows = rows(60);
    let report = tune::run(&rows, Protocol::ScoreOnly, Config::default(), None).await.unwrap();
    assert_eq!((report.correct, report.wrong, report.measured_high), (0, 0, 1.0));
    assert!(report.hindsight.iter().any(|point| point.correct > 0), "{report}");
}

#[tokio::test]
async fn a_paraphrase_of_an_answer_in_flight_joins_its_stream() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate)]);
    let (_server, mut client) = bounded(&upstream).await;
    let mut first = Events::open(&mut client, ask(RESET)).await;
    assert_eq!(first.started().await.outcome(), Outcome::Upstream);
    let mut variant = Events::open(&mut client, ask(SURFACE)).await;
    assert_eq!(variant.started().await.outcome(), Outcome::Coalesced);
    // A different question gets a call of its own.
    assert_eq!(complete(&mut client, "How do I delete my account?").await.outcome(), Outcome::Upstream);
    gate.open();
    let (first, variant) = (first.rest().await, variant.rest().await);
    assert_eq!((first.text.as_str(), variant.text.as_str()), (ANSWER, ANSWER));
    let finished = variant.finished.unwrap();
    assert!(finished.saved_usd > 0.0 && finished.attempts.is_empty());
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_paraphrase_gets_its_own_answer_when_the_one_it_joined_fails() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::status(400).hold(&gate), Reply::text(ANSWER)]);
    let (server, mut client) = bounded(&upstream).await;
    let first = spawn_complete(&client, ask(RESET));
    upstream.wait_for_calls(1).await;
    let variant = spawn_complete(&client, ask(SURFACE));
    server.wait_for_requests(2).await;
    gate.open();
    assert_eq!(first.await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let variant = variant.await.unwrap().unwrap();
    assert_eq!((variant.outcome(), text(variant)), (Outcome::Upstream, ANSWER.to_owned()));
    assert_eq!(complete(&mut client, SURFACE).await.outcome(), Outcome::Exact);
}
