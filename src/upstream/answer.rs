//! The answer of a model: hands on its pieces as they arrive, and accumulates the completion.

use std::{collections::VecDeque, fmt, mem};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    attempt::{self, Meter},
    call::{Fault, Limits},
    openai::{Chunk, ReportedUsage, ToolCalls, merge_fields},
    reply::Reply,
    tokens,
};
use crate::{
    error::Error,
    model::{Attempt, AttemptResult, Tier, Usage},
    prompt::{Completion, Delta, FinishReason, Reasoning, ReplyFields},
};

/// An answer that has sent its first token. Dropping it cancels the call.
pub struct Answer {
    started: StartedReply,
    meter: Meter,
}

/// A reply that has sent its first token, or is complete and empty.
#[derive(Debug)]
pub(super) struct StartedReply {
    reply: Reply,
    partial: PartialCompletion,
    /// Deltas read but not yet handed on.
    ready: VecDeque<Delta>,
    /// The provider has sent the end mark.
    ended: bool,
}

/// The completion received so far.
#[derive(Debug, Default)]
struct PartialCompletion {
    text: String,
    reasoning: Option<Reasoning>,
    refusal: Option<String>,
    tool_calls: ToolCalls,
    tool_call_bytes: usize,
    fields: ReplyFields,
    /// Size of all the above.
    bytes: usize,
    finish: Option<FinishReason>,
    usage: Option<ReportedUsage>,
    /// Largest answer, in bytes.
    bytes_max: usize,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(started: StartedReply, meter: Meter) -> Self {
        Self { started, meter }
    }

    /// Id of the model that answers.
    pub fn model(&self) -> &str {
        &self.meter.model.config.id
    }

    /// Tier of the model that answers.
    pub fn tier(&self) -> Tier {
        self.meter.model.tier()
    }

    /// Extends the deadline beyond that of the request; an earlier deadline changes nothing.
    pub fn extend_deadline(&mut self, deadline: Instant) {
        self.started.reply.extend_deadline(deadline);
    }

