//! Tokens and cost: every call is counted once and exactly, however it ended.

use promptkeep::model::{AttemptResult, Tier, Usage};
use serde_json::json;
use tracing::Level;

use super::{Fixture, SeenAttempts, complete, failed_attempts, open, open_seen, prompt, read};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    log::Log,
};

#[tokio::test]
async fn the_cost_of_thousands_of_calls_adds_up() {
    let (cold, warm) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = Fixture::new(&[(Tier::Cold, &cold), (Tier::Warm, &warm)]);
    fixture.models[0].input_usd_per_mtok = 0.27;
    fixture.models[0].output_usd_per_mtok = 1.10;
    fixture.models[1].input_usd_per_mtok = 2.50;
    fixture.models[1].output_usd_per_mtok = 10.00;
    fixture.upstream.breaker_failures = u32::MAX;
    let upstreams = fixture.build();
    let (seen, prompt) = (SeenAttempts::default(), prompt("Hi"));
    let mut random = fastrand::Rng::with_seed(3);
    let (mut tokens_in, mut tokens_out, mut micro_usd, mut answered_usd) = (0, 0, 0.0, 0.0);
    for _ in 0..3000 {
        let (input, output) = (random.u64(1..5000), random.u64(1..2000));
        let reply = Reply::events([]).finish("stop").usage(input, output).done();
        if random.f64() < 0.2 {
            cold.script([Reply::status(500)]);
            warm.script([reply]);
            micro_usd += input as f64 * 2.50 + output as f64 * 10.00;
        } else {
            cold.script([reply]);
            micro_usd += input as f64 * 0.27 + output as f64 * 1.10;
        }
        tokens_in += input;
        tokens_out += output;
        let answer = open_seen(&upstreams, &prompt, &seen).await.unwrap();
        answered_usd += read(answer).await.unwrap().0.usage.cost_usd;
    }
    let seen = seen.attempts();
    let total = |field: fn(&Usage) -> u64| seen.iter().map(|attempt| field(&attempt.usage)).sum::<u64>();
    assert_eq!((total(|u| u.prompt_tokens), total(|u| u.completion_tokens)), (tokens_in, tokens_out));
    let reported_usd: f64 = seen.iter().map(|attempt| attempt.usage.cost_usd).sum();
    for (name, usd) in [("reported", reported_usd), ("answered", answered_usd)] {
        assert!((usd - micro_usd / 1e6).abs() < 1e-6, "{name}: {usd} is not {}", micro_usd / 1e6);
    }
}

/// Cached input was billed at the full price: 0.0070 dollars for a call that cost 0.0050. Spending, budgets and savings
/// were wrong by as much.
#[tokio::test]
async fn cached_input_costs_its_own_price() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    let model = &mut fixture.models[0];
    (model.input_usd_per_mtok, model.output_usd_per_mtok) = (2.5, 10.0);
    model.cached_input_usd_per_mtok = Some(1.25);
    model.cache_write_usd_per_mtok = Some(3.0);
    let upstreams = fixture.build();
    let cases = [
        // OpenAI: 400 plain, 1600 cached.
        (
            json!({ "prompt_tokens": 2000, "completion_tokens": 200, "total_tokens": 2200,
                "prompt_tokens_details": { "cached_tokens": 1600 } }),
            400.0 * 2.5 + 1600.0 * 1.25 + 200.0 * 10.0,
        ),
        // DeepSeek.
        (
            json!({ "prompt_tokens": 2000, "completion_tokens": 200, "total_tokens": 2200,
                "prompt_cache_hit_tokens": 1600, "prompt_cache_miss_tokens": 400 }),
            400.0 * 2.5 + 1600.0 * 1.25 + 200.0 * 10.0,
        ),
        // Anthropic, which counts apart.
        (
            json!({ "prompt_tokens": 100, "completion_tokens": 200, "cache_read_input_tokens": 1600,
                "cache_creation_input_tokens": 300 }),
            100.0 * 2.5 + 1600.0 * 1.25 + 300.0 * 3.0 + 200.0 * 10.0,
        ),
        // Impossible details are cut to what they are part of.
        (
            json!({ "prompt_tokens": 2000, "completion_tokens": 200,
                "prompt_tokens_details": { "cached_tokens": u64::MAX, "cache_write_tokens": -1 } }),
            2000.0 * 1.25 + 200.0 * 10.0,
        ),
    ];
    for (usage, micro_usd) in cases {
        let block = json!({ "object": "chat.completion.chunk", "choices": [], "usage": usage });
        fake.script([Reply::events([]).finish("stop").event(&block).done()]);
        let used = complete(&upstreams, &prompt("Hi")).await.unwrap().0.usage;
        assert!((used.cost_usd - micro_usd / 1e6).abs() < 1e-12, "{used:?} is not {micro_usd} for {usage}");
    }
}

