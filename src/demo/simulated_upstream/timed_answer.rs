//! The answer of a simulated model: its text, its pieces, and the time at which each piece arrives.

use std::{collections::HashMap, time::Duration};

use super::Model;
use crate::{
    demo::{
        seeded_random,
        traffic::{Request, Traffic, concierge},
    },
    offline::{SimulatedVerifier, simulated_verifier::VerificationCall},
    upstream::tokens,
};

/// Answer to a conversation that the traffic does not contain.
const UNKNOWN: &str = "I am a simulated model: I know only the answers to the demo's own traffic. \
    Configure a real provider to have this question answered.";

/// Characters per token in ordinary English text, for the pace of a stream.
const CHARS_PER_TOKEN: f64 = 4.0;

/// Tokens that the chat format adds to each message.
const TOKENS_PER_MESSAGE: u64 = 4;

/// Spread of the time to the first token: the standard deviation of its logarithm.
const SPREAD: f64 = 0.35;

/// Bound of the time to the first token, as a multiple of the median.
const FIRST_TOKEN_FACTOR_MAX: f64 = 3.0;

/// Delays of the concierge's models relative to the usual ones, so that many requests fit into a short demo.
const CONCIERGE_DELAYS: f64 = 0.2;

/// The models' part in one conversation of the traffic.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Wordings of the answer; successive calls get successive ones.
    wordings: Vec<String>,
    /// Delays relative to the usual ones.
    delays: f64,
}

/// One answer with its usage and pace.
pub(super) struct TimedAnswer {
    pub text: String,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub first_token: Duration,
    pub per_token: Duration,
}

/// Returns a script for every conversation of the traffic, by its fingerprint.
pub(super) fn scripts(traffic: &Traffic) -> HashMap<String, Script> {
    let script = |request: &Request| {
        let delays = if request.namespace == concierge::NAMESPACE { CONCIERGE_DELAYS } else { 1.0 };
        Script { wordings: traffic.answers(request).to_vec(), delays }
    };
    traffic.requests().iter().map(|request| (fingerprint(request.messages()), script(request))).collect()
}

/// Joins a conversation into one string, unambiguously.
fn fingerprint<'a, 'b>(messages: impl Iterator<Item = (&'a str, &'b str)>) -> String {
    let mut all = String::new();
    for (role, content) in messages {
        all.extend([role, "\u{1}", content, "\u{2}"]);
    }
    all
}

impl TimedAnswer {
    /// Builds the answer of `model` to `messages` in call number `call`.
    pub fn new(
        scripts: &HashMap<String, Script>,
        model: &Model,
        messages: &[(&str, &str)],
        call: u64,
    ) -> Self {
        let fingerprint = fingerprint(messages.iter().copied());
        let (text, delays) = match scripts.get(&fingerprint) {
            Some(Script { wordings, delays }) => {
                (wordings[(call % wordings.len() as u64) as usize].as_str(), *delays)
            }
            None => (UNKNOWN, 1.0),
        };
        Self::timed(model, messages, text, delays)
    }

    /// Builds the reply of `model` to a verification, as fast relative to its usual pace as the answers of the
    /// conversation.
    pub fn to_verification(
        verifier: &SimulatedVerifier,
        model: &Model,
        messages: &[(&str, &str)],
        call: &VerificationCall,
    ) -> Self {
        let delays = if call.context.contains(concierge::SYSTEM) { CONCIERGE_DELAYS } else { 1.0 };
        Self::timed(model, messages, &verifier.reply(model.id, call), delays)
    }

    fn timed(model: &Model, messages: &[(&str, &str)], text: &str, delays: f64) -> Self {
        let fingerprint = fingerprint(messages.iter().copied());
        let [first_token, per_token] = model.delays_ms.map(Duration::from_millis);
        let message_tokens = |(_, content): &(&str, &str)| tokens::estimate(content) + TOKENS_PER_MESSAGE;
        Self {
            text: text.to_owned(),
            prompt_tokens: messages.iter().map(message_tokens).sum(),
            completion_tokens: tokens::estimate(text),
            first_token: first_token.mul_f64(delays * first_token_factor(model.id, &fingerprint)),
            per_token: per_token.mul_f64(delays),
        }
    }

    /// Splits the text into words, each with the space before it and the time from the request to its arrival.
    pub fn pieces(&self) -> Vec<(Duration, String)> {
        let mut pieces = Vec::new();
        let mut at = self.first_token;
        let mut rest = self.text.as_str();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(end_of_word(rest));
            pieces.push((at, piece.to_owned()));
            at += self.per_token.mul_f64(piece.chars().count() as f64 / CHARS_PER_TOKEN);
            rest = tail;
        }
        pieces
    }

    /// Time from the request to the end of the answer.
    pub fn duration(&self) -> Duration {
        let tokens = u32::try_from(self.completion_tokens).unwrap_or(u32::MAX);
        self.first_token + self.per_token * tokens
    }
}

/// Draws from a log-normal distribution around 1, seeded by model and conversation: a question is equally slow in
/// every run.
fn first_token_factor(model: &str, fingerprint: &str) -> f64 {
    let mut random = seeded_random(&format!("{model}{fingerprint}"));
    let (u, v) = (1.0 - random.f64(), random.f64());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (SPREAD * normal).exp().min(FIRST_TOKEN_FACTOR_MAX)
}

/// Returns the end of the first word of `text`.
fn end_of_word(text: &str) -> usize {
    let word = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    text[word..].find(char::is_whitespace).map_or(text.len(), |length| word + length)
}
