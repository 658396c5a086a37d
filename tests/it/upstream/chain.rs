//! Which model is tried next: retries, breakers, regions, provider health and context windows.

use std::time::Duration;

use promptkeep::{
    error::Error,
    model::{
        AttemptReason,
        AttemptResult::{BreakerOpen, Cancelled, Http, Ok as Good, OverWindow},
        BreakerState, Tier,
    },
    upstream::{UpstreamRequest, Upstreams},
};
use tokio::time::Instant;

use super::{
    Fixture, SHORT_TIMEOUT, SeenAttempts, complete, failed_attempts, message, open, open_seen, prompt,
    results,
};
use crate::common::fake_upstream::{FakeUpstream, Gate, Reply};

/// A catalog that retries twice, almost without delay.
fn retrying(fakes: &[(Tier, &FakeUpstream)]) -> Fixture {
    let mut fixture = Fixture::new(fakes);
    fixture.upstream.retries = 2;
    fixture.upstream.retry_backoff = Duration::from_millis(1);
    fixture.upstream.retry_budget = 1.0;
    fixture
}

#[tokio::test]
async fn a_transient_failure_is_retried_at_the_same_model() {
    for status in [408, 429, 500, 502, 503] {
        let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
        first.script([Reply::status(status)]);
        let upstreams = retrying(&[(Tier::Cold, &first), (Tier::Warm, &second)]).build();
        let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert_eq!(completion.model, "model-cold");
        assert_eq!(results(&attempts), [Http(status), Good]);
        assert_eq!(attempts[1].reason, AttemptReason::Retry);
        assert_eq!(second.calls(), 0);
    }
}

#[tokio::test]
async fn the_next_model_is_tried_when_retries_are_used_up() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    first.always(Reply::status(500));
    let upstreams = retrying(&[(Tier::Cold, &first), (Tier::Warm, &second)]).build();
    let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!(completion.model, "model-warm");
    assert_eq!(results(&attempts), [Http(500), Http(500), Http(500), Good]);
    assert_eq!(attempts[3].reason, AttemptReason::Fallback);
}

#[tokio::test]
async fn a_retry_waits_for_retry_after() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::status(429).retry_after("0.15")]);
    let (_, attempts) = complete(&retrying(&[(Tier::Cold, &fake)]).build(), &prompt("Hi")).await.unwrap();
    assert_eq!(results(&attempts), [Http(429), Good]);
    let arrivals: Vec<Instant> = fake.requests().iter().map(|request| request.at).collect();
    assert!(arrivals[1] - arrivals[0] >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
    let fake = FakeUpstream::start().await;
    let upstreams = retrying(&[(Tier::Cold, &fake)]).build();
    for seconds in ["3600", "1e18"] {
        fake.script([Reply::status(429).retry_after(seconds)]);
        let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
        let attempts = failed_attempts(error);
        assert_eq!(results(&attempts), [Http(429)]);
    }
}

#[tokio::test]
async fn a_long_retry_after_falls_back_to_the_next_model() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    first.script([Reply::status(503).retry_after("10")]);
    let upstreams = retrying(&[(Tier::Cold, &first), (Tier::Warm, &second)]).build();
    let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.model.as_str(), attempts.len()), ("model-warm", 2));
}

