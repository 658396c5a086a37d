//! Tests of mode `static`: which pairs the guards refuse, and what is served.

use std::{sync::Arc, time::SystemTime};

use promptkeep_core::{
    entry::Entry,
    key::{self, Owner},
    model::Usage,
    prompt::{Completion, FinishReason, Message, Prompt, Role},
};

use super::*;

/// Pairs of texts with different meanings, and the guard that must object.
const DIFFERENT: &[(Guard, &str, &str)] = &[
    (Guard::Numbers, "Reset the router after 30 days", "Reset the router after 90 days"),
    (Guard::Numbers, "What is 35% of 360?", "What is 53% of 360?"),
    (Guard::Numbers, "Top ten songs of Abba", "Top twenty songs of Abba"),
    (Guard::Numbers, "paracetamol dose for a 3-year-old", "paracetamol dose for a 10-year-old"),
    (Guard::Numbers, "a mortgage over $1,500,000", "a mortgage over $1.5k"),
    (Guard::Units, "how long to run 5 km", "how long to run 5 miles"),
    (Guard::Units, "convert 20 kg", "convert 20 lbs"),
    (Guard::Dates, "weather in Oslo on Jan 5 2024", "weather in Oslo on 2024-01-06"),
    (Guard::Dates, "weather in Oslo today", "weather in Oslo tomorrow"),
    (Guard::Dates, "trains on Monday", "trains on Friday"),
    (Guard::Dates, "tax brackets for 2019", "tax brackets for 2021"),
    (Guard::Dates, "make an alarm for 4pm", "make an alarm for 4 am"),
    (Guard::Negation, "Why does my phone charge?", "Why doesn't my phone charge?"),
    (Guard::Negation, "cake with sugar", "cake without sugar"),
    (Guard::Negation, "Is it healthy to fast?", "Is it unhealthy to fast?"),
    (Guard::Antonyms, "How do I enable 2FA?", "How do I disable 2FA?"),
    (Guard::Antonyms, "turn on dark mode", "turn off dark mode"),
    (Guard::Antonyms, "raise the font size", "lower the font size"),
    (Guard::Antonyms, "eat carbs before surgery", "eat carbs after surgery"),
    (Guard::Antonyms, "planet with the largest area", "planet with the smallest area"),
    (Guard::Quoted, "translate 'good morning'", "translate 'good evening'"),
    (Guard::Quoted, "Fix \"KeyError: 0\" in pandas", "Fix \"ValueError\" in pandas"),
    (Guard::Code, "What does np.vstack do?", "What does np.hstack do?"),
    (Guard::Code, "explain error E0308", "explain error E0382"),
    (Guard::Code, "call get_user_name twice", "call get_user_mail twice"),
    (Guard::Direction, "flights from Dallas to Houston", "flights from Houston to Dallas"),
    (
        Guard::Direction,
        "show flights to Houston departing from NYC",
        "show flights to NYC departing from Houston",
    ),
    (Guard::Direction, "What is 60 cm in inches", "What is 60 inches in cm"),
    (Guard::Direction, "Does stress cause headaches?", "Do headaches cause stress?"),
    (Guard::Direction, "Can caffeine cause acne", "Is it possible that caffeine is caused by acne"),
    (Guard::Direction, "convert JSON into YAML", "convert YAML into JSON"),
    // The "to" of the infinitive was once taken for the "to" of the target, which put both units on both sides.
    (
        Guard::Direction,
        "Write a function to convert miles to kilometers",
        "Write a function to convert kilometers to miles",
    ),
    (
        Guard::Antonyms,
        "undo the last commit but keep the changes",
        "undo the last commit and discard the changes",
    ),
    (Guard::Direction, "migrate MySQL to Postgres", "migrate Postgres to MySQL"),
    (
        Guard::Direction,
        "What time is it in Tokyo when it's 6:30 pm in Singapore?",
        "6:30 pm in Tokyo is what time in Singapore?",
    ),
    (Guard::Language, "say good morning in Dutch", "say good morning in German"),
    (Guard::Language, "reverse a string in Python", "reverse a string in Ruby"),
    (Guard::Format, "planets as JSON", "planets as XML"),
    (Guard::Format, "Explain Hamlet in bullet points", "Explain Hamlet in a haiku"),
    (Guard::Numbers, "state with the highest area", "state with the second highest area"),
    (Guard::Numbers, "authors with papers in 2000", "authors with papers after 2000"),
    (Guard::Antonyms, "the biggest city in the smallest state", "the smallest city in the biggest state"),
    (Guard::Question, "When was Louis Pasteur born?", "Where was Louis Pasteur born?"),
    (
        Guard::Question,
        "what states does the red river run through",
        "how many states does the red river run through",
    ),
    (Guard::Question, "what is the capital of the smallest state", "which state has the smallest capital"),
    (Guard::Wording, LONG_A, LONG_B),
    (Guard::Entities, "What is the capital of France?", "What is the capital of Spain?"),
    (Guard::Entities, "How do I get a job at Google?", "How do I get a job?"),
];

