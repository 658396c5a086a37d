//! What a simulated model says, and how slowly: the lookup of the answer, its pieces, their delays.

use std::{collections::HashMap, time::Duration};

use crate::demo::traffic::{Request, Traffic, concierge};

use super::{Known, Model};

/// The answer to a conversation that is not of the traffic.
const UNKNOWN: &str = "I am a simulated model: I know only the answers to the demo's own traffic. \
    Configure a real provider to have this question answered.";

/// Characters per token in ordinary English text: the usual rule of thumb, good enough for a bill.
const CHARS_PER_TOKEN: usize = 4;

/// Tokens that a chat format adds for each message.
const TOKENS_PER_MESSAGE: u64 = 4;

/// Spread of the time to the first token, as the standard deviation of its logarithm.
const SPREAD: f64 = 0.35;

/// The first token comes after at most this multiple of the median.
const FIRST_TOKEN_FACTOR_MAX: f64 = 3.0;

/// The concierge's models are this much faster than others, so that many requests fit into a short demo.
const CONCIERGE_DELAYS: f64 = 0.2;

/// One answer, ready to be told.
pub(super) struct Telling {
    pub text: String,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub first_token: Duration,
    pub per_token: Duration,
}

/// All that the traffic asks, by the fingerprint of the conversation.
pub(super) fn all(traffic: &Traffic) -> HashMap<String, Known> {
    let known = |request: &Request| {
        let delays = if request.namespace == concierge::NAMESPACE { CONCIERGE_DELAYS } else { 1.0 };
        Known { answers: traffic.answers(request).to_vec(), delays }
    };
    traffic.requests().iter().map(|request| (fingerprint(request.messages()), known(request))).collect()
}

/// One string per conversation, for a table in memory.
pub(super) fn fingerprint<'a, 'b>(messages: impl Iterator<Item = (&'a str, &'b str)>) -> String {
    let mut all = String::new();
    for (role, content) in messages {
        all.extend([role, "\u{1}", content, "\u{2}"]);
    }
    all
}

/// Prepares what `model` says to `messages` in call number `call`.
pub(super) fn tell(
    known: &HashMap<String, Known>,
    model: &Model,
    messages: &[(&str, &str)],
    call: u64,
) -> Telling {
    let fingerprint = fingerprint(messages.iter().copied());
    let known = known.get(&fingerprint);
    let text = known.map_or(UNKNOWN, |known| known.wording(call)).to_owned();
    let delays = known.map_or(1.0, |known| known.delays);
    Telling {
        prompt_tokens: messages.iter().map(|(_, content)| tokens(content) + TOKENS_PER_MESSAGE).sum(),
        completion_tokens: tokens(&text),
        first_token: model.first_token.mul_f64(delays * first_token_factor(model.id, &fingerprint)),
        per_token: model.per_token.mul_f64(delays),
        text,
    }
}

/// Log-normal around 1, from a seed made of model and conversation: the same question is equally slow
/// in every run.
fn first_token_factor(model: &str, fingerprint: &str) -> f64 {
    let hash = blake3::Hasher::new().update(model.as_bytes()).update(fingerprint.as_bytes()).finalize();
    let seed = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    let mut random = fastrand::Rng::with_seed(seed);
    let (u, v) = (1.0 - random.f64(), random.f64());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (SPREAD * normal).exp().min(FIRST_TOKEN_FACTOR_MAX)
}

fn tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(CHARS_PER_TOKEN) as u64
}

// === impl Known ===

impl Known {
    fn wording(&self, call: u64) -> &str {
        &self.answers[(call % self.answers.len() as u64) as usize]
    }
}

// === impl Telling ===

impl Telling {
    /// The text in pieces, each with the time from the request to its arrival. A piece is a word and
    /// the space before it.
    pub fn pieces(&self) -> Vec<(Duration, String)> {
        let mut pieces = Vec::new();
        let mut at = self.first_token;
        let mut rest = self.text.as_str();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(end_of_word(rest));
            pieces.push((at, piece.to_owned()));
            at += self.per_token.mul_f64(piece.chars().count() as f64 / CHARS_PER_TOKEN as f64);
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

/// Where the white space after the first word begins.
fn end_of_word(text: &str) -> usize {
    let word = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    text[word..].find(char::is_whitespace).map_or(text.len(), |length| word + length)
}
