//! Verification: asks a cheap model which of the kept answers fit a new question. The question is JSON, so that no text
//! of a caller can pretend to be the end of itself, and a reply that is not a list of numbers is never obeyed.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    OnAttempt, Upstreams,
    attempt::AttemptLog,
    call::Fault,
    catalog::{Catalog, Model},
    short_reply::{self, Question},
    tokens,
};
use crate::{
    model::{AttemptReason, AttemptResult, BreakerState, FittingSet, Tier, Usage, VerifierReply},
    prompt::Completion,
};

/// Maximum number of kept answers in one question.
pub const KEPT_MAX: usize = 4;

/// Token limit of a reply: enough for every number and its comma.
const REPLY_TOKENS_MAX: u32 = 16;
/// End of an answer that was cut. The instructions explain it.
const CUT_MARK: &str = " […]";

/// Which of the kept answers fit a new question? Holds texts of callers, so it must not be logged.
#[derive(Clone, Copy, Serialize)]
pub struct VerificationQuestion<'a> {
    /// System message of the call.
    #[serde(skip)]
    pub instructions: &'a str,
    pub new_question: &'a str,
    /// Most probable first; at most [`KEPT_MAX`].
    pub kept: &'a [KeptAnswer<'a>],
    /// System prompt and earlier turns, which the new question and the kept ones share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a str>,
}

/// A kept answer with its question.
#[derive(Clone, Copy, Serialize)]
pub struct KeptAnswer<'a> {
    pub question: &'a str,
    /// May be cut by [`cut_answer`].
    pub answer: &'a str,
}

/// A model that verifies.
#[derive(Clone, Debug)]
pub struct Verifier {
    model: Arc<Model>,
}

/// Time that a verification may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    /// Timeout of the call, after which the verifier has failed.
    pub timeout: Duration,
    /// Deadline of the request that waits, if one does. A call that it cuts short says nothing about the verifier.
    pub deadline: Option<Instant>,
}

// === impl Upstreams ===

impl Upstreams {
    /// The best model of this id or tier, preferring those whose breaker for verifications is not open.
    pub fn verifier(&self, name: &str) -> Option<Verifier> {
        choose(&self.catalog.load(), name, |_| true)
    }

    /// [`Self::verifier`] among the models whose provider also serves the model with the id `served`.
    pub fn verifier_beside(&self, name: &str, served: &str) -> Option<Verifier> {
        let catalog = self.catalog.load();
        choose(&catalog, name, |model| is_beside(&catalog, model, served))
    }

    /// Whether the verifier's provider also serves the model with this id, and so may see its texts anyway.
    pub fn serves(&self, verifier: &Verifier, model_id: &str) -> bool {
        is_beside(&self.catalog.load(), &verifier.model, model_id)
    }

    /// The model `routed`, to check the verifier `than`. `None` unless its tier is higher.
    pub fn better_verifier(&self, than: &Verifier, routed: &str) -> Option<Verifier> {
        let better = choose(&self.catalog.load(), routed, |_| true)?;
        better.model.tier().is_above(than.model.tier()).then_some(better)
    }

    /// Asks `verifier` once, without fallback.
    ///
    /// # Panics
    /// If the question has more than [`KEPT_MAX`] kept answers.
    pub async fn verify(
        &self,
        verifier: &Verifier,
        question: VerificationQuestion<'_>,
        limit: TimeLimit,
        on_attempt: OnAttempt,
    ) -> VerifierReply {
        assert!(question.kept.len() <= KEPT_MAX, "more than four kept answers");
        let model = &verifier.model;
        let log = AttemptLog::new(Some(on_attempt));
        let text = question.to_json();
        let tokens = tokens::estimate_texts([question.instructions, &text]);
        if tokens + u64::from(REPLY_TOKENS_MAX) > model.config.context_window {
            log.skip(model, AttemptReason::Verify, AttemptResult::OverWindow);
            return VerifierReply::Skipped;
        }
        let Some(permit) = model.state.verification_breaker.admit() else {
            log.skip(model, AttemptReason::Verify, AttemptResult::BreakerOpen);
            return VerifierReply::Unavailable;
        };
        let timeout_at = Instant::now() + limit.timeout;
        let deadline = limit.deadline.unwrap_or(timeout_at);
        let asked = Question {
            instructions: question.instructions,
            text,
            reply_tokens_max: REPLY_TOKENS_MAX,
            deadline,
            timeout: limit.timeout,
            reason: AttemptReason::Verify,
        };
        let catalog = self.catalog.load_full();
        let reply = match Box::pin(short_reply::ask(&catalog, model, asked, &log)).await {
            Ok(completion) => read(&completion, question.kept.len()),
            Err(fault) => reply_of(&fault),
        };
        match reply {
            VerifierReply::Fits(_) => permit.succeeded(),
            VerifierReply::TimedOut if deadline < timeout_at => drop(permit),
            _ => permit.failed(),
        }
        reply
    }
}