#[tokio::test]
async fn an_invalid_retry_after_is_ignored() {
    let fake = FakeUpstream::start().await;
    let upstreams = retrying(&[(Tier::Cold, &fake)]).build();
    for junk in ["soon", "-1", "NaN", "1e400", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
        fake.script([Reply::status(429).retry_after(junk)]);
        let (_, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert_eq!(results(&attempts), [Http(429), Good], "{junk:?}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let fake = FakeUpstream::start().await;
    fake.always(Reply::status(503));
    let mut fixture = retrying(&[(Tier::Cold, &fake)]);
    fixture.upstream.retry_budget = 0.1;
    fixture.upstream.breaker_failures = u32::MAX;
    let upstreams = fixture.build();
    for _ in 0..100 {
        open(&upstreams, &prompt("Hi")).await.unwrap_err();
    }
    // A tenth of the requests, plus the one retry that the budget starts with.
    assert!((109..=111).contains(&fake.calls()), "{}", fake.calls());
}

#[tokio::test]
async fn an_open_breaker_skips_a_model_until_a_probe_succeeds() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    first.script([Reply::status(500), Reply::status(500), Reply::reset()]);
    let mut fixture = Fixture::new(&[(Tier::Cold, &first), (Tier::Warm, &second)]);
    fixture.upstream.breaker_failures = 3;
    fixture.upstream.breaker_cooldown = Duration::from_secs(3600);
    let upstreams = fixture.build();
    for _ in 0..3 {
        complete(&upstreams, &prompt("Hi")).await.unwrap();
    }
    assert_eq!(breakers(&upstreams), [BreakerState::Open, BreakerState::Closed]);
    let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.model.as_str(), results(&attempts)), ("model-warm", vec![BreakerOpen, Good]));
    assert_eq!(first.calls(), 3, "no call while the breaker is open");

    // With a short cooldown the next call is the probe, and it succeeds.
    fixture.upstream.breaker_cooldown = Duration::from_nanos(1);
    let upstreams = fixture.build();
    first.script([Reply::status(500), Reply::status(500), Reply::status(500)]);
    for _ in 0..3 {
        complete(&upstreams, &prompt("Hi")).await.unwrap();
    }
    assert_eq!(breakers(&upstreams)[0], BreakerState::HalfOpen);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-cold");
    assert_eq!(breakers(&upstreams)[0], BreakerState::Closed);
}

fn breakers(upstreams: &Upstreams) -> Vec<BreakerState> {
    upstreams.model_states().iter().map(|state| state.breaker).collect()
}

#[tokio::test]
async fn when_every_breaker_is_open_the_error_says_so() {
    let fake = FakeUpstream::start().await;
    fake.always(Reply::status(500));
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.upstream.breaker_failures = 1;
    let upstreams = fixture.build();
    open(&upstreams, &prompt("Hi")).await.unwrap_err();
    let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
    let attempts = failed_attempts(error);
    assert_eq!(results(&attempts), [BreakerOpen]);
}

#[tokio::test]
async fn a_breaker_ignores_failures_that_are_not_the_models_fault() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.upstream.breaker_failures = 1;
    let upstreams = fixture.build();
    for status in [400, 401, 429] {
        fake.script([Reply::status(status)]);
        open(&upstreams, &prompt("Hi")).await.unwrap_err();
    }
    fake.script([Reply::stall()]);
    let deadline = Instant::now() + SHORT_TIMEOUT;
    upstreams.open(UpstreamRequest::new(&prompt("Hi"), deadline)).await.unwrap_err();
    assert_eq!(breakers(&upstreams), [BreakerState::Closed]);
}

#[tokio::test]
async fn a_provider_in_this_region_is_tried_before_one_elsewhere() {
    let (far, near) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = retrying(&[]);
    fixture.add("shared", Tier::Cold, &far.base_url()).add("shared", Tier::Cold, &near.base_url());
    fixture.providers[0].region = "elsewhere".to_owned();
    fixture.models[1].served_as = Some("vendor/shared".to_owned());
    let upstreams = fixture.build();
    near.script([Reply::text("near"), Reply::status(500)]);
    far.script([Reply::text("far")]);
    let mut prompt = prompt("Hi");
    prompt.model = "shared".to_owned();
    assert_eq!(complete(&upstreams, &prompt).await.unwrap().0.content, "near");
    assert_eq!(near.requests()[0].body["model"], "vendor/shared");
    let (completion, attempts) = complete(&upstreams, &prompt).await.unwrap();
    assert_eq!((completion.content.as_str(), completion.model.as_str()), ("far", "shared"));
    assert_eq!(results(&attempts), [Http(500), Good], "no retry while another provider serves the model");
    assert_eq!(far.requests()[0].body["model"], "shared");
}

#[tokio::test]
async fn an_unhealthy_provider_is_tried_last_until_it_recovers() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = Fixture::new(&[(Tier::Cold, &first), (Tier::Warm, &second)]);
    fixture.upstream.health_interval = Duration::from_millis(10);
    let upstreams = fixture.build();
    let watcher = upstreams.clone();
    let watching = tokio::spawn(async move { watcher.watch_health().await });

    first.health(503);
    // A round of health checks starts only after the results of the previous round are applied.
    first.wait_for_probes(4).await;
    assert_eq!(are_up(&upstreams), [false, true]);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-warm");
    assert_eq!(first.calls(), 0, "no request reached it");
    second.script([Reply::status(500)]);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-cold", "the last resort");

    first.health(404);
    first.wait_for_probes(3).await;
    assert_eq!(are_up(&upstreams), [true, true]);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-cold");
    watching.abort();
}