const LONG_A: &str = "Summarise this text. The meeting began late because the train was delayed, so the board could \
    only talk about the budget of the next quarter and the new office. Everybody agreed that the plan is sound, and \
    that the move should be done before the end of the winter.";
const LONG_B: &str = "Summarise this text. The meeting began late because the train was delayed, so the board could \
    only talk about the budget of the next quarter and the new office. Nearly everybody agreed that the plan is sound, \
    and that the move should be done before the end of the spring.";

/// Paraphrases: no guard may object.
const SAME: &[(&str, &str)] = &[
    ("list thirty days", "list 30 days"),
    ("list 30.0 days", "list 30 days"),
    ("a population of 1,000", "a population of 1000"),
    ("salary of 120k", "salary of 120,000"),
    ("a loan of $2M", "a loan of 2 million dollars"),
    ("twenty-five percent of 80", "25% of 80"),
    ("the third chapter", "the 3rd chapter"),
    ("Write a function to convert miles to kilometers", "Write a function that converts miles to kilometers"),
    ("how long to run 5 km", "how long to run five kilometers"),
    ("weather in Oslo on Jan 5 2024", "weather in Oslo on 2024-01-05"),
    ("weather in Oslo on January 5th, 2024", "weather in Oslo on 5 January 2024"),
    ("an alarm at 3:00 PM", "an alarm at 3pm"),
    ("an alarm at 15:00", "an alarm at 3 pm"),
    ("How do I turn on 2FA?", "How can I enable 2FA please?"),
    ("Why can't I log in?", "Why can I not log in?"),
    ("Do they need a visa or not?", "Do they need a visa?"),
    ("translate 'good morning'", "what is \"good morning\" in translation"),
    ("What does `np.vstack` do?", "what does np.vstack do"),
    ("flights from Dallas to Houston", "flights to Houston from Dallas"),
    ("What is 60 cm in inches", "How many inches are 60 centimeters"),
    ("Does stress cause headaches?", "Are headaches caused by stress?"),
    ("hotels in NYC", "hotels in New York"),
    ("Is a visa required for the USA?", "Is a visa required for the United States?"),
    ("What is the capital of France?", "whats the capital of france"),
    ("Capital of Germany", "the German capital"),
    ("How far is Paris from Rome?", "Distance from Paris to Rome"),
    ("which command installs numpy==3.2", "how do I install numpy 3.2"),
    ("Hi, Write a poem", "Compose a poem"),
    ("an alarm at 12 pm", "an alarm at noon"),
    ("How many inches are in a foot?", "What number of inches are in one foot?"),
    ("Hi, what is the population of Brazil? Thanks!", "What is the population of Brazil"),
    ("In May, how warm is Crete?", "how warm is Crete in May"),
    ("Write a JavaScript function", "write a function in javascript"),
];

/// Paraphrases in other languages: no guard may object.
const OTHER_LANGUAGES: &[(&str, &str)] = &[
    ("Wie kann ich mein Passwort zurücksetzen?", "Was muss ich tun, um mein Kennwort neu zu setzen?"),
    ("Wie wird das Wetter in Berlin?", "Wetter in Berlin"),
    ("Ich brauche 5 Äpfel und eine Birne", "Ich brauche fünf Äpfel und eine Birne"),
    ("Comment réinitialiser mon mot de passe ?", "Je ne me souviens plus de mon mot de passe, que faire ?"),
    ("Quelle est la capitale de l'Espagne ?", "La capitale espagnole, c'est quoi ?"),
    ("¿Cómo puedo restablecer mi contraseña?", "No recuerdo mi contraseña, ¿qué hago?"),
    ("¿Cuál es la capital de Francia?", "la capital de Francia cuál es"),
    ("如何重置我的密码？", "怎么重设密码"),
    ("法国的首都是哪里？", "法国首都是什么城市"),
    ("パスワードをリセットする方法", "パスワードの再設定はどうすればいいですか"),
];

