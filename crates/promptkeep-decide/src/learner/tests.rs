//! The learner on made-up traffic: when it opens, when it closes, and its encoding.

use super::*;
use crate::{
    features::{self, Neighbourhood},
    text::Analysis,
};

const BUDGET: Budget = Budget { max_error_rate: 0.01, max_wrong_hits: 0.05 };

fn learner() -> Learner {
    Learner::new(Table::embedded().unwrap(), 1)
}

fn features_of(a: &str, b: &str, similarity: f32) -> Features {
    let table = Table::embedded().unwrap();
    let near = Neighbourhood { best_other: 0.7, mean: 0.7 };
    features::of(&Analysis::of(a), &Analysis::of(b), similarity, near, &table.rarity)
}

/// Made-up traffic: paraphrases name one city, near misses name two.
struct Traffic {
    random: fastrand::Rng,
    /// Share of labels that are wrong.
    noise: f32,
    /// Share of paraphrases; the rest are near misses.
    same: f32,
    /// Paraphrases no longer have the same answer.
    hostile: bool,
    scope: ScopeTag,
}

struct Tally {
    correct: u32,
    wrong: u32,
    audits: u32,
}

const CITIES: [&str; 8] = ["Paris", "London", "Berlin", "Madrid", "Vienna", "Prague", "Dublin", "Lisbon"];
const FORMS: [&str; 4] = [
    "What is the best museum in {}?",
    "Which museum in {} is the best one?",
    "best museum in {} please",
    "Can you tell me the best museum of {}?",
];

impl Traffic {
    fn new(noise: f32) -> Self {
        Self { random: fastrand::Rng::with_seed(5), noise, same: 0.3, hostile: false, scope: 0 }
    }

    fn pair(&mut self) -> (Features, bool) {
        let city = self.random.usize(..CITIES.len());
        let same = self.random.f32() < self.same;
        let other = if same { city } else { (city + self.random.usize(1..CITIES.len())) % CITIES.len() };
        let (f, g) = (self.random.usize(..FORMS.len()), self.random.usize(..FORMS.len()));
        let (a, b) = (FORMS[f].replace("{}", CITIES[city]), FORMS[g].replace("{}", CITIES[other]));
        let similarity = if same { 0.93 } else { 0.88 } + 0.06 * (self.random.f32() - 0.5);
        (features_of(&a, &b, similarity), same && !self.hostile)
    }

    fn run(&mut self, learner: &mut Learner, requests: u32) -> Tally {
        let mut tally = Tally { correct: 0, wrong: 0, audits: 0 };
        for _ in 0..requests {
            let (features, same) = self.pair();
            let scored = learner.score(&features, self.scope);
            let label = f32::from(u8::from(same != (self.random.f32() < self.noise)));
            match learner.decide(std::slice::from_ref(&scored), &BUDGET, 0.02) {
                Verdict::Serve { audit, .. } => {
                    *if same { &mut tally.correct } else { &mut tally.wrong } += 1;
                    if let Some(propensity) = audit {
                        tally.audits += 1;
                        learner.observe(&scored, Label::compared(label), Origin::Audit { propensity });
                    }
                }
                _ => learner.observe(&scored, Label::compared(label), Origin::Miss { best: true }),
            }
            if learner.is_due() {
                let fitted = learner.start_fit().run();
                learner.install(fitted);
            }
        }
        tally
    }
}

#[test]
fn a_new_namespace_serves_surface_variants_only() {
    let mut learner = learner();
    let variant = learner.score(&features_of("What's an API?", "what is an api", 0.99), 0);
    assert!(variant.surface);
    let other =
        learner.score(&features_of("How do I reset a password?", "How can I reset a password?", 0.99), 0);
    assert!(!other.surface);
    assert!(matches!(learner.decide(&[variant], &BUDGET, 0.02), Verdict::Serve { .. }));
    assert!(matches!(learner.decide(&[other], &BUDGET, 0.02), Verdict::Learning { .. }));
    assert_eq!(learner.decide(&[], &BUDGET, 0.02), Verdict::Nothing);
}

#[test]
fn a_namespace_serves_more_as_it_learns_and_keeps_the_budgets() {
    let mut learner = learner();
    let tally = Traffic::new(0.03).run(&mut learner, 3000);
    assert!(tally.correct > 300, "{} correct", tally.correct);
    assert!(tally.wrong <= 30, "{} wrong", tally.wrong);
    assert!(f64::from(tally.audits) <= 0.05 * 3000.0, "{} audits", tally.audits);
}

#[test]
fn random_labels_keep_a_namespace_closed() {
    let mut learner = learner();
    let tally = Traffic::new(0.5).run(&mut learner, 3000);
    assert!(tally.wrong <= 30, "{} wrong, {} correct", tally.wrong, tally.correct);
}

#[test]
fn a_namespace_closes_when_paraphrases_stop_having_the_same_answer() {
    let mut learner = learner();
    let mut traffic = Traffic::new(0.03);
    assert!(traffic.run(&mut learner, 3000).correct > 300);
    traffic.hostile = true;
    let first = traffic.run(&mut learner, 2000);
    let second = traffic.run(&mut learner, 2000);
    assert!(second.wrong <= 20, "{} wrong at first, {} then", first.wrong, second.wrong);
}

#[test]
fn a_stricter_caller_gets_a_higher_threshold() {
    let mut learner = learner();
    Traffic::new(0.03).run(&mut learner, 2000);
    let strict = Budget { max_error_rate: 0.001, ..BUDGET };
    assert!(learner.threshold().at(&strict) >= learner.threshold().at(&BUDGET));
    assert!(learner.threshold().at(&Budget { max_error_rate: 0.0, ..BUDGET }) > 1.0);
}

