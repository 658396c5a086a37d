//! Answers in the dialect.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{feedback::RequestId, model::Usage, prompt::Completion};

/// What every object about one answer begins with.
#[derive(Clone, Debug)]
pub(in crate::http) struct Head {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
}

// === impl Head ===

impl Head {
    pub fn new(id: RequestId, completion: &Completion) -> Self {
        Self::of_model(id, completion.model.clone())
    }

    pub fn of_model(id: RequestId, model: String) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { id: format!("chatcmpl-{id}"), created, model }
    }
}

/// The whole answer as one object.
pub(super) fn completion(head: &Head, completion: &Completion) -> Value {
    let Completion { content, tool_calls, finish_reason, model: _, tier: _, usage: used } = completion;
    let only_calls = content.is_empty() && tool_calls.is_some();
    let mut message =
        json!({ "role": "assistant", "content": (!only_calls).then_some(content), "refusal": null });
    if let Some(calls) = tool_calls {
        message["tool_calls"] = calls.clone();
    }
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason.as_str() }],
        "usage": usage(used),
    })
}

/// Of the call that bought the answer, also when a hit cost nothing.
pub(in crate::http) fn usage(usage: &Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens, .. } = *usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
    })
}
