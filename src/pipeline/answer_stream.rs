//! One caller's answer as a stream: replayed from an entry, or followed from a flight.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::timeout_at;

use super::{
    AdmittedRequest, FlightResult, Pipeline,
    coalescing::{FlightFollower, Piece},
    flight::Event,
    recording::Recorder,
    reply::{Chunk, Hit, Reply, Source, Started},
};
use crate::{
    error::Error,
    outcome::Outcome,
    prompt::{Completion, Delta, Reasoning, prefix},
};

/// Number of times that a caller joins another leader after the models failed one. More would make a crowd retry in
/// turn while a provider is down.
const REJOINS_MAX: u8 = 1;

/// Time past its deadline that a caller waits for its flight. A flight that this caller opened has the same deadline,
/// and its error lists the models that were tried.
const FLIGHT_GRACE: Duration = Duration::from_millis(2);

/// Maximum bytes of text in one piece of a replayed stream. gRPC clients refuse messages above 4 MiB by default, and
/// most answers fit one piece.
const REPLAY_PIECE_MAX: usize = 256 * 1024;

/// An answer on its way to one caller.
pub struct AnswerStream {
    pipeline: Arc<Pipeline>,
    request: Arc<AdmittedRequest>,
    record: Recorder,
    source: AnswerSource,
    /// Chunks that are ready to go out.
    ready: VecDeque<Chunk>,
    /// A chunk was sent: from here on no other answer may follow.
    has_streamed: bool,
    rejoins: u8,
}

enum AnswerSource {
    Hit(Hit),
    Flight(Joined),
    Exhausted,
}

/// A follower of a flight.
pub(super) struct Joined {
    pub(super) follower: FlightFollower,
    /// This caller opened the flight, so its failure is this caller's own.
    pub(super) led: bool,
}

impl AnswerStream {
    pub(super) fn of_hit(
        pipeline: Arc<Pipeline>,
        request: Arc<AdmittedRequest>,
        record: Recorder,
        hit: Hit,
    ) -> Self {
        Self::new(pipeline, request, record, AnswerSource::Hit(hit))
    }

    pub(super) fn of_flight(
        pipeline: Arc<Pipeline>,
        request: Arc<AdmittedRequest>,
        record: Recorder,
        joined: Joined,
    ) -> Self {
        Self::new(pipeline, request, record, AnswerSource::Flight(joined))
    }

    fn new(
        pipeline: Arc<Pipeline>,
        request: Arc<AdmittedRequest>,
        record: Recorder,
        source: AnswerSource,
    ) -> Self {
        Self { pipeline, request, record, source, ready: VecDeque::new(), has_streamed: false, rejoins: 0 }
    }

