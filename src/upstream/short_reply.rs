//! Short replies: asks one model a question whose reply is a word or a few numbers. No fallback is tried, since
//! callers can go on without the reply.

use std::{sync::Arc, time::Duration};

use reqwest::header::HeaderMap;
use tokio::time::Instant;

use super::{
    answer::{Answer, StartedReply},
    attempt::{AttemptLog, Meter},
    call::{self, Fault, Limits},
    catalog::{Catalog, Model},
    tokens,
};
use crate::{
    model::AttemptReason,
    prompt::{Completion, Message, Prompt, Role},
};

/// Maximum size of a reply in bytes; providers do not have to keep to the token limit.
const REPLY_BYTES_MAX: usize = 4096;

/// A question to one model.
pub(super) struct Question<'a> {
    /// System message; says which replies are allowed.
    pub instructions: &'a str,
    pub text: String,
    /// Token limit of the reply.
    pub reply_tokens_max: u32,
    /// Deadline of the request that asks.
    pub deadline: Instant,
    pub timeout: Duration,
    pub reason: AttemptReason,
}

/// Asks `model` and reads the whole reply. The caller holds the permit of a breaker, and settles it.
pub(super) async fn ask(
    catalog: &Catalog,
    model: &Arc<Model>,
    question: Question<'_>,
    log: &Arc<AttemptLog>,
) -> Result<Completion, Fault> {
    let Question { instructions, text, reply_tokens_max, deadline, timeout, reason } = question;
    let limits = Limits {
        deadline: deadline.min(Instant::now() + timeout),
        first_token_timeout: timeout,
        idle_timeout: timeout,
        answer_max: REPLY_BYTES_MAX,
        quarantine: catalog.limits.quarantine,
    };
    let prompt = prompt(instructions, text, reply_tokens_max);
    let meter = Meter::start(Arc::clone(model), reason, tokens::estimate_prompt(&prompt), Arc::clone(log));
    match call(catalog, model, &prompt, limits).await {
        Ok(started) => read(Answer::new(started, meter)).await,
        Err(fault) => {
            meter.fail(fault.result);
            Err(fault)
        }
    }
}

/// Finds the one of `words` that makes up the reply, ignoring case and surrounding punctuation.
pub(super) fn parse_word<'a>(reply: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = reply.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase();
    words.into_iter().find(|known| *known == word)
}

async fn call(
    catalog: &Catalog,
    model: &Model,
    prompt: &Prompt,
    limits: Limits,
) -> Result<StartedReply, Fault> {
    let reply = call::send(&catalog.client, model, prompt, &HeaderMap::new(), limits).await?;
    StartedReply::read(reply, limits.deadline, limits).await
}

async fn read(mut answer: Answer) -> Result<Completion, Fault> {
    while answer.try_next().await?.is_some() {}
    Ok(answer.finish().0)
}

fn prompt(instructions: &str, text: String, reply_tokens_max: u32) -> Prompt {
    let message = |role, content| Message::new(role, content);
    Prompt {
        messages: vec![message(Role::System, instructions.to_owned()), message(Role::User, text)],
        temperature: Some(0.0),
        max_tokens: Some(reply_tokens_max),
        ..Prompt::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_known_word_is_accepted() {
        for reply in ["no", " No.\n", "**no**", "\"NO\""] {
            assert_eq!(parse_word(reply, ["yes", "no"]), Some("no"), "{reply}");
        }
        for reply in ["", "nope", "yes or no", "It is no", "nein", "42"] {
            assert_eq!(parse_word(reply, ["yes", "no"]), None, "{reply}");
        }
    }
}
