//! Reports of scripted exchanges.

use serde_json::json;

use super::*;
use crate::{
    decide::learner::WrongHits,
    demo::{grading::Pair, learning_curve::block_starts, verifications::Verifications},
    grpc::proto::{Match, Usage},
    offline::simulated_verifier::VerdictCounts,
};

/// Builds requests from (class, text). The right answer of class `a` is "about a".
fn traffic(requests: &[(&str, &str)]) -> Traffic {
    let request = |(class, text): &(&str, &str)| {
        json!({"namespace": "app", "system": "", "model": "auto", "text": text, "class": class}).to_string()
    };
    let answer = |class: &str| json!({"class": class, "answer": format!("about {class}")}).to_string();
    let requests: Vec<_> = requests.iter().map(request).collect();
    Traffic::parse(&requests.join("\n"), &["a", "b", "c"].map(answer).join("\n")).unwrap()
}

/// A model call that starts at second `index` and takes half a second.
fn miss(index: usize, class: &str) -> Exchange {
    Exchange {
        index,
        outcome: Outcome::Upstream,
        reason: "below_threshold".to_owned(),
        started: Duration::from_secs(index as u64),
        latency: Duration::from_millis(500),
        first_token: Some(Duration::from_millis(200)),
        matched: None,
        content: format!("about {class}"),
        usage: Usage { prompt_tokens: 1000, completion_tokens: 100, cost_usd: 0.001, ..Usage::default() },
        saved_usd: 0.0,
    }
}

fn hit(index: usize, outcome: Outcome, class: &str, text: &str) -> Exchange {
    Exchange {
        outcome,
        reason: String::new(),
        latency: Duration::from_millis(2),
        first_token: None,
        matched: Some(matched(text, 0.95)),
        saved_usd: 0.001,
        ..miss(index, class)
    }
}

fn matched(text: &str, similarity: f32) -> Match {
    Match { matched_text: text.to_owned(), similarity, ..Match::default() }
}

fn refused(index: usize, class: &str, reason: &str, near: &str, similarity: f32) -> Exchange {
    Exchange { reason: reason.to_owned(), matched: Some(matched(near, similarity)), ..miss(index, class) }
}

fn report(traffic: &Traffic, exchanges: &[Exchange]) -> Report {
    let run = Run { exchanges: exchanges.to_vec(), ..Run::default() };
    Report::new(traffic, &run, Duration::from_secs(60))
}

#[test]
fn a_report_counts_outcomes_reasons_and_money() {
    let traffic = traffic(&[("a", "A?"), ("a", "A?"), ("a", "About A?"), ("b", "B?")]);
    let exchanges = [
        miss(0, "a"),
        hit(1, Outcome::Exact, "a", "A?"),
        hit(2, Outcome::Semantic, "a", "A?"),
        refused(3, "b", "guard_numbers", "A?", 0.9),
    ];
    let report = report(&traffic, &exchanges);
    let lines: Vec<_> = report.outcomes.iter().map(|line| (line.outcome, line.requests)).collect();
    assert_eq!(lines, [("exact", 1), ("semantic", 1), ("upstream", 2)]);
    assert!((report.hit_ratio - 0.5).abs() < 1e-9);
    let reason = |name: &str| Count { name: name.to_owned(), count: 1 };
    assert_eq!(report.misses, [reason("below_threshold"), reason("guard_numbers")]);
    assert!((report.money.spent_usd - 0.002).abs() < 1e-9);
    assert!((report.money.saved_usd - 0.002).abs() < 1e-9);
    // Four requests of 1000 tokens at 2.50 and 100 at 10.00 per million.
    assert!((report.money.hot_only_usd - 4.0 * 0.0035).abs() < 1e-9);
    assert_eq!(report.money.hot_model, "gpt-4o");
    assert_eq!(report.truth.answered_rightly, 4);
}

