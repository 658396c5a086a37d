//! Replies of the fake provider: a head, events, and a way to end.

use serde_json::{Value, json};

use super::Gate;

/// A scripted reply. Constructors build a complete one; methods break it.
#[derive(Clone)]
pub struct Reply {
    pub(super) head: Head,
    /// Pieces of the body, each written on its own.
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) ending: Ending,
    /// Gates to wait for before the piece of this number; piece 0 comes right after the head.
    pub(super) gates: Vec<(usize, Gate)>,
    /// Gate to wait for before the head.
    pub(super) head_gate: Option<Gate>,
}

#[derive(Clone)]
pub(super) enum Head {
    Send {
        status: u16,
        headers: Vec<(String, String)>,
    },
    /// Goes to the ending without sending a head.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Ends the body properly.
    Whole,
    /// Sends nothing more and keeps the connection open until the client disconnects.
    Stall,
    /// Closes the connection in the middle.
    Close,
    /// Resets the connection.
    Reset,
}

impl Reply {
    /// Streams an answer word by word, with finish reason, usage and `[DONE]`.
    pub fn text(text: &str) -> Self {
        let words: Vec<&str> = text.split_inclusive(' ').collect();
        let mut events: Vec<Value> = words.iter().map(|word| delta(&json!({ "content": word }))).collect();
        events.insert(0, delta(&json!({ "role": "assistant", "content": "" })));
        Self::events(events).finish("stop").usage(10, words.len() as u64).done()
    }

    /// Streams tool calls only, from `delta.tool_calls` arrays.
    pub fn tool_calls(pieces: impl IntoIterator<Item = Value>) -> Self {
        let events = pieces.into_iter().map(|calls| delta(&json!({ "tool_calls": calls })));
        Self::events(events).finish("tool_calls").usage(10, 5).done()
    }

    /// Streams these events and ends the body properly.
    pub fn events(events: impl IntoIterator<Item = Value>) -> Self {
        Self::stream(events.into_iter().map(|event| format!("data: {event}\n\n").into_bytes()))
    }

    /// Streams these bytes, each piece written on its own.
    pub fn stream(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::ok("text/event-stream", pieces.into_iter().collect())
    }

    /// Sends JSON instead of a stream.
    pub fn json(body: &Value) -> Self {
        Self::raw("application/json", body.to_string())
    }

    /// Sends status 200 with any body.
    pub fn raw(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::ok(content_type, vec![body.into()])
    }

    /// Sends an error with the body of the OpenAI dialect.
    pub fn status(status: u16) -> Self {
        let body = json!({ "error": { "message": format!("scripted {status}"), "type": "scripted" } });
        let mut reply = Self::json(&body);
        reply.head = Head::Send { status, headers: vec![("content-type".into(), "application/json".into())] };
        reply
    }

    /// Streams the letter `x`, repeated to `bytes` bytes, in events of 64 KiB.
    pub fn huge(bytes: usize) -> Self {
        let event = delta(&json!({ "content": "x".repeat(64 * 1024) }));
        Self::events(vec![event; bytes.div_ceil(64 * 1024)]).finish("stop").done()
    }

    /// Sends nothing and keeps the connection open until the client disconnects.
    pub fn stall() -> Self {
        Self::without_head(Ending::Stall)
    }

    /// Closes the connection before the head.
    pub fn close() -> Self {
        Self::without_head(Ending::Close)
    }

    /// Resets the connection before the head.
    pub fn reset() -> Self {
        Self::without_head(Ending::Reset)
    }

    /// Adds a finish reason.
    pub fn finish(self, reason: &str) -> Self {
        self.event(&json!({ "object": "chat.completion.chunk",
            "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }))
    }

    /// Adds a usage block.
    pub fn usage(self, prompt_tokens: u64, completion_tokens: u64) -> Self {
        self.event(&json!({ "object": "chat.completion.chunk", "choices": [], "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens.saturating_add(completion_tokens) } }))
    }

    /// Adds `[DONE]`.
    pub fn done(mut self) -> Self {
        self.pieces.push(b"data: [DONE]\n\n".to_vec());
        self
    }

    /// Adds any event.
    pub fn event(mut self, event: &Value) -> Self {
        self.pieces.push(format!("data: {event}\n\n").into_bytes());
        self
    }

    /// Removes events that contain this text, such as `usage`, `[DONE]` or `finish_reason`.
    pub fn without(mut self, text: &str) -> Self {
        self.pieces.retain(|piece| !String::from_utf8_lossy(piece).contains(text));
        self
    }

    /// Replaces a text everywhere in the body.
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        for piece in &mut self.pieces {
            *piece = String::from_utf8_lossy(piece).replace(from, to).into_bytes();
        }
        self
    }

    pub fn retry_after(self, value: &str) -> Self {
        self.header("retry-after", value)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Head::Send { headers, .. } = &mut self.head {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Writes the body in two pieces, split at this byte.
    pub fn split_at(mut self, byte: usize) -> Self {
        let body = self.pieces.concat();
        let (first, second) = body.split_at(byte.min(body.len()));
        self.pieces = vec![first.to_vec(), second.to_vec()];
        self
    }

    /// Length of the body in bytes.
    pub fn body_len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Sends `pieces` of the body, then nothing more.
    pub fn stall_after(self, pieces: usize) -> Self {
        self.cut(pieces, Ending::Stall)
    }

    /// Sends `pieces` of the body, then closes the connection.
    pub fn close_after(self, pieces: usize) -> Self {
        self.cut(pieces, Ending::Close)
    }

    /// Sends `pieces` of the body, then resets the connection.
    pub fn reset_after(self, pieces: usize) -> Self {
        self.cut(pieces, Ending::Reset)
    }

    /// Waits for `gate` before the piece of this number.
    pub fn hold_before(mut self, piece: usize, gate: &Gate) -> Self {
        self.gates.push((piece, gate.clone()));
        self
    }

    /// Waits for `gate` before the head.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    fn cut(mut self, pieces: usize, ending: Ending) -> Self {
        self.pieces.truncate(pieces);
        self.ending = ending;
        self
    }

    fn ok(content_type: &str, pieces: Vec<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        let head = Head::Send { status: 200, headers };
        Self { head, pieces, ending: Ending::Whole, gates: Vec::new(), head_gate: None }
    }

    fn without_head(ending: Ending) -> Self {
        Self { head: Head::Never, pieces: Vec::new(), ending, gates: Vec::new(), head_gate: None }
    }
}

/// Chunk of the OpenAI dialect with this delta.
pub fn delta(delta: &Value) -> Value {
    json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
}
