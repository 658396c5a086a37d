//! An answer in the making: hands on what the model says as it comes, and gathers it.

use std::{collections::VecDeque, fmt, mem};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Attempt, AttemptResult, Tier,
    attempt::Meter,
    call::{Fault, Limits},
    openai::{Chunk, ReportedUsage, ToolCalls},
    reply::Reply,
    tokens,
};
use crate::{
    error::Error,
    model::Usage,
    prompt::{Completion, Delta, FinishReason},
};

/// An answer whose first token has come. Dropping it cancels the call.
pub struct Answer {
    begun: Begun,
    meter: Meter,
}

/// A reply that has its first token, or is whole and empty.
#[derive(Debug)]
pub(super) struct Begun {
    reply: Reply,
    gathered: Gathered,
    /// Deltas read but not yet handed on.
    ready: VecDeque<Delta>,
    /// The provider has said that the answer is whole.
    ended: bool,
}

/// What the model has said so far.
#[derive(Debug, Default)]
struct Gathered {
    text: String,
    tool_calls: ToolCalls,
    tool_call_bytes: usize,
    finish: Option<FinishReason>,
    usage: Option<ReportedUsage>,
    /// Largest answer, in bytes.
    bytes_max: usize,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(begun: Begun, meter: Meter) -> Self {
        Self { begun, meter }
    }

    /// Id of the model that answers.
    pub fn model(&self) -> &str {
        &self.meter.model.config.id
    }

    /// Tier of the model that answers.
    pub fn tier(&self) -> Tier {
        self.meter.model.tier()
    }

    /// Gives the answer more time than whoever asked for it had; a deadline that is sooner changes nothing.
    pub fn extend_deadline(&mut self, deadline: Instant) {
        self.begun.reply.extend_deadline(deadline);
    }