#[test]
fn hits_that_the_verifier_approved_are_counted_by_themselves() {
    let traffic = traffic(&[("a", "A?"), ("a", "About A?"), ("b", "B?"), ("a", "a?")]);
    let approved = |index: usize, by: &str| {
        let mut exchange = hit(index, Outcome::Semantic, "a", "A?");
        exchange.matched.as_mut().unwrap().approved_by = by.to_owned();
        exchange
    };
    let exchanges = [miss(0, "a"), approved(1, "verified"), approved(2, "verified"), approved(3, "surface")];
    let run = Run {
        exchanges: exchanges.to_vec(),
        verifications: Verifications {
            verdicts: [("no".to_owned(), 3), ("yes".to_owned(), 2), ("timeout".to_owned(), 0)].into(),
            cost_usd: 0.0002,
        },
        verdicts: VerdictCounts { different: 100, false_yes: 1, same: 50, false_no: 2 },
        ..Run::default()
    };
    let report = Report::new(&traffic, &run, Duration::from_secs(60));
    let verifier = &report.verifier;
    assert_eq!((verifier.verified_hits(), verifier.semantic_hits(), verifier.wrong_hits), (2, 3, 1));
    assert!((verifier.saved_usd - 0.002).abs() < 1e-9);
    // One call and three hits would have cost 0.001 each.
    assert!((verifier.share_of_spend - 0.05).abs() < 1e-9);
    assert!((report.money.verifications_usd - 0.0002).abs() < 1e-9);
    let text = report.to_string();
    for expected in
        ["verifications: no 3, yes 2\n", "2.0 %", "1.0 % (0.2 to 5.4)", "surface 1", "1 are wrong"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn each_outcome_has_percentiles_and_streams_have_those_of_the_first_token() {
    let traffic = traffic(&[("a", "A?"), ("a", "A?")]);
    let report = report(&traffic, &[miss(0, "a"), hit(1, Outcome::Exact, "a", "A?")]);
    let [exact, upstream] = &report.outcomes[..] else { panic!("two outcomes") };
    assert!((exact.latency.p50_ms - 2.0).abs() < 0.01);
    assert_eq!(exact.first_token, None);
    assert!((upstream.latency.p99_ms - 500.0).abs() < 1.0);
    assert!((upstream.first_token.unwrap().p50_ms - 200.0).abs() < 1.0);
}

#[test]
fn a_hit_with_the_answer_to_another_question_is_wrong() {
    let traffic = traffic(&[("a", "A?"), ("b", "B?")]);
    let report = report(&traffic, &[miss(0, "a"), hit(1, Outcome::Semantic, "a", "A?")]);
    assert_eq!(report.truth.wrong_hits.len(), 1);
    assert_eq!(
        (report.truth.wrong_hits[0].asked.as_str(), report.truth.wrong_hits[0].earlier.as_str()),
        ("B?", "A?")
    );
    assert!(report.truth.paraphrases_hit.is_empty());
    assert!(report.to_string().contains("Wrong hits"));
}

#[test]
fn a_refused_candidate_is_a_near_miss_if_it_is_similar_and_has_another_answer() {
    let traffic = traffic(&[("a", "A?"), ("b", "B?"), ("c", "C?"), ("a", "About A?"), ("b", "About B?")]);
    let exchanges = [
        miss(0, "a"),
        refused(1, "b", "guard_antonyms", "A?", 0.99),
        refused(2, "c", "below_threshold", "A?", 0.3),
        refused(3, "a", "guard_entities", "A?", 0.97),
        refused(4, "b", "below_threshold", "A?", 0.85),
    ];
    let truth = report(&traffic, &exchanges).truth;
    let asked = |pairs: &[Pair]| pairs.iter().map(|pair| pair.asked.clone()).collect::<Vec<_>>();
    assert_eq!(asked(&truth.near_misses_refused), ["B?", "About B?"]);
    assert_eq!(asked(&truth.paraphrases_missed), ["About A?", "About B?"]);
    assert_eq!(truth.paraphrases_missed[0].similarity, Some(0.97));
    assert_eq!(truth.paraphrases_missed[1].similarity, None);
}

#[test]
fn a_request_still_in_flight_is_no_missed_paraphrase() {
    let traffic = traffic(&[("a", "A?"), ("a", "About A?")]);
    let soon = Exchange { started: Duration::from_millis(100), ..miss(1, "a") };
    assert!(report(&traffic, &[miss(0, "a"), soon]).truth.paraphrases_missed.is_empty());
}

#[test]
fn equal_words_in_another_conversation_are_reported() {
    let line = |class: &str, history: &str| {
        json!({"namespace": "app", "system": "", "model": "auto", "history": [history, "Like so."],
            "text": "And on my phone?", "class": class})
        .to_string()
    };
    let answers = [json!({"class": "a", "answer": "about a"}), json!({"class": "b", "answer": "about b"})];
    let requests = [line("a", "How do I save?"), line("b", "How do I print?")].join("\n");
    let traffic = Traffic::parse(&requests, &answers.map(|a| a.to_string()).join("\n")).unwrap();
    let second = Exchange { reason: "scope_empty".to_owned(), ..miss(1, "b") };
    let truth = report(&traffic, &[miss(0, "a"), second]).truth;
    assert_eq!(truth.same_words_refused.len(), 1);
    assert_eq!(truth.same_words_refused[0].reason, "scope_empty");
    assert!(truth.near_misses_refused.is_empty() && truth.paraphrases_missed.is_empty());
}

#[test]
fn failures_are_counted_by_code_and_cost_nothing() {
    let traffic = traffic(&[("a", "A?")]);
    let failed = Exchange {
        outcome: Outcome::Error,
        reason: "Unavailable".to_owned(),
        content: String::new(),
        usage: Usage::default(),
        ..miss(0, "a")
    };
    let report = report(&traffic, &[failed]);
    assert_eq!(report.failures, [Count { name: "Unavailable".to_owned(), count: 1 }]);
    assert!(report.misses.is_empty() && report.money.spent_usd == 0.0);
    assert_eq!(report.truth.answered_rightly, 0);
    assert!(report.to_string().contains("failed with: Unavailable 1"));
}

#[test]
fn text_fits_a_hundred_columns_and_json_keeps_every_pair() {
    let long = "why ".repeat(60);
    let texts: Vec<_> = (0..20).map(|i| format!("{i} {long}")).collect();
    let requests: Vec<_> =
        texts.iter().enumerate().map(|(i, text)| (["a", "b"][i % 2], text.as_str())).collect();
    let traffic = traffic(&requests);
    let reason = "guard_of_a_very_long_name";
    let exchanges: Vec<_> =
        (0..20).map(|i| refused(i, ["a", "b"][i % 2], &format!("{reason}_{i}"), "other", 0.9)).collect();
    let report = report(&traffic, &exchanges);
    let text = report.to_string();
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("(4 of 20)"), "{text}");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["truth"]["near_misses_refused"].as_array().unwrap().len(), 20);
}