fn are_up(upstreams: &Upstreams) -> Vec<bool> {
    upstreams.provider_states().iter().map(|state| state.is_up).collect()
}

#[tokio::test]
async fn a_model_with_too_small_a_context_window_is_skipped() {
    let (small, large) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = Fixture::new(&[(Tier::Cold, &small), (Tier::Warm, &large)]);
    fixture.models[0].context_window = 100;
    let upstreams = fixture.build();
    let mut long = prompt(&"word ".repeat(200));
    long.model = "cold".to_owned();
    let (completion, attempts) = complete(&upstreams, &long).await.unwrap();
    assert_eq!((completion.model.as_str(), results(&attempts)), ("model-warm", vec![OverWindow, Good]));
    let mut wordy = prompt("Hi");
    wordy.max_tokens = Some(500);
    assert_eq!(complete(&upstreams, &wordy).await.unwrap().0.model, "model-warm");
    wordy.max_tokens = Some(50_000);
    let error = open(&upstreams, &wordy).await.unwrap_err();
    assert!(
        matches!(&error, Error::InvalidArgument { field, .. } if field == "prompt.messages"),
        "{error:?}"
    );
    assert_eq!(small.calls(), 0);
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_first_token_cancels_the_call() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::stall()]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let seen = SeenAttempts::default();
    let in_call = seen.clone();
    let caller = tokio::spawn(async move {
        let prompt = prompt("Hi");
        drop(open_seen(&upstreams, &prompt, &in_call).await);
    });
    fake.wait_for_calls(1).await;
    caller.abort();
    fake.wait_for_disconnects(1).await;
    assert!(caller.await.is_err());
    assert_eq!(results(&seen.attempts()), [Cancelled]);
}

#[tokio::test]
async fn a_reload_keeps_breaker_states_and_adds_new_models() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    first.script([Reply::status(500)]);
    let mut fixture = Fixture::new(&[(Tier::Cold, &first)]);
    fixture.upstream.breaker_failures = 1;
    let upstreams = fixture.build();
    open(&upstreams, &prompt("Hi")).await.unwrap_err();
    fixture.add("model-new", Tier::Warm, &second.base_url());
    upstreams.reload(fixture.settings()).unwrap();
    assert_eq!(breakers(&upstreams), [BreakerState::Open, BreakerState::Closed]);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-new");

    fixture.models[1].provider = "nobody".to_owned();
    fixture.providers[0].base_url = "ftp://example.com".to_owned();
    let error = upstreams.reload(fixture.settings()).unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
    assert_eq!(upstreams.models().len(), 2, "a bad file changes nothing");
}

#[tokio::test]
async fn a_reload_does_not_disturb_an_answer_in_flight() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::new();
    fake.script([Reply::text("one two").hold_before(2, &gate)]);
    let fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    let upstreams = fixture.build();
    let answer = open(&upstreams, &prompt("Hi")).await.unwrap();
    upstreams.reload(Fixture::new(&[]).settings()).unwrap();
    gate.open();
    assert_eq!(super::read(answer).await.unwrap().0.content, "one two");
    assert!(upstreams.is_empty());
}

#[test]
fn all_problems_of_a_catalog_are_reported_at_once() {
    let mut fixture = Fixture::new(&[]);
    fixture.add("a", Tier::Cold, "not a url").add("b", Tier::Hot, "https://example.com/v1");
    fixture.providers[1].api_key_env = "PROMPTKEEP_TEST_NO_SUCH_KEY".to_owned();
    fixture.routing.classifier = "nobody".to_owned();
    let error = Upstreams::new(fixture.settings()).unwrap_err();
    let report = error.to_string();
    for part in
        ["provider-0", "PROMPTKEEP_TEST_NO_SUCH_KEY is not set", "model a", "model b", "routing.classifier"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[tokio::test]
async fn system_messages_count_towards_the_context_window() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.models[0].context_window = 100;
    let mut prompt = prompt("Hi");
    prompt.messages.insert(0, message(promptkeep::prompt::Role::System, &"word ".repeat(200)));
    assert!(matches!(open(&fixture.build(), &prompt).await, Err(Error::InvalidArgument { .. })));
}
