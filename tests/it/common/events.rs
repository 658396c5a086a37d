//! Streamed answers as a client sees them.

use std::time::Duration;

use promptkeep::grpc::proto::{
    CompleteChunk, CompleteRequest, Finished, Outcome, Started, complete_chunk::Event,
};
use tonic::{Status, Streaming};

use super::test_server::Client;

/// Maximum wait for the next event; a longer one means that the stream hangs.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A streamed answer that a test reads event by event.
pub struct Events(Streaming<CompleteChunk>);

/// Everything that a stream sent, up to its end or an error.
#[derive(Debug, Default)]
pub struct StreamedReply {
    pub started: Option<Started>,
    pub text: String,
    /// Pieces of the tool calls, as JSON.
    pub tool_calls: Vec<String>,
    pub finished: Option<Finished>,
    /// Error that ended the stream early.
    pub error: Option<Status>,
}

impl Events {
    /// Returns once the server has admitted the request and, if an identical one is in flight, joined it.
    pub async fn open(client: &mut Client, request: impl tonic::IntoRequest<CompleteRequest>) -> Self {
        Self(client.complete_stream(request).await.expect("a stream").into_inner())
    }

    /// Returns the next event; panics at the end of the stream.
    pub async fn next(&mut self) -> Event {
        self.message().await.expect("no error").expect("an event").event.expect("a known event")
    }

    /// Returns the start event, which must be the next one.
    pub async fn started(&mut self) -> Started {
        match self.next().await {
            Event::Started(started) => started,
            other => panic!("expected the start event, got {other:?}"),
        }
    }

    /// Returns the next event, which must be a piece of text.
    pub async fn delta(&mut self) -> String {
        match self.next().await {
            Event::Delta(text) => text,
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// Reads the stream to its end.
    pub async fn rest(mut self) -> StreamedReply {
        let mut said = StreamedReply::default();
        loop {
            match self.message().await {
                Ok(Some(chunk)) => said.take(chunk.event.expect("a known event")),
                Ok(None) => return said,
                Err(error) => return StreamedReply { error: Some(error), ..said },
            }
        }
    }

    async fn message(&mut self) -> Result<Option<CompleteChunk>, Status> {
        tokio::time::timeout(EVENT_TIMEOUT, self.0.message()).await.expect("the stream hangs")
    }
}

impl StreamedReply {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started(started) => self.started = Some(started),
            Event::Delta(text) => self.text += &text,
            Event::ToolCallsDeltaJson(calls) => self.tool_calls.push(calls),
            Event::Finished(finished) => self.finished = Some(finished),
            // The scripted models of these tests only send text and tool calls.
            Event::ReasoningDelta(_) | Event::RefusalDelta(_) | Event::FieldsDeltaJson(_) => {}
        }
    }

    /// Returns the outcome if the stream ended without an error.
    pub fn outcome(&self) -> Outcome {
        self.finished.as_ref().map_or(Outcome::Unspecified, Finished::outcome)
    }
}