    /// Calls of this request that have ended: the failed ones, and the one that lost a race.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.meter.attempts()
    }

    /// The next piece; `None` when the model has said that the answer is whole. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::DeadlineExceeded`] when the answer broke off. What came until
    /// then is not an answer.
    pub async fn next(&mut self) -> Result<Option<Delta>, Error> {
        while self.begun.ready.is_empty() && !self.begun.ended {
            if self.meter.has_ended() {
                return Err(self.broken_off(AttemptResult::Broken));
            }
            let step = self.begun.reply.next().await;
            if let Err(fault) = step.and_then(|chunk| self.begun.take(chunk)) {
                if fault.blames_the_model() {
                    self.meter.model.state.breaker.record_failure();
                }
                self.meter.end(fault.result, self.usage());
                return Err(self.broken_off(fault.result));
            }
        }
        Ok(self.begun.ready.pop_front())
    }

    /// The whole answer and every call it took. Call it after [`Answer::next`] has returned `None`; what
    /// was not read by then is lost, the call cancelled and the answer marked as not whole.
    pub fn finish(mut self) -> (Completion, Vec<Attempt>) {
        let usage = self.usage();
        let is_whole = self.begun.ended && self.begun.ready.is_empty();
        self.meter.end(if is_whole { AttemptResult::Ok } else { AttemptResult::Cancelled }, usage);
        let gathered = mem::take(&mut self.begun.gathered);
        let tool_calls = gathered.tool_calls.into_value();
        let finish_reason = match gathered.finish {
            _ if !is_whole => FinishReason::Other("unread".to_owned()),
            Some(reason) => reason,
            None if tool_calls.is_some() => FinishReason::ToolCalls,
            None => FinishReason::Stop,
        };
        let completion = Completion {
            content: gathered.text,
            tool_calls,
            finish_reason,
            model: self.model().to_owned(),
            tier: self.tier().as_str().to_owned(),
            usage,
        };
        (completion, self.attempts())
    }

    /// The first token is out, so no other model may go on.
    fn broken_off(&self, result: AttemptResult) -> Error {
        let attempts = self.attempts();
        match result {
            AttemptResult::Deadline => Error::DeadlineExceeded { attempts },
            _ => Error::Unavailable { message: "the answer broke off", attempts },
        }
    }

    fn usage(&self) -> Usage {
        let gathered = &self.begun.gathered;
        let model = &self.meter.model;
        let believed = gathered.usage.filter(|usage| gathered.believes(*usage, model.config.context_window));
        model.price(Usage {
            prompt_tokens: believed.map_or(self.meter.prompt_tokens, |usage| usage.prompt_tokens),
            completion_tokens: believed
                .map_or_else(|| gathered.estimate_tokens(), |usage| usage.completion_tokens),
            cost_usd: 0.0,
            estimated: believed.is_none(),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.meter.has_ended() {
            let usage = self.usage();
            self.meter.end(AttemptResult::Cancelled, usage);
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("model", &self.model()).finish_non_exhaustive()
    }
}

// === impl Begun ===

impl Begun {
    /// Reads until the first token, or the end of an empty answer.
    pub async fn read(reply: Reply, mut until: Instant, limits: Limits) -> Result<Self, Fault> {
        let gathered = Gathered { bytes_max: limits.answer_max, ..Gathered::default() };
        let mut begun = Self { reply, gathered, ready: VecDeque::new(), ended: false };
        while begun.ready.is_empty() && !begun.ended {
            let chunk = begun.reply.next_until(until, AttemptResult::FirstTokenTimeout).await?;
            if chunk.as_ref().is_some_and(|chunk| chunk.is_thinking) {
                // A model that thinks aloud before its first token is slow, not dead.
                until = until.max(Instant::now() + limits.idle_timeout);
            }
            begun.take(chunk)?;
        }
        Ok(begun)
    }

    fn take(&mut self, chunk: Option<Chunk>) -> Result<(), Fault> {
        match chunk {
            Some(chunk) => self.gathered.add(chunk, &mut self.ready),
            None => {
                self.ended = true;
                Ok(())
            }
        }
    }
}

// === impl Gathered ===

impl Gathered {
    fn add(&mut self, chunk: Chunk, ready: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let Chunk { text, tool_calls, finish, usage, is_thinking: _ } = chunk;
        if let Some(text) = text {
            self.check_room(text.len())?;
            self.text.push_str(&text);
            ready.push_back(Delta::Text(text));
        }
        if let Some(mut pieces) = tool_calls {
            let bytes = pieces.iter().map(json_bytes).sum();
            self.check_room(bytes)?;
            self.tool_call_bytes += bytes;
            self.tool_calls.add(&mut pieces).map_err(|_| Fault::next(AttemptResult::Malformed))?;
            ready.push_back(Delta::ToolCalls(Value::Array(pieces)));
        }
        self.finish = finish.or(self.finish.take());
        self.usage = usage.or(self.usage);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), Fault> {
        let bytes = self.text.len() + self.tool_call_bytes + more;
        if bytes > self.bytes_max { Err(Fault::next(AttemptResult::TooLarge)) } else { Ok(()) }
    }

    /// Whether a usage block can be true. Hidden reasoning may cost more tokens than the text has, but a
    /// text of more than a few bytes cannot come from none, and nothing exceeds the context window.
    fn believes(&self, usage: ReportedUsage, context_window: u64) -> bool {
        let ReportedUsage { prompt_tokens, completion_tokens } = usage;
        let said_something = !self.text.is_empty() || self.tool_call_bytes > 0;
        let fits = prompt_tokens.saturating_add(completion_tokens) <= context_window;
        fits && prompt_tokens > 0 && (completion_tokens > 0 || !said_something)
    }

    fn estimate_tokens(&self) -> u64 {
        tokens::estimate(&self.text) + self.tool_call_bytes as u64 / 4
    }
}

fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + json_bytes(value)).sum(),
        _ => 8,
    }
}
