//! Single-word replies: asks one model a question whose reply is one of a few known words. No fallback is
//! tried, since callers can go on without the reply.

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
    prompt::{Message, Prompt, Role},
};

/// Token limit of a reply: a longer one is no single word.
const REPLY_TOKENS_MAX: u32 = 5;
const REPLY_BYTES_MAX: usize = 4096;

/// A question to one model.
pub(super) struct Question<'a> {
    /// System message; says which words are allowed.
    pub instructions: &'a str,
    pub text: String,
    /// Deadline of the request that asks.
    pub deadline: Instant,
    pub timeout: Duration,
    pub reason: AttemptReason,
}

/// Asks `model`. Returns `None` when its breaker is open, or it fails or times out.
pub(super) async fn ask(
    catalog: &Catalog,
    model: &Arc<Model>,
    question: Question<'_>,
    log: &Arc<AttemptLog>,
) -> Option<String> {
    let permit = model.state.breaker.admit()?;
    let Question { instructions, text, deadline, timeout, reason } = question;
    let limits = Limits {
        deadline: deadline.min(Instant::now() + timeout),
        first_token_timeout: timeout,
        idle_timeout: timeout,
        answer_max: REPLY_BYTES_MAX,
    };
    let prompt = prompt(instructions, text);
    let meter = Meter::start(Arc::clone(model), reason, tokens::estimate_prompt(&prompt), Arc::clone(log));
    match call(catalog, model, &prompt, limits).await {
        Ok(started) => {
            permit.succeeded();
            read(Answer::new(started, meter)).await
        }
        Err(fault) => {
            fault.settle(permit);
            meter.fail(fault.result);
            None
        }
    }
}

/// Finds the one of `words` that makes up the reply, ignoring case and surrounding punctuation.
pub(super) fn parse<'a>(reply: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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

async fn read(mut answer: Answer) -> Option<String> {
    while answer.next().await.ok()?.is_some() {}
    let (completion, _) = answer.finish();
    Some(completion.content)
}

fn prompt(instructions: &str, text: String) -> Prompt {
    let message = |role, content| Message { role, content, name: None, tool_call_id: None, tool_calls: None };
    Prompt {
        messages: vec![message(Role::System, instructions.to_owned()), message(Role::User, text)],
        temperature: Some(0.0),
        max_tokens: Some(REPLY_TOKENS_MAX),
        ..Prompt::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_known_word_is_accepted() {
        for reply in ["no", " No.\n", "**no**", "\"NO\""] {
            assert_eq!(parse(reply, ["yes", "no"]), Some("no"), "{reply}");
        }
        for reply in ["", "nope", "yes or no", "It is no", "nein", "42"] {
            assert_eq!(parse(reply, ["yes", "no"]), None, "{reply}");
        }
    }
}
