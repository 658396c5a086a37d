//! The committed traffic is well-formed and its ground truth is consistent.

use std::collections::{HashMap, HashSet};

use super::*;

const LABELS: [&str; 8] =
    ["billing", "bug", "how_to", "feature_request", "cancellation", "praise", "security", "spam"];

/// The text without case, punctuation and extra white space, unless it is code.
fn folded(text: &str) -> String {
    if text.contains('\n') {
        return text.to_owned();
    }
    let words = text.to_lowercase();
    words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn committed_traffic_parses_and_has_an_answer_for_every_class() {
    let traffic = Traffic::parse(REQUESTS, ANSWERS).unwrap();
    assert!(traffic.requests().len() >= 320);
    assert_eq!(traffic.applications(), 4);
    for request in traffic.requests() {
        let answer = traffic.answer(request);
        assert!(!answer.trim().is_empty() && answer.trim() == answer, "{}", request.class);
    }
}

#[test]
fn every_answer_has_a_request() {
    let traffic = Traffic::embedded();
    let requested: HashSet<_> = traffic.requests().iter().map(|request| &request.class).collect();
    assert_eq!(requested.len(), traffic.answers.len());
}

#[test]
fn equal_words_in_one_scope_have_one_class() {
    let traffic = Traffic::embedded();
    let mut classes = HashMap::new();
    for r in traffic.requests() {
        let key = (&r.namespace, &r.model, &r.history, folded(&r.text));
        let class = classes.entry(key).or_insert(&r.class);
        assert_eq!(*class, &r.class, "{}", r.text);
    }
}

#[test]
fn classes_have_different_answers_except_in_triage() {
    let traffic = Traffic::embedded();
    let mut classes = HashMap::new();
    for request in traffic.requests().iter().filter(|request| request.namespace != "triage") {
        let class = classes.entry(traffic.answer(request)).or_insert(&request.class);
        assert_eq!(*class, &request.class);
    }
}

#[test]
fn an_application_keeps_its_system_prompt_and_a_class_its_scope() {
    let traffic = Traffic::embedded();
    let (mut systems, mut scopes) = (HashMap::new(), HashMap::new());
    for request in traffic.requests() {
        assert_eq!(systems.entry(&request.namespace).or_insert(&request.system), &&request.system);
        assert!(scopes.entry(&request.class).or_insert(request).same_scope(request), "{}", request.class);
        assert!(request.class.starts_with(&format!("{}/", request.namespace)));
        assert!(request.history.len().is_multiple_of(2), "a history ends with the assistant's turn");
    }
}

#[test]
fn generated_traffic_is_large_and_equal_in_every_run() {
    let (one, two) = (Traffic::generated(concierge::REQUESTS), Traffic::generated(concierge::REQUESTS));
    assert_eq!((one.requests(), &one.answers), (two.requests(), &two.answers));
    assert!(one.requests().len() >= 600);
    assert!(one.answers.len() >= 200);
}

#[test]
fn generated_answers_vary_per_call_and_no_two_classes_share_one() {
    let traffic = Traffic::generated(concierge::REQUESTS);
    let mut classes = HashMap::new();
    for (class, answers) in &traffic.answers {
        assert!(answers.iter().collect::<HashSet<_>>().len() > 10, "{class}");
        for answer in answers {
            assert!(!answer.contains(['{', '}']), "{answer}");
            assert!((12..=50).contains(&answer.split_whitespace().count()), "{answer}");
            assert_eq!(*classes.entry(answer).or_insert(class), class);
        }
    }
}

#[test]
fn triage_answers_are_labels() {
    let traffic = Traffic::embedded();
    let mut triage = traffic.requests().iter().filter(|request| request.namespace == "triage");
    assert!(triage.all(|request| LABELS.contains(&traffic.answer(request))));
}

#[test]
fn traffic_has_repeats_paraphrases_bursts_and_all_model_names() {
    let traffic = Traffic::embedded();
    let (mut texts, mut classes) = (HashSet::new(), HashSet::new());
    let (mut repeats, mut paraphrases) = (0, 0);
    for request in traffic.requests() {
        let new_text = texts.insert((&request.class, &request.text));
        let new_class = classes.insert(&request.class);
        repeats += u32::from(!new_text);
        paraphrases += u32::from(new_text && !new_class);
    }
    assert!(repeats >= 80, "{repeats}");
    assert!(paraphrases >= 120, "{paraphrases}");
    let mut neighbours = traffic.requests().windows(2);
    assert!(neighbours.any(|pair| pair[1].together && pair[0].text == pair[1].text));
    let models: HashSet<_> = traffic.requests().iter().map(|request| request.model.as_str()).collect();
    assert_eq!(models, HashSet::from(["auto", "hot", "warm", "cold"]));
}

#[test]
fn messages_begin_with_the_system_prompt_and_end_with_the_text() {
    let request = Request {
        namespace: "n".to_owned(),
        system: "s".to_owned(),
        model: "auto".to_owned(),
        history: vec!["first".to_owned(), "reply".to_owned()],
        text: "then".to_owned(),
        class: "n/c".to_owned(),
        together: false,
    };
    let messages: Vec<_> = request.messages().collect();
    assert_eq!(messages, [("system", "s"), ("user", "first"), ("assistant", "reply"), ("user", "then")]);
}

#[test]
fn a_class_without_an_answer_is_refused() {
    let line = r#"{"namespace":"n","system":"","model":"auto","text":"t","class":"n/unknown"}"#;
    let error = Traffic::parse(line, "").unwrap_err();
    assert!(error.to_string().contains("n/unknown"));
}