#[test]
fn the_learning_curve_has_one_line_per_block() {
    let line = |i: usize| {
        let class = ["a", "b"][i % 2];
        json!({"namespace": "concierge", "system": "", "model": "cold", "text": format!("{class} {i}?"), "class": class})
            .to_string()
    };
    let answer = |class: &str| json!({"class": class, "answer": format!("about {class}")}).to_string();
    let requests: Vec<_> = (0..120).map(line).collect();
    let traffic = Traffic::parse(&requests.join("\n"), &["a", "b"].map(answer).join("\n")).unwrap();
    assert_eq!(block_starts(&traffic), [100]);
    let mut exchanges: Vec<_> = (0..100).map(|i| miss(i, ["a", "b"][i % 2])).collect();
    exchanges.extend((100..119).map(|i| hit(i, Outcome::Semantic, ["a", "b"][i % 2], "a 0?")));
    exchanges.push(hit(119, Outcome::Semantic, "a", "a 0?"));
    let measured =
        |checks| Some(WrongHits { rate: 0.05, low: 0.01, high: 0.2, checks, ..WrongHits::UNKNOWN });
    let run = Run { exchanges, wrong_hits: vec![measured(3), measured(10)], ..Run::default() };
    let report = Report::new(&traffic, &run, Duration::from_secs(60));
    let learned = report.learned.as_ref().unwrap();
    let [first, second] = &learned.blocks[..] else { panic!("two blocks") };
    assert_eq!((first.requests, first.possible, first.semantic, first.checked), (100, 98, 0, 3));
    assert_eq!((second.requests, second.possible, second.semantic, second.checked), (20, 20, 20, 7));
    assert_eq!((second.wrong, second.wrong_semantic), (1, 1));
    assert!((learned.error_rate - 1.0 / 120.0).abs() < 1e-9 && (learned.wrong_hits - 0.05).abs() < 1e-9);
    let text = report.to_string();
    assert!(text.contains("101–120") && text.contains("5.0 % (1.0 to 20.0)"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn an_empty_report_prints() {
    let report = report(&traffic(&[]), &[]);
    assert!(report.to_string().contains("0 requests"));
}

#[test]
fn pairs_are_shown_once_and_include_every_kind() {
    let traffic = traffic(&[("a", "A?"), ("b", "B?")].repeat(8));
    let mut exchanges: Vec<_> =
        (0..15).map(|i| refused(i, ["a", "b"][i % 2], "guard_numbers", "C?", 0.99)).collect();
    exchanges.push(refused(15, "b", "guard_dates", "A?", 0.9));
    let text = report(&traffic, &exchanges).to_string();
    let section = text.split("\n\n").find(|part| part.starts_with("Near misses")).unwrap();
    assert_eq!(section.matches("guard_numbers").count(), 2, "{section}");
    assert_eq!(section.matches("guard_dates").count(), 1, "{section}");
}
