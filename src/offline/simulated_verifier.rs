//! A simulated verifier: replies to verification calls by the labels of known traffic, and errs at stated rates. For the
//! demo and for `tune`, which have labels and no model.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Rates at which the verifier errs, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StatedErrors {
    /// Share of "fits" among pairs of different questions.
    pub false_yes: f64,
    /// Share of "does not fit" among pairs that ask the same.
    pub false_no: f64,
}

/// A question of the traffic with its label.
#[derive(Clone, Debug)]
pub struct KnownQuestion {
    /// Texts of the system prompt and the earlier turns.
    pub earlier: Vec<String>,
    pub text: String,
    /// Questions of one class have one answer.
    pub class: String,
}

/// See the [module](self).
pub struct SimulatedVerifier {
    errors: StatedErrors,
    /// By text; equal texts may have different meanings in different conversations.
    questions: HashMap<String, Vec<KnownQuestion>>,
    /// A std mutex: held for a few additions, never across an await.
    verdicts: Mutex<VerdictCounts>,
}

/// Verdicts on pairs whose labels are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerdictCounts {
    /// Pairs of different questions.
    pub different: usize,
    /// Those of them that were said to fit.
    pub false_yes: usize,
    /// Pairs that ask the same.
    pub same: usize,
    /// Those of them that were said not to fit.
    pub false_no: usize,
}

/// The user message of a verification call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationCall {
    new_question: String,
    kept: Vec<KeptQuestion>,
    #[serde(default)]
    pub context: String,
}

#[derive(Debug, Deserialize)]
struct KeptQuestion {
    question: String,
}

impl SimulatedVerifier {
    pub fn new(errors: StatedErrors, questions: impl IntoIterator<Item = KnownQuestion>) -> Self {
        let mut by_text: HashMap<String, Vec<KnownQuestion>> = HashMap::new();
        for question in questions {
            let alike = by_text.entry(question.text.clone()).or_default();
            if !alike.iter().any(|known| known.earlier == question.earlier) {
                alike.push(question);
            }
        }
        Self { errors, questions: by_text, verdicts: Mutex::default() }
    }

    pub fn errors(&self) -> StatedErrors {
        self.errors
    }

    /// Verdicts so far.
    pub fn verdicts(&self) -> VerdictCounts {
        *self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replies as `model`. A question that the traffic does not contain fits nothing. Models err on different pairs, and
    /// one model always errs on the same ones.
    pub fn reply(&self, model: &str, call: &VerificationCall) -> String {
        let new = self.class(&call.new_question, &call.context);
        let fits = |kept: &KeptQuestion| {
            let kept_class = self.class(&kept.question, &call.context);
            let (Some(new), Some(kept_class)) = (new, kept_class) else { return false };
            self.judge(new == kept_class, error_draw(model, call, kept))
        };
        let numbers = (1..).zip(&call.kept).filter(|(_, kept)| fits(kept));
        let fitting: Vec<String> = numbers.map(|(number, _): (usize, _)| number.to_string()).collect();
        if fitting.is_empty() { "0".to_owned() } else { fitting.join(",") }
    }

    /// The verdict on a pair, counted. `draw` is uniform from 0 to 1.
    fn judge(&self, same: bool, draw: f64) -> bool {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let VerdictCounts { different, false_yes, same: same_count, false_no } = &mut *verdicts;
        let (all, wrong, rate) = if same {
            (same_count, false_no, self.errors.false_no)
        } else {
            (different, false_yes, self.errors.false_yes)
        };
        let errs = draw < rate;
        *all += 1;
        *wrong += usize::from(errs);
        same != errs
    }

    /// The class of a question in the conversation that `context` holds: of those that it contains whole, the longest.
    fn class(&self, text: &str, context: &str) -> Option<&str> {
        let alike = self.questions.get(text)?.iter();
        let fitting = alike.filter(|known| known.earlier.iter().all(|turn| context.contains(turn.as_str())));
        fitting.max_by_key(|known| known.earlier.len()).map(|known| known.class.as_str())
    }
}

impl VerificationCall {
    /// Parses a user message. `None` if it is an ordinary prompt.
    pub fn parse(message: &str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }
}

/// Draws from 0 to 1, by a hash of model and pair.
fn error_draw(model: &str, call: &VerificationCall, kept: &KeptQuestion) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for text in [model, &call.context, &call.new_question, &kept.question] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let hash = hasher.finalize();
    let bytes = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    f64::from(u32::from_le_bytes(*bytes)) / f64::from(u32::MAX)
}