fn entry(text: &str) -> Arc<Entry> {
    let prompt = Prompt {
        namespace: "default".to_owned(),
        model: "auto".to_owned(),
        messages: vec![Message::new(Role::User, text)],
        ..Prompt::default()
    };
    let owner = Owner::Tenant("default".to_owned());
    let (key, scope) = key::of(&owner, &prompt);
    Arc::new(Entry {
        key,
        scope,
        owner,
        namespace: prompt.namespace.clone(),
        requested_model: prompt.model.clone(),
        text: prompt.fuzzy_text().map(str::to_owned),
        embedding: None,
        embedder: String::new(),
        completion: Completion {
            content: "An answer.".to_owned(),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: "test".to_owned(),
            tier: String::new(),
            usage: Usage::default(),
            ..Completion::default()
        },
        tags: Vec::new(),
        created: SystemTime::UNIX_EPOCH,
        expires: SystemTime::UNIX_EPOCH,
        stale_for: Default::default(),
        difficulty: None,
    })
}

fn candidate(text: &str, similarity: f32) -> Candidate {
    Candidate { entry: entry(text), similarity }
}

const MIN: f32 = 0.9;

fn objections(a: &str, b: &str) -> Vec<Guard> {
    let (a, b) = (Analysis::of(a), Analysis::of(b));
    guard::ALL.into_iter().filter(|g| guard::objection(*g, &a, &b).is_some()).collect()
}

#[test]
fn a_guard_objects_to_its_difference_in_both_directions() {
    for (guard, a, b) in DIFFERENT {
        for (x, y) in [(a, b), (b, a)] {
            assert!(
                objections(x, y).contains(guard),
                "{guard:?} missed {x:?} / {y:?}: {:?}",
                objections(x, y)
            );
        }
    }
}

#[test]
fn no_guard_objects_to_a_paraphrase() {
    for (a, b) in SAME.iter().chain(OTHER_LANGUAGES) {
        assert_eq!((objections(a, b), objections(b, a)), (vec![], vec![]), "{a:?} / {b:?}");
    }
}

#[test]
fn no_guard_objects_to_an_identical_text() {
    for (_, a, b) in DIFFERENT {
        assert_eq!((objections(a, a), objections(b, b)), (vec![], vec![]), "{a:?} / {b:?}");
    }
}

#[test]
fn numbers_code_and_quotations_are_guarded_in_other_languages() {
    assert_eq!(objections("Wie lange dauern 30 Tage?", "Wie lange dauern 90 Tage?"), [Guard::Numbers]);
    assert_eq!(objections("如何打开 config.toml", "如何打开 main.toml"), [Guard::Code]);
    assert_eq!(objections("Was heißt «guten Tag»?", "Was heißt «gute Nacht»?"), [Guard::Quoted]);
}

#[test]
fn the_most_similar_acceptable_candidate_is_served() {
    let candidates = [
        candidate("How do I disable 2FA?", 0.97),
        candidate("How can I turn on 2FA?", 0.93),
        candidate("How do I activate 2FA?", 0.92),
    ];
    let decision = by_guards(MIN, "How do I enable 2FA?", &candidates);
    assert_eq!(decision, Decision::Serve { candidate: 1 });
}

#[test]
fn the_objection_to_the_most_similar_candidate_is_the_reason_of_the_miss() {
    let refused = |reason, nearest| Decision::Refuse { reason, nearest };
    let far = [candidate("How do I disable 2FA?", 0.97), candidate("How can I turn on 2FA?", 0.5)];
    let decision = by_guards(MIN, "How do I enable 2FA?", &far);
    assert_eq!(decision, refused(MissReason::Guard(Guard::Antonyms), Some(0)));
    assert_eq!(by_guards(MIN, "enable 2FA", &far[1..]), refused(MissReason::BelowThreshold, Some(0)));
    assert_eq!(by_guards(MIN, "enable 2FA", &[]), refused(MissReason::NoCandidate, None));
}

#[test]
fn explain_lists_every_check_and_agrees_with_the_decision() {
    let candidates = [candidate("How do I disable 2FA?", 0.97), candidate("How can I turn on 2FA?", 0.93)];
    let explained = explain_guards(MIN, "How do I enable 2FA?", &candidates);
    assert_eq!(explained.iter().map(|e| e.accepted).collect::<Vec<_>>(), [false, true]);
    let failed: Vec<_> = explained[0].checks.iter().filter(|c| !c.passed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].name, failed[0].detail.as_str()), ("antonyms", "enable / disable"));
    assert_eq!(explained[1].checks.len(), 1 + guard::ALL.len());
}

#[test]
fn unusual_texts_are_analysed_without_panic() {
    let long = "’".repeat(300);
    for text in [
        "",
        " ",
        "'",
        "\"\"",
        "`",
        "$",
        "5",
        "5.",
        ".5",
        "1,2,3",
        "٣",
        "½",
        "🦀'🦀",
        "a'",
        &long,
        "9:9:9pm",
        "99999999:99",
        "1234567pm",
    ] {
        assert_eq!(objections(text, text), vec![], "{text:?}");
    }
}
