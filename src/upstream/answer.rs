//! An answer in the making: hands on what the model says as it comes, and gathers it.

use std::{collections::VecDeque, fmt, sync::Arc};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Attempt, AttemptReason, AttemptResult,
    call::Fault,
    catalog::Model,
    openai::{Chunk, ReportedUsage, ToolCalls},
    reply::Reply,
    tokens,
};
use crate::{
    error::Error,
    prompt::{Completion, Delta, FinishReason, Usage},
};

/// Is told of every call of a model as it ends, also of those that nobody waits for any more.
pub type OnAttempt = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// An answer whose first token has come. Dropping it cancels the call.
pub struct Answer {
    reply: Reply,
    meter: Meter,
    gathered: Gathered,
    /// Deltas read but not yet handed on.
    ready: VecDeque<Delta>,
    /// Calls of this request that have ended.
    attempts: Vec<Attempt>,
    ended: bool,
}

/// Measures one call and tells of its end exactly once, whatever that is.
pub(super) struct Meter {
    pub model: Arc<Model>,
    pub reason: AttemptReason,
    pub started: Instant,
    pub first_token: Option<Instant>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u64,
    pub on_attempt: Option<OnAttempt>,
    told: bool,
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
    /// Reads until the first token, or the end of an empty answer.
    pub(super) async fn begin(
        mut reply: Reply,
        mut meter: Meter,
        until: Instant,
        bytes_max: usize,
    ) -> Result<Self, (Fault, Meter)> {
        let mut gathered = Gathered { bytes_max, ..Gathered::default() };
        let mut ready = VecDeque::new();
        let mut ended = false;
        while ready.is_empty() && !ended {
            let step = match reply.next_until(until, AttemptResult::FirstTokenTimeout).await {
                Ok(Some(chunk)) => gathered.add(chunk, &mut ready),
                Ok(None) => {
                    ended = true;
                    Ok(())
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = step {
                return Err((fault, meter));
            }
        }
        meter.first_token = Some(Instant::now());
        Ok(Self { reply, meter, gathered, ready, attempts: Vec::new(), ended })
    }

    pub(super) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.attempts = attempts;
        self
    }

    /// Id of the model that answers.
    pub fn model(&self) -> &str {
        &self.meter.model.config.id
    }

    /// Tier of the model that answers.
    pub fn tier(&self) -> super::Tier {
        self.meter.model.tier()
    }

    /// Calls of this request that have ended: the failed ones.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The next piece; `None` when the model has said that the answer is whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::DeadlineExceeded`] when the answer broke off. What came until
    /// then is not an answer.
    pub async fn next(&mut self) -> Result<Option<Delta>, Error> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Ok(Some(delta));
            }
            if self.ended {
                return Ok(None);
            }
            let step = match self.reply.next().await {
                Ok(Some(chunk)) => self.gathered.add(chunk, &mut self.ready),
                Ok(None) => {
                    self.ended = true;
                    Ok(())
                }
                Err(fault) => Err(fault),
            };
            step.map_err(|fault| self.break_off(&fault))?;
        }
    }

    /// The whole answer and every call it took. Call it after [`Answer::next`] has returned `None`; what
    /// was not read by then is lost and the answer marked as not whole.
    pub fn finish(mut self) -> (Completion, Vec<Attempt>) {
        let usage = self.usage();
        let gathered = std::mem::take(&mut self.gathered);
        let tool_calls = gathered.tool_calls.into_value();
        let finish_reason = match gathered.finish {
            _ if !self.ended => FinishReason::Other("unread".to_owned()),
            Some(reason) => reason,
            None if tool_calls.is_some() => FinishReason::ToolCalls,
            None => FinishReason::Stop,
        };
        let result = if self.ended { AttemptResult::Ok } else { AttemptResult::Cancelled };
        let attempt = self.meter.end(result, usage);
        let mut attempts = std::mem::take(&mut self.attempts);
        attempts.push(attempt);
        let completion = Completion {
            content: gathered.text,
            tool_calls,
            finish_reason,
            model: self.model().to_owned(),
            tier: self.tier().as_str().to_owned(),
            usage,
        };
        (completion, attempts)
    }

    /// The first token is out, so no other model may go on.
    fn break_off(&mut self, fault: &Fault) -> Error {
        let usage = self.usage();
        self.attempts.push(self.meter.end(fault.result, usage));
        let attempts = std::mem::take(&mut self.attempts);
        match fault.result {
            AttemptResult::Deadline => Error::DeadlineExceeded { attempts },
            _ => Error::Unavailable { message: "the answer broke off", attempts },
        }
    }

    fn usage(&self) -> Usage {
        let estimated = Usage {
            prompt_tokens: self.meter.prompt_tokens,
            completion_tokens: self.gathered.estimate_tokens(),
            cost_usd: 0.0,
            estimated: true,
        };
        self.meter.model.price(self.gathered.usage.map_or(estimated, |reported| Usage {
            prompt_tokens: reported.prompt_tokens,
            completion_tokens: reported.completion_tokens,
            cost_usd: 0.0,
            estimated: false,
        }))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.meter.told {
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

// === impl Meter ===

impl Meter {
    pub fn start(
        model: Arc<Model>,
        reason: AttemptReason,
        prompt_tokens: u64,
        on_attempt: Option<OnAttempt>,
    ) -> Self {
        let started = Instant::now();
        Self { model, reason, started, first_token: None, prompt_tokens, on_attempt, told: false }
    }

    /// Ends the call. Telling its end twice would count its cost twice.
    pub fn end(&mut self, result: AttemptResult, usage: Usage) -> Attempt {
        debug_assert!(!self.told, "a call ends once");
        self.told = true;
        let attempt = Attempt {
            model: self.model.config.id.clone(),
            tier: self.model.tier().as_str().to_owned(),
            provider: self.model.provider.name.clone(),
            result,
            reason: self.reason,
            elapsed: self.started.elapsed(),
            first_token: self.first_token.map(|at| at.duration_since(self.started)),
            usage,
        };
        if let Some(on_attempt) = &self.on_attempt {
            on_attempt(&attempt);
        }
        attempt
    }
}

impl Drop for Meter {
    /// Nobody waits any more: the provider may bill what it has read.
    fn drop(&mut self) {
        if !self.told {
            let usage = Usage { prompt_tokens: self.prompt_tokens, estimated: true, ..Usage::default() };
            self.end(AttemptResult::Cancelled, self.model.price(usage));
        }
    }
}

// === impl Gathered ===

impl Gathered {
    fn add(&mut self, chunk: Chunk, ready: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let Chunk { text, tool_calls, finish, usage } = chunk;
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
