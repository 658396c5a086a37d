//! Serve, ask a verifier, or call the model: the choice with the highest expected value.
//!
//! The unit is what a right hit saves. A wrong one costs as much as the threshold `t` says: at the probability `t` serving
//! is worth nothing, so a wrong hit costs `t / (1 - t)`.

use super::wrong_rate::SourceErrors;
use crate::logistic::posterior;

/// Maximum number of candidates in one verification.
pub const ASKED_MAX: usize = 4;

/// Probability without which a yes is not obeyed: texts can persuade a verifier, but not the learner.
const PROBABILITY_MIN: f32 = 0.02;

/// What a verification costs, time included, as shares of what a hit on the best candidate saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The call with its first candidate.
    pub call: f32,
    /// Each further candidate.
    pub further: f32,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    Serve,
    /// Indices of the candidates to ask about, most probable first.
    Ask(Vec<usize>),
    Miss,
}

/// What is expected of one choice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expected {
    /// Probability of a hit.
    pub hits: f32,
    /// Probability of a wrong one.
    pub wrong: f32,
    /// Its value.
    pub value: f32,
}

/// Serving a candidate of this probability.
pub(super) fn serving(probability: f32, threshold: f32) -> Expected {
    let wrong = 1.0 - probability;
    Expected { hits: 1.0, wrong, value: (probability - threshold) / (1.0 - threshold).max(f32::EPSILON) }
}

/// Asking about one candidate, without the price. Nothing is gained where even a yes would not be enough: that is decided
/// with the worst error rates that the verdicts allow, what is expected with the likeliest.
pub(super) fn asking(probability: f32, threshold: f32, errors: &SourceErrors) -> Expected {
    if after_yes(probability, errors) < threshold {
        return Expected::default();
    }
    let wrong = (1.0 - probability) * errors.false_same.rate;
    let hits = probability * (1.0 - errors.false_different.rate) + wrong;
    Expected { hits, wrong, value: hits - wrong / (1.0 - threshold).max(f32::EPSILON) }
}

/// Probability that an answer is right after a yes.
pub(super) fn after_yes(probability: f32, errors: &SourceErrors) -> f32 {
    if probability < PROBABILITY_MIN { probability } else { after(probability, errors.cautious_yes()) }
}

/// Probability that an answer is right after a verdict.
pub(super) fn after_verdict(probability: f32, fits: bool, errors: &SourceErrors) -> f32 {
    if fits { after_yes(probability, errors) } else { after(probability, errors.evidence(false)) }
}

/// Probability after evidence.
fn after(probability: f32, evidence: f32) -> f32 {
    let p = f64::from(probability.clamp(1e-6, 1.0 - 1e-6));
    posterior((p / (1.0 - p)).ln(), evidence.into()) as f32
}

/// What is expected of serving the best candidate and of asking a verifier, in units of what a right hit saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reckoning {
    /// Value of serving the best candidate; below 0 if it may not be served.
    pub serve: f32,
    /// Value of asking, after the price; above 0 if a verifier may be asked.
    pub ask: f32,
    /// Candidates that would be asked about.
    pub asked: usize,
    /// Probability of a hit if a verifier is asked.
    pub hits: f32,
    pub price: Price,
    pub errors: SourceErrors,
}

impl Reckoning {
    /// For candidates in descending order of probability, each with its index.
    pub(super) fn of(ranked: &[(usize, f32)], threshold: f32, errors: &SourceErrors, price: Price) -> Self {
        let serve = ranked.first().map_or(-1.0, |(_, best)| serving(*best, threshold).value);
        let asked = ranked.len().min(ASKED_MAX);
        let (mut ask, mut rest) = (-price.call, 1.0);
        for (nth, (_, probability)) in ranked[..asked].iter().enumerate() {
            let expected = asking(*probability, threshold, errors);
            let further = if nth > 0 { price.further } else { 0.0 };
            ask += (rest * expected.value - further).max(0.0);
            rest *= 1.0 - expected.hits;
        }
        Self { serve, ask, asked, hits: 1.0 - rest, price, errors: *errors }
    }

    /// Whether a verifier is asked.
    pub fn asks(&self) -> bool {
        self.ask > self.serve.max(0.0)
    }
}

/// Chooses for candidates in descending order of probability, each with its index.
pub(super) fn choose(
    ranked: &[(usize, f32)],
    threshold: f32,
    errors: &SourceErrors,
    price: Option<Price>,
) -> Choice {
    let Some((_, best)) = ranked.first() else { return Choice::Miss };
    let asks = price.is_some_and(|price| Reckoning::of(ranked, threshold, errors, price).asks());
    if asks {
        // Those that are hardly worth it cost little in the same call. Their verdicts teach, and show how often the
        // verifier errs.
        Choice::Ask(ranked.iter().take(ASKED_MAX).map(|(index, _)| *index).collect())
    } else if serving(*best, threshold).value >= 0.0 {
        Choice::Serve
    } else {
        Choice::Miss
    }
}

/// What is expected of the best candidate of a request.
pub(super) fn of_best(
    probability: f32,
    threshold: f32,
    errors: &SourceErrors,
    price: Option<f32>,
) -> Expected {
    let serve = serving(probability, threshold);
    let ask = asking(probability, threshold, errors);
    let value = price.map_or(0.0, |price| ask.value - price);
    if serve.value >= 0.0 && serve.value >= value {
        serve
    } else if value > 0.0 {
        ask
    } else {
        Expected::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Option<Price> = Some(Price { call: 0.05, further: 0.02 });

    fn errors() -> SourceErrors {
        SourceErrors::of_new_verifier()
    }

    #[test]
    fn the_sure_is_served_the_hopeless_is_left_and_the_rest_is_asked_about() {
        let choose = |probability, price| choose(&[(3, probability)], 0.9, &errors(), price);
        assert_eq!(choose(0.999, PRICE), Choice::Serve);
        assert_eq!(choose(0.95, None), Choice::Serve);
        assert_eq!(choose(0.5, PRICE), Choice::Ask(vec![3]));
        assert_eq!(choose(0.5, None), Choice::Miss);
        assert_eq!(choose(0.001, PRICE), Choice::Miss);
        assert_eq!(super::choose(&[], 0.9, &errors(), PRICE), Choice::Miss);
    }

    #[test]
    fn a_dear_call_is_made_for_probable_hits_only() {
        let dear = Some(Price { call: 0.5, further: 0.1 });
        let ranked = |probability| [(0, probability), (1, 0.01)];
        assert_eq!(choose(&ranked(0.5), 0.9, &errors(), dear), Choice::Miss);
        assert_eq!(choose(&ranked(0.8), 0.9, &errors(), dear), Choice::Ask(vec![0, 1]));
    }

    #[test]
    fn a_yes_is_evidence_and_not_permission() {
        let new = SourceErrors::of_new_verifier();
        assert!(after_verdict(0.5, true, &new) < 0.97, "a new verifier is not believed at once");
        assert!(after_verdict(0.3, true, &new) > 0.7);
        assert_eq!(after_verdict(0.01, true, &new), 0.01, "the learner must think it possible");
        assert!(after_verdict(0.9, false, &new) < 0.5);
    }
}