/// Most features know English words only, so their silence must not open a namespace for other languages.
#[test]
fn other_languages_are_penalised_until_they_have_labels() {
    let mut learner = learner();
    Traffic::new(0.03).run(&mut learner, 1500);
    let probability =
        |learner: &Learner, a: &str, b: &str| learner.estimate(&learner.score(&features_of(a, b, 0.95), 0)).0;
    let pairs = [
        ("Wie setze ich mein Passwort zurück?", "Wie kann ich mein Passwort zurücksetzen?"),
        ("Comment réinitialiser mon mot de passe ?", "Comment puis-je réinitialiser mon mot de passe ?"),
        ("¿Cómo restablezco mi contraseña?", "¿Cómo puedo restablecer mi contraseña?"),
        ("如何重置密码", "怎样重置密码"),
    ];
    for (a, b) in pairs {
        let scored = learner.score(&features_of(a, b, 0.95), 0);
        assert!(!scored.english && !scored.surface, "{a} / {b}");
        let english = Scored { english: true, ..scored.clone() };
        assert!(learner.estimate(&scored).0 < learner.estimate(&english).0, "{a} / {b}");
    }
    let (a, b) = pairs[0];
    let before = probability(&learner, a, b);
    for _ in 0..300 {
        let scored = learner.score(&features_of(a, b, 0.95), 0);
        learner.observe(&scored, Label::compared(1.0), Origin::Miss { best: true });
    }
    let fitted = learner.start_fit().run();
    learner.install(fitted);
    assert!(probability(&learner, a, b) > before);
}

#[test]
fn a_negation_in_another_language_is_no_surface_variant() {
    for (a, b) in [
        ("Darf ich Aspirin nehmen?", "Darf ich kein Aspirin nehmen?"),
        ("Puis-je boire du café ?", "Puis-je ne pas boire du café ?"),
        ("¿Puedo beber agua?", "¿No puedo beber agua?"),
        ("我可以喝水吗", "我不可以喝水吗"),
        ("水を飲んでもいいですか", "水を飲んではいけませんか"),
    ] {
        assert!(!learner().score(&features_of(a, b, 0.99), 0).surface, "{a} / {b}");
    }
}

#[test]
fn feedback_weighs_more_than_a_verifier_and_a_verifier_more_than_a_comparison() {
    let features = features_of("best museum in Paris", "best museum in London", 0.95);
    let after = |label, origin| {
        let mut learner = learner();
        Traffic::new(0.03).run(&mut learner, 500);
        let scored = learner.score(&features, 0);
        (0..20).for_each(|_| learner.observe(&scored, label, origin));
        let fitted = learner.start_fit().run();
        learner.install(fitted);
        learner.estimate(&learner.score(&features, 0)).0
    };
    let compared = after(Label::compared(1.0), Origin::Miss { best: false });
    let verified = after(Label::verified(true), Origin::Miss { best: false });
    assert!(after(Label::reported(true), Origin::Feedback) > verified && verified > compared);
}

/// After one system prompt paraphrases had the same answer, after another never, and without levels per scope each
/// closed the other.
#[test]
fn scopes_with_enough_labels_have_their_own_level() {
    let mut learner = learner();
    let mut open = Traffic { scope: 1, ..Traffic::new(0.03) };
    let mut closed = Traffic { scope: 2, hostile: true, ..Traffic::new(0.03) };
    let mut late = Tally { correct: 0, wrong: 0, audits: 0 };
    for round in 0..100 {
        let (a, b) = (open.run(&mut learner, 20), closed.run(&mut learner, 20));
        if round >= 50 {
            late.correct += a.correct;
            late.wrong += a.wrong + b.wrong;
        }
    }
    assert!(late.correct > 60, "{} correct of about 300", late.correct);
    assert!(late.wrong <= 20, "{} wrong", late.wrong);
    let features = features_of("What is the best museum in Paris?", "best museum in Paris please", 0.93);
    let of = |scope| learner.score(&features, scope).logit;
    assert!(of(1) > of(3) && of(3) > of(2), "{} {} {}", of(1), of(3), of(2));
}

#[test]
fn a_learner_is_read_as_written() {
    let mut learner = learner();
    Traffic::new(0.03).run(&mut learner, 1500);
    let bytes = learner.encode();
    let mut again = Learner::decode(&bytes, Table::embedded().unwrap(), 1).unwrap();
    assert_eq!(again.encode(), bytes);
    let tally = Traffic::new(0.03).run(&mut again, 500);
    assert!(tally.correct > 50, "{} correct", tally.correct);
}

#[test]
fn damaged_states_are_rejected() {
    let mut learner = learner();
    Traffic::new(0.03).run(&mut learner, 300);
    let bytes = learner.encode();
    let decode = |bytes: &[u8]| Learner::decode(bytes, Table::embedded().unwrap(), 1);
    for end in (0..bytes.len()).step_by(97) {
        assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).is_err());
    let mut newer = bytes;
    newer[8] += 1;
    assert!(decode(&newer).is_err());
}

#[test]
fn a_replay_repeats_itself() {
    let run = || {
        let mut learner = learner();
        let tally = Traffic::new(0.03).run(&mut learner, 1200);
        (tally.correct, tally.wrong, tally.audits, learner.encode())
    };
    assert_eq!(run(), run());
}
