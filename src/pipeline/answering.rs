//! One caller's answer, as it comes: replayed from an entry, or followed from a flight.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::timeout_at;

use super::{
    Asked, Landing, Piece, Pipeline,
    record::Recorder,
    reply::{Chunk, Hit, Reply, Source, Started},
};
use crate::{
    error::Error,
    flight::{Event, Follower},
    outcome::Outcome,
    prompt::{Completion, Delta, prefix},
};

/// How often a caller waits for another leader after the models failed one. More would let one bad
/// minute of a provider keep a crowd trying in turn.
const REJOINS_MAX: u8 = 1;

/// How much longer than its deadline a caller waits for the flight, which has the same deadline when this
/// caller opened it: it knows which models were tried.
const LAST_WORD: Duration = Duration::from_millis(2);

/// Bytes of text in one piece of a replayed stream. gRPC clients refuse messages above 4 MiB unless told
/// otherwise, and most answers fit one piece.
const REPLAY_PIECE_MAX: usize = 256 * 1024;

/// An answer on its way to one caller.
pub struct Answering {
    pipeline: Arc<Pipeline>,
    asked: Arc<Asked>,
    record: Recorder,
    source: AnswerSource,
    /// Chunks that are ready to go out.
    ready: VecDeque<Chunk>,
    /// Something went out: from here on no other answer may follow.
    spoke: bool,
    rejoins: u8,
}

enum AnswerSource {
    Hit(Hit),
    Flight(Joined),
    Exhausted,
}

/// A place in a flight.
pub(super) struct Joined {
    pub(super) follower: Follower<Piece, Landing>,
    /// This caller opened the flight, so its failure is this caller's too.
    pub(super) led: bool,
}

// === impl Answering ===

impl Answering {
    pub(super) fn of_hit(pipeline: Arc<Pipeline>, asked: Arc<Asked>, record: Recorder, hit: Hit) -> Self {
        Self::new(pipeline, asked, record, AnswerSource::Hit(hit))
    }

    pub(super) fn of_flight(
        pipeline: Arc<Pipeline>,
        asked: Arc<Asked>,
        record: Recorder,
        joined: Joined,
    ) -> Self {
        Self::new(pipeline, asked, record, AnswerSource::Flight(joined))
    }

    fn new(pipeline: Arc<Pipeline>, asked: Arc<Asked>, record: Recorder, source: AnswerSource) -> Self {
        Self { pipeline, asked, record, source, ready: VecDeque::new(), spoke: false, rejoins: 0 }
    }

    /// The whole answer at once.
    ///
    /// # Errors
    /// As [`Answering::next`].
    pub async fn whole(mut self) -> Result<Reply, Error> {
        loop {
            if let Event::End(landed) = self.advance().await {
                return Ok(self.finish(landed?));
            }
        }
    }

    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// What ended the answer: the caller's deadline, or the failure of every model, or of the one that
    /// had begun.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.ready.is_empty() && !matches!(self.source, AnswerSource::Exhausted) {
            match self.advance().await {
                Event::Piece(piece) => self.pass_on(piece),
                Event::End(Ok(landed)) => self.land(landed),
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
        self.spoke = true;
        Ok(chunk)
    }

    /// The next event of the source, within the caller's deadline. A failure that was its leader's is
    /// handed over: this caller joins again, and leads if nobody else does.
    async fn advance(&mut self) -> Event<Piece, Landing> {
        loop {
            let joined = match &mut self.source {
                AnswerSource::Flight(joined) => joined,
                AnswerSource::Hit(hit) => return Event::End(Ok(Landing::Hit(hit.clone()))),
                AnswerSource::Exhausted => return Event::End(Err(Error::internal(&"read past the end"))),
            };
            let led = joined.led;
            let Ok(event) = timeout_at(self.asked.deadline + LAST_WORD, joined.follower.next()).await else {
                self.source = AnswerSource::Exhausted;
                return Event::End(Err(Error::DeadlineExceeded { attempts: Vec::new() }));
            };
            match event {
                Event::End(Err(error)) if !led && self.may_rejoin(&error) => {
                    self.source = AnswerSource::Flight(self.pipeline.join(&self.asked));
                }
                event => return event,
            }
        }
    }

