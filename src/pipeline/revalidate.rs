//! `cache.stale_while_revalidate`: an answer past its TTL is served once more, while a model call in the
//! background replaces it. An exact repeat only: it is the same prompt that is asked anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{Asked, FlightKey, Hit, Landing, Piece, Pipeline};
use crate::{
    entry::Entry,
    flight::{Event, Follower, Joined, Leader},
    key::CacheKey,
};

/// Stale answers remembered as served. While there are so many, no further one is served stale.
const SERVED_MAX: usize = 16_384;

/// Which answers were served past their TTL, so that none is twice, whatever became of its refresh.
#[derive(Default)]
pub(super) struct ServedStale {
    /// Until when each entry might be served, which also tells it from the one that replaces it. A std mutex:
    /// held for one look, or for forgetting what is over.
    until: Mutex<HashMap<CacheKey, SystemTime>>,
}

// === impl ServedStale ===

impl ServedStale {
    /// Whether the entry may be served now: the first to ask has it.
    fn claim(&self, entry: &Entry, now: SystemTime) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= SERVED_MAX {
            until.retain(|_, until| *until > now);
        }
        let kept_until = entry.kept_until();
        until.len() < SERVED_MAX && until.insert(entry.key, kept_until) != Some(kept_until)
    }

    /// Whether it was served already.
    fn has(&self, entry: &Entry) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&entry.key) == Some(&entry.kept_until())
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// An identical prompt answered before: still fresh enough, or past its TTL and then being refreshed.
    pub(super) async fn exact_or_stale(self: &Arc<Self>, asked: &Arc<Asked>) -> Option<Hit> {
        if asked.cache.no_cache {
            return None;
        }
        let entry = self.cache.get_kept(asked.key).await?;
        if self.serves(asked, &entry) {
            return Some(Hit::exact(entry));
        }
        (self.may_serve_stale(asked, &entry) && self.refresh(asked, &entry)).then(|| Hit::stale(entry))
    }

    /// Whether [`Pipeline::complete`] would serve what it has of this prompt past its TTL.
    pub(super) async fn would_serve_stale(&self, asked: &Asked) -> bool {
        if asked.cache.no_cache {
            return false;
        }
        let entry = self.cache.get_kept(asked.key).await;
        entry.is_some_and(|entry| self.may_serve_stale(asked, &entry) && !self.served_stale.has(&entry))
    }

    /// A caller that sets a TTL of its own, or lets nothing be kept, gets no answer past its time.
    fn may_serve_stale(&self, asked: &Asked, entry: &Entry) -> bool {
        let now = SystemTime::now();
        let stale_for = asked.stale_for().min(entry.stale_for);
        let is_stale = !entry.is_live(now) && now < entry.expires + stale_for;
        is_stale
            && !asked.cache.no_store
            && asked.takes_age(entry, now)
            && self.is_good_enough(asked, entry.difficulty, entry)
    }

    /// Starts the one call that replaces the entry; `false` when it was started before, or when the prompt
    /// is being answered at this moment, or when there is no place among the requests under way.
    fn refresh(self: &Arc<Self>, asked: &Arc<Asked>, entry: &Entry) -> bool {
        let Ok(place) = self.admission.enter(asked.settings.max_in_flight) else { return false };
        if !self.served_stale.claim(entry, SystemTime::now()) {
            return false;
        }
        let Joined::Lead(leader, follower) = self.flights.join(FlightKey(asked.key, asked.flight_salt()))
        else {
            return false;
        };
        let asking = Arc::new(asked.again(Instant::now() + asked.settings.timeout, place));
        self.tasks.spawn(Arc::clone(self).buy_again(asking, leader, follower));
        true
    }

    /// Answers for the cache, and for whoever joins meanwhile. The follower keeps the flight from being
    /// abandoned.
    async fn buy_again(
        self: Arc<Self>,
        asked: Arc<Asked>,
        leader: Leader<FlightKey, Piece, Landing>,
        mut follower: Follower<Piece, Landing>,
    ) {
        Arc::clone(&self).lead(asked, leader).await;
        let is_replaced = loop {
            if let Event::End(landed) = follower.next().await {
                break landed.is_ok();
            }
        };
        self.metrics.refresh(is_replaced);
        if !is_replaced {
            // Each attempt has told why.
            tracing::warn!("an answer past its TTL could not be replaced");
        }
    }
}
