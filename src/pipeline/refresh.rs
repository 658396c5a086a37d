//! The refresh of a stale entry by a model call in the background.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    AdmittedRequest, Pipeline,
    coalescing::{FlightFollower, FlightLeader, Join},
    flight::Event,
};
use crate::entry::Entry;

impl Pipeline {
    /// Starts the model call that replaces a stale entry. Returns `false` when one was started before, when the
    /// prompt is being answered right now, or when the server is full.
    pub(super) fn refresh(self: &Arc<Self>, request: &Arc<AdmittedRequest>, entry: &Entry) -> bool {
        let Ok(permit) = self.admission.permit(&request.settings) else { return false };
        if !self.exact.claim_stale(entry) {
            return false;
        }
        let Join::Lead(leader, follower) = self.coalescing.join(request) else { return false };
        let refresh = Arc::new(request.refresh(Instant::now() + request.settings.timeout, permit));
        self.tasks.spawn(Arc::clone(self).replace(refresh, leader, follower));
        true
    }

    /// Leads the flight and waits for its result. The follower keeps the flight from being abandoned.
    async fn replace(
        self: Arc<Self>,
        request: Arc<AdmittedRequest>,
        leader: FlightLeader,
        mut follower: FlightFollower,
    ) {
        Arc::clone(&self).lead(request, leader).await;
        let is_replaced = loop {
            if let Event::End(result) = follower.next().await {
                break result.is_ok();
            }
        };
        self.recording.refreshed(is_replaced);
    }
}