/// The best model of this id or tier that is allowed.
fn choose(catalog: &Catalog, name: &str, is_allowed: impl Fn(&Model) -> bool) -> Option<Verifier> {
    let tier = Tier::parse(name);
    let is_meant = |model: &&Arc<Model>| match tier {
        Some(tier) => model.tier() == tier,
        None => model.config.id == name,
    };
    let is_open = |model: &Model| model.state.verification_breaker.state() == BreakerState::Open;
    let models = catalog.models.iter().filter(is_meant).filter(|model| is_allowed(model));
    let best = models.min_by_key(|model| (is_open(model), model.rank()))?;
    Some(Verifier { model: Arc::clone(best) })
}

/// Whether the provider of `model` also serves the model with the id `served`.
fn is_beside(catalog: &Catalog, model: &Model, served: &str) -> bool {
    let is_meant =
        |other: &Arc<Model>| other.config.id == served && other.provider.name == model.provider.name;
    catalog.models.iter().any(is_meant)
}

fn read(completion: &Completion, kept: usize) -> VerifierReply {
    let is_whole = completion.is_complete() && completion.tool_calls.is_none();
    let fitting = parse(&completion.content, kept).filter(|_| is_whole);
    fitting.map_or(VerifierReply::Nonsense, VerifierReply::Fits)
}

/// Reads `0`, or different numbers from 1 to `kept` with commas between them. Spaces and a final full stop are ignored.
fn parse(reply: &str, kept: usize) -> Option<FittingSet> {
    let reply = reply.trim();
    let reply = reply.strip_suffix('.').unwrap_or(reply).trim_end();
    if reply == "0" {
        return Some(FittingSet::default());
    }
    let mut indices = Vec::with_capacity(kept);
    for number in reply.split(',') {
        let index = (0..kept).find(|index| number.trim_matches(' ') == (index + 1).to_string())?;
        if indices.contains(&index) {
            return None;
        }
        indices.push(index);
    }
    Some(indices.into_iter().collect())
}

fn reply_of(fault: &Fault) -> VerifierReply {
    match fault.result {
        AttemptResult::FirstTokenTimeout | AttemptResult::IdleTimeout | AttemptResult::Deadline => {
            VerifierReply::TimedOut
        }
        AttemptResult::TooLarge => VerifierReply::Nonsense,
        _ => VerifierReply::Unavailable,
    }
}

/// Cuts an answer to `bytes_max`, at a character, and marks the cut.
pub fn cut_answer(answer: &str, bytes_max: usize) -> Cow<'_, str> {
    if answer.len() <= bytes_max {
        return Cow::Borrowed(answer);
    }
    let room = bytes_max.saturating_sub(CUT_MARK.len());
    let end = (0..=room).rev().find(|end| answer.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(answer[..end].to_owned() + CUT_MARK)
}

// === impl VerificationQuestion ===

impl VerificationQuestion<'_> {
    /// Estimated tokens of the call's prompt.
    pub fn tokens(&self) -> u64 {
        tokens::estimate_texts([self.instructions, &self.to_json()])
    }

    /// The user message. Control tokens of chat templates, such as `<|im_end|>` and `[/INST]`, are escaped: servers that
    /// find them in a message may read them as the end of it.
    fn to_json(self) -> String {
        let json = serde_json::to_string(&self).expect("strings always serialise");
        let mut escaped = String::with_capacity(json.len());
        let mut chars = json.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '<' => escaped.push_str("\\u003c"),
                // JSON itself never has one before a letter or a slash.
                '[' if chars.peek().is_some_and(|next| next.is_ascii_alphabetic() || *next == '/') => {
                    escaped.push_str("\\u005b");
                }
                c => escaped.push(c),
            }
        }
        escaped
    }
}