#[tokio::test]
async fn cached_input_without_a_price_of_its_own_costs_as_other_input() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let usage = Usage {
        prompt_tokens: 1_000_000,
        cached_prompt_tokens: 600_000,
        cache_write_tokens: 100_000,
        ..Usage::default()
    };
    assert_eq!(upstreams.price("model-cold", usage).map(|usage| usage.cost_usd), Some(1.0));
}

#[tokio::test]
async fn impossible_usage_is_replaced_by_an_estimate() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let impossible = [(u64::MAX, 3), (10, u64::MAX), (10, 0), (0, 3), (7000, 2000)];
    for (input, output) in impossible {
        fake.script([Reply::text("three whole words")
            .without("\"usage\"")
            .without("[DONE]")
            .usage(input, output)
            .done()]);
        let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert!(completion.usage.estimated, "{input} {output}");
        assert!(completion.usage.cost_usd < 0.001, "{input} {output}");
    }
    fake.script([Reply::text("x").replace("\"prompt_tokens\":10", "\"prompt_tokens\":\"ten\"")]);
    assert!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.usage.estimated);
}

#[tokio::test]
async fn tokens_of_an_interrupted_answer_are_counted() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("one two three four").close_after(4)]);
    let seen = SeenAttempts::default();
    let prompt = prompt("Hi");
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let answer = open_seen(&upstreams, &prompt, &seen).await.unwrap();
    let error = read(answer).await.unwrap_err();
    let attempts = failed_attempts(error);
    assert_eq!(seen.attempts(), attempts);
    let usage = attempts[0].usage;
    assert!(usage.estimated && usage.completion_tokens >= 3 && usage.prompt_tokens > 0, "{usage:?}");
}

#[tokio::test]
async fn an_attempt_without_an_answer_costs_nothing() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    for reply in [Reply::status(500), Reply::status(429), Reply::reset(), Reply::close()] {
        fake.script([reply]);
        let error = open(&upstreams, &prompt("Hi")).await.unwrap_err();
        let attempts = failed_attempts(error);
        assert_eq!(attempts[0].usage, Usage::default(), "{:?}", attempts[0].result);
    }
}

#[tokio::test]
async fn a_price_is_looked_up_by_model() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let usage = Usage { prompt_tokens: 1_000_000, completion_tokens: 500_000, ..Usage::default() };
    assert_eq!(upstreams.price("model-cold", usage).map(|usage| usage.cost_usd), Some(2.0));
    assert_eq!(upstreams.price("nobody", usage), None);
}

#[tokio::test]
async fn every_call_logs_an_event_without_prompt_or_answer() {
    let (cold, warm) = (FakeUpstream::start().await, FakeUpstream::start().await);
    cold.script([Reply::status(503)]);
    warm.script([Reply::text("secret-answer"), Reply::status(400)]);
    let log = Log::capture(Level::TRACE);
    let upstreams = Fixture::new(&[(Tier::Cold, &cold), (Tier::Warm, &warm)]).build();
    complete(&upstreams, &prompt("secret-question")).await.unwrap();
    cold.script([Reply::status(400)]);
    open(&upstreams, &prompt("secret-question")).await.unwrap_err();
    let (text, events) = (log.text(), log.events());
    assert!(!text.contains("secret"), "{text}");
    let named = |name: &str| events.iter().find(|event| event["message"] == name).cloned().unwrap();
    let fallback = named("inference_fallback");
    assert_eq!((&fallback["model"], &fallback["error_kind"]), (&"model-cold".into(), &"http_503".into()));
    assert_eq!((&fallback["tier"], &fallback["attempt"]), (&"cold".into(), &1.into()));
    assert!(fallback["elapsed_ms"].is_f64() && fallback["first_token_ms"].is_null());
    let ok = named("inference_ok");
    assert_eq!((&ok["tier"], &ok["attempt"], &ok["prompt_tokens"]), (&"warm".into(), &2.into(), &10.into()));
    assert!(ok["elapsed_ms"].is_f64() && ok["first_token_ms"].is_f64() && ok["error_kind"].is_null());
    // No field of the event could hold the text of a prompt or an answer.
    let mut fields: Vec<_> = ok.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "attempt",
            "completion_tokens",
            "cost_usd",
            "elapsed_ms",
            "estimated",
            "first_token_ms",
            "message",
            "model",
            "prompt_tokens",
            "provider",
            "reason",
            "tier",
        ]
    );
    assert_eq!(named("inference_failed")["error_kind"], AttemptResult::Http(400).as_str());
}
