//! The learner on made-up traffic: when it opens, when it closes, and its encoding.

use super::*;
use crate::{
    features::{self, Neighbourhood},
    surface,
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

fn score(learner: &Learner, features: &Features, scope: ScopeTag) -> Scored {
    learner.score(features, Difference::Wording, scope)
}

/// What a verifier says.
fn verified(same: bool) -> Label {
    Label::compared(0.0).verified(same)
}

/// Made-up traffic: paraphrases name one city, near misses name two.
struct Traffic {
    random: fastrand::Rng,
    /// Share of labels that are wrong.
    noise: f32,
    /// Only comparisons of answers label the pairs, no verifier.
    compared: bool,
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
        Self {
            random: fastrand::Rng::with_seed(5),
            noise,
            compared: false,
            same: 0.3,
            hostile: false,
            scope: 0,
        }
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
            let scored = score(learner, &features, self.scope);
            let says = same != (self.random.f32() < self.noise);
            let label =
                if self.compared { Label::compared(if says { 8.0 } else { -8.0 }) } else { verified(says) };
            match learner.decide(std::slice::from_ref(&scored), &BUDGET, 0.02, None) {
                Verdict::Serve { audit, probability, .. } => {
                    *if same { &mut tally.correct } else { &mut tally.wrong } += 1;
                    if let Some(propensity) = audit {
                        tally.audits += 1;
                        learner.observe(
                            &scored,
                            label,
                            Origin::Audit { propensity, probability, approved: false, verified: 1.0 },
                        );
                    }
                }
                _ => learner.observe(&scored, label, Origin::Miss { best: true }),
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
fn a_new_namespace_serves_surface_variants_and_what_is_nearly_certain() {
    let mut learner = learner();
    let features = features_of("How do I reset a password?", "Ways of changing passwords", 0.8);
    let as_is = |difference| learner.score(&features, difference, 0);
    let (variant, other) = (as_is(Difference::Surface), as_is(Difference::Wording));
    assert!(matches!(
        learner.decide(std::slice::from_ref(&variant), &BUDGET, 0.02, None),
        Verdict::Serve { .. }
    ));
    assert!(matches!(
        learner.decide(std::slice::from_ref(&other), &BUDGET, 0.02, None),
        Verdict::Learning { .. }
    ));
    // The variant is served, however probable another candidate is.
    let sure = Scored { logit: 20.0, ..other };
    let served = learner.decide(&[sure, variant.clone()], &BUDGET, 0.02, None);
    assert!(matches!(served, Verdict::Serve { candidate: 1, .. }));
    let none = Budget { max_error_rate: 0.0, ..BUDGET };
    assert!(!matches!(learner.decide(&[variant], &none, 0.02, None), Verdict::Serve { .. }));
    assert_eq!(learner.decide(&[], &BUDGET, 0.02, None), Verdict::Nothing);
}

/// "Is 5 < 3?" was answered with the answer to "Is 5 > 3?": the encoder and the features see the same words.
#[test]
fn texts_that_differ_in_marks_are_never_served() {
    let mut learner = learner();
    let features = features_of("Is 5 < 3?", "Is 5 > 3?", 1.0);
    let scored = learner.score(&features, Difference::Marks, 0);
    let sure = Scored { logit: 20.0, ..scored };
    assert!(!matches!(learner.decide(&[sure], &BUDGET, 0.02, None), Verdict::Serve { .. }));
}

#[test]
fn surface_variants_are_trusted_until_several_were_reported_wrong() {
    let mut learner = learner();
    let features = features_of("How do I reset a password?", "Ways of changing passwords", 0.8);
    let variant = learner.score(&features, Difference::Surface, 0);
    for reported in 0..WRONG_VARIANTS_MAX {
        assert!(learner.would_serve(&variant, &BUDGET), "{reported} reported");
        // A comparison of answers alone says too little.
        learner.observe(&variant, Label::compared(-9.0), Origin::Miss { best: true });
        learner.observe(&variant, Label::reported(false), Origin::Feedback);
    }
    assert!(!learner.would_serve(&variant, &BUDGET));
    let again = Learner::decode(&learner.encode(), Table::embedded().unwrap(), 1).unwrap();
    assert!(!again.would_serve(&variant, &BUDGET));
}

#[test]
fn a_namespace_serves_more_as_it_learns_and_keeps_the_budgets() {
    let mut learner = learner();
    let tally = Traffic::new(0.03).run(&mut learner, 3000);
    assert!(tally.correct > 300, "{} correct", tally.correct);
    assert!(tally.wrong <= 30, "{} wrong", tally.wrong);
    assert!(f64::from(tally.audits) <= 0.05 * 3000.0, "{} audits", tally.audits);
}

/// Comparisons of answers to near misses of one frame always said "same", and opened a namespace for them.
#[test]
fn comparisons_that_always_agree_open_nothing() {
    let mut learner = learner();
    let before = score(&learner, &features_of("museum in Paris", "museum in London", 0.9), 0).logit;
    for _ in 0..1000 {
        let (features, _) = Traffic::new(0.0).pair();
        let scored = score(&learner, &features, 0);
        learner.decide(std::slice::from_ref(&scored), &BUDGET, 0.02, None);
        learner.observe(&scored, Label::compared(8.0), Origin::Miss { best: true });
        if learner.is_due() {
            let fitted = learner.start_fit().run();
            learner.install(fitted);
        }
    }
    let after = score(&learner, &features_of("museum in Paris", "museum in London", 0.9), 0).logit;
    assert!(after < before + 0.5, "{before} became {after}");
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
    let probability = |learner: &Learner, a: &str, b: &str| {
        learner.estimate(&score(learner, &features_of(a, b, 0.95), 0)).0
    };
    let pairs = [
        ("Wie setze ich mein Passwort zurück?", "Wie kann ich mein Passwort zurücksetzen?"),
        ("Comment réinitialiser mon mot de passe ?", "Comment puis-je réinitialiser mon mot de passe ?"),
        ("¿Cómo restablezco mi contraseña?", "¿Cómo puedo restablecer mi contraseña?"),
        ("如何重置密码", "怎样重置密码"),
    ];
    for (a, b) in pairs {
        let scored = score(&learner, &features_of(a, b, 0.95), 0);
        assert!(!scored.english, "{a} / {b}");
        let english = Scored { english: true, ..scored.clone() };
        assert!(learner.estimate(&scored).0 < learner.estimate(&english).0, "{a} / {b}");
    }
    let (a, b) = pairs[0];
    let before = probability(&learner, a, b);
    for _ in 0..300 {
        let scored = score(&learner, &features_of(a, b, 0.95), 0);
        learner.observe(&scored, verified(true), Origin::Miss { best: true });
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
        let rarity = &Table::embedded().unwrap().rarity;
        assert_ne!(surface::difference(a, b, rarity), Difference::Surface, "{a} / {b}");
    }
}

#[test]
fn feedback_weighs_more_than_a_verifier_and_a_verifier_more_than_a_comparison() {
    let features = features_of("best museum in Paris", "best museum in London", 0.95);
    let after = |label, origin| {
        let mut learner = learner();
        Traffic::new(0.03).run(&mut learner, 500);
        let scored = score(&learner, &features, 0);
        (0..20).for_each(|_| learner.observe(&scored, label, origin));
        let fitted = learner.start_fit().run();
        learner.install(fitted);
        learner.estimate(&score(&learner, &features, 0)).0
    };
    let compared = after(Label::compared(1.0), Origin::Miss { best: false });
    let verified = after(Label::compared(1.0).verified(true), Origin::Miss { best: false });
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
    let of = |scope| score(&learner, &features, scope).logit;
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