// === impl Verifier ===

impl Verifier {
    /// Id of the model.
    pub fn id(&self) -> &str {
        &self.model.config.id
    }

    /// Name of the provider.
    pub fn provider(&self) -> &str {
        &self.model.provider.name
    }

    /// Cost of a call in US dollars.
    pub fn usd(&self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        self.model.price(Usage { prompt_tokens, completion_tokens, ..Usage::default() }).cost_usd
    }

    /// Whether the model is not asked, because it has failed to verify.
    pub fn is_open(&self) -> bool {
        self.model.state.verification_breaker.state() == BreakerState::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kept_answers_are_read() {
        let fitting = |reply| {
            parse(reply, 4).map(|set| (0..4).filter(|index| set.contains(*index)).collect::<Vec<_>>())
        };
        for (reply, expected) in [
            ("0", vec![]),
            (" 0.\n", vec![]),
            ("1", vec![0]),
            ("4", vec![3]),
            ("1,3", vec![0, 2]),
            ("\n3, 1 .\r\n", vec![0, 2]),
            ("1,2,3,4.", vec![0, 1, 2, 3]),
        ] {
            assert_eq!(fitting(reply), Some(expected), "{reply:?}");
        }
    }

    #[test]
    fn every_other_reply_is_nonsense() {
        for reply in [
            "",
            ".",
            ",",
            " ",
            "yes",
            "1 fits",
            "1 and 2",
            "1 2",
            "12",
            "01",
            "+1",
            "-1",
            "1.0",
            "5",
            "7",
            "0,1",
            "1,0",
            "0,0",
            "1,1",
            "1,",
            ",1",
            "1,,2",
            "1..",
            "**1**",
            "`1`",
            "\"1\"",
            "[1]",
            "1\n\n2",
            "1,\n2",
            "#1",
            "1)",
            "１",
            "٣",
            "1\u{200b}",
            "{\"fits\":1}",
            "1;2",
        ] {
            assert_eq!(parse(reply, 4), None, "{reply:?}");
        }
        assert_eq!(parse("2", 1), None, "only one answer was kept");
        assert_eq!(parse("1", 0), None);
    }

    #[test]
    fn the_question_is_json_with_the_keys_in_order() {
        let kept = [
            KeptAnswer { question: "a?", answer: "say \"b\"\n" },
            KeptAnswer { question: "c?", answer: "d" },
        ];
        let question =
            VerificationQuestion { instructions: "i", new_question: "n?", kept: &kept, context: None };
        let expected = r#"{"new_question":"n?","kept":[{"question":"a?","answer":"say \"b\"\n"},{"question":"c?","answer":"d"}]}"#;
        assert_eq!(question.to_json(), expected);
        let with_context = VerificationQuestion { context: Some("e"), kept: &[], ..question };
        assert_eq!(with_context.to_json(), r#"{"new_question":"n?","kept":[],"context":"e"}"#);
    }

    /// Servers with a chat template split the text of a message at such words.
    #[test]
    fn control_tokens_of_chat_templates_are_escaped() {
        let text = "<|im_end|>\\<s> [/INST] [INST] a[0] [[x]] [";
        let question =
            VerificationQuestion { instructions: "", new_question: text, kept: &[], context: None };
        let json = question.to_json();
        assert_eq!(
            json,
            r#"{"new_question":"\u003c|im_end|>\\\u003cs> \u005b/INST] \u005bINST] a[0] [\u005bx]] [","kept":[]}"#
        );
        let decoded: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(decoded["new_question"], text);
    }

    #[test]
    fn answers_are_cut_between_characters() {
        assert_eq!(cut_answer("short", 5), "short");
        assert_eq!(cut_answer("longer text", 10), "long […]");
        assert_eq!(cut_answer("äöü äöü", 10), "äö […]");
        assert_eq!(cut_answer("abc", 1), " […]");
        for bytes_max in 6..40 {
            let cut =
                cut_answer("Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.", bytes_max);
            assert!(cut.len() <= bytes_max && cut.ends_with(CUT_MARK), "{cut}");
        }
    }
}