    /// The whole answer at once.
    ///
    /// # Errors
    /// The errors of [`AnswerStream::next`].
    pub async fn whole(mut self) -> Result<Reply, Error> {
        loop {
            if let Event::End(result) = self.advance().await {
                return Ok(self.finish(result?));
            }
        }
    }

    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// The caller's deadline, the failure of every model, or of the one that had begun to answer.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.ready.is_empty() && !matches!(self.source, AnswerSource::Exhausted) {
            match self.advance().await {
                Event::Piece(piece) => self.push_piece(piece),
                Event::End(Ok(result)) => self.push_result(result),
                Event::End(Err(error)) => {
                    self.source = AnswerSource::Exhausted;
                    self.record.close();
                    return Err(error);
                }
            }
        }
        let chunk = self.ready.pop_front();
        match &chunk {
            Some(Chunk::Delta(_)) => self.record.first_token(),
            Some(Chunk::Finished(_)) => self.record.close(),
            Some(Chunk::Started(_)) | None => {}
        }
        self.has_streamed = true;
        Ok(chunk)
    }

    /// The next event of the source, within the caller's deadline. After a failure that was its leader's alone, this
    /// caller joins again, and leads if nobody else does.
    async fn advance(&mut self) -> Event<Piece, FlightResult> {
        loop {
            let joined = match &mut self.source {
                AnswerSource::Flight(joined) => joined,
                AnswerSource::Hit(hit) => return Event::End(Ok(FlightResult::Hit(hit.clone()))),
                AnswerSource::Exhausted => return Event::End(Err(Error::internal(&"read past the end"))),
            };
            let led = joined.led;
            let Ok(event) = timeout_at(self.request.deadline + FLIGHT_GRACE, joined.follower.next()).await
            else {
                self.source = AnswerSource::Exhausted;
                return Event::End(Err(Error::DeadlineExceeded { attempts: Vec::new() }));
            };
            match event {
                Event::End(Err(error)) if !led && self.may_rejoin(&error) => {
                    self.source = AnswerSource::Flight(self.pipeline.join(&self.request));
                }
                event => return event,
            }
        }
    }

    fn may_rejoin(&mut self, error: &Error) -> bool {
        if self.has_streamed {
            return false;
        }
        match error {
            // The leader had less time than this caller. Each such turn uses up a leader.
            Error::DeadlineExceeded { .. } => true,
            Error::Unavailable { .. } | Error::Exhausted { .. } | Error::Internal { .. } => {
                self.rejoins += 1;
                self.rejoins <= REJOINS_MAX
            }
            // Another leader would fail too.
            _ => false,
        }
    }

    fn push_piece(&mut self, piece: Piece) {
        self.ready.push_back(match piece {
            Piece::Delta(delta) => Chunk::Delta(delta),
            Piece::Started { model, tier, is_shared } => Chunk::Started(Started {
                id: self.request.id,
                outcome: self.upstream_outcome(is_shared),
                matched: None,
                model,
                tier: tier.to_owned(),
            }),
        });
    }

    /// A hit is replayed as a stream; the answer of a model has been streamed already.
    fn push_result(&mut self, result: FlightResult) {
        if let FlightResult::Hit(hit) = &result {
            self.ready.push_back(Chunk::Started(self.started(hit)));
            self.ready.extend(deltas(&hit.entry.completion).map(Chunk::Delta));
        }
        let reply = self.finish(result);
        self.ready.push_back(Chunk::Finished(reply));
    }

    fn started(&self, hit: &Hit) -> Started {
        let Completion { model, tier, .. } = &hit.entry.completion;
        Started {
            id: self.request.id,
            outcome: hit.outcome,
            matched: Some(hit.matched()),
            model: model.clone(),
            tier: tier.clone(),
        }
    }

    /// Counts the answer and remembers it for feedback.
    fn finish(&mut self, result: FlightResult) -> Reply {
        let (entry, pair) = match &result {
            FlightResult::Hit(hit) => (Some(hit.entry.key), hit.pair.clone()),
            FlightResult::Completed { shared_with, .. } => (*shared_with, None),
        };
        let reply = match result {
            FlightResult::Hit(hit) => self.hit_reply(&hit),
            FlightResult::Completed { completed, shared_with } => {
                let outcome = self.upstream_outcome(shared_with.is_some());
                let coalesced = outcome == Outcome::Coalesced;
                Reply {
                    id: self.request.id,
                    outcome,
                    matched: completed.missed.nearest.clone(),
                    reason: (!coalesced).then_some(completed.missed.reason),
                    saved_usd: if coalesced { completed.completion.usage.cost_usd } else { 0.0 },
                    answer: Source::Upstream(completed),
                }
            }
        };
        self.source = AnswerSource::Exhausted;
        if reply.matched.as_ref().is_some_and(|matched| matched.is_stale) {
            self.record.stale();
        }
        let recording = &self.pipeline.recording;
        recording.remember(reply.id, self.request.served(reply.outcome, reply.completion(), entry, pair));
        recording.answered(&mut self.record, reply.completion());
        self.record.approved(reply.matched.as_ref().and_then(|matched| matched.approval));
        self.record.verified(self.request.verified.get().copied());
        self.record.finish(reply.outcome, reply.reason, reply.saved_usd);
        reply
    }

    fn hit_reply(&self, hit: &Hit) -> Reply {
        let recording = &self.pipeline.recording;
        let saved_usd = recording.saved(&self.request, hit);
        recording.remember_semantic(&self.request, hit, saved_usd);
        Reply {
            id: self.request.id,
            outcome: hit.outcome,
            matched: Some(hit.matched()),
            reason: None,
            saved_usd,
            answer: Source::Entry(Arc::clone(&hit.entry)),
        }
    }

    fn upstream_outcome(&self, is_shared: bool) -> Outcome {
        match &self.source {
            _ if self.request.cache.no_cache => Outcome::Bypass,
            _ if is_shared => Outcome::Coalesced,
            AnswerSource::Flight(Joined { led: false, .. }) => Outcome::Coalesced,
            _ => Outcome::Upstream,
        }
    }
}

/// The deltas that replay a cached answer.
pub fn deltas(completion: &Completion) -> impl Iterator<Item = Delta> {
    let thought = completion.reasoning.iter().flat_map(|Reasoning { text, field }| {
        let piece = |piece: &str| Delta::Reasoning(Reasoning { text: piece.to_owned(), field: *field });
        pieces(text, REPLAY_PIECE_MAX).map(piece)
    });
    let text = pieces(&completion.content, REPLAY_PIECE_MAX).map(|piece| Delta::Text(piece.to_owned()));
    let refusal = completion.refusal.clone().map(Delta::Refusal);
    let calls = completion.tool_calls.clone().map(|calls| Delta::ToolCalls(indexed(calls)));
    let fields = &completion.extra.message;
    let fields = (!fields.is_empty()).then(|| Delta::Fields(fields.clone()));
    thought.chain(text).chain(refusal).chain(calls).chain(fields)
}

/// `text` in pieces of at most `bytes_max` bytes (at least 4, the longest character), none of them empty.
fn pieces(mut text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(prefix(text, bytes_max).len());
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Adds to each tool call its position, as streams carry it.
fn indexed(mut calls: serde_json::Value) -> serde_json::Value {
    for (index, call) in calls.as_array_mut().into_iter().flatten().enumerate() {
        if let Some(call) = call.as_object_mut() {
            call.insert("index".to_owned(), index.into());
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_replayed_text_is_cut_between_characters_and_lost_nowhere() {
        for (text, cut) in [
            ("", vec![]),
            ("abcd", vec!["abcd"]),
            ("abcde", vec!["abcd", "e"]),
            ("aéíóú", vec!["aé", "íó", "ú"]),
            ("a😀b", vec!["a", "😀", "b"]),
        ] {
            assert_eq!(pieces(text, 4).collect::<Vec<_>>(), cut);
        }
    }
}