impl VerdictCounts {
    /// Rate of the wrong "fits".
    pub fn false_yes_rate(&self) -> f64 {
        crate::offline::report::share(self.false_yes, self.different)
    }

    /// Rate of the wrong "does not fit".
    pub fn false_no_rate(&self) -> f64 {
        crate::offline::report::share(self.false_no, self.same)
    }
}

impl FromStr for StatedErrors {
    type Err = String;

    /// Parses `FALSE_YES,FALSE_NO`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate = |text: &str| text.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
        let rates = text.split_once(',').and_then(|(yes, no)| Some((rate(yes)?, rate(no)?)));
        let (false_yes, false_no) =
            rates.ok_or_else(|| "needs two shares from 0 to 1, such as 0.02,0.05".to_owned())?;
        Ok(Self { false_yes, false_no })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verifier(false_yes: f64, false_no: f64) -> SimulatedVerifier {
        let known = |earlier: &[&str], text: &str, class: &str| KnownQuestion {
            earlier: earlier.iter().map(|turn| (*turn).to_owned()).collect(),
            text: text.to_owned(),
            class: class.to_owned(),
        };
        let questions = [
            known(&["Be brief."], "And on my phone?", "one"),
            known(&["Be brief.", "How do I save?"], "And on my phone?", "save"),
            known(&["Be brief.", "How do I save?"], "on a phone?", "save"),
            known(&["Be brief."], "another", "two"),
        ];
        let more = (0..2000).map(|n| known(&["Be brief."], &n.to_string(), ["even", "odd"][n % 2]));
        SimulatedVerifier::new(StatedErrors { false_yes, false_no }, questions.into_iter().chain(more))
    }

    fn call(new_question: &str, kept: &[&str], context: &str) -> VerificationCall {
        let kept: Vec<_> = kept.iter().map(|question| json!({"question": question, "answer": "x"})).collect();
        let message = json!({"new_question": new_question, "kept": kept, "context": context});
        VerificationCall::parse(&message.to_string()).unwrap()
    }

    #[test]
    fn without_errors_it_says_what_the_labels_say() {
        let verifier = verifier(0.0, 0.0);
        let context = "system: Be brief.\nuser: How do I save?\n";
        let all = call("And on my phone?", &["another", "on a phone?", "unknown"], context);
        assert_eq!(verifier.reply("m", &all), "2");
        assert_eq!(verifier.reply("m", &call("And on my phone?", &["another"], "system: Be brief.\n")), "0");
        assert_eq!(verifier.reply("m", &call("unknown", &["unknown"], "system: Be brief.\n")), "0");
        let counts = verifier.verdicts();
        assert_eq!((counts.different, counts.same, counts.false_yes + counts.false_no), (2, 1, 0));
        assert!(VerificationCall::parse("And on my phone?").is_none());
    }

    #[test]
    fn it_errs_at_its_rates_and_on_the_same_pairs_every_time() {
        let verifier = verifier(0.02, 0.05);
        let replies = |model: &str| -> Vec<String> {
            let ask = |n: usize| {
                let [a, b, c] = [n, n + 1, n + 2].map(|n| n.to_string());
                verifier.reply(model, &call(&a, &[&b, &c], "Be brief."))
            };
            (0..1998).map(ask).collect()
        };
        let (first, second, other) = (replies("m"), replies("m"), replies("n"));
        assert_eq!(first, second);
        assert_ne!(first, other);
        let counts = verifier.verdicts();
        assert_eq!((counts.different, counts.same), (3 * 1998, 3 * 1998));
        assert!((counts.false_yes_rate() - 0.02).abs() < 0.01, "{counts:?}");
        assert!((counts.false_no_rate() - 0.05).abs() < 0.015, "{counts:?}");
    }

    #[test]
    fn rates_are_read_in_pairs() {
        assert_eq!("0.02, 0.05".parse(), Ok(StatedErrors { false_yes: 0.02, false_no: 0.05 }));
        for wrong in ["", "0.02", "2,5", "0.1,0.1,0.1", "-0.1,0", "a,b", "NaN,0"] {
            assert!(wrong.parse::<StatedErrors>().is_err(), "{wrong}");
        }
    }
}
