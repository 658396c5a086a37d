//! A streamed answer as a client sees it.

use std::time::Duration;

use promptkeep::grpc::proto::{
    CompleteChunk, CompleteRequest, Finished, Outcome, Started, complete_chunk::Event,
};
use tonic::{Status, Streaming};

use super::test_server::Client;

/// Longest wait for the next event.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream that is being read.
pub struct Events(Streaming<CompleteChunk>);

/// What a stream said until its end.
#[derive(Debug, Default)]
pub struct Said {
    pub started: Option<Started>,
    pub text: String,
    /// The tool call pieces, as JSON.
    pub tool_calls: Vec<String>,
    pub finished: Option<Finished>,
    /// What ended it before its time.
    pub error: Option<Status>,
}

// === impl Events ===

impl Events {
    /// Returns once the server has taken the request, and joined it to another if there is one.
    pub async fn open(client: &mut Client, request: impl tonic::IntoRequest<CompleteRequest>) -> Self {
        Self(client.complete_stream(request).await.expect("a stream").into_inner())
    }

    /// The next event; panics at the end.
    pub async fn next(&mut self) -> Event {
        self.message().await.expect("no error").expect("an event").event.expect("a known event")
    }

    /// The first event.
    pub async fn started(&mut self) -> Started {
        match self.next().await {
            Event::Started(started) => started,
            other => panic!("{other:?} comes before the start"),
        }
    }

    /// The next piece of text.
    pub async fn delta(&mut self) -> String {
        match self.next().await {
            Event::Delta(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    /// Everything that still comes.
    pub async fn rest(mut self) -> Said {
        let mut said = Said::default();
        loop {
            match self.message().await {
                Ok(Some(chunk)) => said.take(chunk.event.expect("a known event")),
                Ok(None) => return said,
                Err(error) => return Said { error: Some(error), ..said },
            }
        }
    }

    async fn message(&mut self) -> Result<Option<CompleteChunk>, Status> {
        tokio::time::timeout(PATIENCE, self.0.message()).await.expect("the stream hangs")
    }
}

// === impl Said ===

impl Said {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started(started) => self.started = Some(started),
            Event::Delta(text) => self.text += &text,
            Event::ToolCallsDeltaJson(calls) => self.tool_calls.push(calls),
            Event::Finished(finished) => self.finished = Some(finished),
        }
    }

    /// How it ended, if it ended well.
    pub fn outcome(&self) -> Outcome {
        self.finished.as_ref().map_or(Outcome::Unspecified, Finished::outcome)
    }
}
