//! Each provider fault, before and after the first token.

use promptkeep::{
    config::ModelConfig,
    error::Error,
    model::{AttemptResult, Tier},
    prompt::Delta,
    upstream::UpstreamRequest,
};
use serde_json::json;
use tokio::time::Instant;

use super::{Fixture, SHORT_TIMEOUT, complete, failed_attempts, open, prompt, results};
use crate::common::fake_upstream::{FakeUpstream, Reply, delta};

/// Returns how a first model fails with this reply; expects the second model to answer.
async fn fallback_after(reply: Reply) -> AttemptResult {
    let (bad, good) = (FakeUpstream::start().await, FakeUpstream::start().await);
    bad.always(reply);
    let mut fixture = Fixture::new(&[(Tier::Cold, &bad), (Tier::Warm, &good)]);
    fixture.upstream.first_token_timeout = SHORT_TIMEOUT;
    let (completion, attempts) =
        complete(&fixture.build(), &prompt("Hi")).await.expect("the second model answers");
    assert_eq!((completion.content.as_str(), completion.model.as_str()), ("ok", "model-warm"));
    assert_eq!(attempts.last().map(|attempt| attempt.result), Some(AttemptResult::Ok));
    attempts[0].result
}

#[tokio::test]
async fn faults_before_the_first_token_fall_back_silently() {
    let text = || Reply::text("never seen");
    let error = json!({ "error": { "message": "overloaded", "type": "server_error" } });
    let cases = [
        ("stall before the head", Reply::stall(), AttemptResult::FirstTokenTimeout),
        ("stall after the head", text().stall_after(0), AttemptResult::FirstTokenTimeout),
        ("stall before the first text", text().stall_after(1), AttemptResult::FirstTokenTimeout),
        ("close before the head", Reply::close(), AttemptResult::Broken),
        ("reset before the head", Reply::reset(), AttemptResult::Broken),
        ("close after the head", text().close_after(0), AttemptResult::Broken),
        ("reset after the head", text().reset_after(1), AttemptResult::Broken),
        ("end without an answer", Reply::events([]), AttemptResult::Broken),
        ("429", Reply::status(429), AttemptResult::Http(429)),
        ("500", Reply::status(500), AttemptResult::Http(500)),
        ("502", Reply::status(502), AttemptResult::Http(502)),
        ("503", Reply::status(503), AttemptResult::Http(503)),
        ("redirect", Reply::status(302).header("location", "/elsewhere"), AttemptResult::Http(302)),
        ("invalid JSON", Reply::raw("application/json", "{\"choices\": ["), AttemptResult::Malformed),
        ("other JSON", Reply::json(&json!({ "hello": "world" })), AttemptResult::Malformed),
        ("an error in a success", Reply::json(&error), AttemptResult::Malformed),
        ("an error in a stream", Reply::events([error.clone()]), AttemptResult::Malformed),
        ("an error page", Reply::raw("text/html", "<html>sorry</html>"), AttemptResult::Malformed),
        ("junk in a stream", Reply::stream([b"data: \xff{]\n\n".to_vec()]), AttemptResult::Malformed),
    ];
    for (name, reply, expected) in cases {
        assert_eq!(fallback_after(reply).await, expected, "{name}");
    }
}

/// Returns how a model fails after its first token with this reply; a second model stays unused.
async fn failure_after_first_token(reply: Reply) -> AttemptResult {
    let (bad, good) = (FakeUpstream::start().await, FakeUpstream::start().await);
    bad.script([reply]);
    let mut fixture = Fixture::new(&[(Tier::Cold, &bad), (Tier::Warm, &good)]);
    fixture.upstream.idle_timeout = SHORT_TIMEOUT;
    let mut answer = open(&fixture.build(), &prompt("Hi")).await.expect("the first token is out");
    assert_eq!(answer.next().await.expect("a first token"), Some(Delta::Text("one ".to_owned())));
    let error = answer.next().await.expect_err("the answer broke off");
    assert_eq!(good.calls(), 0, "text of two models is never joined");
    failed_attempts(error)[0].result
}