    fn may_rejoin(&mut self, error: &Error) -> bool {
        if self.spoke {
            return false;
        }
        match error {
            // The leader had less time than we have. Each such turn uses up a leader.
            Error::DeadlineExceeded { .. } => true,
            Error::Unavailable { .. } | Error::Exhausted { .. } | Error::Internal { .. } => {
                self.rejoins += 1;
                self.rejoins <= REJOINS_MAX
            }
            // Any leader would be told the same.
            _ => false,
        }
    }

    fn pass_on(&mut self, piece: Piece) {
        self.ready.push_back(match piece {
            Piece::Delta(delta) => Chunk::Delta(delta),
            Piece::Started { model, tier, is_shared } => Chunk::Started(Started {
                id: self.asked.id,
                outcome: self.bought_outcome(is_shared),
                matched: None,
                model,
                tier: tier.to_owned(),
            }),
        });
    }

    /// A hit is replayed as a stream; a bought answer has already been streamed.
    fn land(&mut self, landed: Landing) {
        if let Landing::Hit(hit) = &landed {
            self.ready.push_back(Chunk::Started(self.started(hit)));
            self.ready.extend(deltas(&hit.entry.completion).map(Chunk::Delta));
        }
        let reply = self.finish(landed);
        self.ready.push_back(Chunk::Finished(reply));
    }

    fn started(&self, hit: &Hit) -> Started {
        let Completion { model, tier, .. } = &hit.entry.completion;
        Started {
            id: self.asked.id,
            outcome: hit.outcome,
            matched: Some(hit.matched()),
            model: model.clone(),
            tier: tier.clone(),
        }
    }

    /// Counts and remembers the answer.
    fn finish(&mut self, landed: Landing) -> Reply {
        let (entry, pair) = match &landed {
            Landing::Hit(hit) => (Some(hit.entry.key), hit.pair.clone()),
            Landing::Bought { shared_with, .. } => (*shared_with, None),
        };
        let reply = match landed {
            Landing::Hit(hit) => self.hit_reply(&hit),
            Landing::Bought { bought, shared_with } => {
                let outcome = self.bought_outcome(shared_with.is_some());
                let coalesced = outcome == Outcome::Coalesced;
                Reply {
                    id: self.asked.id,
                    outcome,
                    matched: bought.missed.nearest.clone(),
                    reason: (!coalesced).then_some(bought.missed.reason),
                    saved_usd: if coalesced { bought.completion.usage.cost_usd } else { 0.0 },
                    answer: Source::Bought(bought),
                }
            }
        };
        self.source = AnswerSource::Exhausted;
        if reply.matched.as_ref().is_some_and(|matched| matched.is_stale) {
            self.record.stale();
        }
        self.pipeline
            .replies
            .remember(reply.id, self.asked.served(reply.outcome, reply.completion(), entry, pair));
        self.record.answered(&self.pipeline.upstreams, reply.completion());
        self.record.finish(reply.outcome, reply.reason, reply.saved_usd);
        reply
    }

    fn hit_reply(&self, hit: &Hit) -> Reply {
        let saved_usd = self.pipeline.saved(&self.asked, hit);
        self.pipeline.note_semantic(&self.asked, hit, saved_usd);
        Reply {
            id: self.asked.id,
            outcome: hit.outcome,
            matched: Some(hit.matched()),
            reason: None,
            saved_usd,
            answer: Source::Entry(Arc::clone(&hit.entry)),
        }
    }

    fn bought_outcome(&self, is_shared: bool) -> Outcome {
        match &self.source {
            _ if self.asked.cache.no_cache => Outcome::Bypass,
            _ if is_shared => Outcome::Coalesced,
            AnswerSource::Flight(Joined { led: false, .. }) => Outcome::Coalesced,
            _ => Outcome::Upstream,
        }
    }
}

/// A kept answer as a stream gives it.
pub fn deltas(completion: &Completion) -> impl Iterator<Item = Delta> {
    let text = pieces(&completion.content, REPLAY_PIECE_MAX).map(|piece| Delta::Text(piece.to_owned()));
    let calls = completion.tool_calls.clone().map(|calls| Delta::ToolCalls(indexed(calls)));
    text.chain(calls)
}

/// `text` in pieces of at most `bytes_max` bytes (at least 4, the longest character), none of them empty.
fn pieces(mut text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(prefix(text, bytes_max).len());
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// In a stream each tool call carries its position.
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
