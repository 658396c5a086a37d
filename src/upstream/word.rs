//! Asks one model for one word, of which it is then known what it means: how difficult a prompt is, whether
//! an answer fits two questions. No other model is tried: whoever asks can do without.

use std::{sync::Arc, time::Duration};

use reqwest::header::HeaderMap;
use tokio::time::Instant;

use super::{
    AttemptReason,
    answer::{Answer, Begun},
    attempt::{AttemptLog, Meter},
    call::{self, Fault, Limits},
    catalog::{Catalog, Model},
    openai, tokens,
};
use crate::prompt::{Message, Prompt, Role};

/// Anything longer is not one word.
const WORD_TOKENS_MAX: u32 = 5;
const REPLY_BYTES_MAX: usize = 4096;

/// What a model is asked, and for how long.
pub(super) struct Question<'a> {
    /// What the word is to say.
    pub instructions: &'a str,
    pub text: String,
    pub deadline: Instant,
    pub timeout: Duration,
    pub reason: AttemptReason,
}

/// Asks `model`; `None` when it does not answer in time, or may not be called now.
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
        Ok(begun) => {
            permit.succeeded();
            read(Answer::new(begun, meter)).await
        }
        Err(fault) => {
            fault.judge(permit);
            meter.fail(fault.result);
            None
        }
    }
}

/// The word among `words` that a reply is, whatever stands around it; anything else is none of them.
pub(super) fn only<'a>(reply: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = reply.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase();
    words.into_iter().find(|known| *known == word)
}

async fn call(catalog: &Catalog, model: &Model, prompt: &Prompt, limits: Limits) -> Result<Begun, Fault> {
    let body = openai::encode(prompt, model.name_at_provider());
    let reply = call::send(&catalog.client, model, (body, &HeaderMap::new()), limits).await?;
    Begun::read(reply, limits.deadline, limits).await
}

async fn read(mut answer: Answer) -> Option<String> {
    while answer.next().await.ok()?.is_some() {}
    let (completion, _) = answer.finish();
    Some(completion.content)
}

fn prompt(instructions: &str, text: String) -> Prompt {
    let turn = |role, content| Message { role, content, name: None, tool_call_id: None, tool_calls: None };
    Prompt {
        namespace: String::new(),
        model: String::new(),
        messages: vec![turn(Role::System, instructions.to_owned()), turn(Role::User, text)],
        temperature: Some(0.0),
        top_p: None,
        max_tokens: Some(WORD_TOKENS_MAX),
        stop: Vec::new(),
        seed: None,
        response_format: None,
        tools: None,
        tool_choice: None,
        vary: Default::default(),
        extra: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_known_word_counts() {
        for reply in ["no", " No.\n", "**no**", "\"NO\""] {
            assert_eq!(only(reply, ["yes", "no"]), Some("no"), "{reply}");
        }
        for reply in ["", "nope", "yes or no", "It is no", "nein", "42"] {
            assert_eq!(only(reply, ["yes", "no"]), None, "{reply}");
        }
    }
}