    /// The request's attempts that have ended: failed ones, and the loser of a hedge.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.meter.attempts()
    }

    /// The next piece, or `None` once the answer is complete. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::DeadlineExceeded`] when the answer broke off. The pieces received
    /// until then are not an answer.
    pub async fn next(&mut self) -> Result<Option<Delta>, Error> {
        let had_ended = self.meter.has_ended();
        self.try_next().await.map_err(|fault| {
            if !had_ended && fault.is_models_failure() {
                self.meter.model.state.breaker.record_failure();
            }
            attempt::broken_off(fault.result, self.attempts())
        })
    }

    /// [`Self::next`] without counting a failure at the model's breaker: its permit is not settled yet.
    pub(super) async fn try_next(&mut self) -> Result<Option<Delta>, Fault> {
        while self.started.ready.is_empty() && !self.started.ended {
            if self.meter.has_ended() {
                return Err(Fault::broken());
            }
            let step = self.started.reply.next().await;
            if let Err(fault) = step.and_then(|chunk| self.started.take(chunk)) {
                self.meter.end(fault.result, self.usage());
                return Err(fault);
            }
        }
        Ok(self.started.ready.pop_front())
    }

    /// The completion and the attempts it took. Call it after [`Answer::next`] has returned `None`; otherwise
    /// the call is cancelled and the completion is marked as unread.
    pub fn finish(mut self) -> (Completion, Vec<Attempt>) {
        let usage = self.usage();
        let is_whole = self.started.ended && self.started.ready.is_empty();
        if let Some(reason) = &self.started.partial.finish {
            reason.as_str().clone_into(&mut self.meter.finish_reason);
        }
        self.meter.end(if is_whole { AttemptResult::Ok } else { AttemptResult::Cancelled }, usage);
        let partial = mem::take(&mut self.started.partial);
        let tool_calls = partial.tool_calls.into_value();
        let finish_reason = match partial.finish {
            _ if !is_whole => FinishReason::Other("unread".to_owned()),
            Some(reason) => reason,
            None if tool_calls.is_some() => FinishReason::ToolCalls,
            None => FinishReason::Stop,
        };
        let completion = Completion {
            content: partial.text,
            reasoning: partial.reasoning,
            refusal: partial.refusal,
            tool_calls,
            finish_reason,
            model: self.model().to_owned(),
            tier: self.tier().as_str().to_owned(),
            usage,
            extra: partial.fields,
        };
        (completion, self.attempts())
    }

    fn usage(&self) -> Usage {
        let partial = &self.started.partial;
        let model = &self.meter.model;
        let reported =
            partial.usage.filter(|usage| partial.is_plausible(*usage, model.config.context_window));
        model.price(reported.map_or_else(|| partial.estimate(self.meter.prompt_tokens), Usage::from))
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

// === impl StartedReply ===

impl StartedReply {
    /// Reads until the first token, or the end of an empty answer.
    pub async fn read(reply: Reply, mut until: Instant, limits: Limits) -> Result<Self, Fault> {
        let partial = PartialCompletion { bytes_max: limits.answer_max, ..Default::default() };
        let mut started = Self { reply, partial, ready: VecDeque::new(), ended: false };
        while started.ready.is_empty() && !started.ended {
            let chunk = started.reply.next_until(until, AttemptResult::FirstTokenTimeout).await?;
            if chunk.as_ref().is_some_and(|chunk| chunk.is_thinking) {
                // A model that reasons before its first token is slow, not dead.
                until = until.max(Instant::now() + limits.idle_timeout);
            }
            started.take(chunk)?;
        }
        Ok(started)
    }

    fn take(&mut self, chunk: Option<Chunk>) -> Result<(), Fault> {
        match chunk {
            Some(chunk) => self.partial.add(chunk, &mut self.ready),
            None => {
                self.ended = true;
                Ok(())
            }
        }
    }
}

// === impl PartialCompletion ===

impl PartialCompletion {
    fn add(&mut self, chunk: Chunk, ready: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let Chunk { reasoning, text, refusal, tool_calls, finish, usage, is_thinking: _, fields } = chunk;
        if let Some(more) = reasoning {
            self.take_room(more.text.len())?;
            let reasoning =
                self.reasoning.get_or_insert_with(|| Reasoning { text: String::new(), field: more.field });
            reasoning.text.push_str(&more.text);
            reasoning.field = reasoning.field.and(more.field);
            ready.push_back(Delta::Reasoning(more));
        }
        if let Some(text) = text {
            self.take_room(text.len())?;
            self.text.push_str(&text);
            ready.push_back(Delta::Text(text));
        }
        if let Some(refusal) = refusal {
            self.take_room(refusal.len())?;
            self.refusal.get_or_insert_default().push_str(&refusal);
            ready.push_back(Delta::Refusal(refusal));
        }
        if let Some(mut pieces) = tool_calls {
            let bytes = pieces.iter().map(json_bytes).sum();
            self.take_room(bytes)?;
            self.tool_call_bytes += bytes;
            self.tool_calls.add(&mut pieces).map_err(|_| Fault::next_model(AttemptResult::Malformed))?;
            ready.push_back(Delta::ToolCalls(Value::Array(pieces)));
        }
        self.add_fields(fields, ready)?;
        self.finish = finish.or(self.finish.take());
        self.usage = usage.or(self.usage);
        Ok(())
    }

    fn add_fields(&mut self, fields: ReplyFields, ready: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let ReplyFields { message, choice, reply } = fields;
        if !message.is_empty() {
            self.take_room(fields_bytes(&message))?;
            merge_fields(&mut self.fields.message, message.clone());
            ready.push_back(Delta::Fields(message));
        }
        // Providers repeat these with every chunk.
        let is_new = |seen: &Map<String, Value>, name: &str, value: &Value| seen.get(name) != Some(value);
        for (name, value) in choice {
            if is_new(&self.fields.choice, &name, &value) {
                self.take_room(name.len() + json_bytes(&value))?;
                self.fields.choice.insert(name, value);
            }
        }
        for (name, value) in reply {
            if is_new(&self.fields.reply, &name, &value) {
                self.take_room(name.len() + json_bytes(&value))?;
                self.fields.reply.insert(name, value);
            }
        }
        Ok(())
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes;
        if self.bytes > self.bytes_max { Err(Fault::next_model(AttemptResult::TooLarge)) } else { Ok(()) }
    }

    /// Whether a usage block can be true. Hidden reasoning may cost more tokens than the text has, but output
    /// cannot cost none, and nothing exceeds the context window.
    fn is_plausible(&self, usage: ReportedUsage, context_window: u64) -> bool {
        let ReportedUsage { prompt_tokens, completion_tokens, .. } = usage;
        let fits = prompt_tokens.saturating_add(completion_tokens) <= context_window;
        let has_output = !self.text.is_empty()
            || self.reasoning.is_some()
            || self.refusal.is_some()
            || self.tool_call_bytes > 0;
        fits && prompt_tokens > 0 && (completion_tokens > 0 || !has_output)
    }

    fn estimate(&self, prompt_tokens: u64) -> Usage {
        let texts = [Some(&self.text), self.refusal.as_ref()].into_iter().flatten();
        let shown: u64 = texts.map(|text| tokens::estimate(text)).sum();
        let reasoning_tokens =
            self.reasoning.as_ref().map_or(0, |reasoning| tokens::estimate(&reasoning.text));
        Usage {
            prompt_tokens,
            completion_tokens: shown + reasoning_tokens + self.tool_call_bytes as u64 / 4,
            reasoning_tokens,
            estimated: true,
            ..Usage::default()
        }
    }
}

impl From<ReportedUsage> for Usage {
    fn from(reported: ReportedUsage) -> Self {
        let ReportedUsage {
            prompt_tokens,
            completion_tokens,
            cached_prompt_tokens,
            cache_write_tokens,
            reasoning_tokens,
        } = reported;
        Self {
            prompt_tokens,
            completion_tokens,
            cached_prompt_tokens,
            cache_write_tokens,
            reasoning_tokens,
            ..Self::default()
        }
    }
}

fn fields_bytes(fields: &Map<String, Value>) -> usize {
    fields.iter().map(|(name, value)| name.len() + json_bytes(value)).sum()
}

fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(fields) => fields_bytes(fields),
        _ => 8,
    }
}