#[tokio::test]
async fn faults_after_the_first_token_end_the_answer() {
    let text = || Reply::text("one two");
    let error = json!({ "error": { "message": "overloaded" } });
    let cases = [
        ("stall", text().stall_after(2), AttemptResult::IdleTimeout),
        ("close", text().close_after(2), AttemptResult::Broken),
        ("reset", text().reset_after(2), AttemptResult::Broken),
        ("junk", text().replace("two", "\u{1}"), AttemptResult::Malformed),
        ("error", text().replace("two", "two\"}}], \"error\": {\"x\": \""), AttemptResult::Malformed),
    ];
    for (name, reply, expected) in cases {
        assert_eq!(failure_after_first_token(reply).await, expected, "{name}");
    }
    let ended = Reply::events([delta(&json!({ "content": "one " }))]);
    assert_eq!(
        failure_after_first_token(ended.clone()).await,
        AttemptResult::Broken,
        "the stream has no end"
    );
    assert_eq!(failure_after_first_token(ended.event(&error)).await, AttemptResult::Malformed);
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_unchanged() {
    for status in [400, 413, 422] {
        let (bad, good) = (FakeUpstream::start().await, FakeUpstream::start().await);
        bad.script([Reply::status(status)]);
        let upstreams = Fixture::new(&[(Tier::Cold, &bad), (Tier::Warm, &good)]).build();
        let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
        let Error::Refused { status: seen, message, attempts } = error else { panic!("{error:?}") };
        assert_eq!((seen, message), (status, format!("scripted {status}")));
        assert_eq!(results(&attempts), [AttemptResult::Http(status)]);
        assert_eq!((bad.calls(), good.calls()), (1, 0));
    }
}

/// A revoked key, an unpaid bill or a model that one provider dropped failed every request, though another provider
/// offers the model.
#[tokio::test]
async fn a_refusal_of_our_key_account_or_model_is_answered_by_another_provider() {
    for status in [401, 402, 403, 404] {
        let (bad, good) = (FakeUpstream::start().await, FakeUpstream::start().await);
        bad.always(Reply::status(status));
        let mut fixture = Fixture::new(&[(Tier::Cold, &bad)]);
        fixture.add("model-cold", Tier::Cold, &good.base_url());
        // A model that only the failing provider offers.
        fixture.models.push(ModelConfig { id: "other".into(), ..fixture.models[0].clone() });
        let upstreams = fixture.build();
        let (_, attempts) = complete(&upstreams, &prompt("Hi")).await.expect("the second provider answers");
        assert_eq!(results(&attempts), [AttemptResult::Http(status), AttemptResult::Ok]);

        // The next request does not try it first.
        let (_, attempts) = complete(&upstreams, &prompt("Hi again")).await.unwrap();
        assert_eq!(results(&attempts), [AttemptResult::Ok]);
        let providers = upstreams.provider_states();
        let models = upstreams.model_states();
        let quarantined = (providers[0].quarantined, models[0].quarantined);
        let expected = if status == 404 { (None, Some(404)) } else { (Some(status), None) };
        assert_eq!(quarantined, expected);
        assert_eq!(
            (providers[1].quarantined, models[1].quarantined, models[2].quarantined),
            (None, None, None)
        );
    }
}

/// A key that was corrected must not wait for the end of the quarantine.
#[tokio::test]
async fn a_success_ends_the_quarantine() {
    let (bad, good) = (FakeUpstream::start().await, FakeUpstream::start().await);
    bad.script([Reply::status(401)]);
    good.script([Reply::text("from the other"), Reply::status(500)]);
    let upstreams = Fixture::new(&[(Tier::Cold, &bad), (Tier::Warm, &good)]).build();
    complete(&upstreams, &prompt("Hi")).await.expect("the second model answers");
    let (completion, _) = complete(&upstreams, &prompt("Hi again")).await.expect("it is still tried last");
    assert_eq!(completion.model, "model-cold");
    assert_eq!(upstreams.provider_states()[0].quarantined, None);
}

#[tokio::test]
async fn a_provider_message_about_our_key_does_not_reach_the_caller() {
    for status in [401, 402, 403] {
        let bad = FakeUpstream::start().await;
        bad.script([Reply::status(status)]);
        let upstreams = Fixture::new(&[(Tier::Cold, &bad)]).build();
        let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
        let Error::Refused { status: seen, message, .. } = error else { panic!("{error:?}") };
        assert_eq!(seen, status);
        assert!(!message.contains("scripted"), "{message}");
    }
}

#[tokio::test]
async fn the_size_of_an_answer_is_limited() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.upstream.max_answer = 1024 * 1024;
    let upstreams = fixture.build();
    fake.script([Reply::huge(50 * 1024 * 1024)]);
    let mut answer = open(&upstreams, &prompt("Hi")).await.unwrap();
    let error = loop {
        match answer.next().await {
            Ok(delta) => assert!(delta.is_some(), "a huge answer must not end well"),
            Err(error) => break error,
        }
    };
    let attempts = failed_attempts(error);
    assert_eq!(results(&attempts), [AttemptResult::TooLarge]);

    fake.script([Reply::raw("application/json", vec![b' '; 50 * 1024 * 1024])]);
    let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
    let attempts = failed_attempts(error);
    assert_eq!(results(&attempts), [AttemptResult::TooLarge]);
}

