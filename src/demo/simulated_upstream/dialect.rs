//! The part of the OpenAI dialect that the demo needs: chat completions, whole or as server-sent events, the list of
//! models, and errors.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Json,
    body::Bytes,
    extract,
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::{Stream, StreamExt as _};

use super::{MODELS, PROVIDER, State, timed_answer::TimedAnswer};
use crate::offline::simulated_verifier::VerificationCall;

/// The fields of a request that change the answer. Others, such as sampling parameters, are ignored.
#[derive(Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<ChatMessage>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    /// Absent from an assistant's turn that only calls tools.
    content: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Fields that every object of a reply repeats.
struct Head {
    id: String,
    model: String,
}

/// `GET /v1/models`
pub(super) async fn list_models() -> Json<Value> {
    let line = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": PROVIDER});
    let data: Vec<_> = MODELS.iter().map(|model| line(model.id)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `POST /v1/chat/completions`. When the client leaves, the answer ends with the connection.
pub(super) async fn chat_completions(
    extract::State(state): extract::State<Arc<State>>,
    body: Bytes,
) -> Response {
    let request: ChatRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the body is not a chat completion request"),
    };
    let Some(model) = MODELS.iter().find(|model| model.id == request.model) else {
        return refuse(StatusCode::NOT_FOUND, "the model does not exist");
    };
    let number = state.completions.fetch_add(1, Ordering::Relaxed);
    let messages: Vec<_> =
        request.messages.iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap_or(""))).collect();
    let verification = messages.last().and_then(|(_, text)| VerificationCall::parse(text));
    let answer = match verification {
        Some(call) => TimedAnswer::to_verification(&state.verifier, model, &messages, &call),
        None => TimedAnswer::new(&state.scripts, model, &messages, number),
    };
    let head = Head { id: format!("chatcmpl-simulated-{number}"), model: request.model };
    if request.stream {
        let usage = request.stream_options.is_some_and(|options| options.include_usage);
        Sse::new(events(&head, &answer, usage)).into_response()
    } else {
        sleep(answer.duration()).await;
        whole(&head, &answer).into_response()
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
    (status, Json(json!({"error": error}))).into_response()
}

fn whole(head: &Head, answer: &TimedAnswer) -> Json<Value> {
    let message = json!({"role": "assistant", "content": answer.text});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    Json(json!({
        "id": head.id, "object": "chat.completion", "created": 0, "model": head.model,
        "choices": [choice], "usage": usage(answer),
    }))
}

/// Returns the events of a streamed answer, each at its time.
fn events(
    head: &Head,
    answer: &TimedAnswer,
    with_usage: bool,
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let start = Instant::now();
    let mut timed =
        vec![(answer.first_token, head.chunk(&json!({"role": "assistant", "content": ""}), None))];
    for (at, piece) in answer.pieces() {
        timed.push((at, head.chunk(&json!({"content": piece}), None)));
    }
    let end = answer.duration();
    timed.push((end, head.chunk(&json!({}), Some("stop"))));
    if with_usage {
        timed.push((end, head.usage_chunk(answer)));
    }
    timed.push((end, "[DONE]".to_owned()));
    tokio_stream::iter(timed).then(move |(at, data)| async move {
        sleep_until(start + at).await;
        Ok(Event::default().data(data))
    })
}

fn usage(answer: &TimedAnswer) -> Value {
    let (prompt, completion) = (answer.prompt_tokens, answer.completion_tokens);
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

impl Head {
    fn chunk(&self, delta: &Value, finish_reason: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
        self.object(&json!([choice]), &Value::Null)
    }

    /// Usage has a chunk of its own, without choices.
    fn usage_chunk(&self, answer: &TimedAnswer) -> String {
        self.object(&json!([]), &usage(answer))
    }

    fn object(&self, choices: &Value, usage: &Value) -> String {
        let (id, model) = (&self.id, &self.model);
        json!({
            "id": id, "object": "chat.completion.chunk", "created": 0, "model": model,
            "choices": choices, "usage": usage,
        })
        .to_string()
    }
}