#[tokio::test]
async fn a_host_that_does_not_resolve_falls_back() {
    let good = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Warm, &good)]);
    fixture.add("nowhere", Tier::Cold, "http://nowhere.invalid/v1");
    let (completion, attempts) = complete(&fixture.build(), &prompt("Hi")).await.unwrap();
    assert_eq!(completion.model, "model-warm");
    assert_eq!(attempts[0].result, AttemptResult::Connect);
}

#[tokio::test]
async fn when_all_models_fail_the_error_lists_every_attempt() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    fakes[0].always(Reply::status(503));
    fakes[1].always(Reply::reset());
    fakes[2].always(Reply::raw("text/html", "no"));
    let fixture = Fixture::new(&[(Tier::Cold, &fakes[0]), (Tier::Warm, &fakes[1]), (Tier::Hot, &fakes[2])]);
    let error = open(&fixture.build(), &prompt("Hi")).await.unwrap_err();
    let attempts = failed_attempts(error);
    for model in ["model-cold", "model-warm", "model-hot"] {
        assert!(attempts.iter().any(|attempt| attempt.model == model), "{model}");
    }
}

#[tokio::test]
async fn the_deadline_limits_the_chain_and_the_answer() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let prompt = prompt("Hi");

    fake.script([Reply::stall()]);
    let error =
        upstreams.open(UpstreamRequest::new(&prompt, Instant::now() + SHORT_TIMEOUT)).await.unwrap_err();
    let Error::DeadlineExceeded { attempts } = error else { panic!("{error:?}") };
    assert_eq!(results(&attempts), [AttemptResult::Deadline]);

    fake.script([Reply::text("one two").stall_after(2)]);
    let mut answer =
        upstreams.open(UpstreamRequest::new(&prompt, Instant::now() + 3 * SHORT_TIMEOUT)).await.unwrap();
    answer.next().await.unwrap();
    let error = answer.next().await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unknown_model_and_an_empty_catalog_are_distinct_errors() {
    let fake = FakeUpstream::start().await;
    let mut prompt = prompt("Hi");
    prompt.model = "gpt-9".to_owned();
    let error = open(&Fixture::new(&[(Tier::Cold, &fake)]).build(), &prompt).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { field, .. } if field == "prompt.model"));
    let error = open(&Fixture::new(&[]).build(), &prompt).await.unwrap_err();
    assert!(matches!(error, Error::NoUpstream));
}
